//! The probe: its answers agree with real launches, and on odd machines it names the cause.
//!
//! An odd machine is made by a script, in a mount or user namespace of its own. The script runs this program
//! again, for one test that prints the answers.

use std::process::Output;

use nsexec::launch::probe::{Question, Report, Verdict};
use nsexec::launch::{Command, LaunchError, probe};
use nsexec::namespace::NsKind;
use nsexec::sys::types::BpfInstruction;

use crate::kit::is_root;

/// Returns whether a launch with these settings starts its command.
fn runs(change: impl FnOnce(&mut Command) -> &mut Command) -> bool {
    let mut command = Command::new("true");
    change(&mut command);
    match command.status() {
        Ok(status) => status.success(),
        Err(LaunchError::Setting(_) | LaunchError::Bootstrap(_) | LaunchError::Start { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Compares a report with real launches. Returns the differences.
fn differences(report: &Report) -> Vec<String> {
    use NsKind::{Mnt, Pid, User};
    let mut wrong = Vec::new();
    let mut compare = |question, real| {
        let answer = report.verdict(question).unwrap();
        let says = matches!(answer, Verdict::Yes { .. });
        if says != real {
            wrong.push(format!("{question}: {answer:?}, and the launch: {real}"));
        }
    };
    for kind in NsKind::ALL {
        let alone = kind != User && runs(|command| command.unshare([kind]));
        compare(Question::Create(kind), alone || runs(|command| command.unshare([User, kind])));
        // The report also states correctly whether a user namespace is needed.
        if let Some(Verdict::Yes { needs_user_namespace }) = report.verdict(Question::Create(kind)) {
            assert_eq!(*needs_user_namespace, kind != User && !alone, "{kind}");
        }
    }
    compare(Question::MapOneId, runs(|command| command.unshare([User]).map_current_user()));
    // Root needs no subordinate ids: the answer is not about `map_auto` then.
    if !is_root() {
        let auto = runs(|command| command.unshare([User]).map_auto());
        compare(Question::MapUserIds, auto);
        compare(Question::MapGroupIds, auto);
    }
    let user = |wanted: bool| [User].into_iter().filter(move |_| wanted);
    let mounts = |kinds: &[NsKind], with_user: bool, point: &str| {
        runs(|command| {
            command.unshare(kinds.iter().copied()).unshare(user(with_user));
            if point == "/proc" { command.proc(point) } else { command.tmpfs(point) }
        })
    };
    compare(Question::Mount, mounts(&[Mnt], false, "/tmp") || mounts(&[Mnt], true, "/tmp"));
    let proc = mounts(&[Mnt, Pid], false, "/proc") || mounts(&[Mnt, Pid], true, "/proc");
    compare(Question::MountProc, proc);
    wrong
}

fn mounts_and_children() -> (String, String) {
    let task = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    (read("/proc/self/mounts"), read(&task))
}

#[test]
fn answers_agree_with_real_launches_and_leave_nothing() {
    let before = mounts_and_children();
    let report = probe();
    assert_eq!(mounts_and_children(), before);
    assert_eq!(report.answers.len(), Question::all().len());
    assert!(report.answers.iter().all(|answer| !answer.evidence.is_empty()), "{report:#?}");
    assert_eq!(differences(&report), Vec::<String>::new(), "{report}");
    for kind in NsKind::ALL {
        // A namespace that can be created can be joined.
        assert!(!report.is_yes(Question::Create(kind)) || report.is_yes(Question::Join(kind)), "{report}");
    }
    assert_eq!(report.vantage.uid, nix::unistd::geteuid().as_raw());
}

/// Also as root of a user namespace, with one id.
#[test]
fn answers_agree_with_real_launches_in_a_user_namespace() {
    let output = std::process::Command::new("unshare")
        .arg("-Ur")
        .arg(this_program())
        .args(["--exact", "probe::answers_agree_with_real_launches_and_leave_nothing"])
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// Run by the other tests, on their machines.
#[test]
fn print_the_answers() {
    if std::env::var_os("NSEXEC_TEST_PROBE").is_none() {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
    let before = descriptors();
    let report = probe();
    assert_eq!(descriptors(), before, "open descriptors");
    println!("{report}");
    println!("vantage: {:?}", report.vantage);
    for answer in &report.answers {
        println!("answer {}: {:?} {:?}", answer.question, answer.verdict, answer.evidence);
    }
}

fn this_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().into()
}

const PRINT: [&str; 3] = ["--exact", "probe::print_the_answers", "--nocapture"];

fn text_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let whole = output.status.success() && text.contains("answer mount proc: ");
    assert!(whole, "{:?}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a script as root of a new user and mount namespace (`user`), or as root with a new mount namespace.
/// `"$@"` in it prints the answers. `/mnt/test` is a copy of this program that every user can execute.
fn on(user: bool, script: &str) -> String {
    let script =
        format!("set -e; mount -t tmpfs none /mnt; cp \"$1\" /mnt/test; chmod 755 /mnt; shift; {script}");
    let mut unshare = std::process::Command::new("unshare");
    if user {
        unshare.arg("-Ur");
    }
    unshare.args(["-m", "sh", "-c", &script, "sh"]).arg(this_program()).arg("/mnt/test").args(PRINT);
    text_of(&unshare.env("NSEXEC_TEST_PROBE", "1").current_dir("/").output().unwrap())
}

/// Checks the cause of a "no".
fn assert_cause(text: &str, question: &str, cause: &str) {
    let start = format!("answer {question}: ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    assert!(line.starts_with(&format!("No {{ cause: {cause},")), "{question}: {line}\n{text}");
}

fn assert_yes(text: &str, question: &str) {
    assert!(text.contains(&format!("answer {question}: Yes")), "{question}: {text}");
}

#[test]
fn limits_of_zero_are_the_cause() {
    let text = on(true, "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"");
    assert_cause(&text, "create user", "Limit");
    assert_cause(&text, "map one id", "Limit");
    assert!(text.contains("/proc/sys/user/max_user_namespaces = 0"), "{text}");
    assert_yes(&text, "create net");
    let text = on(true, "echo 0 >/proc/sys/user/max_net_namespaces; exec \"$@\"");
    assert_cause(&text, "create net", "Limit");
    assert_yes(&text, "create user");
    assert!(text.contains("the answers hold for this place only, not for its host"), "{text}");
}

#[test]
fn nested_user_namespaces_are_the_cause() {
    let nest = "cat >/mnt/nest <<'END'\n\
                unshare -Ur true 2>/dev/null || exec \"$@\"\nexec unshare -Ur sh /mnt/nest \"$@\"\nEND\n\
                exec sh /mnt/nest \"$@\"";
    let text = on(true, nest);
    assert_cause(&text, "create user", "Nesting");
}

#[test]
fn masked_and_read_only_proc_are_the_cause() {
    // A mount that the own user namespace has made covers nothing: it can be removed.
    let own = on(true, "mount --bind /dev/null /proc/cmdline; exec \"$@\"");
    assert_yes(&own, "mount proc");
    let text = on(true, "mount --bind /dev/null /proc/cmdline; exec unshare -Urm \"$@\"");
    assert_cause(&text, "mount proc", "MaskedProc");
    assert_yes(&text, "mount");
    let text = on(true, "mount -o remount,bind,ro /proc; exec unshare -Um \"$@\"");
    assert_cause(&text, "create user", "UnmappedCaller");
    let text = on(true, "mount -o remount,bind,ro /proc; exec \"$@\"");
    assert_cause(&text, "map one id", "ReadOnlyProc");
    let text = on(true, "mount -t tmpfs none /proc; exec \"$@\"");
    assert_cause(&text, "map one id", "NoProc");
    if is_root() {
        let text = on(false, &format!("mount -o remount,bind,ro /proc; {NOBODY} \"$@\""));
        assert_cause(&text, "mount proc", "ReadOnlyProc");
        assert_cause(&text, "map one id", "ReadOnlyProc");
        let text = on(false, &format!("mount --bind /dev/null /proc/cmdline; {NOBODY} \"$@\""));
        assert_cause(&text, "mount proc", "MaskedProc");
        assert_yes(&text, "map one id");
    }
}

/// Begins a line that runs a program as an ordinary user.
const NOBODY: &str = "exec setpriv --reuid nobody --regid 65534 --clear-groups";

const CHROOT: &str = "mkdir /mnt/r; for d in dev proc tmp usr lib lib64 etc; do [ -d /$d ] || continue; \
                      mkdir /mnt/r/$d; mount --rbind /$d /mnt/r/$d; done; cp /mnt/test /mnt/r/test; shift; ";

#[test]
fn chroot_is_the_cause() {
    if !is_root() {
        return;
    }
    let text = on(false, &format!("{CHROOT} exec chroot /mnt/r /test \"$@\""));
    assert_cause(&text, "create user", "Chroot");
    assert_yes(&text, "create net");
    assert!(text.contains("chroot: Some(true)"), "{text}");
    // A root directory that is a mount point.
    let text = on(false, &format!("{CHROOT} mount --rbind /mnt/r /mnt/r; exec chroot /mnt/r /test \"$@\""));
    assert_cause(&text, "create user", "Chroot");
}

/// The test runs as the user `nobody`, which gets subordinate ids. Its mount namespace has mapping tools
/// without privileges.
#[test]
fn powerless_mapping_tool_is_the_cause() {
    let tools = ["/usr/bin/newuidmap", "/usr/bin/newgidmap", "/etc/subuid", "/etc/subgid"];
    if !is_root() || !tools.iter().all(|path| std::path::Path::new(path).exists()) {
        return;
    }
    let ids = "echo nobody:300000:50 >/mnt/ids; mount --bind /mnt/ids /etc/subuid; \
               mount --bind /mnt/ids /etc/subgid;";
    let user = NOBODY;
    let text = on(false, &format!("{ids} {user} \"$@\""));
    for question in ["map user ids", "map group ids"] {
        assert_yes(&text, question);
    }
    let text = on(false, &format!("{ids} {user} --no-new-privs \"$@\""));
    assert_cause(&text, "map user ids", "NoNewPrivs");
    assert_cause(&text, "map group ids", "NoNewPrivs");
    assert_yes(&text, "map one id");
    let without = "cp /usr/bin/newuidmap /mnt/tool; chmod 755 /mnt/tool; \
                   mount --bind /mnt/tool /usr/bin/newuidmap;";
    let text = on(false, &format!("{ids} {without} {user} \"$@\""));
    assert_cause(&text, "map user ids", "PowerlessTool");
    assert_yes(&text, "map group ids");
    let nosuid = "mount --bind /usr/bin/newgidmap /usr/bin/newgidmap; \
                  mount -o remount,bind,nosuid /usr/bin/newgidmap;";
    let text = on(false, &format!("{ids} {nosuid} {user} \"$@\""));
    assert_cause(&text, "map group ids", "NosuidMount");
    assert_yes(&text, "map user ids");
    let text =
        on(false, &format!("{ids} PATH=/mnt {} \"$@\"", user.replace("setpriv", "$(command -v setpriv)")));
    assert_cause(&text, "map user ids", "NoTool");
    // Without a line, the report proposes a range above all others.
    let other = "echo ann:300000:65536 >/mnt/ids; mount --bind /mnt/ids /etc/subuid;";
    let text = on(false, &format!("{other} {user} \"$@\""));
    assert_cause(&text, "map user ids", "NoSubordinateIds");
    assert!(text.contains("usermod --add-subuids 365536-431071 nobody"), "{text}");
}

/// Returns a filter under which the call with this number fails, or kills the process.
fn refusing(number: libc::c_long, action: u32) -> Vec<BpfInstruction> {
    let step = |code, jt, jf, k| BpfInstruction { code, jt, jf, k };
    vec![
        // Load the number, compare it, return.
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, u32::try_from(number).unwrap()),
        step(0x06, 0, 0, action),
        step(0x06, 0, 0, 0x7FFF_0000),
    ]
}

#[test]
fn seccomp_filter_is_the_cause() {
    const ERRNO: u32 = 0x0005_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    for action in [ERRNO | 1, ERRNO | 38, KILL_PROCESS] {
        let mut command = Command::new(this_program());
        command.args(PRINT).env("NSEXEC_TEST_PROBE", "1").current_dir("/");
        command.seccomp_filter(refusing(libc::SYS_unshare, action));
        let text = text_of(&command.output().unwrap());
        assert_cause(&text, "create user", "Seccomp");
        assert_cause(&text, "create net", "Seccomp");
        assert!(text.contains("under a seccomp filter"), "{text}");
    }
}
