//! Tests of the witness. A faulty backend between the recorder and the kernel falsifies one call or reply, so
//! the record is wrong. The comparison with strace's output of the same run must show each such lie, and no
//! difference without one.
//!
//! The program executes itself under strace. The inner run makes calls through `Recorder<FaultyBackend>`:
//! either calls of nearly every kind one by one, or a whole launch.

mod liar;
mod planted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock};

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::launch::signals::Signals;
use nsexec::policy::{Credentials, Policy, Session};
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec_audit::diff::compare;
use nsexec_audit::record::Answered;
use nsexec_audit::record::Recorder;
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::witness::{self, mark_begin, mark_end, outline};
use nsexec_audit::{Role, Run, sections};
use support::{Suite, Test, Threads, Verdict};

use liar::FaultyBackend;
use planted::{LIES, Lie, Planted, Run as Way};

/// The environment variables for the inner run: the name of the lie, and the file for the record.
const LIE: &str = "NSEXEC_TEST_LIE";
const OUT: &str = "NSEXEC_TEST_LIE_OUT";

/// A variable of the command whose value must not be printed.
const SECRET: (&str, &str) = ("NSEXEC_TEST_TOKEN", "s3cret-of-the-command");

fn main() -> ExitCode {
    if let (Some(lie), Some(out)) = (std::env::var_os(LIE), std::env::var_os(OUT)) {
        let lie = LIES.iter().find(|planted| planted.name == lie).expect("a lie of that name");
        inner(lie, Path::new(&out));
        return ExitCode::SUCCESS;
    }
    let folder = Arc::new(LazyLock::new(Folder::new));
    let test = |planted: &'static Planted| {
        let folder = folder.clone();
        Test::new(planted.name, move || {
            if Command::new("strace").arg("-V").output().is_err() {
                return Verdict::Skipped("there is no strace".to_owned());
            }
            check_lie(planted, &folder.0).into()
        })
    };
    Suite::new("lies", LIES.iter().map(test).collect()).main(Threads::One)
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nsexec-lies-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// -- the outer run: compares --------------------------------------------------------------------------------

/// Runs with one lie under strace. Returns an error if the comparison does not show the lie, or shows a
/// difference without a lie.
fn check_lie(planted: &Planted, folder: &Path) -> Result<(), String> {
    let (out, strace) = (folder.join("record"), folder.join("strace"));
    let output = Command::new("strace")
        .args(witness::FLAGS)
        .arg("-o")
        .arg(&strace)
        .arg(std::env::current_exe().map_err(|error| error.to_string())?)
        .env(LIE, planted.name)
        .env(OUT, &out)
        .env(SECRET.0, SECRET.1)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let record = Run::from_json_lines(&read(&out)?).map_err(|error| error.to_string())?;
    let files = witness::split_by_process(&read(&strace)?);
    let seen = witness::run_of(&files, Role::Launcher).map_err(|error| error.to_string())?;
    for file in [out, strace] {
        fs::remove_file(file).map_err(|error| error.to_string())?;
    }
    if record.lost > 0 {
        return Err(format!("{} lines were lost", record.lost));
    }
    let diff = compare(&record, &seen);
    let text = diff.to_string();
    if text.contains(SECRET.1) {
        return Err(format!("the secret is shown:\n{text}"));
    }
    // The comparison for an ordinary user's strace, which cannot read a non-dumpable process.
    let said = outline::of_run(&record);
    let outlines = outline::of_files(&files, Role::Launcher).map_err(|error| error.to_string())?;
    let outline = outline::compare(&said, &outlines);
    let Some(call) = planted.call else {
        let same = diff.is_empty() && outline.is_empty();
        return if same { Ok(()) } else { Err(format!("without a lie:\n{text}{outline:?}")) };
    };
    // The first line that differs in some process must be of the falsified call.
    let marked = |line: &str| line.starts_with("  >") && line.contains(call);
    if !text.lines().any(marked) {
        return Err(format!("no difference in {call}:\n{text}"));
    }
    if !text.contains(planted.says) {
        return Err(format!("it does not say '{}':\n{text}", planted.says));
    }
    if planted.in_registers && outline.is_empty() {
        return Err("names and numbers are the same".to_owned());
    }
    Ok(())
}

// -- the inner run: makes the calls -------------------------------------------------------------------------

fn inner(planted: &Planted, out: &Path) {
    let (sink, reader) = SharedSink::new().expect("a sink");
    match planted.way {
        Way::EachCall => {
            // If a lie makes a call block for ever, the test must fail.
            // SAFETY: alarm(2) takes a number. SIGALRM has its default disposition, which ends this process.
            unsafe { libc::alarm(30) };
            mark_begin();
            // SAFETY: this process has a single thread.
            let liar = FaultyBackend::new(unsafe { LinuxSys::new() }, planted.lie);
            make_each_call(&mut Recorder::new(Answered(liar), sink));
            mark_end();
        }
        way => {
            launch(way, planted.lie, |liar| {
                mark_begin();
                Recorder::new(Answered(liar), sink)
            });
        }
    }
    let run = sections::of_record(&reader.read().expect("a record"), Role::Launcher);
    fs::write(out, run.to_json_lines().expect("JSON")).expect("a file for the record");
}

/// Makes every call that has no lasting effect. The results do not matter.
fn make_each_call<S: Sys>(sys: &mut S) {
    let (own, tid) = (sys.getpid(), sys.tid_address().ok());
    sys.gettid();
    let (one, other) = sys.socketpair().expect("a pair");
    let (read, write) = sys.pipe2().expect("a pipe");
    let mut buffer = [0; 64];
    let _ = sys.dup3(one, Fd(40));
    // Read only after a successful write: a lie may have sent the bytes elsewhere.
    if sys.write(write, b"written").is_ok() {
        let _ = sys.read(read, &mut buffer);
    }
    let _ = sys.write_nowait(write, b"again");
    if sys.send(one, b"sent").is_ok() {
        let _ = sys.read(other, &mut buffer);
    }
    let _ = sys.poll(&mut [PollFd::new(read, PollEvents::IN), PollFd::new(Fd(-1), PollEvents::IN)], 0);
    if sys.send_fd(one, read).is_ok() {
        let _ = sys.receive_fd(other);
    }
    let ns = sys.openat(Fd::CWD, c"/proc/self/ns/uts", OpenFlags::Namespace).expect("a namespace");
    let _ = sys.fstatfs(ns);
    let _ = sys.socket_type(one);
    let proc = sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory).expect("/proc");
    let _ = sys.openat2(proc, c"self/stat", OpenFlags::ReadOnly);
    let _ = sys.setns(ns, CloneFlags::NEWUTS);
    let _ = sys.unshare(CloneFlags::EMPTY);
    let list = sys.openat(Fd::CWD, c"/proc/self/fd", OpenFlags::List).expect("a directory");
    let _ = sys.getdents64(list, &mut [0xff; 1024]);
    let _ = sys.link_count(c"/proc/self/task");
    let _ = sys.readlink(c"/proc/self", &mut buffer);
    let _ = sys.is_read_only(c"/proc");
    let _ = sys.set_name(c"a name of 17 char");
    let _ = sys.set_dumpable(true);
    let _ = sys.set_pdeathsig(Signal(0));
    let _ = sys.set_cloexec(list, true);
    let _ = sys.close_range_cloexec(Fd(900));
    let _ = sys.close_range(950, 960);
    let _ = sys.sched_getaffinity();
    let _ = sys.set_groups(&[4, 20]);
    if let Ok(copy) = sys.dup_above(list, Fd(40)) {
        let _ = sys.dup_to(copy, Fd(39));
        let _ = sys.close(Fd(39));
        let _ = sys.close(copy);
    }
    let _ = sys.chdir(c"/");
    let _ = sys.run_hook(Hook { number: 0, code: &|| Ok(()) });
    change_attributes(sys);
    let _ = sys.setresuid(u32::MAX);
    if let Ok(memory) = sys.memfd_create(c"lies", false) {
        let _ = sys.fchmod(memory, 0o500);
        let _ = sys.sendfile(memory, list, 1);
        let _ = sys.add_seals(memory, Seals::SEAL);
        let _ = sys.get_seals(memory);
    }
    let _ = sys.unlink(c"/nowhere");
    // Only in a mount namespace of our own: on the host this would change the machine.
    if sys.unshare(CloneFlags::NEWNS).is_ok() {
        let _ = sys.mount(Mount::Propagation(Propagation::Private));
        let _ = sys.mount(Mount::Sysfs { read_only: true });
        change_tree(sys);
    }
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).expect("a mask");
    let _ = sys.sigtimedwait(SignalSet::PIPE);
    let is_blocked = sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY);
    // Only if the signal is certainly pending: a lie about the mask or the pipe must not block this process.
    if is_blocked.is_ok_and(|mask| mask.contains(SignalSet::PIPE)) {
        let (end, written) = sys.pipe2().expect("a pipe");
        let _ = sys.close(end);
        if sys.write_nowait(written, b"x") == Err(Errno::EPIPE) {
            let _ = sys.wait_signal(SignalSet::PIPE);
        }
        let _ = sys.close(written);
    }
    let _ = sys.sigprocmask(MaskHow::Set, mask);
    let old = sys.sigaction(Signal(12), SigAction::IGNORE).expect("a disposition");
    let _ = sys.sigaction(Signal(12), old);
    let _ = sys.kill(own, Signal(0));

    // This child acts as stage 0. It kills a child of its own, which acts as a mapping tool, and then
    // executes another program.
    let becomes = child(sys, tid, |sys| {
        let waits = child(sys, tid, |sys| while sys.read(read, &mut buffer).is_ok_and(|got| got > 0) {});
        if let Ok(pidfd) = sys.pidfd_open(waits) {
            let _ = sys.kill(waits, Signal::KILL);
            let _ = sys.poll(&mut [PollFd::new(pidfd, PollEvents::IN)], 2000);
            let _ = sys.close(pidfd);
        }
        let _ = sys.wait4(waits, WaitFor::Ordinary);
        let (mut argv, mut envp) = ([const { None }; 4], [const { None }; 4]);
        let argv = ExecArgs::build(b"true\0one\0two\0", &mut argv).expect("arguments");
        let text = format!("FIRST=1\0{}={}\0LAST=3\0", SECRET.0, SECRET.1);
        let envp = ExecArgs::build(text.as_bytes(), &mut envp).expect("an environment");
        sys.execveat(Fd(900), &argv, &envp);
        sys.execve(c"/bin/true", &argv, &envp);
    });
    let _ = sys.wait4(becomes, WaitFor::Ordinary);
    make_init(sys, tid);
    make_stage_1(sys, tid);
    for fd in [one, other, read, write, ns, list] {
        let _ = sys.close(fd);
    }
}

/// Makes the calls that set attributes, so that none has an effect that a later call meets.
fn change_attributes<S: Sys>(sys: &mut S) {
    let _ = sys.umask(0o22);
    let _ = sys.set_limit(Limit { resource: Resource::CORE, soft: 2048, hard: 4096 });
    if sys.unshare(CloneFlags::NEWUTS).is_ok() {
        let _ = sys.set_hostname(b"lies");
    }
    if let Ok(socket) = sys.inet_socket() {
        let _ = sys.close(socket);
    }
    let _ = sys.set_loopback_up(Fd(900));
    let _ = sys.set_controlling_terminal(Fd(900));
    let _ = sys.new_session_keyring();
    let _ = sys.keep_capabilities(false);
    // No kernel knows these capabilities.
    let _ = sys.drop_bounding(Capability(62));
    let _ = sys.raise_ambient(Capability(62));
    // Effective, and not permitted.
    let _ = sys.set_capabilities(CapabilitySets { effective: 1, permitted: 0, inheritable: 0 });
    let _ = sys.set_no_new_privs();
    let _ = sys.landlock_restrict_self(Fd(900));
    let _ = sys.set_seccomp_filter(&[]);
}

/// Makes the calls that change the tree of mounts, in a mount namespace of its own. The record is written to
/// a path later, so no lie may lead to another root.
fn change_tree<S: Sys>(sys: &mut S) {
    let root = sys.openat(Fd::CWD, c"/", OpenFlags::Path).expect("the root");
    let etc = sys.openat(Fd::CWD, c"/etc", OpenFlags::Path).expect("a directory");
    if sys.fchdir(root).is_ok() {
        let _ = sys.chroot_here();
        let _ = sys.pivot_root_here();
        let _ = sys.mount_here(MountKind::Sysfs, c"mode=1");
    }
    if sys.fchdir(etc).is_ok() {
        let _ = sys.detach_here();
    }
    if let Ok(copy) = sys.open_tree(c"/etc", true) {
        let read_only = MountAttributes { set: MountAttributes::RDONLY, clear: MountAttributes::NOSUID };
        let _ = sys.set_mount_attributes(copy, true, read_only);
        let _ = sys.open_in_root(copy, c"/.", OpenFlags::Path);
        let _ = sys.move_mount(Fd(900), copy);
    }
    let _ = sys.mkdirat(Fd(900), c"lies", 0o755);
    let _ = sys.symlinkat(c"lies", Fd(900), c"link");
}

/// Clones an init as a direct start does, and waits for it.
fn make_init<S: Sys>(sys: &mut S, tid: Option<TidAddress>) {
    match sys.clone_init(CloneFlags::NEWUSER.union(CloneFlags::NEWPID), None, tid) {
        Ok(InitFork::Child) => {
            sys.setgid(u32::MAX).expect_err("no group");
            // SAFETY: exits this process at once. The rest of its parent's code must not run here.
            unsafe { libc::_exit(7) }
        }
        Ok(InitFork::Parent { child, pidfd }) => {
            let _ = sys.wait4(child, WaitFor::Stages);
            let _ = pidfd.map(|pidfd| sys.close(pidfd));
        }
        // A machine may have no user namespaces. Then the failure is compared.
        Err(_) => {}
    }
}

/// Clones stage 1 as a start through a child does, and waits for it.
fn make_stage_1<S: Sys>(sys: &mut S, tid: Option<TidAddress>) {
    match sys.clone_child(tid).expect("a process") {
        Fork::Child => {
            sys.setgid(u32::MAX).expect_err("no group");
            // SAFETY: exits this process at once. The rest of its parent's code must not run here.
            unsafe { libc::_exit(7) }
        }
        Fork::Parent { child } => {
            let _ = sys.wait4(child, WaitFor::Stages);
        }
    }
}

fn child<S: Sys>(sys: &mut S, tid: Option<TidAddress>, what: impl FnOnce(&mut S)) -> Pid {
    match sys.fork(ExitSignal::Chld, tid).expect("a process") {
        Fork::Parent { child } => child,
        Fork::Child => {
            what(sys);
            // SAFETY: exits this process at once. The rest of its parent's code must not run here.
            unsafe { libc::_exit(7) }
        }
    }
}

/// Launches as `nsexec trace -- true` does, but without a plan.
fn launch<S: Sys>(way: Way, lie: Lie, wrap: impl FnOnce(FaultyBackend) -> S) {
    // SAFETY: queries without arguments.
    let ids = unsafe { [libc::geteuid(), libc::getegid()] };
    let maps = ids.map(|id| std::ffi::CString::new(format!("0 {id} 1\n")).expect("no NUL"));
    let [users, groups] = [&maps[0], &maps[1]].map(|map| IdMap::parse(map).expect("a map"));
    let bootstrap = match way {
        Way::LaunchIntoUser => Bootstrap::new(CloneFlags::NEWUSER)
            .with_rootless_euid(true)
            .with_uid_map(users)
            .with_gid_map(groups),
        _ => Bootstrap::new(CloneFlags::EMPTY),
    };
    let policy = Policy::runc(&Dialect::V1_2)
        .with_session(Session::Keep)
        .with_credentials(Credentials::Keep)
        .with_stages(matches!(way, Way::LaunchThroughStages));
    let mut launcher = Launcher::new(&bootstrap, policy).expect("a launcher");
    let signals = Signals::take().expect("signals");
    launcher.command("true", ["101"]).supervised(&signals);
    let started = launcher.spawn_through(|sys| wrap(FaultyBackend::new(sys, lie)));
    mark_end();
    // Some lies make the launch fail.
    if let Ok(mut child) = started {
        child.wait().expect("its end");
    }
}
