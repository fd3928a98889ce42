//! Rules: ids, capabilities, maps, dumpable processes, oom scores.

use super::*;

rules! {
    User ids_that_are_not_ours = "EPERM EPERM EPERM ok ok";
    User ids_that_are_not_mapped = "EINVAL EINVAL EINVAL";
    Root root_drops_its_groups = "ok";
    Root root_sets_its_groups = "ok EINVAL";
    User groups_stay_before_a_group_map = "EPERM";
    User groups_stay_where_they_are_denied = "EPERM";
    Root a_change_of_user_takes_the_capabilities = "ok EPERM";
    Root a_change_of_user_closes_proc = "ok EACCES";
    User a_single_map_of_ones_own_user_from_inside = "ok ok";
    User a_single_map_of_ones_own_group_needs_deny = "EPERM ok ok";
    User a_single_map_of_ones_own_user_from_outside = "ok ok ok";
    User maps_that_an_ordinary_user_may_not_write = "EPERM EPERM EPERM";
    User user_may_not_map_root_of_the_parent = "EPERM";
    Root root_writes_any_map_from_outside = "ok ok";
    Root a_map_is_written_once = "ok EPERM";
    Root a_map_of_4095_bytes_and_one_of_4096 = "ok EINVAL";
    Root maps_of_340_extents_and_of_341 = "ok EINVAL";
    Root forms_of_a_map = "empty:EINVAL blank:EINVAL size0:EINVAL two:EINVAL four:EINVAL letters:EINVAL \
                           hex:EINVAL negative:EINVAL last:EINVAL end:EINVAL overlap-in:EINVAL overlap-out:EINVAL \
                           inner-blank:EINVAL";
    Root forms_that_are_taken = "ok ok ok ok";
    Root bytes_after_a_nul_are_counted = "15";
    Root a_map_reads_back_from_outside = "         0     100000      65536\n";
    Root more_than_five_extents_are_sorted = "0 1 2 3 4 5";
    User no_map_of_the_first_namespace = "EACCES";
    Root no_map_of_the_first_namespace_for_root_either = "EPERM";
    Root a_map_is_not_written_from_two_levels_up = "EPERM";
    Root a_parents_id_must_be_mapped_there = "EPERM ok";
    User deny_before_the_group_map_only = "ok ok EPERM";
    User forms_of_setgroups = "EINVAL EINVAL EINVAL ok ok EPERM";
    User setgroups_of_a_namespace_that_is_not_ours = "EACCES";
    User a_denial_is_inherited = "deny";
    User a_non_dumpable_process_hides_its_files = "EACCES EACCES EACCES ok ok";
    Root root_opens_files_of_a_non_dumpable_process = "ok ok ok";
    User an_exec_makes_dumpable_again = "EACCES ok";
    User entering_ones_own_namespace_leaves_dumpable = "ok";
    Root becoming_another_kernel_id_closes_proc = "ok 13";
    Root a_zombie_takes_maps_from_root = "ok ok ESRCH";
    User a_zombie_takes_no_map_from_a_user = "EACCES EACCES";
    User a_held_directory_outlives_its_task = "ESRCH ENOENT";
    User scores = "EINVAL EINVAL EINVAL ok ok 12";
    User a_score_goes_down_with_privilege_only = "ok EACCES";
    User a_score_is_inherited = "17\n";
    Root another_users_namespace_file = "EACCES";
    User capabilities_end_at_ones_own_namespace = "ok EPERM";
    Root another_group_closes_proc = "EACCES";
    User the_creator_stays_dumpable_where_it_joins = "ok";
    Root root_in_a_strangers_namespace_is_not_dumpable = "EACCES";
    Root a_wide_group_map_needs_no_deny = "ok allow";
    Root a_map_from_inside_by_root_of_the_parent = "EPERM";
    User map_needs_the_openers_privilege = "EPERM ok";
    Root map_needs_the_writers_privilege = "EPERM ok";
    Root ns_file_needs_all_capabilities_of_its_process = "EACCES";
    Root joined_namespace_decides_about_setgroups = "EPERM EPERM ok";
    Root groups_that_are_not_mapped_cannot_be_set = "EPERM EPERM ok EINVAL";
    Root setuid_fails_without_a_map = "EINVAL EINVAL";
    Root a_process_of_root_is_closed_to_users = "EACCES EACCES ok";
}

const USER: u32 = 64_321;

fn user_ns<S: Sys>(sys: &mut S) -> Errno {
    code(sys.unshare(CloneFlags::NEWUSER))
}

/// Makes a child in its own user namespace.
fn target<S: Sys>(sys: &mut S) -> Result<Child, i32> {
    let target = child(sys, user_ns)?;
    assert_eq!(target.began, 0);
    Ok(target)
}

fn put_for<S: Sys>(sys: &mut S, pid: Pid, file: &str, text: &str) -> SysResult<usize> {
    put(sys, &proc_path(pid, file), text.as_bytes())
}

/// Returns the result of a write to the uid map of a new child's namespace.
fn map_once<S: Sys>(sys: &mut S, text: &[u8]) -> RuleResult {
    let target = target(sys)?;
    let said = errno_name(put(sys, &proc_path(target.pid, "uid_map"), text));
    target.end(sys);
    Ok(said)
}

fn ids_that_are_not_ours<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[
        errno_name(sys.setresuid(0)),
        errno_name(sys.setuid(0)),
        errno_name(sys.setgid(0)),
        errno_name(sys.setresuid(USER)),
        errno_name(sys.setuid(USER)),
    ]))
}

fn ids_that_are_not_mapped<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    Ok(words(&[errno_name(sys.setresuid(0)), errno_name(sys.setuid(0)), errno_name(sys.setgid(0))]))
}

fn root_drops_its_groups<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.drop_groups()))
}

fn root_sets_its_groups<S: Sys>(sys: &mut S) -> RuleResult {
    let set = errno_name(sys.set_groups(&[20, 4]));
    Ok(words(&[set, errno_name(sys.set_groups(&[u32::MAX]))]))
}

fn groups_that_are_not_mapped_cannot_be_set<S: Sys>(sys: &mut S) -> RuleResult {
    let set = |groups: &'static [u32]| move |sys: &mut S| code(sys.set_groups(groups));
    let unmapped = joined(sys, &[], set(&[0]))?;
    let denied = joined(sys, &[("setgroups", "deny"), ("gid_map", &format!("0 {USER} 1\n"))], set(&[0]))?;
    let mapped = joined(sys, &[("gid_map", "0 100000 65536\n")], set(&[0, 65535]))?;
    let outside = joined(sys, &[("gid_map", "0 100000 65536\n")], set(&[65536]))?;
    Ok(words(&[unmapped, denied, mapped, outside]))
}

fn groups_stay_before_a_group_map<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    Ok(errno_name(sys.drop_groups()))
}

fn groups_stay_where_they_are_denied<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    put(sys, c"/proc/self/setgroups", b"deny").unwrap();
    put(sys, c"/proc/self/gid_map", format!("0 {USER} 1\n").as_bytes()).unwrap();
    Ok(errno_name(sys.drop_groups()))
}

fn a_change_of_user_takes_the_capabilities<S: Sys>(sys: &mut S) -> RuleResult {
    let changed = errno_name(sys.setresuid(USER));
    Ok(words(&[changed, errno_name(sys.unshare(CloneFlags::NEWNET))]))
}

fn a_change_of_user_closes_proc<S: Sys>(sys: &mut S) -> RuleResult {
    let before = errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite));
    sys.setresuid(USER).unwrap();
    Ok(words(&[before, errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite))]))
}

fn a_single_map_of_ones_own_user_from_inside<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let written = errno_name(put(sys, c"/proc/self/uid_map", format!("0 {USER} 1\n").as_bytes()));
    Ok(words(&[written, errno_name(sys.setresuid(0))]))
}

fn a_single_map_of_ones_own_group_needs_deny<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let map = format!("0 {USER} 1\n");
    let first = errno_name(put(sys, c"/proc/self/gid_map", map.as_bytes()));
    let deny = errno_name(put(sys, c"/proc/self/setgroups", b"deny"));
    Ok(words(&[first, deny, errno_name(put(sys, c"/proc/self/gid_map", map.as_bytes()))]))
}

fn a_single_map_of_ones_own_user_from_outside<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let map = format!("0 {USER} 1\n");
    let said = ["uid_map", "setgroups", "gid_map"].map(|file| {
        errno_name(put_for(sys, target.pid, file, if file == "setgroups" { "deny" } else { &map }))
    });
    target.end(sys);
    Ok(words(&said))
}

fn maps_that_an_ordinary_user_may_not_write<S: Sys>(sys: &mut S) -> RuleResult {
    let maps = ["0 100000 1\n".to_owned(), format!("0 {USER} 2\n"), format!("0 {USER} 1\n1 100000 1\n")];
    let mut said = Vec::new();
    for map in maps {
        said.push(map_once(sys, map.as_bytes())?);
    }
    Ok(words(&said))
}

fn user_may_not_map_root_of_the_parent<S: Sys>(sys: &mut S) -> RuleResult {
    map_once(sys, b"0 0 1\n")
}

fn root_writes_any_map_from_outside<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[map_once(sys, b"0 100000 65536\n")?, map_once(sys, b"0 0 1\n1 5000 10\n")?]))
}

fn a_map_is_written_once<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let said = [(); 2].map(|()| errno_name(put_for(sys, target.pid, "uid_map", "0 5 1\n")));
    target.end(sys);
    Ok(words(&said))
}

fn a_map_of_4095_bytes_and_one_of_4096<S: Sys>(sys: &mut S) -> RuleResult {
    let padded = |len| {
        let mut text = b"0 5 1\n".to_vec();
        text.resize(len, 0);
        text
    };
    Ok(words(&[map_once(sys, &padded(4095))?, map_once(sys, &padded(4096))?]))
}

fn maps_of_340_extents_and_of_341<S: Sys>(sys: &mut S) -> RuleResult {
    let lines = |count| (0..count).map(|n| format!("{n} {} 1\n", n + 1000)).collect::<String>();
    Ok(words(&[map_once(sys, lines(340).as_bytes())?, map_once(sys, lines(341).as_bytes())?]))
}

fn forms_of_a_map<S: Sys>(sys: &mut S) -> RuleResult {
    let forms = [
        ("empty", ""),
        ("blank", "\n"),
        ("size0", "0 5 0\n"),
        ("two", "0 5\n"),
        ("four", "0 5 1 1\n"),
        ("letters", "0 five 1\n"),
        ("hex", "0 0x5 1\n"),
        ("negative", "0 -5 1\n"),
        ("last", "4294967295 5 1\n"),
        ("end", "1 5 4294967295\n"),
        ("overlap-in", "0 5 2\n1 9 1\n"),
        ("overlap-out", "0 5 2\n7 6 1\n"),
        ("inner-blank", "0 5 1\n\n1 6 1\n"),
    ];
    let mut said = Vec::new();
    for (form, text) in forms {
        said.push(format!("{form}:{}", map_once(sys, text.as_bytes())?));
    }
    Ok(words(&said))
}

fn forms_that_are_taken<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for text in ["0 5 1", "  0\t5   1 \n", "0 0 4294967295\n", "4294967296 5 1\n"] {
        said.push(map_once(sys, text.as_bytes())?);
    }
    Ok(words(&said))
}

fn bytes_after_a_nul_are_counted<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let written = put_for(sys, target.pid, "uid_map", "0 5 1\n\0nonsense");
    target.end(sys);
    Ok(written.unwrap().to_string())
}

fn read_map<S: Sys>(sys: &mut S, pid: Pid) -> String {
    let fd = open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 1024];
    let len = sys.read(fd, &mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

fn a_map_reads_back_from_outside<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    put_for(sys, target.pid, "uid_map", "0 100000 65536\n").unwrap();
    let text = read_map(sys, target.pid);
    target.end(sys);
    Ok(text)
}

fn more_than_five_extents_are_sorted<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    put_for(sys, target.pid, "uid_map", "5 5 1\n4 4 1\n3 3 1\n2 2 1\n1 1 1\n0 0 1\n").unwrap();
    let text = read_map(sys, target.pid);
    target.end(sys);
    let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    Ok(words(&text.lines().map(first).collect::<Vec<_>>()))
}

fn no_map_of_the_first_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    // This process's own file: only setgroups needs a privilege when it is opened; the map needs it when
    // written.
    Ok(errno_name(open(sys, c"/proc/self/setgroups", OpenFlags::ReadWrite)))
}

fn no_map_of_the_first_namespace_for_root_either<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(put(sys, c"/proc/self/uid_map", b"0 0 1\n")))
}

fn a_map_is_not_written_from_two_levels_up<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| {
        sys.unshare(CloneFlags::NEWUSER).unwrap();
        put(sys, c"/proc/self/uid_map", b"0 0 1\n").unwrap();
        put(sys, c"/proc/self/setgroups", b"deny").unwrap();
        put(sys, c"/proc/self/gid_map", b"0 0 1\n").unwrap();
        user_ns(sys)
    })?;
    assert_eq!(target.began, 0);
    let said = errno_name(put_for(sys, target.pid, "uid_map", "0 0 1\n"));
    target.end(sys);
    Ok(said)
}

fn a_parents_id_must_be_mapped_there<S: Sys>(sys: &mut S) -> RuleResult {
    let outer = target(sys)?;
    put_for(sys, outer.pid, "uid_map", "0 0 10\n").unwrap();
    put_for(sys, outer.pid, "gid_map", "0 0 10\n").unwrap();
    join(sys, &proc_path(outer.pid, "ns/user"), CloneFlags::NEWUSER).unwrap();
    let said = words(&[map_once(sys, b"0 10 1\n")?, map_once(sys, b"0 9 1\n")?]);
    outer.end(sys);
    Ok(said)
}

fn deny_before_the_group_map_only<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let deny = errno_name(put(sys, c"/proc/self/setgroups", b"deny"));
    let map = errno_name(put(sys, c"/proc/self/gid_map", format!("0 {USER} 1\n").as_bytes()));
    Ok(words(&[deny, map, errno_name(put(sys, c"/proc/self/setgroups", b"deny"))]))
}

fn forms_of_setgroups<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let forms: [&[u8]; 6] = [b"", b"no", b"deny    ", b"allow\n", b"deny\n\0", b"allow"];
    Ok(words(&forms.map(|form| errno_name(put(sys, c"/proc/self/setgroups", form)))))
}

fn setgroups_of_a_namespace_that_is_not_ours<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(open(sys, c"/proc/self/setgroups", OpenFlags::ReadWrite)))
}

fn a_denial_is_inherited<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    put(sys, c"/proc/self/uid_map", format!("0 {USER} 1\n").as_bytes()).unwrap();
    put(sys, c"/proc/self/setgroups", b"deny").unwrap();
    put(sys, c"/proc/self/gid_map", format!("0 {USER} 1\n").as_bytes()).unwrap();
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let fd = open(sys, c"/proc/self/setgroups", OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 16];
    let len = sys.read(fd, &mut buffer).unwrap();
    Ok(String::from_utf8_lossy(&buffer[..len]).trim().to_owned())
}

/// Returns the results of opening a process's files: two for writing, its namespace, one for reading, its
/// directory.
fn files_of<S: Sys>(sys: &mut S, pid: Pid) -> Vec<String> {
    vec![
        errno_name(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadWrite)),
        errno_name(open(sys, &proc_path(pid, "oom_score_adj"), OpenFlags::ReadWrite)),
        errno_name(open(sys, &proc_path(pid, "ns/net"), OpenFlags::Namespace)),
        errno_name(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadOnly)),
        errno_name(open(sys, &proc_path(pid, ""), OpenFlags::Directory)),
    ]
}

fn a_non_dumpable_process_hides_its_files<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| code(sys.set_dumpable(false)))?;
    let said = files_of(sys, target.pid);
    target.end(sys);
    Ok(words(&said))
}

fn root_opens_files_of_a_non_dumpable_process<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |sys| code(sys.set_dumpable(false)))?;
    let said = files_of(sys, target.pid);
    target.end(sys);
    Ok(words(&said[..3]))
}

fn an_exec_makes_dumpable_again<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child_then(sys, |sys| code(sys.set_dumpable(false)), |sys| exec(sys, c"/bin/sleep"))?;
    let path = proc_path(target.pid, "oom_score_adj");
    let before = errno_name(open(sys, &path, OpenFlags::ReadWrite));
    sys.send(target.talk, b"x").unwrap();
    // The child's socket is close-on-exec, so the read returns 0 after the exec.
    while sys.read(target.talk, &mut [0]) == Ok(1) {}
    let after = errno_name(open(sys, &path, OpenFlags::ReadWrite));
    sys.kill(target.pid, Signal::KILL).unwrap();
    exit_status(sys, target.pid);
    Ok(words(&[before, after]))
}

fn entering_ones_own_namespace_leaves_dumpable<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let said = errno_name(open(sys, &proc_path(target.pid, "uid_map"), OpenFlags::ReadWrite));
    target.end(sys);
    Ok(said)
}

/// Root in the new namespace has another kernel id, so the machine's root then owns the files in /proc.
fn becoming_another_kernel_id_closes_proc<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child_then(sys, user_ns, |sys| {
        sys.setresuid(0).unwrap();
        code(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite)).0
    })?;
    let mapped = errno_name(put_for(sys, target.pid, "uid_map", "0 100000 65536\n"));
    let inside = target.end(sys);
    Ok(words(&[mapped, inside.to_string()]))
}

/// Makes a zombie in its own user namespace.
fn dead_target<S: Sys>(sys: &mut S) -> Result<Child, i32> {
    let target = child(sys, |sys| code(sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWTIME))))?;
    assert_eq!(target.began, 0);
    let pidfd = sys.pidfd_open(target.pid).map_err(|_| 1)?;
    sys.kill(target.pid, Signal::KILL).unwrap();
    sys.poll(&mut [PollFd::new(pidfd, PollEvents::IN)], -1).unwrap();
    Ok(target)
}

fn a_zombie_takes_maps_from_root<S: Sys>(sys: &mut S) -> RuleResult {
    let target = dead_target(sys)?;
    Ok(words(&[
        errno_name(put_for(sys, target.pid, "uid_map", "0 5 1\n")),
        errno_name(put_for(sys, target.pid, "setgroups", "deny")),
        errno_name(put_for(sys, target.pid, "timens_offsets", "monotonic 1 0\n")),
    ]))
}

fn a_zombie_takes_no_map_from_a_user<S: Sys>(sys: &mut S) -> RuleResult {
    let target = dead_target(sys)?;
    let map = format!("0 {USER} 1\n");
    Ok(words(&[
        errno_name(put_for(sys, target.pid, "uid_map", &map)),
        errno_name(put_for(sys, target.pid, "setgroups", "deny")),
    ]))
}

fn a_held_directory_outlives_its_task<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let pid = target.pid;
    let dir = open(sys, &proc_path(pid, ""), OpenFlags::Directory).unwrap();
    target.end(sys);
    Ok(words(&[
        errno_name(sys.openat(dir, c"uid_map", OpenFlags::ReadWrite)),
        errno_name(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadWrite)),
    ]))
}

fn put_score<S: Sys>(sys: &mut S, text: &[u8]) -> SysResult<usize> {
    put(sys, c"/proc/self/oom_score_adj", text)
}

fn scores<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[
        errno_name(put_score(sys, b"1001")),
        errno_name(put_score(sys, b"many")),
        errno_name(put_score(sys, b"")),
        errno_name(put_score(sys, b"0x10\0")),
        errno_name(put_score(sys, b" 17 \n")),
        put_score(sys, b"00000000000000000022").unwrap_or(0).to_string(),
    ]))
}

fn a_score_goes_down_with_privilege_only<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[errno_name(put_score(sys, b"900")), errno_name(put_score(sys, b"-900"))]))
}

fn a_score_is_inherited<S: Sys>(sys: &mut S) -> RuleResult {
    put_score(sys, b"17").unwrap();
    let target = child(sys, |_| Errno(0))?;
    let fd = open(sys, &proc_path(target.pid, "oom_score_adj"), OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 16];
    let len = sys.read(fd, &mut buffer).unwrap();
    target.end(sys);
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn another_users_namespace_file<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |_| Errno(0))?;
    let path = proc_path(target.pid, "ns/net");
    let said = in_child(sys, |sys| {
        sys.setresuid(USER).unwrap();
        code(open(sys, &path, OpenFlags::Namespace)).0
    })?;
    target.end(sys);
    Ok(name(said))
}

fn capabilities_end_at_ones_own_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let outside = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    let inside = errno_name(sys.unshare(CloneFlags::NEWNET));
    Ok(words(&[inside, errno_name(sys.setns(outside, CloneFlags::NEWNET))]))
}

fn a_process_of_root_is_closed_to_users<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |_| Errno(0))?;
    let pid = target.pid;
    let mut said = Vec::new();
    for nth in [1, 2, 3] {
        let status = in_child(sys, |sys| {
            sys.setresuid(USER).unwrap();
            (match nth {
                1 => code(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadWrite)),
                2 => code(open(sys, &proc_path(pid, "fd"), OpenFlags::List)),
                _ => code(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadOnly)),
            })
            .0
        })?;
        said.push(name(status));
    }
    target.end(sys);
    Ok(words(&said))
}

/// A user whose group differs from the initial one.
fn another_group_closes_proc<S: Sys>(sys: &mut S) -> RuleResult {
    sys.setgid(USER).unwrap();
    sys.setuid(USER).unwrap();
    Ok(errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite)))
}

/// The creator of a namespace gains no privilege by joining it, so it stays the owner of its files.
fn the_creator_stays_dumpable_where_it_joins<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    put_for(sys, target.pid, "uid_map", &format!("{USER} {USER} 1\n")).unwrap();
    join(sys, &proc_path(target.pid, "ns/user"), CloneFlags::NEWUSER).unwrap();
    let said = errno_name(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite));
    target.end(sys);
    Ok(said)
}

/// Root joins a user's namespace and changes to that user's id. Its files then belong to the machine's root,
/// and a process of that user outside cannot open them.
fn root_in_a_strangers_namespace_is_not_dumpable<S: Sys>(sys: &mut S) -> RuleResult {
    let owner = child(sys, |sys| {
        sys.setgid(USER).unwrap();
        sys.setresuid(USER).unwrap();
        sys.set_dumpable(true).unwrap();
        user_ns(sys)
    })?;
    assert_eq!(owner.began, 0);
    put_for(sys, owner.pid, "uid_map", &format!("0 {USER} 1\n")).unwrap();
    put_for(sys, owner.pid, "gid_map", &format!("0 {USER} 1\n")).unwrap();
    let ns = open(sys, &proc_path(owner.pid, "ns/user"), OpenFlags::Namespace).unwrap();
    let joined = child(sys, |sys| {
        sys.setns(ns, CloneFlags::NEWUSER).unwrap();
        sys.setgid(0).unwrap();
        code(sys.setresuid(0))
    })?;
    assert_eq!(joined.began, 0);
    let pid = joined.pid;
    let said = in_child(sys, |sys| {
        sys.setgid(USER).unwrap();
        sys.setresuid(USER).unwrap();
        code(open(sys, &proc_path(pid, "uid_map"), OpenFlags::ReadWrite)).0
    })?;
    joined.end(sys);
    owner.end(sys);
    Ok(name(said))
}

/// Joins another user's namespace after root wrote these files, calls `then` there, and returns its result.
fn joined<S: Sys>(
    sys: &mut S,
    files: &[(&str, &str)],
    then: impl FnOnce(&mut S) -> Errno,
) -> Result<String, i32> {
    let owner = child(sys, |sys| {
        sys.setgid(USER).unwrap();
        sys.setresuid(USER).unwrap();
        sys.set_dumpable(true).unwrap();
        user_ns(sys)
    })?;
    assert_eq!(owner.began, 0);
    for (file, text) in files {
        put_for(sys, owner.pid, file, text).unwrap();
    }
    let ns = open(sys, &proc_path(owner.pid, "ns/user"), OpenFlags::Namespace).unwrap();
    let guest = child(sys, |sys| {
        sys.setns(ns, CloneFlags::NEWUSER).unwrap();
        then(sys)
    })?;
    let said = name(guest.began);
    guest.end(sys);
    owner.end(sys);
    Ok(said)
}

/// A process that joins a user namespace has every capability there. The namespace decides for all processes
/// whether they may drop groups.
fn joined_namespace_decides_about_setgroups<S: Sys>(sys: &mut S) -> RuleResult {
    let map = format!("0 {USER} 1\n");
    let unmapped = joined(sys, &[], |sys| code(sys.drop_groups()))?;
    let denied = [("setgroups", "deny"), ("gid_map", map.as_str())];
    let denied = joined(sys, &denied, |sys| code(sys.drop_groups()))?;
    let allowed = joined(sys, &[("gid_map", "0 100000 65536\n")], |sys| code(sys.drop_groups()))?;
    Ok(words(&[unmapped, denied, allowed]))
}

fn setuid_fails_without_a_map<S: Sys>(sys: &mut S) -> RuleResult {
    let user = joined(sys, &[], |sys| code(sys.setresuid(0)))?;
    let group = joined(sys, &[("uid_map", "0 100000 65536\n")], |sys| code(sys.setgid(0)))?;
    Ok(words(&[user, group]))
}

fn a_wide_group_map_needs_no_deny<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let written = errno_name(put_for(sys, target.pid, "gid_map", "0 100000 65536\n"));
    let fd = open(sys, &proc_path(target.pid, "setgroups"), OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 16];
    let len = sys.read(fd, &mut buffer).unwrap();
    target.end(sys);
    Ok(words(&[written, String::from_utf8_lossy(&buffer[..len]).trim().to_owned()]))
}

/// The process has every capability in its namespace, but lacks the one that it needs in the parent.
fn a_map_from_inside_by_root_of_the_parent<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    Ok(errno_name(put(sys, c"/proc/self/uid_map", b"0 100000 65536\n")))
}

/// A file that was opened without privilege gains none from the privileges of the writer.
fn map_needs_the_openers_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let fd = open(sys, &proc_path(target.pid, "uid_map"), OpenFlags::ReadWrite).unwrap();
    let wide = errno_name(sys.write(fd, b"0 100000 65536\n"));
    let own = errno_name(sys.write(fd, format!("0 {USER} 1\n").as_bytes()));
    target.end(sys);
    Ok(words(&[wide, own]))
}

/// Two processes of the same user in the same namespace: the one with fewer capabilities may not inspect the
/// other (`PTRACE_MODE_READ_FSCREDS`, ptrace(2)).
fn ns_file_needs_all_capabilities_of_its_process<S: Sys>(sys: &mut S) -> RuleResult {
    let owner = child_then(
        sys,
        |sys| {
            sys.setgid(USER).unwrap();
            sys.setresuid(USER).unwrap();
            sys.set_dumpable(true).unwrap();
            user_ns(sys)
        },
        |sys| {
            let path = proc_path(sys.getpid(), "ns/net");
            let looked = in_child(sys, |sys| {
                // A change to root and back drops the capabilities.
                sys.setresuid(0).unwrap();
                sys.setresuid(5).unwrap();
                code(open(sys, &path, OpenFlags::Namespace)).0
            });
            looked.unwrap_or_else(|status| status)
        },
    )?;
    put_for(sys, owner.pid, "uid_map", &format!("0 100000 1\n5 {USER} 1\n")).unwrap();
    Ok(name(owner.end(sys)))
}

/// Opened by root, written by a process that has changed to an ordinary user.
fn map_needs_the_writers_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let target = target(sys)?;
    let fd = open(sys, &proc_path(target.pid, "uid_map"), OpenFlags::ReadWrite).unwrap();
    let said = in_child(sys, |sys| {
        sys.setresuid(USER).unwrap();
        code(sys.write(fd, b"0 100000 65536\n")).0
    })?;
    let by_root = errno_name(sys.write(fd, b"0 100000 65536\n"));
    target.end(sys);
    Ok(words(&[name(said), by_root]))
}
