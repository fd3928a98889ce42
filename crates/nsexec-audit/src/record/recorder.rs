//! The recorder itself: calls the backend, then records the call and the reply.

use core::ffi::CStr;

use super::{Call, Line, Reply, Sink};
use nsexec::sys::Sys;
use nsexec::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd,
    Received, Seals, SigAction, Signal, SignalSet, SocketType, SysResult, TidAddress, WaitFor, Waited,
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
    fn done<T>(&mut self, call: Call, result: SysResult<T>, reply: impl FnOnce(&T) -> Reply) -> SysResult<T> {
        let reply = result.as_ref().map_or_else(|errno| Reply::Errno(*errno), reply);
        self.sink.line(&Line { call, reply });
        result
    }

    fn unit(&mut self, call: Call, result: SysResult<()>) -> SysResult<()> {
        self.done(call, result, |()| Reply::Unit)
    }

    fn fd(&mut self, call: Call, result: SysResult<Fd>) -> SysResult<Fd> {
        self.done(call, result, |fd| Reply::Fd(*fd))
    }

    fn pair(&mut self, call: Call, result: SysResult<(Fd, Fd)>) -> SysResult<(Fd, Fd)> {
        self.done(call, result, |(one, other)| Reply::Pair(*one, *other))
    }

    fn count(&mut self, call: Call, result: SysResult<usize>) -> SysResult<usize> {
        self.done(call, result, |count| Reply::Count(*count))
    }

    fn data(&mut self, call: Call, result: SysResult<usize>, buf: &[u8]) -> SysResult<usize> {
        self.done(call, result, |count| Reply::Data(buf.get(..*count).unwrap_or(buf).into()))
    }

    fn forked(&mut self, call: Call, result: SysResult<Fork>) -> SysResult<Fork> {
        self.done(call, result, |fork| match fork {
            Fork::Parent { child } => Reply::Parent(*child),
            Fork::Child => Reply::Child,
        })
    }

    /// Records an exec before the call, since this program no longer runs after a successful exec.
    fn announced(&mut self, call: Call, exec: impl FnOnce(&mut S) -> Errno) -> Errno {
        let announcement = Line { call, reply: Reply::NoReturn };
        self.sink.line(&announcement);
        let errno = exec(&mut self.inner);
        self.sink.line(&Line { reply: Reply::Errno(errno), ..announcement });
        errno
    }

    fn id(&mut self, call: Call, pid: Pid) -> Pid {
        self.sink.line(&Line { call, reply: Reply::Pid(pid) });
        pid
    }
}

impl<S: Sys, K: Sink> Sys for Recorder<S, K> {
    fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        let result = self.inner.openat(dir, path, flags);
        self.fd(Call::Openat { dir, path: path.to_bytes().into(), flags }, result)
    }

    fn openat2(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        let result = self.inner.openat2(dir, path, flags);
        self.fd(Call::Openat2 { dir, path: path.to_bytes().into(), flags }, result)
    }

    fn close(&mut self, fd: Fd) -> SysResult<()> {
        let result = self.inner.close(fd);
        self.unit(Call::Close { fd }, result)
    }

    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        let result = self.inner.read(fd, buf);
        self.data(Call::Read { fd, len: buf.len() }, result, buf)
    }

    fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        let result = self.inner.write(fd, buf);
        self.count(Call::Write { fd, data: buf.into() }, result)
    }

    fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        let result = self.inner.write_nowait(fd, buf);
        self.count(Call::WriteNowait { fd, data: buf.into() }, result)
    }

    fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        let result = self.inner.send(fd, buf);
        self.count(Call::Send { fd, data: buf.into() }, result)
    }

    fn send_fd(&mut self, socket: Fd, fd: Fd) -> SysResult<usize> {
        let result = self.inner.send_fd(socket, fd);
        self.count(Call::SendFd { socket, fd }, result)
    }

    fn receive_fd(&mut self, socket: Fd) -> SysResult<Received> {
        let result = self.inner.receive_fd(socket);
        self.done(Call::ReceiveFd { socket }, result, |received| Reply::Received(*received))
    }

    fn dup3(&mut self, fd: Fd, number: Fd) -> SysResult<()> {
        let result = self.inner.dup3(fd, number);
        self.unit(Call::Dup3 { fd, number }, result)
    }

    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize> {
        let call =
            Call::Poll { fds: fds.iter().map(|fd| PollFd::new(fd.fd, fd.events)).collect(), timeout_ms };
        let result = self.inner.poll(fds, timeout_ms);
        self.done(call, result, |count| Reply::Polled { count: *count, fds: (&*fds).into() })
    }

    fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType> {
        let result = self.inner.fstatfs(fd);
        self.done(Call::Fstatfs { fd }, result, |kind| Reply::FsType(*kind))
    }

    fn socket_type(&mut self, fd: Fd) -> SysResult<SocketType> {
        let result = self.inner.socket_type(fd);
        self.done(Call::SocketType { fd }, result, |kind| Reply::SocketType(*kind))
    }

    fn link_count(&mut self, path: &CStr) -> SysResult<u64> {
        let result = self.inner.link_count(path);
        self.done(Call::LinkCount { path: path.to_bytes().into() }, result, |count| Reply::Links(*count))
    }

    fn readlink(&mut self, path: &CStr, buf: &mut [u8]) -> SysResult<usize> {
        let result = self.inner.readlink(path, buf);
        self.data(Call::Readlink { path: path.to_bytes().into(), len: buf.len() }, result, buf)
    }

    fn socketpair(&mut self) -> SysResult<(Fd, Fd)> {
        let result = self.inner.socketpair();
        self.pair(Call::Socketpair, result)
    }

    fn pipe2(&mut self) -> SysResult<(Fd, Fd)> {
        let result = self.inner.pipe2();
        self.pair(Call::Pipe2, result)
    }

    fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()> {
        let result = self.inner.close_range_cloexec(first);
        self.unit(Call::CloseRangeCloexec { first }, result)
    }

    fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        let result = self.inner.getdents64(fd, buf);
        self.data(Call::Getdents64 { fd, len: buf.len() }, result, buf)
    }

    fn set_cloexec(&mut self, fd: Fd, on: bool) -> SysResult<()> {
        let result = self.inner.set_cloexec(fd, on);
        self.unit(Call::SetCloexec { fd, on }, result)
    }

    fn get_seals(&mut self, fd: Fd) -> SysResult<Seals> {
        let result = self.inner.get_seals(fd);
        self.done(Call::GetSeals { fd }, result, |seals| Reply::Seals(*seals))
    }

    fn add_seals(&mut self, fd: Fd, seals: Seals) -> SysResult<()> {
        let result = self.inner.add_seals(fd, seals);
        self.unit(Call::AddSeals { fd, seals }, result)
    }

    fn memfd_create(&mut self, name: &CStr, exec: bool) -> SysResult<Fd> {
        let result = self.inner.memfd_create(name, exec);
        self.fd(Call::MemfdCreate { name: name.to_bytes().into(), exec }, result)
    }

    fn sendfile(&mut self, to: Fd, from: Fd, len: usize) -> SysResult<usize> {
        let result = self.inner.sendfile(to, from, len);
        self.count(Call::Sendfile { to, from, len }, result)
    }

    fn fchmod(&mut self, fd: Fd, mode: u32) -> SysResult<()> {
        let result = self.inner.fchmod(fd, mode);
        self.unit(Call::Fchmod { fd, mode }, result)
    }

    fn unlink(&mut self, path: &CStr) -> SysResult<()> {
        let result = self.inner.unlink(path);
        self.unit(Call::Unlink { path: path.to_bytes().into() }, result)
    }

    fn is_read_only(&mut self, path: &CStr) -> SysResult<bool> {
        let result = self.inner.is_read_only(path);
        self.done(Call::IsReadOnly { path: path.to_bytes().into() }, result, |is| Reply::ReadOnly(*is))
    }

    fn execveat<'a>(&mut self, fd: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
        let call = Call::Execveat {
            fd,
            argv: argv.strings().map(Into::into).collect(),
            envp: envp.strings().map(Into::into).collect(),
        };
        self.announced(call, |inner| inner.execveat(fd, argv, envp))
    }

    fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork> {
        // Two processes return from here. Each records its own line.
        let result = self.inner.clone_sibling(tid);
        self.forked(Call::CloneSibling { tid }, result)
    }

    fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork> {
        let result = self.inner.fork(exit, tid);
        self.forked(Call::Fork { exit, tid }, result)
    }

    fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
        let call = Call::Execve {
            path: path.to_bytes().into(),
            argv: argv.strings().map(Into::into).collect(),
            envp: envp.strings().map(Into::into).collect(),
        };
        self.announced(call, |inner| inner.execve(path, argv, envp))
    }

    fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited> {
        let result = self.inner.wait4(pid, which);
        self.done(Call::Wait4 { pid, which }, result, |waited| Reply::Waited(*waited))
    }

    fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()> {
        let result = self.inner.kill(pid, signal);
        self.unit(Call::Kill { pid, signal }, result)
    }

    fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd> {
        let result = self.inner.pidfd_open(pid);
        self.fd(Call::PidfdOpen { pid }, result)
    }

    fn getpid(&mut self) -> Pid {
        let pid = self.inner.getpid();
        self.id(Call::Getpid, pid)
    }

    fn gettid(&mut self) -> Pid {
        let pid = self.inner.gettid();
        self.id(Call::Gettid, pid)
    }

    fn tid_address(&mut self) -> SysResult<TidAddress> {
        let result = self.inner.tid_address();
        self.done(Call::TidAddress, result, |tid| Reply::TidAddress(*tid))
    }

    fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()> {
        let result = self.inner.setns(fd, kind);
        self.unit(Call::Setns { fd, kind }, result)
    }

    fn unshare(&mut self, flags: CloneFlags) -> SysResult<()> {
        let result = self.inner.unshare(flags);
        self.unit(Call::Unshare { flags }, result)
    }

    fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()> {
        let result = self.inner.set_dumpable(dumpable);
        self.unit(Call::SetDumpable { dumpable }, result)
    }

    fn set_name(&mut self, name: &CStr) -> SysResult<()> {
        let result = self.inner.set_name(name);
        self.unit(Call::SetName { name: name.to_bytes().into() }, result)
    }

    fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()> {
        let result = self.inner.set_pdeathsig(signal);
        self.unit(Call::SetPdeathsig { signal }, result)
    }

    fn setsid(&mut self) -> SysResult<()> {
        let result = self.inner.setsid();
        self.unit(Call::Setsid, result)
    }

    fn setresuid(&mut self, uid: u32) -> SysResult<()> {
        let result = self.inner.setresuid(uid);
        self.unit(Call::Setresuid { uid }, result)
    }

    fn setuid(&mut self, uid: u32) -> SysResult<()> {
        let result = self.inner.setuid(uid);
        self.unit(Call::Setuid { uid }, result)
    }

    fn setgid(&mut self, gid: u32) -> SysResult<()> {
        let result = self.inner.setgid(gid);
        self.unit(Call::Setgid { gid }, result)
    }

    fn drop_groups(&mut self) -> SysResult<()> {
        let result = self.inner.drop_groups();
        self.unit(Call::DropGroups, result)
    }

    fn sched_getaffinity(&mut self) -> SysResult<u64> {
        let result = self.inner.sched_getaffinity();
        self.done(Call::SchedGetaffinity, result, |cpus| Reply::Affinity(*cpus))
    }

    fn mount(&mut self, mount: Mount) -> SysResult<()> {
        let result = self.inner.mount(mount);
        self.unit(Call::Mount { mount }, result)
    }

    fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet> {
        let result = self.inner.sigprocmask(how, set);
        self.done(Call::Sigprocmask { how, set }, result, |old| Reply::Mask(*old))
    }

    fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction> {
        let result = self.inner.sigaction(signal, action);
        self.done(Call::Sigaction { signal, action }, result, |old| Reply::Action(*old))
    }

    fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal> {
        let result = self.inner.sigtimedwait(set);
        self.done(Call::Sigtimedwait { set }, result, |signal| Reply::Signal(*signal))
    }
}
