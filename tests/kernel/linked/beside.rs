//! Command lines whose output and exit status are those of util-linux.

use nix::sys::prctl::set_child_subreaper;

use super::{links, shell};
use crate::kit::{Ctx, reap_all};

/// Runs each script with util-linux and with the links, and compares.
fn compare(ctx: &Ctx, scripts: &[&str]) {
    ctx.needs("unshare");
    ctx.needs("nsenter");
    let [unshare, nsenter] = links(ctx);
    // The commands of a parent that is killed come to this process.
    set_child_subreaper(true).expect("subreaper");
    let mut failures = String::new();
    for script in scripts {
        let theirs = shell(ctx, ["unshare", "nsenter"], script).done();
        let ours = shell(ctx, [&unshare, &nsenter], script).done();
        if (theirs.status, &theirs.out) != (ours.status, &ours.out) {
            let shown = |done: &crate::kit::Done| format!("{}\n{}{}", done.status, done.text(), done.err);
            failures += &format!("{script}\n  theirs: {}  ours: {}", shown(&theirs), shown(&ours));
        }
    }
    reap_all();
    assert!(failures.is_empty(), "{failures}");
}

pub(super) fn both_unshare(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$U true",
            "before=$(readlink /proc/self/ns/*); test \"$($U readlink /proc/self/ns/*)\" = \"$before\"",
            "$U -U sh -c 'id -u; id -g; cat /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map'",
            "$U -r sh -c 'id; cat /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map'",
            "$U -c sh -c 'id; cat /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map'",
            "$U -U --setgroups deny cat /proc/self/setgroups",
            "$U -r --setgroups allow true",
            "$U --map-user 5 sh -c 'id -u; id -g; cat /proc/self/setgroups'",
            "$U --map-group 5 sh -c 'id -u; id -g; cat /proc/self/setgroups'",
            "$U --map-user 5 --map-group 6 sh -c 'id -u; id -g'",
            "$U -r --map-user 7 sh -c 'id -u; id -g'",
            "$U --map-user 7 -r sh -c 'id -u; id -g'",
            "$U -rc id -u",
            "$U --map-root id -u",
            "$U -r -S 0 id -u",
            "$U -r -S 5 true",
            "$U -U --keep-caps grep Cap /proc/self/status",
            "$U -c --keep-caps grep Cap /proc/self/status",
            "$U -r -n cat /sys/class/net/lo/flags",
            "$U -r -m -w /tmp pwd",
            "$U -r -R / pwd",
            "cd /usr; $U -r pwd",
            "$U -r -R /usr /bin/true",
            "$U -r -T --boottime 100 cat /proc/self/timens_offsets",
            "$U -r --monotonic 5 true",
            "$U -r -m sh -c 'grep -c shared: /proc/self/mountinfo'",
            "$U -r -u sh -c 'hostname here; hostname'",
            "$U -r -p -f --mount-proc sh -c 'echo $$; read stat rest < /proc/self/stat; echo $stat'",
            "$U -r no-such-command",
            "$U -r /etc/passwd",
            // A script without a #! line.
            "echo 'echo $0 $# $2; exit 5' > script; chmod +x script; for fork in '' -f; do $U -r $fork ./script 1 'a b'; echo $?; done; PATH=/nowhere:$PWD:$PATH; $U -r script",
            "$U --no-such-flag true",
            // No flag after --help is read.
            "$U -hx > /dev/null",
            "$U -r --help --no-such-flag > /dev/null",
            "$U -x true",
            "$U -r --propagation no true",
            "$U -r -- sh -c 'echo $0 $*' -n -p",
            "echo 'echo in $0; exit 3' | $U -r",
            "exec 7</etc/passwd; $U -r readlink /proc/self/fd/7",
        ],
    );
}

pub(super) fn both_processes(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$U -r sh -c 'exit 7'",
            "$U -r -f sh -c 'exit 7'",
            "$U -r sh -c 'kill -TERM $$'",
            "$U -r -f sh -c 'kill -TERM $$'",
            "$U -r -f sh -c 'kill -USR1 $$'",
            // Without --fork the started process is the command, also with a pid namespace.
            "$U -r -n sleep 100 & is $! sleep; echo same; end $!",
            "$U -r -p sleep 100 & is $! sleep; echo same; end $!",
            "$U -r -f sleep 100 & c=$(child $! sleep); test $c != $!; echo $?; end $c",
            "$U -r -p sh -c 'sh -c \"echo \\$\\$\"; test $$ != 1'",
            "$U -r -p -f sh -c 'echo $$'",
            "$U -r --kill-child=TERM -p sh -c 'echo $$'",
            "$U -r --kill-child=RTMIN+1 true",
            "$U -r --kill-child=SIGPOLL true",
            "$U -r --kill-child=CLD true",
            "$U -r --kill-child=no-such true",
            "$U -r --kill-child sleep 100 & c=$(child $! sleep); kill -9 $!; until grep -q zombie /proc/$c/status; do sleep 0.01; done; echo gone",
            // The waiting parent ignores both signals.
            "rm -f on go; $U -r -f sh -c 'echo on > on; until [ -e go ]; do sleep 0.01; done; exit 3' & until [ -s on ]; do sleep 0.01; done; kill -TERM $!; kill -INT $!; > go; wait $!",
            "trap '' INT; $U -r -f sh -c 'trap; exit 0'",
            "umask 027; ulimit -n 77; $U -r -f sh -c 'umask; ulimit -n'",
            "$U -r -f sh -c 'read a b c d e f rest < /proc/self/stat; echo $f' > s; read a b c d e f rest < /proc/$$/stat; test $(cat s) = $f",
        ],
    );
}

pub(super) fn both_nsenter(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$N true",
            "echo 'exit 4' | $N",
            "$N -n true",
            "$N -t 99999999 -n true",
            "$N --net=/nonexistent true",
            "$N --no-such-flag",
            "echo 'echo $0 $# $2; exit 5' > script; chmod +x script; $N ./script 1 'a b'",
            "$N -hx > /dev/null",
            "$U -r -n sleep 100 & is $! sleep; $N -t $! -U -n --preserve-credentials id -u; end $!",
            "$U -c -n sleep 100 & is $! sleep; $N -t $! -U -n --preserve-credentials id -u; end $!",
            "$U -r -n sleep 100 & is $! sleep; p=$!; test \"$($N -t $p -U -n --preserve-credentials readlink /proc/self/ns/net)\" = \"$(readlink /proc/$p/ns/net)\"; echo $?; end $p",
            "$U -r -n sleep 100 & p=$!; is $p sleep; $N --user=/proc/$p/ns/user -n/proc/$p/ns/net --preserve-credentials sleep 100 & is $! sleep; echo same; end $! $p",
            "$U -r -m sleep 100 & is $! sleep; cd /usr; $N -t $! -U -m --preserve-credentials pwd; end $!",
        ],
    );
}

pub(super) fn root_unshare(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$U -n cat /sys/class/net/lo/flags",
            "$U -p -f --mount-proc sh -c 'echo $$'",
            "$U -p --mount-proc true",
            "$U -m sh -c 'grep -c shared: /proc/self/mountinfo'",
            "$U -m --propagation slave true",
            "$U -m --propagation unchanged sh -c 'grep -c shared: /proc/self/mountinfo'",
            "$U -S 5 sh -c 'id -u; id -g; id -G'",
            "$U -S 5 -G 6 sh -c 'id -u; id -g; id -G'",
            "$U -G 6 sh -c 'id -u; id -g; id -G'",
            "$U --keep-caps grep Cap /proc/self/status",
            "$U --map-users=0,0,1 sh -c 'cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id'",
            "touch f; $U --uts=f hostname there; echo $?; $N --uts=f hostname; umount f",
            "$U -m -u -i -n -C -T -p -f sh -c 'echo $$'",
        ],
    );
}

pub(super) fn root_nsenter(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$N -t $$ -n true",
            "$N -t $$ -n no-such-command",
            "$N -t $$ -n /etc/passwd",
            "$N -t $$ -n sh -c 'kill -TERM $$'",
            "$N -t $$ -p sh -c 'kill -TERM $$'",
            "$N -t $$ -p sh -c 'exit 9'",
            "cd /usr; $N -t $$ -m pwd; $N -t $$ -a pwd; $N -t $$ -n pwd; $N -t $$ -n -w pwd",
            "$N -t $$ -r/tmp -w/ pwd",
            "exec 7</etc/passwd; $N -t $$ -n readlink /proc/self/fd/7",
            "$N -t $$ -S 5 -n sh -c 'id -u; id -g; id -G'",
            "$N -t $$ -S 5 -G 6 -n sh -c 'id -u; id -g; id -G'",
            "$U -n sleep 100 & is $! sleep; $N -t $! --net -F cat /sys/class/net/lo/flags; end $!",
            "$U -r sleep 100 & is $! sleep; p=$!; $N -t $p -U id; $N -t $p -U -S 0 id; $N -t $p -a id; end $p",
            "$U -m -p -f sleep 100 & c=$(child $! sleep); $N -t $c -a sh -c 'test $$ -lt 50'; echo $?; $N -t $c -p -F sh -c 'test $$ -gt 50; echo $?; sh -c \"test \\$\\$ -lt 50; echo \\$?\"'; end $c",
            "$U -n sleep 100 & is $! sleep; p=$!; $N -t $p -n sleep 100 & is $! sleep; echo same; end $! $p",
        ],
    );
}

pub(super) fn user_unshare(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$U -n true",
            "$U -m true",
            "$U -p -f true",
            "$U --map-auto sh -c 'cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id'",
            "$U --map-users=auto sh -c 'cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id'",
            "$U --map-groups=auto sh -c 'cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id'",
            "$U --map-auto -r sh -c 'cat /proc/self/setgroups; id'",
            "$U --map-auto -c sh -c 'cat /proc/self/setgroups; id'",
            "$U --map-auto -S 0 -G 0 id",
            "$U -r --map-users=1,5000,1 true",
            "$U -S 5 true",
        ],
    );
}

pub(super) fn user_nsenter(ctx: &Ctx) {
    compare(
        ctx,
        &[
            "$N -t 1 -n true",
            "$U -r -n sleep 100 & is $! sleep; $N -t $! -n true; echo $?; end $!",
            "$U --map-auto -r sleep 100 & is $! sleep; $N -t $! -U -S 5 -G 6 --preserve-credentials true; end $!",
        ],
    );
}
