//! What util-linux of this machine refuses or does not have, and the subjects of util-linux's own tests
//! (tests/ts/unshare, tests/ts/nsenter, tests/ts/lsns).

use nix::sys::prctl::set_child_subreaper;

use super::{linked, links};
use crate::kit::{Ctx, PYTHON, ids, reap_all, subordinate};

/// Runs a script that must succeed, with this output.
#[track_caller]
fn prints(ctx: &Ctx, script: &str, wanted: &str) {
    let done = linked(ctx, script);
    assert_eq!((done.text().as_str(), done.status.code()), (wanted, Some(0)), "{script}\n{}", done.err);
}

pub(super) fn name_is_that_of_the_first_argument(ctx: &Ctx) {
    let [unshare, _] = links(ctx);
    ctx.needs("bash");
    let named = |name: &str, rest: &str| {
        let script = format!("exec -a {name} \"$BIN\" {rest}");
        ctx.cmd("bash", ["-c", &script]).env("BIN", &ctx.bin).done()
    };
    assert_eq!(named("/any/where/unshare", "-r id -u").ok(), "0\n");
    assert_eq!(named("nsenter", "echo in").ok(), "in\n");
    named("unshare.old", "-r id -u").exits(2);
    assert!(ctx.cmd(&unshare, ["-V"]).ok().starts_with("unshare of nsexec "));
    assert!(ctx.cmd(&unshare, ["--help"]).ok().contains("Usage: unshare"));
}

pub(super) fn usage_errors_name_the_program(ctx: &Ctx) {
    for (script, wanted) in [
        ("$U --nope", "unshare: unknown option '--nope'\nTry 'unshare --help' for more information.\n"),
        ("$N -x", "nsenter: unknown option '-x'\nTry 'nsenter --help' for more information.\n"),
        (
            "$U --monotonic 5 true",
            "unshare: --monotonic and --boottime need a new time namespace: add -T\nTry 'unshare --help' for more information.\n",
        ),
        ("$U -r no-such", "unshare: failed to execute no-such: "),
        ("$U --owner 5:6 true", "unshare: --owner is left out: setpriv --reuid 5 --regid 6 "),
        ("$U -l x true", "unshare: --load-interp is left out: "),
        ("$N --net=/nonexistent true", "nsenter: "),
    ] {
        let done = linked(ctx, script);
        assert!(done.err.starts_with(wanted), "{script}: {}", done.err);
        assert_eq!(done.status.code(), Some(if script.contains("no-such") { 127 } else { 1 }), "{script}");
        assert!(!done.err.contains("nsexec:"), "{}", done.err);
    }
}

pub(super) fn lines_that_util_linux_refuses(ctx: &Ctx) {
    let (first, _) = subordinate(ctx);
    prints(ctx, "$U -r --setgroups deny cat /proc/self/setgroups", "deny\n");
    prints(ctx, "$U -r -G 0 id -g", "0\n");
    prints(ctx, "$U -r -p --mount-proc sh -c 'echo $$'", "1\n");
    if ctx.root() {
        let script = "touch f; $U -r --net=f true; $N --net=f cat /sys/class/net/lo/flags; umount f";
        prints(ctx, script, "0x9\n");
    }
    prints(ctx, "$U -r -n sleep 100 & is $! sleep; $N -t $! -U -n id -u; end $!", "0\n");
    prints(ctx, "$U -r -n sleep 100 & is $! sleep; $N -t $! -a id -u; end $!", "0\n");
    let map = format!("1:{first}:5");
    let script = format!("$U -r --map-users {map} --map-groups {map} cat /proc/self/uid_map");
    let lines = linked(ctx, &script).ok();
    let words: Vec<&str> = lines.split_whitespace().collect();
    let (own, first) = (ids().0.to_string(), first.to_string());
    assert_eq!(words, ["0", &own, "1", "1", &first, "5"]);
}

/// Flags of util-linux after 2.38.
pub(super) fn later_flags(ctx: &Ctx) {
    // A command whose parent is killed comes to this process.
    set_child_subreaper(true).expect("subreaper");
    prints(ctx, "$U -r -n sleep 100 & is $! sleep; $N -t $! -n --user-parent id -u; end $!", "0\n");
    prints(
        ctx,
        "$U -r sh -c \"$U -r sleep 100 & wait\" & c=$(child $! sleep); $N -t $c -U --user-parent --preserve-credentials readlink /proc/self/ns/user > a; \
         readlink /proc/$!/ns/user | cmp - a; echo $?; end $c $!",
        "0\n",
    );
    prints(
        ctx,
        "$U -r -n -w / sleep 100 & is $! sleep; $N -t $! -U -n -S follow -G follow -W/usr pwd; end $!",
        "/usr\n",
    );
    if !ctx.root() {
        prints(ctx, "$U --map-subids -c id -u", &format!("{}\n", ids().0));
    }
    prints(
        ctx,
        "$U -r --map-users=all --map-groups=all true; echo $?",
        if ctx.root() { "0\n" } else { "1\n" },
    );
    prints(ctx, "$U -r --map-root-user --forward-signals true", "");
    reap_all();
}

/// tests/ts/unshare/clear-env and env.
pub(super) fn environment_is_cleared(ctx: &Ctx) {
    prints(ctx, "A=1 $U --clear-env /bin/sh -c 'echo ${A-none}; echo $(env | grep -c PATH=)'", "none\n0\n");
    prints(
        ctx,
        "A=1 B=2 C=3 $U --whitelist-env A,C,D /bin/sh -c 'echo $A${B-none}$C${D-none}'",
        "1none3none\n",
    );
    prints(ctx, "A=1 $U -r /bin/sh -c 'echo $A'", "1\n");
}

/// tests/ts/unshare/forward-signals and forward-signals-kill-child.
pub(super) fn forwards_signals(ctx: &Ctx) {
    for more in ["", "--kill-child"] {
        // A shell without job control starts its jobs with SIGINT ignored, so SIGTERM is sent.
        let script = format!(
            "$U --user --map-root-user --pid --mount-proc --fork --forward-signals {more} \
             sh -c 'trap \"exit 15\" TERM; echo on > on; while :; do sleep 0.01; done' & \
             until [ -s on ]; do sleep 0.01; done; kill -TERM $!; wait $!; echo $?; rm on"
        );
        prints(ctx, &script, "15\n");
    }
}

pub(super) fn ends_by_the_signal_of_the_command(ctx: &Ctx) {
    let script =
        "import subprocess,sys; print([subprocess.call(['sh','-c','exec '+line]) for line in sys.argv[1:]])";
    let [unshare, nsenter] = links(ctx);
    let lines = [
        format!("{unshare} -r -f sh -c 'kill -TERM $$'"),
        format!("{unshare} -r -f sh -c 'kill -KILL $$'"),
        format!("{unshare} -r -f sh -c 'exit 137'"),
        format!("{unshare} -r -p -f {nsenter} echo in"),
        // A real-time signal, and one that is ignored here.
        format!("{unshare} -r -f sh -c 'kill -64 $$'"),
        format!("env --ignore-signal=HUP {unshare} -r -f env --default-signal=HUP sh -c 'kill -HUP $$'"),
    ];
    let mut args = vec!["-I", "-S", "-c", script];
    args.extend(lines.iter().map(String::as_str));
    assert_eq!(ctx.cmd(PYTHON, args).ok(), "in\n[-15, -9, 137, 0, -64, -1]\n");
}

/// tests/ts/nsenter/env, for a process whose environment the caller may read.
pub(super) fn environment_of_the_process(ctx: &Ctx) {
    let script = "A=there $U -r -n sleep 100 & is $! sleep; A=here $N -t $! -U -n -e /bin/sh -c 'echo $A'; \
                  A=here $N -t $! -U -n /bin/sh -c 'echo $A'; end $!";
    prints(ctx, script, "there\nhere\n");
}

/// tests/ts/nsenter/enter-via-socket.
pub(super) fn network_of_a_socket(ctx: &Ctx) {
    let script = format!(
        "$U -n {PYTHON} -I -S -c 'import socket,time
s=socket.socket(); print(s.fileno(), flush=True); time.sleep(100)' > fd & until read fd < fd; do sleep 0.01; done; \
         $N -t $! -N $fd readlink /proc/self/ns/net > a; readlink /proc/$!/ns/net | cmp - a; echo $?; end $!"
    );
    prints(ctx, &script, "0\n");
}

/// tests/ts/lsns/ioctl_ns: the owner and the parent of the new namespaces (NS_GET_USERNS, NS_GET_PARENT).
pub(super) fn lsns_shows_owners_and_parents(ctx: &Ctx) {
    ctx.needs("lsns");
    let script = "
$U -r -p -n -u --mount-proc -f sleep 100 & c=$(child $! sleep)
inode() { stat -L -c %i /proc/$1/ns/$2; }
echo $(inode $c user) $(inode self user) $(inode self user) > wanted
echo $(inode $c pid) $(inode self pid) $(inode $c user) >> wanted
for kind in user pid; do echo $(list $kind NS,PNS,ONS $(inode $c $kind)); done | cmp - wanted
echo $?
for kind in net uts mnt; do list $kind TYPE,NPROCS,ONS $(inode $c $kind) | sed s/$(inode $c user)/owner/; done
end $c";
    let done = linked(ctx, script);
    let lines: Vec<&str> = "0\nnet 1 owner\nuts 1 owner\nmnt 1 owner\n".lines().collect();
    let text = done.text();
    assert_eq!(text.lines().collect::<Vec<_>>(), lines, "{}", done.err);
}

/// tests/ts/lsns/nsfs: the file on which a namespace is mounted.
pub(super) fn lsns_shows_the_file_of_a_namespace(ctx: &Ctx) {
    ctx.needs("lsns");
    let script = "touch f; $U --net=f true; $N --net=f sleep 100 & is $! sleep
list net NSFS $(stat -L -c %i f) | grep -c /f$; end $!; umount f";
    prints(ctx, script, "1\n");
}
