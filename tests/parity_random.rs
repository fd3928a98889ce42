//! Random calls of one process, on the simulated kernel and on the real kernel: each must have the same
//! result.
//!
//! `tests/parity.rs` tests known rules; this test looks for differences that no rule covers. The seeds are
//! fixed.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::rc::Rc;

use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec_audit::sim::{Ended, Oldest, Settings, Sim, User};
use support::{Suite, Test, Threads, Verdict};

/// The id of the ordinary user. No account of the machine has it.
const UID: u32 = 64_321;
/// The number of sequences, and of calls in each.
const SEEDS: u64 = 500;
const CALLS: usize = 60;
const RESULTS: i32 = 500;
/// The number of inits below one another.
const INITS: u32 = 2;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % sides
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u64) as usize]
    }
}

const PATHS: [&CStr; 17] = [
    c"/proc/self/ns/pid_for_children",
    c"/proc/self/ns/time_for_children",
    c"/proc/self/task",
    c"/proc/self/ns/mnt",
    c"/proc/self/uid_map",
    c"/proc/self/gid_map",
    c"/proc/self/setgroups",
    c"/proc/self/timens_offsets",
    c"/proc/self/oom_score_adj",
    c"/proc/self",
    c"/proc/self/fd",
    c"/proc/self/ns/user",
    c"/proc/self/ns/net",
    c"/proc/self/ns/pid",
    c"/proc/self/ns/uts",
    c"/proc/self/ns/time",
    c"/proc/self/ns/nothing",
];

const TEXTS: [&[u8]; 14] = [
    b"",
    b"0 0 1\n",
    b"0 64321 1\n",
    b"5 64321 1",
    b"0 100000 65536\n",
    b"0 0 4294967295\n",
    b"4294967295 4294967295 4294967295",
    b"deny",
    b"allow\n",
    b"-17\n",
    b"900",
    b"monotonic 5 5\n",
    b"boottime -5 0\nmonotonic 1 0\nboottime 2 0\n",
    &[b'1'; 4096],
];

const KINDS: [CloneFlags; 8] = [
    CloneFlags::NEWUSER,
    CloneFlags::NEWPID,
    CloneFlags::NEWTIME,
    CloneFlags::NEWNET,
    CloneFlags::NEWUTS,
    CloneFlags::NEWIPC,
    CloneFlags::NEWNS,
    CloneFlags::EMPTY,
];

fn told<T>(result: SysResult<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(errno) => errno.name().unwrap_or("?").into(),
    }
}

fn counted(result: SysResult<usize>) -> String {
    match result {
        Ok(count) => count.to_string(),
        result => told(result),
    }
}

/// Makes one call, and returns the call and its result as a line. No call blocks. Returns an empty line in a
/// child, which then ends.
///
/// `inits` is the number of inits that may still be cloned below one another.
fn step<S: Sys>(sys: &mut S, dice: &mut Dice, inits: u32) -> String {
    const OPEN: [OpenFlags; 6] = [
        OpenFlags::ReadWrite,
        OpenFlags::ReadWrite,
        OpenFlags::ReadOnly,
        OpenFlags::Namespace,
        OpenFlags::Directory,
        OpenFlags::List,
    ];
    let fd = Fd(dice.roll(9) as i32 + 3);
    let (path, flags, text, kind) = (dice.of(&PATHS), dice.of(&OPEN), dice.of(&TEXTS), dice.of(&KINDS));
    let id = dice.of(&[0, 5, UID, 100_000, u32::MAX]);
    let mut buffer = [0; 512];
    match dice.roll(if inits > 0 { 40 } else { 36 }) {
        36..=39 => {
            let flags = [kind, dice.of(&KINDS), dice.of(&[CloneFlags::NEWUSER, CloneFlags::EMPTY])];
            init(sys, dice, flags.into_iter().fold(CloneFlags::EMPTY, CloneFlags::union), inits - 1)
        }
        0..=7 => {
            let opened = sys.openat(Fd::CWD, path, flags);
            format!(
                "open {path:?} {flags:?}: {}",
                opened.map_or_else(|e| told::<()>(Err(e)), |fd| fd.0.to_string())
            )
        }
        8 => format!("close {}: {}", fd.0, told(sys.close(fd))),
        9..=10 => {
            let mut fds = [PollFd::new(fd, PollEvents::IN)];
            let count = sys.poll(&mut fds, 0);
            let ready = fds[0].revents;
            // An empty pipe would block the read.
            let read = if count == Ok(1) { counted(sys.read(fd, &mut buffer)) } else { "-".into() };
            format!("poll and read {}: {} {read}", fd.0, ready.0)
        }
        11..=15 => format!("write_nowait {} {}: {}", fd.0, text.len(), counted(sys.write_nowait(fd, text))),
        16..=19 => {
            let kind = sys.fstatfs(fd);
            let writes = kind == Ok(FsType::PROC);
            let written = if writes { counted(sys.write(fd, text)) } else { "-".into() };
            format!("write {} {:?}: {written}", fd.0, String::from_utf8_lossy(&text[..text.len().min(20)]))
        }
        20 => format!("socketpair: {:?}", sys.socketpair().map_err(|errno| errno.name())),
        21 => format!("pipe2: {:?}", sys.pipe2().map_err(|errno| errno.name())),
        22 => format!("setns {} {kind}: {}", fd.0, told(sys.setns(fd, kind))),
        23..=24 => format!("unshare {kind}: {}", told(sys.unshare(kind))),
        25 => format!("setresuid {id}: {}", told(sys.setresuid(id))),
        26 => format!("setuid {id}: {}", told(sys.setuid(id))),
        27 => format!("setgid {id}: {}", told(sys.setgid(id))),
        // Not in an init, which has the directory of its parent's descriptors. The kernel compares its owner
        // at the last lookup of its path, and the simulator the present one.
        29 if inits == INITS => {
            let opened = sys.openat(fd, c"uid_map", flags);
            format!("open at {}: {}", fd.0, opened.map_or_else(|e| told::<()>(Err(e)), |fd| fd.0.to_string()))
        }
        30 => format!("getdents {}: {}", fd.0, told(sys.getdents64(fd, &mut buffer))),
        31 => {
            let on = text.len() % 2 == 0;
            format!("set_cloexec {} {on}: {}", fd.0, told(sys.set_cloexec(fd, on)))
        }
        32 => format!("send {} {}: {}", fd.0, text.len(), counted(sys.send(fd, text))),
        33 => {
            let mut fds = [PollFd::new(fd, PollEvents(PollEvents::IN.0 | PollEvents::OUT.0))];
            let count = sys.poll(&mut fds, 0);
            format!("poll {}: {} {}", fd.0, counted(count), fds[0].revents.0)
        }
        34 => match sys.fork(ExitSignal::Chld, None) {
            Ok(Fork::Child) => String::new(),
            Ok(Fork::Parent { child }) => {
                format!("child: {:?}", sys.wait4(child, WaitFor::Ordinary).map(|w| w.status))
            }
            Err(errno) => format!("fork: {}", told::<()>(Err(errno))),
        },
        28 => format!("drop_groups: {}", told(sys.drop_groups())),
        _ => {
            let dumpable = dice.roll(2) == 0;
            format!("set_dumpable {dumpable}: {}", told(sys.set_dumpable(dumpable)))
        }
    }
}

/// Clones an init that makes random calls, and returns their results.
fn init<S: Sys>(sys: &mut S, dice: &mut Dice, flags: CloneFlags, inits: u32) -> String {
    let Ok((ours, theirs)) = sys.socketpair() else { return "no socketpair".into() };
    let line = match sys.clone_init(flags, None, None) {
        Ok(InitFork::Child) => {
            sys.close(ours).unwrap();
            let mut lines = vec![format!("pid 1: {}", sys.getpid() == Pid(1))];
            for _ in 0..8 {
                let line = step(sys, dice, inits);
                if line.is_empty() {
                    return line;
                }
                lines.push(line);
            }
            // The init may have closed this socket.
            let _ = sys.send(theirs, lines.join("; ").as_bytes());
            return String::new();
        }
        Ok(InitFork::Parent { child, pidfd }) => {
            sys.close(theirs).unwrap();
            let (mut text, mut buffer) = (Vec::new(), [0; 8192]);
            while let Ok(count @ 1..) = sys.read(ours, &mut buffer) {
                text.extend_from_slice(&buffer[..count]);
            }
            let end = sys.wait4(child, WaitFor::Stages).map(|waited| waited.status);
            let pidfd = pidfd.map(|pidfd| (pidfd.0, sys.close(pidfd).is_ok()));
            let text = String::from_utf8_lossy(&text).replace('\n', "\\n");
            format!("pidfd {pidfd:?}, {end:?} [{text}]")
        }
        Err(errno) => {
            sys.close(theirs).unwrap();
            told::<()>(Err(errno))
        }
    };
    sys.close(ours).unwrap();
    format!("clone_init {flags}: {line}")
}

/// Runs a sequence. Returns the results, or `None` in a child.
fn play<S: Sys>(sys: &mut S, seed: u64) -> Option<Vec<String>> {
    let mut dice = Dice(seed);
    sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
    let mut lines = Vec::new();
    for _ in 0..CALLS {
        let line = step(sys, &mut dice, INITS);
        if line.is_empty() {
            // A child, which ends at once.
            return None;
        }
        lines.push(line);
    }
    Some(lines)
}

fn simulated(seed: u64, root: bool, caps: u64) -> Vec<String> {
    let user = match root {
        true => User { caps, ..User::root() },
        false => User { groups: Vec::new(), ..User::ordinary(UID) },
    };
    let mut sim = Sim::new(Settings { bounding: caps, ..Settings::default() }, &user);
    let said = Rc::new(RefCell::new(Vec::new()));
    let saying = said.clone();
    sim.launcher(move |sys| {
        if let Some(lines) = play(sys, seed) {
            *saying.borrow_mut() = lines;
        }
        Ended::Exit(0)
    });
    let report = sim.run(&mut Oldest, None);
    let lines = said.borrow().clone();
    assert_eq!(lines.len(), CALLS, "{report}");
    lines
}

#[allow(clippy::disallowed_methods, reason = "this program has no threads, and no handlers of a fork")]
fn real(seed: u64, root: bool) -> Vec<String> {
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: this process owns both descriptors.
    let [mut reader, writer] = pipe.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) });
    // SAFETY: this program has one thread; the child ends by itself.
    if unsafe { libc::fork() } == 0 {
        support::default_signals();
        // SAFETY: the calls take numbers, in our own process.
        unsafe {
            libc::alarm(u32::try_from(support::LIMIT.as_secs()).unwrap());
            libc::dup2(writer.as_raw_fd(), RESULTS);
            for fd in 3..RESULTS {
                libc::close(fd);
            }
            if !root {
                libc::setgroups(0, std::ptr::null());
                libc::setresgid(UID, UID, UID);
                libc::setresuid(UID, UID, UID);
                libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            }
            let text = play(&mut LinuxSys::new(), seed).unwrap_or_default().join("\n");
            libc::write(RESULTS, text.as_ptr().cast(), text.len());
            libc::_exit(0);
        }
    }
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    // SAFETY: waits for a child, and asks for no status.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
    text.lines().map(str::to_owned).collect()
}

fn main() -> ExitCode {
    let sequences = (1..=SEEDS).flat_map(|seed| [(seed, true), (seed, false)]);
    let tests = sequences.map(|(seed, root)| {
        let user = if root { "root" } else { "user" };
        Test::new(format!("seed_{seed:03}@{user}"), move || agrees(seed, root))
    });
    let suite = Suite::new("parity_random", tests.collect());
    support::begin();
    suite.main(Threads::One)
}

/// Runs one sequence on both kernels.
fn agrees(seed: u64, root: bool) -> Verdict {
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Verdict::Skipped("needs root".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let caps = u64::from_str_radix(caps.trim(), 16).unwrap();
    let (ours, theirs) = (simulated(seed, root, caps), real(seed, root));
    let differs = ours.iter().zip(&theirs).position(|(one, other)| one != other);
    let at = differs.or((ours.len() != theirs.len()).then_some(theirs.len()));
    match at {
        None => Verdict::Passed,
        Some(at) => Verdict::Failed(format!(
            "call {at}\n  {}\n  simulated {}\n  real      {:?}",
            ours[..at].join("\n  "),
            ours[at],
            theirs.get(at)
        )),
    }
}
