//! The flags of unshare(1): ids, root and working directory, persistent namespaces, an init, the end of the
//! launcher.

use std::fs;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;

use crate::harness::{BOTH, PidFd, ROOT, Test, test};
use crate::kit::{Ctx, DEADLINE, ids, reap_all, subordinate};

pub(crate) const TESTS: &[Test] = &[
    test!(the_command_remains_who_it_is, BOTH),
    test!(a_map_without_the_own_id_needs_another_one, BOTH),
    test!(ids_of_the_command, ROOT),
    test!(auto_maps_groups_too, BOTH),
    test!(tools_are_in_the_default_path, BOTH),
    test!(a_malformed_line_is_named, ROOT),
    test!(loopback_is_up, BOTH),
    test!(root_and_working_directory, BOTH),
    test!(proc_at_another_place, BOTH),
    test!(propagation_of_mounts, ROOT),
    test!(capabilities_are_kept, BOTH),
    test!(without_a_command_the_shell_runs, BOTH),
    test!(an_init_reaps_orphans, BOTH),
    test!(process_1_reaps_orphans, BOTH),
    test!(persistent_namespaces, ROOT),
    test!(a_file_for_a_namespace_must_exist, BOTH),
    test!(the_command_ends_with_the_launcher_also_with_other_ids, ROOT),
    test!(the_guard_sends_the_signal_that_is_named, BOTH),
    test!(the_guard_ends_with_the_command, BOTH),
    test!(flags_may_be_given_again, BOTH),
    test!(plan_looks_at_the_files_that_the_launch_uses, BOTH),
];

/// Prints the number of zombies after five orphans have ended.
const ORPHANS: &str = "
import os,time
for i in range(5):
    if os.fork()==0:
        if os.fork()==0: time.sleep(.1); os._exit(0)
        os._exit(0)
    os.wait()
def zombies(): return sum(open('/proc/%s/stat'%p).read().rsplit(')',1)[1].split()[0]=='Z' for p in os.listdir('/proc') if p.isdigit())
time.sleep(.5)
print(zombies())";

const LOOPBACK: &str = "
import socket
s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen()
socket.create_connection(s.getsockname(),2); print('local')";

const PYTHON: [&str; 4] = [crate::kit::PYTHON, "-I", "-S", "-c"];

fn the_command_remains_who_it_is(ctx: &Ctx) {
    let (uid, gid) = ids();
    let own = format!("{uid}\n{gid}\n");
    let script = ["--", "sh", "-c", "id -u; id -g"];
    let line = |id: u32| format!("{id}:{id}:1");
    for flags in [
        &["-c"][..],
        &["-c", "--all"],
        &["--map-users", &line(uid), "--map-groups", &line(gid)],
        &["--map-user", &uid.to_string(), "--map-group", &gid.to_string(), "-n", "-m"],
    ] {
        assert_eq!(ctx.nsexec(["run"].iter().chain(flags).chain(&script)).ok(), own, "{flags:?}");
    }
    let other = ["run", "--map-users", &format!("77:{uid}:1"), "--map-groups", &format!("78:{gid}:1")];
    assert_eq!(ctx.nsexec(other.iter().chain(&script)).ok(), "77\n78\n");
    // Nothing is mapped.
    assert_eq!(ctx.nsexec(["run", "-U", "-m", "--", "id", "-u"]).ok(), "65534\n");
    assert_eq!(ctx.nsexec(["run", "-U", "--", "cat", "/proc/self/uid_map"]).ok(), "");
}

fn a_map_without_the_own_id_needs_another_one(ctx: &Ctx) {
    let (first, _) = subordinate(ctx);
    let line = format!("1:{first}:1");
    ctx.nsexec(["run", "--map-users", &line, "--", "true"]).misused(&[
        "0 nor your own",
        "-c",
        "-r",
        "--setuid",
    ]);
    let args = ["run", "--map-users", &line, "-S", "1", "--", "id", "-u"];
    assert_eq!(ctx.nsexec(args).ok(), "1\n");
}

fn ids_of_the_command(ctx: &Ctx) {
    let script = "id -u; id -g; grep Groups /proc/self/status";
    let args = ["run", "-n", "-S", "5", "-G", "6", "--", "sh", "-c", script];
    assert_eq!(ctx.nsexec(args).ok(), "5\n6\nGroups:\t \n");
    let args = ["run", "--map-users", "0:30000:10", "-S", "0", "-G", "0", "--", "cat", "/proc/self/uid_map"];
    assert_eq!(ctx.nsexec(args).ok().split_whitespace().collect::<Vec<_>>(), ["0", "30000", "10"]);
    ctx.nsexec(["run", "-r", "-S", "5", "--", "true"]).misused(&["--setuid 5", "not mapped"]);
    ctx.nsexec(["run", "-S", "nobody-here", "--", "true"]).misused(&["--setuid", "nobody-here"]);
}

/// `su` and `chown` change both ids.
fn auto_maps_groups_too(ctx: &Ctx) {
    subordinate(ctx);
    let file = ctx.file("owned");
    let script = format!("touch {0} && chown 5:6 {0} && stat -c %u:%g {0}", file.display());
    for how in [&["--all", "--map-users", "auto"][..], &["--map-auto"], &["-r", "--map-groups", "auto"]] {
        let args = [&["run"], how, &["--", "sh", "-c", &script]].concat();
        assert_eq!(ctx.nsexec(args).ok(), "5:6\n", "{how:?}");
    }
    assert_eq!(ctx.nsexec(["run", "--map-auto", "--", "cat", "/proc/self/setgroups"]).ok(), "allow\n");
}

fn tools_are_in_the_default_path(ctx: &Ctx) {
    subordinate(ctx);
    let bin = ctx.bin.to_str().unwrap();
    let args = ["-u", "PATH", bin, "run", "--all", "--map-users", "auto", "--", "id", "-u"];
    assert_eq!(ctx.cmd("env", args).ok(), "0\n");
}

/// getsubids(1) skips a malformed line, so it is hidden here.
fn a_malformed_line_is_named(ctx: &Ctx) {
    let file = ctx.file("subuid");
    fs::write(&file, "other:1:1\nroot:100000:x\n").unwrap();
    ctx.cmd("mount", ["--bind", file.to_str().unwrap(), "/etc/subuid"]).ok();
    let cmd = ctx.nsexec(["run", "--map-users", "auto", "--", "true"]).env("PATH", "/nonexistent");
    cmd.refused(1, &["--map-users auto", "/etc/subuid, line 2", "expected name:first:count"]);
    fs::write(&file, "root:100000:10\r\n").unwrap();
    let cmd = ctx.nsexec(["run", "--map-users", "auto", "--", "true"]).env("PATH", "/nonexistent");
    cmd.refused(1, &["/etc/subuid, line 1", "carriage return"]);
    ctx.cmd("umount", ["/etc/subuid"]).ok();
}

fn loopback_is_up(ctx: &Ctx) {
    for how in [&["run"][..], &["run", "-r", "-n"], &["run", "--all"], &["run", "-c", "-n"]] {
        let args = how.iter().chain(&["--"]).chain(&PYTHON).chain(&[LOOPBACK]);
        assert_eq!(ctx.nsexec(args).ok(), "local\n", "{how:?}");
    }
    let args = ["run", "-r", "-n", "--no-loopback", "--"].iter().chain(&PYTHON).chain(&[LOOPBACK]);
    assert!(ctx.nsexec(args).done().err.contains("unreachable"));
}

fn root_and_working_directory(ctx: &Ctx) {
    let folder = ctx.file("folder");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    assert_eq!(ctx.run(["-n", "-w", folder, "--", "pwd"]).ok(), format!("{folder}\n"));
    assert_eq!(ctx.nsexec(["run", "-c", "-R", "/", "-w", folder, "--", "pwd"]).ok(), format!("{folder}\n"));
    // Without a program in it, the search shows which root directory it is.
    ctx.run(["-R", folder, "--", "sh"]).refused(127, &["failed to execute sh"]);
    let line = ctx.run(["-R", "/nonexistent", "--", "sh"]).refused(1, &["/nonexistent"]);
    assert!(line.contains("No such file or directory"), "{line}");
    ctx.run(["-R", folder, "-w", "x", "--", "sh"]).misused(&["--wd x", "absolute"]);
}

fn proc_at_another_place(ctx: &Ctx) {
    let folder = ctx.file("proc");
    fs::create_dir(&folder).unwrap();
    let flag = format!("--mount-proc={}", folder.display());
    let script = format!("cat {}/1/comm; pwd", folder.display());
    let out = ctx.run(["-p", &flag, "--", "sh", "-c", &script]).ok();
    assert_eq!(out, format!("sh\n{}\n", ctx.dir.display()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

fn propagation_of_mounts(ctx: &Ctx) {
    let of = |flags: &[&str]| {
        let args = ["run"].iter().chain(flags).chain(&["--", "findmnt", "-n", "-o", "PROPAGATION", "/"]);
        ctx.nsexec(args).ok().trim().to_owned()
    };
    // The guard has made all mounts shared.
    assert_eq!(of(&["-m"]), "private");
    assert_eq!(of(&[]), "private,slave");
    assert_eq!(of(&["--all"]), "private,slave");
    assert_eq!(of(&["-m", "--propagation", "slave"]), "private,slave");
    assert!(of(&["-m", "--propagation", "shared"]).starts_with("shared"));
    assert!(of(&["-m", "--propagation", "unchanged"]).starts_with("shared"));
}

fn capabilities_are_kept(ctx: &Ctx) {
    let script = ["--", "grep", "CapEff", "/proc/self/status"];
    let with = ctx.nsexec(["run", "--map-user", "7", "--keep-caps"].iter().chain(&script)).ok();
    let without = ctx.nsexec(["run", "--map-user", "7"].iter().chain(&script)).ok();
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("CapEff:").trim(), 16).unwrap();
    assert!(number(&with) & 1 << 21 != 0, "CAP_SYS_ADMIN: {with}");
    assert_eq!(number(&without), 0);
}

fn without_a_command_the_shell_runs(ctx: &Ctx) {
    let run = |shell: &str| ctx.nsexec(["run", "-r"]).env("SHELL", shell).input(b"echo it is $0\n").ok();
    assert_eq!(run("/bin/sh"), "it is /bin/sh\n");
    assert_eq!(run(""), "it is /bin/sh\n");
}

fn an_init_reaps_orphans(ctx: &Ctx) {
    let args = ["run", "--init", "--"].iter().chain(&PYTHON).chain(&[ORPHANS]);
    assert_eq!(ctx.nsexec(args).ok(), "0\n");
    // The control.
    let args = ["run", "--"].iter().chain(&PYTHON).chain(&[ORPHANS]);
    assert_eq!(ctx.nsexec(args).ok(), "5\n");
}

/// In a container the program is often process 1, and inherits the orphans of its command.
fn process_1_reaps_orphans(ctx: &Ctx) {
    let bin = ctx.bin.to_str().unwrap();
    let args = ["run", "--", bin, "run", "-f", "-r", "--"].into_iter().chain(PYTHON).chain([ORPHANS]);
    assert_eq!(ctx.nsexec(args).ok(), "0\n");
}

fn persistent_namespaces(ctx: &Ctx) {
    let (uts, net) = (ctx.file("uts"), ctx.file("net"));
    let dir = ctx.file("private");
    fs::create_dir(&dir).unwrap();
    for file in [&uts, &net] {
        fs::write(file, "").unwrap();
    }
    let join = |kind: &str, file: &std::path::Path| format!("{kind}={}", file.display());
    let flag = |flag: &str, file: &std::path::Path| format!("{flag}{}", file.display());
    let args = ["run", &flag("--uts=", &uts), &flag("-n", &net), "--", "hostname", "kept"];
    assert_eq!(ctx.nsexec(args).ok(), "");
    let args = ["run", "--join", &join("uts", &uts), "--join", &join("net", &net), "--"];
    let entered = ctx.nsexec(args.iter().chain(&["sh", "-c", "hostname; grep -c : /proc/net/dev"])).ok();
    assert_eq!(entered, "kept\n1\n");
    for file in [&uts, &net] {
        ctx.cmd("umount", [file]).ok();
    }
    // A mount namespace needs a file whose mount has no peer elsewhere (mount_namespaces(7)).
    ctx.cmd("mount", ["-t", "tmpfs", "private", dir.to_str().unwrap()]).ok();
    let mnt = dir.join("mnt");
    fs::write(&mnt, "").unwrap();
    ctx.cmd("mount", ["--make-private", dir.to_str().unwrap()]).ok();
    // Linux 6.18 compares numbers that each CPU hands out on its own, so it refuses some newer namespaces as
    // older ones (mnt_ns_loop); unshare(1) fails with the same namespaces.
    let done = ctx.nsexec(["run", &flag("--mount=", &mnt), "--", "true"]).done();
    if !done.err.contains("Too many levels of symbolic links") {
        assert_eq!(done.ok(), "");
        ctx.cmd("umount", [&mnt]).ok();
    }
    ctx.cmd("umount", [&dir]).ok();
}

fn a_file_for_a_namespace_must_exist(ctx: &Ctx) {
    ctx.run(["--net=/nonexistent/net", "--", "true"]).refused(1, &["/nonexistent/net", "touch"]);
    if !ctx.root() {
        let file = ctx.file("net");
        fs::write(&file, "").unwrap();
        let flag = format!("--net={}", file.display());
        ctx.run([&flag[..], "--", "true"]).refused(1, &["failed to mount on", "Operation not permitted"]);
    }
}

/// A change of ids clears the parent-death signal of the kernel.
fn the_command_ends_with_the_launcher_also_with_other_ids(ctx: &Ctx) {
    ctx.needs("setpriv");
    let script = "echo $$ > $0; exec setpriv --reuid 4200 --clear-groups sh -c 'echo on; exec sleep 100'";
    set_child_subreaper(true).unwrap();
    for how in [&["-m"][..], &["-p"], &["-m", "--init"]] {
        let file = ctx.file("pid");
        let command = ["--", "sh", "-c", script, file.to_str().unwrap()];
        let args = [&["run", "--kill-child"], how, &command].concat();
        let live = ctx.nsexec(args).start().says("on").guarded();
        let command = PidFd::open(live.command()).unwrap();
        live.signal(Signal::SIGKILL);
        assert!(command.ends_within(DEADLINE), "{how:?}: the command lives on");
        drop(live.done());
        reap_all();
    }
}

fn the_guard_sends_the_signal_that_is_named(ctx: &Ctx) {
    set_child_subreaper(true).unwrap();
    let file = ctx.file("signal");
    let script = "trap 'echo TERM > $0; exit 0' TERM; echo on; while :; do sleep 0.05; done";
    let args = ["--kill-child=TERM", "--", "sh", "-c", script, file.to_str().unwrap()];
    let live = ctx.run(args).start().says("on").guarded();
    let command = PidFd::open(live.command()).unwrap();
    live.signal(Signal::SIGKILL);
    assert!(command.ends_within(DEADLINE));
    drop(live.done());
    reap_all();
    assert_eq!(fs::read_to_string(&file).unwrap(), "TERM\n");
    let guard = "a guard process sends SIGTERM to the command if nsexec ends first: its calls are not listed";
    let plan = |flags: &[&str]| ctx.nsexec([&["plan", "-r", "-m"], flags, &["--", "true"]].concat()).ok();
    assert!(plan(&["--kill-child=TERM"]).contains(guard) && !plan(&[]).contains("guard process"));
}

/// The guard of the harness would find a process that is left behind.
fn the_guard_ends_with_the_command(ctx: &Ctx) {
    assert_eq!(ctx.run(["--kill-child", "--", "echo", "done"]).ok(), "done\n");
}

/// As for getopt_long(3), the last value counts. The file of a namespace stays, as in unshare(1).
fn flags_may_be_given_again(ctx: &Ctx) {
    for (flags, wanted) in [
        ("-r -r --map-root-user", "0"),
        ("-r -c -r -n -n --net", "0"),
        ("-f -f -m -m -r", "0"),
        ("-r -S 1 -S 0", "0"),
        ("--map-user 5 --map-user 6", "6"),
    ] {
        let args = ["run"].into_iter().chain(flags.split(' ')).chain(["--", "id", "-u"]);
        assert_eq!(ctx.nsexec(args).ok().trim(), wanted, "{flags}");
    }
    let script = "$N run -r -n sleep 100 & while ! [ \"$(cat /proc/$!/comm)\" = sleep ]; do sleep .01; done; \
                  $N enter -t $! -U -U -n -n -F -F -- id -u; kill $!; wait";
    assert_eq!(ctx.cmd("sh", ["-c", script]).env("N", &ctx.bin).ok(), "0\n");
    ctx.nsexec(["run", "--net=missing", "-n", "--", "true"])
        .refused(1, &["missing", "create the file first"]);
}

/// The verdict of a plan is the result of the launch: the command is looked up below its root directory, from
/// its working directory.
fn plan_looks_at_the_files_that_the_launch_uses(ctx: &Ctx) {
    fs::write(ctx.file("file"), "").expect("a file");
    fs::create_dir(ctx.file("empty")).expect("a folder");
    for (line, runs) in [
        ("-R /usr -- /bin/true", true),
        ("-R /usr -- bin/true", true),
        ("-R /usr -w /bin -- ./true", true),
        ("-R /usr -w /bin -- ./no-such", false),
        ("-R /usr -w /no-such -- /bin/true", false),
        ("-R empty -- /bin/true", false),
        ("-R no-such -- true", false),
        ("-R file -- true", false),
        ("-w /usr/bin -- ./true", true),
        ("-w /usr -- bin/../bin/true", true),
        ("-w empty -- ./true", false),
        ("-w no-such -- true", false),
        ("-w file -- true", false),
        ("-w empty -- true", true),
        ("--uts=no-such -- true", false),
        ("-m -p --mount-proc -R / -w /usr/bin -- ./true", true),
    ] {
        let args = |command| [command, "-r"].into_iter().chain(line.split(' '));
        let ran = ctx.nsexec(args("run")).done();
        let plan = ctx.nsexec(args("plan")).done();
        assert_eq!(ran.status.success(), runs, "{line}: {}", ran.err);
        assert_eq!(plan.status.success(), runs, "{line}: {}", plan.text());
    }
}
