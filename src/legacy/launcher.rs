//! The launcher's half of the older dialects: the byte for the cgroup namespace in 1.0, and the pid line of
//! the seed.

use super::dialects::{CGROUP_BYTE, CgroupPlacement};
use crate::deciders::bootstrap::decode;
use crate::launch::script::{FailureKind, Job, Step, parse_two_pids};
use crate::scripts::pipe::send_all;
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd, Pid};

/// Sends the byte that lets stage 2 create its cgroup namespace, if stage 2 waits for it. The launcher moves
/// no process into another cgroup, so it sends the byte without waiting.
///
/// Runs in the launcher, after it has read the pid line.
///
/// # Errors
/// [`Step::SendCgroupByte`].
pub(crate) fn send_cgroup_byte<S: Sys>(sys: &mut S, job: &Job<'_>, init: Fd) -> Result<(), FailureKind> {
    if !awaits_cgroup_byte(job) {
        return Ok(());
    }
    send_all(sys, init, &[CGROUP_BYTE]).map_err(|errno| FailureKind::Os { step: Step::SendCgroupByte, errno })
}

/// Returns whether stage 2 waits for a byte before it creates its cgroup namespace. This depends on the
/// dialect and the message.
fn awaits_cgroup_byte(job: &Job<'_>) -> bool {
    let dialect = job.policy.dialect;
    let asked = || decode(job.message, dialect).ok();
    dialect.legacy.cgroup_namespace == CgroupPlacement::Stage2AfterByte
        && asked().is_some_and(|(asked, _)| asked.clone_flags().contains(CloneFlags::NEWCGROUP))
}

/// Parses a pid line of the seed. Returns the pids of stage 1 and stage 2, or `None` for any other line.
pub(crate) fn parse_pid_line(line: &[u8]) -> Option<(Pid, Pid)> {
    let (stage_2, stage_1) = parse_two_pids(line, b"{\"pid\": ", b", \"pid_first\": ")?;
    Some((stage_1, stage_2))
}
