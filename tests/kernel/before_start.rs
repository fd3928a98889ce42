//! `--pid-file`, `--ready-fd` and `--wait-fd`: a script configures the namespaces before the command starts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::sys::signal::Signal;

use crate::harness::{BOTH, Test, children, test};
use crate::joins::sleeper;
use crate::kit::{Cmd, Ctx, PYTHON, until};

pub(crate) const TESTS: &[Test] = &[
    test!(pid_file_has_the_pid_of_the_command, BOTH),
    test!(pid_file_replaces_a_file_and_a_symlink, BOTH),
    test!(pid_file_that_cannot_be_written_is_named, BOTH),
    test!(failed_launch_leaves_no_pid_file, BOTH),
    test!(script_moves_a_veth_end_before_the_command_runs, BOTH),
    test!(ready_fd_is_at_its_end_before_the_command_runs, BOTH),
    test!(one_socket_is_ready_and_wait_descriptor, BOTH),
    test!(closed_descriptors_are_wrong_usage, BOTH),
    test!(end_of_the_writer_starts_the_command, BOTH),
    test!(signal_ends_the_wait, BOTH),
    test!(signal_ends_the_wait_for_a_full_pipe, BOTH),
    test!(death_of_the_waiting_process_ends_the_wait, BOTH),
    test!(descriptors_are_not_inherited, BOTH),
    test!(enter_has_the_flags, BOTH),
    test!(record_is_as_planned, BOTH),
];

/// Runs a shell script with the program as `$N`, and the flags of a network namespace as `$F`.
fn script<'c>(ctx: &'c Ctx, text: &str) -> Cmd<'c> {
    let flags = if ctx.root() { "-n" } else { "-r -n" };
    ctx.cmd("sh", ["-euc", text]).env("N", &ctx.bin).env("F", flags)
}

/// Returns the names in the folder, without those of the test itself.
fn names(ctx: &Ctx) -> Vec<String> {
    let all = fs::read_dir(&ctx.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = all.filter(|name| !name.starts_with(".output")).collect();
    names.sort();
    names
}

fn pid_file_has_the_pid_of_the_command(ctx: &Ctx) {
    let text = script(ctx, "umask 077; $N run $F --pid-file pid -- sh -c 'echo $$; cat pid'").ok();
    let (own, written) = text.split_once('\n').unwrap();
    assert_eq!(format!("{own}\n"), written);
    assert_eq!(fs::metadata(ctx.file("pid")).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(names(ctx), ["pid"]);
    // Process 1 of a new pid namespace: the file has its number outside.
    let live =
        ctx.run(["-p", "--pid-file", "pid", "--", "sh", "-c", "echo on $$; sleep 100"]).start().says("on 1");
    let written: i32 = fs::read_to_string(ctx.file("pid")).unwrap().trim().parse().unwrap();
    assert_eq!(written, live.command());
    drop(live.kill_command());
}

fn pid_file_replaces_a_file_and_a_symlink(ctx: &Ctx) {
    fs::write(ctx.file("target"), "kept").unwrap();
    symlink("target", ctx.file("pid")).unwrap();
    fs::write(ctx.file("old"), "a longer text than a pid\n").unwrap();
    let inode = fs::metadata(ctx.file("old")).unwrap().ino();
    // A reader that has opened the earlier file keeps it.
    let text = script(ctx, "exec 5<old; $N run $F --pid-file old -- true; cat <&5").ok();
    assert_eq!(text, "a longer text than a pid\n");
    assert_ne!(fs::metadata(ctx.file("old")).unwrap().ino(), inode);
    assert!(fs::read_to_string(ctx.file("old")).unwrap().trim().parse::<u32>().is_ok());
    script(ctx, "$N run $F --pid-file pid -- true").ok();
    assert!(fs::symlink_metadata(ctx.file("pid")).unwrap().is_file());
    assert_eq!(fs::read_to_string(ctx.file("target")).unwrap(), "kept");
    assert_eq!(names(ctx), ["old", "pid", "target"]);
}

fn pid_file_that_cannot_be_written_is_named(ctx: &Ctx) {
    fs::create_dir(ctx.file("folder")).unwrap();
    let run = |file: &str| ctx.run(["-n", "--pid-file", file, "--", "echo", "ran"]);
    run("missing/pid").refused(1, &["--pid-file missing/pid", "No such file"]);
    run("folder").refused(1, &["--pid-file folder", "Is a directory"]);
    run("/proc/pid").refused(1, &["--pid-file /proc/pid"]);
    if !ctx.root() {
        fs::set_permissions(ctx.file("folder"), fs::Permissions::from_mode(0o555)).unwrap();
        run("folder/pid").refused(1, &["--pid-file folder/pid", "Permission denied"]);
    }
    assert_eq!(names(ctx), ["folder"]);
    // A device or a FIFO is not replaced, also through a link.
    script(ctx, "mkfifo fifo; ln -s fifo link; ln -s /dev/null null").ok();
    for file in ["fifo", "link", "null", "/dev/null"] {
        run(file).refused(1, &[&format!("--pid-file {file}"), "not a regular file"]);
    }
    script(ctx, "test -p fifo; test -L link; test -L null; test -c /dev/null").ok();
    assert_eq!(names(ctx), ["fifo", "folder", "link", "null"]);
}

fn failed_launch_leaves_no_pid_file(ctx: &Ctx) {
    ctx.run(["-n", "--pid-file", "pid", "--", "/nonexistent"]).refused(127, &["/nonexistent"]);
    assert_eq!(names(ctx), [""; 0]);
}

/// The command finds the device, so the script was done before.
fn script_moves_a_veth_end_before_the_command_runs(ctx: &Ctx) {
    ctx.needs("ip");
    let text = "
        mkfifo ready go
        $N run -n --ready-fd 3 --wait-fd 4 -- ip -o link show dev inside 3>ready 4<>go &
        read pid < ready
        ip link add outside type veth peer name inside netns $pid || { echo no veth; kill $!; exit 0; }
        echo go > go
        wait $!
        ip -o link show dev outside";
    // Not in the network namespace of the machine.
    let done = ctx.nsexec(["run", "-r", "-n", "--", "sh", "-euc", text]).env("N", &ctx.bin).done();
    if done.text().starts_with("no veth") {
        ctx.skip("needs veth devices");
    }
    let text = done.ok();
    assert!(text.contains("inside@") && text.contains("outside@"), "{text}");
}

/// `cat` ends at the end of the file, so no process of the launch holds the descriptor.
fn ready_fd_is_at_its_end_before_the_command_runs(ctx: &Ctx) {
    let text = "
        mkfifo ready go
        $N run $F --ready-fd 3 --wait-fd 4 -- sh -c 'echo command $$' 3>ready 4<>go &
        pid=$(cat ready)
        echo script $pid
        echo > go
        wait $!";
    let text = script(ctx, text).ok();
    let pids: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(pids.len(), 2, "{text}");
    assert!(pids[0].0 == "script" && pids[1] == ("command", pids[0].1), "{text}");
}

fn one_socket_is_ready_and_wait_descriptor(ctx: &Ctx) {
    let flags = if ctx.root() { "['-n']" } else { "['-r','-n']" };
    let script = format!(
        "import socket, subprocess
ours, theirs = socket.socketpair()
number = str(theirs.fileno())
p = subprocess.Popen([{:?}, 'run'] + {flags} + ['--ready-fd', number, '--wait-fd', number, '--', 'echo', 'ran'],
    pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
theirs.close()
assert int(ours.recv(100).decode()) > 0
ours.send(b'go')
print(p.communicate()[0].decode().strip(), p.returncode, ours.recv(100))",
        ctx.bin
    );
    // The byte stays unread, which resets the connection.
    let text = ctx.python(&script.replace("ours.recv(100))", "0)")).ok();
    assert_eq!(text, "ran 0 0\n");
}

fn closed_descriptors_are_wrong_usage(ctx: &Ctx) {
    for flag in ["--ready-fd", "--wait-fd"] {
        ctx.run([flag, "77", "--", "true"]).misused(&[flag, "77", "not open"]);
        for number in ["2", "x", ""] {
            ctx.run([flag, number, "--", "true"]).misused(&[flag, "above 2"]);
        }
    }
    script(ctx, "$N run $F --ready-fd 3 -- true 3</dev/null")
        .misused(&["--ready-fd 3", "not open for writing"]);
    script(ctx, "$N run $F --wait-fd 3 -- true 3>/dev/null")
        .misused(&["--wait-fd 3", "not open for reading"]);
    let opened = "import os,sys; os.dup2(os.open('/', os.O_PATH), 7); os.execv(sys.argv[1], sys.argv[1:])";
    for flag in ["--ready-fd", "--wait-fd"] {
        let line = format!("{PYTHON} -I -S -c \"{opened}\" $N run $F {flag} 7 -- true");
        script(ctx, &line).misused(&[flag, "7", "not open for"]);
    }
    // A reader that is gone: the launch fails, and no signal ends nsexec.
    let gone = "mkfifo f; exec 4<>f 3>f; exec 4<&-; $N run $F --ready-fd 3 -- echo ran";
    script(ctx, gone).refused(1, &["--ready-fd 3", "Broken pipe"]);
}

fn end_of_the_writer_starts_the_command(ctx: &Ctx) {
    assert_eq!(script(ctx, "$N run $F --wait-fd 3 -- echo ran 3</dev/null").ok(), "ran\n");
    let dies = "mkfifo go; sh -c 'exec 5>go; sleep .2; kill -9 $$' & $N run $F --wait-fd 3 -- echo ran 3<go; wait || :";
    assert_eq!(script(ctx, dies).ok(), "ran\n");
}

/// Starts a launch whose wait does not end. Returns after its `--pid-file` is written.
fn waiting(ctx: &Ctx) -> (crate::kit::Live, i32) {
    let live = script(ctx, "mkfifo go; exec $N run $F --pid-file pid --wait-fd 3 -- echo ran 3<>go").start();
    until("the pid file is written", || ctx.file("pid").exists());
    let pid = fs::read_to_string(ctx.file("pid")).unwrap().trim().parse().unwrap();
    (live, pid)
}

fn signal_ends_the_wait(ctx: &Ctx) {
    let (live, pid) = waiting(ctx);
    assert_eq!(children(live.pid()), [pid]);
    live.signal(Signal::SIGTERM);
    let done = live.done();
    done.refused(143, &["SIGTERM"]);
    assert_eq!(names(ctx), ["go"]);
}

/// No process reads the pipe of `--ready-fd`, which is full.
fn signal_ends_the_wait_for_a_full_pipe(ctx: &Ctx) {
    let full = "mkfifo go; exec 3<>go; timeout 1 dd if=/dev/zero bs=4096 >&3 2>/dev/null || :; \
                exec $N run $F --pid-file pid --ready-fd 3 -- echo ran";
    let live = script(ctx, full).start();
    until("the pid file is written", || ctx.file("pid").exists());
    live.signal(Signal::SIGTERM);
    live.done().refused(143, &["SIGTERM"]);
    assert_eq!(names(ctx), ["go"]);
}

fn death_of_the_waiting_process_ends_the_wait(ctx: &Ctx) {
    let (live, pid) = waiting(ctx);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    live.done().refused(1, &["SIGKILL"]);
    assert_eq!(names(ctx), ["go"]);
}

fn descriptors_are_not_inherited(ctx: &Ctx) {
    let list = "-- sh -c 'cd /proc/self/fd; echo *' 3>out 4</dev/null 5</dev/null";
    let run = |flags: &str| script(ctx, &format!("$N run $F --ready-fd 3 --wait-fd 4 {flags} {list}")).ok();
    let has = |text: &str, number: &str| text.split_whitespace().any(|one| one == number);
    for flags in ["", "-f", "--fd all"] {
        let text = run(flags);
        assert!(!has(&text, "3") || !has(&text, "4"), "{flags}: {text}");
        assert!(has(&text, "5"), "{flags}: {text}");
    }
    // Only named ones: the shell opens /proc/self/fd as the lowest free number.
    let text = run("--fd 4");
    assert!(has(&text, "4") && !has(&text, "5"), "{text}");
}

fn enter_has_the_flags(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    let target = live.command().to_string();
    let text = script(
        ctx,
        "$N enter -t $TARGET -a --pid-file pid --ready-fd 3 --wait-fd 4 -- sh -c 'echo $$' 3>ready 4</dev/null; cat pid ready",
    )
    .env("TARGET", &target)
    .ok();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    lines.dedup();
    assert_eq!(lines.len(), 1, "{text}");
    live.end();
}

fn record_is_as_planned(ctx: &Ctx) {
    let flags = "$F --pid-file pid --ready-fd 3 --wait-fd 4 -- true 3>ready 4</dev/null";
    let done = script(ctx, &format!("$N trace {flags}")).done();
    done.exits(0);
    assert!(done.err.starts_with("nsexec: as planned"), "{}", done.err);
    assert_eq!(fs::read(ctx.file("pid")).unwrap(), fs::read(ctx.file("ready")).unwrap());
    fs::remove_file(ctx.file("pid")).unwrap();
    let plan = script(ctx, &format!("$N plan {flags}")).ok();
    assert!(
        plan.contains("nsexec writes the pid to pid, writes the pid to descriptor 3, waits for descriptor 4")
    );
    assert!(!ctx.file("pid").exists(), "a plan has no effects");
    script(ctx, &format!("$N trace --witness {flags}")).misused(&["--witness", "--pid-file"]);
}
