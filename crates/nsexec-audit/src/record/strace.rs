//! Writes a line as strace 6.1 does.

use core::fmt::{self, Display, Formatter};

use super::names::{
    Cpus, Quoted, SA_FLAGS, SEALS, Set, SignalName, UNKNOWN_ADDRESS, clone_flags, flags, poll_events, wait4,
};
use super::{Bytes, Call, Line, Reply};
use nsexec::sys::types::{
    ExitSignal, Fd, FsType, MaskHow, Mount, OpenFlags, PollFd, Propagation, Received, Seals, SigAction,
    TidAddress,
};

/// The length limit of PR_SET_NAME. At the limit strace does not check whether there is more.
const NAME_LIMIT: usize = 15;

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.call.name())?;
        arguments(f, &self.call, &self.reply)?;
        f.write_str(") = ")?;
        match (returned(&self.call), &self.reply) {
            (Some(number), Reply::Unit) => write!(f, "{}", number.0),
            (_, reply) => result(f, reply),
        }
    }
}

impl Display for Call {
    /// Writes the call without a result. A buffer that the call will fill is `0x…`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name())?;
        arguments(f, self, &Reply::Unit)?;
        f.write_str(")")
    }
}

/// Returns the name of a descriptor's flag.
const fn cloexec(on: bool) -> &'static str {
    if on { "FD_CLOEXEC" } else { "0" }
}

fn arguments(f: &mut Formatter<'_>, call: &Call, reply: &Reply) -> fmt::Result {
    match call {
        Call::Getpid | Call::Gettid | Call::Setsid => Ok(()),
        Call::Openat { dir, path, flags } => openat(f, *dir, path, *flags),
        Call::Openat2 { dir, path, flags } => openat2(f, *dir, path, *flags),
        Call::Close { fd } => write!(f, "{}", fd.0),
        Call::Read { fd, len } => read(f, *fd, *len, reply),
        Call::Write { fd, data } => write!(f, "{}, {}, {}", fd.0, Quoted::data(data), data.0.len()),
        Call::WriteNowait { fd, data } => {
            let (text, len) = (Quoted::data(data), data.0.len());
            write!(f, "{}, [{{iov_base={text}, iov_len={len}}}], 1, -1, RWF_NOWAIT", fd.0)
        }
        Call::Send { fd, data } => {
            write!(f, "{}, {}, {}, MSG_NOSIGNAL, NULL, 0", fd.0, Quoted::data(data), data.0.len())
        }
        Call::SendFd { socket, fd } => send_fd(f, *socket, *fd),
        Call::ReceiveFd { socket } => receive_fd(f, *socket, reply),
        Call::Dup3 { fd, number } => write!(f, "{}, {}, O_CLOEXEC", fd.0, number.0),
        Call::Poll { fds, timeout_ms } => {
            polled(f, fds.iter(), |fd| ("events", fd.events))?;
            write!(f, ", {}, {timeout_ms}", fds.len())
        }
        Call::Fstatfs { fd } => fstatfs(f, *fd, reply),
        Call::SocketType { fd } => socket_type(f, *fd, reply),
        Call::LinkCount { path } => link_count(f, path, reply),
        Call::Readlink { path, len } => readlink(f, path, *len, reply),
        Call::Socketpair => pair(f, "AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, ", reply),
        Call::Pipe2 => pair(f, "", reply).and_then(|()| f.write_str(", O_CLOEXEC")),
        Call::CloseRangeCloexec { first } => write!(f, "{}, {}, CLOSE_RANGE_CLOEXEC", first.0, u32::MAX),
        Call::Getdents64 { fd, len } => getdents(f, *fd, *len, reply),
        Call::SetCloexec { fd, on } => write!(f, "{}, F_SETFD, {}", fd.0, cloexec(*on)),
        Call::GetSeals { .. }
        | Call::AddSeals { .. }
        | Call::MemfdCreate { .. }
        | Call::Sendfile { .. }
        | Call::Fchmod { .. }
        | Call::Unlink { .. }
        | Call::IsReadOnly { .. }
        | Call::Execveat { .. } => copying(f, call, reply),
        Call::CloneSibling { tid } => clone(f, "CLONE_PARENT|", "SIGCHLD", *tid),
        Call::Fork { exit: ExitSignal::Chld, tid } => clone(f, "", "SIGCHLD", *tid),
        Call::Fork { exit: ExitSignal::None, tid } => clone(f, "", "0", *tid),
        Call::Execve { path, argv, envp } => execve(f, path, argv, envp),
        Call::Wait4 { pid, which } => wait4(f, pid.0, *which, reply),
        Call::Kill { pid, signal } => write!(f, "{pid}, {}", SignalName(*signal)),
        Call::PidfdOpen { pid } => write!(f, "{pid}, 0"),
        Call::TidAddress => tid_address(f, reply),
        Call::Setns { fd, kind } => {
            write!(f, "{}, ", fd.0)?;
            clone_flags(f, *kind, "CLONE_NEW???")
        }
        Call::Unshare { flags } => clone_flags(f, *flags, "CLONE_???"),
        Call::SetDumpable { dumpable: false } => f.write_str("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"),
        Call::SetDumpable { dumpable: true } => f.write_str("PR_SET_DUMPABLE, SUID_DUMP_USER"),
        Call::SetName { name } => set_name(f, name),
        Call::SetPdeathsig { signal } => write!(f, "PR_SET_PDEATHSIG, {}", SignalName(*signal)),
        Call::Setresuid { uid } => write!(f, "{0}, {0}, {0}", Id(*uid)),
        Call::Setuid { uid: id } | Call::Setgid { gid: id } => Id(*id).fmt(f),
        Call::DropGroups => f.write_str("0, NULL"),
        Call::SchedGetaffinity => affinity(f, reply),
        Call::Mount { mount } => f.write_str(mount_arguments(*mount)),
        Call::Sigprocmask { how, set } => sigprocmask(f, *how, Set(*set), reply),
        Call::Sigaction { signal, action } => sigaction(f, SignalName(*signal), action, reply),
        Call::Sigtimedwait { set } => write!(f, "{}, NULL, {{tv_sec=0, tv_nsec=0}}, 8", Set(*set)),
    }
}

/// The beginning of our messages with a descriptor: no address, one byte.
const ONE_BYTE: &str = "msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base=";

fn send_fd(f: &mut Formatter<'_>, socket: Fd, fd: Fd) -> fmt::Result {
    write!(f, "{}, {{{ONE_BYTE}\"\\0\", iov_len=1}}], msg_iovlen=1, ", socket.0)?;
    rights(f, fd)?;
    f.write_str(", msg_flags=0}, MSG_NOSIGNAL")
}

fn receive_fd(f: &mut Formatter<'_>, socket: Fd, reply: &Reply) -> fmt::Result {
    let Reply::Received(Received { byte, fd, truncated }) = reply else {
        return match reply {
            Reply::Errno(_) => write!(f, "{}, {{msg_namelen=0}}, MSG_CMSG_CLOEXEC", socket.0),
            _ => write!(f, "{}, {UNKNOWN_ADDRESS}, MSG_CMSG_CLOEXEC", socket.0),
        };
    };
    let byte = byte.as_slice();
    write!(f, "{}, {{{ONE_BYTE}{}, iov_len=1}}], msg_iovlen=1, ", socket.0, Quoted(byte, byte.len()))?;
    match fd {
        Some(fd) => rights(f, *fd)?,
        None => f.write_str("msg_controllen=0")?,
    }
    let cut = if *truncated { "MSG_CTRUNC|" } else { "" };
    write!(f, ", msg_flags={cut}MSG_CMSG_CLOEXEC}}, MSG_CMSG_CLOEXEC")
}

fn rights(f: &mut Formatter<'_>, fd: Fd) -> fmt::Result {
    let about = "cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS";
    write!(f, "msg_control=[{{{about}, cmsg_data=[{}]}}], msg_controllen=20", fd.0)
}

/// Returns the result of a call that returns one of its arguments: the new number of a descriptor.
fn returned(call: &Call) -> Option<Fd> {
    match call {
        Call::Dup3 { number, .. } => Some(*number),
        _ => None,
    }
}

/// Writes the calls of a process that copies its own program.
fn copying(f: &mut Formatter<'_>, call: &Call, reply: &Reply) -> fmt::Result {
    match call {
        Call::GetSeals { fd } => write!(f, "{}, F_GET_SEALS", fd.0),
        Call::AddSeals { fd, seals } => {
            write!(f, "{}, F_ADD_SEALS, ", fd.0)?;
            seal_names(f, *seals)
        }
        Call::MemfdCreate { name, exec } => {
            // strace 6.1 has no name for MFD_EXEC.
            let exec = if *exec { "|0x10" } else { "" };
            write!(f, "{}, MFD_CLOEXEC|MFD_ALLOW_SEALING{exec}", Quoted::data(name))
        }
        Call::Sendfile { to, from, len } => write!(f, "{}, {}, NULL, {len}", to.0, from.0),
        Call::Fchmod { fd, mode } => write!(f, "{}, 0{mode:02o}", fd.0),
        Call::Unlink { path } => write!(f, "AT_FDCWD, {}, 0", Quoted::data(path)),
        Call::IsReadOnly { path } => match reply {
            Reply::ReadOnly(true) => write!(f, "{}, {{f_flags=ST_RDONLY, ...}}", Quoted::data(path)),
            Reply::ReadOnly(false) => write!(f, "{}, {{f_flags=0, ...}}", Quoted::data(path)),
            _ => write!(f, "{}, {UNKNOWN_ADDRESS}", Quoted::data(path)),
        },
        Call::Execveat { fd, argv, envp } => {
            write!(f, "{}, \"\", ", fd.0)?;
            exec_arrays(f, argv, envp)?;
            f.write_str(", AT_EMPTY_PATH")
        }
        _ => Ok(()),
    }
}

fn result(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Unit
        | Reply::Pair(..)
        | Reply::FsType(_)
        | Reply::SocketType(_)
        | Reply::Links(_)
        | Reply::ReadOnly(_)
        | Reply::Seals(Seals(0))
        | Reply::TidAddress(_)
        | Reply::Mask(_)
        | Reply::Action(_)
        | Reply::Child
        | Reply::NoReturn => f.write_str("0"),
        Reply::Seals(seals) => {
            write!(f, "{:#x} (seals ", seals.0)?;
            seal_names(f, *seals)?;
            f.write_str(")")
        }
        Reply::Fd(fd) => write!(f, "{}", fd.0),
        Reply::Count(count) => write!(f, "{count}"),
        Reply::Data(data) => write!(f, "{}", data.0.len()),
        Reply::Received(received) => write!(f, "{}", usize::from(received.byte.is_some())),
        Reply::Polled { count: 0, .. } => f.write_str("0 (Timeout)"),
        Reply::Polled { count, fds } => {
            write!(f, "{count} (")?;
            polled(f, fds.iter().filter(|fd| fd.revents.0 != 0), |fd| ("revents", fd.revents))?;
            f.write_str(")")
        }
        Reply::Parent(pid) | Reply::Pid(pid) => write!(f, "{pid}"),
        Reply::Waited(waited) => write!(f, "{}", waited.pid),
        Reply::Affinity(_) => f.write_str("8"),
        Reply::Signal(signal) => write!(f, "{} ({})", signal.0, SignalName(*signal)),
        Reply::Errno(errno) => match errno.name() {
            Some(name) => write!(f, "-1 {name} ({errno})"),
            None => write!(f, "-1 (errno {})", errno.0),
        },
    }
}

/// A user or group id. The id that means "no change" is shown as −1.
struct Id(u32);

impl Display for Id {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == u32::MAX { f.write_str("-1") } else { self.0.fmt(f) }
    }
}

const fn open_flags(flags: OpenFlags) -> &'static str {
    match flags {
        OpenFlags::ReadWrite => "O_RDWR|O_CLOEXEC",
        OpenFlags::ReadOnly => "O_RDONLY|O_CLOEXEC",
        OpenFlags::Namespace => "O_RDONLY|O_NONBLOCK|O_CLOEXEC",
        OpenFlags::Directory => "O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY",
        OpenFlags::List => "O_RDONLY|O_CLOEXEC|O_DIRECTORY",
        OpenFlags::Unnamed => "O_RDWR|O_EXCL|O_CLOEXEC|O_TMPFILE, 0700",
        OpenFlags::New => "O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0700",
        OpenFlags::Path => "O_RDONLY|O_CLOEXEC|O_PATH",
    }
}

fn openat(f: &mut Formatter<'_>, dir: Fd, path: &Bytes, flags: OpenFlags) -> fmt::Result {
    let flags = open_flags(flags);
    write!(f, "{}, {}, {flags}", Dir(dir), Quoted::data(path))
}

fn openat2(f: &mut Formatter<'_>, dir: Fd, path: &Bytes, flags: OpenFlags) -> fmt::Result {
    let resolve = "RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS";
    let (dir, path, flags) = (Dir(dir), Quoted::data(path), open_flags(flags));
    write!(f, "{dir}, {path}, {{flags={flags}, resolve={resolve}}}, 24")
}

/// The directory descriptor of a path.
struct Dir(Fd);

impl Display for Dir {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == Fd::CWD { f.write_str("AT_FDCWD") } else { self.0.0.fmt(f) }
    }
}

fn read(f: &mut Formatter<'_>, fd: Fd, len: usize, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Data(data) => write!(f, "{}, {}, {len}", fd.0, Quoted::data(data)),
        _ => write!(f, "{}, {UNKNOWN_ADDRESS}, {len}", fd.0),
    }
}

fn getdents(f: &mut Formatter<'_>, fd: Fd, len: usize, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Data(data) => {
            write!(f, "{}, {UNKNOWN_ADDRESS} /* {} entries */, {len}", fd.0, entries(&data.0))
        }
        _ => write!(f, "{}, {UNKNOWN_ADDRESS}, {len}", fd.0),
    }
}

/// Returns the number of `struct linux_dirent64` in a buffer. The length of each follows its inode and
/// offset.
fn entries(mut data: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&[low, high]) = data.get(16..18) {
        count += 1;
        let length = usize::from(u16::from_ne_bytes([low, high])).max(1);
        data = data.get(length..).unwrap_or_default();
    }
    count
}

fn fstatfs(f: &mut Formatter<'_>, fd: Fd, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::FsType(FsType::NSFS) => write!(f, "{}, {{f_type=NSFS_MAGIC, ...}}", fd.0),
        Reply::FsType(FsType::PROC) => write!(f, "{}, {{f_type=PROC_SUPER_MAGIC, ...}}", fd.0),
        Reply::FsType(kind) => write!(f, "{}, {{f_type={:#x}, ...}}", fd.0, kind.0),
        _ => write!(f, "{}, {UNKNOWN_ADDRESS}", fd.0),
    }
}

fn socket_type(f: &mut Formatter<'_>, fd: Fd, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::SocketType(kind) => write!(f, "{}, SOL_SOCKET, SO_TYPE, [{}], [4]", fd.0, kind.0),
        _ => write!(f, "{}, SOL_SOCKET, SO_TYPE, {UNKNOWN_ADDRESS}, [4]", fd.0),
    }
}

fn link_count(f: &mut Formatter<'_>, path: &Bytes, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Links(count) => write!(f, "AT_FDCWD, {}, {{st_nlink={count}, ...}}, 0", Quoted::data(path)),
        _ => write!(f, "AT_FDCWD, {}, {UNKNOWN_ADDRESS}, 0", Quoted::data(path)),
    }
}

fn readlink(f: &mut Formatter<'_>, path: &Bytes, len: usize, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Data(data) => write!(f, "AT_FDCWD, {}, {}, {len}", Quoted::data(path), Quoted::data(data)),
        _ => write!(f, "AT_FDCWD, {}, {UNKNOWN_ADDRESS}, {len}", Quoted::data(path)),
    }
}

fn pair(f: &mut Formatter<'_>, before: &str, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Pair(one, other) => write!(f, "{before}[{}, {}]", one.0, other.0),
        _ => write!(f, "{before}{UNKNOWN_ADDRESS}"),
    }
}

fn polled<'a>(
    f: &mut Formatter<'_>,
    fds: impl Iterator<Item = &'a PollFd>,
    what: impl Fn(&PollFd) -> (&'static str, nsexec::sys::types::PollEvents),
) -> fmt::Result {
    let mut between = "[";
    let mut some = false;
    for fd in fds {
        write!(f, "{between}{{fd={}", fd.fd.0)?;
        // The kernel skips a negative number, and so does strace.
        if fd.fd.0 >= 0 {
            let (name, events) = what(fd);
            write!(f, ", {name}=")?;
            poll_events(f, events)?;
        }
        f.write_str("}")?;
        (between, some) = (", ", true);
    }
    f.write_str(if some { "]" } else { "[]" })
}

fn clone(f: &mut Formatter<'_>, flags: &str, signal: &str, tid: Option<TidAddress>) -> fmt::Result {
    match (tid, signal) {
        (None, _) => write!(f, "child_stack=NULL, flags={flags}{signal}"),
        (Some(tid), signal) => {
            let signal = if signal == "0" { "" } else { "|SIGCHLD" };
            write!(f, "child_stack=NULL, flags={flags}CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID{signal}")?;
            write!(f, ", child_tidptr={:#x}", tid.address)
        }
    }
}

fn execve(f: &mut Formatter<'_>, path: &Bytes, argv: &[Bytes], envp: &[Bytes]) -> fmt::Result {
    write!(f, "{}, ", Quoted::data(path))?;
    exec_arrays(f, argv, envp)
}

fn exec_arrays(f: &mut Formatter<'_>, argv: &[Bytes], envp: &[Bytes]) -> fmt::Result {
    f.write_str("[")?;
    for (index, arg) in argv.iter().enumerate() {
        write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted::data(arg))?;
    }
    let plural = if envp.len() == 1 { "" } else { "s" };
    write!(f, "], {UNKNOWN_ADDRESS} /* {} var{plural} */", envp.len())
}

fn seal_names(f: &mut Formatter<'_>, seals: Seals) -> fmt::Result {
    flags(f, seals.0.into(), SEALS, "F_SEAL_???")
}

fn tid_address(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::TidAddress(TidAddress { address: 0, .. }) => f.write_str("PR_GET_TID_ADDRESS, [NULL]"),
        Reply::TidAddress(tid) => write!(f, "PR_GET_TID_ADDRESS, [{:#x}]", tid.address),
        _ => write!(f, "PR_GET_TID_ADDRESS, {UNKNOWN_ADDRESS}"),
    }
}

fn set_name(f: &mut Formatter<'_>, name: &Bytes) -> fmt::Result {
    write!(f, "PR_SET_NAME, {}", Quoted(&name.0, NAME_LIMIT))?;
    f.write_str(if name.0.len() == NAME_LIMIT { "..." } else { "" })
}

const fn mount_arguments(mount: Mount) -> &'static str {
    match mount {
        Mount::Propagation(Propagation::Private) => "NULL, \"/\", NULL, MS_REC|MS_PRIVATE, NULL",
        Mount::Propagation(Propagation::Slave) => "NULL, \"/\", NULL, MS_REC|MS_SLAVE, NULL",
        Mount::Propagation(Propagation::Shared) => "NULL, \"/\", NULL, MS_REC|MS_SHARED, NULL",
        Mount::Proc => "\"proc\", \"/proc\", \"proc\", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL",
    }
}

fn sigprocmask(f: &mut Formatter<'_>, how: MaskHow, set: Set, reply: &Reply) -> fmt::Result {
    let how = match how {
        MaskHow::Block => "SIG_BLOCK",
        MaskHow::Set => "SIG_SETMASK",
    };
    match reply {
        Reply::Mask(old) => write!(f, "{how}, {set}, {}, 8", Set(*old)),
        _ => write!(f, "{how}, {set}, {UNKNOWN_ADDRESS}, 8"),
    }
}

fn affinity(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Affinity(cpus) => write!(f, "0, 128, {}", Cpus(*cpus)),
        _ => write!(f, "0, 128, {UNKNOWN_ADDRESS}"),
    }
}

fn sigaction(f: &mut Formatter<'_>, signal: SignalName, new: &SigAction, reply: &Reply) -> fmt::Result {
    write!(f, "{signal}, ")?;
    action(f, new)?;
    match reply {
        Reply::Action(old) => {
            f.write_str(", ")?;
            action(f, old)?;
        }
        _ => write!(f, ", {UNKNOWN_ADDRESS}")?,
    }
    f.write_str(", 8")
}

fn action(f: &mut Formatter<'_>, action: &SigAction) -> fmt::Result {
    match action.handler {
        0 => f.write_str("{sa_handler=SIG_DFL")?,
        1 => f.write_str("{sa_handler=SIG_IGN")?,
        address => write!(f, "{{sa_handler={address:#x}")?,
    }
    write!(f, ", sa_mask={}, sa_flags=", Set(action.mask))?;
    flags(f, action.flags, SA_FLAGS, "SA_???")?;
    let (restorer, _) = SA_FLAGS[0];
    if action.flags & restorer != 0 {
        write!(f, ", sa_restorer={:#x}", action.restorer)?;
    }
    f.write_str("}")
}
