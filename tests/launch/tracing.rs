//! A launch with a new user namespace shares the launcher's memory only if every process that will be able to
//! trace the new process can trace the launcher. Each case asks the kernel: a process of the launcher's ids,
//! without capabilities, tries to open the launcher's memory.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::net::UnixStream;

use nsexec::bootstrap::Bootstrap;
use nsexec::idmap::IdMap;
use nsexec::launch::shape::{Guard, Memory, Protection, WhyCopied, Yama};
use nsexec::launch::{Launcher, own_protection};
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
        launcher.command("true", [""; 0]).prepare().unwrap().memory(false, own_protection().guard())
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
