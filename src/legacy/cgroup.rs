//! The cgroup namespace that stage 2 creates, in 1.0 and 1.1. Its root is the cgroup of the process that
//! creates it, and the launchers of these dialects move stage 2 into its cgroup
//! (`docs/protocol.md#the-cgroup-namespace`).

use super::dialects::{CGROUP_BYTE, CgroupPlacement};
use super::errors::{Failure, Step};
use crate::deciders::bootstrap::Dialect;
use crate::scripts::pipe::read_full;
use crate::scripts::stage::Context;
use crate::scripts::unshare::{UnshareSteps, unshare};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd};
use crate::words::error::{Doing, Error};
use crate::words::log::Log;

/// Returns the steps of stage 1: without the cgroup namespace if stage 2 creates it.
#[must_use]
pub const fn of_stage_1(steps: UnshareSteps, dialect: &Dialect) -> UnshareSteps {
    match dialect.legacy.cgroup_namespace {
        CgroupPlacement::WithOthers => steps,
        CgroupPlacement::Stage2AfterByte | CgroupPlacement::Stage2 => {
            UnshareSteps { remaining: steps.remaining.without(CloneFlags::NEWCGROUP), ..steps }
        }
    }
}

/// Creates the cgroup namespace in the dialects where stage 2 creates it, if the message asks for one.
///
/// Runs in stage 2, in every other requested namespace, with the privileges there. In 1.0 it waits for the
/// launcher's byte.
///
/// # Errors
/// The failure that ends the bootstrap.
pub fn create<'m, S: Sys>(sys: &mut S, log: &mut Log, cx: Context<'_, 'm>) -> Result<(), Error<'m>> {
    let placement = cx.policy.dialect.legacy.cgroup_namespace;
    if placement == CgroupPlacement::WithOthers || !cx.bootstrap.clone_flags().contains(CloneFlags::NEWCGROUP)
    {
        return Ok(());
    }
    if placement == CgroupPlacement::Stage2AfterByte {
        await_byte(sys, cx.init_pipe)?;
    }
    log.debug(sys, format_args!("unshare cgroup namespace"));
    unshare(sys, CloneFlags::NEWCGROUP).map_err(|errno| Step::UnshareCgroup.failed(errno))
}

/// Waits for the launcher's byte, which follows the pid line: by then stage 2 is in its cgroup. Returns an
/// error if the launcher dies.
fn await_byte<'m, S: Sys>(sys: &mut S, init_pipe: Fd) -> Result<(), Error<'m>> {
    let step = Step::ReadCgroupByte;
    let mut byte = [0];
    match read_full(sys, init_pipe, &mut byte).map_err(|errno| step.failed(errno))? {
        0 => Err(Error::Short { doing: Doing::Legacy(step), got: 0, want: 1 }),
        _ if byte == [CGROUP_BYTE] => Ok(()),
        _ => Err(Error::Legacy(Failure::UnexpectedByte(u8::from_ne_bytes(byte)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_1_leaves_the_cgroup_namespace_to_stage_2() {
        let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWNET).union(CloneFlags::NEWCGROUP);
        let steps = UnshareSteps::new(flags);
        let without = UnshareSteps { user: true, remaining: CloneFlags::NEWNET };
        for (dialect, wanted) in [
            (&Dialect::SEED, steps),
            (&Dialect::V1_0, without),
            (&Dialect::V1_1, without),
            (&Dialect::V1_2, steps),
        ] {
            assert_eq!(of_stage_1(steps, dialect), wanted, "{dialect}");
        }
    }
}
