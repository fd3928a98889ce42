//! The processes of a launch: the descendants of the worker. No other process gets a signal.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nsexec::launch::open_pidfd;

/// A process of the launch, held by a pidfd.
pub(crate) struct Member {
    pub(crate) pid: i32,
    pub(crate) comm: String,
    pidfd: OwnedFd,
}

impl Member {
    /// Opens a process, and returns it if it is a descendant of this process after that. So the number cannot
    /// have passed to a foreign process in between.
    pub(crate) fn open(pid: i32) -> Option<Self> {
        let pidfd = open_pidfd(pid).ok()?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        descendants().contains(&pid).then_some(Self { pid, comm, pidfd })
    }

    /// Returns whether the process existed until now, and got the signal.
    pub(crate) fn send(&self, signal: i32) -> bool {
        let number = |value: i32| libc::c_long::from(value);
        let none: libc::c_long = 0;
        // SAFETY: pidfd_send_signal(2) reads no memory if the third argument is null.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                number(self.pidfd.as_raw_fd()),
                number(signal),
                none,
                none,
            )
        };
        sent == 0
    }
}

/// Returns the descendants of this process in the order of a walk from parents to children.
pub(crate) fn descendants() -> Vec<i32> {
    let mut found = Vec::new();
    let mut open = vec![i32::try_from(std::process::id()).expect("a pid")];
    while let Some(pid) = open.pop() {
        let children = children_of(pid);
        found.extend(&children);
        open.extend(children);
    }
    found
}

/// Returns the children of all threads of a process.
fn children_of(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Describes a process that did not end: its name, its state, the call in which it waits.
pub(crate) fn describe(pid: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let line =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim().to_owned();
    format!(
        "{pid} {} {} parent {} in {} at {} command {:?}",
        line("Name:"),
        line("State:"),
        line("PPid:"),
        read("syscall").split(' ').next().unwrap_or("?").trim(),
        read("wchan").trim(),
        read("cmdline").replace('\0', " ")
    )
}

/// Returns the number of the call in which a process was stopped.
pub(crate) fn call_of(pid: i32) -> Option<i64> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next()?.parse().ok()
}
