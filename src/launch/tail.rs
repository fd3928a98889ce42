//! The last steps of the process that becomes the command, up to its execve.

use core::ffi::CStr;

use super::init::{Returned, become_init};
use super::last::{self, Ends};
use super::root;
use super::steps::StageStep;
use super::surroundings::{Move, Surroundings};
use crate::deciders::policy::LogForm;
use crate::scripts::pipe::{read_full, uninterrupted};
use crate::scripts::stage::LastSteps;
use crate::sys::Sys;
use crate::sys::types::{Errno, ExecArgs, Fd, Mount, PollEvents, PollFd, Propagation, ScriptArgs, Signal};
use crate::words::error::{Doing, Error};
use crate::words::log::{Level, Log};

/// The go byte. After it stage 2 executes the command, and the process of a direct start changes its ids. If
/// the launcher dies without sending it, they exit.
pub const GO: u8 = b'G';

/// The exit status of a shell whose command was not found.
pub const NOT_FOUND: i32 = 127;

/// The exit status of a shell whose command was found, but could not be executed.
pub const NOT_EXECUTABLE: i32 = 126;

/// The last steps of stage 2.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'a> {
    /// The new mount propagation. Only for a created mount namespace: otherwise the mounts are the caller's
    /// own.
    pub propagation: Option<Propagation>,
    /// Whether to mount a fresh /proc.
    pub mount_proc: bool,
    /// Whether the command gets SIGKILL when the launcher's thread dies.
    pub kill_child: bool,
    /// Whether the process becomes a minimal init, whose child executes the command.
    pub init: bool,
    /// Whether the process leads a session of its own.
    pub leads_session: bool,
    /// Whether the process ends in place of its exec: see
    /// [`LaunchPolicy::pins`](super::LaunchPolicy::pins).
    pub pins: bool,
    /// The descriptors above 2 that the command gets; `None` for all that are not close-on-exec.
    pub descriptors: Option<&'a [Fd]>,
    /// The descriptors above 2 that the launch's processes keep besides the pipes, if the descriptors are
    /// named: see [`kept`](super::kept::kept). `None` for all.
    pub kept: Option<&'a [Fd]>,
    /// The path of the user namespace that stage 2 joins, for the error's text.
    pub user_namespace: &'a [u8],
    /// The surroundings of the command, if any are set.
    pub around: Option<&'a Surroundings>,
    /// The group id of the command, if it is not that of the launch.
    pub gid: Option<u32>,
    /// The user id of the command, if it is not that of the launch.
    pub uid: Option<u32>,
    /// The descriptors that the command gets under other numbers.
    pub moves: &'a [Move],
    /// The command's name, as given.
    pub name: &'a [u8],
    /// The files to try in this order, each with its NUL.
    pub candidates: &'a [u8],
    /// The command's arguments.
    pub argv: ExecArgs<'a>,
    /// The arguments of the shell for each candidate that is a script without `#!`.
    pub scripts: ScriptArgs<'a>,
    /// The command's environment.
    pub envp: ExecArgs<'a>,
}

/// Reports a failure to close descriptors or to enter a cgroup. Returns the status to exit with.
///
/// Runs in stage 0, a fork of the launcher, in the caller's namespaces. The launcher sends the message
/// meanwhile.
pub fn report_failure_of_stage_0<S: Sys>(sys: &mut S, init: Fd, log: Fd, error: &Error<'_>) -> i32 {
    let mut log = Log::open(sys, Some(log), Level::Warning, LogForm::Detailed);
    log.enter_stage(0);
    log.fatal(sys, error);
    // Stage 0 exits only after the message has arrived. Otherwise the launcher's calls would depend on the
    // schedule.
    let _ = uninterrupted(sys, |sys| sys.poll(&mut [PollFd::new(init, PollEvents::IN)], -1));
    1
}

/// Mounts, waits for the go byte, takes the last steps, and executes the command. Returns the status to exit
/// with.
///
/// Runs in stage 2, the container's init, in all its namespaces, with the privileges that the command will
/// have. With `last` it is not yet in the user namespace to join, and has the caller's privileges. The
/// launcher has reaped the other stages, and waits for the exec or a fatal record.
pub fn run<S: Sys>(sys: &mut S, tail: &Tail<'_>, last: Option<LastSteps>, init: Fd, log: Fd) -> i32 {
    let mut ends = Ends { init, log };
    match prepare(sys, tail, last) {
        Ok(()) => {
            let end = become_command(sys, tail, last, &mut ends);
            end.status(sys, &ends)
        }
        Err(error) => report(sys, &error, false, ends.init, ends.log),
    }
}

/// The end of a process that should have become the command.
enum End<'m> {
    Failed(Error<'m>),
    /// The launcher is dead, so no process would supervise the command.
    LauncherDead,
    /// The process is a minimal init, and the command has ended. It exits with this status.
    Init(i32),
    /// The process of a pin ends here: the launcher has mounted the namespaces on files.
    Pinned,
}

impl End<'_> {
    /// Reports a failure. Returns the status to exit with. The go byte has arrived, or never will.
    fn status<S: Sys>(&self, sys: &mut S, ends: &Ends) -> i32 {
        match self {
            Self::Failed(error) => report(sys, error, true, ends.init, ends.log),
            Self::LauncherDead => 1,
            Self::Init(status) => *status,
            Self::Pinned => 0,
        }
    }
}

/// Waits for the go byte, takes the steps of `prepare`, and executes the command. Returns the status to exit
/// with.
///
/// Runs in the command's process of a start without stage 0, which has changed nothing yet but its session.
/// The launcher waits for the exec or a fatal record.
pub(super) fn run_after_go<'m, S: Sys>(
    sys: &mut S,
    tail: &Tail<'m>,
    init: Fd,
    log: Fd,
    prepare: impl FnOnce(&mut S) -> Result<(), Error<'m>>,
) -> i32 {
    let mut ends = Ends { init, log };
    let end = match await_go(sys, init) {
        Ok(true) => match prepare(sys) {
            // `true`: each change of ids has cleared the parent-death signal for a moment, so the launcher
            // may have died unnoticed.
            Ok(()) => execute(sys, tail, &mut ends, true),
            Err(error) => End::Failed(error),
        },
        Ok(false) => End::LauncherDead,
        Err(error) => End::Failed(error),
    };
    end.status(sys, &ends)
}

/// Reports the failure of the process that should have become the command. Returns the status to exit with.
///
/// Runs in that process.
pub(super) fn report<S: Sys>(sys: &mut S, error: &Error<'_>, go_received: bool, init: Fd, log: Fd) -> i32 {
    // Opened only now: it blocks SIGPIPE, and the command must begin with the caller's mask.
    let mut log = Log::open(sys, Some(log), Level::Warning, LogForm::Detailed);
    log.enter_stage(2);
    log.fatal(sys, error);
    if !go_received {
        // The launcher has not read the error yet. The process exits only after the go byte has arrived.
        // Otherwise the launcher's calls would depend on the schedule.
        let _ = await_go(sys, init);
    }
    match *error {
        Error::Os { doing: Doing::Launch(StageStep::Exec(_)), errno } => exec_status(errno),
        _ => 1,
    }
}

/// Takes the steps after the mounts, and executes the command. Returns if that failed, or as the init.
fn become_command<'m, S: Sys>(
    sys: &mut S,
    tail: &Tail<'m>,
    last: Option<LastSteps>,
    ends: &mut Ends,
) -> End<'m> {
    match await_go(sys, ends.init) {
        Ok(true) if tail.pins => return End::Pinned,
        Ok(true) => {}
        Ok(false) => return End::LauncherDead,
        Err(error) => return End::Failed(error),
    }
    if let Some(steps) = last {
        let taken = steps.take(sys, tail.user_namespace);
        // Set again: the change of ids has cleared the parent-death signal.
        if let Err(error) = taken.and_then(|()| set_kill_child(sys, tail)) {
            return End::Failed(error);
        }
    }
    execute(sys, tail, ends, false)
}

/// Takes the last steps and executes the command. Returns if that failed, or as the init.
/// `signal_may_be_missed`: the launcher may have died since the go byte while this process had no
/// parent-death signal.
///
/// Runs in the process that becomes the command. The launcher has sent the go byte, and waits for the exec or
/// a fatal record.
fn execute<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>, ends: &mut Ends, signal_may_be_missed: bool) -> End<'m> {
    if let Some(around) = tail.around {
        if let Err(error) = last::take_terminal(sys, around, tail.moves) {
            return End::Failed(error);
        }
    }
    if tail.init {
        match become_init(sys, (tail.kill_child, tail.leads_session), ends) {
            Ok(Returned::Command) => {}
            Ok(Returned::Init(status)) => return End::Init(status),
            Err(error) => return End::Failed(error),
        }
    }
    let changed = match change(sys, tail, ends) {
        Ok(changed) => changed,
        Err(error) => return End::Failed(error),
    };
    // With an init, the launcher's death signals the init alone, or neither.
    if tail.kill_child || signal_may_be_missed || changed || tail.init {
        match launcher_lives(sys, ends.init) {
            Ok(true) => {}
            Ok(false) => return End::LauncherDead,
            Err(error) => return End::Failed(error),
        }
    }
    if !tail.kill_child {
        // Up to this call this process ends with the launcher. An exec would keep the parent-death signal.
        if let Err(errno) = sys.set_pdeathsig(Signal::NONE) {
            return End::Failed(StageStep::OutliveLauncher.failed(errno));
        }
    }
    End::Failed(finish(sys, tail))
}

/// Sets the limit that forbids descriptors, runs the code of the caller, installs the filter, and executes
/// the command. Returns the error.
///
/// Runs in the process that becomes the command, with its ids.
pub(super) fn finish<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>) -> Error<'m> {
    let prepared = match tail.around {
        Some(around) => last::forbid_descriptors(sys, around)
            .and_then(|()| last::run_hooks(sys, around))
            .and_then(|()| last::install_filter(sys, around)),
        None => Ok(()),
    };
    match prepared {
        Ok(()) => exec(sys, tail),
        Err(error) => error,
    }
}

/// Places the descriptors, and sets the attributes and the ids of the command. Returns whether the process
/// had no parent-death signal for a moment.
fn change<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>, ends: &mut Ends) -> Result<bool, Error<'m>> {
    last::place(sys, tail.moves, ends)?;
    let nothing = Surroundings::default();
    let changed = last::change(sys, tail.around.unwrap_or(&nothing), (tail.gid, tail.uid), true)?;
    if changed {
        // The change of the ids has cleared it.
        set_kill_child(sys, tail)?;
    }
    Ok(changed)
}

/// Sets SIGKILL as the parent-death signal, if the command is to end with the launcher's thread.
pub(super) fn set_kill_child<'m, S: Sys>(sys: &mut S, tail: &Tail<'_>) -> Result<(), Error<'m>> {
    match tail.kill_child {
        true => sys.set_pdeathsig(Signal::KILL).map_err(|errno| StageStep::KillChild.failed(errno)),
        false => Ok(()),
    }
}

fn prepare<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>, last: Option<LastSteps>) -> Result<(), Error<'m>> {
    mount(sys, tail)?;
    // Set after the last change of the user id, which clears the parent-death signal.
    if last.is_none() { set_kill_child(sys, tail) } else { Ok(()) }
}

/// Makes the mounts.
pub(super) fn mount<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>) -> Result<(), Error<'m>> {
    if let Some(propagation) = tail.propagation {
        // Set before anything is mounted: a copied mount is still a peer of the caller's
        // (mount_namespaces(7)).
        sys.mount(Mount::Propagation(propagation))
            .map_err(|errno| StageStep::MountPropagation.failed(errno))?;
    }
    if tail.mount_proc {
        sys.mount(Mount::Proc).map_err(|errno| StageStep::MountProc.failed(errno))?;
    }
    match tail.around {
        Some(around) => root::prepare(sys, around),
        None => Ok(()),
    }
}

/// Waits for the go byte. Returns whether it has arrived.
pub(super) fn await_go<'m, S: Sys>(sys: &mut S, init: Fd) -> Result<bool, Error<'m>> {
    let mut word = [0];
    let got = read_full(sys, init, &mut word).map_err(|errno| StageStep::AwaitGo.failed(errno))?;
    Ok(got == word.len() && word == [GO])
}

/// Returns whether the launcher is still alive. It may have died between its send of the go byte and our
/// request for the parent-death signal; then the kernel sends no signal. The launcher keeps its end of the
/// init pipe open until our exec. So an end of file means that the launcher is dead.
fn launcher_lives<'m, S: Sys>(sys: &mut S, init: Fd) -> Result<bool, Error<'m>> {
    let found = uninterrupted(sys, |sys| sys.poll(&mut [PollFd::new(init, PollEvents::IN)], 0));
    found.map(|count| count == 0).map_err(|errno| StageStep::AwaitGo.failed(errno))
}

/// Executes the first candidate that can be executed. Returns the error if none can be executed.
///
/// The search is that of execvp(3). So a file in no format that the kernel knows is a script for /bin/sh, and
/// the error of the shell's exec counts as that of the file.
pub(super) fn exec<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>) -> Error<'m> {
    let (mut refused, mut missing, mut unreached) = (None, None, None);
    let (mut rest, mut indices) = (tail.candidates, 0_usize..);
    while let Ok(path) = CStr::from_bytes_until_nul(rest) {
        match exec_file(sys, tail, (indices.next().unwrap_or_default(), path)) {
            errno @ (Errno::ENOENT | Errno::ENOTDIR) => missing = Some(errno),
            // The folder cannot be searched: a path that is too long, or a network file system that does not
            // answer.
            errno @ (Errno::ENAMETOOLONG | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT) => {
                unreached = Some(errno);
            }
            // A later candidate may be executable; otherwise EACCES is the error to report. But EACCES also
            // means that a folder of PATH cannot be searched. Then the command may not exist there, and the
            // error is not reported.
            Errno::EACCES if tail.name.contains(&b'/') || sys.link_count(path).is_ok() => {
                refused = Some(Errno::EACCES);
            }
            Errno::EACCES => missing = Some(Errno::ENOENT),
            // The file exists and cannot be executed. The next candidate would be another program.
            errno => {
                refused = Some(errno);
                break;
            }
        }
        rest = rest.get(path.to_bytes_with_nul().len()..).unwrap_or_default();
    }
    let errno = refused.or(missing).or(unreached).unwrap_or(Errno::ENOENT);
    StageStep::Exec(tail.name).failed(errno)
}

/// Executes one candidate, or the shell with it. Returns the error.
fn exec_file<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>, (index, path): (usize, &'m CStr)) -> Errno {
    let errno = sys.execve(path, &tail.argv, &tail.envp);
    match tail.scripts.get(index, path).filter(|_| errno == Errno::ENOEXEC) {
        Some(argv) => sys.execve(ScriptArgs::SHELL, &argv, &tail.envp),
        None => errno,
    }
}

/// Returns the exit status for a command that could not be executed, as unshare(1), env(1) and bash(1) do.
#[must_use]
pub const fn exec_status(errno: Errno) -> i32 {
    match errno {
        Errno::ENOENT => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

#[cfg(test)]
impl Tail<'static> {
    /// Only the exec of /a.
    pub(super) const BARE: Self = Self {
        propagation: None,
        mount_proc: false,
        kill_child: false,
        pins: false,
        init: false,
        leads_session: false,
        descriptors: None,
        kept: None,
        user_namespace: b"",
        around: None,
        gid: None,
        uid: None,
        moves: &[],
        name: b"a",
        candidates: b"/a\0",
        argv: ExecArgs::EMPTY,
        scripts: ScriptArgs::NONE,
        envp: ExecArgs::EMPTY,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use crate::sys::types::{Pid, SignalSet};
    use mockall::Sequence;
    use std::format;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    const INIT: Fd = Fd(3);
    const LOG: Fd = Fd(4);

    fn tail(candidates: &'static [u8]) -> Tail<'static> {
        Tail { name: b"cmd", candidates, ..Tail::BARE }
    }

    fn going() -> MockSys {
        let mut sys = MockSys::new();
        sys.expect_set_pdeathsig().withf(|signal| *signal == Signal::NONE).returning(|_| Ok(()));
        sys.expect_read().once().returning(|_, word| {
            word[0] = GO;
            Ok(1)
        });
        sys
    }

    /// Expects one fatal record with this text.
    fn reports(sys: &mut MockSys, text: &str) {
        let text = String::from(text);
        sys.expect_sigprocmask().once().returning(|_, _| Ok(SignalSet::EMPTY));
        sys.expect_getpid().returning(|| Pid(1));
        sys.expect_write_nowait().once().returning(move |fd, record| {
            let record = core::str::from_utf8(record).unwrap();
            assert!(fd == LOG && record.contains(&format!("nsexec-2[1]: {text}\"")), "{record}");
            Ok(record.len())
        });
    }

    fn tries(replies: &'static [(&'static CStr, Errno)], text: &str) -> i32 {
        let (mut sys, mut order) = (going(), Sequence::new());
        sys.expect_link_count().returning(|path| if path == c"/hidden" { Err(Errno::EACCES) } else { Ok(1) });
        let mut candidates = Vec::new();
        for (path, errno) in replies {
            candidates.extend(path.to_bytes_with_nul());
            sys.expect_execve()
                .once()
                .in_sequence(&mut order)
                .withf(move |tried, _, _| tried == *path)
                .returning(move |_, _, _| *errno);
        }
        // A candidate that must not be tried: the errno has ended the search.
        if matches!(replies.last(), Some((_, Errno::E2BIG))) {
            candidates.extend(c"/never".to_bytes_with_nul());
        }
        reports(&mut sys, text);
        run(&mut sys, &Tail { candidates: &candidates, ..tail(b"") }, None, INIT, LOG)
    }

    #[test]
    fn search_continues_after_a_missing_file() {
        let text = "failed to execute cmd: No such file or directory";
        assert_eq!(tries(&[(c"/a", Errno::ENOTDIR), (c"/b", Errno::ENOENT)], text), 127);
    }

    #[test]
    fn eacces_is_reported_even_if_later_files_are_missing() {
        let text = "failed to execute cmd: Permission denied";
        assert_eq!(
            tries(&[(c"/a", Errno::ENOENT), (c"/b", Errno::EACCES), (c"/c", Errno::ENOENT)], text),
            126
        );
    }

    #[test]
    fn unsearchable_folder_counts_as_missing() {
        let text = "failed to execute cmd: No such file or directory";
        assert_eq!(tries(&[(c"/a", Errno::ENOENT), (c"/hidden", Errno::EACCES)], text), 127);
    }

    #[test]
    fn unreachable_folder_does_not_end_the_search() {
        for errno in [Errno::ENAMETOOLONG, Errno::ESTALE, Errno::ENODEV, Errno::ETIMEDOUT] {
            let two =
                |a: Errno, b: Errno| std::boxed::Box::leak(std::boxed::Box::new([(c"/a", a), (c"/b", b)]));
            let missing = "failed to execute cmd: No such file or directory";
            assert_eq!(tries(two(errno, Errno::ENOENT), missing), 127);
            assert_eq!(tries(two(Errno::ENOENT, errno), missing), 127);
            assert_eq!(tries(two(errno, Errno::EACCES), "failed to execute cmd: Permission denied"), 126);
            assert_eq!(tries(two(errno, errno), &format!("failed to execute cmd: {errno}")), 126);
        }
    }

    /// Tries to execute `cmd -x` from the files /a, /b and /c. Each call is the path and the arguments of an
    /// execve; its reply follows.
    fn runs(replies: Vec<(&'static str, Errno)>, text: &str) -> i32 {
        let (mut sys, mut order) = (going(), Sequence::new());
        sys.expect_link_count().returning(|_| Ok(1));
        for (call, errno) in replies {
            sys.expect_execve()
                .once()
                .in_sequence(&mut order)
                .withf(move |path, argv, _| {
                    let words = argv.strings().map(String::from_utf8_lossy);
                    let shown = words
                        .fold(format!("{}:", path.to_str().unwrap()), |all, word| format!("{all} {word}"));
                    shown == call
                })
                .returning(move |_, _, _| errno);
        }
        reports(&mut sys, text);
        let (mut argv, mut more) = ([None; 3], [None; 12]);
        let argv = ExecArgs::build(b"cmd\0-x\0", &mut argv).unwrap();
        let scripts = ScriptArgs::build(b"/a\0/b\0/c\0", &argv, &mut more).unwrap();
        run(&mut sys, &Tail { argv, scripts, ..tail(b"/a\0/b\0/c\0") }, None, INIT, LOG)
    }

    #[test]
    fn shell_runs_a_file_without_a_format() {
        // The errno of the shell's exec counts as the file's: E2BIG ends the search, ENOENT does not.
        let (a, b) = (("/a: cmd -x", Errno::ENOENT), ("/b: cmd -x", Errno::ENOEXEC));
        let too_long = vec![a, b, ("/bin/sh: /bin/sh /b -x", Errno::E2BIG)];
        assert_eq!(runs(too_long, "failed to execute cmd: Argument list too long"), 126);
        let missing = vec![a, b, ("/bin/sh: /bin/sh /b -x", Errno::ENOENT), ("/c: cmd -x", Errno::ENOENT)];
        assert_eq!(runs(missing, "failed to execute cmd: No such file or directory"), 127);
        let format = vec![a, b, ("/bin/sh: /bin/sh /b -x", Errno::ENOEXEC)];
        assert_eq!(runs(format, "failed to execute cmd: Exec format error"), 126);
    }

    #[test]
    fn without_the_go_byte_stage_2_exits_silently() {
        for end in [Ok(0), Err(Errno::ECONNRESET)] {
            let mut sys = MockSys::new();
            sys.expect_read().once().returning(move |_, _| end);
            assert_eq!(run(&mut sys, &tail(b"/a\0"), None, INIT, LOG), 1);
        }
    }

    #[test]
    fn steps_run_in_order_and_stop_at_the_first_error() {
        let (mut sys, mut order) = (MockSys::new(), Sequence::new());
        let private = Mount::Propagation(Propagation::Private);
        sys.expect_mount().once().in_sequence(&mut order).withf(move |m| *m == private).returning(|_| Ok(()));
        sys.expect_mount()
            .once()
            .in_sequence(&mut order)
            .withf(|m| *m == Mount::Proc)
            .returning(|_| Err(Errno::EPERM));
        reports(&mut sys, "failed to mount /proc: Operation not permitted");
        // Stage 2 reads the byte although it has failed: otherwise the result of the launcher's send would
        // depend on the schedule.
        sys.expect_read().once().returning(|_, word| {
            word[0] = GO;
            Ok(1)
        });
        let tail = Tail {
            propagation: Some(Propagation::Private),
            mount_proc: true,
            kill_child: true,
            ..tail(b"/a\0")
        };
        assert_eq!(run(&mut sys, &tail, None, INIT, LOG), 1);
    }

    /// A kernel whose launcher has sent the go byte. `alive` holds the replies of the poll that checks for
    /// the launcher's death.
    fn with_kill_child(alive: &'static [Result<usize, Errno>]) -> MockSys {
        let (mut sys, mut order) = (MockSys::new(), Sequence::new());
        sys.expect_set_pdeathsig()
            .once()
            .in_sequence(&mut order)
            .withf(|signal| *signal == Signal::KILL)
            .returning(|_| Ok(()));
        sys.expect_read().once().in_sequence(&mut order).returning(|_, word| {
            word[0] = GO;
            Ok(1)
        });
        for reply in alive {
            sys.expect_poll()
                .once()
                .in_sequence(&mut order)
                .withf(|fds, timeout| fds[0].fd == INIT && *timeout == 0)
                .returning(move |_, _| *reply);
        }
        sys
    }

    #[test]
    fn launcher_death_before_pdeathsig_is_detected() {
        let mut sys = with_kill_child(&[Err(Errno::EINTR), Ok(1)]);
        assert_eq!(run(&mut sys, &Tail { kill_child: true, ..tail(b"/a\0") }, None, INIT, LOG), 1);
    }

    #[test]
    fn command_is_executed_while_the_launcher_lives() {
        let mut sys = with_kill_child(&[Ok(0)]);
        sys.expect_execve().once().returning(|_, _, _| Errno::ENOENT);
        reports(&mut sys, "failed to execute cmd: No such file or directory");
        assert_eq!(run(&mut sys, &Tail { kill_child: true, ..tail(b"/a\0") }, None, INIT, LOG), 127);
    }
}
