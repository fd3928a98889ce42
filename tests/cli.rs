//! Tests of the program's interface: exit statuses, error lines, and `encode` followed by `decode`.
//!
//! Each test runs as the user that runs the tests; as root, also as an ordinary user.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Returns a command with the signal dispositions of an interactive shell, whatever the test runner has.
fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    support::fresh(&mut command);
    command
}

/// The id of an ordinary user without a name, without other groups and without subordinate ids.
const ORDINARY_UID: u32 = 54_321;

/// A copy of the program that every user may execute, and the user that executes it.
struct Caller {
    folder: PathBuf,
    uid: u32,
}

impl Caller {
    /// Returns all possible callers: our own user, and an ordinary user if that is root.
    fn all() -> Vec<Self> {
        let ours = fs::metadata("/proc/self").unwrap().uid();
        let uids = if ours == 0 { vec![0, ORDINARY_UID] } else { vec![ours] };
        uids.into_iter().map(Self::new).collect()
    }

    fn new(uid: u32) -> Self {
        support::begin();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nsexec-cli-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        // Not fs::copy: a program that another thread starts meanwhile would inherit the descriptor open for
        // writing. The copy could not be executed until that program closes it (ETXTBSY).
        let copied = program("cp").arg(env!("CARGO_BIN_EXE_nsexec")).arg(&folder).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(folder.join("nsexec"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, uid }
    }

    /// Returns a command for the program with these arguments. It runs under timeout(1), so a test cannot
    /// hang.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = program("timeout");
        command
            .args(["--foreground", "--kill-after=1", &support::LIMIT.as_secs().to_string()])
            .arg(self.folder.join("nsexec"))
            .args(args);
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/").stdin(Stdio::null());
        if self.uid == ORDINARY_UID {
            command.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Returns the exit status, standard output and standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.output(args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        // As a shell reports it: run may become the command, which a signal may end.
        (nsexec::launch::exit_code(output.status), text(output.stdout), text(output.stderr))
    }

    /// Returns the JSON of `encode FLAGS | decode --json`.
    fn circle(&self, flags: &str) -> Value {
        let args: Vec<_> = ["encode"].into_iter().chain(flags.split_whitespace()).collect();
        let encoded = self.output(&args);
        assert!(encoded.status.success(), "{flags}: {}", String::from_utf8_lossy(&encoded.stderr));
        let mut decoder = self.command(&["decode", "--json"]);
        let mut decoder = decoder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        decoder.stdin.take().unwrap().write_all(&encoded.stdout).unwrap();
        let decoded = decoder.wait_with_output().unwrap();
        assert!(decoded.status.success(), "{flags}");
        let json: Value = serde_json::from_slice(&decoded.stdout).unwrap();
        assert_eq!(json["bytes"], encoded.stdout.len(), "{flags}");
        json["ok"].clone()
    }

    /// Returns whether this user may create namespaces here; some containers and kernels forbid it. If not,
    /// prints that `test` is skipped.
    fn may_unshare(&self, test: &str) -> bool {
        let mut probe = program("unshare");
        probe.args([
            "--user",
            "--map-root-user",
            "--mount",
            "--pid",
            "--net",
            "--fork",
            "--mount-proc",
            "true",
        ]);
        if self.uid == ORDINARY_UID {
            probe.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        let may = probe.current_dir("/").output().is_ok_and(|output| output.status.success());
        if !may {
            // One write with a newline first: the test harness may have written a partial line.
            let line = format!("\nskipped: cli::{test}@{}: it may not make namespaces here\n", self.uid);
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        may
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn encoded_messages_are_decoded_to_the_same_values() {
    for caller in Caller::all() {
        let uid = caller.uid;
        let own = format!("0 {uid} 1\n");
        for (flags, clone_flags, with_map) in [
            ("", 0x7e02_0080_u32, true),
            ("--all", 0x7e02_0080, true),
            ("-r", 0x1000_0000, true),
            ("-n", 0x4000_0000, false),
            ("-mpf", 0x2002_0000, false),
            ("-iuCT", 0x0e00_0080, false),
            ("-U --map-groups 0:0:1 -r", 0x1000_0000, false),
        ] {
            if flags.contains("0:0:1") && uid != 0 {
                continue;
            }
            let ok = caller.circle(flags);
            assert_eq!(ok["clone_flags"], clone_flags, "{flags}");
            assert_eq!(ok["rootless_euid"], uid != 0, "{flags}");
            if with_map {
                assert_eq!(ok["uid_map"]["text"], own, "{flags}");
            }
        }
        let ok = caller
            .circle("--join net=/a:b --join mount=/m -r --monotonic -7 --boottime 8 --oom-score-adj -9");
        assert_eq!(ok["namespaces"][0]["type"], "net");
        assert_eq!(ok["namespaces"][0]["path"]["text"], "/a:b");
        assert_eq!(ok["namespaces"][1]["type"], "mnt");
        assert_eq!(ok["timens_offsets"]["text"], "monotonic -7 0\nboottime 8 0\n");
        assert_eq!(ok["oom_score_adj"]["text"], "-9");
        assert_eq!(ok["clone_flags"], 0x1000_0080);
    }
}

#[test]
fn a_map_of_340_lines_is_encoded_and_decoded() {
    let caller = Caller::all().remove(0);
    if caller.uid == 0 {
        let lines: Vec<String> = (0..340).map(|i| format!("--map-users {}:{}:1", i * 2, i * 2)).collect();
        let ok = caller.circle(&lines.join(" "));
        assert_eq!(ok["uid_map"]["text"].as_str().unwrap().lines().count(), 340);
    }
}

#[test]
fn wrong_usage_exits_2_and_prints_the_usage() {
    for caller in Caller::all() {
        for args in [
            &["run", "--no-such-flag", "--", "true"][..],
            &["run", "-c", "-S", "9", "--", "true"],
            &["run", "-S", "", "--", "true"],
            &["run", "--kill-child=NO", "--", "true"],
            &["run", "--propagation", "no", "--", "true"],
            &["run", "-R", "/", "-w", "x", "--", "true"],
            &["run", "--init", "--join", "pid=/x", "--", "true"],
            &["run", "-n", "--setgroups", "deny", "--", "true"],
            &["run", "--map-users", "0:0", "--", "true"],
            &["run", "--map-users", "0:0:0", "--", "true"],
            &["run", "--map-users", "5:5:5", "--", "true"],
            &["run", "--oom-score-adj", "1001", "--", "true"],
            &["run", "--monotonic", "soon", "--", "true"],
            &["run", "--join", "net", "--", "true"],
            &["run", "--join", "nets=/x", "--", "true"],
            &["run", "-n", "--join", "net=/x", "--", "true"],
            &["enter", "-a", "--", "true"],
            &["enter", "-t", "1", "--", "true"],
            &["enter", "-t", "0", "-a", "--", "true"],
            &["enter", "-t", "1:x", "-a", "--", "true"],
            &["enter", "-n", "--", "true"],
            &["enter", "-t", "1", "--net=", "--", "true"],
            &["enter", "--net=/x", "-r", "--", "true"],
            &["enter", "--net=/x", "--env", "--", "true"],
            &["enter", "--net=/x", "-S", "follow", "--", "true"],
            &["enter", "--net=/x", "--keep-caps", "-S", "1", "--", "true"],
            &["enter", "-t", "1", "-a", "--preserve-credentials", "-S", "1", "--", "true"],
            &["plan", "enter", "-a", "--", "true"],
            &["trace", "enter", "-t", "1", "--", "true"],
            &["decode", "--dialect", "v2"],
            &["encode", "--mount-proc"],
            &["encode", "--map-user", "7"],
            &["encode", "-U"],
            &["encode", "--net=/x"],
            &["encode", "-r", "--", "true"],
            &["encode", "--dialect", "v1_0", "-T", "--monotonic", "1"],
            &["encode", "--dialect", "v1_1", "-T"],
            &["encode", "--dialect", "v1_1", "--join", "time=/proc/self/ns/time"],
            &["init"],
            &["nothing"],
        ] {
            let (status, out, err) = caller.run(args);
            assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
            assert!(err.starts_with("error: ") && err.contains("try '--help'"), "{args:?}: {err}");
        }
    }
}

#[test]
fn usage_error_names_the_wrong_argument() {
    let caller = Caller::all().remove(0);
    let first_line = |args: &[&str]| caller.run(args).2.lines().next().unwrap().to_owned();
    assert_eq!(
        first_line(&["run", "--map-users", "0:0:0", "--", "true"]),
        "error: invalid value '0:0:0' for '--map-users <I:O:N|auto|subids|all>': the number of ids is 0, expected 1 or more"
    );
    assert_eq!(
        first_line(&["run", "-r", "-S", "9", "--", "true"]),
        "error: --setuid 9: the user id 9 is not mapped: add a map with it"
    );
    assert!(first_line(&["init"]).starts_with("error: _LIBCONTAINER_INITPIPE is not set"));
}

#[test]
fn help_and_version_are_on_standard_output() {
    let caller = Caller::all().remove(0);
    let (status, out, err) = caller.run(&["--version"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.starts_with(concat!("nsexec ", env!("CARGO_PKG_VERSION"))), "{out}");
    for command in ["run", "enter", "decode", "encode", "init"] {
        let (status, out, err) = caller.run(&[command, "--help"]);
        assert_eq!((status, err.as_str()), (0, ""), "{command}");
        assert!(out.contains(&format!("Usage: nsexec {command}")), "{out}");
        assert!(out.lines().all(|line| line.chars().count() <= 110), "{command}");
    }
}

#[test]
fn malformed_message_exits_1_with_one_error_line() {
    let caller = Caller::all().remove(0);
    let file = caller.folder.join("message");
    let encoded = caller.output(&["encode", "-r"]).stdout;
    let name = file.to_str().unwrap();
    for (bytes, kind) in [
        (&encoded[..0], "truncated_header"),
        (&encoded[..17], "truncated_payload"),
        (&[0; 16][..], "unexpected_message_type"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (status, out, err) = caller.run(&["decode", name]);
        assert_eq!((status, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(
            err.starts_with(&format!("nsexec: {name}: malformed message at offset")) && err.contains(kind),
            "{err}"
        );
        let (status, out, _) = caller.run(&["decode", "--json", name]);
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, &json["error"]["kind"]), (1, &Value::from(kind)));
    }
    fs::write(&file, [&encoded[..], b"{}"].concat()).unwrap();
    let (status, out, err) = caller.run(&["decode", name]);
    assert_eq!((status, err), (0, format!("nsexec: note: 2 bytes follow the message in {name}\n")));
    assert!(out.contains("UIDMAP"));
    let (status, _, err) = caller.run(&["decode", "/no/such/file"]);
    assert_eq!(
        (status, err.as_str()),
        (1, "nsexec: failed to read /no/such/file: No such file or directory\n")
    );
}

/// Returns the command by which a script of root runs a program as the caller.
fn becoming(caller: &Caller) -> String {
    if caller.uid == ORDINARY_UID {
        format!("setpriv --reuid {ORDINARY_UID} --regid {ORDINARY_UID} --clear-groups")
    } else {
        String::new()
    }
}

/// Runs a shell script in which `$N` is the program. Returns the exit status, standard output and
/// standard error.
fn script(caller: &Caller, text: &str) -> (i32, String, String) {
    let text = format!("N={}/nsexec; cd {}; {text}", caller.folder.display(), caller.folder.display());
    let output = program("timeout")
        .args([&*support::LIMIT.as_secs().to_string(), "sh", "-c", &text])
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn decode_reads_no_byte_after_the_message() {
    let caller = Caller::all().remove(0);
    let two = "$N encode -r > m; $N encode -n >> m; { $N decode; $N decode; } < m";
    let (status, out, err) = script(&caller, two);
    assert_eq!((status, out.matches("bootstrap message:").count()), (0, 2), "{out} {err}");
    assert!(out.contains("creates user;") && out.contains("creates net;"), "{out}");
    assert!(err.lines().count() == 1 && err.contains("bytes follow the message in standard input"), "{err}");
    // A pipe that never ends.
    let (status, out, err) = script(&caller, "($N encode -r; exec yes) | $N decode");
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("creates user;"), "{out}");
}

/// In the dialects v1_0 and v1_1, stage 0 first makes a sealed copy of the program and reports that it is
/// ready.
/// Returns the plan of `args` as JSON lines.
fn planned_json(caller: &Caller, args: &[&str]) -> String {
    let all: Vec<&str> = ["plan", "--format", "json"].iter().chain(args).copied().collect();
    let (status, text, error) = caller.run(&all);
    assert_eq!(status, 0, "{args:?}: {error}");
    text
}

#[test]
fn stored_plan_is_shown_in_every_format() {
    let caller = Caller::all().remove(0);
    let file = caller.folder.join("plan.jsonl");
    let plan = ["--assume", "command=/bin/true", "-r", "-n", "--", "true"];
    fs::write(&file, planned_json(&caller, &plan)).unwrap();
    let file = file.to_str().unwrap();
    let all: Vec<&str> = ["plan"].iter().chain(&plan).copied().collect();
    let (_, planned, _) = caller.run(&all);
    let (status, text, error) = caller.run(&["show", file]);
    assert_eq!((status, &error[..]), (0, ""));
    let calls = |text: &str| text[text.find("\nlauncher\n").unwrap()..].to_owned();
    assert_eq!(calls(&text), calls(&planned));
    assert!(text.starts_with(planned.lines().next().unwrap()), "{text}");
    for (format, begin) in
        [("json", "{\"schema\""), ("mermaid", "---\ntitle"), ("svg", "<svg"), ("html", "<!DOCTYPE html>")]
    {
        let (status, text, error) = caller.run(&["show", "--format", format, file]);
        assert_eq!((status, &error[..]), (0, ""), "{format}");
        assert!(text.starts_with(begin), "{format}: {text}");
    }
}

#[test]
fn diff_of_two_kernels_exits_3_and_shows_the_calls() {
    let caller = Caller::all().remove(0);
    let file = |name: &str, kernel: &str| {
        let kernel = format!("kernel={kernel}");
        // Without a time namespace, which the older kernel does not have.
        let kinds = ["-m", "-u", "-i", "-n", "-p", "-C", "-r"];
        let assumed = ["--assume", &kernel, "--assume", "command=/bin/true"];
        let args = [&assumed[..], &kinds, &["--", "true"]].concat();
        let path = caller.folder.join(name);
        fs::write(&path, planned_json(&caller, &args)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (new, old) = (file("new", "6.18"), file("old", "5.1"));
    let (status, text, error) = caller.run(&["diff", &new, &new]);
    assert_eq!((status, &error[..]), (0, ""));
    assert!(text.starts_with("the same calls: "), "{text}");
    let (status, text, error) = caller.run(&["diff", &new, &old]);
    assert_eq!((status, &error[..]), (3, ""));
    for part in [
        "  kernel: 6.4 or later | 4.18 or later\n".to_owned(),
        "launcher: line ".to_owned(),
        format!("--- {new}  launcher\n+++ {old}  launcher\n@@ "),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
}

#[test]
fn file_that_is_not_a_run_is_one_clear_line() {
    let caller = Caller::all().remove(0);
    let file = caller.folder.join("bad.jsonl");
    let name = file.to_str().unwrap();
    let plan = planned_json(&caller, &["--assume", "command=/bin/true", "-r", "--", "true"]);
    let mut lines: Vec<&str> = plan.lines().collect();
    lines[4] = "{\"call\":\"no such call\"}";
    for (text, line, fault) in [
        (String::new().into_bytes(), 1, "an empty text"),
        (b"hello\n".to_vec(), 1, "a run is a file that trace --json"),
        (b"{\"schema\":9}\n".to_vec(), 1, "schema 9 of a run"),
        (lines.join("\n").into_bytes(), 5, "no such call"),
        (b"{\"schema\":1}\n\xff\n".to_vec(), 2, "not UTF-8"),
    ] {
        fs::write(&file, &text).unwrap();
        for args in [&["show", name][..], &["diff", name, name]] {
            let (status, out, error) = caller.run(args);
            assert_eq!((status, &out[..]), (1, ""), "{args:?}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(error.starts_with(&format!("nsexec: {name}, line {line}: ")), "{error}");
            assert!(error.contains(fault), "{error}");
        }
    }
    let (status, _, error) = caller.run(&["show", "/no/such/file"]);
    assert_eq!(status, 1);
    assert_eq!(error, "nsexec: failed to read /no/such/file: No such file or directory\n");
    assert_eq!(caller.run(&["diff", "-", "-"]).0, 2);
}

#[test]
fn traced_record_is_printed_after_the_output_of_the_command() {
    for caller in Caller::all() {
        if !caller.may_unshare("traced_record_is_printed_after_the_output_of_the_command") {
            continue;
        }
        let file = caller.folder.join("run.jsonl");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let file = file.to_str().unwrap();
        let args = ["trace", "--format", "text", "--json", file, "-r", "-p", "--", "echo", "hello"];
        let (status, text, error) = caller.run(&args);
        assert_eq!(status, 0, "{error}");
        let record = text.strip_prefix("hello\n").unwrap();
        assert!(record.starts_with("Record of a start\n"), "{record}");
        assert_eq!(caller.run(&["show", file]).1, record);
        let (status, page, _) = caller.run(&["trace", "--format", "html", "-r", "-p", "--", "true"]);
        assert!(status == 0 && page.contains("Plan of a start and Record of a start"), "{page}");
        let plan = caller.folder.join("plan.jsonl");
        let planned = planned_json(&caller, &["--copy-memory", "-r", "-p", "--", "echo", "hello"]);
        fs::write(&plan, planned).unwrap();
        let (status, text, _) = caller.run(&["diff", plan.to_str().unwrap(), file]);
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("the same calls: "), "{text}");
    }
}

/// Runs `nsexec ARGS` under the seccomp profile of the plan of `-r -n -- true`.
fn under_profile(caller: &Caller, args: &[&str]) -> (i32, String) {
    let (status, text, error) = caller.run(&["plan", "--emit", "seccomp", "-r", "-n", "--", "true"]);
    assert_eq!((status, &error[..]), (0, ""));
    let profile: Value = serde_json::from_str(&text).unwrap();
    let mut command = nsexec::launch::Command::new(caller.folder.join("nsexec"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/");
    command.seccomp_filter_bytes(support::seccomp::program(&profile));
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn planned_launch_runs_under_its_profile_and_another_kind_is_refused() {
    let caller = Caller::all().remove(0);
    if !caller.may_unshare("planned_launch_runs_under_its_profile_and_another_kind_is_refused") {
        return;
    }
    let run = |flags: &[&str]| under_profile(&caller, &[&["run"], flags, &["--", "true"]].concat());
    assert_eq!(run(&["-r", "-n"]), (0, String::new()));
    // The launch fails at the call that is not in the profile, and names it.
    let (status, error) = run(&["-r", "-n", "-u"]);
    assert!(status == 1 && error.contains("unshare") && error.contains("Operation not permitted"), "{error}");
    let (status, error) = run(&["-r", "-p"]);
    assert!(status == 1 && error.contains("Operation not permitted"), "{error}");
}

#[test]
fn emitted_restrictions_need_a_plan_that_succeeds() {
    let caller = Caller::all().remove(0);
    let plan = |emit: &str, uid: &str| {
        let uid = format!("uid={uid}");
        let assumed = ["--assume", "command=/bin/true", "--assume", &uid, "--assume", "caps=none"];
        caller.run(&[&["plan", "--emit", emit], &assumed[..], &["-n", "--", "true"]].concat())
    };
    for emit in ["seccomp", "apparmor", "systemd"] {
        let (status, out, error) = plan(emit, "1000");
        assert_eq!((status, &out[..], error.lines().count()), (1, "", 1), "{error}");
        assert!(error.starts_with("nsexec: a restriction needs a plan that succeeds: "), "{error}");
    }
    let (status, out, _) = caller.run(&["plan", "--emit", "systemd", "-r", "-p", "--", "true"]);
    assert!(status == 0 && out.ends_with("RestrictNamespaces=pid user\n"), "{out}");
    assert_eq!(caller.run(&["plan", "--emit", "seccomp", "--format", "svg", "-r", "--", "true"]).0, 2);
}

#[test]
fn configuration_of_a_container_is_encoded_and_run() {
    for caller in Caller::all() {
        let uid = caller.uid;
        let file = caller.folder.join("config.json");
        let config = serde_json::json!({
            "ociVersion": "1.2.0",
            "hostname": "box",
            "process": {"args": ["sh", "-c", "echo $$ $(id -u)"], "cwd": "/", "oomScoreAdj": 500},
            "linux": {
                "namespaces": [{"type": "user"}, {"type": "pid"}, {"type": "time"}],
                "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
                "timeOffsets": {"boottime": {"secs": 7, "nanosecs": 0}},
            },
        });
        fs::write(&file, config.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let file = file.to_str().unwrap();
        let note = format!(
            "nsexec: {file}: not applied, since it is outside of the bootstrap: hostname, process.cwd\n"
        );
        let ok = caller.circle(&format!("--config {file}"));
        assert_eq!(ok["clone_flags"], 0x3000_0080);
        assert_eq!(ok["rootless_euid"], uid != 0);
        assert_eq!(ok["uid_map"]["text"], format!("0 {uid} 1\n"));
        assert_eq!(ok["timens_offsets"]["text"], "boottime 7 0\n");
        assert_eq!(ok["oom_score_adj"]["text"], "500");
        let (status, out, error) = caller.run(&["plan", "--config", file]);
        assert_eq!((status, &error), (0, &note));
        assert!(out.contains("sh -c echo $$ $(id -u)"), "{out}");
        assert_eq!(caller.run(&["run", "--config", file, "-n", "--", "true"]).0, 2);
        if caller.may_unshare("configuration_of_a_container_is_encoded_and_run") {
            assert_eq!(caller.run(&["run", "--config", file]), (0, "1 0\n".to_owned(), note.clone()));
            let (status, out, error) = caller.run(&["trace", "--config", file, "--", "echo", "other"]);
            assert_eq!((status, &out[..]), (0, "other\n"), "{error}");
        }
    }
}

/// A joined mount namespace makes nsexec execute a sealed copy of itself, and a witness makes it run itself.
#[test]
fn note_about_a_configuration_is_one_line_even_if_nsexec_starts_again() {
    let caller = Caller::all().remove(0);
    if caller.uid != 0 {
        println!("skipped: note_about_a_configuration_is_one_line_even_if_nsexec_starts_again: not root");
        return;
    }
    let file = caller.folder.join("config.json");
    let config = serde_json::json!({
        "hostname": "box",
        "linux": {"namespaces": [{"type": "mount", "path": "/proc/self/ns/mnt"}]},
    });
    fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let note = format!("nsexec: {file}: not applied, since it is outside of the bootstrap: hostname\n");
    let mut commands = vec![&["run"][..], &["doctor"], &["trace"], &["plan"]];
    if std::path::Path::new("/usr/bin/strace").exists() {
        commands.push(&["trace", "--witness"]);
    }
    for words in commands {
        let (status, _, error) = caller.run(&[words, &["--config", file, "--", "true"]].concat());
        assert_eq!((status, error.matches(&note).count()), (0, 1), "{words:?}: {error}");
    }
}

#[test]
fn plan_of_an_old_dialect_shows_copy_and_ready_byte() {
    let caller = Caller::all().remove(0);
    let plan = |dialect: &str| {
        let text = format!("$N encode --dialect {dialect} -r | $N plan --bootstrap - --dialect {dialect}");
        let (status, out, err) = script(&caller, &text);
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
        assert!(out.contains(&format!("dialect{}{dialect}\n", " ".repeat(17))), "{out}");
        let steps = [
            "memfd_create(",
            "F_ADD_SEALS",
            "execveat(",
            ", \"\\0\", 1, MSG_NOSIGNAL",
            "the bootstrap message, 16 bytes",
        ];
        let stage_0 = out.split("\nstage-0 parent\n").nth(1).unwrap().to_owned();
        steps.map(|step| stage_0.find(step))
    };
    for dialect in ["v1_0", "v1_1"] {
        let found = plan(dialect);
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{dialect}: {found:?}");
    }
    let old = "$N encode --dialect v1_1 -r | $N plan --bootstrap - --dialect v1_1 --assume kernel=5.15";
    let (status, out, _) = script(&caller, old);
    assert!(status == 0 && out.contains("MFD_EXEC (6.3)          no\n"), "{out}");
    assert!(out.contains("MFD_ALLOW_SEALING) = 5"), "{out}");
    assert!(matches!(plan("v1_2"), [None, None, None, None, Some(_)]));
    let (status, _, err) = caller.run(&["plan", "--dialect", "v1_1", "-r"]);
    assert!(status == 2 && err.contains("--bootstrap"), "{err}");
}

#[test]
fn plan_reports_a_malformed_message_as_decode_does() {
    let caller = Caller::all().remove(0);
    for make in [
        "$N encode -r --boottime 5",
        "$N encode -r | head -c 30",
        "printf '\\020\\0\\0\\0\\060\\362'",
        "true",
    ] {
        let make = |of: &str| script(&caller, &format!("{make} > m; $N {of} m --dialect v1_0"));
        let (planned, decoded) = (make("plan --bootstrap"), make("decode"));
        assert_eq!((planned.0, planned.1.as_str()), (1, ""), "{}", planned.2);
        assert!(
            planned.2 == decoded.2 && planned.2.starts_with("nsexec: m: malformed message at offset "),
            "{planned:?}"
        );
    }
}

#[test]
fn plan_shows_processes_that_wait_for_ever() {
    let caller = Caller::all().remove(0);
    // `runc exec` 1.0 sends no byte for the cgroup namespace, and waits for stage 0 before it sends anything
    // else.
    let plan = "$N encode -r -C --dialect v1_0 | $N plan --bootstrap - --dialect v1_0 --manner";
    let (status, out, _) = script(&caller, &format!("{plan} exec"));
    assert_eq!((status, out.matches("=> waits for ever\n").count()), (1, 3), "{out}");
    let (status, out, _) = script(&caller, &format!("{plan} init"));
    assert!(status == 0 && !out.contains("waits for ever"), "{out}");
}

#[test]
fn plan_refuses_flags_that_it_would_ignore() {
    let caller = Caller::all().remove(0);
    fs::write(caller.folder.join("m"), message_with_tool_name(b"/bin/map")).unwrap();
    let kinds = ["-U", "-m", "-p", "-n", "-i", "-u", "-C", "-T", "--all", "-f", "-r"];
    let more = [
        "--join net=/x",
        "--map-users 0:0:1",
        "--map-groups 0:0:1",
        "--setgroups deny",
        "--monotonic 1",
        "--boottime 1",
        "--oom-score-adj 1",
        "--mount-proc",
        "--kill-child",
        "--init",
        "-c",
        "-R /",
        "-n/x",
        "-- true",
    ];
    for flag in kinds.iter().chain(&more) {
        let (status, out, err) = script(&caller, &format!("$N plan --bootstrap m {flag}"));
        assert!(status == 2 && out.is_empty() && err.contains("leave out the flags of run"), "{flag}: {err}");
    }
    for beside in ["-r", "--format json", "--bootstrap m", "--assume uid=0", "-- true"] {
        let (status, out, err) = script(&caller, &format!("$N plan --rules {beside}"));
        assert!(status == 2 && out.is_empty() && err.contains("cannot be used with"), "{beside}: {err}");
    }
    let (status, _, err) = script(&caller, "$N plan --manner exec -r -- true");
    assert!(status == 2 && err.contains("--bootstrap"), "{err}");
    for accepted in ["--bootstrap m --manner exec --format json --color never --assume uid=1000", "--rules"] {
        let (_, out, err) = script(&caller, &format!("$N plan {accepted}"));
        assert!(!out.is_empty() && err.is_empty(), "{accepted}: {err}");
    }
}

#[test]
fn write_error_on_standard_output_exits_1() {
    let caller = Caller::all().remove(0);
    for command in
        ["encode -r", "decode m", "decode --json m", "plan -r", "--version", "--help", "run --help"]
    {
        let run = |to: &str| script(&caller, &format!("$N encode -r > m; $N {command} {to}"));
        assert_eq!(run(">/dev/null"), (0, String::new(), String::new()), "{command}");
        let failed =
            |why: &str| (1, String::new(), format!("nsexec: failed to write standard output: {why}\n"));
        assert_eq!(run(">/dev/full"), failed("No space left on device"), "{command}");
        assert_eq!(run(">&-"), failed("Bad file descriptor"), "{command}");
        // All three are closed: a descriptor that nsexec opens must not get one of these numbers.
        assert_eq!(run("<&- >&- 2>&-").0, 1, "{command}");
    }
}

#[test]
fn endless_input_is_read_up_to_a_limit() {
    let caller = Caller::all().remove(0);
    let (status, out, err) = script(&caller, "($N encode -r; exec yes) | $N plan --bootstrap -");
    assert_eq!((status, err.as_str(), out.starts_with("Plan of a start\n")), (0, "", true), "{out}");
    let (status, _, err) = script(&caller, "ulimit -v 4000000; $N plan --bootstrap /dev/zero");
    let malformed = "malformed message at offset 4 (unexpected_message_type): unexpected msg type 0\n";
    assert_eq!((status, err), (1, format!("nsexec: /dev/zero: {malformed}")));
    let (status, out, err) = script(&caller, "ulimit -v 4000000; $N trace --replay /dev/zero");
    assert_eq!((status, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
    assert!(err.contains("/dev/zero: it has more than "), "{err}");
}

#[test]
fn unwritable_record_file_fails_before_the_launch() {
    for caller in Caller::all() {
        if !caller.may_unshare("unwritable_record_file_fails_before_the_launch") {
            continue;
        }
        let (status, out, err) = script(&caller, "$N trace --json /no/such/folder/r -r -- echo ran");
        let refused = "nsexec: failed to write /no/such/folder/r: No such file or directory\n";
        assert_eq!((status, out.as_str(), err.as_str()), (1, "", refused));
        // A later failure must not hide the comparison's result.
        let (status, out, err) = script(&caller, "$N trace --json /dev/full -r -C -- echo ran");
        assert_eq!((status, out.as_str(), err.lines().count()), (1, "ran\n", 3), "{err}");
        assert!(
            err.starts_with("nsexec: as planned: ") && err.ends_with("No space left on device\n"),
            "{err}"
        );
    }
}

/// Returns the callers that may create namespaces. Without strace there is none, and a line says that `test`
/// is skipped.
fn callers_with_strace(test: &str) -> Vec<Caller> {
    if !std::path::Path::new("/usr/bin/strace").exists() {
        println!("skipped: {test}: no strace");
        return Vec::new();
    }
    Caller::all().into_iter().filter(|caller| caller.may_unshare(test)).collect()
}

/// Ctrl-C reaches nsexec, strace, nsexec under strace, and the command. nsexec still prints the result and
/// removes the folder.
#[test]
fn interrupted_witness_reports_and_removes_its_folder() {
    for caller in callers_with_strace("interrupted_witness_reports_and_removes_its_folder") {
        let text = "mkdir w; TMPDIR=$PWD/w setsid -w $N trace --witness -r -C -- sh -c 'kill -INT 0; sleep 50'; \
                    echo $?; ls w";
        let (_, out, err) = script(&caller, text);
        assert!(err.contains("status 130") && err.contains("the witness agrees"), "{err}");
        assert_eq!(out, "130\n");
    }
}

/// With `-o`, strace ignores SIGHUP, SIGINT, SIGQUIT and SIGTERM (strace(1), -I 3), and SIGUSR1 ends strace
/// alone. The signals go to nsexec under strace, which sends them to the command. A signal that the command
/// sends to its process group reaches it once.
#[test]
fn witness_passes_signals_on_to_the_command() {
    for caller in callers_with_strace("witness_passes_signals_on_to_the_command") {
        let start = format!(
            "mkdir -p w; chmod 777 w; export TMPDIR=$PWD/w; {} setsid -w $N trace --witness -r -C",
            becoming(&caller)
        );
        let ends = "pid=$!; until pgrep -x sleep -s $pid >out; do sleep 0.02; done";
        for (signal, status) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("QUIT", 131), ("USR1", 138)] {
            // A command in the background ignores SIGINT and SIGQUIT.
            let text = format!(
                "{start} -- env --default-signal sleep 50 & {ends}; kill -{signal} $pid; wait $pid; echo $?; \
                 pgrep -s $pid; ls w"
            );
            let (_, out, err) = script(&caller, &text);
            assert_eq!(out, format!("{status}\n"), "{signal}: {err}");
            assert!(err.contains("the witness agrees"), "{signal}: {err}");
        }
        let group =
            format!("{start} -- sh -c 'trap \"echo caught\" INT; kill -INT 0; sleep 0.3; exit 5'; echo $?");
        let (_, out, err) = script(&caller, &group);
        assert_eq!(out, "caught\n5\n", "{err}");
    }
}

/// strace is killed with the process that started it. The process under strace ends with strace, so
/// `--kill-child` holds.
#[test]
fn killed_witness_leaves_no_process_of_the_program() {
    for caller in callers_with_strace("killed_witness_leaves_no_process_of_the_program") {
        let text = format!(
            "mkdir -p w; chmod 777 w; export TMPDIR=$PWD/w; \
             {} setsid $N trace --witness -r -C --kill-child -- sleep 50 & \
             pid=$!; until pgrep -x sleep -s $pid >out; do sleep 0.02; done; sleep 0.3; kill -KILL $pid; wait $pid; \
             i=0; while pgrep -l -s $pid >left && [ $i -lt 100 ]; do sleep 0.05; i=$((i + 1)); done; cat left",
            becoming(&caller)
        );
        let (_, out, err) = script(&caller, &text);
        assert_eq!(out, "", "{err}");
    }
}

/// `-v` shows the stages' records. The launcher must not write them while the witness counts calls.
#[test]
fn verbose_trace_agrees_with_the_witness() {
    for caller in callers_with_strace("verbose_trace_agrees_with_the_witness") {
        for (command, status) in [("true", 0), ("/nonexistent", 127)] {
            let args = ["trace", "--witness", "-v", "-r", "-C", "--", command];
            let (code, _, err) = caller.run(&args);
            assert!(code == status && err.contains("nsexec: the witness agrees"), "{command}: {code} {err}");
            let verdict = err.find("nsexec: as planned");
            for record in ["stage-0: update /proc/", "stage-2: ~> nsexec stage-2"] {
                let record = err.find(&format!("nsexec: debug: {record}"));
                assert!(record.is_some() && record < verdict, "{err}");
            }
        }
    }
}

/// Numbers in the command's arguments, name, environment, scores and paths are never rewritten as pids. This
/// holds even if a simulated or real process has the same number.
#[test]
fn numbers_in_arguments_are_not_mistaken_for_pids() {
    for caller in Caller::all() {
        if !caller.may_unshare("numbers_in_arguments_are_not_mistaken_for_pids") {
            continue;
        }
        let before =
            format!("ln -sf /bin/true 101; export PID=101 LIST=102:$$; N=\"{} $N\";", becoming(&caller));
        for command in [
            // For each pid of a simulated process, run one command with that number as its argument.
            "for pid in 98 99 100 101 102 103 104 110 111 112 $$; do $N trace -r -n -- true $pid || exit; done",
            "$N trace -r -n -- true 100 101 102 /proc/101 '(101)' 'nsexec-1[101]: (102)' '\"pid\": 101' $$",
            "$N trace -r -C -- ./101 101",
            "$N trace -r -C --oom-score-adj 101 -- true 101",
            "$N trace -r -p -- sh -c 'exit 0' 101",
            "$N trace -C --join net=/proc/101/ns/net -- true; [ $? = 1 ]",
            "$N trace -C --join net=/proc/101 -- true; [ $? = 1 ]",
            // Simulated processes have these pids. On this machine such processes may not exist.
            "for pid in 100 101 102 103; do $N trace -r -C -- /proc/$pid/exe; [ $? = 3 ] && exit 3; done; true",
        ] {
            let (status, _, err) = script(&caller, &format!("{before} {command}"));
            assert!(
                status == 0 && err.contains("as planned") && !err.contains("not as planned"),
                "{command}: {err}"
            );
        }
    }
}

/// With hidepid, a path into another user's process fails with an errno that depends on the mode. The plan
/// has the same errno.
#[test]
fn plan_has_the_errnos_of_a_proc_with_hidepid() {
    let callers = Caller::all();
    let [root, user] = &callers[..] else {
        println!("skipped: cli::plan_has_the_errnos_of_a_proc_with_hidepid@root: needs root");
        return;
    };
    if !user.may_unshare("plan_has_the_errnos_of_a_proc_with_hidepid") {
        return;
    }
    let text = "for join in net=/proc/$1/ns/net user=/proc/$1/ns/user net=/proc/$1; do\n\
                $AS $N trace --join $join -- true 2>&1; echo $join $?\ndone\n\
                $AS $N trace -r -n -p -- true 2>&1; echo $?\n\
                $AS $N trace -r -- /proc/$1/exe 2>&1; echo exe $?\n";
    fs::write(root.folder.join("as-the-user"), text).unwrap();
    for (mode, word, refusal) in [
        (0, "off", "Permission denied"),
        (1, "noaccess", "Operation not permitted"),
        (2, "invisible", "No such file or directory"),
        (4, "ptraceable", "No such file or directory"),
    ] {
        let command = format!(
            "export N AS='{}'; unshare -m sh -c 'mount -t proc -o hidepid={mode} proc /proc && sh as-the-user $$'; \
             unshare -m sh -c 'mount -t proc -o hidepid={mode} proc /proc && \
             $AS $N plan -r -- true | grep -c \"hidepid of /proc.*{word}\"'",
            becoming(user)
        );
        let (_, out, err) = script(root, &command);
        assert!(!out.contains("not as planned"), "hidepid={mode}: {out}{err}");
        assert_eq!(out.matches("nsexec: as planned").count(), 5, "hidepid={mode}: {out}{err}");
        assert!(out.contains(&format!("/ns/net: {refusal}")), "hidepid={mode}: {out}{err}");
        let assumed = if mode == 0 { "0\n" } else { "1\n" };
        assert!(out.ends_with(assumed), "hidepid={mode}: {out}{err}");
    }
    // The plan for another machine.
    let plan = |assume: &str| {
        let (status, out, err) = script(user, &format!("$N plan {assume} --join net=/proc/1/ns/net -- true"));
        assert!(status <= 1, "{err}");
        out
    };
    assert!(plan("--assume hidepid=2 --assume uid=5").contains("invisible"));
    assert!(plan("--assume join=net:not-permitted").contains("Operation not permitted"));
}

/// strace's output and the whole record contain the environment. Neither is written to a file, and no value
/// is printed.
#[test]
fn witness_writes_no_environment_values_to_files() {
    for caller in callers_with_strace("witness_writes_no_environment_values_to_files") {
        let text = format!(
            "mkdir w; touch r; chmod 777 w r; export TMPDIR=$PWD/w TOKEN=s3cret-value MARK=/nsexec-witness/end; \
             {} $N trace --witness --json r -r -C -- sh -c 'find w -type f; find w -type p | wc -l' /nsexec-witness/begin; \
             ls w; grep -c s3cret r",
            becoming(&caller)
        );
        let (_, out, err) = script(&caller, &text);
        assert!(err.contains("the witness agrees") && err.contains("nsexec: as planned"), "{err}");
        assert!(!err.contains("s3cret"), "{err}");
        assert_eq!(out, "2\n0\n");
    }
}

/// The minimal init makes itself non-dumpable, and an ordinary user's strace then prints pointers. A repeated
/// flag is harmless.
#[test]
fn witness_of_an_init_and_of_a_repeated_flag() {
    for caller in callers_with_strace("witness_of_an_init_and_of_a_repeated_flag") {
        for flags in ["--witness -r -p --init", "--witness --witness -r"] {
            let text = format!("{} $N trace {flags} -- true", becoming(&caller));
            let (status, _, err) = script(&caller, &text);
            assert!(status == 0 && err.contains("the witness agrees"), "{flags}: {status} {err}");
        }
    }
}

/// strace executes an output file whose name begins with `|`. If strace does nothing, the run fails.
#[test]
fn witness_takes_any_temporary_folder_and_no_idle_strace() {
    for caller in callers_with_strace("witness_takes_any_temporary_folder_and_no_idle_strace") {
        let text = format!(
            "mkdir '|touch pwn #' idle; chmod 777 '|touch pwn #'; printf '#!/bin/sh\n' >idle/strace; chmod 755 idle/strace; \
             TMPDIR='|touch pwn #' {0} $N trace --witness -r -- true; echo $?; ls '|touch pwn #'; \
             TMPDIR=/nonexistent {0} $N trace --witness -r -- true; echo $?; \
             PATH=$PWD/idle:$PATH {0} $N trace --witness -r -- true; echo $?; ls",
            becoming(&caller)
        );
        let (_, out, err) = script(&caller, &text);
        assert!(out.starts_with("0\n1\n1\n") && !out.contains("pwn\n"), "{out}{err}");
        assert!(err.contains("in /nonexistent: ") && err.contains("the traced run left no record"), "{err}");
    }
}

/// Without memory for its threads, nsexec prints one line and leaves no folder and no process. Below the
/// first of these limits the dynamic linker fails.
#[test]
fn witness_without_memory_says_so_and_leaves_nothing() {
    for caller in callers_with_strace("witness_without_memory_says_so_and_leaves_nothing") {
        for limit in (15..40).map(|limit| limit * 1_000_000) {
            let text = format!(
                "mkdir -p t; chmod 777 t; export TMPDIR=$PWD/t; \
                 {} prlimit --as={limit} $N trace --witness -r -- true; echo $?; ls t; pgrep -cf \"strace.* $PWD/t/\"",
                becoming(&caller)
            );
            let (_, out, err) = script(&caller, &text);
            assert!(out == "1\n0\n" && err.lines().count() == 1, "{limit}: {out}{err}");
            assert!(err.contains("memory") || err.contains("thread"), "{limit}: {err}");
        }
    }
}

/// A message, a record or a file name may come from an untrusted source.
#[test]
fn control_characters_in_input_are_not_printed() {
    let caller = Caller::all().remove(0);
    let record = "{\"schema\":1,\"run\":\"recorded\"}\n{\"section\":\"a\",\"role\":\"launcher\",\"end\":\"unknown\"}\n\
                  {\"call\":\"\\u001b[31mX\\u202e\",\"reply\":\"unit\"}\n";
    fs::write(caller.folder.join("record"), record).unwrap();
    let name = "$(printf 'no\\033[31m\\342\\200\\256such')";
    // A plan has a section with the name of the mapping tool.
    let maps = "--assume uid=1000 --assume gid=1000 --assume caps=none \
                --assume subuid=100000:65536 --assume subgid=100000:65536";
    fs::write(caller.folder.join("m"), message_with_tool_name(b"/bin/\x1b[31mmap\xe2\x80\xae")).unwrap();
    for command in [
        "trace --replay record".to_owned(),
        format!("trace --replay {name}"),
        format!("plan --bootstrap {name}"),
        format!("plan --bootstrap m {maps}"),
        format!("plan --bootstrap m --format svg {maps}"),
        format!("plan --bootstrap m --format mermaid {maps}"),
        "decode m".to_owned(),
    ] {
        let (_, out, err) = script(&caller, &format!("$N {command}"));
        let text = out + &err;
        assert!(text.len() > 50 && !text.contains(['\u{1b}', '\u{202e}']), "{command}: {text:?}");
    }
}

/// Returns a rootless message with maps of two lines and this name of both mapping tools.
fn message_with_tool_name(name: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut attribute = |number: u16, value: &[u8]| {
        payload.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        payload.extend(number.to_ne_bytes());
        payload.extend(value);
        payload.resize(payload.len().next_multiple_of(4), 0);
    };
    let tool = [name, b"\0"].concat();
    attribute(27281, &0x1000_0000_u32.to_ne_bytes());
    attribute(27283, b"0 1000 1\n1 100000 65536\n\0");
    attribute(27284, b"0 1000 1\n1 100000 65536\n\0");
    attribute(27285, &1_u32.to_ne_bytes());
    attribute(27287, &1_u32.to_ne_bytes());
    attribute(27288, &tool);
    attribute(27289, &tool);
    let mut message = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(62000_u16.to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(payload);
    message
}

/// The record is in memory, to which the limit on file size does not apply.
#[test]
fn limit_on_file_size_loses_no_line_of_the_record() {
    for caller in Caller::all() {
        if !caller.may_unshare("limit_on_file_size_loses_no_line_of_the_record") {
            continue;
        }
        for limit in [0, 20] {
            // The limit affects only this program's files: its output goes through a pipe.
            let (status, out, err) =
                script(&caller, &format!("ulimit -f {limit}; $N trace -r -C -- echo ran 2>&1 | cat"));
            assert_eq!(status, 0, "{err}");
            assert!(out.starts_with("ran\n") && !out.contains("lost"), "{limit}: {out}");
        }
    }
}

#[test]
fn first_command_of_the_readme_works() {
    for caller in Caller::all() {
        if !caller.may_unshare("first_command_of_the_readme_works") {
            continue;
        }
        let script = "echo pid $$ uid $(id -u) gid $(id -g); ls -d /proc/[0-9]* | head -1";
        let (status, out, err) = caller.run(&["run", "--", "sh", "-c", script]);
        assert_eq!((status, out.as_str(), err.as_str()), (0, "pid 1 uid 0 gid 0\n/proc/1\n", ""));
    }
}

#[test]
fn exit_status_is_that_of_the_command() {
    for caller in Caller::all() {
        if !caller.may_unshare("exit_status_is_that_of_the_command") {
            continue;
        }
        let status = |command: &[&str]| {
            let args = [&["run", "-r", "--"], command].concat();
            let (status, out, err) = caller.run(&args);
            assert_eq!(out, "", "{command:?}");
            (status, err)
        };
        assert_eq!(status(&["true"]), (0, String::new()));
        assert_eq!(status(&["sh", "-c", "exit 7"]), (7, String::new()));
        assert_eq!(status(&["sh", "-c", "kill -TERM $$"]), (143, String::new()));
        assert_eq!(status(&["sh", "-c", "kill -9 $$"]), (137, String::new()));
        for (command, wanted) in
            [("no-such-command", 127), ("/no/such/command", 127), ("/etc/passwd", 126), ("/", 126)]
        {
            let (status, err) = status(&[command]);
            assert_eq!((status, err.lines().count()), (wanted, 1), "{err}");
            assert!(err.starts_with(&format!("nsexec: failed to execute {command}: ")), "{err}");
            assert_eq!(err.contains("in PATH"), command == "no-such-command", "{err}");
        }
    }
}

#[test]
fn refused_launch_prints_one_line_with_a_remedy() {
    for caller in Caller::all() {
        if !caller.may_unshare("refused_launch_prints_one_line_with_a_remedy") {
            continue;
        }
        let refused = |args: &[&str]| {
            let (status, out, err) = caller.run(&[&["run"], args, &["--", "true"]].concat());
            assert_eq!((status, out.as_str(), err.lines().count()), (1, "", 1), "{args:?}: {err}");
            assert!(err.starts_with("nsexec: "), "{err}");
            err
        };
        let line = refused(&["--join", "net=/no/such"]);
        assert!(line.contains("failed to open /no/such: No such file or directory"), "{line}");
        let line = refused(&["--join", "net=/etc/passwd"]);
        assert!(line.contains("not a namespace"), "{line}");
        let line = refused(&["-r", "--boottime", "-10000000000"]);
        assert!(
            line.contains("Numerical result out of range (the shifted clock would be negative"),
            "{line}"
        );
        if caller.uid == ORDINARY_UID {
            let line = refused(&["-n"]);
            assert!(line.contains("Operation not permitted") && line.contains("CLONE_NEWNET"), "{line}");
            assert!(line.contains("you are not root: add -r"), "{line}");
            let line = refused(&["-r", "--mount-proc"]);
            assert!(
                line.contains("failed to mount /proc: Operation not permitted") && line.contains("add -p"),
                "{line}"
            );
        }
    }
}

#[test]
fn open_file_limit_is_named_at_every_step() {
    let caller = Caller::all().remove(0);
    if !caller.may_unshare("open_file_limit_is_named_at_every_step") {
        return;
    }
    let mut refused = 0;
    for limit in 4..20 {
        let script = format!("ulimit -n {limit}; exec {}/nsexec run -r -- true", caller.folder.display());
        let output = program("sh").args(["-c", &script]).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            break;
        }
        assert!(
            err.contains("Too many open files (the limit on open files is reached: raise ulimit -n)"),
            "{limit}: {err}"
        );
        assert_eq!((output.status.code(), err.lines().count()), (Some(1), 1), "{limit}: {err}");
        refused += 1;
    }
    assert!(refused > 2, "{refused}");
}

#[test]
fn verbose_flag_shows_debug_records() {
    let caller = Caller::all().remove(0);
    if caller.may_unshare("verbose_flag_shows_debug_records") {
        // A direct start, and one through the stages.
        let direct =
            ["stage-0: update /proc/", "stage-2: ~> nsexec stage-2", "stage-2: unshare remaining namespaces"];
        let in_place = [
            "stage-0: update /proc/",
            "stage-1: unshare user namespace",
            "stage-1: unshare remaining namespaces",
        ];
        let stages = ["stage-0: spawn stage-1", "stage-1: ~> nsexec stage-1", "stage-2: ~> nsexec stage-2"];
        for (args, wanted) in [
            (&["run", "-v", "-f", "-r", "-n", "--", "true"][..], direct),
            (&["run", "-v", "-f", "-r", "--join", "uts=/proc/self/ns/uts", "--", "true"], stages),
            (&["run", "-v", "-r", "-n", "--", "true"], in_place),
        ] {
            let (status, out, err) = caller.run(args);
            assert_eq!((status, out.as_str()), (0, ""), "{err}");
            for want in wanted {
                assert!(err.contains(&format!("nsexec: debug: {want}")), "{want}: {err}");
            }
            assert!(err.lines().all(|line| line.starts_with("nsexec: debug: ")), "{err}");
        }
    }
}

#[test]
fn closed_reader_of_standard_error_kills_no_process() {
    for caller in Caller::all() {
        if !caller.may_unshare("closed_reader_of_standard_error_kills_no_process") {
            continue;
        }
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(read);
        let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; exit 7";
        let mut command = caller.command(&["run", "-v", "-r", "--", "sh", "-c", script]);
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let child = command.stdout(Stdio::piped()).stderr(write).spawn().unwrap();
        drop(command);
        let output = child.wait_with_output().unwrap();
        // SIGPIPE would give status 141 and leave the command behind. The command has the caller's signal
        // mask.
        assert_eq!(output.status.code(), Some(7));
        let mask = own.lines().find(|line| line.starts_with("SigBlk")).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(mask), "{text} {mask}");
        let ignored = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x1000, 0, "{text}");
    }
}

#[test]
fn enter_joins_only_namespaces_that_differ() {
    for caller in Caller::all() {
        if !caller.may_unshare("enter_joins_only_namespaces_that_differ") {
            continue;
        }
        let script = "echo $$; exec 1>&-; readlink /proc/self/ns/user >/dev/null; read line";
        let mut target = program("unshare");
        target.args(["--user", "--map-root-user", "--uts", "--net", "sh", "-c", script]);
        if caller.uid == ORDINARY_UID {
            target.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        let mut target =
            target.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        std::io::Read::read_to_string(target.stdout.as_mut().unwrap(), &mut pid).unwrap();
        let pid = pid.trim();
        let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let ns = |kind: &str| link(kind).to_str().unwrap().to_owned() + "\n";

        let (status, out, err) = caller.run(&[
            "enter",
            "-t",
            pid,
            "-a",
            "--",
            "readlink",
            "/proc/self/ns/user",
            "/proc/self/ns/net",
        ]);
        assert_eq!((status, out, err.as_str()), (0, ns("user") + &ns("net"), ""));
        let (status, out, err) = caller.run(&["enter", "-t", pid, "-aU", "--", "id", "-u"]);
        assert_eq!((status, out.as_str(), err.as_str()), (0, "0\n", ""));
        let (status, out, err) = caller.run(&[
            "enter",
            "-t",
            pid,
            "-U",
            "-u",
            "--",
            "readlink",
            "/proc/self/ns/uts",
            "/proc/self/ns/net",
        ]);
        let own_net = fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned() + "\n";
        assert_eq!((status, out, err.as_str()), (0, ns("uts") + &own_net, ""));
        if caller.uid == ORDINARY_UID {
            let (status, _, err) = caller.run(&["enter", "-t", pid, "-n", "--", "true"]);
            assert_eq!((status, err.lines().count()), (1, 1));
            assert!(err.contains("net") && err.contains("Operation not permitted"), "{err}");
            assert!(err.contains(&format!("/proc/{pid}/ns/net")) && !err.contains("/self/fd/"), "{err}");
        }

        drop(target.stdin.take());
        target.wait().unwrap();
        let (status, _, err) = caller.run(&["enter", "-t", pid, "-a", "--", "true"]);
        assert_eq!(status, 1);
        assert!(err.starts_with(&format!("nsexec: failed to enter process {pid}: No such process")), "{err}");
    }
}

#[test]
fn enter_without_differing_namespaces_runs_the_command() {
    for caller in Caller::all() {
        // The target is the shell that starts the program. It is in our namespaces, and we may open them.
        let script = format!("{}/nsexec enter -t $$ -a -- echo in", caller.folder.display());
        let mut shell = program("sh");
        shell.args(["-c", &script]).current_dir("/");
        if caller.uid == ORDINARY_UID {
            shell.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        let output = shell.output().unwrap();
        let note = "nsexec: nothing to join: every namespace that is named is ours already\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), note);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"in\n"[..]));
    }
}

#[test]
fn command_inherits_no_descriptor_of_nsexec() {
    for caller in Caller::all() {
        if !caller.may_unshare("command_inherits_no_descriptor_of_nsexec") {
            continue;
        }
        // The descriptors that the harness leaves open, and the one that ls opens to read the directory.
        let without = program("ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
        let without = String::from_utf8(without.stdout).unwrap();
        for args in [&["run", "-r"][..], &["run"], &["run", "-r", "--map-groups", "0:0:1"]] {
            if caller.uid != 0 && args.contains(&"0:0:1") {
                continue;
            }
            let (status, out, err) = caller.run(&[args, &["--", "ls", "/proc/self/fd"]].concat());
            assert_eq!((status, &out, err.as_str()), (0, &without, ""), "{args:?}");
        }
    }
}

/// Runs `nsexec init -- COMMAND` as a child of this process. Returns the exit status of stage 2, and standard
/// error.
fn run_init(caller: &Caller, command: &str) -> (i32, String) {
    let message = caller.output(&["encode", "-r"]).stdout;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.write_all(&message).unwrap();
    let mut stage_0 = program(caller.folder.join("nsexec"));
    stage_0.args(["init", "--", command]).env("PATH", "/usr/bin:/bin").env("_LIBCONTAINER_INITPIPE", "0");
    stage_0.stdin(std::os::fd::OwnedFd::from(theirs)).stderr(Stdio::piped());
    if caller.uid == ORDINARY_UID {
        stage_0.uid(ORDINARY_UID).gid(ORDINARY_UID);
    }
    let stage_0 = stage_0.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&ours), &mut line).unwrap();
    let pids: Value = serde_json::from_str(&line).unwrap();
    let output = stage_0.wait_with_output().unwrap();
    assert!(output.status.success());
    let status = ["stage1_pid", "stage2_pid"].map(|key| {
        let pid = nix::unistd::Pid::from_raw(pids[key].as_i64().unwrap().try_into().unwrap());
        nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap()
    });
    let nix::sys::wait::WaitStatus::Exited(_, status) = status[1] else { panic!("{status:?}") };
    (status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn init_reports_command_errors_as_run_does() {
    for caller in Caller::all() {
        if !caller.may_unshare("init_reports_command_errors_as_run_does") {
            continue;
        }
        let script = caller.folder.join("script");
        fs::write(&script, "exit 7\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(run_init(&caller, "true"), (0, String::new()));
        assert_eq!(run_init(&caller, "false"), (1, String::new()));
        // A script without `#!` runs in /bin/sh, as with execvp(3).
        let script = script.to_str().unwrap();
        assert_eq!(run_init(&caller, script), (7, String::new()));
        assert_eq!(caller.run(&["run", "-r", "--", script]), (7, String::new(), String::new()));
        for command in ["no-such-command", "/no/such", "/etc/passwd", "/", ""] {
            let (status, _, err) = caller.run(&["run", "-r", "--", command]);
            assert!(matches!(status, 126 | 127) && err.lines().count() == 1, "{command}: {err}");
            assert_eq!(run_init(&caller, command), (status, err), "{command}");
        }
    }
}

#[test]
fn plan_checks_paths_to_join_unless_overridden() {
    for caller in Caller::all() {
        let plan = |args: &[&str]| {
            let (status, out, err) =
                caller.run(&[&["plan", "--assume", "uid=0"], args, &["--", "true"]].concat());
            assert_eq!(err, "", "{args:?}");
            // The output has columns as wide as the widest word, so compare single words.
            (status, out.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let (status, text) = plan(&["--join", "net=/no/such"]);
        assert!(status == 1 && text.contains("net namespace to join missing"), "{text}");
        assert!(text.contains("failed to open /no/such: No such file or directory"), "{text}");
        let (status, text) = plan(&["--join", "net=/etc/passwd"]);
        assert!(status == 1 && text.contains("net namespace to join no namespace"), "{text}");
        let (status, text) = plan(&["--join", "net=/no/such", "--assume", "join=net:there"]);
        assert!(status == 0 && !text.contains("namespace to join"), "{text}");
        let (status, text) = plan(&["--join", "net=/proc/self/ns/net", "--assume", "join=net:fifo"]);
        assert!(status == 1 && text.contains("net namespace to join a FIFO"), "{text}");
        // The facts that determine root's rights in an existing user namespace.
        let user = ["--join", "user=/no/such", "--assume", "join=user:there", "--assume", "setgroups=deny"];
        let (status, text) = plan(&user);
        assert!(status == 0 && text.contains("setgroups in it denied"), "{text}");
        assert!(text.contains("setgroups(0, NULL) = -1 EPERM"), "{text}");
        let (status, text) = plan(&[&user[..], &["--assume", "user-map=none"]].concat());
        assert!(status == 1 && text.contains("user ids in it none mapped"), "{text}");
    }
}

/// Time namespaces exist since Linux 5.6; a kernel can be built without any kind.
#[test]
fn plan_fails_for_a_kind_that_the_assumed_kernel_lacks() {
    for caller in Caller::all() {
        let plan = |assumed: &[&str]| {
            let all = assumed.iter().flat_map(|fact| ["--assume", fact]);
            let words: Vec<&str> =
                ["plan", "-r", "-T", "-i"].into_iter().chain(all).chain(["--", "/bin/true"]).collect();
            let (status, out, _) = caller.run(&words);
            (status, out.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(plan(&["kernel=5.6"]).0, 0);
        for (fact, kind, flag) in [
            ("kernel=5.5", "time", "CLONE_NEWTIME"),
            ("absent=time", "time", "CLONE_NEWTIME"),
            ("absent=ipc", "ipc", "CLONE_NEWIPC"),
        ] {
            let (status, text) = plan(&[fact]);
            assert!(status == 1, "{fact}: {text}");
            assert!(
                text.contains(&format!("{kind} namespaces the kernel does not have them")),
                "{fact}: {text}"
            );
            let refused = text.split(") = -1 EINVAL").next().filter(|before| before.len() < text.len());
            assert!(refused.is_some_and(|before| before.contains(flag)), "{fact}: {text}");
        }
    }
}

#[test]
fn plan_searches_for_the_command_and_shows_refusals() {
    for caller in Caller::all() {
        for (command, status, reply) in [
            ("/etc/passwd", 1, "-1 EACCES"),
            ("/etc/passwd/sh", 1, "-1 ENOTDIR"),
            ("/etc", 1, "-1 EACCES"),
            ("/no/such", 1, "-1 ENOENT"),
        ] {
            let (found, text, _) = caller.run(&["plan", "-r", "--", command]);
            let tried = text.lines().find(|line| line.trim_start().starts_with("execve("));
            let tried = tried.unwrap_or_default();
            assert!(found == status && tried.contains(&format!("vars */) = {reply}")), "{command}: {text}");
        }
        // The launch would not find the command; on another machine it may exist.
        let (status, text, _) = caller.run(&["plan", "-r", "--", "no-such-command"]);
        assert!(status == 1 && text.contains("failed to execute no-such-command: No such file"), "{text}");
        let there = ["plan", "-r", "--assume", "command=/no/such", "--", "/no/such"];
        assert_eq!(caller.run(&there).0, 0);
    }
}

impl Caller {
    /// Runs the program as [`command`](Self::command), with RLIMIT_FSIZE 0 and its output in files. Returns
    /// the exit status and standard error.
    fn without_file_size(&self, args: &[&str]) -> (Option<i32>, String) {
        let [out, err] = ["out", "err"].map(|name| self.folder.join(name));
        let file = |path: &PathBuf| fs::File::create(path).unwrap();
        let plain = self.command(args);
        let mut command = program("sh");
        command
            .args(["-c", "ulimit -f 0; exec \"$0\" \"$@\""])
            .arg(plain.get_program())
            .args(plain.get_args());
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/").stdin(Stdio::null());
        if self.uid == ORDINARY_UID {
            command.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        let output = command.stdout(file(&out)).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "", "{args:?}");
        // Again, with standard error in a file as well: only the status can report the error.
        let silent = command.stdout(file(&out)).stderr(file(&err)).status().unwrap();
        assert_eq!(silent, output.status, "{args:?}");
        assert_eq!(fs::read_to_string(&err).unwrap(), "", "{args:?}");
        (Some(nsexec::launch::exit_code(output.status)), String::from_utf8(output.stderr).unwrap())
    }
}

/// With RLIMIT_FSIZE, a write beyond the limit is reported as an error, and the program is never killed by
/// SIGXFSZ.
#[test]
fn file_size_limit_is_an_error_and_not_sigxfsz() {
    for caller in Caller::all() {
        let message = caller.folder.join("message");
        fs::write(&message, caller.output(&["encode", "-r"]).stdout).unwrap();
        let message = message.to_str().unwrap();
        let too_large = "File too large (the limit on file size is below it: ulimit -f)\n";
        for args in [
            &["--help"][..],
            &["--version"],
            &["run", "--help"],
            &["encode", "-r"],
            &["decode", message],
            &["decode", "--json", message],
            &["plan", "--rules"],
            &["plan", "-r", "--", "true"],
            &["plan", "-r", "--format", "svg", "--", "true"],
            &["plan", "-r", "--format", "json", "--", "true"],
            &["plan", "--bootstrap", message],
        ] {
            let want = format!("nsexec: failed to write standard output: {too_large}");
            assert_eq!(caller.without_file_size(args), (Some(1), want), "{args:?}");
        }
        // A failure that is printed on standard error only keeps its status.
        for (args, status) in [
            (&["--bogus"][..], 2),
            (&["run", "--setgroups", "deny", "-u", "--", "true"], 2),
            (&["decode", "/nonexistent"], 1),
            (&["enter", "-t", "2147483647", "-n", "--", "true"], 1),
        ] {
            let (code, err) = caller.without_file_size(args);
            assert!(code == Some(status) && !err.is_empty(), "{args:?}: {code:?} {err}");
        }
    }
}

/// With a setuid or setgid bit or file capabilities set by mistake, every subcommand refuses to run before it
/// reads any input.
#[test]
fn setuid_setgid_and_file_capabilities_are_refused() {
    let Some(caller) = Caller::all().into_iter().find(|caller| caller.uid == ORDINARY_UID) else {
        let line = "\nskipped: cli::setuid_setgid_and_file_capabilities_are_refused: needs root\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let nsexec = caller.folder.join("nsexec");
    let command = |args: &[&str]| {
        let mut command = program(&nsexec);
        command.args(args).uid(ORDINARY_UID).gid(ORDINARY_UID).current_dir("/").stdin(Stdio::null());
        // A variable that makes `init` fail, and others that change the output of the rest.
        command
            .env("_LIBCONTAINER_INITPIPE", "x")
            .env("_LIBCONTAINER_LOGPIPE", "1")
            .env("PATH", "/nonexistent");
        command.output().unwrap()
    };
    let mode = |mode: u32| fs::set_permissions(&nsexec, fs::Permissions::from_mode(mode)).unwrap();
    let subcommands: [&[&str]; 12] = [
        &["run", "-r", "--", "id"],
        &["enter", "-t", "1", "-a", "--", "id"],
        &["encode", "-r"],
        &["decode", "/dev/null"],
        &["plan", "-r"],
        &["plan", "--rules"],
        &["trace", "-r", "--", "id"],
        &["trace", "--replay", "/dev/null"],
        &["init"],
        &["--version"],
        &["--bogus"],
        &[],
    ];
    let refused = |cause: &str| {
        for args in subcommands {
            let output = command(args);
            let err = String::from_utf8(output.stderr).unwrap();
            let start = "nsexec: refused to run with privileges that the caller does not have: ";
            let rest = err.strip_prefix(start).unwrap_or_else(|| panic!("{cause} {args:?}: {err}"));
            assert!(rest.starts_with(cause) && rest.matches('\n').count() == 1, "{args:?}: {rest}");
            assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{cause} {args:?}");
        }
    };
    mode(0o4755);
    refused("effective user id 0, real user id 54321 (a setuid bit on this file");
    mode(0o2755);
    refused("effective group id 0, real group id 54321 (a setgid bit on this file");
    mode(0o755);
    assert!(command(&["--version"]).status.success());
    // `struct vfs_cap_data` (capabilities(7)), version 2: CAP_SYS_ADMIN, with the effective bit.
    let words: [u32; 5] = [0x0200_0001, 1 << 21, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = std::ffi::CString::new(nsexec.to_str().unwrap()).unwrap();
    // SAFETY: both names are NUL-terminated, and the value has the given length.
    let set = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let path = nsexec.display();
    refused(&format!(
        "capabilities of the program's file (setcap -r removes them), or a security module's rule for it: {path}\n"
    ));
    // root that drops only the effective id is refused. The message names both ids and the remedy.
    fs::set_permissions(&nsexec, fs::Permissions::from_mode(0o755)).unwrap();
    for (call, id, remedy) in [
        (
            libc::setreuid as unsafe extern "C" fn(u32, u32) -> i32,
            "user",
            "drop both, as setpriv --reuid does",
        ),
        (libc::setregid, "group", "drop both, as setpriv --regid does"),
    ] {
        let mut command = program(&nsexec);
        command.args(["run", "-r", "--", "id"]).current_dir("/").stdin(Stdio::null());
        let drop_effective = move || {
            // SAFETY: the call takes two numbers, and the process has a single thread.
            match unsafe { call(u32::MAX, ORDINARY_UID) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes a single system call.
        unsafe { command.pre_exec(drop_effective) };
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        let start = format!(
            "nsexec: refused to run with different real and effective {id} ids: effective {id} id {ORDINARY_UID}, real {id} id 0"
        );
        assert!(err.starts_with(&start) && err.contains(remedy) && err.lines().count() == 1, "{err}");
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{err}");
    }
    // A setuid bit for root gives root no further privileges.
    mode(0o4755);
    assert!(program(&nsexec).arg("--version").output().unwrap().status.success());
}

/// With RLIMIT_AS, the program ends with one line and an exit status, and not by a signal, wherever memory
/// runs out.
#[test]
fn out_of_memory_exits_with_one_line() {
    let caller = Caller::all().remove(0);
    let nsexec = caller.folder.join("nsexec");
    let message = caller.folder.join("message");
    fs::write(&message, caller.output(&["encode", "-r"]).stdout).unwrap();
    let mut told = 0;
    for args in [
        &["run", "--", "true"][..],
        &["trace", "--", "true"],
        &["plan", "-r"],
        &["plan", "-r", "--format", "svg"],
        &["encode", "-r"],
        &["decode", message.to_str().unwrap()],
        &["--help"],
    ] {
        let limited = |kilobytes: u64| {
            let mut command = program("sh");
            command
                .args(["-c", &format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"")])
                .arg(&nsexec)
                .args(args);
            command.stdin(Stdio::null()).current_dir("/").output().unwrap()
        };
        // Search the smallest limit that is sufficient, in steps of 16 KiB.
        let (mut fails, mut works) = (1_u64 << 10, 1_u64 << 20);
        while works - fails > 16 {
            let middle = fails.midpoint(works);
            *(if limited(middle).status.success() { &mut works } else { &mut fails }) = middle;
        }
        for below in (0..48).map(|step| step * 32) {
            let output = limited(works.saturating_sub(below));
            let err = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {}
                // The loader failed before it started the program, or the kernel before it started the
                // loader.
                Some(126 | 127) => assert!(!err.starts_with("nsexec: out of"), "{args:?} {err}"),
                Some(1) => {
                    let memory = ["out of memory", "Cannot allocate memory", "no memory"];
                    let is_told =
                        memory.iter().any(|words| err.contains(words)) && err.starts_with("nsexec: ");
                    assert!(is_told, "{args:?}, {below} KiB below {works}: {err}");
                    told += 1;
                }
                _ => panic!("{args:?}, {below} KiB below {works}: {} {err}", output.status),
            }
        }
    }
    assert!(told > 20, "{told}");
}

/// With RLIMIT_NOFILE, the error names the first object that gets no descriptor, and the limit.
#[test]
fn open_file_limit_names_the_first_missing_descriptor() {
    for caller in Caller::all() {
        let run = |limit: u32| {
            let nsexec = caller.folder.join("nsexec");
            let mut command = program("sh");
            let script = format!("ulimit -n {limit}; exec {} run -f -r -- true", nsexec.display());
            if caller.uid == ORDINARY_UID {
                command.uid(ORDINARY_UID).gid(ORDINARY_UID);
            }
            let output =
                command.args(["-c", &script]).current_dir("/").stdin(Stdio::null()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        // The loader needs one descriptor for its libraries, and closes it again.
        let want = "nsexec: failed to create the signalfd for signals to the command: Too many open files (the limit on \
                    open files is reached: raise ulimit -n)\n";
        assert_eq!(run(4), (Some(1), want.to_owned()));
        for limit in 5..9 {
            let (code, err) = run(limit);
            let named =
                err.contains("Too many open files (the limit on open files is reached: raise ulimit -n)");
            assert!(code == Some(1) && named && !err.contains("signal"), "{limit}: {code:?} {err}");
        }
    }
}

/// A process in namespaces of its own. It is killed and reaped at the end of the test, even if the test
/// fails.
struct Target(std::process::Child);

impl Target {
    /// Starts a script in a user namespace and in those of the flags of unshare(1).
    fn new(caller: &Caller, flags: &[&str], script: &str) -> Self {
        let mut target = program("unshare");
        target.args(["--user", "--map-root-user"]).args(flags).args(["sh", "-c", script]);
        if caller.uid == ORDINARY_UID {
            target.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        Self::start(&mut target)
    }

    /// Starts the command and waits for its first byte, which follows the creation of the namespaces.
    fn start(command: &mut Command) -> Self {
        let command = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut target = Self(command.spawn().unwrap());
        std::io::Read::read_exact(target.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        target
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With RLIMIT_NOFILE, `enter` always names the limit, and blames neither the process nor its /proc.
#[test]
fn enter_names_the_open_file_limit() {
    for caller in Caller::all() {
        if !caller.may_unshare("enter_names_the_open_file_limit") {
            continue;
        }
        // Its working directory is to be taken over, which needs descriptors too.
        let target = Target::new(&caller, &["--uts", "--mount"], "cd /usr; echo; read line");
        let mut refused = 0;
        for limit in 4..40 {
            let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
            let mut command = program("sh");
            command.args(["-c", &script]).arg(caller.folder.join("nsexec"));
            command.args(["enter", "-t", &target.pid(), "-a", "--", "pwd"]);
            if caller.uid == ORDINARY_UID {
                command.uid(ORDINARY_UID).gid(ORDINARY_UID);
            }
            let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            if output.status.success() {
                assert_eq!((&*output.stdout, &*err), (&b"/usr\n"[..], ""), "{limit}");
                break;
            }
            assert!(
                err.contains("Too many open files (the limit on open files is reached: raise ulimit -n)"),
                "{limit}: {err}"
            );
            assert!(!err.contains("pid namespace,") && !err.contains("No such process"), "{limit}: {err}");
            assert_eq!((output.status.code(), err.lines().count()), (Some(1), 1), "{limit}: {err}");
            refused += 1;
        }
        assert!((3..26).contains(&refused), "{refused}");
    }
}

/// The caller's environment contains the mark of a sealed copy. The error names the variable, and no value
/// makes the program copy itself for ever.
#[test]
fn copy_mark_in_the_environment_is_reported() {
    let Some(caller) = Caller::all().into_iter().find(|caller| caller.uid == 0) else {
        let line = "\nskipped: cli::copy_mark_in_the_environment_is_reported: needs root\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let mut target = program("unshare");
    target.args(["--mount", "sh", "-c", "echo; read line"]);
    let target = Target::start(&mut target);
    let enter = |mark: &str| {
        let pid = target.pid();
        let mut command =
            caller.command(&["enter", "-t", &pid, "-m", "--", "printenv", "_NSEXEC_SEALED_COPY"]);
        let output = command.env("_NSEXEC_SEALED_COPY", mark).output().unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    for mark in ["2", "2 name"] {
        let (code, out, err) = enter(mark);
        assert_eq!((code, out, err.lines().count()), (Some(1), Vec::new(), 1), "{mark}: {err}");
        assert!(err.contains("Remove _NSEXEC_SEALED_COPY from the environment"), "{mark}: {err}");
    }
    // printenv fails and prints nothing: the program runs from a copy, and has removed the variable.
    for mark in ["", "1", "x", "1 name"] {
        assert_eq!(enter(mark), (Some(1), Vec::new(), String::new()), "{mark}");
    }
}

#[test]
fn record_beyond_the_file_size_limit_is_an_error() {
    for caller in Caller::all() {
        if !caller.may_unshare("record_beyond_the_file_size_limit_is_an_error") {
            continue;
        }
        let json = caller.folder.join("json");
        fs::write(&json, "").unwrap();
        fs::set_permissions(&json, fs::Permissions::from_mode(0o666)).unwrap();
        let json = json.to_str().unwrap();
        let (code, err) = caller.without_file_size(&["trace", "--json", json, "-r", "--", "true"]);
        let want = format!("nsexec: failed to write {json}: File too large (the limit on file size");
        assert!(code == Some(1) && err.contains(&want), "{code:?} {err}");
        // The record itself is in no file, so the limit does not concern it.
        assert!(!err.contains("lost") && err.contains("ulimit -f"), "{err}");
        let (code, err) = caller.without_file_size(&["trace", "--witness", "-r", "--", "true"]);
        assert!(
            code == Some(1) && err.starts_with("nsexec: strace would be ended by SIGXFSZ"),
            "{code:?} {err}"
        );
        // If only standard error is in the full file, a success stays a success; the output alone is lost.
        let verbose = ["run", "-v", "-r", "--", "true"];
        assert_eq!(caller.without_file_size(&verbose).0, Some(0));
        assert_eq!(caller.without_file_size(&["run", "-r", "--", "/nonexistent"]).0, Some(127));
        // The command has the caller's disposition of SIGXFSZ, so it is killed by it.
        let dies = ["run", "-r", "--", "sh", "-c", "exec echo it grows"];
        assert_eq!(caller.without_file_size(&dies).0, Some(128 + 25));
        for trap in ["", "trap '' XFSZ;"] {
            let sets = "grep -E '^Sig(Blk|Ign):' /proc/self/status";
            let plain = program("bash").args(["-c", &format!("{trap} exec {sets}")]).output().unwrap();
            let script = format!("{trap} exec {} run -r -- {sets}", caller.folder.join("nsexec").display());
            let mut through = program("bash");
            if caller.uid == ORDINARY_UID {
                through.uid(ORDINARY_UID).gid(ORDINARY_UID);
            }
            let through = through.args(["-c", &script]).current_dir("/").output().unwrap();
            // Ignore the real-time signals of the C library, which are above the others.
            let sets = |output: Vec<u8>| -> Vec<u64> {
                let text = String::from_utf8(output).unwrap();
                let set =
                    |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
                text.lines().map(|line| set(line) & 0x7fff_ffff).collect()
            };
            let ignored = if trap.is_empty() { 0 } else { 1 << 24 };
            let plain = sets(plain.stdout);
            assert_eq!((sets(through.stdout), plain[1] & (1 << 24)), (plain, ignored), "{trap}");
        }
    }
}

#[test]
fn man_pages_and_completions_are_complete() {
    for caller in Caller::all() {
        let shown = |args: &[&str]| {
            let output = caller.command(args).output().unwrap();
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        // Each command of the help has a page, and each flag of its help is on it.
        let (_, help, _) = shown(&["--help"]);
        let commands: Vec<&str> = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .collect();
        assert!(commands.contains(&"run") && commands.len() >= 9, "{commands:?}");
        for command in commands {
            let (status, page, error) = shown(&["man", command]);
            assert_eq!((status, error.as_str()), (Some(0), ""), "{command}");
            assert!(page.contains(&format!(".TH nsexec-{command} 1")), "{command}: {page}");
            for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "FILES", "\"SEE ALSO\""] {
                let bare = section.trim_matches('"');
                assert!(
                    page.contains(&format!(".SH {section}")) || page.contains(&format!(".SH {bare}")),
                    "{command}: {section}"
                );
            }
            let (_, help, _) = shown(&[command, "--help"]);
            for flag in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3) {
                let flag = flag.trim_end_matches([',', '.', ')', ';', ':']).split(['=', '[']).next().unwrap();
                assert!(page.contains(&flag.replace('-', "\\-")), "{command}: {flag} is not on its page");
            }
        }
        let (status, page, _) = shown(&["man"]);
        assert!(status == Some(0) && page.contains("128+n") && page.contains("CLICOLOR"), "{page}");
        let (status, page, _) = shown(&["man", "plan enter"]);
        assert!(status == Some(0) && page.contains(".TH nsexec-plan-enter 1"), "{page}");
        let (status, _, error) = shown(&["man", "rnu"]);
        assert!(status == Some(2) && error.contains("no command 'rnu'; the commands are run"), "{error}");
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let (status, script, _) = shown(&["completions", shell]);
            assert!(
                status == Some(0) && script.contains("map-users") && script.contains("preserve-credentials"),
                "{shell}"
            );
        }
        let (status, _, error) = shown(&["completions", "csh"]);
        assert!(status == Some(2) && error.contains("csh"), "{error}");
        let pages = caller.folder.join("pages");
        let dir = pages.to_str().unwrap();
        if fs::metadata("/proc/self").unwrap().uid() == caller.uid {
            assert_eq!(shown(&["man", "--dir", dir]).0, Some(0));
            assert!(fs::read_to_string(pages.join("nsexec.1")).unwrap().contains(".TH nsexec 1"));
            assert!(pages.join("nsexec-enter.1").exists());
        } else {
            let (status, _, error) = shown(&["man", "--dir", dir]);
            assert!(
                status == Some(1) && error.contains("failed to create") && error.contains(dir),
                "{error}"
            );
        }
    }
}
