//! Draws random configurations: every combination of kinds to create, with random values for everything else.

use proptest::prelude::*;
use proptest::sample::select;

use crate::{UserKind, targets::Target};

/// The kinds, each with the flag that creates it and its clone flag. Their order defines the bits of a
/// combination.
pub(crate) const KINDS: [(&str, &str, u32); 8] = [
    ("user", "--user", 0x1000_0000),
    ("mnt", "--mount", 0x0002_0000),
    ("pid", "--pid", 0x2000_0000),
    ("net", "--net", 0x4000_0000),
    ("ipc", "--ipc", 0x0800_0000),
    ("uts", "--uts", 0x0400_0000),
    ("cgroup", "--cgroup", 0x0200_0000),
    ("time", "--time", 0x0000_0080),
];

const USER: usize = 0;
const MNT: usize = 1;
const PID: usize = 2;
const TIME: usize = 7;

/// A command and its exit status. Running as pid 1, it is not killed by a signal that it sends to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Command {
    pub(crate) words: &'static [&'static str],
    pub(crate) status: i32,
    pub(crate) as_pid_1: i32,
    /// The search finds the command.
    pub(crate) there: bool,
}

const fn command(words: &'static [&'static str], status: i32) -> Command {
    Command { words, status, as_pid_1: status, there: true }
}

const fn missing_command(words: &'static [&'static str], status: i32) -> Command {
    Command { there: false, ..command(words, status) }
}

const COMMANDS: &[Command] = &[
    command(&["true"], 0),
    command(&["/bin/true"], 0),
    command(&["sh", "-c", "exit 7"], 7),
    command(&["false"], 1),
    Command { as_pid_1: 9, ..command(&["sh", "-c", "kill -TERM $$; exit 9"], 143) },
];

const NO_COMMANDS: &[Command] = &[
    missing_command(&["no-such-command", "it", "ran"], 127),
    missing_command(&["/no/such/command"], 127),
    missing_command(&["/etc/passwd/sh"], 126),
    missing_command(&["/etc/passwd"], 126),
    missing_command(&["/etc"], 126),
];

/// The place of a namespace to join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The namespace of the right kind of this target.
    Of(Target),
    /// A namespace of another kind of this target.
    OtherKind(Target),
    /// The caller's own namespace.
    Own,
    Missing,
    BelowFile,
    Fifo,
    Regular,
}

/// The ids of one map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ids {
    /// No flag, which maps the own id to 0.
    Unset,
    /// An explicit line that maps the own id to 0.
    Own,
    /// `auto`: all subordinate ids.
    Auto,
    /// Subordinate ids only.
    Wide,
    /// The own id, then subordinate ids.
    Both,
    /// More than five lines: the kernel stores such a map in a sorted array.
    Many,
    /// One id that the caller may not map.
    Foreign,
}

/// A configuration: one start of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    /// Bit n is set: kind n of [`KINDS`] is created.
    pub(crate) created: u8,
    pub(crate) root_flag: bool,
    pub(crate) users: Ids,
    pub(crate) groups: Ids,
    pub(crate) setgroups: Option<bool>,
    pub(crate) monotonic: Option<i64>,
    pub(crate) boottime: Option<i64>,
    pub(crate) oom: Option<i32>,
    pub(crate) mount_proc: bool,
    pub(crate) kill_child: bool,
    /// The program runs with no_new_privs set, so the setuid bits of the mapping tools have no effect.
    pub(crate) no_new_privs: bool,
    /// The place to join for each kind, which is not created then.
    pub(crate) joins: [Option<Place>; 8],
    pub(crate) command: Command,
}

/// Draws a configuration with this combination of kinds. `alone` leaves out joins and mapping tools, which an
/// ordinary user's own strace cannot trace.
pub(crate) fn config(who: UserKind, alone: bool, created: u8) -> impl Strategy<Value = Config> {
    let ids = move || match who {
        // root has no subordinate ids.
        UserKind::Root => select(&[Ids::Unset, Ids::Own, Ids::Wide, Ids::Both, Ids::Many][..]),
        UserKind::User if alone => select(&[Ids::Unset, Ids::Own][..]),
        UserKind::User => select(
            &[Ids::Unset, Ids::Unset, Ids::Own, Ids::Auto, Ids::Wide, Ids::Both, Ids::Many, Ids::Foreign][..],
        ),
    };
    let no_new_privs = proptest::bool::weighted(0.1);
    let flags = (rarely(), rarely(), no_new_privs, proptest::option::weighted(0.2, any::<bool>()));
    let clock = || {
        let seconds = prop_oneof![4 => select(&[0, -1, -1500, -100_000, 86_400][..]), 1 => select(&[i64::MAX, -1_000_000_000_000][..])];
        proptest::option::weighted(0.25, seconds)
    };
    let any_command = prop_oneof![4 => select(COMMANDS), 1 => select(NO_COMMANDS)];
    let oom = proptest::option::weighted(0.3, select(&[0, 1, 500, 1000, -1, -500][..]));
    (any::<bool>(), ids(), ids(), flags, (clock(), clock()), oom, joins(who, alone), any_command).prop_map(
        move |(
            root_flag,
            users,
            groups,
            (mount_proc, kill_child, no_new_privs, setgroups),
            clocks,
            oom,
            joins,
            command,
        )| {
            let drawn = Config {
                created,
                root_flag,
                users,
                groups,
                setgroups,
                monotonic: clocks.0,
                boottime: clocks.1,
                oom,
                mount_proc,
                kill_child,
                no_new_privs,
                joins,
                command,
            };
            drawn.without_contradictions(who)
        },
    )
}

fn rarely() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.25)
}

/// Draws the joins. Half of the configurations have none. The others join one process, and sometimes one more
/// place.
fn joins(who: UserKind, alone: bool) -> BoxedStrategy<[Option<Place>; 8]> {
    if alone {
        return Just([None; 8]).boxed();
    }
    let targets: &'static [Target] = match who {
        UserKind::Root => Target::ALL,
        // Prefer the user's own sandboxes: it may not join the others.
        UserKind::User => {
            &[Target::UsersSandbox, Target::UsersSandbox, Target::UsersWideSandbox, Target::RootsSandbox]
        }
    };
    let some = (select(targets), any::<u8>(), proptest::option::weighted(0.25, elsewhere()), 0_usize..8);
    proptest::option::of(some)
        .prop_map(move |some| {
            let mut joins = [None; 8];
            let Some((target, kinds, elsewhere, nth)) = some else { return joins };
            for (kind, join) in joins.iter_mut().enumerate() {
                let wanted = kinds >> kind & 1 == 1 || (kind == USER && who == UserKind::User);
                *join = wanted.then_some(Place::Of(target));
            }
            if elsewhere.is_some() {
                joins[nth] = elsewhere;
            }
            joins
        })
        .boxed()
}

fn elsewhere() -> impl Strategy<Value = Place> {
    prop_oneof![
        2 => Just(Place::Of(Target::ForeignNet)),
        1 => select(Target::ALL).prop_map(Place::Of),
        1 => select(Target::ALL).prop_map(Place::OtherKind),
        1 => select(&[Place::Own, Place::Missing, Place::BelowFile, Place::Fifo, Place::Regular][..]),
    ]
}

impl Config {
    pub(crate) fn creates(&self, kind: usize) -> bool {
        self.created >> kind & 1 == 1
    }

    /// Removes contradictions, which the program refuses as wrong usage before there is anything to compare.
    pub(crate) fn without_contradictions(mut self, who: UserKind) -> Self {
        for kind in 0..8 {
            if self.creates(kind) {
                self.joins[kind] = None;
            }
        }
        let foreign_net = Some(Place::Of(Target::ForeignNet));
        for (kind, (name, ..)) in KINDS.iter().enumerate() {
            // This target has only a network namespace of its own, and shares all others with us.
            if self.joins[kind] == foreign_net && *name != "net" {
                self.joins[kind] = None;
            }
        }
        self.mount_proc &= self.joins[MNT].is_none();
        if self.joins[TIME].is_some() {
            (self.monotonic, self.boottime) = (None, None);
        }
        if self.creates(USER) {
            self.root_flag |= self.users == Ids::Unset && self.groups == Ids::Unset;
            // `-r` adds a line for the own id, so no other line may map id 0.
            if self.root_flag {
                for ids in [&mut self.users, &mut self.groups] {
                    *ids = if matches!(ids, Ids::Wide | Ids::Many | Ids::Foreign) { Ids::Both } else { *ids };
                }
            }
            let own_group = matches!(self.groups, Ids::Unset | Ids::Own);
            if who == UserKind::User && own_group && self.setgroups == Some(true) {
                self.setgroups = None;
            }
        } else {
            (self.root_flag, self.users, self.groups, self.setgroups) = (false, Ids::Unset, Ids::Unset, None);
        }
        self
    }

    /// Returns whether no flag names a namespace. The program then creates all kinds and mounts /proc.
    pub(crate) fn has_no_namespace_flag(&self) -> bool {
        self.kinds_created() == 0 && self.joins.iter().all(Option::is_none)
    }

    fn kinds_created(&self) -> u8 {
        let clocks = self.monotonic.or(self.boottime).is_some();
        self.created | u8::from(self.mount_proc) << MNT | u8::from(clocks) << TIME
    }

    /// Returns the kinds that are created, named or implied, as flags of clone(2) and unshare(2).
    pub(crate) fn created_kinds(&self) -> u32 {
        let created = if self.has_no_namespace_flag() { 0xff } else { self.kinds_created() };
        KINDS.iter().enumerate().filter(|(kind, _)| created >> kind & 1 == 1).map(|(_, kind)| kind.2).sum()
    }

    pub(crate) fn joined(&self) -> usize {
        self.joins.iter().flatten().count()
    }

    /// Returns whether an ordinary user's maps need newuidmap or newgidmap.
    pub(crate) fn uses_tools(&self) -> bool {
        let own = |ids| matches!(ids, Ids::Unset | Ids::Own);
        self.creates(USER) && !(own(self.users) && own(self.groups))
    }

    /// Returns the exit status of the command if it runs.
    pub(crate) fn status(&self) -> i32 {
        let pid_1 = self.has_no_namespace_flag() || self.creates(PID);
        if pid_1 { self.command.as_pid_1 } else { self.command.status }
    }

    /// Returns simpler configurations, the simplest first.
    pub(crate) fn simpler(&self, who: UserKind) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut simpler = self.clone();
            change(&mut simpler);
            let simpler = simpler.without_contradictions(who);
            if simpler != *self {
                all.push(simpler);
            }
        };
        with(&|config| config.joins = [None; 8]);
        for kind in 0..8 {
            with(&|config| config.created &= !(1 << kind));
            with(&|config| config.joins[kind] = None);
        }
        with(&|config| (config.monotonic, config.boottime) = (None, None));
        with(&|config| config.oom = None);
        with(&|config| config.mount_proc = false);
        with(&|config| config.kill_child = false);
        with(&|config| config.no_new_privs = false);
        with(&|config| config.setgroups = None);
        with(&|config| config.users = Ids::Unset);
        with(&|config| config.groups = Ids::Unset);
        with(&|config| config.command = COMMANDS[1]);
        all
    }
}
