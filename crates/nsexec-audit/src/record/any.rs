//! Any backend as one type: [`AnySys`].

use core::ffi::CStr;
use core::fmt;

use super::kind::{self, Kind};
use super::table::{argument, calls};
use nsexec::sys::Sys;
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, ExecArgs, ExitSignal, Fd, Hook, Limit, MaskHow,
    Mount, MountAttributes, MountKind, OpenFlags, Pid, PollFd, Seals, SharedStart, SigAction, Signal,
    SignalSet, TidAddress, WaitFor,
};

/// Any backend. A program that plans, records and replays launches contains the code of a launch only twice:
/// for the kernel, and for this type.
pub struct AnySys<'s>(pub &'s mut dyn Sys);

impl fmt::Debug for AnySys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnySys")
    }
}

/// Implements all methods from the rows of the [table](super::table).
macro_rules! forward_calls {
    ($(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        impl Sys for AnySys<'_> { $(
            fn $method(
                &mut self $(, $($field: argument!(in method: $word)),*)?
            ) -> <kind::$kind as Kind>::Output {
                self.0.$method($($($field),*)?)
            }
        )* }
    };
}

calls!(forward_calls);
