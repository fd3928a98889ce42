//! The recorder itself: calls the backend, then records the call and the reply. It allocates no memory and
//! takes no lock.

use core::ffi::CStr;

use super::borrowed::{CallRef, LineRef, ListRef, ReplyRef, Requested, Strings, Text};
use super::kind::{self, Convert, Kind};
use super::table::{argument, calls};
use super::{Reply, Sink};
use nsexec::sys::Sys;
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Hook, Limit,
    MaskHow, Mount, MountAttributes, MountKind, OpenFlags, Pid, PollEvents, PollFd, Seals, SharedStart,
    SigAction, Signal, SignalSet, SysResult, TidAddress, WaitFor,
};

/// A backend that records a line for each call of another backend.
#[derive(Debug)]
pub struct Recorder<S, K> {
    inner: S,
    sink: K,
}

impl<S: Sys, K: Sink> Recorder<S, K> {
    /// Returns a recorder of the calls to `inner`, which writes to `sink`.
    pub const fn new(inner: S, sink: K) -> Self {
        Self { inner, sink }
    }

    /// Returns the sink.
    pub const fn sink(&self) -> &K {
        &self.sink
    }

    /// Returns the sink, with its lines.
    pub fn into_sink(self) -> K {
        self.sink
    }

    /// Records a call that has returned, and returns its result.
    fn done<'r, T>(
        &mut self,
        call: CallRef<'r>,
        result: SysResult<T>,
        reply: impl FnOnce(&T) -> ReplyRef<'r>,
    ) -> SysResult<T> {
        let reply = result.as_ref().map_or_else(|errno| ReplyRef::Value(Reply::Errno(*errno)), reply);
        self.sink.line(&LineRef { call, reply });
        result
    }

    /// Makes a call that closes descriptors. A sink that processes share receives the line before the call:
    /// the close may let the launcher continue, and the launcher then reads the record.
    fn closing(&mut self, call: CallRef<'_>, close: impl FnOnce(&mut S) -> SysResult<()>) -> SysResult<()> {
        let announced = self.sink.announce(&LineRef { call, reply: ReplyRef::Value(Reply::Unit) });
        match close(&mut self.inner) {
            Ok(()) if announced => Ok(()),
            result => self.done(call, result, |()| ReplyRef::Value(Reply::Unit)),
        }
    }

    /// Records an exec before the call, since this program no longer runs after a successful exec.
    fn announced(&mut self, call: CallRef<'_>, exec: impl FnOnce(&mut S) -> Errno) -> Errno {
        self.sink.line(&LineRef { call, reply: ReplyRef::Value(Reply::NoReturn) });
        let errno = exec(&mut self.inner);
        self.sink.line(&LineRef { call, reply: ReplyRef::Value(Reply::Errno(errno)) });
        errno
    }
}

/// The number of polled descriptors that are recorded as they were before the call. Launches poll fewer. A
/// longer list is recorded as it is after the call: the kernel changes only the reported events.
const POLLED_MAX: usize = 16;

/// Makes a call and records it, in the way that its kind of reply needs.
macro_rules! make {
    (Exec: $this:ident, $call:expr, $method:ident($($argument:ident),*)) => {
        $this.announced($call, |inner| inner.$method($($argument),*))
    };
    (Pid: $this:ident, $call:expr, $method:ident()) => {{
        let pid = $this.inner.$method();
        $this.sink.line(&LineRef { call: $call, reply: ReplyRef::Value(Reply::Pid(pid)) });
        pid
    }};
    (Polled: $this:ident, $call:expr, $method:ident($fds:ident, $timeout:ident)) => {{
        let mut copy = [PollFd::new(Fd(-1), PollEvents::NONE); POLLED_MAX];
        copy.iter_mut().zip(&*$fds).for_each(|(copy, fd)| *copy = *fd);
        let result = $this.inner.$method($fds, $timeout);
        let fds = &*$fds;
        // The call has the list before the backend wrote to it.
        let $fds = copy.get(..fds.len()).unwrap_or(fds);
        $this.done($call, result, |count| ReplyRef::List(ListRef::Polled { count: *count, fds }))
    }};
    (Data: $this:ident, $call:expr, $method:ident($file:ident, $buffer:ident)) => {{
        let call = $call;
        let result = $this.inner.$method($file, $buffer);
        let all = &*$buffer;
        $this.done(call, result, |count| {
            ReplyRef::List(ListRef::Data(Text(all.get(..*count).unwrap_or(all))))
        })
    }};
    (Entries: $($rest:tt)*) => { make!(Data: $($rest)*) };
    (Unit: $this:ident, $call:expr, close_range($first:ident, $last:ident)) => {
        $this.closing($call, |inner| inner.close_range($first, $last))
    };
    (Unit: $this:ident, $call:expr, close($fd:ident)) => {
        $this.closing($call, |inner| inner.close($fd))
    };
    // Two processes return from a clone. Each records its own line.
    ($kind:ident: $this:ident, $call:expr, $method:ident($($argument:ident),*)) => {{
        let call = $call;
        let result = $this.inner.$method($($argument),*);
        $this.done(call, result, |value| ReplyRef::Value(kind::$kind::reply(value)))
    }};
}

/// Implements all methods from the rows of the [table](super::table).
macro_rules! record_calls {
    ($(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        impl<S: Sys, K: Sink> Sys for Recorder<S, K> { $(
            fn $method(
                &mut self $(, $($field: argument!(in method: $word)),*)?
            ) -> <kind::$kind as Kind>::Output {
                make!(
                    $kind: self,
                    CallRef::$variant { $($($field: argument!(borrow $word: $field)),*)? },
                    $method($($($field),*)?)
                )
            }
        )* }
    };
}

calls!(record_calls);
