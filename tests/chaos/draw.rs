//! The draws: from the seed and its number follow the shape and the disturbances of a start.

/// Random numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one<T: Copy>(&mut self, all: &[T]) -> T {
        let at = usize::try_from(self.below(all.len() as u64)).expect("an index");
        all[at]
    }
}

/// The launcher of a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Launcher {
    /// The program with these arguments, before the command. TARGET is the pid of the container.
    Program(&'static [&'static str]),
    /// The library's `Command`, in a process of the suite.
    Library(Settings),
    /// `nsexec init` of this dialect: the worker is its parent, as runc is.
    DropIn(&'static str, Message),
}

/// The settings of the library's `Command`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settings {
    Shared,
    Mapped,
    Copied,
    Child,
    Stages,
    KilledWithParent,
    TimeLimit,
}

/// The bootstrap message of a drop-in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// Five namespaces, no maps.
    Five,
    /// A user namespace with maps that stage 0 writes.
    Mapped,
    /// Maps that newuidmap and newgidmap write.
    Tools,
    /// The namespaces of the container.
    Join,
}

/// One shape of a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) launcher: Launcher,
    /// The ordinary user starts it.
    pub(crate) user: bool,
}

const fn program(name: &'static str, user: bool, args: &'static [&'static str]) -> Shape {
    Shape { name, launcher: Launcher::Program(args), user }
}

const fn library(name: &'static str, settings: Settings) -> Shape {
    Shape { name, launcher: Launcher::Library(settings), user: false }
}

const fn drop_in(name: &'static str, dialect: &'static str, message: Message) -> Shape {
    Shape { name, launcher: Launcher::DropIn(dialect, message), user: matches!(message, Message::Tools) }
}

pub(crate) const SHAPES: &[Shape] = &[
    program("run-all", false, &["run", "--"]),
    program("run-in-place", false, &["run", "-r", "-u", "--"]),
    program("run-in-place-tools", true, &["run", "-r", "-n", "--map-users", "auto", "--"]),
    program("run-direct-user", true, &["run", "-f", "-r", "-u", "--"]),
    program("run-stages-tools", true, &["run", "-r", "-n", "-p", "--map-users", "auto", "--"]),
    program("run-child", false, &["run", "-m", "-p", "--join", "net=/proc/self/ns/net", "--"]),
    program("run-stages", false, &["run", "-r", "-m", "-p", "--join", "net=/proc/self/ns/net", "--"]),
    program("run-guard", false, &["run", "-n", "--kill-child", "--"]),
    program("run-init", false, &["run", "--init", "--"]),
    program("run-time", false, &["run", "-T", "-f", "--"]),
    program("run-join", false, &["run", "--join", "pid=/proc/TARGET/ns/pid", "-m", "--"]),
    program("enter", false, &["enter", "-t", "TARGET", "-a", "--"]),
    program("enter-in-place", false, &["enter", "-t", "TARGET", "-n", "-u", "-F", "--"]),
    library("library-shared", Settings::Shared),
    library("library-mapped", Settings::Mapped),
    library("library-copied", Settings::Copied),
    library("library-child", Settings::Child),
    library("library-stages", Settings::Stages),
    library("library-killed-with-parent", Settings::KilledWithParent),
    library("library-time-limit", Settings::TimeLimit),
    drop_in("v1_2-five", "v1_2", Message::Five),
    drop_in("v1_2-mapped", "v1_2", Message::Mapped),
    drop_in("v1_2-tools", "v1_2", Message::Tools),
    drop_in("v1_2-join", "v1_2", Message::Join),
    drop_in("v1_1-mapped", "v1_1", Message::Mapped),
    drop_in("v1_1-tools", "v1_1", Message::Tools),
    drop_in("v1_0-five", "v1_0", Message::Five),
    drop_in("v1_0-join", "v1_0", Message::Join),
    drop_in("seed-mapped", "seed", Message::Mapped),
    drop_in("seed-tools", "seed", Message::Tools),
];

/// A limit or setting that the launcher inherits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Around {
    /// RLIMIT_NOFILE.
    Files(u64),
    /// RLIMIT_NPROC.
    Processes(u64),
    /// RLIMIT_AS, in mebibytes.
    Memory(u64),
    /// A pids cgroup with this limit.
    Pids(u64),
    /// A user namespace of its own, with a limit of the namespaces of this kind.
    Namespaces(&'static str, u64),
    SigchldIgnored,
    SignalsBlocked,
    /// Descriptors 0 to 2 that are closed, as bits.
    Closed(u64),
    Subreaper,
}

/// A signal to a process of the launch, or to all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    Kill,
    Term,
    Int,
    /// SIGSTOP, and SIGCONT later.
    StopCont,
    /// SIGSTOP; then the launcher gets SIGTERM.
    StopThenTerm,
    /// SIGSTOP; then the launcher gets SIGKILL, and SIGCONT follows.
    StopThenKill,
    /// The parent of a drop-in closes its end of the init pipe.
    CloseInit,
}

/// A blow at a moment: a fraction of the usual duration, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) moment: u64,
    pub(crate) blow: Blow,
    /// Chooses the process among those that exist then.
    pub(crate) victim: u64,
    /// The duration of a stop in thousandths of the usual duration.
    pub(crate) pause: u64,
}

/// How the parent of a drop-in sends the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    Whole,
    ByteByByte,
    /// A part, a pause in milliseconds, and the rest.
    Stalled(u64),
    /// A part, and the end of the connection.
    Cut,
}

/// How the parent of a drop-in treats the log pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Log {
    Read,
    /// A few bytes at a time.
    Slow,
    /// The pipe is full, and is read at the end only.
    Full,
    /// The pipe has no reader.
    Closed,
}

/// One start.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) shape: Shape,
    pub(crate) around: Vec<Around>,
    pub(crate) actions: Vec<Action>,
    pub(crate) delivery: Delivery,
    pub(crate) log: Log,
    /// Where the message is divided, in thousandths of its length.
    pub(crate) part: u64,
}

impl Start {
    pub(crate) fn draw(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number);
        let shape = random.one(SHAPES);
        let (delivery, log, part) = (Delivery::Whole, Log::Read, random.below(1000));
        let mut start = Self { shape, around: Vec::new(), actions: Vec::new(), delivery, log, part };
        let is_drop_in = matches!(shape.launcher, Launcher::DropIn(..));
        for _ in 0..random.one(&[0, 1, 1, 1, 2, 2, 3]) {
            match random.below(if is_drop_in { 8 } else { 5 }) {
                0 | 1 => start.surround(around(&mut random)),
                2..=4 => start.actions.push(action(&mut random, is_drop_in)),
                5 | 6 => {
                    let pause = random.below(40);
                    start.delivery =
                        random.one(&[Delivery::ByteByByte, Delivery::Stalled(pause), Delivery::Cut]);
                }
                _ => start.log = random.one(&[Log::Slow, Log::Full, Log::Closed]),
            }
        }
        start
    }

    /// Adds a surrounding, unless there is one of this kind already.
    fn surround(&mut self, around: Around) {
        let kind = std::mem::discriminant(&around);
        if self.around.iter().all(|other| std::mem::discriminant(other) != kind) {
            self.around.push(around);
        }
    }

    /// Returns the names of the disturbances.
    pub(crate) fn disturbances(&self) -> Vec<String> {
        let mut names: Vec<String> = self.around.iter().map(word).collect();
        names.extend(self.actions.iter().map(|action| word(&action.blow)));
        if self.delivery != Delivery::Whole {
            names.push(word(&self.delivery));
        }
        if self.log != Log::Read {
            names.push(format!("Log{:?}", self.log));
        }
        if names.is_empty() {
            names.push("None".to_owned());
        }
        names
    }

    /// Returns whether the command has to run: nothing that disturbs the start can end it.
    pub(crate) fn must_succeed(&self) -> bool {
        use Around::{SigchldIgnored, SignalsBlocked, Subreaper};
        // A program that ignores SIGCHLD gets no status of a command from the library.
        let is_library = matches!(self.shape.launcher, Launcher::Library(_));
        let harmless = |around: &Around| match around {
            SigchldIgnored => !is_library,
            around => matches!(around, SignalsBlocked | Subreaper),
        };
        self.around.iter().all(harmless)
            && self.actions.iter().all(|action| action.blow == Blow::StopCont)
            && self.delivery != Delivery::Cut
    }
}

/// The name of a variant, without its values.
fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

fn around(random: &mut Random) -> Around {
    let kind = random.one(&["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"]);
    match random.below(9) {
        0 => Around::Files(random.below(24)),
        1 => Around::Processes(random.below(6)),
        2 => Around::Memory(1 + random.below(40)),
        3 => Around::Pids(1 + random.below(5)),
        4 => Around::Namespaces(kind, random.below(2)),
        5 => Around::SigchldIgnored,
        6 => Around::SignalsBlocked,
        7 => Around::Closed(1 + random.below(7)),
        _ => Around::Subreaper,
    }
}

fn action(random: &mut Random, is_drop_in: bool) -> Action {
    use Blow::{CloseInit, Int, Kill, StopCont, StopThenKill, StopThenTerm, Term};
    let blow = match is_drop_in {
        // SIGTERM ends one stage only, as SIGKILL does.
        true => random.one(&[Kill, Kill, StopCont, StopCont, Term, CloseInit, StopThenKill]),
        false => random.one(&[Kill, Kill, StopCont, StopCont, Term, Int, StopThenTerm, StopThenKill]),
    };
    Action { moment: random.below(1100), blow, victim: random.next(), pause: random.below(1500) }
}
