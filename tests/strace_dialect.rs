//! The recorder writes a run exactly as strace does, line by line.
//!
//! The program runs itself under strace. The inner run makes calls through `Recorder<LinuxSys>`. Its sink is
//! shared memory: every process adds lines there without a system call, and the lines survive an exec.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec_audit::record::{Call, Line, LineRef, Recorder, Reply, ReplyRef, Sink, Transcript};
use serde::{Deserialize, Serialize};
use support::{Suite, Test, Threads, Verdict};

const DIRECTORY: &str = "NSEXEC_TEST_DIALECT";
/// The size of the shared memory, far more than the lines need.
const SIZE: usize = 1 << 20;

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        support::default_signals();
        inner(Path::new(&directory));
        return ExitCode::SUCCESS;
    }
    let suite = Suite::new("strace_dialect", vec![Test::new("record_equals_the_output_of_strace", outer)]);
    support::begin();
    suite.main(Threads::One)
}

// -- the outer run: compares --------------------------------------------------------------------------------

/// Runs this program under strace, and compares its record with the output of strace.
fn outer() -> Verdict {
    if Command::new("strace").arg("-V").output().is_err() {
        return Verdict::Skipped("there is no strace".to_owned());
    }
    let directory = std::env::temp_dir().join(format!("nsexec-dialect-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let status = Command::new("strace")
        .args(["-ff", "-qq", "-a", "1", "-s", "4096", "-o"])
        .arg(directory.join("strace"))
        .arg(std::env::current_exe().unwrap())
        .env_clear()
        .env(DIRECTORY, &directory)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let differences = compare(&directory);
    fs::remove_dir_all(&directory).unwrap();
    if differences.is_empty() { Verdict::Passed } else { Verdict::Failed(differences.join("\n\n")) }
}

/// One line in the shared memory.
#[derive(Serialize, Deserialize)]
struct Entry {
    section: usize,
    line: Line,
}

fn compare(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("recorded")).unwrap();
    let mut sections = BTreeMap::<usize, Transcript>::new();
    for entry in text.trim_end_matches('\0').lines() {
        let Entry { section, line } = serde_json::from_str(entry).unwrap();
        sections.entry(section).or_default().push(line);
    }
    assert_eq!(sections.len(), 10 + INITS.len(), "the first process, and one for each clone");
    let mut differences = Vec::new();
    let mut compared = 0;
    for transcript in sections.values() {
        let json = transcript.to_json_lines().unwrap();
        assert_eq!(Transcript::from_json_lines(&json).unwrap(), *transcript);
        let of_us = |line: &&Line| line.reply != Reply::Child;
        let ours: Vec<String> = transcript.lines.iter().filter(of_us).map(ToString::to_string).collect();
        let pid = pid_outside(transcript);
        let theirs = fs::read_to_string(directory.join(format!("strace.{pid}"))).unwrap();
        let theirs: Vec<&str> = theirs.lines().filter(|line| !is_noise(line)).collect();
        let start = theirs.iter().position(|line| *line == ours[0]).expect("the first line is exact");
        for (index, our) in ours.iter().enumerate() {
            let their = theirs.get(start + index).unwrap_or(&"nothing");
            compared += 1;
            if !agree(our, their) {
                differences.push(format!("we:     {our}\nstrace: {their}"));
            }
        }
    }
    println!("strace_dialect: {compared} lines of {} processes compared", sections.len());
    differences
}

/// Returns the pid of a section's process in the pid namespace of strace.
fn pid_outside(transcript: &Transcript) -> String {
    let pid = transcript.lines.iter().find_map(|line| match (&line.call, &line.reply) {
        (Call::Readlink { .. }, Reply::Data(pid)) => Some(String::from_utf8(pid.0.clone()).unwrap()),
        (Call::Getpid, Reply::Pid(pid)) => Some(pid.to_string()),
        _ => None,
    });
    pid.expect("every section asks for its pid")
}

/// Returns true for the allocator's calls between two recorded calls, and for signals that arrive.
fn is_noise(line: &str) -> bool {
    ["brk(", "mmap(", "munmap(", "mremap(", "--- SIG"].iter().any(|noise| line.starts_with(noise))
}

/// Returns true if the lines are equal, except for values that the recorder marks as unknown.
fn agree(our: &str, their: &str) -> bool {
    // `Sys` passes on only one flag of a file system's state.
    if let (true, Some((head, state))) = (our.starts_with("statfs("), their.split_once(", {")) {
        let flag = if state.contains("ST_RDONLY") { "ST_RDONLY" } else { "0" };
        return our == format!("{head}, {{f_flags={flag}, ...}}) = 0");
    }
    // Of siginfo_t we write the signal, and whether the kernel itself sent it.
    if let Some((head, rest)) =
        their.split_once(", si_pid=").filter(|_| their.starts_with("rt_sigtimedwait("))
    {
        let tail = rest.split_once('}').map_or("", |(_, tail)| tail);
        return our == format!("{head}}}{tail}");
    }
    // `Sys` does not pass on the number that the kernel returned for these.
    let reply_unknown = our.starts_with("sched_getaffinity(")
        || our == "setsid() = 0"
        || our == "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL) = 0";
    let (our, their) = match their.rsplit_once(" = ") {
        Some((their, _)) if reply_unknown => (our.rsplit_once(" = ").unwrap().0, their),
        _ => (our, their),
    };
    let mut rest = their;
    let gap = if our.starts_with("fstatfs") && our.contains("...") { ", ...}" } else { "0x…" };
    for (index, part) in our.split(gap).enumerate() {
        if index > 0 {
            rest = match gap {
                "0x…" => {
                    rest.trim_start_matches("0x").trim_start_matches(|digit: char| digit.is_ascii_hexdigit())
                }
                _ => rest.rsplit_once('}').map_or(rest, |(_, rest)| rest),
            };
        }
        let Some(after) = rest.strip_prefix(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

// -- the inner run: makes the calls ------------------------------------------------------------------------

/// A sink in memory that all processes share.
struct Shared {
    next_byte: &'static AtomicUsize,
    next_section: &'static AtomicUsize,
    bytes: *mut u8,
    section: Cell<usize>,
}

impl Shared {
    fn new(path: &Path) -> Self {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(SIZE as u64).unwrap();
        let map = |size, fd, flags| {
            // SAFETY: a new mapping, which lives until the process ends.
            let address = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    size,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | flags,
                    fd,
                    0,
                )
            };
            assert_ne!(address, libc::MAP_FAILED);
            address
        };
        let counters = map(4096, -1, libc::MAP_ANONYMOUS).cast::<AtomicUsize>();
        let bytes = map(SIZE, std::os::fd::AsRawFd::as_raw_fd(&file), 0).cast();
        // SAFETY: a page of zeroes is a valid pair of counters.
        let (next_byte, next_section) = unsafe { (&*counters, &*counters.add(1)) };
        Self { next_byte, next_section, bytes, section: Cell::new(0) }
    }
}

impl Sink for Shared {
    fn line(&mut self, line: &LineRef<'_>) {
        if let ReplyRef::Value(Reply::Child) = line.reply {
            self.section.set(self.next_section.fetch_add(1, Ordering::SeqCst) + 1);
        }
        let entry = Entry { section: self.section.get(), line: line.to_line() };
        let text = serde_json::to_string(&entry).unwrap() + "\n";
        let start = self.next_byte.fetch_add(text.len(), Ordering::SeqCst);
        assert!(start + text.len() <= SIZE);
        // SAFETY: the atomic addition has reserved this part of the mapping for this line.
        unsafe { slice::from_raw_parts_mut(self.bytes.add(start), text.len()) }
            .copy_from_slice(text.as_bytes());
    }
}

type Traced = Recorder<LinuxSys, Shared>;

/// Checks that a call fails. The call is made only to record its failure.
fn refused<T: std::fmt::Debug>(result: SysResult<T>) {
    result.unwrap_err();
}

/// Makes calls that pass descriptors, and copies at a number.
fn rights(sys: &mut Traced) {
    let (one, other) = sys.socketpair().unwrap();
    let place = sys.openat(Fd::CWD, c"/", OpenFlags::Path).unwrap();
    sys.send_fd(one, place).unwrap();
    let fd = sys.receive_fd(other).unwrap().fd.unwrap();
    sys.dup3(fd, Fd(40)).unwrap();
    sys.close(Fd(40)).unwrap();
    sys.send(one, b"x").unwrap();
    sys.receive_fd(other).unwrap();
    sys.close(one).unwrap();
    sys.receive_fd(other).unwrap();
    refused(sys.send_fd(other, place));
    refused(sys.receive_fd(Fd(900)));
    refused(sys.dup3(fd, fd));
    sys.close(fd).unwrap();
    sys.close(place).unwrap();
    sys.close(other).unwrap();
}

fn inner(directory: &Path) {
    // SAFETY: the process has a single thread.
    let sys = unsafe { LinuxSys::new() };
    let sys = &mut Recorder::new(sys, Shared::new(&directory.join("recorded")));
    sys.getpid();
    strings(sys);
    descriptors(sys);
    copies(sys, directory);
    rights(sys);
    polls(sys);
    identity(sys);
    signals(sys);
    processes(sys);
    attributes(sys);
}

fn strings(sys: &mut Traced) {
    let none = Fd(99);
    let bytes: Vec<u8> =
        (0..=255).flat_map(|byte| [byte, b'0', byte, b'7', byte, b'8', byte, b'x']).collect();
    refused(sys.write(none, &bytes));
    refused(sys.write(none, b"0 1000 1\n\0"));
    refused(sys.write(none, &[b'a'; 4096]));
    refused(sys.write(none, &[b'a'; 4097]));
    refused(sys.write(none, b""));
    refused(sys.openat(Fd::CWD, c"/nowhere/\"\\\n\x01", OpenFlags::ReadWrite));
    for name in [c"", c"runc:[0:PARENT]", c"0123456789abcd", c"0123456789abcdefgh"] {
        sys.set_name(name).unwrap();
    }
}

fn descriptors(sys: &mut Traced) {
    let none = Fd(99);
    let mut buf = [0; 2048];
    for flags in [OpenFlags::ReadOnly, OpenFlags::ReadWrite, OpenFlags::Directory, OpenFlags::List] {
        refused(sys.openat(none, c"x", flags));
    }
    let proc = sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory).unwrap();
    for flags in [OpenFlags::ReadOnly, OpenFlags::ReadWrite, OpenFlags::Directory, OpenFlags::List] {
        refused(sys.openat2(Fd::CWD, c"/proc/self/oom_score_adj", flags));
        refused(sys.openat2(proc, c"none/\"", flags));
    }
    // Kernels before 5.6 fail here; both results are recorded.
    let _ = sys.openat2(proc, c"self/oom_score_adj", OpenFlags::ReadWrite);
    sys.close(proc).unwrap();
    let namespace = sys.openat(Fd::CWD, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    assert_eq!(sys.fstatfs(namespace), Ok(FsType::NSFS));
    let list = sys.openat(Fd::CWD, c"/proc/self/fd", OpenFlags::List).unwrap();
    assert_eq!(sys.fstatfs(list), Ok(FsType::PROC));
    refused(sys.fstatfs(none));
    while sys.getdents64(list, &mut buf).unwrap() > 0 {}
    refused(sys.getdents64(none, &mut buf));
    refused(sys.setns(none, CloneFlags::NEWNET));
    refused(sys.setns(none, CloneFlags(3)));
    sys.close(list).unwrap();
    refused(sys.close(list));

    let (one, other) = sys.socketpair().unwrap();
    assert_eq!(sys.socket_type(one), Ok(SocketType::STREAM));
    refused(sys.socket_type(namespace));
    refused(sys.socket_type(none));
    sys.send(one, &[0x40, 0, 0, 0]).unwrap();
    sys.write(one, b"two").unwrap();
    sys.read(other, &mut buf).unwrap();
    refused(sys.send(namespace, b"x"));
    sys.close(one).unwrap();
    sys.read(other, &mut buf).unwrap();
    refused(sys.send(other, b"x"));
    refused(sys.read(none, &mut buf));
    let (read, write) = sys.pipe2().unwrap();
    sys.write_nowait(write, b"{\"level\":\"debug\"}\n").unwrap();
    refused(sys.write_nowait(none, b"x"));
    sys.read(read, &mut buf[..5]).unwrap();
    sys.set_cloexec(write, true).unwrap();
    sys.set_cloexec(write, false).unwrap();
    refused(sys.set_cloexec(none, true));
    sys.close_range_cloexec(Fd(3)).unwrap();
    sys.close_range(950, u32::MAX).unwrap();
    refused(sys.close_range(9, 8));
}

/// Makes the calls that copy the program, except for the exec, which is among the processes.
fn copies(sys: &mut Traced, directory: &Path) {
    let none = Fd(99);
    let path = |name: &str| std::ffi::CString::new(directory.join(name).to_str().unwrap()).unwrap();
    let exe = sys.openat(Fd::CWD, c"/proc/self/exe", OpenFlags::ReadOnly).unwrap();
    // The tests' file system may support seals or not.
    let _ = sys.get_seals(exe);
    for exec in [true, false] {
        // Kernels before 6.3 refuse MFD_EXEC.
        let Ok(copy) = sys.memfd_create(c"a \"name\"", exec) else { continue };
        assert_eq!(sys.get_seals(copy), Ok(Seals(0)));
        sys.sendfile(copy, exe, 4096).unwrap();
        sys.add_seals(copy, Seals::CONTENT).unwrap();
        assert_eq!(sys.get_seals(copy), Ok(Seals::CONTENT));
        refused(sys.add_seals(copy, Seals::SEAL));
        sys.close(copy).unwrap();
    }
    refused(sys.get_seals(none));
    refused(sys.sendfile(none, exe, 1));
    let name = path("new");
    let new = sys.openat(Fd::CWD, &name, OpenFlags::New).unwrap();
    refused(sys.openat(Fd::CWD, &name, OpenFlags::New));
    sys.fchmod(new, 0o500).unwrap();
    refused(sys.fchmod(none, 0));
    let bare = sys.openat(Fd::CWD, &name, OpenFlags::Path).unwrap();
    sys.unlink(&name).unwrap();
    refused(sys.unlink(&name));
    refused(sys.openat(Fd::CWD, c"/nowhere", OpenFlags::Unnamed));
    sys.is_read_only(c"/proc/self/exe").unwrap();
    refused(sys.is_read_only(c"/nowhere"));
    for fd in [exe, new, bare] {
        sys.close(fd).unwrap();
    }
}

fn polls(sys: &mut Traced) {
    let (one, other) = sys.socketpair().unwrap();
    let mut fds = [
        PollFd::new(one, PollEvents(PollEvents::IN.0 | PollEvents::OUT.0)),
        PollFd::new(Fd(-1), PollEvents::IN),
        PollFd::new(other, PollEvents::IN),
    ];
    sys.poll(&mut fds, -1).unwrap();
    sys.poll(&mut fds[1..], 0).unwrap();
    sys.poll(&mut [PollFd::new(Fd(99), PollEvents(0x7fff))], 1).unwrap();
    sys.poll(&mut [], 0).unwrap();
    sys.close(one).unwrap();
    sys.poll(&mut [PollFd::new(other, PollEvents(0)), PollFd::new(other, PollEvents::IN)], -1).unwrap();
}

fn identity(sys: &mut Traced) {
    let all = CloneFlags(0x7e02_0080);
    sys.unshare(CloneFlags::EMPTY).unwrap();
    refused(sys.unshare(CloneFlags(1)));
    refused(sys.unshare(CloneFlags(0x8000_0000)));
    refused(sys.unshare(all.union(CloneFlags(1))));
    sys.set_dumpable(false).unwrap();
    sys.set_dumpable(true).unwrap();
    sys.set_pdeathsig(Signal::KILL).unwrap();
    sys.set_pdeathsig(Signal(0)).unwrap();
    refused(sys.set_pdeathsig(Signal(99)));
    sys.sched_getaffinity().unwrap();
    let _: SysResult<()> = sys.setresuid(0);
    let _: SysResult<()> = sys.setuid(0);
    let _: SysResult<()> = sys.setgid(0);
    refused(sys.setuid(u32::MAX));
    let _: SysResult<()> = sys.drop_groups();
    let _: SysResult<()> = sys.set_groups(&[]);
    let _: SysResult<()> = sys.set_groups(&[4, 20]);
    sys.gettid();
    sys.chdir(c"/").unwrap();
    refused(sys.chdir(c"/nowhere"));
    let copy = sys.dup_above(Fd(0), Fd(40)).unwrap();
    sys.dup_to(copy, Fd(39)).unwrap();
    refused(sys.dup_to(copy, copy));
    refused(sys.dup_above(Fd(99), Fd(40)));
    sys.close(Fd(39)).unwrap();
    sys.close(copy).unwrap();
}

fn attributes(sys: &mut Traced) {
    sys.umask(0o27).unwrap();
    sys.umask(0).unwrap();
    sys.umask(0o22).unwrap();
    for (soft, hard) in [(0, 1), (1000, 1024), (2048, 4096), (2049, Limit::INFINITY)] {
        for resource in Resource::ALL.iter().copied().chain([Resource(99)]) {
            // The hard limit above the present one may be refused.
            let _: SysResult<()> = sys.set_limit(Limit { resource, soft: hard, hard: soft });
            let _: SysResult<()> = match resource {
                Resource::CORE | Resource::MSGQUEUE => sys.set_limit(Limit { resource, soft, hard }),
                _ => Ok(()),
            };
        }
    }
    sys.keep_capabilities(true).unwrap();
    sys.keep_capabilities(false).unwrap();
    for capability in Capability::ALL.iter().copied().chain([Capability(41), Capability(63)]) {
        refused(sys.raise_ambient(capability));
    }
    refused(sys.drop_bounding(Capability(63)));
    let _: SysResult<()> = sys.drop_bounding(Capability::CHECKPOINT_RESTORE);
    for (effective, permitted, inheritable) in
        [(1, 0, 0), (u64::MAX >> 23, 0, 3 << 20), (1 << 40, 1, u64::MAX >> 23)]
    {
        refused(sys.set_capabilities(CapabilitySets { effective, permitted, inheritable }));
    }
    let socket = sys.inet_socket().unwrap();
    refused(sys.set_loopback_up(Fd(99)));
    sys.close(socket).unwrap();
    if sys.unshare(CloneFlags::NEWUTS.union(CloneFlags::NEWNET)).is_ok() {
        sys.set_hostname(b"a \"name\"\n").unwrap();
        let socket = sys.inet_socket().unwrap();
        sys.set_loopback_up(socket).unwrap();
        sys.close(socket).unwrap();
    }
    refused(sys.set_controlling_terminal(Fd(99)));
    sys.new_session_keyring().unwrap();
    sys.set_no_new_privs().unwrap();
    refused(sys.landlock_restrict_self(Fd(99)));
    refused(sys.set_seccomp_filter(&[]));
    let allow = BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    refused(sys.set_seccomp_filter(&[BpfInstruction { code: 0xffff, ..allow }, allow]));
    sys.set_seccomp_filter(&[allow]).unwrap();
}

fn signals(sys: &mut Traced) {
    let pipe = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
    for set in
        [0, u64::MAX, u64::MAX >> 1, 0x3ff_ffff_ffff, 0x1ff_ffff_ffff, 0x8000_0000, 1 << 63, 0x1_0000_1001]
    {
        sys.sigprocmask(MaskHow::Set, SignalSet(set)).unwrap();
    }
    sys.sigprocmask(MaskHow::Set, SignalSet::PIPE).unwrap();
    refused(sys.sigtimedwait(SignalSet::PIPE));
    let this = sys.getpid();
    sys.kill(this, Signal::PIPE).unwrap();
    sys.sigtimedwait(SignalSet::PIPE).unwrap();
    sys.kill(this, Signal::PIPE).unwrap();
    sys.wait_signal(SignalSet::PIPE).unwrap();
    sys.sigprocmask(MaskHow::Set, pipe).unwrap();

    let old = sys.sigaction(Signal::PIPE, SigAction::DEFAULT).unwrap();
    sys.sigaction(Signal::PIPE, old).unwrap();
    let odd = SigAction { handler: 0x1234, flags: u64::MAX, restorer: 0x5678, mask: SignalSet::PIPE };
    for action in
        [odd, SigAction { flags: 0x1400_0004, ..odd }, SigAction { flags: 8, ..odd }, SigAction::IGNORE]
    {
        sys.sigaction(Signal(12), action).unwrap();
    }
    for number in [32, 34, 64] {
        sys.sigaction(Signal(number), SigAction::IGNORE).unwrap();
    }
    refused(sys.sigaction(Signal::KILL, SigAction::IGNORE));
    refused(sys.sigaction(Signal(99), SigAction::IGNORE));
    refused(sys.kill(Pid(i32::MAX), Signal(34)));
    refused(sys.kill(Pid(i32::MAX), Signal(0)));
}

fn processes(sys: &mut Traced) {
    let tid = sys.tid_address().ok();
    // A sibling and a child of each kind, with and without the refresh of the thread id.
    child(sys, |sys| sys.clone_sibling(tid), end);
    let exits = child(sys, |sys| sys.fork(ExitSignal::Chld, None), end);
    sys.pidfd_open(exits).unwrap();
    sys.wait4(exits, WaitFor::Ordinary).unwrap();
    let stage = child(sys, |sys| sys.fork(ExitSignal::None, tid), end);
    refused(sys.wait4(Pid::ANY, WaitFor::Ordinary));
    sys.wait4(stage, WaitFor::Stages).unwrap();
    let killed = child(
        sys,
        |sys| sys.fork(ExitSignal::None, None),
        |sys| {
            let this = sys.getpid();
            sys.kill(this, Signal::KILL).unwrap();
        },
    );
    sys.wait4(killed, WaitFor::Stages).unwrap();
    let mounts = child(
        sys,
        |sys| sys.fork(ExitSignal::Chld, tid),
        |sys| {
            if sys.unshare(CloneFlags::NEWNS).is_ok() {
                for how in [Propagation::Shared, Propagation::Slave, Propagation::Private] {
                    sys.mount(Mount::Propagation(how)).unwrap();
                }
                let _: SysResult<()> = sys.mount(Mount::Proc);
                for read_only in [true, false] {
                    let _: SysResult<()> = sys.mount(Mount::Sysfs { read_only });
                }
                tree(sys);
            }
        },
    );
    sys.wait4(mounts, WaitFor::Ordinary).unwrap();
    let execs = child(sys, |sys| sys.fork(ExitSignal::Chld, tid), exec);
    sys.wait4(execs, WaitFor::Ordinary).unwrap();
    let copy = child(
        sys,
        |sys| sys.fork(ExitSignal::Chld, tid),
        |sys| {
            let exe = sys.openat(Fd::CWD, c"/bin/true", OpenFlags::ReadOnly).unwrap();
            sys.execveat(Fd(99), &ExecArgs::EMPTY, &ExecArgs::EMPTY);
            let mut slots = [const { None }; 3];
            let argv = ExecArgs::build(b"runc\0init\0", &mut slots).unwrap();
            sys.execveat(exe, &argv, &ExecArgs::EMPTY);
        },
    );
    sys.wait4(copy, WaitFor::Ordinary).unwrap();
    refused(sys.pidfd_open(Pid(-1)));
    inits(sys, tid);
    for tid in [tid, None] {
        let asks = |sys: &mut Traced| {
            sys.getpid();
        };
        let stage_1 = child(sys, |sys| sys.clone_child(tid), asks);
        sys.wait4(stage_1, WaitFor::Stages).unwrap();
    }
}

/// Builds a tree of mounts and enters it, in a mount namespace of its own.
fn tree(sys: &mut Traced) {
    let none = Fd(99);
    let read_only = MountAttributes { set: MountAttributes::RDONLY, clear: 0 };
    let many = MountAttributes {
        set: MountAttributes::RDONLY
            | MountAttributes::NOSUID
            | MountAttributes::NODEV
            | MountAttributes::NOEXEC,
        clear: MountAttributes::RDONLY | MountAttributes::NODEV,
    };
    let enter = |sys: &mut Traced| {
        let tmp = sys.openat(Fd::CWD, c"/tmp", OpenFlags::Path).unwrap();
        sys.fchdir(tmp).unwrap();
    };
    refused(sys.fchdir(none));
    refused(sys.open_tree(c"/nowhere/\"", true));
    refused(sys.move_mount(none, none));
    refused(sys.set_mount_attributes(none, true, many));
    refused(sys.set_mount_attributes(none, false, MountAttributes { set: 1 << 40 | 1, clear: 1 << 41 }));
    for flags in [OpenFlags::Path, OpenFlags::Directory, OpenFlags::ReadOnly, OpenFlags::New] {
        refused(sys.open_in_root(none, c"a\n", flags));
    }
    refused(sys.mkdirat(none, c"a", 0o1777));
    refused(sys.symlinkat(c"\"", none, c"b\x01"));
    enter(sys);
    refused(sys.pivot_root_here());
    refused(sys.detach_here());
    refused(sys.mount_here(MountKind::Overlay, c""));
    sys.mount_here(MountKind::Tmpfs, c"mode=755,size=65536").unwrap();
    enter(sys);
    for kind in [MountKind::Proc, MountKind::Sysfs, MountKind::Mqueue, MountKind::Devpts] {
        // A kernel may lack one of them.
        let _: SysResult<()> = sys.mount_here(kind, c"");
    }
    for name in [c"a", c"b"] {
        sys.mkdirat(Fd::CWD, name, 0o755).unwrap();
    }
    sys.symlinkat(c"/a", Fd::CWD, c"link").unwrap();
    let copy = sys.open_tree(c"b", false).unwrap();
    sys.set_mount_attributes(copy, false, read_only).unwrap();
    sys.set_mount_attributes(copy, true, many).unwrap();
    let here = sys.openat(Fd::CWD, c".", OpenFlags::Path).unwrap();
    let a = sys.open_in_root(here, c"link", OpenFlags::Directory).unwrap();
    sys.open_in_root(here, c"/file", OpenFlags::New).unwrap();
    sys.move_mount(copy, a).unwrap();
    sys.pivot_root_here().unwrap();
    sys.detach_here().unwrap();
    sys.chroot_here().unwrap();
}

/// The namespaces of the processes that act as the init of a direct start, and whether the thread id is
/// refreshed.
const INITS: [(CloneFlags, bool); 4] = [
    (CloneFlags::EMPTY, true),
    (CloneFlags::EMPTY, false),
    (CloneFlags::NEWUSER.union(CloneFlags::NEWPID), true),
    (CloneFlags(0x7e02_0000), true),
];

fn inits(sys: &mut Traced, tid: Option<TidAddress>) {
    for (namespaces, refreshes) in INITS {
        match sys.clone_init(namespaces, None, tid.filter(|_| refreshes)).unwrap() {
            InitFork::Parent { child, pidfd } => {
                sys.wait4(child, WaitFor::Stages).unwrap();
                sys.close(pidfd.unwrap()).unwrap();
            }
            InitFork::Child => {
                // The pid outside: strace's file has this number.
                sys.readlink(c"/proc/self", &mut [0; 16]).unwrap();
                sys.getpid();
                if namespaces != CloneFlags::EMPTY {
                    // Its ids are not mapped.
                    refused(sys.clone_init(CloneFlags::NEWUSER, None, tid));
                }
                // SAFETY: as in `child`.
                unsafe { libc::_exit(7) }
            }
        }
    }
    shared_init(sys);
}

/// Creates a process that shares the memory and makes no call of ours.
fn shared_init(sys: &mut Traced) {
    extern "C" fn ends(_: *mut c_void) -> c_int {
        7
    }
    let stack = Box::leak(Box::new([0_u128; 1024])).as_mut_ptr_range().end;
    // SAFETY: the stack is leaked, and the process only ends.
    let start = unsafe { SharedStart::new(ends, ptr::null_mut(), stack.cast()) };
    for namespaces in [CloneFlags::EMPTY, CloneFlags::NEWUSER.union(CloneFlags::NEWPID)] {
        let InitFork::Parent { child, pidfd } = sys.clone_init(namespaces, Some(start), None).unwrap() else {
            unreachable!("the process runs another function");
        };
        sys.wait4(child, WaitFor::Stages).unwrap();
        sys.close(pidfd.unwrap()).unwrap();
    }
}

fn end(sys: &mut Traced) {
    sys.getpid();
    let _: SysResult<TidAddress> = sys.tid_address();
}

fn exec(sys: &mut Traced) {
    let mut slots = [const { None }; 4];
    let argv = ExecArgs::build(b"newuidmap\0a\"b\n\0", &mut slots).unwrap();
    let mut slots = [const { None }; 4];
    let envp = ExecArgs::build(b"A=1\0", &mut slots).unwrap();
    sys.execve(c"/nowhere", &argv, &envp);
    sys.execve(c"/bin/true", &argv, &ExecArgs::EMPTY);
}

/// Makes a process that calls `what` and ends.
fn child(
    sys: &mut Traced,
    clone: impl FnOnce(&mut Traced) -> SysResult<Fork>,
    what: impl FnOnce(&mut Traced),
) -> Pid {
    match clone(sys).unwrap() {
        Fork::Parent { child } => child,
        Fork::Child => {
            sys.getpid();
            let _: SysResult<()> = sys.setsid();
            what(sys);
            // SAFETY: ends this process, without the output that the parent still has to write.
            unsafe { libc::_exit(7) }
        }
    }
}
