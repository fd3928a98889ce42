//! Launches of several threads.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nsexec::launch::{Child, Command, LaunchError, Stdio};
use nsexec::namespace::NsKind;

use crate::kit::{sh, stdout};

/// Everything can go to another thread.
#[test]
fn types_are_send() {
    fn is_send<T: Send>() {}
    is_send::<Command>();
    is_send::<Child>();
    is_send::<LaunchError>();
    is_send::<nsexec::launch::Launcher>();
    is_send::<nsexec::launch::Prepared>();
}

/// Other threads hold the allocator's lock most of the time, and launch at the same time.
#[test]
fn launches_of_threads_that_allocate() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let blocks: Vec<Vec<u8>> = (1..200).map(|size| vec![0; size * 7]).collect();
                    std::hint::black_box(&blocks);
                }
            });
        }
        let launching: Vec<_> = (0..4)
            .map(|number: usize| {
                scope.spawn(move || {
                    for turn in 0..25 {
                        let mut command = sh("echo $A");
                        command.env("A", format!("{number}-{turn}"));
                        if turn % 2 == 0 {
                            command.unshare([NsKind::User, NsKind::Uts]);
                        }
                        assert_eq!(stdout(&mut command), format!("{number}-{turn}"));
                    }
                })
            })
            .collect();
        launching.into_iter().for_each(|thread| thread.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
}

/// The parent-death signal follows the thread that creates the process. A worker thread ends long before the
/// program.
#[test]
fn kill_with_parent_outlives_the_thread_that_launches() {
    let launch = || Command::new("sleep").arg("600").kill_with_parent().kill_on_drop().spawn().unwrap();
    let mut child = thread::spawn(launch).join().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(100)).unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The program drops the handle and never waits: the thread that launched still must not end.
#[test]
fn kill_with_parent_outlives_a_dropped_handle() {
    let launch = || {
        let mut command = sh("sleep 0.5; echo done");
        let mut child = command.stdout(Stdio::piped()).kill_with_parent().spawn().unwrap();
        (child.id(), child.stdout.take().unwrap())
    };
    let (pid, mut stdout) = thread::spawn(launch).join().unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    // Nothing else has reaped it.
    let ended = nix::sys::wait::waitpid(pid, None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(pid, 0));
}

/// The launching thread has the attributes of the thread that calls, not those of an earlier caller.
/// no_new_privs is an attribute of a thread (PR_SET_NO_NEW_PRIVS(2const)).
#[test]
fn kill_with_parent_keeps_the_attributes_of_the_calling_thread() {
    let read = || {
        let mut command = Command::new("grep");
        stdout(command.args(["NoNewPrivs", "/proc/self/status"]).kill_with_parent())
    };
    let restricted = move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        read()
    };
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap().to_owned();
    assert_eq!(thread::spawn(read).join().unwrap(), own);
    assert_eq!(thread::spawn(restricted).join().unwrap(), "NoNewPrivs:\t1");
    assert_eq!(thread::spawn(read).join().unwrap(), own);
}

/// A function of the caller launches another command of that kind.
#[test]
fn kill_with_parent_launches_within_a_launch() {
    let (answer, answered) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut command = sh("exit 5");
        command.kill_with_parent().before_start(|_| match sh("exit 6").kill_with_parent().status() {
            Ok(status) if status.code() == Some(6) => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        });
        answer.send(command.status().map(|status| status.code())).unwrap();
    });
    let answer = answered.recv_timeout(Duration::from_secs(60)).expect("the inner launch waits for ever");
    assert_eq!(answer.unwrap(), Some(5));
}

/// Each launching thread ends after its command.
#[test]
fn kill_with_parent_leaves_no_threads() {
    const LAUNCHES: usize = 1000;
    thread::spawn(|| {
        for _ in 0..LAUNCHES {
            assert!(Command::new("true").kill_with_parent().status().unwrap().success());
        }
    })
    .join()
    .unwrap();
    // Those of other tests end with their commands.
    let end = Instant::now() + Duration::from_secs(60);
    while launching_threads() > 20 {
        assert!(Instant::now() < end, "{} threads are left", launching_threads());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the number of threads of this process that launch, or wait for the end of a command.
fn launching_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name.trim() == "nsexec-launcher").count()
}

/// A panic of the caller's function reaches the thread that launches, and later launches work.
#[test]
fn a_panic_before_the_start_reaches_the_caller() {
    let panicked = thread::spawn(|| {
        let mut command = sh("");
        command.kill_with_parent().before_start(|_| panic!("on purpose"));
        command.spawn()
    });
    assert!(panicked.join().is_err());
    // The process of the launch ends too. Launches of other tests have such a process for a moment.
    let end = Instant::now() + Duration::from_secs(60);
    while waiting_processes() > 0 {
        assert!(Instant::now() < end, "a process of the launch waits for ever");
        thread::sleep(Duration::from_millis(5));
    }
    let child = thread::spawn(|| sh("exit 4").kill_with_parent().status().unwrap());
    assert_eq!(child.join().unwrap().code(), Some(4));
}

/// Returns the number of children of this process that run this program's file.
fn waiting_processes() -> usize {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let children = std::fs::read_dir("/proc/self/task").unwrap().flat_map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        text.split_whitespace().map(String::from).collect::<Vec<_>>()
    });
    let waits = |pid: &String| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        exe.as_ref() == Some(&own) && name.trim() == "nsexec-launcher"
    };
    children.filter(waits).count()
}

/// A thread has attributes of its own. A launch has those of the thread that launches, not of an earlier one.
#[test]
fn kill_with_parent_launches_with_the_attributes_of_the_calling_thread() {
    let privileges = || stdout(sh("grep NoNewPrivs /proc/self/status").kill_with_parent());
    let restricted = thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        privileges()
    });
    assert_eq!(restricted.join().unwrap(), "NoNewPrivs:\t1");
    assert_eq!(thread::spawn(privileges).join().unwrap(), "NoNewPrivs:\t0");
}

/// A function of the caller may launch, and may wait for a launch of another thread.
#[test]
fn launches_with_kill_with_parent_do_not_wait_for_each_other() {
    let launched = thread::spawn(|| {
        let mut outer = sh("echo outer");
        outer.kill_with_parent().before_start(|_| {
            assert_eq!(stdout(sh("echo inner").kill_with_parent()), "inner");
            let other = thread::spawn(|| stdout(sh("echo other").kill_with_parent()));
            assert_eq!(other.join().unwrap(), "other");
            Ok(())
        });
        stdout(&mut outer)
    });
    assert_eq!(launched.join().unwrap(), "outer");
}

/// The kernel waits with the signal until this program ends, although the thread that launched has ended and
/// the handle is dropped.
#[test]
fn kill_with_parent_holds_after_the_handle_is_dropped() {
    let pid = thread::spawn(|| {
        let child = Command::new("sleep").arg("600").kill_with_parent().spawn().unwrap();
        child.id()
    });
    let pid = nix::unistd::Pid::from_raw(pid.join().unwrap().try_into().unwrap());
    thread::sleep(Duration::from_millis(100));
    assert_eq!(
        nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap(),
        nix::sys::wait::WaitStatus::StillAlive
    );
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// A thread may have left the namespaces of the first thread: what a command need not join depends on the
/// thread that launches it.
#[test]
fn join_pid_compares_with_the_namespaces_of_the_launching_thread() {
    if !crate::kit::is_root() {
        // An ordinary user needs a user namespace for another network namespace, and a thread cannot create
        // one.
        return;
    }
    let own = std::process::id();
    let host = crate::kit::link("thread-self", NsKind::Net);
    let seen = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut command = sh("readlink /proc/self/ns/net");
        stdout(command.join_pid(own, [NsKind::User, NsKind::Net]))
    });
    assert_eq!(seen.join().unwrap(), host);
}

/// A launch of the function before another start fails, or succeeds, without waiting for the other's process.
#[test]
fn launches_inside_of_the_function_before_a_start() {
    for by_parent in [false, true] {
        let mut outer = sh("cat");
        outer.unshare([NsKind::User, NsKind::Uts]).stdin(Stdio::null()).before_start(move |_| {
            let error =
                sh("true").unshare([NsKind::User, NsKind::Uts]).current_dir("/nowhere").status().unwrap_err();
            assert!(error.to_string().contains("/nowhere"), "{error}");
            // The stages fail before their pids are known. Root here lacks CAP_SYS_RESOURCE too.
            let mut early = sh("true");
            early.unshare([NsKind::User, NsKind::Uts]).oom_score_adj(-1000).before_start(|_| Ok(()));
            let _ = early.status();
            // A clone of a command has the same function.
            let mut same = sh("true");
            let clone: Arc<Mutex<Option<Command>>> = Arc::default();
            let inside = Arc::clone(&clone);
            if by_parent {
                same.kill_with_parent();
            }
            same.before_start(move |_| {
                let launched = inside.lock().unwrap().take().map(|mut command| command.status());
                assert!(launched.unwrap().unwrap_err().to_string().contains("inside of itself"));
                Ok(())
            });
            *clone.lock().unwrap() = Some(same.clone());
            assert!(same.status().unwrap().success());
            let mut inner = sh("sleep 0.05; echo inner");
            if by_parent {
                inner.kill_with_parent();
            }
            assert_eq!(stdout(inner.unshare([NsKind::User, NsKind::Uts])), "inner");
            Ok(())
        });
        let thread = thread::spawn(move || outer.status().unwrap());
        let begun = Instant::now();
        while !thread.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(20), "a launch waits for ever");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(thread.join().unwrap().success());
    }
}
