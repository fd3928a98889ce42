//! The time offsets of a start without stage 0: the process that creates the time namespace writes them.

use super::steps::StageStep;
use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::timens::TimeOffsets;
use crate::scripts::procfs;
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd};
use crate::words::error::{Doing, Error};

const DOING: Doing<'static> = Doing::Launch(StageStep::TimeOffsets);

/// The time offsets of a message, with their file in /proc.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenOffsets<'m> {
    file: Fd,
    offsets: TimeOffsets<'m>,
}

/// Opens the file of this process's offsets. Returns `None` if the message has no offsets.
///
/// Runs in stage 1 of a start through a child, or in the process of a direct start.
///
/// # Errors
/// [`StageStep::TimeOffsets`].
pub(super) fn open<'m, 'e, S: Sys>(
    sys: &mut S,
    asked: &Bootstrap<'m>,
) -> Result<Option<OpenOffsets<'m>>, Error<'e>> {
    let Some(offsets) = asked.timens_offsets() else { return Ok(None) };
    let file = procfs::open_to_write(sys, c"self/timens_offsets", DOING)?;
    Ok(Some(OpenOffsets { file, offsets }))
}

impl OpenOffsets<'_> {
    /// Writes the offsets, and closes the file. If no time namespace was created, the kernel refuses them, as
    /// it does for stage 0.
    ///
    /// Must precede the entry of any process into the new time namespace: afterwards the kernel refuses to
    /// change the offsets.
    ///
    /// # Errors
    /// The same as [`open`].
    pub(super) fn write<'e, S: Sys>(self, sys: &mut S) -> Result<(), Error<'e>> {
        procfs::write_once(sys, self.file, self.offsets.text_with_nul(), DOING)
    }
}

/// Enters the new time namespace. A process that creates a time namespace does not enter it by that
/// (time_namespaces(7)): its children would.
///
/// Runs as the process that becomes the command, in a direct start or in place.
///
/// # Errors
/// [`StageStep::EnterTimeNamespace`].
pub(super) fn enter_time_namespace<'m, S: Sys>(sys: &mut S) -> Result<(), Error<'m>> {
    let doing = Doing::Launch(StageStep::EnterTimeNamespace);
    let path = c"/proc/self/ns/time_for_children";
    let namespace = procfs::open_namespace(sys, Fd::CWD, path, doing)?;
    let entered = sys.setns(namespace, CloneFlags::NEWTIME);
    // close(2) frees the number even if it returns an error.
    let _ = sys.close(namespace);
    entered.map_err(|errno| Error::Os { doing, errno })
}
