//! A hostile container tries to overwrite the program that joins its mount namespace (CVE-2019-5736).
//!
//! The container's /bin/sh begins with `#!/proc/self/exe`. So the kernel executes the program once more, in
//! the container and with the container's own libgcc_s.so.1 (`hostile/library.c`). The library's constructor
//! keeps a descriptor of the program's file. `hostile/attacker.c` tries to open that file for writing until
//! some time after the launcher's end. The attacked program is a copy in the test's folder.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::launch::encode::{encode, encoded_len};
use nsexec::launch::{LaunchError, Launcher, run_from_sealed_copy};
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::policy::{Policy, Session, Setgroups};
use nsexec::sys::types::CloneFlags;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::joins::sleeper;
use crate::kit::{Cmd, Ctx, Live, until};

pub(crate) const TESTS: &[Test] = &[
    test!(enter_does_not_expose_the_program, BOTH),
    test!(run_join_does_not_expose_the_program, BOTH),
    test!(a_joining_program_of_the_library_is_not_exposed, BOTH),
    test!(a_drop_in_in_a_sealed_copy_is_not_exposed, BOTH),
    test!(without_the_copy_the_program_is_overwritten, BOTH),
    test!(a_drop_in_without_a_copy_is_overwritten, BOTH),
    test!(an_unsealed_program_may_not_join, BOTH),
    test!(a_copy_in_a_directory_is_not_exposed_either, ROOT),
    test!(copy_keeps_arguments_environment_and_signals, BOTH),
    test!(many_arguments_are_passed_on, BOTH),
    test!(rlimit_fsize_smaller_than_the_program_is_an_error, BOTH),
    test!(a_program_that_cannot_be_read_is_an_error, USER),
];

/// The argument that makes this program run as [`joiner`].
pub(crate) const JOINER: &str = "--joiner";

/// How the joining program handles the copy.
const SEALED: &str = "sealed";
const TRUSTING: &str = "trusting";
const NEITHER: &str = "neither";

/// Joins a container's namespaces through the library: `--joiner HOW PATHS COMMAND`.
pub(crate) fn joiner(args: &[String]) -> ExitCode {
    let [how, paths, command] = args else { panic!("--joiner HOW PATHS COMMAND") };
    if how == SEALED {
        run_from_sealed_copy().expect("a sealed copy");
        let name = fs::read_to_string("/proc/self/comm").expect("our name");
        assert!(name.trim() != "" && name.trim().parse::<u32>().is_err(), "our name is {name}");
    }
    let paths = NsPaths::parse(paths.as_bytes(), NsSet::ALL).expect("a list of namespaces");
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
    let policy =
        Policy::runc(&Dialect::V1_2).with_session(Session::Keep).with_setgroups(Setgroups::DropIfAllowed);
    let mut launcher = Launcher::new(&bootstrap, policy).expect("a message");
    if how == TRUSTING {
        launcher.trust_mount_namespace();
    }
    match launcher.command(command, [""; 0]).spawn() {
        Ok(mut child) => {
            child.wait().expect("wait for the command");
            ExitCode::SUCCESS
        }
        Err(error) => {
            assert_eq!(matches!(error, LaunchError::NotSealed), how == NEITHER, "{error}");
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A container that attacks the program that executes its /bin/sh.
struct Hostile<'c> {
    ctx: &'c Ctx,
    root: PathBuf,
    live: Live,
    pid: i32,
}

impl<'c> Hostile<'c> {
    /// Starts a container that has every file that `program` needs for its exec there.
    fn new(ctx: &'c Ctx, program: &Path) -> Self {
        ctx.needs("gcc");
        ctx.needs("ldd");
        let root = ctx.file("root");
        for folder in ["bin", "proc", "dev"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let source =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kernel/hostile").join(name);
        let (container, attacker) = (ctx.file("container"), root.join("attacker"));
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let gcc = |args: &[String]| drop(ctx.cmd("gcc", args).ok());
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-o"].map(str::to_owned);
        gcc(&[&flags[..], &[path(&container), path(&source("container.c"))]].concat());
        gcc(&[&flags[..], &[path(&attacker), path(&source("attacker.c"))]].concat());
        let mut replaced = None;
        for library in [libraries(ctx, program), libraries(ctx, &attacker)].concat() {
            let there = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(there.parent().unwrap()).unwrap();
            fs::copy(&library, &there).unwrap();
            if library.ends_with("libgcc_s.so.1") {
                replaced = Some(there);
            }
        }
        let Some(library) = replaced else { ctx.skip("needs a program that loads libgcc_s.so.1") };
        // The real library is kept under another name, so that the program finds its symbols there.
        let real = library.with_file_name("libreal_gcc_s.so.1");
        let shared = ["-shared", "-fPIC"].map(str::to_owned);
        let soname = |name: &str| format!("-Wl,-soname,{name}");
        fs::write(ctx.file("empty.c"), "").unwrap();
        let stub = [path(&real), path(&ctx.file("empty.c")), soname("libreal_gcc_s.so.1")];
        gcc(&[&shared[..], &flags, &stub].concat());
        let hostile = [
            path(&library),
            path(&source("library.c")),
            soname("libgcc_s.so.1"),
            "-Wl,--no-as-needed".to_owned(),
            path(&real),
        ];
        let genuine = fs::read(&library).unwrap();
        gcc(&[&shared[..], &flags, &hostile].concat());
        fs::write(&real, genuine).unwrap();
        let shell = root.join("bin/sh");
        fs::write(&shell, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/proc/self/exe", root.join("bin/link")).unwrap();

        let user: &[&str] = if ctx.root() { &[] } else { &["user"] };
        let live = ctx.cmd(&container, [&[root.to_str().unwrap()], user].concat()).start().says("on");
        let pid = live.command();
        Self { ctx, root, live, pid }
    }

    /// The kinds of namespaces that the container has. They are joined.
    fn kinds(&self) -> &'static [&'static str] {
        if self.ctx.root() { &["mnt", "pid"] } else { &["user", "mnt", "pid"] }
    }

    /// Returns the namespaces as the list of a message.
    fn paths(&self) -> String {
        let path = |kind: &&str| format!("{kind}:/proc/{}/ns/{kind}", self.pid);
        self.kinds().iter().map(path).collect::<Vec<_>>().join(",")
    }

    /// Lets the container attack `program`, which `launch` starts and waits for. Returns the attacker's
    /// report.
    #[track_caller]
    fn attack(&self, program: &Victim, launch: impl FnOnce()) -> Attack {
        let (gone, report) = (self.root.join("gone"), self.root.join("report"));
        for file in [&gone, &report] {
            if file.exists() {
                fs::remove_file(file).unwrap();
            }
        }
        launch();
        // No process of the launch executes the program any more.
        fs::write(&gone, "").unwrap();
        until("the attacker's report", || report.exists());
        let text = fs::read_to_string(&report).unwrap();
        let mut attack = Attack { text, own_file: false, opened: 0, written: 0, tries: 0 };
        for line in attack.text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let is_victim =
                |dev: &str, ino: &str| (dev.parse(), ino.parse()) == (Ok(program.dev), Ok(program.ino));
            match words[..] {
                ["exe", dev, ino] => attack.own_file = is_victim(dev, ino),
                ["opened", dev, ino, _, written] => {
                    attack.opened += u32::from(is_victim(dev, ino));
                    attack.written += u32::from(written.parse::<i64>().unwrap() > 0);
                }
                ["tries", count] => attack.tries = count.parse().unwrap(),
                _ => panic!("{}", attack.text),
            }
        }
        assert!(attack.tries > 0, "{}", attack.text);
        attack
    }

    fn end(self) {
        self.live.kill_command().exits(0);
    }
}

/// Returns the paths of the shared libraries that a program loads, and of the loader.
fn libraries(ctx: &Ctx, program: &Path) -> Vec<PathBuf> {
    let text = ctx.cmd("ldd", [program]).ok();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

/// The attacker's report.
struct Attack {
    text: String,
    /// The container executed the host's own file, not a copy.
    own_file: bool,
    /// The number of ways in which the host's file was opened for writing.
    opened: u32,
    /// The number of writes that succeeded, to the host's file or to a copy.
    written: u32,
    /// The number of tries after the launcher's end.
    tries: u32,
}

/// The program that is attacked: a copy, so that the original is not overwritten.
struct Victim {
    path: PathBuf,
    dev: u64,
    ino: u64,
    content: Vec<u8>,
    changed: (i64, i64, u32),
}

impl Victim {
    fn copy_of(ctx: &Ctx, program: &Path, name: &str) -> Self {
        let path = ctx.file(name);
        fs::copy(program, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let content = fs::read(&path).unwrap();
        let data = fs::metadata(&path).unwrap();
        Self { dev: data.dev(), ino: data.ino(), changed: Self::changed(&path), path, content }
    }

    fn changed(path: &Path) -> (i64, i64, u32) {
        let data = fs::metadata(path).unwrap();
        (data.mtime(), data.mtime_nsec(), data.mode())
    }

    fn is_intact(&self) -> bool {
        fs::read(&self.path).unwrap() == self.content && Self::changed(&self.path) == self.changed
    }

    /// Checks that the attack ran against a copy and that no write succeeded.
    #[track_caller]
    fn assert_not_written(&self, attack: &Attack) {
        assert_eq!(attack.written, 0, "{}", attack.text);
        self.assert_not_opened(attack);
    }

    /// Checks that the attack ran against a copy, which it may have overwritten.
    #[track_caller]
    fn assert_not_opened(&self, attack: &Attack) {
        assert!(!attack.own_file && attack.opened == 0, "{}", attack.text);
        assert!(self.is_intact(), "{}", attack.text);
    }

    /// Checks that the attack overwrote the program.
    #[track_caller]
    fn assert_overwritten(&self, attack: &Attack) {
        assert!(attack.own_file && attack.opened > 0 && attack.written > 0, "{}", attack.text);
        assert!(!self.is_intact(), "{}", attack.text);
    }
}

fn me() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// The files of the container that lead to our program: a script and a symbolic link.
const SHELLS: [&str; 2] = ["/bin/sh", "/bin/link"];

fn enter_does_not_expose_the_program(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &ctx.bin, "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let pid = hostile.pid.to_string();
    let named = if ctx.root() { "-mp" } else { "-Ump" };
    for (kinds, shell) in ["-a", named].into_iter().zip(SHELLS) {
        let args = ["enter", "-t", &pid, kinds, "--", shell];
        victim.assert_not_written(&hostile.attack(&victim, || ctx.cmd(&victim.path, args).done().exits(0)));
    }
    hostile.end();
}

fn run_join_does_not_expose_the_program(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &ctx.bin, "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let join = |kind: &&str| ["--join".to_owned(), format!("{kind}=/proc/{}/ns/{kind}", hostile.pid)];
    let joins: Vec<String> = hostile.kinds().iter().flat_map(join).collect();
    for (command, shell) in ["run", "trace"].into_iter().zip(SHELLS) {
        let words = [command.to_owned()].into_iter().chain(joins.clone());
        let args: Vec<String> = words.chain(["--", shell].map(str::to_owned)).collect();
        let attack = hostile.attack(&victim, || {
            let done = ctx.cmd(&victim.path, &args).done();
            done.exits(0);
            assert!(command == "run" || done.err.contains("nsexec: as planned"), "{}", done.err);
        });
        victim.assert_not_written(&attack);
    }
    hostile.end();
}

fn join_through_the_library<'c>(ctx: &'c Ctx, victim: &Victim, how: &str, hostile: &Hostile<'_>) -> Cmd<'c> {
    ctx.cmd(&victim.path, [JOINER, how, &hostile.paths(), "/bin/sh"])
}

fn a_joining_program_of_the_library_is_not_exposed(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &me(), "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let launch = || join_through_the_library(ctx, &victim, SEALED, &hostile).done().exits(0);
    victim.assert_not_written(&hostile.attack(&victim, launch));
    hostile.end();
}

/// The control: the same container overwrites a program that makes no copy. So the tests above can fail.
fn without_the_copy_the_program_is_overwritten(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &me(), "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let launch = || join_through_the_library(ctx, &victim, TRUSTING, &hostile).done().exits(0);
    victim.assert_overwritten(&hostile.attack(&victim, launch));
    hostile.end();
}

fn an_unsealed_program_may_not_join(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &me(), "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let words = ["sealed copy", "CVE-2019-5736", "run_from_sealed_copy()", "trust_mount_namespace()"];
    join_through_the_library(ctx, &victim, NEITHER, &hostile).refused(1, &words);
    assert!(!hostile.root.join("report.part").exists() && victim.is_intact());
    hostile.end();
}

/// Starts `nsexec init -- /bin/sh` from this file, as a Go runtime would: sends a message, and waits until
/// all stages have ended.
fn drop_in(ctx: &Ctx, program: &Path, hostile: &Hostile<'_>) {
    let paths = hostile.paths();
    let paths = NsPaths::parse(paths.as_bytes(), NsSet::ALL).unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths).with_rootless_euid(!ctx.root());
    let mut message = vec![0; encoded_len(&bootstrap)];
    let len = encode(&bootstrap, &Dialect::V1_2, &mut message).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&message[..len]).unwrap();
    let mut stage_0 = Command::new(program);
    stage_0
        .args(["init", "--dialect", "v1_2", "--", "/bin/sh"])
        .env_clear()
        .env("_LIBCONTAINER_INITPIPE", "0");
    let mut stage_0 = stage_0.stdin(OwnedFd::from(theirs)).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line).unwrap();
    assert!(stage_0.wait().unwrap().success(), "{line}");
    // {"stage1_pid":A,"stage2_pid":B}
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() > 1);
    let pids: Vec<i32> = numbers.map(|digits| digits.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{line}");
    for pid in pids {
        waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL)).unwrap();
    }
}

fn a_drop_in_in_a_sealed_copy_is_not_exposed(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &ctx.bin, "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    // Like runc's Go code (libcontainer/exeseal) before it starts `runc init`.
    let copy =
        memfd_create("runc_cloned:/proc/self/exe", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    let mut copy = fs::File::from(copy.unwrap());
    copy.write_all(&victim.content).unwrap();
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    victim.assert_not_written(&hostile.attack(&victim, || drop_in(ctx, Path::new(&path), &hostile)));
    hostile.end();
}

/// The drop-in makes no copy in the dialect `v1_2`: its parent must make it.
fn a_drop_in_without_a_copy_is_overwritten(ctx: &Ctx) {
    let victim = Victim::copy_of(ctx, &ctx.bin, "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    victim.assert_overwritten(&hostile.attack(&victim, || drop_in(ctx, &victim.path, &hostile)));
    hostile.end();
}

/// memfd_create fails here. The copy cannot have seals, but has no name, so no later exec can run it.
fn a_copy_in_a_directory_is_not_exposed_either(ctx: &Ctx) {
    ctx.needs("strace");
    let victim = Victim::copy_of(ctx, &ctx.bin, "victim");
    let hostile = Hostile::new(ctx, &victim.path);
    let temporary = ctx.file("temporary");
    fs::create_dir(&temporary).unwrap();
    let pid = hostile.pid.to_string();
    // ENOSYS: an old kernel or a filter. EACCES: vm.memfd_noexec=2.
    for errno in ["ENOSYS", "EACCES"] {
        let inject = format!("inject=memfd_create:error={errno}");
        let strace = ["-qq", "-o", "/dev/null", "-e", &inject, victim.path.to_str().unwrap()];
        let enter = ["enter", "-t", &pid, "-a", "--", "/bin/sh"];
        let args = [&strace[..], &enter].concat();
        let attack =
            hostile.attack(&victim, || ctx.cmd("strace", args).env("TMPDIR", &temporary).done().exits(0));
        victim.assert_not_opened(&attack);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{errno}");
    }
    hostile.end();
}

fn copy_keeps_arguments_environment_and_signals(ctx: &Ctx) {
    let target = sleeper(ctx, &[]);
    let pid = target.command().to_string();
    let enter = |kinds: &str, script: &str| {
        // Unusual values, an ignored signal and a umask. The working directory is / in both
        // cases.
        let bin = ctx.bin.display();
        let outer = format!(
            "trap '' USR2; umask 27; cd /; exec {bin} enter -t {pid} {kinds} -- sh -c '{script}' a '' \"b c\""
        );
        ctx.cmd("env", ["-i", "PATH=/usr/bin:/bin", "ODD= a=b\n", "EMPTY=", "sh", "-c", &outer]).ok()
    };
    // The first call joins the mount namespace and so runs from a copy. The second does neither.
    let script = "env -0 | tr \"\\\\0\" :; echo $# \"$0$1$2\"; umask; pwd; grep ^Sig /proc/self/status";
    let (copied, plain) = (enter("-a --wd=/", script), enter("-U -p -n", script));
    assert!(copied.contains("ODD= a=b") && !copied.contains("SEALED"), "{copied}");
    assert_eq!(copied, plain);
    // The launcher itself runs from a copy.
    let args = ["enter", "-t", &pid, "-a", "--", "sh", "-c", "echo on; exec sleep 100"];
    let live = ctx.nsexec(args).start().says("on");
    let of_launcher = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", live.pid())).unwrap();
    assert_eq!(of_launcher("comm"), "nsexec\n");
    let words: Vec<String> = of_launcher("cmdline").split_terminator('\0').map(str::to_owned).collect();
    assert_eq!(words[1..], args);
    let exe = fs::read_link(format!("/proc/{}/exe", live.pid())).unwrap();
    assert_eq!(exe, Path::new("/memfd:sealed_copy:/proc/self/exe (deleted)"));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", live.pid())).unwrap(), ctx.dir);
    live.end();
    target.end();
}

/// The strings exceed the limit of a single string, so the memory for them must grow.
fn many_arguments_are_passed_on(ctx: &Ctx) {
    let target = sleeper(ctx, &[]);
    let pid = target.command().to_string();
    let words: Vec<String> = (0..6000).map(|number| format!("{number:0100}")).collect();
    let enter = ["enter", "-t", &pid, "-a", "--", "sh", "-c", "echo $# ${#A}", "sh"].map(str::to_owned);
    let cmd = ctx.nsexec([&enter[..], &words].concat()).env("A", "x".repeat(100_000));
    assert_eq!(cmd.env("B", "y".repeat(100_000)).ok(), "6000 100000\n");
    target.end();
}

fn rlimit_fsize_smaller_than_the_program_is_an_error(ctx: &Ctx) {
    let target = sleeper(ctx, &[]);
    let script = format!("ulimit -f 8; exec {} enter -t {} -a -- true", ctx.bin.display(), target.command());
    let words = ["sealed copy", "copying: File too large", "ulimit -f", "CVE-2019-5736"];
    ctx.cmd("sh", ["-c", &script]).refused(1, &words);
    target.end();
}

fn a_program_that_cannot_be_read_is_an_error(ctx: &Ctx) {
    let target = sleeper(ctx, &[]);
    let pid = target.command().to_string();
    let secret = Victim::copy_of(ctx, &ctx.bin, "secret");
    fs::set_permissions(&secret.path, fs::Permissions::from_mode(0o111)).unwrap();
    let words = ["sealed copy", "/proc/self/exe: Permission denied", "readable"];
    ctx.cmd(&secret.path, ["enter", "-t", &pid, "-a", "--", "true"]).refused(1, &words);
    // Without the mount namespace the program makes no copy.
    ctx.cmd(&secret.path, ["enter", "-t", &pid, "-U", "--", "true"]).done().exits(0);
    target.end();
}
