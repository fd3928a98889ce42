//! Many recorded launches from eight threads: the recorder allocates no memory in a process of a launch, each
//! record agrees with its plan, and no line is lost.
//!
//! `NSEXEC_LAUNCHES=100000 cargo test --test many_records` makes as many launches; the default is
//! [`LAUNCHES`].
//!
//! The program's allocator aborts in every process but the first. Two more threads allocate all the time, so
//! that they often hold the lock of the libc's allocator at a fork.

use std::fs::File;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nsexec::launch::Command;
use nsexec::namespace::NsKind::{Mnt, Pid, User, Uts};
use nsexec::sys::types::Resource;
use nsexec_audit::machine::{Machine, PlanCommand};
use nsexec_audit::recording::RecordCommand;
use nsexec_audit::rules::Severity;
use support::{AbortsInChildren, Suite, Test, Threads};

const LAUNCHES: usize = 400;
const THREADS: usize = 8;
const ALLOCATING: usize = 2;
/// The variable that makes this program the driver.
const DRIVER: &str = "NSEXEC_MANY_RECORDS_DRIVER";

#[global_allocator]
static ALLOCATOR: AbortsInChildren = AbortsInChildren::new();

/// The commands, by number.
type Shape = (&'static str, fn(&mut Command) -> &mut Command);

const SHAPES: [Shape; 10] = [
    ("direct", |command| command.unshare([User, Uts]).map_root()),
    ("stages", |command| command.unshare([Uts]).before_start(|_| Ok(()))),
    ("child", |command| command.join(Uts, "/proc/self/ns/uts")),
    ("init", |command| command.unshare([User, Pid]).map_root().init()),
    ("mounts", |command| {
        let root = command.unshare([User, Mnt, Pid]).map_root().root_empty().proc("/proc").dev("/dev");
        ["/usr", "/lib", "/lib64", "/bin"]
            .into_iter()
            .fold(root, |root, path| root.bind_read_only(path, path))
    }),
    ("attributes", |command| {
        let command = command.unshare([User, Uts]).map_root().hostname("recorded").umask(0o27).new_session();
        command.limit(Resource::CORE, 0, 0).no_new_privs()
    }),
    // The recorder makes no call that a limit or a filter of the command could refuse.
    ("file size", |command| command.unshare([User, Uts]).map_root().limit(Resource::FSIZE, 0, 0)),
    ("no write", |command| {
        command.unshare([User, Uts]).map_root().seccomp_filter_bytes(KILLED_BY_WRITE.concat())
    }),
    // The numbers of these descriptors depend on the moment.
    ("time limit", |command| command.unshare([User, Uts]).map_root().timeout(Duration::from_secs(100))),
    ("descriptor", |command| {
        command.unshare([User, Uts]).map_root().fd(500, File::open("/dev/null").unwrap())
    }),
];

/// A seccomp filter that kills a process in write(2), and permits every other call. It does not check the
/// architecture.
const KILLED_BY_WRITE: [[u8; 8]; 4] = [
    // Load the number of the call; if it is that of write, kill, otherwise allow.
    [0x20, 0, 0, 0, 0, 0, 0, 0],
    [0x15, 0, 0, 1, libc::SYS_write as u8, 0, 0, 0],
    [0x06, 0, 0, 0, 0, 0, 0, 0x80],
    [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f],
];

fn main() -> ExitCode {
    if std::env::var_os(DRIVER).is_some() {
        driver();
        return ExitCode::SUCCESS;
    }
    let test = Test::new("records_of_eight_threads_agree_with_their_plans", || {
        // In namespaces, where each shape is allowed without root too.
        let mut driver = Command::new(std::env::current_exe().unwrap());
        driver.env(DRIVER, "1").unshare([User, Mnt, Pid, Uts]).map_root().proc("/proc");
        support::success(driver.output())
    });
    Suite::new("many_records", vec![test]).main(Threads::One)
}

fn driver() {
    ALLOCATOR.allow_this_process_only();
    let count = std::env::var("NSEXEC_LAUNCHES").map_or(LAUNCHES, |count| count.parse().unwrap());
    // In a thread: with its first one, the libc sets its disposition of a signal, which is a fact of the
    // plan.
    let machine = thread::spawn(Machine::here).join().unwrap();
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let launching = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            launch(number, &machine);
        }
    };
    let allocating = || {
        while !ended.load(Ordering::Relaxed) {
            // Too large for a cache of the thread.
            drop(std::hint::black_box(vec![1_u8; 10_000]));
        }
    };
    thread::scope(|scope| {
        for _ in 0..ALLOCATING {
            scope.spawn(allocating);
        }
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(launching)).collect();
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0, "threads failed");
    });
}

/// Records the launch of a command, and compares the record with its plan.
fn launch(number: usize, machine: &Machine) {
    let (shape, set) = SHAPES[number % SHAPES.len()];
    let mut command = Command::new("/bin/true");
    set(&mut command);
    let (child, recording) = command.record().unwrap_or_else(|error| panic!("{shape} {number}: {error}"));
    let status = child.map_err(Into::into).and_then(|mut child| child.wait());
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{shape} {number}: {status:?}");
    let difference = recording.compare(&command.plan(machine).unwrap());
    assert!(difference.is_empty(), "{shape} {number}:\n{difference}");
    assert_eq!(recording.lost(), 0, "{shape} {number}");
    let findings = recording.check_rules();
    let warnings = findings.iter().all(|finding| finding.severity == Severity::Warning);
    assert!(warnings, "{shape} {number}: {findings:?}");
}
