//! Tests of [`super::borrowed`]: every call of the [table](super::table) through the recorder, without a
//! kernel.

use core::cell::RefCell;
use core::ffi::CStr;

use std::boxed::Box;
use std::rc::Rc;
use std::string::String;
use std::vec;
use std::vec::Vec;

use serde::Serialize;

use super::table::{argument, calls};
use super::*;
use nsexec::sys::Sys;
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Hook, Limit,
    MaskHow, Mount, MountAttributes, MountKind, OpenFlags, Pid, PollEvents, PollFd, Propagation, Resource,
    Seals, SigAction, Signal, SignalSet, TidAddress, WaitFor,
};

/// The JSON of each line, and the line as owned values.
#[derive(Default)]
struct Both(Vec<(String, Line)>);

impl Sink for Both {
    fn line(&mut self, line: &LineRef<'_>) {
        self.0.push((serde_json::to_string(line).unwrap(), line.to_line()));
    }
}

/// A backend in which every call fails that can fail.
struct Fails;

impl Answer for Fails {
    fn answer(&mut self, call: Call) -> Reply {
        match call {
            Call::Getpid | Call::Gettid => Reply::Pid(Pid(7)),
            // Another list than the one of the call.
            Call::Poll { fds, .. } => {
                Reply::Polled { count: 0, fds: vec![PollFd::new(Fd(9), PollEvents::OUT); fds.len()] }
            }
            _ => Reply::Errno(Errno::EPERM),
        }
    }
}

fn strings(text: &'static [u8]) -> ExecArgs<'static> {
    ExecArgs::build(text, Box::leak(Box::new([const { None }; 5]))).unwrap()
}

/// Returns an argument of a method. The values of one type have all forms that JSON distinguishes.
macro_rules! sample {
    (Path) => {
        CStr::from_bytes_with_nul(b"/a\"\\\xff\0").unwrap()
    };
    (Data) => {
        "é\0\n".as_bytes()
    };
    (Room) => {
        &mut [0; 9]
    };
    (PollFds) => {
        &mut [PollFd { revents: PollEvents::OUT, ..PollFd::new(Fd(3), PollEvents::IN) }; 2]
    };
    (Strings) => {
        &strings(b"tool\0\0\xfe\0A=b\0")
    };
    (Tid) => {
        Some(TidAddress { address: 16, cached: 4 })
    };
    (Shared) => {
        None
    };
    (Ids) => {
        &[4, u32::MAX]
    };
    (Program) => {
        &[BpfInstruction { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 }; 2]
    };
    (Hook) => {
        Hook { number: 3, code: &|| Ok(()) }
    };
    (FirstFd) => {
        Fd(3)
    };
    (Fd) => {
        Fd(-100)
    };
    (Pid) => {
        Pid(-1)
    };
    (bool) => {
        true
    };
    (i32) => {
        -1
    };
    (u32) => {
        u32::MAX
    };
    (usize) => {
        usize::MAX
    };
    (OpenFlags) => {
        OpenFlags::ReadOnly
    };
    (Seals) => {
        Seals(0xf)
    };
    (ExitSignal) => {
        ExitSignal::Chld
    };
    (CloneFlags) => {
        CloneFlags::NEWUSER
    };
    (WaitFor) => {
        WaitFor::StagesNow
    };
    (Signal) => {
        Signal::TERM
    };
    (Mount) => {
        Mount::Propagation(Propagation::Slave)
    };
    (Limit) => {
        Limit { resource: Resource::NOFILE, soft: 0, hard: Limit::INFINITY }
    };
    (Capability) => {
        Capability::CHOWN
    };
    (CapabilitySets) => {
        CapabilitySets { effective: 1, permitted: u64::MAX, inheritable: 2 }
    };
    (MountAttributes) => {
        MountAttributes { set: 1, clear: 2 }
    };
    (MountKind) => {
        MountKind::Overlay
    };
    (MaskHow) => {
        MaskHow::Block
    };
    (SignalSet) => {
        SignalSet(u64::MAX)
    };
    (SigAction) => {
        SigAction::IGNORE
    };
}

macro_rules! define_derived {
    ($(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        /// [`Call`] with the JSON that serde derives for it.
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Derived { $(
            $variant $({ $($field: argument!(in call: $word)),* })?,
        )* }

        impl From<Call> for Derived {
            fn from(call: Call) -> Self {
                match call { $(
                    Call::$variant $({ $($field),* })? => Self::$variant $({ $($field),* })?,
                )* }
            }
        }

        /// Makes each call once. Returns the number of calls.
        fn make_each_call(sys: &mut impl Sys) -> usize {
            [ $({
                let _ = sys.$method($($(sample!($word)),*)?);
                stringify!($method)
            }),* ].len()
        }
    };
}

calls!(define_derived);

#[derive(Serialize)]
struct DerivedLine {
    call: Derived,
    reply: Reply,
}

#[test]
fn borrowed_and_owned_lines_have_the_derived_json() {
    let lines = Rc::new(RefCell::new(Both::default()));
    let calls = make_each_call(&mut Recorder::new(Answered(Fails), Rc::clone(&lines)));
    let lines = lines.take().0;
    let found: Vec<&Call> = lines.iter().map(|(_, line)| &line.call).collect();
    // An exec has two lines.
    assert_eq!(found.len(), calls + 2);
    for (json, line) in &lines {
        let derived = DerivedLine { call: line.call.clone().into(), reply: line.reply.clone() };
        assert_eq!(*json, serde_json::to_string(&derived).unwrap());
        assert_eq!(*json, serde_json::to_string(line).unwrap());
        assert_eq!(serde_json::from_str::<Line>(json).unwrap(), *line);
    }
}

#[test]
fn arguments_are_recorded_in_full() {
    let mut sys = Recorder::new(Answered(Fails), Transcript::default());
    let argv = strings(b"tool\0\0\xfe\0A=b\0");
    sys.execve(c"/x", &argv, &ExecArgs::EMPTY);
    let _ = sys.poll(sample!(PollFds), 5);
    let _ = sys.write(Fd(1), &[0xff, 0]);
    let calls: Vec<Call> = sys.into_sink().lines.into_iter().map(|line| line.call).collect();
    let bytes = |bytes: &[u8]| Bytes::from(bytes);
    let argv = vec![bytes(b"tool"), bytes(b""), bytes(b"\xfe"), bytes(b"A=b")];
    let fds = vec![PollFd::new(Fd(3), PollEvents::IN); 2];
    assert_eq!(
        calls,
        [
            Call::Execve { path: bytes(b"/x"), argv, envp: vec![] },
            Call::Poll { fds, timeout_ms: 5 },
            Call::Write { fd: Fd(1), data: bytes(&[0xff, 0]) },
        ]
    );
}

#[test]
fn borrowed_replies_have_the_json_of_owned_ones() {
    let fds = [PollFd { revents: PollEvents::OUT, ..PollFd::new(Fd(3), PollEvents::IN) }];
    for reply in [
        ReplyRef::List(ListRef::Data(Text(b"a\n"))),
        ReplyRef::List(ListRef::Data(Text(b"\xff\0"))),
        ReplyRef::List(ListRef::Polled { count: 1, fds: &fds }),
        ReplyRef::List(ListRef::Polled { count: 0, fds: &[] }),
        ReplyRef::Value(Reply::ParentOfInit { pid: Pid(3), pidfd: None }),
        ReplyRef::Value(Reply::Unit),
    ] {
        let json = serde_json::to_string(&reply).unwrap();
        assert_eq!(json, serde_json::to_string(&reply.to_reply()).unwrap());
        assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply.to_reply());
    }
}
