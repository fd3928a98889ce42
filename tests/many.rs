//! Many launches from eight threads: they leave nothing behind, and no process of a launch allocates memory.
//!
//! `NSEXEC_LAUNCHES=100000 cargo test --test many` makes as many launches; the default is [`LAUNCHES`].
//!
//! The program's allocator aborts in every process but the first: another thread may have held its lock at
//! the time of the fork.

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nsexec::launch::Command;
use nsexec::namespace::NsKind::{Mnt, Pid, User, Uts};
use support::{AbortsInChildren, Suite, Test, Threads};

const LAUNCHES: usize = 4000;
const THREADS: usize = 8;
/// The variable that makes this program the driver.
const DRIVER: &str = "NSEXEC_MANY_DRIVER";
/// The largest number of namespaces of a kind. Far fewer exist at a time, but the kernel frees user
/// namespaces with a delay. Each run creates more.
const NAMESPACES: &str = "1000";
/// The growth of the resident memory that is no leak, in bytes. One lost page table or stack for each launch
/// would be more.
const GROWTH: usize = 8 << 20;

#[global_allocator]
static ALLOCATOR: AbortsInChildren = AbortsInChildren::new();

fn main() -> ExitCode {
    if std::env::var_os(DRIVER).is_some() {
        driver();
        return ExitCode::SUCCESS;
    }
    let test = Test::new("launches_of_eight_threads_leave_nothing", || {
        // A user namespace of its own limits the number of namespaces: with a leak the launches would fail.
        let mut driver = Command::new(std::env::current_exe().unwrap());
        driver.env(DRIVER, "1").unshare([User, Mnt, Pid, Uts]).map_root().proc("/proc");
        support::success(driver.output())
    });
    Suite::new("many", vec![test]).main(Threads::One)
}

fn driver() {
    ALLOCATOR.allow_this_process_only();
    for kind in ["uts", "user"] {
        fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), NAMESPACES).unwrap();
    }
    let count = std::env::var("NSEXEC_LAUNCHES").map_or(LAUNCHES, |count| count.parse().unwrap());
    // The first launches allocate what lasts: thread stacks, buffers of the libc.
    launch(500);
    await_threads();
    let before = Held::now();
    launch(count);
    await_threads();
    let after = Held::now();
    assert_eq!((after.descriptors, after.threads, after.processes), (before.descriptors, before.threads, 1));
    assert!(after.memory < before.memory + GROWTH, "{before:?} {after:?}");
}

/// Waits until only the first thread is left: a thread exists for a moment after its function has returned.
fn await_threads() {
    let end = Instant::now() + Duration::from_secs(60);
    while Held::now().threads > 1 {
        assert!(Instant::now() < end, "threads are left: {:?}", Held::now());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Launches this number of commands, of every shape, from all threads.
fn launch(count: usize) {
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let mut command = Command::new("/bin/true");
            match number % 6 {
                // Directly, on shared memory.
                0 => command.unshare([Uts]),
                1 => command.unshare([User, Uts]).map_root(),
                // Directly, on a copy of the memory.
                2 => command.unshare([Uts]).copy_memory(),
                // Through a child.
                3 => command.join(Uts, "/proc/self/ns/uts"),
                // Through the stages.
                4 => command.unshare([Uts]).before_start(|_| Ok(())),
                // On a thread of the library.
                _ => command.unshare([User, Uts]).map_root().kill_with_parent(),
            };
            let status = command.status().unwrap_or_else(|error| panic!("launch {number}: {error}"));
            assert!(status.success(), "launch {number}: {status}");
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(worker);
        }
    });
}

/// What this process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// The processes of the pid namespace, with this one.
    processes: usize,
    /// The resident memory in bytes.
    memory: usize,
}

impl Held {
    fn now() -> Self {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            processes: names.filter(|name| name.to_str().is_some_and(is_pid)).count(),
            memory: pages * 4096,
        }
    }
}
