//! `nsexec enter`: the flags of nsenter(1) besides the kinds, and the place where the process lives.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::{BOTH, ROOT, Test, test};
use crate::joins::sleeper;
use crate::kit::{Ctx, ids};

pub(crate) const TESTS: &[Test] = &[
    test!(namespaces_of_files, BOTH),
    test!(parent_user_namespace, BOTH),
    test!(network_namespace_of_a_socket, BOTH),
    test!(target_with_the_inode_of_its_pidfd, BOTH),
    test!(root_and_working_directory_of_the_process, BOTH),
    test!(working_directory_outside_of_the_root, BOTH),
    test!(working_directory_without_permission, BOTH),
    test!(directories_of_the_flags, BOTH),
    test!(environment_of_the_process, BOTH),
    test!(path_of_the_caller_is_named, BOTH),
    test!(ids_of_the_flags, ROOT),
    test!(ids_out_of_range_are_not_wrapped_or_taken_as_names, BOTH),
    test!(ids_follow_the_process, ROOT),
    test!(capabilities_are_kept, BOTH),
    test!(cgroup_of_the_process, ROOT),
    test!(descriptor_of_the_cgroup_is_not_inherited, ROOT),
    test!(inheritable_capabilities_are_those_of_the_caller, BOTH),
    test!(nothing_to_join, BOTH),
    test!(without_a_command_the_shell_runs, BOTH),
    test!(plan_and_trace, BOTH),
];

fn enter<'c>(ctx: &'c Ctx, pid: i32, flags: &[&str], command: &[&str]) -> crate::kit::Cmd<'c> {
    let target = pid.to_string();
    ctx.nsexec([&["enter", "-t", &target], flags, &["--"], command].concat())
}

/// Starts a process with the root directory /usr and the working directory /share in it.
fn in_usr(ctx: &Ctx) -> crate::kit::Live {
    sleeper(ctx, &["-r", "-m", "-u", "-R", "/usr", "-w", "/share"])
}

fn namespaces_of_files(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n", "-u"]);
    let pid = live.command();
    let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
    let user = format!("--user=/proc/{pid}/ns/user");
    let read = ["readlink", "/proc/self/ns/net", "/proc/self/ns/uts"];
    let own = fs::read_link("/proc/self/ns/uts").unwrap().display().to_string();
    for net in [format!("-n/proc/{pid}/ns/net"), format!("--net=/proc/{pid}/ns/net")] {
        let args = [&["enter", &user, &net, "--"], &read[..]].concat();
        assert_eq!(ctx.nsexec(args).ok(), format!("{}\n{own}\n", link("net")));
    }
    // A file, and a namespace of the process.
    let net = format!("-n/proc/{pid}/ns/net");
    let text = enter(ctx, pid, &["-U", &net, "-u"], &read).ok();
    assert_eq!(text, format!("{}\n{}\n", link("net"), link("uts")));
    ctx.nsexec(["enter", "--net=/nonexistent", "--", "true"]).refused(1, &["/nonexistent", "No such file"]);
    live.end();
}

fn parent_user_namespace(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    let pid = live.command();
    let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap().display().to_string();
    let net = format!("--net=/proc/{pid}/ns/net");
    let read = ["readlink", "/proc/self/ns/user"];
    let text = ctx.nsexec([&["enter", &net, "--user-parent", "--"], &read[..]].concat()).ok();
    assert_eq!(text.trim(), theirs);
    assert_eq!(enter(ctx, pid, &["-n", "--user-parent"], &read).ok().trim(), theirs);
    live.end();
}

fn network_namespace_of_a_socket(ctx: &Ctx) {
    // The socket belongs to another network namespace than the process.
    let script = "import ctypes, socket, time
first = socket.socket()
assert ctypes.CDLL(None).unshare(0x40000000) == 0
print(first.fileno(), 'on', flush=True)
time.sleep(100)";
    let live = ctx.nsexec(["run", "-r", "-n", "--", "python3", "-c", script]).start().says("on");
    let fd = live.text().split_whitespace().next().unwrap().to_owned();
    let pid = live.command();
    let read = ["readlink", "/proc/self/ns/net"];
    let found = enter(ctx, pid, &["-U", "-N", &fd], &read).ok();
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().display().to_string();
    assert!(found.trim() != of(&pid.to_string()) && found.trim() != of("self"), "{found}");
    enter(ctx, pid, &["-U", "-N", "77"], &read).refused(1, &["descriptor 77", "Bad file descriptor"]);
    enter(ctx, pid, &["-U", "-N", "1"], &read).refused(1, &["descriptor 1", "not a socket"]);
    live.end();
}

fn target_with_the_inode_of_its_pidfd(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let pid = live.command();
    let script = format!("import os; print(os.fstat(os.pidfd_open({pid})).st_ino)");
    let inode: u64 = ctx.python(&script).ok().trim().parse().unwrap();
    let target = |inode: u64| {
        let target = format!("{pid}:{inode}");
        ctx.nsexec(["enter", "-t", &target, "-a", "--", "id", "-u"])
    };
    assert_eq!(target(inode).ok(), "0\n");
    target(inode + 1).refused(1, &[&pid.to_string(), "inode"]);
    live.end();
}

fn root_and_working_directory_of_the_process(ctx: &Ctx) {
    let live = in_usr(ctx);
    let pid = live.command();
    let inode = fs::metadata("/usr").unwrap().ino();
    for flags in [&["-a"][..], &["-U", "-m"], &["-a", "-r", "-w"], &["-U", "-r", "-w"]] {
        let text = enter(ctx, pid, flags, &["sh", "-c", "pwd; stat -c %i /"]).ok();
        assert_eq!(text, format!("/share\n{inode}\n"), "{flags:?}");
    }
    // Only with the files of the process.
    let text = enter(ctx, pid, &["-U", "-u"], &["stat", "-c", "%i", "/"]).ok();
    assert_eq!(text.trim(), fs::metadata("/").unwrap().ino().to_string());
    enter(ctx, pid, &["-U", "-w"], &["true"]).misused(&["-m"]);
    live.end();
}

fn working_directory_outside_of_the_root(ctx: &Ctx) {
    let script = "import os, time
top = os.open('/', os.O_RDONLY)
os.chroot('/usr')
os.fchdir(top)
print('on', flush=True)
time.sleep(100)";
    let live = ctx.nsexec(["run", "-r", "-m", "--", "python3", "-c", script]).start().says("on");
    let pid = live.command();
    let done = enter(ctx, pid, &["-a"], &["sh", "-c", "pwd; ls -d bin"]).done();
    done.exits(0);
    assert_eq!(done.text(), "/\nbin\n");
    assert!(done.err.contains("not taken over") && done.err.lines().count() == 1, "{}", done.err);
    enter(ctx, pid, &["-a", "-w"], &["pwd"]).refused(1, &["not taken over"]);
    // Only the working directory leads to the caller's root directory.
    enter(ctx, pid, &["-a", "--wd=/lib/../.."], &["sh", "-c", "test ! -e usr"]).ok();
    live.end();
}

/// The default must not make a launch fail.
fn working_directory_without_permission(ctx: &Ctx) {
    let folder = ctx.file("closed");
    fs::create_dir(&folder).unwrap();
    let live = sleeper(ctx, &["-r", "-m", "-w", folder.to_str().unwrap()]);
    let mode = |bits| fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
    mode(0o600);
    let done = enter(ctx, live.command(), &["-a"], &["pwd"]).done();
    done.exits(0);
    match ctx.root() {
        true => assert_eq!((done.text().trim(), &*done.err), (folder.to_str().unwrap(), "")),
        false => {
            assert_eq!(done.text(), "/\n");
            assert!(done.err.contains("not taken over: Permission denied"), "{}", done.err);
        }
    }
    mode(0o700);
    live.end();
}

fn directories_of_the_flags(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-m", "-u"]);
    let pid = live.command();
    let pwd = |flags: &[&str]| enter(ctx, pid, flags, &["pwd"]).ok();
    assert_eq!(pwd(&["-a", "--wd=/usr"]), "/usr\n");
    assert_eq!(pwd(&["-a", "-w/usr"]), "/usr\n");
    assert_eq!(pwd(&["-a", "-W", "usr/share"]), "/usr/share\n");
    assert_eq!(pwd(&["-a", "-r/usr", "--wdns", "/share"]), "/share\n");
    assert_eq!(pwd(&["-a", "--root=/usr"]), "/\n");
    assert_eq!(pwd(&["-U", "-u", "-w/usr"]), "/usr\n");
    enter(ctx, pid, &["-a", "-w=x"], &["pwd"]).misused(&["--wd=x", "absolute"]);
    enter(ctx, pid, &["-a", "-r/nonexistent"], &["pwd"]).refused(1, &["/nonexistent"]);
    // A magic link of /proc leads out.
    enter(ctx, pid, &["-a", "-w/proc/self/cwd"], &["pwd"]).refused(1, &["/proc/self/cwd"]);
    live.end();
}

fn environment_of_the_process(ctx: &Ctx) {
    let args = ["run", "-r", "-m", "--set-env", "MYENV=in side", "--", "sh", "-c", "echo on; exec sleep 100"];
    let live = ctx.nsexec(args).start().says("on");
    let pid = live.command();
    let print = ["sh", "-c", "echo $MYENV $OURS"];
    let text = |flags: &[&str]| enter(ctx, pid, flags, &print).env("OURS", "ours").ok();
    assert_eq!(text(&["-a"]), "ours\n");
    assert_eq!(text(&["-a", "--env"]), "in side\n");
    assert_eq!(text(&["-aU", "-e", "--set-env", "OURS=set"]), "in side set\n");
    // The variables could make a program of ours execute code of the process.
    enter(ctx, pid, &["-U", "--env"], &print).misused(&["LD_PRELOAD", "-m"]);
    enter(ctx, pid, &["-a", "--env", "--clear-env"], &print).misused(&["--clear-env"]);
    live.end();
}

fn path_of_the_caller_is_named(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-m"]);
    let pid = live.command();
    let run = |flags: &[&str]| enter(ctx, pid, flags, &["ls", "-d", "/"]).env("PATH", "/nix/store/bin");
    run(&["-a"]).refused(127, &["ls", "the PATH is the caller's", "--env"]);
    assert_eq!(run(&["-a", "--env"]).ok(), "/\n");
    assert_eq!(run(&["-a", "--set-env", "PATH=/bin"]).ok(), "/\n");
    live.end();
}

fn ids_of_the_flags(ctx: &Ctx) {
    let of = |flags: &[&str], pid| enter(ctx, pid, flags, &["sh", "-c", "id -u; id -g; id -G"]).ok();
    let live = sleeper(ctx, &["-n"]);
    assert_eq!(of(&["-a", "-S", "1000", "-G", "1001"], live.command()), "1000\n1001\n1001\n");
    assert_eq!(of(&["-a", "-G", "daemon"], live.command()), "0\n1\n1\n");
    live.end();
    let live = sleeper(ctx, &["--map-users", "0:30000:10", "--map-groups", "0:30000:10"]);
    assert_eq!(of(&["-U", "-S", "5", "-G", "6"], live.command()), "5\n6\n6\n");
    assert_eq!(of(&["-U", "-S", "5"], live.command()), "5\n0\n0\n");
    assert_eq!(of(&["-U", "-S", "0", "-G", "0"], live.command()), "0\n0\n0\n");
    enter(ctx, live.command(), &["-U", "-S", "77"], &["id"]).refused(1, &["77", "Invalid argument"]);
    live.end();
}

/// CVE-2026-30892 (crun), CVE-2026-46680 (containerd): a runtime took an id beyond 32 bits for another user.
fn ids_out_of_range_are_not_wrapped_or_taken_as_names(ctx: &Ctx) {
    for id in ["4294967295", "4294967296", "18446744073709551616", "-1", "+1", " 1", "0x1", "1x"] {
        for flag in ["-S", "-G"] {
            let command = ["run", "-r", &format!("{flag}{id}"), "--", "id"];
            let done = ctx.nsexec(command).done();
            done.exits(2);
            assert!(done.err.starts_with(&format!("error: invalid value '{id}'")), "{}", done.err);
        }
    }
}

fn ids_follow_the_process(ctx: &Ctx) {
    let of = |flags: &[&str], pid| enter(ctx, pid, flags, &["sh", "-c", "id -u; id -g"]).ok();
    let live = sleeper(ctx, &["-n", "-u", "-S", "1000", "-G", "1001"]);
    assert_eq!(of(&["-a", "-S", "follow", "-G", "follow"], live.command()), "1000\n1001\n");
    live.end();
    let maps = ["--map-users", "0:30000:10", "--map-groups", "0:40000:10", "-u", "-S", "5", "-G", "6"];
    let live = sleeper(ctx, &maps);
    assert_eq!(of(&["-U", "-S", "follow", "-G", "follow"], live.command()), "5\n6\n");
    // Outside of its user namespace it has other ids.
    assert_eq!(of(&["-u", "-S", "follow"], live.command()), "30005\n0\n");
    live.end();
}

fn capabilities_are_kept(ctx: &Ctx) {
    let live = sleeper(ctx, &["-c"]);
    let of = |flags: &[&str]| {
        let text = enter(ctx, live.command(), flags, &["grep", "CapEff", "/proc/self/status"]).ok();
        u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let uid = ids().0.to_string();
    if !ctx.root() {
        assert_eq!(of(&["-U", "-S", &uid, "-G", &ids().1.to_string()]), 0);
    }
    let kept = of(&["-U", "-S", &uid, "-G", &ids().1.to_string(), "--keep-caps"]);
    assert!(kept.count_ones() > 30, "{kept:x}");
    live.end();
}

/// Creates a cgroup, and starts a process in it with a network namespace of its own.
fn in_a_cgroup(ctx: &Ctx) -> (String, crate::kit::Live) {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let Some(mount) = mounts.into_iter().find(|mount| fs::metadata(format!("{mount}/cgroup.procs")).is_ok())
    else {
        ctx.skip("no cgroup file system of version 2");
    };
    let folder = format!("{mount}/nsexec-test-{}", std::process::id());
    if fs::create_dir(&folder).is_err() {
        ctx.skip("no cgroup may be created");
    }
    let live = sleeper(ctx, &["-n"]);
    fs::write(format!("{folder}/cgroup.procs"), live.command().to_string()).unwrap();
    (folder, live)
}

fn cgroup_of_the_process(ctx: &Ctx) {
    let (folder, live) = in_a_cgroup(ctx);
    let pid = live.command();
    let of = |file: &str| {
        let text = fs::read_to_string(file).unwrap();
        text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
    };
    let theirs = of(&format!("/proc/{pid}/cgroup"));
    let read = ["sed", "-n", "s/^0:://p", "/proc/self/cgroup"];
    assert_eq!(enter(ctx, pid, &["-n", "-c"], &read).ok().trim(), theirs);
    assert_eq!(enter(ctx, pid, &["-n"], &read).ok().trim(), of("/proc/self/cgroup"));
    live.end();
    fs::remove_dir(&folder).unwrap();
}

/// CVE-2026-78408: the kernel checks a move between cgroups with the ids of the process that opened the file.
fn descriptor_of_the_cgroup_is_not_inherited(ctx: &Ctx) {
    let (folder, live) = in_a_cgroup(ctx);
    let pid = live.command().to_string();
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done; grep -c nsexec-test /proc/self/cgroup";
    let nsenter = ctx.file("nsenter");
    std::os::unix::fs::symlink(&ctx.bin, &nsenter).unwrap();
    for flags in [&["enter"][..], &["enter", "--fd", "all"], &[]] {
        let program = if flags.is_empty() { &nsenter } else { &ctx.bin };
        let args = [flags, &["-t", &pid, "-n", "--join-cgroup", "--", "sh", "-c", list]].concat();
        let text = ctx.cmd(program, args).ok();
        assert!(text.trim_end().ends_with("\n1"), "in the cgroup: {text}");
        assert!(!text.contains("cgroup.procs") && !text.contains("/sys/fs/cgroup"), "{flags:?}: {text}");
    }
    live.end();
    fs::remove_dir(&folder).unwrap();
}

/// CVE-2022-29162: with inheritable capabilities, an exec of a file with capabilities gives these to the
/// process.
fn inheritable_capabilities_are_those_of_the_caller(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n", "-u"]);
    let script = ["grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status"];
    let own = ctx.cmd(script[0], &script[1..]).ok();
    assert_eq!(ctx.nsexec([&["run", "--"], &script[..]].concat()).ok(), own);
    assert_eq!(ctx.nsexec([&["run", "-r", "-n", "-f", "--"], &script[..]].concat()).ok(), own);
    assert_eq!(enter(ctx, live.command(), &["-a"], &script).ok(), own);
    live.end();
}

fn nothing_to_join(ctx: &Ctx) {
    for flags in [&["-a"][..], &["-m", "-u"]] {
        let done = enter(ctx, std::process::id().try_into().unwrap(), flags, &["echo", "it ran"]).done();
        done.exits(0);
        assert_eq!(done.text(), "it ran\n");
        assert_eq!(done.err, "nsexec: nothing to join: every namespace that is named is ours already\n");
    }
    let done = ctx.nsexec(["enter", "--net=/proc/self/ns/net", "--", "true"]).done();
    assert!(done.err.contains("nothing to join"), "{}", done.err);
}

fn without_a_command_the_shell_runs(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let text = enter(ctx, live.command(), &["-a"], &[]).env("SHELL", "/bin/sh").input(b"id -u\n").ok();
    assert_eq!(text, "0\n");
    live.end();
}

fn plan_and_trace(ctx: &Ctx) {
    let live = in_usr(ctx);
    let target = live.command().to_string();
    let as_planned = |flags: &[&str]| {
        let args = [&["trace", "enter", "-t", &target], flags, &["--", "true"]].concat();
        let done = ctx.nsexec(args).done();
        done.exits(0);
        assert!(done.err.contains("nsexec: as planned"), "{flags:?}: {}", done.err);
        assert!(!done.err.contains("breach"), "{flags:?}: {}", done.err);
        let args = [&["plan", "enter", "-t", &target], flags, &["--", "true"]].concat();
        let plan = ctx.nsexec(args).ok();
        assert!(plan.contains("setns("), "{plan}");
    };
    as_planned(&["-a"]);
    as_planned(&["-U", "-u"]);
    as_planned(&["-a", "--env", "-w/"]);
    as_planned(&["-U", "-m", "-r/usr", "-W", "/share"]);
    as_planned(&["-U", "-S", "0", &format!("-u/proc/{target}/ns/uts")]);
    live.end();
}
