//! A backend that receives a call as data and returns its reply as data: [`Answer`], with an implementation
//! of [`Sys`] for it.

use core::ffi::CStr;
use std::vec::Vec;

use super::{Bytes, Call, Reply};
use nsexec::sys::Sys;
use nsexec::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd,
    Received, Seals, SigAction, Signal, SignalSet, SocketType, SysResult, TidAddress, WaitFor, Waited,
};

/// A backend with one method for all calls.
pub trait Answer {
    /// Returns the reply to `call`. The call must admit the reply ([`Call::admits`]): any other reply is a
    /// mistake of the backend, and [`Sys`] panics.
    fn answer(&mut self, call: Call) -> Reply;
}

/// Converts replies to results.
trait Results: Answer {
    fn unit(&mut self, call: Call) -> SysResult<()> {
        match self.answer(call) {
            Reply::Unit => Ok(()),
            reply => Err(errno(reply)),
        }
    }

    fn fd(&mut self, call: Call) -> SysResult<Fd> {
        match self.answer(call) {
            Reply::Fd(fd) => Ok(fd),
            reply => Err(errno(reply)),
        }
    }

    fn count(&mut self, call: Call) -> SysResult<usize> {
        match self.answer(call) {
            Reply::Count(count) => Ok(count),
            reply => Err(errno(reply)),
        }
    }

    fn data(&mut self, call: Call, buf: &mut [u8]) -> SysResult<usize> {
        match self.answer(call) {
            Reply::Data(Bytes(bytes)) => {
                buf[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            reply => Err(errno(reply)),
        }
    }

    fn pair(&mut self, call: Call) -> SysResult<(Fd, Fd)> {
        match self.answer(call) {
            Reply::Pair(one, other) => Ok((one, other)),
            reply => Err(errno(reply)),
        }
    }

    fn forked(&mut self, call: Call) -> SysResult<Fork> {
        match self.answer(call) {
            Reply::Parent(child) => Ok(Fork::Parent { child }),
            Reply::Child => Ok(Fork::Child),
            reply => Err(errno(reply)),
        }
    }

    fn id(&mut self, call: Call) -> Pid {
        match self.answer(call) {
            Reply::Pid(pid) => pid,
            reply => panic!("getpid and gettid cannot fail: {reply:?}"),
        }
    }
}

impl<A: Answer> Results for A {}

/// Returns the errno of a failed call. Panics at any other reply.
fn errno(reply: Reply) -> Errno {
    match reply {
        Reply::Errno(errno) => errno,
        other => panic!("{other:?} is not a valid reply to this call"),
    }
}

/// Returns the strings of an exec.
fn strings(args: &ExecArgs<'_>) -> Vec<Bytes> {
    args.strings().map(Bytes::from).collect()
}

/// Implements [`Sys`] for types with [`Answer`]. A blanket implementation is not possible: the trait is
/// another crate's.
macro_rules! sys_through_answer {
    ($([$($generics:tt)*] $answerer:ty),+ $(,)?) => { $(
        impl<$($generics)*> Sys for $answerer {
            fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
                self.fd(Call::Openat { dir, path: path.to_bytes().into(), flags })
            }

            fn openat2(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
                self.fd(Call::Openat2 { dir, path: path.to_bytes().into(), flags })
            }

            fn close(&mut self, fd: Fd) -> SysResult<()> {
                self.unit(Call::Close { fd })
            }

            fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
                self.data(Call::Read { fd, len: buf.len() }, buf)
            }

            fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
                self.count(Call::Write { fd, data: buf.into() })
            }

            fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
                self.count(Call::WriteNowait { fd, data: buf.into() })
            }

            fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
                self.count(Call::Send { fd, data: buf.into() })
            }

            fn send_fd(&mut self, socket: Fd, fd: Fd) -> SysResult<usize> {
                self.count(Call::SendFd { socket, fd })
            }

            fn receive_fd(&mut self, socket: Fd) -> SysResult<Received> {
                match self.answer(Call::ReceiveFd { socket }) {
                    Reply::Received(received) => Ok(received),
                    reply => Err(errno(reply)),
                }
            }

            fn dup3(&mut self, fd: Fd, number: Fd) -> SysResult<()> {
                self.unit(Call::Dup3 { fd, number })
            }

            fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize> {
                let asked = fds.iter().map(|fd| PollFd::new(fd.fd, fd.events)).collect();
                match self.answer(Call::Poll { fds: asked, timeout_ms }) {
                    Reply::Polled { count, fds: found } => {
                        fds.copy_from_slice(&found);
                        Ok(count)
                    }
                    reply => Err(errno(reply)),
                }
            }

            fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType> {
                match self.answer(Call::Fstatfs { fd }) {
                    Reply::FsType(kind) => Ok(kind),
                    reply => Err(errno(reply)),
                }
            }

            fn socket_type(&mut self, fd: Fd) -> SysResult<SocketType> {
                match self.answer(Call::SocketType { fd }) {
                    Reply::SocketType(kind) => Ok(kind),
                    reply => Err(errno(reply)),
                }
            }

            fn link_count(&mut self, path: &CStr) -> SysResult<u64> {
                match self.answer(Call::LinkCount { path: path.to_bytes().into() }) {
                    Reply::Links(count) => Ok(count),
                    reply => Err(errno(reply)),
                }
            }

            fn readlink(&mut self, path: &CStr, buf: &mut [u8]) -> SysResult<usize> {
                self.data(Call::Readlink { path: path.to_bytes().into(), len: buf.len() }, buf)
            }

            fn socketpair(&mut self) -> SysResult<(Fd, Fd)> {
                self.pair(Call::Socketpair)
            }

            fn pipe2(&mut self) -> SysResult<(Fd, Fd)> {
                self.pair(Call::Pipe2)
            }

            fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()> {
                self.unit(Call::CloseRangeCloexec { first })
            }

            fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
                self.data(Call::Getdents64 { fd, len: buf.len() }, buf)
            }

            fn set_cloexec(&mut self, fd: Fd, on: bool) -> SysResult<()> {
                self.unit(Call::SetCloexec { fd, on })
            }

            fn get_seals(&mut self, fd: Fd) -> SysResult<Seals> {
                match self.answer(Call::GetSeals { fd }) {
                    Reply::Seals(seals) => Ok(seals),
                    reply => Err(errno(reply)),
                }
            }

            fn add_seals(&mut self, fd: Fd, seals: Seals) -> SysResult<()> {
                self.unit(Call::AddSeals { fd, seals })
            }

            fn memfd_create(&mut self, name: &CStr, exec: bool) -> SysResult<Fd> {
                self.fd(Call::MemfdCreate { name: name.to_bytes().into(), exec })
            }

            fn sendfile(&mut self, to: Fd, from: Fd, len: usize) -> SysResult<usize> {
                self.count(Call::Sendfile { to, from, len })
            }

            fn fchmod(&mut self, fd: Fd, mode: u32) -> SysResult<()> {
                self.unit(Call::Fchmod { fd, mode })
            }

            fn unlink(&mut self, path: &CStr) -> SysResult<()> {
                self.unit(Call::Unlink { path: path.to_bytes().into() })
            }

            fn is_read_only(&mut self, path: &CStr) -> SysResult<bool> {
                match self.answer(Call::IsReadOnly { path: path.to_bytes().into() }) {
                    Reply::ReadOnly(read_only) => Ok(read_only),
                    reply => Err(errno(reply)),
                }
            }

            fn execveat<'a>(&mut self, fd: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
                errno(self.answer(Call::Execveat { fd, argv: strings(argv), envp: strings(envp) }))
            }

            fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork> {
                self.forked(Call::CloneSibling { tid })
            }

            fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork> {
                self.forked(Call::Fork { exit, tid })
            }

            fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
                errno(self.answer(Call::Execve {
                    path: path.to_bytes().into(),
                    argv: strings(argv),
                    envp: strings(envp),
                }))
            }

            fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited> {
                match self.answer(Call::Wait4 { pid, which }) {
                    Reply::Waited(waited) => Ok(waited),
                    reply => Err(errno(reply)),
                }
            }

            fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()> {
                self.unit(Call::Kill { pid, signal })
            }

            fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd> {
                self.fd(Call::PidfdOpen { pid })
            }

            fn getpid(&mut self) -> Pid {
                self.id(Call::Getpid)
            }

            fn gettid(&mut self) -> Pid {
                self.id(Call::Gettid)
            }

            fn tid_address(&mut self) -> SysResult<TidAddress> {
                match self.answer(Call::TidAddress) {
                    Reply::TidAddress(tid) => Ok(tid),
                    reply => Err(errno(reply)),
                }
            }

            fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()> {
                self.unit(Call::Setns { fd, kind })
            }

            fn unshare(&mut self, flags: CloneFlags) -> SysResult<()> {
                self.unit(Call::Unshare { flags })
            }

            fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()> {
                self.unit(Call::SetDumpable { dumpable })
            }

            fn set_name(&mut self, name: &CStr) -> SysResult<()> {
                self.unit(Call::SetName { name: name.to_bytes().into() })
            }

            fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()> {
                self.unit(Call::SetPdeathsig { signal })
            }

            fn setsid(&mut self) -> SysResult<()> {
                self.unit(Call::Setsid)
            }

            fn setresuid(&mut self, uid: u32) -> SysResult<()> {
                self.unit(Call::Setresuid { uid })
            }

            fn setuid(&mut self, uid: u32) -> SysResult<()> {
                self.unit(Call::Setuid { uid })
            }

            fn setgid(&mut self, gid: u32) -> SysResult<()> {
                self.unit(Call::Setgid { gid })
            }

            fn drop_groups(&mut self) -> SysResult<()> {
                self.unit(Call::DropGroups)
            }

            fn sched_getaffinity(&mut self) -> SysResult<u64> {
                match self.answer(Call::SchedGetaffinity) {
                    Reply::Affinity(cpus) => Ok(cpus),
                    reply => Err(errno(reply)),
                }
            }

            fn mount(&mut self, mount: Mount) -> SysResult<()> {
                self.unit(Call::Mount { mount })
            }

            fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet> {
                match self.answer(Call::Sigprocmask { how, set }) {
                    Reply::Mask(old) => Ok(old),
                    reply => Err(errno(reply)),
                }
            }

            fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction> {
                match self.answer(Call::Sigaction { signal, action }) {
                    Reply::Action(old) => Ok(old),
                    reply => Err(errno(reply)),
                }
            }

            fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal> {
                match self.answer(Call::Sigtimedwait { set }) {
                    Reply::Signal(signal) => Ok(signal),
                    reply => Err(errno(reply)),
                }
            }
        }
    )+ };
}

/// [`Sys`] over any [`Answer`].
#[derive(Debug)]
pub struct Answered<A>(pub A);

impl<A: Answer> Answer for Answered<A> {
    fn answer(&mut self, call: Call) -> Reply {
        self.0.answer(call)
    }
}

sys_through_answer!([A: Answer] Answered<A>, [] crate::sim::SimSys, ['r] super::Playback<'r>);
