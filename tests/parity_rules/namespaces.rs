//! Rules: joining and creating namespaces.

use super::*;

rules! {
    User unshare_of_nothing_and_of_the_unknown = "ok EINVAL";
    User creating_needs_privilege = "EPERM EPERM EPERM EPERM EPERM EPERM EPERM";
    User a_user_namespace_comes_first_and_gives_the_rest = "ok";
    Root root_creates_each_kind = "ok ok ok ok ok ok ok ok";
    User setns_of_a_non_namespace_is_einval = "EINVAL EINVAL";
    Root setns_checks_the_kind = "EINVAL ok";
    Root ones_own_namespaces_can_be_joined_but_the_user_namespace = "ok ok ok ok ok ok ok EINVAL";
    User joining_needs_privilege = "EPERM EPERM EPERM EPERM EPERM EPERM EPERM";
    User the_creator_joins_its_user_namespace = "ok ok";
    User the_creator_needs_its_own_rights_too = "EPERM EPERM";
    Root user_may_not_join_a_foreign_user_namespace = "EPERM";
    Root a_namespace_of_the_first_is_closed_from_inside = "ok ok EPERM";
    Root root_joins_a_pid_namespace_below = "ok true 2";
    Root parent_pid_namespace_cannot_be_joined = "EINVAL";
    Root a_joined_pid_namespace_excludes_a_new_one = "ok EINVAL";
    Root offsets_before_the_first_process_only = "ok EACCES";
    Root forms_of_offsets = "EINVAL EINVAL EINVAL EINVAL ERANGE ERANGE ok ok ok";
    Root a_third_line_of_offsets_is_not_read = "27";
    Root offsets_of_the_first_namespace = "EACCES";
    User offsets_need_privilege = "EPERM";
    User offsets_of_ones_own_user_namespace = "ok";
    Root a_time_namespace_is_for_children_only = "true";
    Root joining_a_time_namespace_freezes_it = "ok EACCES";
    Root user_namespaces_nest_33_deep = "33 ENOSPC";
    User an_unmapped_user_creates_no_user_namespace = "ok EPERM";
    User mounting_needs_privilege = "EPERM EPERM EPERM";
    User a_private_mount_in_ones_own_namespace = "ok";
    User a_fresh_proc_needs_ones_own_pid_namespace = "EPERM";
    Root root_in_its_user_namespace_has_no_rights_outside = "EPERM EPERM";
}

const KINDS: [CloneFlags; 7] = [
    CloneFlags::NEWNS,
    CloneFlags::NEWUTS,
    CloneFlags::NEWIPC,
    CloneFlags::NEWPID,
    CloneFlags::NEWCGROUP,
    CloneFlags::NEWNET,
    CloneFlags::NEWTIME,
];
const FILES: [&CStr; 7] = [
    c"/proc/self/ns/mnt",
    c"/proc/self/ns/uts",
    c"/proc/self/ns/ipc",
    c"/proc/self/ns/pid",
    c"/proc/self/ns/cgroup",
    c"/proc/self/ns/net",
    c"/proc/self/ns/time",
];
const USER: u32 = 64_321;

fn unshare_of_nothing_and_of_the_unknown<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[errno_name(sys.unshare(CloneFlags::EMPTY)), errno_name(sys.unshare(CloneFlags(0x8000_0000)))]))
}

fn creating_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&KINDS.map(|kind| errno_name(sys.unshare(kind)))))
}

fn a_user_namespace_comes_first_and_gives_the_rest<S: Sys>(sys: &mut S) -> RuleResult {
    let all = KINDS.iter().fold(CloneFlags::NEWUSER, |all, kind| all.union(*kind));
    Ok(errno_name(sys.unshare(all)))
}

fn root_creates_each_kind<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said: Vec<String> = KINDS.map(|kind| errno_name(sys.unshare(kind))).into();
    said.push(errno_name(sys.unshare(CloneFlags::NEWUSER)));
    Ok(words(&said))
}

fn setns_of_a_non_namespace_is_einval<S: Sys>(sys: &mut S) -> RuleResult {
    let (pipe, _) = sys.pipe2().unwrap();
    let file = open(sys, c"/proc/self/uid_map", OpenFlags::ReadOnly).unwrap();
    Ok(words(&[
        errno_name(sys.setns(pipe, CloneFlags::NEWNET)),
        errno_name(sys.setns(file, CloneFlags::EMPTY)),
    ]))
}

fn setns_checks_the_kind<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    Ok(words(&[errno_name(sys.setns(fd, CloneFlags::NEWUTS)), errno_name(sys.setns(fd, CloneFlags::EMPTY))]))
}

fn ones_own_namespaces_can_be_joined_but_the_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let fds = FILES.map(|file| open(sys, file, OpenFlags::Namespace).unwrap());
    let mut said = Vec::new();
    for (fd, kind) in fds.into_iter().zip(KINDS) {
        said.push(errno_name(sys.setns(fd, kind)));
    }
    said.push(errno_name(join(sys, c"/proc/self/ns/user", CloneFlags::NEWUSER)));
    Ok(words(&said))
}

fn joining_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for (file, kind) in FILES.into_iter().zip(KINDS) {
        said.push(errno_name(join(sys, file, kind)));
    }
    Ok(words(&said))
}

fn the_creator_joins_its_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| code(sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNET))))?;
    let user = errno_name(join(sys, &proc_path(target.pid, "ns/user"), CloneFlags::NEWUSER));
    let net = errno_name(join(sys, &proc_path(target.pid, "ns/net"), CloneFlags::NEWNET));
    target.end(sys);
    Ok(words(&[user, net]))
}

/// It has every capability in the new user namespace, but none in its own.
fn the_creator_needs_its_own_rights_too<S: Sys>(sys: &mut S) -> RuleResult {
    let all = CloneFlags::NEWUSER.union(CloneFlags::NEWNET).union(CloneFlags::NEWNS);
    let target = child(sys, |sys| code(sys.unshare(all)))?;
    assert_eq!(target.began, 0);
    let net = errno_name(join(sys, &proc_path(target.pid, "ns/net"), CloneFlags::NEWNET));
    let mnt = errno_name(join(sys, &proc_path(target.pid, "ns/mnt"), CloneFlags::NEWNS));
    target.end(sys);
    Ok(words(&[net, mnt]))
}

fn user_may_not_join_a_foreign_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| code(sys.unshare(CloneFlags::NEWUSER)))?;
    // Root opens the file, since an ordinary user could not.
    let fd = open(sys, &proc_path(target.pid, "ns/user"), OpenFlags::Namespace).unwrap();
    let said = in_child(sys, |sys| {
        sys.setresuid(USER).unwrap();
        code(sys.setns(fd, CloneFlags::NEWUSER)).0
    })?;
    target.end(sys);
    Ok(name(said))
}

fn a_namespace_of_the_first_is_closed_from_inside<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| code(sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWUTS))))?;
    let [user, uts] = ["ns/user", "ns/uts"]
        .map(|file| open(sys, &proc_path(target.pid, file), OpenFlags::Namespace).unwrap());
    let foreign = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    let said = [
        errno_name(sys.setns(user, CloneFlags::NEWUSER)),
        errno_name(sys.setns(uts, CloneFlags::NEWUTS)),
        errno_name(sys.setns(foreign, CloneFlags::NEWNET)),
    ];
    target.end(sys);
    Ok(words(&said))
}

/// Makes a pid namespace with a living pid 1.
fn pid_namespace<S: Sys>(sys: &mut S) -> Result<(Child, Fd), i32> {
    let own = open(sys, c"/proc/self/ns/pid", OpenFlags::Namespace).unwrap();
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let first = child(sys, |_| Errno(0))?;
    let below = open(sys, &proc_path(first.pid, "ns/pid"), OpenFlags::Namespace).unwrap();
    // Returns to the original pid namespace.
    sys.setns(own, CloneFlags::NEWPID).unwrap();
    Ok((first, below))
}

fn root_joins_a_pid_namespace_below<S: Sys>(sys: &mut S) -> RuleResult {
    let (first, below) = pid_namespace(sys)?;
    let before = sys.getpid();
    let joined = errno_name(sys.setns(below, CloneFlags::NEWPID));
    let same = sys.getpid() == before;
    let second = in_child(sys, |sys| sys.getpid().0)?;
    first.end(sys);
    Ok(format!("{joined} {same} {second}"))
}

fn parent_pid_namespace_cannot_be_joined<S: Sys>(sys: &mut S) -> RuleResult {
    let own = open(sys, c"/proc/self/ns/pid", OpenFlags::Namespace).unwrap();
    sys.unshare(CloneFlags::NEWPID).unwrap();
    Ok(name(in_child(sys, |sys| code(sys.setns(own, CloneFlags::NEWPID)).0)?))
}

fn a_joined_pid_namespace_excludes_a_new_one<S: Sys>(sys: &mut S) -> RuleResult {
    let (first, below) = pid_namespace(sys)?;
    let joined = errno_name(sys.setns(below, CloneFlags::NEWPID));
    let created = errno_name(sys.unshare(CloneFlags::NEWPID));
    first.end(sys);
    Ok(words(&[joined, created]))
}

fn put_offsets<S: Sys>(sys: &mut S, text: &[u8]) -> SysResult<usize> {
    put(sys, c"/proc/self/timens_offsets", text)
}

fn offsets_before_the_first_process_only<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let before = errno_name(put_offsets(sys, b"monotonic 10 0\nboottime 10 0\n"));
    in_child(sys, |_| 0)?;
    Ok(words(&[before, errno_name(put_offsets(sys, b"monotonic 10 0\n"))]))
}

fn forms_of_offsets<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let forms: [&[u8]; 9] = [
        b"",
        b"realtime 1 0\n",
        b"monotonic 1\n",
        b"monotonic 1 1000000000\n",
        b"monotonic -999999999999 0\n",
        b"boottime 9000000000 0\n",
        b"1 1 0\n",
        b"7 1 999999999\n\0",
        b"boottime 5 0",
    ];
    Ok(words(&forms.map(|form| errno_name(put_offsets(sys, form)))))
}

fn a_third_line_of_offsets_is_not_read<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let written = put_offsets(sys, b"monotonic 1 0\nboottime 1 0\nmonotonic 2 0\n");
    Ok(written.map_or_else(|errno| errno_name::<()>(Err(errno)), |count| count.to_string()))
}

fn offsets_of_the_first_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(put_offsets(sys, b"monotonic 1 0\n")))
}

fn offsets_need_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(put_offsets(sys, b"monotonic 1 0\n")))
}

fn offsets_of_ones_own_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWTIME)).unwrap();
    Ok(errno_name(put_offsets(sys, b"monotonic 1 0\n")))
}

fn a_time_namespace_is_for_children_only<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    // The process still has its old time namespace: only a join of the new one freezes the offsets.
    join(sys, c"/proc/self/ns/time", CloneFlags::NEWTIME).unwrap();
    Ok((errno_name(put_offsets(sys, b"monotonic 1 0\n")) == "EACCES").to_string())
}

fn joining_a_time_namespace_freezes_it<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let joined = errno_name(join(sys, c"/proc/self/ns/time_for_children", CloneFlags::NEWTIME));
    Ok(words(&[joined, errno_name(put_offsets(sys, b"monotonic 1 0\n"))]))
}

fn user_namespaces_nest_33_deep<S: Sys>(sys: &mut S) -> RuleResult {
    let mut depth = 0;
    let end = loop {
        match sys.unshare(CloneFlags::NEWUSER) {
            Ok(()) => depth += 1,
            result => break errno_name(result),
        }
        put(sys, c"/proc/self/uid_map", b"0 0 1\n").unwrap();
        put(sys, c"/proc/self/setgroups", b"deny").unwrap();
        put(sys, c"/proc/self/gid_map", b"0 0 1\n").unwrap();
    };
    Ok(words(&[depth.to_string(), end]))
}

fn an_unmapped_user_creates_no_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[errno_name(sys.unshare(CloneFlags::NEWUSER)), errno_name(sys.unshare(CloneFlags::NEWUSER))]))
}

fn mounting_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[
        errno_name(sys.mount(Mount::Propagation(Propagation::Private))),
        errno_name(sys.mount(Mount::Proc)),
        errno_name(sys.mount(Mount::Sysfs { read_only: false })),
    ]))
}

fn a_private_mount_in_ones_own_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS)).unwrap();
    Ok(errno_name(sys.mount(Mount::Propagation(Propagation::Private))))
}

fn a_fresh_proc_needs_ones_own_pid_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS)).unwrap();
    Ok(errno_name(sys.mount(Mount::Proc)))
}

fn root_in_its_user_namespace_has_no_rights_outside<S: Sys>(sys: &mut S) -> RuleResult {
    let net = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    let mnt = open(sys, c"/proc/self/ns/mnt", OpenFlags::Namespace).unwrap();
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    Ok(words(&[
        errno_name(sys.setns(net, CloneFlags::NEWNET)),
        errno_name(sys.setns(mnt, CloneFlags::NEWNS)),
    ]))
}
