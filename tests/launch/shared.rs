//! Direct starts whose process shares the launcher's memory up to its exec: nothing of this program changes,
//! and nothing of it runs in that process.

use std::env::current_exe;
use std::ffi::CStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nsexec::bootstrap::{Bootstrap, OomScoreAdj};
use nsexec::idmap::IdMap;
use nsexec::launch::shape::{Memory, Protection, WhyCopied};
use nsexec::launch::{LaunchError, Launcher, WaitedFor, own_protection};
use nsexec::policy::{Credentials, Policy, Session, Setgroups};
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::{CloneFlags, ExitSignal, Fork};

use crate::Case;
use crate::cases::{leaves_nothing, plain, policy};

pub(crate) const CASES: &[Case] = &[
    ("attributes_of_the_memory_stay", attributes_of_the_memory_stay),
    ("errno_of_the_launching_thread_stays", errno_stays),
    ("cached_thread_id_of_the_launching_thread_stays", thread_id_stays),
    ("handlers_run_in_the_launcher_only", handlers_run_in_the_launcher_only),
    ("threads_allocate_while_others_launch", threads_allocate_while_others_launch),
    ("process_that_shares_the_memory_is_killed_at_random", killed_at_random),
    ("launcher_that_shares_its_memory_dies_at_random", launcher_dies_at_random),
    ("stopped_process_that_shares_the_memory_is_ended", stopped_process_is_ended),
    ("copy_of_the_memory_by_request", copy_by_request),
    ("other_ids_for_files_copy_the_memory", other_ids_for_files),
    ("handlers_of_faults_run_in_the_launcher_only", handlers_of_faults),
    ("launcher_without_proc_copies_its_memory", without_proc),
    ("launch_without_memory_for_a_stack_copies", without_memory_for_a_stack),
    ("command_that_is_reaped_elsewhere_aborts_nothing", reaped_elsewhere),
];

fn mapped<'m>(map: &'m CStr, kinds: CloneFlags) -> Bootstrap<'m> {
    let map = IdMap::parse(map).unwrap();
    Bootstrap::new(kinds.union(CloneFlags::NEWUSER)).with_uid_map(map).with_gid_map(map)
}

fn runs(launcher: &mut Launcher) {
    let mut child = launcher.command("true", [""; 0]).spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

fn dumpable() -> i32 {
    // SAFETY: a call with numbers.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
}

fn oom_score() -> String {
    std::fs::read_to_string("/proc/self/oom_score_adj").unwrap()
}

/// No start changes the launcher's dumpable attribute or its oom score for good. A start whose process others
/// may trace makes the launcher not dumpable meanwhile. A start that changes the score copies the memory.
fn attributes_of_the_memory_stay() {
    let root = policy();
    let maps = root.with_credentials(Credentials::Root).with_setgroups(Setgroups::Deny);
    let score = OomScoreAdj::parse(c"300").unwrap();
    let (own, other) = (c"0 0 1\n", c"0 100000 65536\n");
    let kinds = CloneFlags::NEWNET.union(CloneFlags::NEWPID);
    for (bootstrap, policy, memory) in [
        (Bootstrap::new(CloneFlags::EMPTY), root, Memory::Shared),
        (Bootstrap::new(kinds), maps, Memory::Shared),
        (mapped(own, kinds), maps, Memory::SharedNotDumpable),
        (mapped(own, CloneFlags::EMPTY), root, Memory::SharedNotDumpable),
        (mapped(other, kinds), maps, Memory::SharedNotDumpable),
        (mapped(own, kinds).with_oom_score_adj(score), maps, Memory::Copied(WhyCopied::OomScore)),
        (Bootstrap::new(kinds).with_oom_score_adj(score), maps, Memory::Copied(WhyCopied::OomScore)),
        (mapped(own, CloneFlags::NEWTIME), maps, Memory::Copied(WhyCopied::Time)),
    ] {
        let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
        let prepared = launcher.command("true", [""; 0]).prepare().unwrap();
        assert_eq!(prepared.memory(true, &own_protection()), memory, "{bootstrap:?}");
        let before = (dumpable(), oom_score());
        runs(&mut launcher);
        assert_eq!((dumpable(), oom_score()), before, "{bootstrap:?}");
        assert_eq!(before.0, 1);
    }
}

/// The search for the command fails twice in the process: its calls do not store their errors in the errno
/// that it shares with this thread.
fn errno_stays() {
    // SAFETY: this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    let mut launcher = plain();
    launcher.env("PATH", "/nowhere:/nowhere/either:/usr/bin:/bin");
    runs(&mut launcher);
    for _ in 0..200 {
        // SAFETY: as above.
        unsafe { errno.write_volatile(77) };
        let child = launcher.command("true", [""; 0]).spawn();
        // SAFETY: as above.
        let after = unsafe { errno.read_volatile() };
        assert!(child.unwrap().wait().unwrap().success());
        assert_eq!(after, 77);
    }
}

/// The libc's cached thread id is that of this thread: `raise` and errorchecking mutexes use it.
fn thread_id_stays() {
    for kinds in [CloneFlags::EMPTY, CloneFlags::NEWPID] {
        let mut launcher = Launcher::new(&Bootstrap::new(kinds), policy()).unwrap();
        runs(&mut launcher);
    }
    // SAFETY: a mutex of this kind compares the owner with the cached id.
    unsafe {
        let mut kind: libc::pthread_mutexattr_t = std::mem::zeroed();
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        assert_eq!(libc::pthread_mutexattr_init(&raw mut kind), 0);
        assert_eq!(libc::pthread_mutexattr_settype(&raw mut kind, libc::PTHREAD_MUTEX_ERRORCHECK), 0);
        assert_eq!(libc::pthread_mutex_init(&raw mut mutex, &raw const kind), 0);
        assert_eq!(libc::pthread_mutex_lock(&raw mut mutex), 0);
        runs(&mut plain());
        let owner = std::ptr::addr_of!(mutex).cast::<i32>().add(2).read();
        assert_eq!(libc::pthread_mutex_lock(&raw mut mutex), libc::EDEADLK);
        assert_eq!(libc::pthread_mutex_unlock(&raw mut mutex), 0);
        assert!(owner == 0 || owner == libc::gettid(), "{owner}");
    }
}

static LAUNCHER: AtomicI32 = AtomicI32::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static ASTRAY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: i32) {
    // SAFETY: a call without arguments. Both processes would count in the same memory.
    let here = unsafe { libc::getpid() } == LAUNCHER.load(Ordering::Relaxed);
    let counter = if here { &HANDLED } else { &ASTRAY };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A thread sends this process's children a signal for which this program has a handler, all the time. It
/// ends a process whose dispositions are the default ones already, and is blocked until then.
fn handlers_run_in_the_launcher_only() {
    LAUNCHER.store(std::process::id() as i32, Ordering::Relaxed);
    // SAFETY: the handler is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let over = AtomicBool::new(false);
    let mut ends = [0, 0];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for child in children() {
                    // SAFETY: a call with numbers; the launching thread reaps only its own children.
                    unsafe { libc::kill(child, libc::SIGUSR1) };
                }
                // SAFETY: as above.
                unsafe { libc::kill(std::process::id() as i32, libc::SIGUSR1) };
            }
        });
        for _ in 0..400 {
            let mut launcher = plain();
            match launcher.command("true", [""; 0]).spawn() {
                Ok(mut child) => ends[usize::from(child.wait().unwrap().success())] += 1,
                Err(error) => assert!(error.to_string().contains("SIGUSR1"), "{error}"),
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(HANDLED.load(Ordering::Relaxed) > 0);
    assert_eq!(ASTRAY.load(Ordering::Relaxed), 0, "{ends:?}");
}

/// Returns the pids of this process's children.
fn children() -> Vec<i32> {
    let lists = std::fs::read_dir("/proc/self/task").unwrap();
    let files = lists.map(|task| task.unwrap().path().join("children")).collect::<Vec<PathBuf>>();
    let texts: String = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    texts.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Other threads hold the allocator's locks most of the time.
fn threads_allocate_while_others_launch() {
    let over = AtomicBool::new(false);
    leaves_nothing(|| {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut kept = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        kept.push(vec![1_u8; 10_000 + kept.len() * 100]);
                        if kept.len() > 50 {
                            kept.clear();
                        }
                    }
                });
            }
            let launching = [0; 2].map(|_| scope.spawn(|| (0..300).for_each(|_| runs(&mut plain()))));
            launching.into_iter().for_each(|thread| thread.join().unwrap());
            over.store(true, Ordering::Relaxed);
        });
    });
}

/// Returns how a launch ended whose process was killed: before the command ran, or as the command.
fn end_of(launched: Result<nsexec::launch::Child, LaunchError>) -> &'static str {
    match launched {
        Ok(mut child) => match child.wait().unwrap().success() {
            true => "alive",
            false => "killed as the command",
        },
        Err(LaunchError::Bootstrap(failure)) => {
            let text = failure.to_string();
            assert!(text.contains("was killed by SIGKILL"), "{text}");
            "killed before"
        }
        Err(error) => panic!("{error}"),
    }
}

fn killed_at_random() {
    let over = AtomicBool::new(false);
    let mut ends = std::collections::BTreeMap::<&str, usize>::new();
    leaves_nothing(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut pause = 0;
                while !over.load(Ordering::Relaxed) {
                    for child in children() {
                        // SAFETY: as in `handlers_run_in_the_launcher_only`.
                        unsafe { libc::kill(child, libc::SIGKILL) };
                    }
                    pause = (pause + 37) % 700;
                    thread::sleep(Duration::from_micros(pause));
                }
            });
            for _ in 0..1500 {
                let bootstrap = Bootstrap::new(CloneFlags::NEWNET);
                let policy = Policy::runc(&nsexec::bootstrap::Dialect::V1_2).with_session(Session::Keep);
                let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
                *ends.entry(end_of(launcher.command("true", [""; 0]).spawn())).or_default() += 1;
            }
            over.store(true, Ordering::Relaxed);
        });
    });
    println!("{ends:?}");
    assert!(ends.get("killed before").is_some_and(|count| *count > 10), "{ends:?}");
}

/// Launches again and again, until this process is killed.
pub(crate) fn again_helper() {
    println!("on");
    loop {
        runs(&mut plain());
    }
}

/// Launchers that are killed at any moment leave no process. The runner of this suite checks that.
fn launcher_dies_at_random() {
    for round in 0..200 {
        let mut launcher = Command::new(current_exe().unwrap());
        let mut launcher = launcher.args(["--helper", "again"]).stdout(Stdio::piped()).spawn().unwrap();
        launcher.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
        thread::sleep(Duration::from_micros(round * 43));
        launcher.kill().unwrap();
        launcher.wait().unwrap();
    }
    // What the launchers left is a child of this process, a subreaper.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        // SAFETY: no child of this process is waited for elsewhere.
        let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
        match reaped {
            -1 => return,
            0 => thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
    panic!("a process is left");
}

/// The launch ends a process that was stopped before its exec, and then gives back its stack.
fn stopped_process_is_ended() {
    let over = AtomicBool::new(false);
    let mut timed_out = 0;
    leaves_nothing(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for child in children() {
                        // SAFETY: as in `handlers_run_in_the_launcher_only`.
                        unsafe { libc::kill(child, libc::SIGSTOP) };
                    }
                }
            });
            // Enough attempts to stop some of the processes before their exec.
            for _ in 0..300 {
                if timed_out == 5 {
                    break;
                }
                let mut launcher = plain();
                launcher.command("true", [""; 0]).timeout(Duration::from_millis(100));
                match launcher.spawn() {
                    // Stopped after its exec, or not at all.
                    Ok(mut child) => {
                        child.kill().unwrap();
                        child.wait().unwrap();
                    }
                    Err(error) => {
                        assert_eq!(error, LaunchError::TimedOut { waited_for: WaitedFor::Exec });
                        timed_out += 1;
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    });
    assert!(timed_out > 0);
}

fn copy_by_request() {
    let mut launcher = plain();
    launcher.command("true", [""; 0]);
    assert_eq!(launcher.prepare().unwrap().memory(true, &Protection::NONE), Memory::Shared);
    launcher.copy_memory();
    assert_eq!(
        launcher.prepare().unwrap().memory(true, &Protection::NONE),
        Memory::Copied(WhyCopied::Policy)
    );
    runs(&mut launcher);
}

/// setuid(2) would change the ids for files too, and the kernel would make this program not dumpable.
fn other_ids_for_files() {
    let policy = policy().with_credentials(Credentials::Root);
    for (user, group) in [(true, false), (false, true)] {
        // SAFETY: calls with numbers, which change this thread alone.
        unsafe {
            libc::setfsuid(if user { 65_534 } else { 0 });
            libc::setfsgid(if group { 65_534 } else { 0 });
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
        }
        runs(&mut Launcher::new(&Bootstrap::new(CloneFlags::NEWNET), policy).unwrap());
        assert_eq!(dumpable(), 1, "{user} {group}");
    }
}

/// Also with signals of the caller's choice, and for signals that normally only a fault raises.
fn handlers_of_faults() {
    LAUNCHER.store(std::process::id() as i32, Ordering::Relaxed);
    let signals = [libc::SIGSEGV, libc::SIGBUS, libc::SIGSYS, libc::SIGTRAP, libc::SIGUSR2];
    for signal in signals {
        // SAFETY: the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(i32) as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for child in children() {
                    // SAFETY: as in `handlers_run_in_the_launcher_only`.
                    let _ = signals.map(|signal| unsafe { libc::kill(child, signal) });
                }
            }
        });
        for round in 0..400 {
            let mut launcher = plain();
            if round % 2 == 0 {
                launcher.signals(nsexec::launch::ChildSignals::default());
            }
            let _ = launcher.command("true", [""; 0]).spawn().map(|mut child| child.wait());
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(ASTRAY.load(Ordering::Relaxed), 0);
}

/// The handlers of this program are not known then.
fn without_proc() {
    // SAFETY: calls with numbers and texts. The mount namespace of this process is a new one.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()), 0);
        assert_eq!(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH), 0);
    }
    let mut launcher = plain();
    let memory = launcher.command("true", [""; 0]).prepare().unwrap().memory(true, &Protection::NONE);
    assert_eq!(memory, Memory::Copied(WhyCopied::Policy));
    runs(&mut launcher);
}

/// The limit leaves room for the allocations of a launch, which a first one has made, and none for the stack.
fn without_memory_for_a_stack() {
    runs(&mut plain());
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().next().unwrap().parse().unwrap();
    let limit = pages * 4096 + (128 << 10);
    // SAFETY: the structure lives through the call.
    let set = unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY })
    };
    assert_eq!(set, 0);
    let mut child = plain().command("/bin/true", [""; 0]).spawn().unwrap();
    // The command has the limit too, and may not start with it.
    let _ = child.wait().unwrap();
}

/// The kernel reaps the command, since SIGCHLD is ignored, and other processes hold the log pipe, so the
/// launch ends by its time limit. A kill of the command then fails with ESRCH, which does not mean that it
/// still runs. The others hold the pipe for longer than the launcher waits for its end.
fn reaped_elsewhere() {
    const HELD_MS: i32 = 7000;
    const FORKS: usize = 2000;
    let begun = AtomicUsize::new(0);
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut timed_out = 0;
    thread::scope(|scope| {
        // Forks without an exec, which copy the pipes of a launch.
        scope.spawn(|| {
            let mut last = (0, Instant::now());
            for _ in 0..FORKS {
                let now = begun.load(Ordering::Relaxed);
                if now != last.0 {
                    last = (now, Instant::now());
                } else if now > 0 && last.1.elapsed() > Duration::from_millis(15) {
                    // A launch waits for the pipe.
                    break;
                }
                // SAFETY: the child makes two calls, and ends.
                let mut sys = unsafe { LinuxSys::new() };
                if sys.fork(ExitSignal::Chld, None).unwrap() == Fork::Child {
                    let _ = sys.poll(&mut [], HELD_MS);
                    // SAFETY: as above.
                    unsafe { libc::_exit(0) };
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..5000 {
            begun.fetch_add(1, Ordering::Relaxed);
            let mut launcher = plain();
            launcher.command("true", [""; 0]).timeout(Duration::from_millis(20));
            timed_out += usize::from(matches!(launcher.spawn(), Err(LaunchError::TimedOut { .. })));
            if timed_out == 1 {
                break;
            }
        }
    });
    while !children().is_empty() {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(timed_out > 0);
}
