//! The process whose maps are written is killed 6,000 times at random moments of an unprivileged launch, in
//! each shape of a start in which another process writes maps. The launcher must report this death, not an
//! error of the kernel that follows from it.
//!
//! A process that exits first releases its memory, and from then on its files in /proc belong to root. It
//! closes its sockets later (do_exit(): exit_mm, exit_files). Stage 0 writes the maps of stage 1, or the
//! launcher those of the process of a direct start, and may do so between the two.

use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::script::GO;
use nsexec::launch::{LaunchError, Launcher};
use nsexec::policy::{Policy, Session};
use nsexec::sys::types::CloneFlags;
use nsexec::timens::TimeOffsets;
use nsexec_audit::record::{CallRef, LineRef, ListRef, Recorder, Reply, ReplyRef, Sink};

use crate::Case;
use crate::cases::Shape;

pub(crate) const CASES: &[Case] = &[
    // Split, so that each case ends within the time limit on a busy machine.
    ("stage_1_is_killed_while_its_maps_are_written_1", || killed_while_maps_are_written(Shape::Stages)),
    ("stage_1_is_killed_while_its_maps_are_written_2", || killed_while_maps_are_written(Shape::Stages)),
    ("stage_1_is_killed_while_its_offsets_are_written_1", || killed_while_offsets_are_written(Shape::Stages)),
    ("stage_1_is_killed_while_its_offsets_are_written_2", || killed_while_offsets_are_written(Shape::Stages)),
    ("direct_process_is_killed_while_its_maps_are_written_1", || {
        killed_while_maps_are_written(Shape::Direct);
    }),
    ("direct_process_is_killed_while_its_maps_are_written_2", || {
        killed_while_maps_are_written(Shape::Direct);
    }),
    ("direct_process_with_offsets_is_killed_1", || killed_while_offsets_are_written(Shape::Direct)),
    ("direct_process_with_offsets_is_killed_2", || killed_while_offsets_are_written(Shape::Direct)),
];

/// The number of kills in all cases of one shape together.
const KILLS: usize = 6000;

fn killed_while_maps_are_written(shape: Shape) {
    killed_at_random(shape, Bootstrap::new(CloneFlags::NEWUSER), KILLS / 4);
}

fn killed_while_offsets_are_written(shape: Shape) {
    let offsets = TimeOffsets::parse(c"boottime 100 0\n").unwrap();
    let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWTIME);
    killed_at_random(shape, Bootstrap::new(flags).with_timens_offsets(offsets), KILLS / 4);
}

/// An unprivileged user id that no account has.
const UID: u32 = 64_321;

/// More time than a killed process needs to exit.
const EXIT: Duration = Duration::from_micros(300);

/// A random number generator (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills the new process after one of the calls of the process that writes its maps. That one then pauses, so
/// that its next call meets any point of the exit.
///
/// A fork copies the sink, so each process counts its own calls.
struct Killer {
    shape: Shape,
    depth: usize,
    lines: u64,
    target: Option<i32>,
    after: u64,
    pause: Duration,
}

impl Killer {
    fn new(shape: Shape, after: u64, pause: Duration) -> Self {
        Self { shape, depth: 0, lines: 0, target: None, after, pause }
    }

    /// Returns whether this process writes the maps: stage 0, or the launcher of a direct start.
    fn writes_maps(&self) -> bool {
        self.depth == usize::from(self.shape == Shape::Stages)
    }
}

impl Sink for Killer {
    fn line(&mut self, line: &LineRef<'_>) {
        if let ReplyRef::Value(Reply::Child) = line.reply {
            (self.depth, self.lines) = (self.depth + 1, 0);
            return;
        }
        if !self.writes_maps() {
            return;
        }
        match (&line.call, &line.reply) {
            (CallRef::CloneSibling { .. }, ReplyRef::Value(Reply::Parent(pid)))
            | (_, ReplyRef::Value(Reply::ParentOfInit { pid, .. })) => {
                self.target = Some(pid.0);
                self.lines = 0;
            }
            _ => {}
        }
        self.lines += 1;
        if let (Some(pid), true) = (self.target, self.lines == self.after) {
            // The pid is not used again: the launcher reaps this process only after the last of these calls.
            kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            let killed = Instant::now();
            while killed.elapsed() < self.pause {
                std::hint::spin_loop();
            }
        }
    }
}

/// Drops all privileges of this process. It stays dumpable, so that its files in /proc belong to the
/// unprivileged user.
fn become_unprivileged() {
    // SAFETY: calls with numbers, in a process with one thread.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(UID, UID, UID), 0);
        assert_eq!(libc::setresuid(UID, UID, UID), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}

fn killed_at_random(shape: Shape, bootstrap: Bootstrap<'_>, kills: usize) {
    become_unprivileged();
    let map = std::ffi::CString::new(format!("0 {UID} 1\n")).unwrap();
    let map = IdMap::parse(&map).unwrap();
    let bootstrap = bootstrap.with_uid_map(map).with_gid_map(map).with_rootless_euid(true);
    let policy = shape.of(Policy::runc(&Dialect::V1_2).with_session(Session::Keep));
    let calls = calls_to_kill_after(shape, &bootstrap, policy);
    let stage = if shape == Shape::Stages { "stage-1" } else { "stage-2" };
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    let (mut named, mut wrong) = (0, Vec::new());
    let begun = Instant::now();
    for _ in 0..kills {
        let pause = Duration::from_nanos(random.below(EXIT.as_nanos().try_into().unwrap()));
        let killer = Killer::new(shape, 1 + random.below(calls), pause);
        let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
        let started = launcher.command("true", [""; 0]).spawn_through(|sys| Recorder::new(sys, killer));
        match started {
            Err(LaunchError::Bootstrap(failure)) => {
                let text = failure.to_string();
                let death =
                    text.starts_with(&format!("{stage} (pid ")) && text.contains(" was killed by SIGKILL");
                if death { named += 1 } else { wrong.push(text) }
            }
            Err(error) => wrong.push(error.to_string()),
            Ok(mut child) => wrong.push(format!("started: {:?}", child.wait())),
        }
    }
    println!(
        "{kills} kills of {stage} in {:.1} s: its death was named {named} times, another cause {} times",
        begun.elapsed().as_secs_f64(),
        wrong.len()
    );
    wrong.sort();
    wrong.dedup_by_key(|text| text.replace(|c: char| c.is_ascii_digit(), ""));
    assert_eq!((named, wrong), (kills, Vec::new()));
}

/// Returns how many calls the writer of the maps makes after the clone of the process, up to the last one
/// before that process may end or run: before the pid of stage 2 arrives in stage 0, or before the go byte.
fn calls_to_kill_after(shape: Shape, bootstrap: &Bootstrap<'_>, policy: Policy) -> u64 {
    /// A sink that counts in memory that the processes share.
    struct Counter(Killer, *mut u64);

    impl Sink for Counter {
        fn line(&mut self, line: &LineRef<'_>) {
            self.0.line(line);
            let announced = match self.0.shape {
                Shape::Stages => {
                    let pid = [0x42, 0, 0, 0];
                    matches!(line.reply, ReplyRef::List(ListRef::Data(data)) if data.0 == pid)
                }
                Shape::Direct | Shape::Child => {
                    matches!(line.call, CallRef::Send { data, .. } if data.0 == [GO])
                }
            };
            if self.0.writes_maps() && announced {
                // SAFETY: the page is mapped below and never unmapped.
                unsafe { self.1.write(self.0.lines) };
            }
        }
    }

    // SAFETY: a new mapping.
    let page = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    let counter = Counter(Killer::new(shape, u64::MAX, Duration::ZERO), page.cast::<u64>());
    let mut launcher = Launcher::new(bootstrap, policy).unwrap();
    let mut child =
        launcher.command("true", [""; 0]).spawn_through(|sys| Recorder::new(sys, counter)).unwrap();
    assert!(child.wait().unwrap().success());
    // SAFETY: the page is still mapped, and its only writer has ended.
    let calls = unsafe { page.cast::<u64>().read() };
    assert!(calls > 10, "{calls}");
    // The last call is omitted: it is the announcement itself.
    calls - 1
}
