//! Failing calls: system calls of each process of a launch fail, one in each run, with one or two plausible
//! errnos, on the real kernel. By default every second call fails.
//!
//! After each failure the launcher ends. No process, mount or descriptor is left, so no namespace is left
//! either. While the launch lasts, no process waits for longer than a second for a partner that has ended.
//! Either the command ran, or there is one error (two from a drop-in), which names the call or its object,
//! and the errno.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

use crate::inject::{self, Call, End, Fault};
use crate::named;
use crate::stepper::{Ending, Launch};
use crate::{USER, Workspace};

/// One kind of launch.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    start: Start,
    uid: Option<u32>,
}

#[derive(Clone, Copy)]
enum Start {
    /// The program with these arguments.
    Program(&'static [&'static str]),
    /// `nsexec init` of this dialect, with the message that `nsexec encode` writes for these arguments.
    DropIn(&'static str, &'static [&'static str]),
}

const fn program(name: &'static str, args: &'static [&'static str]) -> Case {
    Case { name, start: Start::Program(args), uid: None }
}

const fn drop_in(name: &'static str, dialect: &'static str, args: &'static [&'static str]) -> Case {
    Case { name, start: Start::DropIn(dialect, args), uid: None }
}

/// The same as an ordinary user.
const fn as_user(case: Case) -> Case {
    Case { uid: Some(USER), ..case }
}

const FIVE: &[&str] = &["-m", "-u", "-i", "-n", "-p"];
const MAPPED: &[&str] = &["-r", "-m", "-u", "-i", "-n", "-p"];
const TOOLS: &[&str] = &["-r", "-u", "-p", "--map-users", "auto"];
const JOINED: &[&str] = &[
    "--join=ipc=/proc/TARGET/ns/ipc",
    "--join=uts=/proc/TARGET/ns/uts",
    "--join=pid=/proc/TARGET/ns/pid",
    "--join=mnt=/proc/TARGET/ns/mnt",
];

pub(crate) const CASES: &[Case] = &[
    program("fails_run_in_all_namespaces", &["run"]),
    program("fails_run_in_place", &["run", "-r", "-u"]),
    program("fails_run_with_kill_child", &["run", "-n", "--kill-child"]),
    program("fails_run_with_init", &["run", "--init"]),
    program("fails_run_through_a_child", &["run", "-m", "-p", "--join", "net=/proc/self/ns/net"]),
    program("fails_run_through_the_stages", &["run", "-r", "-m", "-p", "--join", "net=/proc/self/ns/net"]),
    program("fails_run_that_joins", &["run", "--join", "pid=/proc/TARGET/ns/pid", "-m"]),
    as_user(program("fails_run_in_place_with_tools", &["run", "-r", "-n", "--map-users", "auto"])),
    as_user(program("fails_run_with_tools", &["run", "-r", "-n", "-p", "--map-users", "auto"])),
    as_user(program("fails_run_as_user", &["run", "-f", "-r", "-u"])),
    program("fails_enter", &["enter", "-t", "TARGET", "-a"]),
    program("fails_enter_in_place", &["enter", "-t", "TARGET", "-n", "-u", "-F"]),
    drop_in("fails_v1_2", "v1_2", FIVE),
    drop_in("fails_v1_2_mapped", "v1_2", MAPPED),
    drop_in("fails_v1_2_join", "v1_2", JOINED),
    drop_in("fails_v1_1_mapped", "v1_1", MAPPED),
    as_user(drop_in("fails_v1_1_tools", "v1_1", TOOLS)),
    drop_in("fails_v1_0", "v1_0", FIVE),
    drop_in("fails_v1_0_join", "v1_0", JOINED),
    drop_in("fails_seed_mapped", "seed", MAPPED),
];

impl Case {
    /// The programs that the case needs.
    pub(crate) fn needs(&self) -> &'static [&'static str] {
        let (Start::Program(args) | Start::DropIn(_, args)) = self.start;
        match args.contains(&"auto") {
            true => &["/usr/bin/newuidmap", "/usr/bin/newgidmap"],
            false => &[],
        }
    }

    fn is_drop_in(&self) -> bool {
        matches!(self.start, Start::DropIn(..))
    }
}

/// The default of `NSEXEC_STOPS`: every second call of each process fails.
const EVERY: usize = 2;

/// The numbers of the init pipe and of the log pipe in a drop-in.
const INIT: i32 = 100;
const LOG: i32 = 101;

/// A launch with a fault, and the input and output of a drop-in.
struct Ran {
    end: End,
    /// The drop-in has sent the line with the pids.
    answered: bool,
    log: String,
}

/// A case with the arguments for the container of this run. A drop-in also has its bootstrap message.
struct Ready<'a> {
    case: &'a Case,
    workspace: &'a Workspace,
    args: Vec<String>,
    message: Vec<u8>,
}

impl<'a> Ready<'a> {
    fn new(case: &'a Case, workspace: &'a Workspace) -> Self {
        let target = workspace.target().to_string();
        let words = |args: &[&str]| args.iter().map(|arg| arg.replace("TARGET", &target)).collect::<Vec<_>>();
        let (args, message) = match case.start {
            Start::Program(args) => ([words(args), words(&["--", "true"])].concat(), Vec::new()),
            Start::DropIn(dialect, args) => {
                let mut encode = Command::new(&workspace.program);
                encode.args(["encode", "--dialect", dialect]).args(words(args));
                if let Some(uid) = case.uid {
                    encode.uid(uid).gid(uid);
                }
                let output = encode.output().expect("a message");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                (words(&["init", "--dialect", dialect, "--", "true"]), output.stdout)
            }
        };
        Self { case, workspace, args, message }
    }

    fn launch(&self, fault: Option<Fault>) -> Ran {
        let mut launch = Launch {
            program: self.workspace.program.clone(),
            args: self.args.clone(),
            uid: self.case.uid,
            ..Launch::default()
        };
        if !self.case.is_drop_in() {
            return Ran { end: inject::launch(&launch, fault, &class), answered: false, log: String::new() };
        }
        let (mut parent, init) = UnixStream::pair().expect("an init pipe");
        let (log, their_log) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a log pipe");
        parent.write_all(&self.message).expect("the message");
        launch.fds = vec![(init.as_raw_fd(), INIT), (their_log.as_raw_fd(), LOG)];
        let variables = [
            format!("_LIBCONTAINER_INITPIPE={INIT}"),
            format!("_LIBCONTAINER_LOGPIPE={LOG}"),
            // Debug records do not fit into the pipe, which is read at the end.
            "_LIBCONTAINER_LOGLEVEL=4".to_owned(),
        ];
        launch.env = variables.map(|text| CString::new(text).expect("no NUL")).to_vec();
        let end = inject::launch(&launch, fault, &class);
        drop((init, their_log));
        let mut answer = Vec::new();
        let _ = parent.read_to_end(&mut answer);
        let mut bytes = Vec::new();
        let _ = File::from(log).read_to_end(&mut bytes);
        Ran { end, answered: answer.contains(&b'\n'), log: String::from_utf8_lossy(&bytes).into_owned() }
    }
}

/// The state of this process and of the container that a launch must not change.
#[derive(PartialEq, Eq, Debug)]
struct Surroundings {
    mounts: [String; 2],
    descriptors: [Vec<String>; 2],
    files: Vec<String>,
}

impl Surroundings {
    fn new(workspace: &Workspace) -> Self {
        let target = workspace.target().to_string();
        let mounts = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
        let names = |path: String| {
            let entries = std::fs::read_dir(path).expect("a folder").flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        Self {
            mounts: [mounts("self"), mounts(&target)],
            descriptors: [names("/proc/self/fd".into()), names(format!("/proc/{target}/fd"))],
            files: names(workspace.folder.display().to_string()),
        }
    }
}

/// Lets every Nth call of each process fail. Returns the complaints.
pub(crate) fn run(case: &Case, workspace: &Workspace) -> Vec<String> {
    if case.uid.is_some() {
        crate::subordinate_ids(workspace);
    }
    let ready = Ready::new(case, workspace);
    let before = Surroundings::new(workspace);
    let whole = ready.launch(None);
    let mut complaints = Vec::new();
    if !whole.succeeded(case) {
        complaints.push(format!("{}: without a fault: {}", case.name, whole.text()));
    }
    let (mut runs, mut tolerated) = (0_usize, 0_usize);
    let every = crate::every_nth_call(EVERY).max(1);
    for (process, calls) in whole.end.calls.iter().enumerate() {
        for (at, call) in calls.iter().enumerate().step_by(every) {
            for choice in 0..class(call).len() {
                let ran = ready.launch(Some(Fault { process, call: at, choice }));
                let Some((failed, errno)) = &ran.end.failed else { continue };
                runs += 1;
                tolerated += usize::from(ran.succeeded(case));
                let head =
                    format!("{}: process {process}, {}, {errno:?}", case.name, named::shown(failed, at));
                let complaint = ran.complaint(case, failed, *errno);
                complaints.extend(complaint.map(|what| format!("{head}: {what}: {}", ran.text())));
            }
        }
        let after = Surroundings::new(workspace);
        if before != after {
            complaints.push(format!("{}: {before:?} became {after:?}", case.name));
            break;
        }
    }
    let processes = whole.end.calls.len();
    println!("{}: {processes} processes, {runs} failed calls, {tolerated} of them tolerated", case.name);
    if runs == 0 || tolerated == runs {
        complaints.push(format!("{}: no failed call had an effect", case.name));
    }
    complaints
}

impl Ran {
    /// Returns whether the launch succeeded, without an error.
    fn succeeded(&self, case: &Case) -> bool {
        let answered = self.answered == case.is_drop_in();
        let is_silent = self.end.err.is_empty() && self.records().is_empty();
        self.end.ending == Ending::Exited(0) && self.end.ran && answered && is_silent
    }

    /// Returns the records of errors. v1_0 writes debug records too.
    fn records(&self) -> Vec<&str> {
        let is_debug = |line: &&str| line.contains("\"level\":\"debug\"");
        self.log.lines().filter(|line| !is_debug(line)).collect()
    }

    /// Returns the complaint about a launch in which this call failed; `None` if all is right.
    fn complaint(&self, case: &Case, failed: &Call, errno: Errno) -> Option<String> {
        if !self.end.left.is_empty() {
            return Some(format!("left: {:?}", self.end.left));
        }
        if let Some(pause) = &self.end.pause {
            return Some(format!("waited for more than a second: {pause}"));
        }
        if self.succeeded(case) {
            return None;
        }
        if errno == Errno::EINTR && !failed.by_tool && !named::is_lookup(failed) {
            return Some("an interrupted call is not repeated".to_owned());
        }
        // The dialect of the seed writes its errors to standard error.
        let is_ours =
            |line: &&str| line.starts_with("nsexec: ") || case.is_drop_in() && line.starts_with("nsenter: ");
        let (mut errors, others): (Vec<&str>, Vec<&str>) = self.end.err.lines().partition(is_ours);
        // A mapping tool writes lines of its own. The other text is runc's.
        if others.iter().any(|line| *line != named::UNREADABLE) && !failed.by_tool {
            return Some("a line without the name of the program".to_owned());
        }
        errors.extend(self.records());
        // A stage of a drop-in may report the end of a stage that has reported the cause.
        let most = if case.is_drop_in() { 2 } else { 1 };
        let Some(first) = errors.first().filter(|_| errors.len() <= most) else {
            return Some(format!("{} errors", errors.len()));
        };
        if !named::is_named(failed, errno, first) {
            return Some("the error does not name the call and the errno".to_owned());
        }
        match self.end.ending {
            Ending::Exited(0) if self.end.ran && named::is_warning(first) => None,
            // Stage 0 of a drop-in has ended before stage 2 failed.
            Ending::Exited(0) if case.is_drop_in() && self.answered && !self.end.ran => None,
            Ending::Exited(status) if status != 0 => None,
            _ => Some("the ending is not that of an error".to_owned()),
        }
    }

    fn text(&self) -> String {
        let (end, answered, log) = (&self.end, self.answered, &self.log);
        format!(
            "{:?}, the command ran: {}, answered: {answered}, wrote {:?}, logged {log:?}",
            end.ending, end.ran, end.err
        )
    }
}

/// Returns the errnos that the call fails with.
fn class(call: &Call) -> Vec<Errno> {
    use Errno::{EACCES, EAGAIN, EINTR, EINVAL, EIO, EMFILE, ENOMEM, ENOSYS, EPERM};
    match call.number {
        // These calls cannot fail, or do not return an errno.
        libc::SYS_exit
        | libc::SYS_exit_group
        | libc::SYS_rt_sigreturn
        | libc::SYS_restart_syscall
        | libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid
        | libc::SYS_umask
        | libc::SYS_brk => vec![],
        libc::SYS_read | libc::SYS_write | libc::SYS_recvmsg | libc::SYS_recvfrom | libc::SYS_close => {
            vec![EIO, EINTR]
        }
        libc::SYS_sendto | libc::SYS_sendmsg => vec![ENOMEM, EINTR],
        libc::SYS_pwritev2 => vec![EPERM, ENOSYS],
        libc::SYS_openat | libc::SYS_openat2 => vec![EMFILE, EACCES],
        libc::SYS_socketpair | libc::SYS_pipe2 | libc::SYS_dup3 | libc::SYS_memfd_create => vec![EMFILE],
        libc::SYS_pidfd_open | libc::SYS_eventfd2 | libc::SYS_signalfd4 => vec![EMFILE],
        libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_mremap => vec![ENOMEM],
        libc::SYS_clone | libc::SYS_clone3 => vec![EAGAIN, EPERM],
        libc::SYS_execve | libc::SYS_execveat => vec![ENOMEM, EACCES],
        libc::SYS_wait4 | libc::SYS_waitid => vec![EINTR],
        libc::SYS_ppoll | libc::SYS_epoll_pwait => vec![EINTR, ENOMEM],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => vec![EINTR, ENOMEM],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork | libc::SYS_vfork => vec![EAGAIN],
        libc::SYS_statx | libc::SYS_newfstatat | libc::SYS_readlinkat => vec![EACCES, ENOMEM],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink | libc::SYS_stat | libc::SYS_access => vec![EACCES, ENOMEM],
        _ => vec![EPERM, EINVAL],
    }
}
