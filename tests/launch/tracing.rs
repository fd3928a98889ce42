//! A launch with a new user namespace shares the launcher's memory only if every process that will be able to
//! trace the new process can trace the launcher. Each case asks the kernel: a process of the launcher's ids,
//! without capabilities, tries to open the launcher's memory.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use nsexec::bootstrap::Bootstrap;
use nsexec::idmap::{Extent, IdMap};
use nsexec::launch::shape::{Guard, Memory, Protection, WhyCopied, Yama};
use nsexec::launch::{Command, Launcher, own_protection};
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Setgroups};
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::{CloneFlags, ExitSignal, Fork, Pid};

use crate::Case;
use crate::cases::{leaves_nothing, policy};

pub(crate) const CASES: &[Case] = &[
    ("ordinary_user_shares_its_memory_with_a_new_user_namespace", ordinary_user_shares),
    ("launcher_with_an_ambient_capability_copies", ambient_capability),
    ("launcher_with_a_permitted_capability_copies", permitted_capability),
    ("launcher_with_another_saved_group_copies", other_saved_group),
    ("launcher_with_another_real_user_copies", other_real_user),
    ("launcher_that_is_not_dumpable_copies", not_dumpable),
    ("root_without_capabilities_shares", root_without_capabilities),
    ("owner_of_the_namespace_does_not_reach_the_memory_of_root", owner_does_not_reach),
    ("mapped_user_does_not_reach_the_memory_of_root", mapped_user_does_not_reach),
    ("launches_of_many_threads_end_dumpable", many_threads),
    ("launcher_that_was_not_dumpable_stays_so", stays_not_dumpable),
    ("launcher_in_its_own_new_user_namespace_starts_the_stages", own_new_user_namespace),
];

const UID: u32 = 64_322;
/// CAP_NET_BIND_SERVICE.
const BIND: u64 = 1 << 10;

// The libc crate does not declare it; glibc and musl have it.
unsafe extern "C" {
    fn capset(header: *const u32, sets: *const u32) -> libc::c_int;
}

/// Takes ids and capabilities: the real, the effective and the saved one. The memory stays dumpable.
fn become_user(users: [u32; 3], groups: [u32; 3], permitted: u64) {
    // _LINUX_CAPABILITY_VERSION_3, this thread. The effective, permitted and inheritable set, low words.
    let header = [0x2008_0522_u32, 0];
    let permitted = u32::try_from(permitted).unwrap();
    let sets = [0, permitted, permitted, 0, 0, 0];
    // SAFETY: calls with numbers, and two arrays that live through the call, in a process with one thread.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
        assert_eq!(libc::setresgid(groups[0], groups[1], groups[2]), 0);
        assert_eq!(libc::setresuid(users[0], users[1], users[2]), 0);
        assert_eq!(capset(header.as_ptr(), sets.as_ptr()), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}

/// Creates a process with the effective ids of this case and without capabilities, which tries to open the
/// memory of its parent. Returns whether it could. Called before the ids of this process change.
fn tracer(uid: u32) -> impl FnOnce() -> bool {
    let (mut begin, mut begun) = UnixStream::pair().unwrap();
    let path = format!("/proc/{}/mem", std::process::id());
    // SAFETY: this process has one thread.
    let mut sys = unsafe { LinuxSys::new() };
    let Fork::Parent { child, .. } = sys.fork(ExitSignal::Chld, None).unwrap() else {
        drop(begun);
        become_user([uid; 3], [uid; 3], 0);
        let _ = std::io::Read::read(&mut begin, &mut [0]);
        let opened = File::options().read(true).write(true).open(path).is_ok();
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(opened)) };
    };
    move || {
        std::io::Write::write_all(&mut begun, b"b").unwrap();
        status(child) == 1
    }
}

fn status(Pid(child): Pid) -> i32 {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status}");
    libc::WEXITSTATUS(status)
}

/// Checks that the memory is shared if and only if the kernel lets the tracer reach this process.
fn check(traced: bool, guard: Option<Guard>) {
    let found = own_protection();
    // The modules of this machine come after the properties of the launcher.
    let machine = Protection { yama: found.yama, relabels: found.relabels, ..Protection::NONE }.guard();
    let wanted = guard.or(machine);
    assert_eq!(found.guard(), wanted);
    assert_eq!(traced, guard.is_none() && found.yama == Yama::Off, "{found:?}");
    let kinds = CloneFlags::NEWNET.union(CloneFlags::NEWPID).union(CloneFlags::NEWUSER);
    let memory = |asked: &Bootstrap<'_>| {
        let mut launcher = Launcher::new(asked, policy()).unwrap();
        launcher.command("true", [""; 0]).prepare().unwrap().memory(false, &own_protection())
    };
    let expected = wanted.map_or(Memory::Shared, |guard| Memory::Copied(WhyCopied::User(guard)));
    assert_eq!(memory(&Bootstrap::new(kinds)), expected);
    // Without a new user namespace the question does not arise.
    assert_eq!(memory(&Bootstrap::new(CloneFlags::EMPTY)), Memory::Shared);
}

/// Launches with a map of the own ids, as root of the new user namespace and with the launcher's ids. The
/// dumpable attribute stays.
fn launch(uid: u32, kinds: CloneFlags, credentials: Credentials) {
    let map = CString::new(format!("0 {uid} 1\n")).unwrap();
    let map = IdMap::parse(&map).unwrap();
    let asked = Bootstrap::new(kinds.union(CloneFlags::NEWUSER)).with_uid_map(map).with_gid_map(map);
    let policy = policy().with_credentials(credentials).with_setgroups(Setgroups::Deny);
    let mut launcher = Launcher::new(&asked, policy).unwrap();
    // SAFETY: a call with numbers.
    let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
    let before = dumpable();
    let mut child = launcher.command("true", [""; 0]).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(dumpable(), before);
}

fn launches(uid: u32) {
    let others = CloneFlags::NEWNET.union(CloneFlags::NEWPID).union(CloneFlags::NEWNS);
    let others = others.union(CloneFlags::NEWUTS).union(CloneFlags::NEWIPC).union(CloneFlags::NEWCGROUP);
    leaves_nothing(|| {
        for credentials in [Credentials::Root, Credentials::Keep] {
            for kinds in [CloneFlags::EMPTY, CloneFlags::NEWNET, CloneFlags::NEWPID, others] {
                (0..20).for_each(|_| launch(uid, kinds, credentials));
            }
        }
    });
}

fn ordinary_user_shares() {
    let traced = tracer(UID);
    become_user([UID; 3], [UID; 3], 0);
    check(traced(), None);
    launches(UID);
}

fn ambient_capability() {
    let traced = tracer(UID);
    become_user([UID; 3], [UID; 3], BIND);
    // SAFETY: a call with numbers.
    let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 10, 0, 0) };
    assert_eq!(raised, 0);
    check(traced(), Some(Guard::Capabilities));
    launches(UID);
}

fn permitted_capability() {
    let traced = tracer(UID);
    become_user([UID; 3], [UID; 3], BIND);
    check(traced(), Some(Guard::Capabilities));
}

fn other_saved_group() {
    let traced = tracer(UID);
    become_user([UID; 3], [UID, UID, UID + 1], 0);
    check(traced(), Some(Guard::Ids));
    launches(UID);
}

fn other_real_user() {
    let traced = tracer(UID);
    become_user([UID + 1, UID, UID], [UID; 3], 0);
    check(traced(), Some(Guard::Ids));
}

/// An ordinary user's launcher that is not dumpable cannot write the maps: the files belong to root.
fn not_dumpable() {
    let traced = tracer(UID);
    become_user([UID; 3], [UID; 3], 0);
    // SAFETY: a call with numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, 0);
    check(traced(), Some(Guard::NotDumpable));
}

/// Only the decision: a map of root's own id needs CAP_SETFCAP (user_namespaces(7)).
fn root_without_capabilities() {
    let traced = tracer(0);
    become_user([0; 3], [0; 3], 0);
    check(traced(), None);
}

/// The text that an attacker tries to read in the memory of this program.
static SECRET: [u8; 16] = *b"not for a tracer";

/// Returns whether this process can read the secret in the memory of another one.
fn reads_secret(pid: i32) -> bool {
    let mut found = [0; 16];
    let memory = File::open(format!("/proc/{pid}/mem"));
    let address = SECRET.as_ptr().addr() as u64;
    memory.and_then(|memory| memory.read_exact_at(&mut found, address)).is_ok() && found == SECRET
}

fn dumpable() -> i32 {
    // SAFETY: a call with numbers.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
}

/// A process of this user without capabilities. It gets a pid, and answers whether it can read the secret in
/// the memory of that process.
struct Attacker(UnixStream, Pid);

impl Attacker {
    fn new(uid: u32) -> Self {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // SAFETY: this process has one thread.
        let mut sys = unsafe { LinuxSys::new() };
        match sys.fork(ExitSignal::Chld, None).unwrap() {
            Fork::Parent { child, .. } => Self(ours, child),
            Fork::Child => {
                drop(ours);
                become_user([uid; 3], [uid; 3], 0);
                let mut pid = [0; 4];
                while std::io::Read::read_exact(&mut theirs, &mut pid).is_ok() {
                    let answer = [u8::from(reads_secret(i32::from_ne_bytes(pid)))];
                    std::io::Write::write_all(&mut theirs, &answer).unwrap();
                }
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
        }
    }

    fn reads(&mut self, pid: i32) -> bool {
        std::io::Write::write_all(&mut self.0, &pid.to_ne_bytes()).unwrap();
        let mut answer = [0];
        std::io::Read::read_exact(&mut self.0, &mut answer).unwrap();
        answer == [1]
    }

    fn end(self) {
        drop(self.0);
        assert_eq!(status(self.1), 0);
    }
}

/// A look at a stopped process that still executes this program: its user id, and whether the attacker read
/// the secret in it.
struct Look {
    uid: u32,
    read: bool,
}

/// The number of launches that are attacked at most. On a busy machine most of them give no look.
const LAUNCHES: usize = 40_000;

/// The attacker stops the process of a launch as soon as it sees it, or as soon as it has this user id.
#[derive(Clone, Copy)]
enum Stop {
    AtOnce,
    WithUid(u32),
}

/// Returns the effective user id in a file /proc/PID/status.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Launches `true` in new namespaces, and stops its process on the way to the exec. Returns the look of the
/// attacker, if the process was stopped early enough.
fn launch_under_attack(attacker: &mut Attacker, map: &CStr, copy: bool, stop: Stop) -> Option<Look> {
    let map = IdMap::parse(map).unwrap();
    let kinds = CloneFlags::NEWUSER.union(CloneFlags::NEWNET).union(CloneFlags::NEWUTS);
    let asked = Bootstrap::new(kinds).with_uid_map(map).with_gid_map(map);
    let policy = policy().with_credentials(Credentials::Root);
    let mut launcher = Launcher::new(&asked, policy).unwrap();
    launcher.command("true", [""; 0]);
    if copy {
        launcher.copy_memory();
    }
    let (launching, Pid(other)) = (nix::unistd::gettid(), attacker.1);
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let children = format!("/proc/self/task/{launching}/children");
            let child = loop {
                let found = std::fs::read_to_string(&children).unwrap();
                let mut found = found.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
                match found.find(|pid| *pid != other) {
                    Some(child) => break child,
                    None if over.load(Ordering::Relaxed) => return None,
                    None => {}
                }
            };
            let status = || std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let executes = || std::fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == own);
            if let Stop::WithUid(uid) = stop {
                while effective_uid(&status()).is_some_and(|now| now != uid) && executes() {}
            }
            // SAFETY: calls with numbers. The child is not reaped before it has ended, and this thread ends
            // first.
            let signal = |signal| unsafe { libc::kill(child, signal) };
            signal(libc::SIGSTOP);
            let status = status();
            let stopped = status.contains("T (stopped)");
            let uid = effective_uid(&status).filter(|_| stopped);
            let read = stopped && attacker.reads(child);
            let look = executes().then_some(read);
            signal(libc::SIGCONT);
            Some(Look { uid: uid?, read: look? })
        });
        let mut child = launcher.spawn().unwrap();
        over.store(true, Ordering::Relaxed);
        let look = look.join().unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(dumpable(), 1);
        look
    })
}

/// Root without capabilities owns the new user namespace as much as this launcher does. It reaches a copy of
/// the memory, and not the memory itself.
fn owner_does_not_reach() {
    let mut attacker = Attacker::new(0);
    assert!(!attacker.reads(i32::try_from(std::process::id()).unwrap()), "reaches the launcher itself");
    let mut looks = |copy| {
        let looks =
            (0..LAUNCHES).filter_map(|_| launch_under_attack(&mut attacker, c"0 0 1\n", copy, Stop::AtOnce));
        looks.take(20).map(|look| look.read).collect::<Vec<_>>()
    };
    let shared = looks(false);
    assert!(shared.len() > 2 && !shared.contains(&true), "{shared:?}");
    // The attack itself works.
    let copied = looks(true);
    assert!(copied.contains(&true), "{copied:?}");
    attacker.end();
}

/// The attacker has the user id to which root of the new namespace is mapped outside.
fn mapped_user_does_not_reach() {
    let mut attacker = Attacker::new(100_000);
    let mut changed = 0;
    for number in 0..LAUNCHES {
        let stop = if number % 2 == 0 { Stop::AtOnce } else { Stop::WithUid(100_000) };
        let look = launch_under_attack(&mut attacker, c"0 100000 65536\n", false, stop);
        let Some(look) = look else { continue };
        assert!(!look.read, "as user {}", look.uid);
        changed += usize::from(look.uid == 100_000);
        if changed == 10 {
            break;
        }
    }
    assert!(changed > 2, "{changed} looks after the change of ids");
    attacker.end();
}

/// Some of the launches make this program not dumpable, at overlapping times.
fn many_threads() {
    leaves_nothing(|| {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for round in 0..60 {
                        let mut command = Command::new("true");
                        match (thread + round) % 3 {
                            0 => command.unshare([NsKind::Uts]),
                            1 => command.unshare([NsKind::User]).map_root(),
                            _ => command.uid(UID),
                        };
                        assert!(command.status().unwrap().success());
                    }
                });
            }
        });
    });
    assert_eq!(dumpable(), 1);
    assert!(own_protection().dumpable);
}

fn stays_not_dumpable() {
    // SAFETY: a call with numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, 0);
    let mut command = Command::new("true");
    assert!(command.unshare([NsKind::User]).map_root().status().unwrap().success());
    assert_eq!(dumpable(), 0);
    assert!(!own_protection().dumpable);
}

/// The program was executed in another user namespace, whose root gets the files of a process that is not
/// dumpable. So the direct start cannot write the maps.
fn own_new_user_namespace() {
    let Pid(helper) = {
        let (begin, mut begun) = UnixStream::pair().unwrap();
        // SAFETY: this process has one thread. The child ends without a destructor.
        let mut sys = unsafe { LinuxSys::new() };
        match sys.fork(ExitSignal::Chld, None).unwrap() {
            Fork::Parent { child, .. } => {
                // SAFETY: a call with a number, in a process with one thread.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0);
                drop(begin);
                std::io::Write::write_all(&mut begun, b"b").unwrap();
                child
            }
            Fork::Child => {
                drop(begun);
                let _ = std::io::Read::read(&mut { &begin }, &mut [0]);
                let parent = nix::unistd::getppid();
                for map in ["uid_map", "gid_map"] {
                    std::fs::write(format!("/proc/{parent}/{map}"), "0 100000 65536\n").unwrap();
                }
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
        }
    };
    assert_eq!(status(Pid(helper)), 0);
    // SAFETY: calls with numbers, in a process with one thread.
    unsafe {
        assert_eq!(libc::setresgid(0, 0, 0), 0);
        assert_eq!(libc::setresuid(0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
    leaves_nothing(|| {
        let mut command = Command::new("id");
        command.arg("-u").unshare([NsKind::User]).map_root().uid_map([Extent {
            inside: 0,
            outside: 0,
            count: 9,
        }]);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"0\n", "{output:?}");
    });
    assert_eq!(dumpable(), 1);
}
