//! Removes the values that strace does not show: [`NOT_SHOWN`]. The record of a run and strace's view of the
//! same run are compared without renaming, but without these values.

use crate::record::{Bytes, Call, Line, Reply};
use crate::transcript::Run;
use nsexec::sys::types::{BpfInstruction, PollEvents, PollFd, SigAction, TidAddress};

/// The values that strace does not show, each with its replacement.
pub const NOT_SHOWN: &[(&str, &str)] = &[
    ("the thread id that the libc has cached: it is in memory, and no call returns it", "0"),
    ("name that a process gives itself", "its first 15 bytes, which are all that the kernel takes"),
    ("events asked of a negative descriptor, which the kernel skips", "none"),
    ("trampoline of a handler without SA_RESTORER, which the kernel does not read", "0"),
    ("bytes between the entries of a directory, which mean nothing", "0"),
    ("instructions of a seccomp filter: strace shows their number", "empty ones"),
    (
        "that the process runs code of the caller (`run_hook`): strace shows only the calls of this code",
        "no line",
    ),
];

/// The longest name that PR_SET_NAME accepts, in bytes.
const NAME_MAX: usize = 15;

/// A filter's instruction in the form in which strace's lines are read.
const EMPTY: BpfInstruction = BpfInstruction { code: 0, jt: 0, jf: 0, k: 0 };

const SA_RESTORER: u64 = 0x0400_0000;

/// Returns the run without what strace does not show.
#[must_use]
pub fn as_shown(run: &Run) -> Run {
    let mut run = run.clone();
    for section in &mut run.sections {
        section.lines.retain(is_system_call);
    }
    run.sections.iter_mut().flat_map(|section| &mut section.lines).for_each(leave_out);
    run
}

/// Returns whether strace shows a line at all. It does not show that the process runs code of the caller.
pub(super) fn is_system_call(line: &Line) -> bool {
    !matches!(line.call, Call::RunHook { .. })
}

fn leave_out(line: &mut Line) {
    match &mut line.call {
        Call::CloneSibling { tid: Some(tid) }
        | Call::CloneChild { tid: Some(tid) }
        | Call::Fork { tid: Some(tid), .. }
        | Call::CloneInit { tid: Some(tid), .. } => tid.cached = 0,
        Call::SetSeccompFilter { program } => program.fill(EMPTY),
        Call::SetName { name } => name.0.truncate(NAME_MAX),
        Call::Poll { fds, .. } => skipped(fds),
        Call::Sigaction { action, .. } => restorer(action),
        _ => {}
    }
    match (&line.call, &mut line.reply) {
        (_, Reply::TidAddress(TidAddress { cached, .. })) => *cached = 0,
        (_, Reply::Polled { fds, .. }) => skipped(fds),
        (_, Reply::Action(action)) => restorer(action),
        (Call::Getdents64 { .. }, Reply::Data(data)) => padding(data),
        _ => {}
    }
}

fn skipped(fds: &mut [PollFd]) {
    fds.iter_mut().filter(|fd| fd.fd.0 < 0).for_each(|fd| fd.events = PollEvents(0));
}

fn restorer(action: &mut SigAction) {
    if action.flags & SA_RESTORER == 0 {
        action.restorer = 0;
    }
}

/// The offset of the name in a `struct linux_dirent64` (getdents64(2)).
const DIRENT_NAME: usize = 19;

/// Clears the bytes after each name: the kernel leaves old bytes of its buffer there.
fn padding(data: &mut Bytes) {
    let mut rest = &mut data.0[..];
    while let Some(&[low, high]) = rest.get(16..18) {
        let length =
            usize::from(u16::from_ne_bytes([low, high])).clamp(DIRENT_NAME, rest.len().max(DIRENT_NAME));
        let Some((entry, behind)) = rest.split_at_mut_checked(length) else { return };
        let name = entry.get_mut(DIRENT_NAME..).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.get_mut(end..).unwrap_or_default().fill(0);
        rest = behind;
    }
}
