//! Rules: the tree of mounts, the root and the working directory.
//!
//! Each rule works in a mount namespace of its own, with private mounts.

use super::*;

rules! {
    User changing_the_tree_needs_privilege = "EPERM EPERM EPERM EPERM EPERM EPERM EPERM";
    Root errnos_of_a_working_directory = "ENOENT ENOTDIR EBADF ENOTDIR ok ok";
    Root copied_mount_is_attached_and_read_only = "ok EINVAL ok EROFS EROFS ok EEXIST";
    User copied_mount_is_attached_and_read_only_in_a_user_namespace = "ok EINVAL ok EROFS EROFS ok EEXIST";
    Root errnos_of_a_move = "EBADF EBADF EINVAL EINVAL EINVAL EINVAL ELOOP";
    Root errnos_of_attributes = "ok EBADF EINVAL EINVAL EINVAL ok ok";
    User locked_mounts_stay_together = "EINVAL ok EINVAL";
    Root locked_attribute_is_not_cleared = "ok EPERM ok";
    Root errnos_of_creating_entries = "ok ok ok EEXIST EEXIST ENOENT ENOENT ENOTDIR EEXIST ENOENT";
    Root links_stay_below_the_root_of_an_open = "ok ok ok ENOENT ENOTDIR ELOOP ELOOP ENOTDIR";
    User entries_of_proc_cannot_be_created = "ENOENT EEXIST";
    Root pivot_needs_a_mount = "EBUSY EINVAL ok EPERM ok ok ENOENT";
    User pivot_in_a_user_namespace = "EINVAL EINVAL ok EPERM ok ok ENOENT";
    Root a_copy_that_is_not_attached_cannot_become_the_root = "EINVAL EINVAL";
    Root chroot_needs_its_capability = "ok ENOENT EPERM EBUSY";
    User chroot_without_privilege = "EPERM";
    User detach_of_a_locked_mount = "EINVAL EINVAL";
    Root file_systems_are_mounted_once = "ok ok ok ok EBUSY ok EBUSY ok EINVAL EINVAL EINVAL";
    User file_systems_of_foreign_namespaces = "EPERM EPERM EPERM ok ok";
    User file_systems_of_own_namespaces = "ok ok ok";
    User new_sysfs_over_sys = "ok EBUSY EBUSY";
    User sysfs_of_a_foreign_network = "EPERM";
    User read_only_sysfs_shows_no_writable_one = "EPERM ok";
    User sysfs_and_proc_need_a_visible_one = "ok ok EPERM EPERM";
    Root root_of_a_joined_mount_namespace = "ok ENOENT ok";
    Root files_of_a_read_only_proc = "ok EROFS EROFS ok EROFS";
    User read_only_proc_shows_no_new_one = "EROFS EPERM";
    Root proc_of_the_new_root = "ENOENT ok true";
}

/// Enters a mount namespace whose mounts are private. An ordinary user becomes root of a user namespace.
fn enter<S: Sys>(sys: &mut S, more: CloneFlags) {
    sys.unshare(CloneFlags::NEWNS.union(more)).unwrap();
    if more.contains(CloneFlags::NEWUSER) {
        // Only a mapped user creates files.
        put(sys, c"/proc/self/setgroups", b"deny").unwrap();
        put(sys, c"/proc/self/uid_map", b"0 64321 1\n").unwrap();
        put(sys, c"/proc/self/gid_map", b"0 64321 1\n").unwrap();
    }
    sys.mount(Mount::Propagation(Propagation::Private)).unwrap();
}

/// Mounts a tmpfs over /tmp, and enters it.
fn tmpfs<S: Sys>(sys: &mut S) {
    sys.chdir(c"/tmp").unwrap();
    sys.mount_here(MountKind::Tmpfs, c"mode=755").unwrap();
    sys.chdir(c"/tmp").unwrap();
}

fn make<S: Sys>(sys: &mut S, name: &CStr) -> SysResult<()> {
    sys.mkdirat(Fd::CWD, name, 0o755)
}

const READ_ONLY: MountAttributes = MountAttributes { set: MountAttributes::RDONLY, clear: 0 };
const WRITABLE: MountAttributes = MountAttributes { set: 0, clear: MountAttributes::RDONLY };

fn changing_the_tree_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[
        errno_name(sys.open_tree(c"/nowhere", false)),
        errno_name(sys.move_mount(Fd(99), Fd(99))),
        errno_name(sys.set_mount_attributes(Fd(99), true, READ_ONLY)),
        errno_name(sys.mount_here(MountKind::Tmpfs, c"")),
        errno_name(sys.pivot_root_here()),
        errno_name(sys.detach_here()),
        errno_name(sys.chroot_here()),
    ]))
}

fn errnos_of_a_working_directory<S: Sys>(sys: &mut S) -> RuleResult {
    let (pipe, _) = sys.pipe2().unwrap();
    let proc = open(sys, c"/proc", OpenFlags::Directory).unwrap();
    Ok(words(&[
        errno_name(sys.chdir(c"/nowhere")),
        errno_name(sys.chdir(c"/etc/passwd")),
        errno_name(sys.fchdir(Fd(99))),
        errno_name(sys.fchdir(pipe)),
        errno_name(sys.fchdir(proc)),
        errno_name(sys.chdir(c"self")),
    ]))
}

fn attached<S: Sys>(sys: &mut S) -> RuleResult {
    tmpfs(sys);
    for name in [c"from", c"to", c"from/inner"] {
        make(sys, name).unwrap();
    }
    let copy = sys.open_tree(c"from", true).unwrap();
    let target = sys.open_in_root(copy, c"/../inner", OpenFlags::Path).unwrap();
    // The directory below the copy is not the root of a mount.
    let below = errno_name(sys.set_mount_attributes(target, false, READ_ONLY));
    let changed = errno_name(sys.set_mount_attributes(copy, false, READ_ONLY));
    let to = open(sys, c"to", OpenFlags::Path).unwrap();
    let moved = errno_name(sys.move_mount(copy, to));
    let refused = [
        errno_name(sys.mkdirat(copy, c"new", 0o755)),
        errno_name(sys.symlinkat(c"inner", Fd::CWD, c"to/new")),
        errno_name(make(sys, c"from/new")),
        // The entry exists, which the kernel checks first.
        errno_name(make(sys, c"to/inner")),
    ];
    Ok(words(&[moved, below, changed, words(&refused)]))
}

fn copied_mount_is_attached_and_read_only<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    attached(sys)
}

fn copied_mount_is_attached_and_read_only_in_a_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    attached(sys)
}

fn errnos_of_a_move<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    make(sys, c"a").unwrap();
    let (pipe, _) = sys.pipe2().unwrap();
    let copy = sys.open_tree(c"/tmp", false).unwrap();
    let file = sys.open_tree(c"/etc/passwd", false).unwrap();
    let directory = open(sys, c"a", OpenFlags::Path).unwrap();
    let mount = sys.open_tree(c"a", false).unwrap();
    let mut said = vec![
        errno_name(sys.move_mount(Fd(99), directory)),
        errno_name(sys.move_mount(copy, Fd(99))),
        errno_name(sys.move_mount(directory, directory)),
        errno_name(sys.move_mount(file, directory)),
        errno_name(sys.move_mount(pipe, directory)),
        errno_name(sys.move_mount(copy, pipe)),
    ];
    sys.move_mount(mount, directory).unwrap();
    let inside = open(sys, c"a", OpenFlags::Path).unwrap();
    said.push(errno_name(sys.move_mount(mount, inside)));
    Ok(words(&said))
}

fn errnos_of_attributes<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    let (pipe, _) = sys.pipe2().unwrap();
    let etc = open(sys, c"/etc", OpenFlags::Path).unwrap();
    let copy = sys.open_tree(c"/etc", true).unwrap();
    let unknown = MountAttributes { set: 1 << 40, clear: 0 };
    Ok(words(&[
        errno_name(sys.set_mount_attributes(Fd(99), false, MountAttributes::default())),
        errno_name(sys.set_mount_attributes(Fd(99), false, READ_ONLY)),
        errno_name(sys.set_mount_attributes(pipe, false, READ_ONLY)),
        errno_name(sys.set_mount_attributes(etc, false, READ_ONLY)),
        errno_name(sys.set_mount_attributes(copy, false, unknown)),
        errno_name(sys.set_mount_attributes(copy, true, READ_ONLY)),
        errno_name(sys.set_mount_attributes(copy, true, WRITABLE)),
    ]))
}

fn locked_mounts_stay_together<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    let alone = errno_name(sys.open_tree(c"/", false));
    let together = errno_name(sys.open_tree(c"/", true));
    sys.chdir(c"/proc").unwrap();
    Ok(words(&[alone, together, errno_name(sys.detach_here())]))
}

fn locked_attribute_is_not_cleared<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    make(sys, c"a").unwrap();
    let copy = sys.open_tree(c"a", false).unwrap();
    sys.set_mount_attributes(copy, false, READ_ONLY).unwrap();
    let target = open(sys, c"a", OpenFlags::Path).unwrap();
    sys.move_mount(copy, target).unwrap();
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS)).unwrap();
    let copy = sys.open_tree(c"/tmp/a", false);
    let cleared = errno_name(sys.set_mount_attributes(copy.unwrap(), false, WRITABLE));
    let again = errno_name(sys.set_mount_attributes(copy.unwrap(), false, READ_ONLY));
    Ok(words(&[errno_name(copy), cleared, again]))
}

fn errnos_of_creating_entries<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    let (pipe, _) = sys.pipe2().unwrap();
    Ok(words(&[
        errno_name(make(sys, c"a")),
        errno_name(make(sys, c"a/b/")),
        errno_name(sys.symlinkat(c"a", Fd::CWD, c"link")),
        errno_name(make(sys, c"link")),
        errno_name(make(sys, c".")),
        errno_name(make(sys, c"")),
        errno_name(make(sys, c"none/a")),
        errno_name(sys.mkdirat(pipe, c"a", 0o755)),
        errno_name(sys.symlinkat(c"x", Fd::CWD, c"link/b")),
        errno_name(sys.symlinkat(c"", Fd::CWD, c"new")),
    ]))
}

fn links_stay_below_the_root_of_an_open<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    for name in [c"root", c"root/a", c"outside"] {
        make(sys, name).unwrap();
    }
    for (target, name) in [(c"/a", c"root/in"), (c"../outside", c"root/out"), (c"loop", c"root/loop")] {
        sys.symlinkat(target, Fd::CWD, name).unwrap();
    }
    let root = open(sys, c"root", OpenFlags::Path).unwrap();
    let slash = open(sys, c"/", OpenFlags::Path).unwrap();
    let file = sys.open_in_root(root, c"file", OpenFlags::New).unwrap();
    let mut opened = |root, path, flags| errno_name(sys.open_in_root(root, path, flags));
    Ok(words(&[
        opened(root, c"in", OpenFlags::Directory),
        opened(root, c"../../a/../a", OpenFlags::Path),
        opened(root, c"/file", OpenFlags::ReadOnly),
        opened(root, c"out", OpenFlags::Path),
        opened(root, c"file/a", OpenFlags::Path),
        opened(root, c"loop", OpenFlags::Path),
        opened(slash, c"proc/self/exe", OpenFlags::Path),
        opened(file, c"a", OpenFlags::Path),
    ]))
}

fn entries_of_proc_cannot_be_created<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[errno_name(make(sys, c"/proc/new")), errno_name(make(sys, c"/proc/self"))]))
}

fn pivots<S: Sys>(sys: &mut S) -> RuleResult {
    tmpfs(sys);
    make(sys, c"a").unwrap();
    sys.chdir(c"/").unwrap();
    let on_root = errno_name(sys.pivot_root_here());
    sys.chdir(c"/tmp/a").unwrap();
    let no_mount = errno_name(sys.pivot_root_here());
    sys.chdir(c"/tmp").unwrap();
    let pivoted = errno_name(sys.pivot_root_here());
    // The old root covers the new one, so the process counts as changed in its root.
    let covered = errno_name(sys.unshare(CloneFlags::NEWUSER));
    let detached = errno_name(sys.detach_here());
    let inside = errno_name(sys.chdir(c"/a"));
    Ok(words(&[on_root, no_mount, pivoted, covered, detached, inside, errno_name(sys.chdir(c"/tmp"))]))
}

fn pivot_needs_a_mount<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    pivots(sys)
}

fn pivot_in_a_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    pivots(sys)
}

fn a_copy_that_is_not_attached_cannot_become_the_root<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    let copy = sys.open_tree(c"/tmp", false).unwrap();
    sys.fchdir(copy).unwrap();
    Ok(words(&[errno_name(sys.pivot_root_here()), errno_name(sys.mount_here(MountKind::Tmpfs, c""))]))
}

fn chroot_needs_its_capability<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    let changed = errno_name(sys.chroot_here());
    let lookup = errno_name(sys.chdir(c"/etc"));
    // A user namespace would hide the files from their owner.
    let user = errno_name(sys.unshare(CloneFlags::NEWUSER));
    Ok(words(&[changed, lookup, user, errno_name(sys.pivot_root_here())]))
}

fn chroot_without_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.chroot_here()))
}

fn detach_of_a_locked_mount<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    sys.chdir(c"/etc").unwrap();
    let no_mount = errno_name(sys.detach_here());
    sys.chdir(c"/sys").unwrap();
    Ok(words(&[no_mount, errno_name(sys.detach_here())]))
}

fn file_systems_are_mounted_once<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    let mut mounted = |kind, options| errno_name(sys.mount_here(kind, options));
    Ok(words(&[
        mounted(MountKind::Proc, c""),
        mounted(MountKind::Proc, c"hidepid=2"),
        mounted(MountKind::Tmpfs, c"size=65536,mode=700"),
        mounted(MountKind::Sysfs, c""),
        mounted(MountKind::Sysfs, c""),
        mounted(MountKind::Mqueue, c""),
        mounted(MountKind::Mqueue, c""),
        mounted(MountKind::Devpts, c"newinstance,ptmxmode=0666"),
        mounted(MountKind::Overlay, c""),
        mounted(MountKind::Tmpfs, c"parity=1"),
        mounted(MountKind::Sysfs, c"mode=700"),
    ]))
}

fn file_systems_of_foreign_namespaces<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    sys.chdir(c"/tmp").unwrap();
    let mut mounted = |kind| errno_name(sys.mount_here(kind, c""));
    Ok(words(&[
        mounted(MountKind::Proc),
        mounted(MountKind::Sysfs),
        mounted(MountKind::Mqueue),
        mounted(MountKind::Tmpfs),
        mounted(MountKind::Devpts),
    ]))
}

/// Returns the results of mounts in a child, which is in the new pid namespace.
fn in_new_namespaces<S: Sys>(sys: &mut S, kinds: &[MountKind]) -> RuleResult {
    let new = CloneFlags::NEWPID.union(CloneFlags::NEWNET).union(CloneFlags::NEWIPC);
    enter(sys, CloneFlags::NEWUSER.union(new));
    sys.chdir(c"/tmp").unwrap();
    // One process for all: its namespace ends with it.
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            for kind in kinds {
                let errno = code(sys.mount_here(*kind, c""));
                sys.send(theirs, &[errno.0 as u8]).unwrap();
            }
            Err(0)
        }
        Fork::Parent { child } => {
            let mut said = Vec::new();
            for _ in kinds {
                let mut errno = [255];
                sys.read(ours, &mut errno).unwrap();
                said.push(name(i32::from(errno[0])));
            }
            exit_status(sys, child);
            Ok(words(&said))
        }
    }
}

fn file_systems_of_own_namespaces<S: Sys>(sys: &mut S) -> RuleResult {
    in_new_namespaces(sys, &[MountKind::Mqueue, MountKind::Sysfs, MountKind::Proc])
}

fn new_sysfs_over_sys<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER.union(CloneFlags::NEWNET));
    let mut mounted = |read_only| errno_name(sys.mount(Mount::Sysfs { read_only }));
    Ok(words(&[mounted(false), mounted(false), mounted(true)]))
}

fn sysfs_of_a_foreign_network<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    Ok(errno_name(sys.mount(Mount::Sysfs { read_only: true })))
}

/// The read-only /sys is that of the mount namespace from which the second one is copied.
fn read_only_sysfs_shows_no_writable_one<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER.union(CloneFlags::NEWNET));
    let copy = sys.open_tree(c"/sys", true).unwrap();
    sys.set_mount_attributes(copy, false, READ_ONLY).unwrap();
    let root = sys.openat(Fd::CWD, c"/sys", OpenFlags::Path).unwrap();
    sys.move_mount(copy, root).unwrap();
    // The mount below is covered by it, so it is not visible.
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS).union(CloneFlags::NEWNET)).unwrap();
    let mut mounted = |read_only| errno_name(sys.mount(Mount::Sysfs { read_only }));
    Ok(words(&[mounted(false), mounted(true)]))
}

/// After the change of the root neither /proc nor /sys is left.
fn sysfs_and_proc_need_a_visible_one<S: Sys>(sys: &mut S) -> RuleResult {
    let new = CloneFlags::NEWUSER.union(CloneFlags::NEWNET);
    enter(sys, new);
    tmpfs(sys);
    let pivoted = errno_name(sys.pivot_root_here());
    let detached = errno_name(sys.detach_here());
    let sysfs = errno_name(sys.mount_here(MountKind::Sysfs, c""));
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let proc = in_child(sys, |sys| code(sys.mount_here(MountKind::Proc, c"")).0)?;
    Ok(words(&[pivoted, detached, sysfs, name(proc)]))
}

fn root_of_a_joined_mount_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let own = open(sys, c"/proc/self/ns/mnt", OpenFlags::Namespace).unwrap();
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    sys.chroot_here().unwrap();
    let before = errno_name(sys.chdir(c"/etc"));
    let joined = errno_name(sys.setns(own, CloneFlags::NEWNS));
    Ok(words(&[joined, before, errno_name(sys.chdir(c"/etc"))]))
}

fn proc_of_the_new_root<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    tmpfs(sys);
    make(sys, c"proc").unwrap();
    sys.pivot_root_here().unwrap();
    sys.detach_here().unwrap();
    let before = errno_name(sys.link_count(c"/proc/self/task"));
    let mounted = errno_name(sys.mount(Mount::Proc));
    let threads = sys.link_count(c"/proc/self/task") == Ok(3);
    Ok(words(&[before, mounted, threads.to_string()]))
}

/// Makes the mount at /proc read-only: covers it with a read-only copy.
fn cover_proc<S: Sys>(sys: &mut S) {
    let copy = sys.open_tree(c"/proc", false).unwrap();
    sys.set_mount_attributes(copy, false, READ_ONLY).unwrap();
    let place = open(sys, c"/proc", OpenFlags::Directory).unwrap();
    sys.move_mount(copy, place).unwrap();
}

fn files_of_a_read_only_proc<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::EMPTY);
    cover_proc(sys);
    let child = child(sys, |sys| code(sys.unshare(CloneFlags::NEWUSER)))?;
    let found = [
        errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadOnly)),
        errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite)),
        errno_name(open(sys, &proc_path(child.pid, "uid_map"), OpenFlags::ReadWrite)),
        errno_name(open(sys, &proc_path(child.pid, "uid_map"), OpenFlags::ReadOnly)),
        errno_name(open(sys, &proc_path(child.pid, "setgroups"), OpenFlags::ReadWrite)),
    ];
    child.end(sys);
    Ok(words(&found))
}

/// Without another /proc in the mount namespace, a new one must be read-only too.
fn read_only_proc_shows_no_new_one<S: Sys>(sys: &mut S) -> RuleResult {
    enter(sys, CloneFlags::NEWUSER);
    cover_proc(sys);
    let written = errno_name(put(sys, c"/proc/self/oom_score_adj", b"0"));
    let status = in_child(sys, |sys| {
        sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS)).unwrap();
        sys.chdir(c"/tmp").unwrap();
        code(sys.mount_here(MountKind::Proc, c"")).0
    })?;
    Ok(words(&[written, name(status)]))
}
