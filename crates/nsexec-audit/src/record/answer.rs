//! A backend that receives a call as data and returns its reply as data: [`Answer`], with an implementation
//! of [`Sys`] for it.

use core::ffi::CStr;

use super::borrowed::{CallRef, Requested, Strings, Text};
use super::kind::{self, Convert, Kind};
use super::table::{argument, calls};
use super::{Bytes, Call, Reply};
use nsexec::sys::Sys;
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Hook, Limit,
    MaskHow, Mount, MountAttributes, MountKind, OpenFlags, Pid, PollFd, Seals, SharedStart, SigAction,
    Signal, SignalSet, TidAddress, WaitFor,
};

/// A backend with one method for all calls.
pub trait Answer {
    /// Returns the reply to `call`. The call must admit the reply ([`Call::admits`]): any other reply is a
    /// mistake of the backend, and [`Sys`] panics.
    fn answer(&mut self, call: Call) -> Reply;
}

/// Returns the errno of a failed call. Panics at any other reply.
fn errno(reply: Reply) -> Errno {
    match reply {
        Reply::Errno(errno) => errno,
        other => panic!("{other:?} is not a valid reply to this call"),
    }
}

/// [`Sys`] over any [`Answer`].
#[derive(Debug)]
pub struct Answered<A>(pub A);

impl<A: Answer> Answer for Answered<A> {
    fn answer(&mut self, call: Call) -> Reply {
        self.0.answer(call)
    }
}

/// Converts the reply to a call to the result of the method, in the way that its kind of reply needs.
macro_rules! result {
    (Exec: $reply:expr, ($($argument:ident),*)) => { errno($reply) };
    (Pid: $reply:expr, ()) => {
        match $reply {
            Reply::Pid(pid) => pid,
            reply => panic!("getpid and gettid cannot fail: {reply:?}"),
        }
    };
    (Polled: $reply:expr, ($fds:ident, $timeout:ident)) => {
        match $reply {
            Reply::Polled { count, fds: found } => {
                $fds.copy_from_slice(&found);
                Ok(count)
            }
            reply => Err(errno(reply)),
        }
    };
    (Data: $reply:expr, ($file:ident, $buffer:ident)) => {
        match $reply {
            Reply::Data(Bytes(bytes)) => {
                $buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            reply => Err(errno(reply)),
        }
    };
    (Entries: $($rest:tt)*) => { result!(Data: $($rest)*) };
    ($kind:ident: $reply:expr, ($($argument:ident),*)) => { kind::$kind::value($reply).map_err(errno) };
}

/// Implements all methods of [`Sys`] for a type with [`Answer`], from the rows of the [table](super::table).
macro_rules! answer_calls {
    ([$($generics:tt)*] $answerer:ty: $(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        impl<$($generics)*> Sys for $answerer { $(
            fn $method(
                &mut self $(, $($field: argument!(in method: $word)),*)?
            ) -> <kind::$kind as Kind>::Output {
                let call = CallRef::$variant { $($($field: argument!(borrow $word: $field)),*)? };
                result!($kind: self.answer(call.to_call()), ($($($field),*)?))
            }
        )* }
    };
}

// A blanket implementation is not possible: the trait is another crate's.
calls!(answer_calls, [A: Answer] Answered<A>:);
calls!(answer_calls, [] crate::sim::SimSys:);
calls!(answer_calls, ['r] super::Playback<'r>:);
