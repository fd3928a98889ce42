//! The process that becomes the launcher: limits and signals, then the program, or the library's `Command`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nsexec::launch::Command;
use nsexec::namespace::NsKind::{Mnt, Pid, User, Uts};

use crate::draw::{Around, Launcher, Settings, Start};
use crate::place::Place;

/// The exit status of a launcher that could not be prepared.
pub(crate) const UNPREPARED: i32 = 120;

/// The numbers of the init pipe and of the log pipe in a drop-in.
pub(crate) const INIT: RawFd = 3;
pub(crate) const LOG: RawFd = 4;

/// The text that the command writes to standard output.
pub(crate) const STARTED: &str = "started\n";

/// The descriptors of a launcher. The worker has copies of `out` and `err`.
pub(crate) struct Wires<'a> {
    pub(crate) out: &'a File,
    pub(crate) err: &'a File,
    pub(crate) pipes: Option<(RawFd, RawFd)>,
}

/// Becomes the launcher of this start. Runs in a process that was forked from a worker.
pub(crate) fn become_launcher(place: &Place, start: &Start, wires: &Wires<'_>) -> ! {
    let failed = prepare(place, start, wires);
    if let Err(error) = failed {
        let _ = writeln!(&mut &*wires.err, "chaos: cannot prepare the launcher: {error}");
        std::process::exit(UNPREPARED);
    }
    match start.shape.launcher {
        Launcher::Program(args) => execute(place, args),
        Launcher::DropIn(dialect, _) => execute(place, &["init", "--dialect", dialect, "--"]),
        Launcher::Library(settings) => launch(settings),
    }
}

fn prepare(place: &Place, start: &Start, wires: &Wires<'_>) -> std::io::Result<()> {
    support::default_signals();
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let place_at = |fd: RawFd, number: RawFd| {
        // SAFETY: dup2(2) takes two numbers; this process owns its descriptors.
        nix::errno::Errno::result(unsafe { libc::dup2(fd, number) }).map(drop)
    };
    if let Some((init, log)) = wires.pipes {
        place_at(init, INIT)?;
        place_at(log, LOG)?;
    }
    place_at(null.as_raw_fd(), 0)?;
    place_at(wires.out.as_raw_fd(), 1)?;
    place_at(wires.err.as_raw_fd(), 2)?;
    let mut around = start.around.clone();
    // Only root enters the cgroup; the user namespace belongs to the user.
    // The limits come last: this process needs memory and descriptors too.
    around.sort_by_key(|around| match around {
        Around::Namespaces(..) => 0,
        Around::Memory(_) | Around::Files(_) => 2,
        _ => 1,
    });
    if around.iter().any(|around| matches!(around, Around::Pids(_))) {
        fs::write(place.pids_cgroup().join("cgroup.procs"), "0")?;
    }
    if start.shape.user {
        support::become_ids(place.uid.as_raw(), place.gid.as_raw())?;
        // Otherwise the files in /proc of this process would belong to root.
        nix::sys::prctl::set_dumpable(true)?;
    }
    around.iter().try_for_each(surround)
}

fn surround(around: &Around) -> std::io::Result<()> {
    let limit = |resource, value| {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the structure outlives the call.
        nix::errno::Errno::result(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
    };
    match *around {
        Around::Files(count) => limit(libc::RLIMIT_NOFILE, count)?,
        Around::Processes(count) => limit(libc::RLIMIT_NPROC, count)?,
        Around::Memory(mebibytes) => limit(libc::RLIMIT_AS, mebibytes << 20)?,
        Around::Pids(_) => {}
        Around::Namespaces(kind, count) => {
            let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
            unshare(CloneFlags::CLONE_NEWUSER)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
            fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), count.to_string())?;
        }
        Around::SigchldIgnored => {
            // SAFETY: no handler is installed.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        Around::SignalsBlocked => nix::sys::signal::SigSet::all().thread_block()?,
        Around::Closed(bits) => {
            for number in (0..3).filter(|number| bits & (1 << number) != 0) {
                // SAFETY: no object of this process owns the standard descriptors.
                unsafe { libc::close(number) };
            }
        }
        Around::Subreaper => nix::sys::prctl::set_child_subreaper(true)?,
    }
    Ok(())
}

fn execute(place: &Place, args: &[&str]) -> ! {
    let word = |text: &str| CString::new(text).expect("no NUL");
    let target = place.target.to_string();
    let program = CString::new(place.program.as_os_str().as_bytes()).expect("a path");
    let args = args.iter().map(|arg| word(&arg.replace("TARGET", &target)));
    let argv: Vec<CString> =
        std::iter::once(program.clone()).chain(args).chain(["/bin/echo", "started"].map(word)).collect();
    let env = [
        "PATH=/usr/bin:/bin",
        "LC_ALL=C",
        "_LIBCONTAINER_INITPIPE=3",
        "_LIBCONTAINER_LOGPIPE=4",
        // Levels below debug are complete with a full pipe too.
        "_LIBCONTAINER_LOGLEVEL=5",
    ];
    let is_drop_in = argv.get(1).is_some_and(|word| word.as_bytes() == b"init");
    let count = if is_drop_in { env.len() } else { 2 };
    let env: Vec<CString> = env.iter().take(count).map(|text| word(text)).collect();
    let failed = nix::unistd::execve(&program, &argv, &env);
    eprintln!("chaos: cannot execute the program: {failed:?}");
    std::process::exit(UNPREPARED)
}

/// Launches the command with the library. Standard error gets one line for an error, and one line for each
/// descriptor or process that the library has left.
fn launch(settings: Settings) -> ! {
    let before = descriptors();
    let mut command = Command::new("/bin/echo");
    command.arg("started");
    match settings {
        Settings::Shared => command.unshare([Uts, Mnt]),
        Settings::Mapped => command.unshare([User, Uts, Pid]).map_root(),
        Settings::Copied => command.unshare([Uts, Pid]).copy_memory(),
        Settings::Child => command.unshare([Pid]).join(Uts, "/proc/self/ns/uts"),
        Settings::Stages => command.unshare([User, Pid]).map_root().join(Uts, "/proc/self/ns/uts"),
        Settings::KilledWithParent => command.unshare([User, Uts]).map_root().kill_with_parent(),
        Settings::TimeLimit => command.unshare([Uts]).timeout(Duration::from_secs(10)),
    };
    let result = command.status();
    drop(command);
    let after = descriptors();
    if before != after {
        eprintln!("chaos: descriptors {before:?} became {after:?}");
    }
    match result {
        Ok(status) => std::process::exit(status.code().unwrap_or(128 + status.signal().unwrap_or(0))),
        Err(error) => {
            eprintln!("nsexec: {error}");
            std::process::exit(1)
        }
    }
}

/// Returns the numbers of the open descriptors. Asks for each number: a limit may forbid to open /proc.
pub(crate) fn descriptors() -> Vec<RawFd> {
    // SAFETY: fcntl(2) with F_GETFD takes numbers only.
    (0..256).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect()
}
