//! Namespaces: new ones, maps of ids, joins.

use std::fs::File;

use nsexec::idmap::Extent;
use nsexec::launch::{Command, LaunchError, SettingError, Stdio};
use nsexec::namespace::NsKind;

use crate::kit::{is_root, link, sh, stdout};

const MAPS: &str =
    "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; cat /proc/self/setgroups; id -u; id -g";

fn own() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

#[test]
fn new_namespaces_are_not_the_callers() {
    for kind in NsKind::ALL {
        let mut command = Command::new("readlink");
        command.arg(format!("/proc/self/ns/{kind}")).unshare([NsKind::User, kind]);
        assert_ne!(stdout(&mut command), link("self", kind), "{kind}");
    }
}

#[test]
fn the_caller_is_root_by_default() {
    let (uid, gid) = own();
    let denied = if is_root() { "allow" } else { "deny" };
    let expected = format!(" 0 {uid} 1\n 0 {gid} 1\n{denied}\n0\n0");
    assert_eq!(stdout(sh(MAPS).unshare([NsKind::User])), expected);
    assert_eq!(stdout(sh(MAPS).unshare([NsKind::User, NsKind::Net, NsKind::Uts]).map_root()), expected);
}

#[test]
fn the_caller_stays_itself() {
    let (uid, gid) = own();
    let denied = if is_root() { "allow" } else { "deny" };
    let expected = format!(" {uid} {uid} 1\n {gid} {gid} 1\n{denied}\n{uid}\n{gid}");
    let kinds = [NsKind::User, NsKind::Mnt, NsKind::Net, NsKind::Ipc, NsKind::Pid];
    assert_eq!(stdout(sh(MAPS).unshare([NsKind::User]).map_current_user()), expected);
    assert_eq!(stdout(sh(MAPS).unshare(kinds).map_current_user()), expected);
}

#[test]
fn root_maps_ranges_and_the_command_has_an_id_of_them() {
    let range = |inside, outside, count| Extent { inside, outside, count };
    let mut command = sh("cat /proc/self/uid_map | tr -s ' '; id -u; id -g; id -G");
    command.unshare([NsKind::User]).uid_map([range(0, 100_000, 10), range(10, 200_000, 5)]);
    command.gid_map([range(0, 100_000, 10)]).uid(12).gid(3).groups([4]);
    if !is_root() {
        let error = command.spawn().unwrap_err().to_string();
        assert!(error.contains("newuidmap") || error.contains("uid_map"), "{error}");
        return;
    }
    assert_eq!(stdout(&mut command), " 0 100000 10\n 10 200000 5\n12\n3\n3 4");
    // Without a group of its own the command gets group 0 of the namespace, not the caller's.
    let mut without = sh("id -u; id -g");
    without.unshare([NsKind::User]).uid_map([range(0, 100_000, 20)]).gid_map([range(0, 100_000, 20)]).uid(12);
    assert_eq!(stdout(&mut without), "12\n0");
    // The host's root would run under an id that is not mapped.
    let mut kept = sh("");
    let error = kept.unshare([NsKind::User]).uid_map([range(1000, 100_000, 1)]).spawn().unwrap_err();
    assert_eq!(error, LaunchError::Setting(SettingError::NotMapped { noun: "user", id: 0 }));
    let error = command.uid(15).spawn().unwrap_err();
    assert_eq!(error, LaunchError::Setting(SettingError::NotMapped { noun: "user", id: 15 }));
    let error = command.uid(12).gid(10).spawn().unwrap_err();
    assert_eq!(error, LaunchError::Setting(SettingError::NotMapped { noun: "group", id: 10 }));
}

#[test]
fn bad_maps_are_found_before_any_process() {
    let range = |inside, outside, count| Extent { inside, outside, count };
    let refused = |command: &mut Command| match command.spawn().unwrap_err() {
        LaunchError::Setting(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    if is_root() {
        let overlap = [range(0, 1000, 10), range(5, 2000, 10)];
        let text = refused(sh("").unshare([NsKind::User]).uid_map(overlap));
        assert!(text.contains("the map of user ids: line 2") && text.contains("line 1"), "{text}");
        let many: Vec<_> = (0..341).map(|n| range(n, n + 100_000, 1)).collect();
        let text = refused(sh("").unshare([NsKind::User]).gid_map(many));
        assert!(text.contains("341 lines") && text.contains("at most 340"), "{text}");
        let text = refused(sh("").unshare([NsKind::User]).uid_map([range(0, 7, 0)]));
        assert!(text.contains("map of user ids"), "{text}");
    }
    let text = refused(sh("").map_root());
    assert_eq!(text, "a map of ids needs a new user namespace: unshare NsKind::User too");
    let text = refused(sh("").unshare([NsKind::User]).map_root().uid(5));
    assert_eq!(text, "the user id 5 of the command is not mapped in its user namespace: add it to the map");
    let text = refused(sh("").unshare([NsKind::Net]).join(NsKind::Net, "/proc/self/ns/net"));
    assert_eq!(text, "the net namespace is created or joined twice");
    let text = refused(sh("").oom_score_adj(1001));
    assert_eq!(text, "oom_score_adj: 1001 is not between -1000 and 1000");
}

#[test]
fn groups_that_the_kernel_would_deny_are_refused_with_the_reason() {
    let mut command = sh("");
    command.unshare([NsKind::User]).groups([0]);
    if is_root() {
        assert_eq!(stdout(sh("id -G").unshare([NsKind::User]).groups([0])), "0");
        return;
    }
    let error = command.spawn().unwrap_err().to_string();
    assert!(error.contains("map_auto") && error.contains("denies setgroups(2)"), "{error}");
}

/// Runs one test of this file in another process, by this program with these arguments.
fn again(program: &str, args: &[&str], test: &str) {
    let output = std::process::Command::new(program)
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("NSEXEC_TEST_AGAIN", "1")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn is_again() -> bool {
    std::env::var_os("NSEXEC_TEST_AGAIN").is_some()
}

/// Run by the next test, as root without CAP_SETGID.
#[test]
fn launches_without_setgid() {
    if !is_again() {
        return;
    }
    assert_eq!(stdout(sh("id -u; cat /proc/self/setgroups").unshare([NsKind::User])), "0\ndeny");
    assert_eq!(stdout(sh("id -u").unshare([NsKind::User]).uid(0)), "0");
    assert_eq!(stdout(sh("id -u").uid(1021)), "1021");
    let error = sh("").unshare([NsKind::User]).groups([0]).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Setting(SettingError::Conflict { .. })), "{error}");
}

/// Root in a container may lack the capability. The kernel then treats its maps as those of a user.
#[test]
fn root_without_setgid_maps_itself_and_keeps_its_groups() {
    if is_root() && !is_again() {
        let without = ["--bounding-set=-setgid", "--inh-caps=-setgid"];
        again("setpriv", &without, "namespaces::launches_without_setgid");
    }
}

/// Run by the next test, as root of a user namespace that denies setgroups(2).
#[test]
fn launches_where_setgroups_is_denied() {
    if !is_again() {
        return;
    }
    for kinds in [&[NsKind::User][..], &[NsKind::User, NsKind::Net, NsKind::Pid]] {
        let inside = "cat /proc/self/setgroups; id -u";
        assert_eq!(stdout(sh(inside).unshare(kinds.iter().copied())), "deny\n0");
        assert_eq!(stdout(sh(inside).unshare(kinds.iter().copied()).map_current_user()), "deny\n0");
        assert_eq!(stdout(sh(inside).unshare(kinds.iter().copied()).uid(0)), "deny\n0");
    }
    let error = sh("").unshare([NsKind::User]).groups([0]).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Setting(SettingError::Conflict { .. })), "{error}");
}

#[test]
fn user_namespace_is_created_in_one_that_denies_setgroups() {
    if !is_again() {
        again("unshare", &["-Ur"], "namespaces::launches_where_setgroups_is_denied");
    }
}

/// Run by the next test, as a user with subordinate ids.
#[test]
fn launches_with_subordinate_ids() {
    if !is_again() {
        return;
    }
    let script = "id -G; cat /proc/self/setgroups";
    let auto = |command: &mut Command| stdout(command.unshare([NsKind::User]).map_auto());
    assert_eq!(auto(sh(script).groups([7, 9])), "0 7 9\nallow");
    // The groups are dropped with a user id.
    assert_eq!(auto(sh(script).uid(5)), "0\nallow");
    assert_eq!(auto(sh("cat /proc/self/gid_map | tr -s ' '").uid(0)), " 0 65534 1\n 1 300000 50");
}

/// In a mount namespace of its own, nobody gets subordinate ids. A program of the working directory does not
/// answer for getsubids(1), even if PATH has that directory.
#[test]
fn a_user_with_subordinate_ids_maps_them_and_sets_groups() {
    let tool = std::path::Path::new("/usr/bin/newuidmap");
    let files = ["/etc/subuid", "/etc/subgid"].map(std::path::Path::new);
    if !is_root() || is_again() || !tool.exists() || !files.iter().all(|file| file.exists()) {
        return;
    }
    // The user may not be able to reach this program's file.
    let script = "mount -t tmpfs none /mnt && cp \"$1\" /mnt/test && echo nobody:300000:50 >/mnt/ids && \
        mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid && shift && \
        cd /mnt && echo '#!/bin/sh' >getsubids && chmod 755 /mnt getsubids && export PATH=.:$PATH && \
        exec setpriv --reuid nobody --regid 65534 --clear-groups /mnt/test \"$@\"";
    again("unshare", &["-m", "sh", "-c", script, "sh"], "namespaces::launches_with_subordinate_ids");
}

/// A user without a line in the files.
#[test]
fn map_auto_without_subordinate_ids_is_an_error_with_the_file() {
    let uid = own().0.to_string();
    let name = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().map(|user| user.name);
    let text = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let owns = |line: &str| {
        line.split(':').next().is_some_and(|owner| owner == uid || Some(owner) == name.as_deref())
    };
    if text.lines().any(owns) {
        return;
    }
    let error = sh("").unshare([NsKind::User]).map_auto().spawn().unwrap_err().to_string();
    assert!(error.contains("/etc/subuid has no range for"), "{error}");
}

/// Ends the process that owns the namespaces.
struct Owner(nsexec::launch::Child);

impl Owner {
    fn new(kinds: impl IntoIterator<Item = NsKind>) -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").unshare(kinds).kill_on_drop().spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

#[test]
fn namespaces_of_a_process_are_joined() {
    let kinds = [NsKind::User, NsKind::Net, NsKind::Uts];
    let owner = Owner::new(kinds);
    let of = |kind| link(&owner.pid().to_string(), kind);
    let script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net; readlink /proc/self/ns/uts; id -u";
    let expected = format!("{}\n{}\n{}\n0", of(kinds[0]), of(kinds[1]), of(kinds[2]));
    assert_eq!(stdout(sh(script).join_pid(owner.pid(), kinds)), expected);
    // All kinds: those that are the caller's own are left out.
    let mut command = sh(script);
    command.join_pid(owner.pid(), NsKind::ALL.into_iter().filter(|kind| *kind != NsKind::Mnt));
    assert_eq!(stdout(&mut command), expected);
    let mut command = sh(script);
    command.join_pidfd(owner.0.pidfd().unwrap().try_clone_to_owned().unwrap(), kinds);
    assert_eq!(stdout(&mut command), expected);
    let mut command = sh(script);
    for kind in kinds {
        let file = File::open(format!("/proc/{}/ns/{kind}", owner.pid())).unwrap();
        command.join_fd(kind, file);
    }
    assert_eq!(stdout(&mut command), expected);
    let mut command = sh(script);
    for kind in kinds {
        command.join(kind, format!("/proc/{}/ns/{kind}", owner.pid()));
    }
    assert_eq!(stdout(&mut command), expected);
}

/// The namespaces of a process are compared with those of the thread that launches, when it launches. Threads
/// of one process may be in different namespaces.
#[test]
fn namespaces_of_a_process_are_left_out_by_the_launching_thread() {
    if !is_root() {
        return;
    }
    let uts = link("self", NsKind::Uts);
    let mut command = sh("readlink /proc/self/ns/uts");
    command.join_pid(std::process::id(), [NsKind::Uts, NsKind::User, NsKind::Pid]);
    // On this thread all are its own, and are left out.
    assert_eq!(stdout(&mut command), uts);
    let elsewhere = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).unwrap();
        let of_thread = link("thread-self", NsKind::Uts);
        (stdout(&mut sh("readlink /proc/self/ns/uts")), of_thread, stdout(&mut command))
    };
    let (plain, of_thread, joined) = std::thread::spawn(elsewhere).join().unwrap();
    assert_eq!(plain, of_thread);
    assert_ne!(of_thread, uts);
    assert_eq!(joined, uts);
}

#[test]
fn a_command_joins_and_gets_piped_streams_and_ids_there() {
    let owner = Owner::new([NsKind::User, NsKind::Uts]);
    let mut command = sh("read line; echo $line; id -u; pwd");
    command.join_pid(owner.pid(), [NsKind::User, NsKind::Uts]).uid(0).current_dir("/usr");
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, b"line\n").unwrap();
    drop(write);
    command.stdin(Stdio::from(read));
    let output = command.output();
    // Root drops its groups for a user id, which this namespace denies an ordinary user.
    assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "line\n0\n/usr\n");
}

/// A launcher keeps the namespaces open: their numbers must not become those of other files.
#[test]
fn a_launcher_keeps_the_joined_namespaces_open() {
    let owner = Owner::new([NsKind::User, NsKind::Uts]);
    let uts = link(&owner.pid().to_string(), NsKind::Uts);
    let mut command = sh(&format!("test $(readlink /proc/self/ns/uts) = '{uts}'"));
    command.join_pid(owner.pid(), [NsKind::User, NsKind::Uts]);
    let mut launcher = command.launcher().unwrap();
    drop(command);
    let others: Vec<File> = (0..20).map(|_| File::open("/proc/self/ns/uts").unwrap()).collect();
    assert_eq!(launcher.spawn().unwrap().wait().unwrap().code(), Some(0));
    drop(others);
}

#[test]
fn joins_that_cannot_work_are_refused() {
    let gone = {
        let mut child = sh("exit 0").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let error = sh("").join_pid(gone, [NsKind::Net]).spawn().unwrap_err().to_string();
    assert!(error.contains(&format!("failed to open process {gone}: No such process")), "{error}");
    let error = sh("").join_fd(NsKind::Net, File::open("/proc/self/ns/uts").unwrap()).spawn().unwrap_err();
    assert!(error.to_string().contains("the descriptor is no net namespace"), "{error}");
    let error = sh("").join(NsKind::Net, "/a,b").spawn().unwrap_err().to_string();
    assert!(error.contains("comma"), "{error}");
    let error = sh("").join(NsKind::Net, "/nowhere").spawn().unwrap_err().to_string();
    assert!(error.contains("/nowhere") && error.contains("No such file or directory"), "{error}");
    let mut command = sh("");
    let error = command.join(NsKind::Mnt, "/proc/self/ns/mnt").current_dir("usr").spawn().unwrap_err();
    assert!(error.to_string().contains("must be absolute"), "{error}");
}

#[test]
fn a_session_of_its_own_is_new() {
    let session = |command: &mut Command| stdout(command.arg("cut -d' ' -f6 /proc/self/stat; echo $$"));
    let text = session(sh("eval \"$1\"").arg("sh").new_session());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
    let text = session(sh("eval \"$1\"").arg("sh"));
    let lines: Vec<_> = text.lines().collect();
    assert_ne!(lines[0], lines[1]);
}
