//! How a command ends, and the effect on the command when the launcher is asked to end, or ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::harness::{BOTH, PidFd, Test, USER, children, test};
use crate::kit::{Ctx, DEADLINE, Live, until};

pub(crate) const TESTS: &[Test] = &[
    test!(the_exit_status_is_the_commands, BOTH),
    test!(a_command_that_dies_by_a_signal, BOTH),
    test!(first_process_that_dies_by_a_signal, BOTH),
    test!(signal_without_a_handler_ends_the_command, BOTH),
    test!(signal_with_a_handler_reaches_the_command, BOTH),
    test!(a_signal_that_the_command_ignores, BOTH),
    test!(a_signal_where_proc_is_stale_or_missing, BOTH),
    test!(signal_during_the_launch_ends_it, USER),
    test!(ignored_signal_does_not_end_the_launch, USER),
    test!(other_signals_pass_through, BOTH),
    test!(stop_and_continue_by_signals, BOTH),
    test!(a_stop_of_the_command_alone_leaves_the_launcher_running, BOTH),
    test!(a_stopped_command_can_be_ended, BOTH),
    test!(descendants_of_the_first_process_end_with_it, BOTH),
    test!(kill_child_ends_the_command_with_the_launcher, BOTH),
    test!(stopped_getsubids_ends_with_the_launcher, BOTH),
    test!(without_kill_child_the_command_lives_on, BOTH),
    test!(surviving_grandchild_does_not_delay_the_exit, BOTH),
];

/// In the host's pid namespace, and as process 1 of a new one.
const PLACES: [&[&str]; 2] = [&["-u"], &["-p"]];

fn shell(ctx: &Ctx, place: &[&str], script: &str) -> Live {
    let args = [place, &["--", "sh", "-c", script]].concat();
    ctx.run(args).own_group().start()
}

/// Starts a command without signal handlers, and waits until it runs. The command has no shell around it:
/// dash catches SIGINT until its exec, which would discard a pending SIGINT.
fn sleeper(ctx: &Ctx, place: &[&str]) -> Live {
    let live = ctx.run([place, &["--", "sleep", "100"]].concat()).own_group().start();
    let read = |pid: i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    until("the command has begun", || children(live.pid()).iter().any(|pid| read(*pid, "comm") == "sleep\n"));
    // Also waits until the launcher supervises the command: SIGTSTP is the last signal that it blocks.
    let blocked = || {
        let status = read(live.pid(), "status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap_or("0");
        u64::from_str_radix(mask, 16).unwrap_or(0)
    };
    until("the launcher watches", || blocked() & (1 << (Signal::SIGTSTP as i32 - 1)) != 0);
    live
}

fn the_exit_status_is_the_commands(ctx: &Ctx) {
    for place in PLACES {
        for code in [0, 1, 2, 42, 125, 126, 127, 128, 255] {
            let done = shell(ctx, place, &format!("exit {code}")).done();
            done.exits(code);
            assert_eq!(done.err, "");
        }
    }
}

fn a_command_that_dies_by_a_signal(ctx: &Ctx) {
    for signal in [1, 2, 3, 6, 9, 10, 11, 13, 15, 34, 64] {
        let done = shell(ctx, &["-u"], &format!("ulimit -c 0; kill -{signal} $$")).done();
        done.exits(128 + signal);
        assert_eq!(done.err, "", "signal {signal}");
    }
}

/// The first process of a pid namespace ends by a fault of its own, or by SIGKILL from outside.
fn first_process_that_dies_by_a_signal(ctx: &Ctx) {
    let live = shell(ctx, &["-p"], "echo on; exec sleep 100").says("on");
    kill(Pid::from_raw(live.command()), Signal::SIGKILL).unwrap();
    live.done().exits(137);
    let script = "import ctypes; ctypes.string_at(0)";
    ctx.run(["-p", "--", crate::kit::PYTHON, "-I", "-S", "-c", script]).done().exits(139);
}

const ASKING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

fn signal_without_a_handler_ends_the_command(ctx: &Ctx) {
    for place in PLACES {
        for signal in ASKING {
            let live = sleeper(ctx, place);
            let command = PidFd::open(live.command()).unwrap();
            live.signal(signal);
            let done = live.done();
            done.exits(128 + signal as i32);
            assert!(command.ends_within(Duration::ZERO), "{signal}: the command has ended before us");
        }
    }
}

fn signal_with_a_handler_reaches_the_command(ctx: &Ctx) {
    for place in PLACES {
        for (signal, name) in ASKING.into_iter().zip(["INT", "TERM", "HUP", "QUIT"]) {
            let script =
                format!("trap 'echo got {name}; exit 5' {name}; echo on; while :; do sleep 0.02; done");
            let live = shell(ctx, place, &script).says("on");
            live.signal(signal);
            let done = live.done();
            done.exits(5);
            assert_eq!(done.text(), format!("on\ngot {name}\n"), "{place:?}: once");
        }
    }
}

/// In a new pid namespace with the old /proc, the command's pid belongs to another process there.
fn a_signal_where_proc_is_stale_or_missing(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let user: &[&str] = if ctx.root() { &[] } else { &["-r"] };
    let signalled =
        |inner: &str| format!("{bin} run {inner} & p=$!; sleep 0.5; kill -TERM $p; wait $p; echo $?");
    let trap = "sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.02; done'";
    let (handles, ignores) = (format!("-n -- {trap}"), "-n -- sh -c 'trap \"\" TERM; sleep 1; exit 6'");
    let stale = [("-n -- sleep 100", 143), ("-n -p -- sleep 100", 143), (&handles, 5), (ignores, 6)];
    for (inner, status) in stale {
        let done = ctx.nsexec([&["run"], user, &["-p", "--", "sh", "-c", &signalled(inner)]].concat()).done();
        assert_eq!(done.text().lines().last(), Some(&*status.to_string()), "{inner}: {}", done.err);
    }
    if !ctx.root() {
        // In a user namespace, mounts from before its creation cannot be unmounted.
        return;
    }
    // Without a /proc the signal state is unknown: the launcher kills a command that is process 1, and sends
    // the signal to any other.
    for (inner, status) in [("-n -- sleep 100", 143), ("-n -p -- sleep 100", 143), (&handles, 5)] {
        let script = format!("umount -l /proc; {}", signalled(inner));
        let done = ctx.nsexec([&["run"], user, &["-m", "--", "sh", "-c", &script]].concat()).done();
        assert_eq!(done.text().lines().last(), Some(&*status.to_string()), "{inner}: {}", done.err);
    }
}

fn a_signal_that_the_command_ignores(ctx: &Ctx) {
    for place in PLACES {
        let live =
            shell(ctx, place, "trap '' INT TERM HUP QUIT; echo on; sleep 0.5; echo still here; exit 6")
                .says("on");
        for signal in ASKING {
            live.signal(signal);
        }
        let done = live.done();
        done.exits(6);
        assert_eq!(done.text(), "on\nstill here\n", "{place:?}");
    }
}

fn other_signals_pass_through(ctx: &Ctx) {
    for place in PLACES {
        let script = "trap 'echo got usr1' USR1; trap 'echo got usr2; exit 7' USR2; echo on; while :; do sleep 0.02; done";
        let live = shell(ctx, place, script).says("on");
        live.signal(Signal::SIGUSR1);
        let live = live.says("got usr1");
        live.signal(Signal::SIGUSR2);
        live.done().exits(7);
    }
}

fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

fn stop_and_continue_by_signals(ctx: &Ctx) {
    for place in PLACES {
        let live = sleeper(ctx, place);
        let (launcher, command) = (live.pid(), live.command());
        live.signal(Signal::SIGTSTP);
        until("both have stopped", || (state(launcher), state(command)) == ('T', 'T'));
        live.signal(Signal::SIGCONT);
        until("both go on", || state(launcher) == 'S' && state(command) == 'S');
        live.end();
    }
}

fn a_stop_of_the_command_alone_leaves_the_launcher_running(ctx: &Ctx) {
    for place in PLACES {
        let live = sleeper(ctx, place);
        let (launcher, command) = (live.pid(), live.command());
        for _ in 0..3 {
            kill(Pid::from_raw(command), Signal::SIGSTOP).unwrap();
            until("the command has stopped", || state(command) == 'T');
            // Time in which the launcher would stop, if it did.
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(state(launcher), 'S', "{place:?}");
            kill(Pid::from_raw(command), Signal::SIGCONT).unwrap();
            until("the command goes on", || state(command) == 'S');
        }
        live.end();
        // The launcher also notices the end of a stopped command.
        let live = sleeper(ctx, place);
        let command = live.command();
        kill(Pid::from_raw(command), Signal::SIGSTOP).unwrap();
        until("the command has stopped", || state(command) == 'T');
        live.kill_command().exits(137);
    }
}

/// A signal stays pending until a stopped process is continued.
fn a_stopped_command_can_be_ended(ctx: &Ctx) {
    for place in PLACES {
        for signal in ASKING {
            let live = sleeper(ctx, place);
            let command = live.command();
            kill(Pid::from_raw(command), Signal::SIGSTOP).unwrap();
            until("the command has stopped", || state(command) == 'T');
            live.signal(signal);
            live.done().exits(128 + signal as i32);
        }
    }
}

fn descendants_of_the_first_process_end_with_it(ctx: &Ctx) {
    // If the sleeper survived, the guard would find it.
    let live = shell(ctx, &["-p"], "sleep 100 & echo on; sleep 0.1; exit 4").says("on");
    live.done().exits(4);
}

/// Starts a sleeper and kills the launcher. Returns the sleeper, which is now a child of this process, so the
/// guard does not see it.
fn orphan(ctx: &Ctx, flags: &[&str]) -> (Pid, PidFd) {
    set_child_subreaper(true).unwrap();
    let args = [flags, &["--", "sh", "-c", "echo on; exec sleep 100"]].concat();
    let live = ctx.run(args).start().says("on");
    let pid = live.command();
    let command = PidFd::open(pid).unwrap();
    live.signal(Signal::SIGKILL);
    assert_eq!(live.done().status.code(), None);
    (Pid::from_raw(pid), command)
}

fn kill_child_ends_the_command_with_the_launcher(ctx: &Ctx) {
    for place in PLACES {
        let (pid, command) = orphan(ctx, &[place, &["--kill-child"]].concat());
        assert!(command.ends_within(DEADLINE), "it lives on");
        waitpid(pid, None).unwrap();
        // The guard of the launcher ends too.
        crate::kit::reap_all();
    }
}

/// getsubids(1) lists the subordinate ids before the launch.
fn stopped_getsubids_ends_with_the_launcher(ctx: &Ctx) {
    let folder = ctx.file("tools");
    fs::create_dir(&folder).unwrap();
    let (tool, number) = (folder.join("getsubids"), folder.join("pid"));
    fs::write(
        &tool,
        format!("#!/bin/sh\necho $$ >{0}.new; mv {0}.new {0}; kill -STOP $$\n", number.display()),
    )
    .unwrap();
    fs::set_permissions(&tool, Permissions::from_mode(0o755)).unwrap();
    set_child_subreaper(true).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let live = ctx.nsexec(["run", "--map-users", "auto", "--", "true"]).env("PATH", &path).start();
    let pid = || fs::read_to_string(&number).ok().and_then(|text| text.trim().parse::<i32>().ok());
    until("getsubids has stopped", || pid().is_some_and(|pid| state(pid) == 'T'));
    let tool = PidFd::open(pid().unwrap()).unwrap();
    live.signal(Signal::SIGKILL);
    assert_eq!(live.done().status.code(), None);
    assert!(tool.ends_within(DEADLINE), "it lives on");
    crate::kit::reap_all();
}

fn without_kill_child_the_command_lives_on(ctx: &Ctx) {
    for place in PLACES {
        let (pid, command) = orphan(ctx, place);
        assert!(!command.ends_within(Duration::from_millis(200)), "it died with the launcher");
        kill(pid, Signal::SIGKILL).unwrap();
        assert!(command.ends_within(DEADLINE));
        waitpid(pid, None).unwrap();
    }
}

fn surviving_grandchild_does_not_delay_the_exit(ctx: &Ctx) {
    set_child_subreaper(true).unwrap();
    let done = shell(ctx, &["-u"], "sleep 100 & echo $!").done();
    done.exits(0);
    let pid = Pid::from_raw(done.text().trim().parse().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    waitpid(pid, None).unwrap();
}

/// Creates a newuidmap that writes its pid to a file and then runs `then`. Returns that file, and a PATH with
/// the tool.
fn slow_tool(ctx: &Ctx, then: &str) -> (std::path::PathBuf, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = ctx.file("slow");
    std::fs::create_dir(&folder).unwrap();
    let tool = folder.join("newuidmap");
    let runs = folder.join("runs");
    let script = format!("#!/bin/sh\necho $$ > {}\n{then}\n", runs.display());
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    (runs, format!("{}:/usr/bin:/bin", folder.display()))
}

fn signal_during_the_launch_ends_it(ctx: &Ctx) {
    ctx.needs("newuidmap");
    let (runs, path) = slow_tool(ctx, "exec /bin/sleep 100");
    for signal in ASKING {
        let live = ctx
            .nsexec(["run", "-f", "-r", "--map-users", "auto", "--", "echo", "it ran"])
            .env("PATH", &path)
            .start();
        crate::kit::until(&format!("the tool runs for {signal}"), || {
            std::fs::read_to_string(&runs).is_ok_and(|text| text.ends_with('\n'))
        });
        let tool: i32 = std::fs::read_to_string(&runs).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&runs).unwrap();
        let tool = PidFd::open(tool).unwrap();
        live.signal(signal);
        let done = live.done();
        done.exits(128 + signal as i32);
        assert_eq!(done.text(), "");
        assert_eq!(done.err, format!("nsexec: {} came before the command was started\n", signal.as_str()));
        assert!(tool.ends_within(DEADLINE), "{signal}: the tool lives on");
    }
}

/// The launcher ignores SIGHUP, as under nohup.
fn ignored_signal_does_not_end_the_launch(ctx: &Ctx) {
    ctx.needs("newuidmap");
    let (runs, path) = slow_tool(ctx, "/bin/sleep 0.5; exec /usr/bin/newuidmap \"$@\"");
    let script = format!("trap '' HUP; exec {} run -r --map-users auto -- echo it ran", ctx.bin.display());
    let live = ctx.cmd("sh", ["-c", &script]).env("PATH", &path).start();
    crate::kit::until("the tool runs", || runs.exists());
    live.signal(Signal::SIGHUP);
    assert_eq!(live.done().ok(), "it ran\n");
}
