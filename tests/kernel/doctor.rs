//! `nsexec doctor`, and the cause in the error line of `run`, on machines that each have one thing wrong.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::Value;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::kit::Ctx;

pub(crate) const TESTS: &[Test] = &[
    test!(doctor_reports_every_question, BOTH),
    test!(doctor_tries_the_launch_of_the_flags, BOTH),
    test!(limit_of_zero_has_evidence_and_remedy, BOTH),
    test!(filter_of_mounts_is_the_cause_of_a_refused_proc, BOTH),
    test!(filter_of_clone_is_the_cause, BOTH),
    test!(filter_that_kills_for_clone3_kills_nothing, BOTH),
    test!(read_only_proc_is_the_cause, BOTH),
    test!(doctor_without_proc_tells_what_it_cannot_see, BOTH),
    test!(chroot_is_the_cause, ROOT),
    test!(other_group_than_that_of_the_account, ROOT),
    test!(powerless_mapping_tools, ROOT),
    test!(free_range_is_proposed, ROOT),
    test!(too_many_ranges_are_no_wrong_usage, ROOT),
    test!(namespace_of_another_user, USER),
    test!(reached_limit_of_an_outer_namespace, BOTH),
    test!(root_without_setfcap_maps_other_ids, ROOT),
    test!(root_without_capabilities, ROOT),
    test!(namespace_without_maps, USER),
    test!(chroot_without_proc, ROOT),
];

fn doctor_reports_every_question(ctx: &Ctx) {
    let done = ctx.nsexec(["doctor"]).done();
    let text = done.text();
    let (first, rest) = (text.lines().next().unwrap_or_default(), text.contains("\ncreate user    yes"));
    assert!(first.starts_with("user ") && first.contains("Linux ") && rest, "{text}{}", done.err);
    let works = !text.contains(" no: ") && !text.contains("cannot tell");
    done.exits(i32::from(!works));
    assert_eq!(text.contains("Everything works."), works);
    for (at, _) in text.match_indices(" no: ") {
        let after = &text[at..];
        assert!(
            after.contains("evidence: ") && after.contains("to do: ") || after.contains("no: the same"),
            "{text}"
        );
    }
    let json = ctx.nsexec(["doctor", "--json"]).done();
    let report: Value = serde_json::from_str(&json.text()).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["vantage"]["uid"], u32::from(nix::unistd::geteuid()));
    let answers = report["answers"].as_array().unwrap();
    let user = answers.iter().find(|answer| answer["question"] == "create user").unwrap();
    assert_eq!(user["verdict"]["is"], "yes");
}

fn doctor_tries_the_launch_of_the_flags(ctx: &Ctx) {
    assert!(ctx.nsexec(["doctor", "-r", "-n"]).ok().contains("This launch works here"));
    assert!(ctx.nsexec(["doctor", "--", "sh"]).ok().contains("This launch works here"));
    let done = ctx.nsexec(["doctor", "-r", "--", "no-such-command"]).done();
    done.exits(1);
    assert!(done.text().contains("cause:    no such command in PATH"), "{}", done.text());
    assert!(ctx.nsexec(["doctor", "-U"]).ok().contains("This launch works here"));
    ctx.nsexec(["doctor", "--bogus"]).misused(&["--bogus"]);
    if !ctx.root() {
        let done = ctx.nsexec(["doctor", "-n", "--json"]).done();
        done.exits(1);
        let tried: Value = serde_json::from_str(&done.text()).unwrap();
        assert_eq!(tried["schema"], 1);
        assert_eq!(tried["launch"]["works"], false);
        assert_eq!(tried["launch"]["cause"]["cause"], "privilege");
        assert!(tried["launch"]["cause"]["remedy"].as_str().unwrap().starts_with("add -r"));
    }
}

/// Runs a script as root of new user and mount namespaces. `$N` is the program.
fn inside<'a>(ctx: &'a Ctx, script: &str) -> crate::kit::Cmd<'a> {
    ctx.nsexec(["run", "-r", "-m", "--", "sh", "-c", script]).env("N", &ctx.bin)
}

/// Runs a script as root in a new mount namespace, with an account of the user 4200 and these subordinate
/// ids. `$AS` runs a program as that user.
fn machine<'a>(ctx: &'a Ctx, ranges: &str, script: &str) -> crate::kit::Cmd<'a> {
    ctx.needs("setpriv");
    let file = |name: &str, text: &str| std::fs::write(ctx.file(name), text).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    file("passwd", &format!("{passwd}u4200:x:4200:4200::/tmp:/bin/sh\n"));
    file("subuid", ranges);
    file("subgid", ranges);
    let script = format!(
        "for f in passwd subuid subgid; do [ -e /etc/$f ] || : >/etc/$f; mount --bind $W/$f /etc/$f; done; cd /; \
         mount -t tmpfs -o mode=755 none /mnt; cp $N /mnt/nsexec; chmod 755 /mnt/nsexec; N=/mnt/nsexec; \
         AS='setpriv --reuid 4200 --regid 4200 --clear-groups'; {script}"
    );
    ctx.nsexec(["run", "-m", "--", "sh", "-c", &script]).env("N", &ctx.bin).env("W", &ctx.dir)
}

const RANGE: &str = "u4200:300000:65536\n";

fn needs_tools(ctx: &Ctx) {
    ctx.needs("newuidmap");
    ctx.needs("newgidmap");
}

/// Runs the program under a seccomp filter that refuses these calls with this errno.
fn filtered<'a>(ctx: &'a Ctx, calls: &[libc::c_long], errno: i32, args: &[&str]) -> crate::kit::Cmd<'a> {
    under_filter(ctx, calls, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), args)
}

/// Runs the program under a seccomp filter with this action for these calls.
fn under_filter<'a>(ctx: &'a Ctx, calls: &[libc::c_long], action: u32, args: &[&str]) -> crate::kit::Cmd<'a> {
    let script = format!(
        "import ctypes, os, struct, sys\n\
         op = lambda code, jt, jf, k: struct.pack('HBBI', code, jt, jf, k)\n\
         calls = {calls:?}\n\
         code = op(0x20, 0, 0, 0) + b''.join(op(0x15, 0, 1, c) + op(6, 0, 0, {action}) for c in calls)\n\
         code += op(6, 0, 0, 0x7fff0000)\n\
         buffer = ctypes.create_string_buffer(code, len(code))\n\
         class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]\n\
         program = Program(len(code) // 8, ctypes.addressof(buffer))\n\
         prctl = ctypes.CDLL(None).prctl\n\
         assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, ctypes.byref(program)) == 0\n\
         os.execv({:?}, ['nsexec'] + {args:?})",
        ctx.bin.display().to_string()
    );
    ctx.python(&script)
}

fn limit_of_zero_has_evidence_and_remedy(ctx: &Ctx) {
    let done = inside(ctx, "echo 0 >/proc/sys/user/max_net_namespaces; exec $N doctor --all").done();
    done.exits(1);
    let text = done.text();
    for line in [
        "This process is inside a container or a namespace",
        "  cause:    user.max_net_namespaces is 0\n",
        "  evidence: /proc/sys/user/max_net_namespaces = 0\n",
        "  to do:    as root: sysctl user.max_net_namespaces=16384\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

fn filter_of_mounts_is_the_cause_of_a_refused_proc(ctx: &Ctx) {
    let calls = [libc::SYS_mount, libc::SYS_fsopen];
    for errno in [libc::EPERM, libc::ENOSYS] {
        let args = ["run", "-r", "-m", "-p", "--mount-proc", "--", "echo", "it ran"];
        let said = filtered(ctx, &calls, errno, &args).refused(1, &["seccomp filter"]);
        assert!(!said.contains("add -r") && !said.contains("masked"), "{said}");
    }
}

fn filter_of_clone_is_the_cause(ctx: &Ctx) {
    let calls = [libc::SYS_clone, libc::SYS_clone3];
    for errno in [libc::EPERM, libc::ENOSYS] {
        let said = filtered(ctx, &calls, errno, &["run", "-r", "--", "echo", "it ran"]);
        said.refused(1, &["seccomp filter is in force"]);
    }
    let done = filtered(ctx, &[libc::SYS_unshare, libc::SYS_clone3], libc::EPERM, &["doctor"]).done();
    done.exits(1);
    assert!(
        done.text().contains("unshare(2) also fails for flags that create no namespace"),
        "{}",
        done.text()
    );
}

/// Some filters kill the process for clone3(2); others return ENOSYS, and the libc then uses clone(2).
/// glibc's posix_spawn and pthread_create call clone3; `doctor` without flags needs pthread_create.
fn filter_that_kills_for_clone3_kills_nothing(ctx: &Ctx) {
    for args in [
        &["run", "-r", "--", "true"][..],
        &["run", "--map-users", "auto", "--", "true"],
        &["run", "-r", "-f", "--kill-child", "--", "true"],
        &["plan", "-r", "--", "true"],
        &["trace", "-r", "--", "true"],
        &["doctor", "-r"],
    ] {
        let done = under_filter(ctx, &[libc::SYS_clone3], libc::SECCOMP_RET_KILL_PROCESS, args).done();
        assert_eq!(done.status.signal(), None, "{args:?}: {}", done.err);
    }
}

fn read_only_proc_is_the_cause(ctx: &Ctx) {
    let read_only = "mount -o remount,bind,ro /proc;";
    inside(ctx, &format!("{read_only} exec $N run -r -- echo it ran"))
        .refused(1, &["/proc is mounted read-only"]);
    let done = inside(ctx, &format!("{read_only} exec $N doctor -r")).done();
    done.exits(1);
    assert!(done.text().contains("evidence: statvfs(3) of /proc: ST_RDONLY"), "{}{}", done.text(), done.err);
}

fn doctor_without_proc_tells_what_it_cannot_see(ctx: &Ctx) {
    let done = inside(ctx, "mount -t tmpfs none /proc; exec $N doctor").done();
    done.exits(1);
    let text = done.text();
    assert!(text.contains("This process cannot see whether it is in a user namespace"), "{text}");
    assert!(
        text.contains("create user    cannot tell: the launcher cannot try it: /proc is missing"),
        "{text}"
    );
    assert!(text.contains("/proc/PID/uid_map") && text.contains("mount -t proc proc /proc"), "{text}");
}

fn chroot_is_the_cause(ctx: &Ctx) {
    let root = "mkdir /mnt/r; for d in dev proc tmp usr lib lib64 bin; do [ -d /$d ] || continue; mkdir /mnt/r/$d; \
                mount --rbind /$d /mnt/r/$d; done; cp $N /mnt/r/nsexec;";
    let run = |args: &str| machine(ctx, RANGE, &format!("{root} exec chroot /mnt/r /nsexec {args}"));
    run("run -r -- true").refused(1, &["this process is in a chroot", "pivot_root(2)"]);
    let done = run("doctor -r").done();
    done.exits(1);
    assert!(done.text().contains("  cause:    this process is in a chroot"), "{}", done.text());
}

fn other_group_than_that_of_the_account(ctx: &Ctx) {
    needs_tools(ctx);
    let script = "setpriv --reuid 4200 --regid 4201 --clear-groups $N run --map-users auto -- true";
    let done = machine(ctx, RANGE, script).done();
    done.exits(1);
    let expected = "the current group 4201 is not that of u4200 in passwd(5), 4200";
    assert!(done.err.contains(expected) && done.err.contains("newgrp"), "{}", done.err);
}

fn powerless_mapping_tools(ctx: &Ctx) {
    needs_tools(ctx);
    let doctor = |make: &str, prefix: &str| {
        let script = format!(
            "T=$(command -v newuidmap); {make} exec $AS {prefix} $N doctor --map-users auto --map-groups auto"
        );
        let done = machine(ctx, RANGE, &script).done();
        (done.status.code(), done.text())
    };
    let (status, text) = doctor("", "");
    assert_eq!(status, Some(0), "{text}");
    let cases = [
        ("", "env -- setpriv --no-new-privs", "no_new_privs is set"),
        ("mount --bind $T $T; mount -o remount,bind,nosuid $T;", "", "newuidmap is on a nosuid mount"),
        (
            "cp $T /mnt/t; chmod 755 /mnt/t; mount --bind /mnt/t $T;",
            "",
            "neither the set-user-id bit of root nor",
        ),
        ("", "env PATH=/mnt", "newuidmap is not in PATH"),
    ];
    for (make, prefix, cause) in cases {
        let (status, text) = doctor(make, prefix);
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains(cause), "{cause}: {text}");
    }
    let (_, report) = doctor("mount --bind $T $T; mount -o remount,bind,nosuid $T;", "");
    assert!(report.contains("evidence: statvfs(3) of ") && report.contains("without nosuid"), "{report}");
}

fn free_range_is_proposed(ctx: &Ctx) {
    needs_tools(ctx);
    let others = "other:100000:65536\nmore:200000:100000\n";
    let run = |args: &str| machine(ctx, others, &format!("exec $AS $N {args}"));
    let said = run("run --map-users auto -- true").refused(1, &["/etc/subuid has no range for u4200"]);
    assert!(said.ends_with("as root: usermod --add-subuids 300000-365535 u4200"), "{said}");
    let done = run("doctor").done();
    done.exits(1);
    let remedy = "to do: as root: usermod --add-subgids 300000-365535 u4200\n";
    assert!(done.text().contains(remedy), "{}", done.text());
}

fn too_many_ranges_are_no_wrong_usage(ctx: &Ctx) {
    needs_tools(ctx);
    let ranges: String = (0..341).map(|number| format!("u4200:{}:1\n", 300_000 + 2 * number)).collect();
    let script = "exec $AS $N run --map-users auto -- true";
    machine(ctx, &ranges, script).refused(1, &["342 lines", "at most 340", "--map-users I:O:N"]);
}

fn namespace_of_another_user(ctx: &Ctx) {
    let words = ["another user's process", "permission to trace", "be root"];
    ctx.nsexec(["run", "-r", "--join", "net=/proc/1/ns/net", "--", "true"]).refused(1, &words);
    ctx.nsexec(["enter", "-t", "1", "-n", "--", "true"]).refused(1, &words);
}

fn reached_limit_of_an_outer_namespace(ctx: &Ctx) {
    let script = "echo 0 >/proc/sys/user/max_net_namespaces; exec $N run -r -m -- $N run -n -- true";
    let said =
        inside(ctx, script).refused(1, &["user.max_net_namespaces is reached in an outer user namespace"]);
    assert!(!said.contains("=16384"), "{said}");
}

fn root_without_setfcap_maps_other_ids(ctx: &Ctx) {
    ctx.needs("setpriv");
    let script = "exec setpriv --bounding-set -setfcap --inh-caps -all $N doctor";
    let done = machine(ctx, RANGE, script).done();
    let text = done.text();
    for line in ["create user    yes\n", "map user ids   yes\n", "map group ids  yes\n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("map one id     no: this root lacks CAP_SETFCAP"), "{text}");
    assert!(text.contains("to do: map other user ids than 0"), "{text}");
}

fn root_without_capabilities(ctx: &Ctx) {
    ctx.needs("setpriv");
    let bare = |args: &str| {
        let script =
            format!("exec setpriv --bounding-set -all --inh-caps -all --ambient-caps -all $N {args}");
        machine(ctx, RANGE, &script)
    };
    let said = bare("run -u -- true").refused(1, &["lacks CAP_SYS_ADMIN, and it lacks CAP_SETFCAP"]);
    assert!(!said.contains("add -r"), "{said}");
    let done = bare("doctor").done();
    done.exits(1);
    assert_eq!(done.err, "", "{}", done.text());
}

fn namespace_without_maps(ctx: &Ctx) {
    ctx.needs("unshare");
    let done = ctx.cmd("unshare", ["-U", &ctx.bin.display().to_string(), "doctor"]).done();
    let text = done.text();
    assert!(!text.contains("besides the caller's own"), "{text}");
    assert!(text.contains("is not mapped in its user namespace"), "{text}");
}

fn chroot_without_proc(ctx: &Ctx) {
    let root = "mkdir /mnt/r; for d in dev tmp usr lib lib64 bin; do [ -d /$d ] || continue; mkdir /mnt/r/$d; \
                mount --rbind /$d /mnt/r/$d; done; cp $N /mnt/r/nsexec; exec chroot /mnt/r /nsexec doctor";
    let text = machine(ctx, RANGE, root).done().text();
    assert!(text.contains("join cgroup    cannot tell: /proc is missing, or shows another pid"), "{text}");
}
