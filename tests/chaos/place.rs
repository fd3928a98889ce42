//! The surroundings of all starts: a copy of the program, the ordinary user, a container to enter.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid};
use support::Ordinary;

/// The root of the pids controller of cgroup version 1.
const PIDS: &str = "/sys/fs/cgroup/pids";

pub(crate) struct Place {
    folder: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The pid of the container's first process.
    pub(crate) target: i32,
    /// The number of the worker, in a worker.
    pub(crate) worker: AtomicU64,
    container: Child,
    _user: Ordinary,
}

impl Place {
    pub(crate) fn new() -> Result<Self, String> {
        use std::os::unix::fs::PermissionsExt;
        let user = Ordinary::provide()?;
        let folder = std::env::temp_dir().join(format!("nsexec-chaos-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let program = folder.join("nsexec");
        std::fs::copy(env!("CARGO_BIN_EXE_nsexec"), &program).expect("a copy of the program");
        for path in [&folder, &program] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
        }
        let mut command = Command::new(&program);
        command.args(["run", "--kill-child", "--", "sleep", "100000"]);
        let container = command.spawn().expect("a container");
        let mut place = Self {
            folder,
            program,
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            target: 0,
            worker: AtomicU64::new(0),
            container,
            _user: user,
        };
        place.target = place.await_target();
        Ok(place)
    }

    fn await_target(&self) -> i32 {
        let pid = self.container.id();
        let deadline = Instant::now() + support::LIMIT;
        let runs = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
        };
        loop {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.expect("the children of the launcher");
            let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            if let Some(pid) = pids.into_iter().find(runs) {
                return pid;
            }
            assert!(Instant::now() < deadline, "no container");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the pids cgroup of this worker.
    pub(crate) fn pids_cgroup(&self) -> PathBuf {
        let folder = self.folder.file_name().expect("a name").to_string_lossy().into_owned();
        Path::new(PIDS).join(format!("{folder}-{}", self.worker.load(Ordering::Relaxed)))
    }

    /// Returns whether the machine has the pids controller of cgroup version 1.
    pub(crate) fn has_pids() -> bool {
        Path::new(PIDS).join("cgroup.procs").exists()
    }

    /// Returns the file of the worker with this number, which gets its counts.
    pub(crate) fn report(&self, worker: u64) -> PathBuf {
        self.folder.join(format!("report-{worker}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The launcher's death ends the first process (--kill-child), and with it the container.
        let _ = self.container.kill();
        let _ = self.container.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
