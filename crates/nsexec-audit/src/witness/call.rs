//! Parses one line of strace into a call and its reply. Each call of the bootstrap is recognised only in the
//! one form in which the bootstrap makes it. A call with other flags is foreign.

use std::vec;
use std::vec::Vec;

use super::not_shown::dirent;
use super::words::{
    Parts, address, array, clone_flags, cpus, errno, fd, field, flags, id, number, pair, poll_events, signal,
    signal_set, split, string, wait_for, wait_status, whole,
};
use crate::record::{Bytes, Call, Line, Reply, SA_FLAGS, SEALS};
use nsexec::sys::types::{
    ExitSignal, Fd, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd, Propagation, Received, Seals, SigAction,
    Signal, SocketType, TidAddress, Waited,
};

/// Parses one line, as strace writes it with [`FLAGS`](super::FLAGS), or as a recorded line is shown. Returns
/// `None` if the bootstrap does not make such a call.
///
/// Parts that a line does not show are returned empty. Without `-v`, strace shows only the number of strings
/// of an environment, and only the length of a directory's entries. Recorded lines do the same. No line shows
/// the cached thread id, which is returned as 0.
#[must_use]
pub fn parse_line(line: &str) -> Option<Line> {
    let parts = split(line)?;
    let Parts { name, args, result } = &parts;
    let failed = errno(result).map(Reply::Errno);
    let args = &args[..];
    let (call, reply) = None
        .or_else(|| descriptor(name, args, result))
        .or_else(|| copying(name, args, result))
        .or_else(|| transfer(name, args, result))
        .or_else(|| process(name, args, result))
        .or_else(|| identity(name, args, result))
        .or_else(|| signals(name, args, result))?;
    Some(Line { call, reply: failed.or(reply)? })
}

/// A call, and its reply if it did not fail.
type Read = Option<(Call, Option<Reply>)>;

fn unit(result: &str) -> Option<Reply> {
    (result == "0").then_some(Reply::Unit)
}

fn count(result: &str) -> Option<usize> {
    result.parse().ok()
}

fn new_fd(result: &str) -> Option<Reply> {
    fd(result).filter(|fd| fd.0 >= 0).map(Reply::Fd)
}

fn bytes(text: &str) -> Option<Bytes> {
    whole(text).map(Bytes)
}

/// Parses calls that create, close and describe descriptors.
fn descriptor(name: &str, args: &[&str], result: &str) -> Read {
    Some(match (name, args) {
        ("openat", [dir, path, flags, mode @ ..]) => {
            let flags = open_flags(flags).filter(|flags| *mode == *mode_of(*flags))?;
            (Call::Openat { dir: fd(dir)?, path: bytes(path)?, flags }, new_fd(result))
        }
        ("openat2", [dir, path, how, "24"]) => {
            let no_crossing = field(how, "resolve") == Some("RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS");
            let flags = field(how, "flags").filter(|_| no_crossing).and_then(open_flags)?;
            (Call::Openat2 { dir: fd(dir)?, path: bytes(path)?, flags }, new_fd(result))
        }
        ("close", [number]) => (Call::Close { fd: fd(number)? }, unit(result)),
        ("fstatfs", [number, found]) => (Call::Fstatfs { fd: fd(number)? }, fs_type(found)),
        ("getsockopt", [number, "SOL_SOCKET", "SO_TYPE", found, "[4]"]) => {
            let kind = found.strip_prefix('[').and_then(|found| found.strip_suffix(']'));
            let kind = kind.and_then(|kind| kind.parse().ok()).map(SocketType);
            (Call::SocketType { fd: fd(number)? }, kind.map(Reply::SocketType))
        }
        ("newfstatat", ["AT_FDCWD", path, found, "0"]) => {
            let links = field(found, "st_nlink").and_then(number).unwrap_or(0);
            (Call::LinkCount { path: bytes(path)? }, Some(Reply::Links(links)))
        }
        ("readlinkat", ["AT_FDCWD", path, target, len]) => {
            let reply = count(result).and_then(|_| bytes(target)).map(Reply::Data);
            (Call::Readlink { path: bytes(path)?, len: len.parse().ok()? }, reply)
        }
        ("socketpair", ["AF_UNIX", "SOCK_STREAM|SOCK_CLOEXEC", "0", made]) => {
            (Call::Socketpair, pair(made).map(|(one, other)| Reply::Pair(one, other)))
        }
        ("pipe2", [made, "O_CLOEXEC"]) => {
            (Call::Pipe2, pair(made).map(|(one, other)| Reply::Pair(one, other)))
        }
        ("close_range", [first, "4294967295", "CLOSE_RANGE_CLOEXEC"]) => {
            (Call::CloseRangeCloexec { first: fd(first)? }, unit(result))
        }
        ("getdents64", [number, found, len]) => {
            let call = Call::Getdents64 { fd: fd(number)?, len: len.parse().ok()? };
            (call, entries(found, result).map(|entries| Reply::Data(Bytes(entries))))
        }
        ("fcntl", [number, "F_SETFD", flag @ ("FD_CLOEXEC" | "0")]) => {
            (Call::SetCloexec { fd: fd(number)?, on: *flag != "0" }, unit(result))
        }
        ("dup3", [of, number, "O_CLOEXEC"]) => {
            let call = Call::Dup3 { fd: fd(of)?, number: fd(number)? };
            (call, fd(result).filter(|made| made.0 >= 0).map(|_| Reply::Unit))
        }
        ("pidfd_open", [pid, "0"]) => (Call::PidfdOpen { pid: Pid(pid.parse().ok()?) }, new_fd(result)),
        _ => return None,
    })
}

/// Parses `[{d_ino=5, d_off=1, d_reclen=24, d_type=DT_LNK, d_name="3"}]` (`-v`). For an address, it returns
/// zeroes of the same length.
fn entries(found: &str, result: &str) -> Option<Vec<u8>> {
    const KINDS: &[(u64, &str)] = &[
        (0, "DT_UNKNOWN"),
        (1, "DT_FIFO"),
        (2, "DT_CHR"),
        (4, "DT_DIR"),
        (6, "DT_BLK"),
        (8, "DT_REG"),
        (10, "DT_LNK"),
        (12, "DT_SOCK"),
        (14, "DT_WHT"),
    ];
    let length = count(result)?;
    let Some(listed) = array(found) else { return Some(vec![0; length]) };
    let one = |entry: &str| {
        let value = |name| number(field(entry, name)?);
        let kind = flags(field(entry, "d_type")?, KINDS)?;
        let length = u16::try_from(value("d_reclen")?).ok()?;
        let name = whole(field(entry, "d_name")?)?;
        dirent(value("d_ino")?, value("d_off")?, length, u8::try_from(kind).ok()?, &name)
    };
    let entries = listed.into_iter().map(one).collect::<Option<Vec<_>>>()?.concat();
    (entries.len() == length).then_some(entries)
}

fn open_flags(text: &str) -> Option<OpenFlags> {
    Some(match text {
        "O_RDWR|O_CLOEXEC" => OpenFlags::ReadWrite,
        "O_RDONLY|O_CLOEXEC" => OpenFlags::ReadOnly,
        "O_RDONLY|O_NONBLOCK|O_CLOEXEC" => OpenFlags::Namespace,
        "O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY" => OpenFlags::Directory,
        "O_RDONLY|O_CLOEXEC|O_DIRECTORY" => OpenFlags::List,
        "O_RDWR|O_EXCL|O_CLOEXEC|O_TMPFILE" => OpenFlags::Unnamed,
        "O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC" => OpenFlags::New,
        "O_RDONLY|O_CLOEXEC|O_PATH" => OpenFlags::Path,
        _ => return None,
    })
}

/// Returns the arguments after the flags: the mode, if a file is created.
const fn mode_of(flags: OpenFlags) -> &'static [&'static str] {
    match flags {
        OpenFlags::Unnamed | OpenFlags::New => &["0700"],
        _ => &[],
    }
}

/// Parses the calls that copy our own program.
fn copying(name: &str, args: &[&str], result: &str) -> Read {
    Some(match (name, args) {
        ("fcntl", [number, "F_GET_SEALS"]) => {
            // `0`, `0xf (seals F_SEAL_SEAL|…)`.
            let word = number_of(result.split(" (").next()?);
            (Call::GetSeals { fd: fd(number)? }, word.map(|word| Reply::Seals(Seals(word))))
        }
        ("fcntl", [number, "F_ADD_SEALS", seals]) => {
            let seals = Seals(u32::try_from(flags(seals, SEALS)?).ok()?);
            (Call::AddSeals { fd: fd(number)?, seals }, unit(result))
        }
        ("memfd_create", [name, flags]) => {
            let exec = match *flags {
                "MFD_CLOEXEC|MFD_ALLOW_SEALING|0x10" | "MFD_CLOEXEC|MFD_ALLOW_SEALING|MFD_EXEC" => true,
                "MFD_CLOEXEC|MFD_ALLOW_SEALING" => false,
                _ => return None,
            };
            (Call::MemfdCreate { name: bytes(name)?, exec }, new_fd(result))
        }
        ("sendfile", [to, from, "NULL", len]) => {
            let call = Call::Sendfile { to: fd(to)?, from: fd(from)?, len: len.parse().ok()? };
            (call, count(result).map(Reply::Count))
        }
        ("fchmod", [number, mode]) => {
            let mode = u32::from_str_radix(mode, 8).ok()?;
            (Call::Fchmod { fd: fd(number)?, mode }, unit(result))
        }
        ("unlinkat", ["AT_FDCWD", path, "0"]) => (Call::Unlink { path: bytes(path)? }, unit(result)),
        ("statfs", [path, found]) => {
            let flags = field(found, "f_flags");
            let read_only = flags.map(|flags| flags.split('|').any(|flag| flag == "ST_RDONLY"));
            (Call::IsReadOnly { path: bytes(path)? }, read_only.map(Reply::ReadOnly))
        }
        ("execveat", [number, "\"\"", argv, envp, "AT_EMPTY_PATH"]) => {
            let argv = array(argv)?.into_iter().map(bytes).collect::<Option<_>>()?;
            let call = Call::Execveat { fd: fd(number)?, argv, envp: environment(envp)? };
            (call, (result == "0").then_some(Reply::NoReturn))
        }
        _ => return None,
    })
}

fn number_of(text: &str) -> Option<u32> {
    number(text).and_then(|word| u32::try_from(word).ok())
}

/// Parses strace's name of a file system. Only these names are known; a line with another name is not
/// recognised.
fn fs_type(found: &str) -> Option<Reply> {
    const NAMES: &[(u64, &str)] = &[
        (0x6e73_6673, "NSFS_MAGIC"),
        (0x9fa0, "PROC_SUPER_MAGIC"),
        (0x0102_1994, "TMPFS_MAGIC"),
        (0xef53, "EXT2_SUPER_MAGIC"),
        (0x794c_7630, "OVERLAYFS_SUPER_MAGIC"),
        (0x6265_6572, "SYSFS_MAGIC"),
        (0x1cd1, "DEVPTS_SUPER_MAGIC"),
        (0x5049_5045, "PIPEFS_MAGIC"),
        (0x534f_434b, "SOCKFS_MAGIC"),
        (0x9123_683e, "BTRFS_SUPER_MAGIC"),
        (0x5846_5342, "XFS_SUPER_MAGIC"),
        (0x8584_58f6, "RAMFS_MAGIC"),
    ];
    let word = flags(field(found, "f_type")?, NAMES)?;
    Some(Reply::FsType(FsType(i64::try_from(word).ok()?)))
}

/// Parses reads, writes, and the waits for them.
fn transfer(name: &str, args: &[&str], result: &str) -> Read {
    let taken = count(result).map(Reply::Count);
    Some(match (name, args) {
        ("read", [number, data, len]) => {
            let reply = count(result).and_then(|_| bytes(data)).map(Reply::Data);
            (Call::Read { fd: fd(number)?, len: len.parse().ok()? }, reply)
        }
        ("write", [number, data, _]) => (Call::Write { fd: fd(number)?, data: bytes(data)? }, taken),
        ("pwritev2", [number, vector, "1", "-1", "RWF_NOWAIT"]) => {
            let [piece] = array(vector)?[..] else { return None };
            (Call::WriteNowait { fd: fd(number)?, data: bytes(field(piece, "iov_base")?)? }, taken)
        }
        ("sendto", [number, data, _, "MSG_NOSIGNAL", "NULL", "0"]) => {
            (Call::Send { fd: fd(number)?, data: bytes(data)? }, taken)
        }
        ("sendmsg", [number, message, "MSG_NOSIGNAL"]) if one_byte(message)? == [0] => {
            (Call::SendFd { socket: fd(number)?, fd: rights(message)? }, taken)
        }
        ("recvmsg", [number, message, "MSG_CMSG_CLOEXEC"]) => {
            (Call::ReceiveFd { socket: fd(number)? }, received(message, result).map(Reply::Received))
        }
        ("poll", [fds, _, timeout]) => {
            let fds = polled(array(fds)?, "events")?;
            (Call::Poll { fds: fds.clone(), timeout_ms: timeout.parse().ok()? }, found(fds, result))
        }
        // On aarch64 a poll is a ppoll, with the time as a structure.
        ("ppoll", [fds, _, timeout, "NULL", ..]) => {
            let fds = polled(array(fds)?, "events")?;
            (Call::Poll { fds: fds.clone(), timeout_ms: milliseconds(timeout)? }, found(fds, result))
        }
        _ => return None,
    })
}

/// Returns the bytes of a message that consists of one byte.
fn one_byte(message: &str) -> Option<Vec<u8>> {
    let [piece] = array(field(message, "msg_iov")?)?[..] else { return None };
    (field(piece, "iov_len")? == "1").then_some(whole(field(piece, "iov_base")?)?)
}

/// Returns the one descriptor of a message.
fn rights(message: &str) -> Option<Fd> {
    let [control] = array(field(message, "msg_control")?)?[..] else { return None };
    let is_fd = field(control, "cmsg_level")? == "SOL_SOCKET" && field(control, "cmsg_type")? == "SCM_RIGHTS";
    let [number] = array(field(control, "cmsg_data")?)?[..] else { return None };
    fd(number).filter(|_| is_fd)
}

/// Parses a received message. Returns `None` for control messages other than one descriptor, since the
/// receive buffer has no room for them.
fn received(message: &str, result: &str) -> Option<Received> {
    let byte = one_byte(message)?.first().copied().filter(|_| result != "0");
    let fd = match field(message, "msg_control") {
        Some(_) => Some(rights(message)?),
        None => None,
    };
    let truncated = field(message, "msg_flags")?.split('|').any(|flag| flag == "MSG_CTRUNC");
    Some(Received { byte, fd, truncated })
}

/// Parses `{fd=5, events=POLLIN}` and `{fd=-1}`. The field `name` is returned as the requested events.
fn polled(elements: Vec<&str>, name: &str) -> Option<Vec<PollFd>> {
    let one = |element: &str| {
        let number = fd(field(element, "fd")?)?;
        // strace does not show the events of a negative descriptor, which the kernel skips.
        let events = field(element, name).map_or(Some(nsexec::sys::types::PollEvents(0)), poll_events)?;
        Some(PollFd::new(number, events))
    };
    elements.into_iter().map(one).collect()
}

/// Parses `NULL` or `{tv_sec=0, tv_nsec=200000000}` as milliseconds.
fn milliseconds(text: &str) -> Option<i32> {
    if text == "NULL" {
        return Some(-1);
    }
    let (seconds, nanoseconds) = (number(field(text, "tv_sec")?)?, number(field(text, "tv_nsec")?)?);
    i32::try_from(seconds.checked_mul(1000)?.checked_add(nanoseconds / 1_000_000)?).ok()
}

/// Parses the result of a poll: `0 (Timeout)`, `1 ([{fd=5, revents=POLLIN}])`.
fn found(mut fds: Vec<PollFd>, result: &str) -> Option<Reply> {
    let (number, what) = result.split_once(" (").unwrap_or((result, ""));
    let number = count(number)?;
    if let Some(listed) = what.strip_suffix(')').and_then(array) {
        let mut slots = fds.iter_mut();
        // The list has the order of the call, in which a descriptor may occur twice.
        for PollFd { fd, events, .. } in polled(listed, "revents")? {
            slots.find(|slot| slot.fd == fd)?.revents = events;
        }
    }
    Some(Reply::Polled { count: number, fds })
}

/// Parses calls that create, execute, end and wait for processes.
fn process(name: &str, args: &[&str], result: &str) -> Read {
    let pid = || result.parse().ok().map(Pid);
    Some(match (name, args) {
        ("clone", ["child_stack=NULL", rest @ ..]) => (clone(rest)?, made(result)),
        ("execve", [path, argv, envp]) => {
            let argv = array(argv)?.into_iter().map(bytes).collect::<Option<_>>()?;
            let call = Call::Execve { path: bytes(path)?, argv, envp: environment(envp)? };
            (call, (result == "0").then_some(Reply::NoReturn))
        }
        ("wait4", [which, status, how, "NULL"]) => {
            let call = Call::Wait4 { pid: Pid(which.parse().ok()?), which: wait_for(how)? };
            let waited = pid().zip(wait_status(status)).map(|(pid, status)| Waited { pid, status });
            (call, waited.map(Reply::Waited))
        }
        ("kill", [pid, sent]) => {
            (Call::Kill { pid: Pid(pid.parse().ok()?), signal: signal(sent)? }, unit(result))
        }
        ("getpid", []) => (Call::Getpid, pid().map(Reply::Pid)),
        ("gettid", []) => (Call::Gettid, pid().map(Reply::Pid)),
        ("prctl", ["PR_GET_TID_ADDRESS", found]) => {
            let address = array(found).and_then(|found| address(found.first()?));
            (Call::TidAddress, address.map(|address| Reply::TidAddress(TidAddress { address, cached: 0 })))
        }
        _ => return None,
    })
}

fn made(result: &str) -> Option<Reply> {
    match result.parse().ok()? {
        0 => Some(Reply::Child),
        pid => Some(Reply::Parent(Pid(pid))),
    }
}

fn clone(args: &[&str]) -> Option<Call> {
    let words = args.first()?.strip_prefix("flags=")?;
    let has = |name| words.split('|').any(|word| word == name);
    let known = ["CLONE_PARENT", "CLONE_CHILD_CLEARTID", "CLONE_CHILD_SETTID", "SIGCHLD", "0"];
    if !words.split('|').all(|word| known.contains(&word)) {
        return None;
    }
    let tid = match args.get(1) {
        Some(pointer) => {
            Some(TidAddress { address: address(pointer.strip_prefix("child_tidptr=")?)?, cached: 0 })
        }
        None => None,
    };
    let exit = if has("SIGCHLD") { ExitSignal::Chld } else { ExitSignal::None };
    Some(if has("CLONE_PARENT") { Call::CloneSibling { tid } } else { Call::Fork { exit, tid } })
}

/// Parses a list (`-v`). For an address with a number of variables, it returns that many empty strings.
fn environment(text: &str) -> Option<Vec<Bytes>> {
    if let Some(variables) = array(text) {
        return variables.into_iter().map(bytes).collect();
    }
    let count = text.split_once("/* ")?.1.split_once(" var")?.0.parse().ok()?;
    Some(vec![Bytes::default(); count])
}

/// Parses calls that change the properties of the process: namespaces, ids, names, mounts.
fn identity(name: &str, args: &[&str], result: &str) -> Read {
    let call = match (name, args) {
        ("setns", [number, kind]) => Call::Setns { fd: fd(number)?, kind: clone_flags(kind)? },
        ("unshare", [flags]) => Call::Unshare { flags: clone_flags(flags)? },
        ("prctl", ["PR_SET_DUMPABLE", "SUID_DUMP_DISABLE"]) => Call::SetDumpable { dumpable: false },
        ("prctl", ["PR_SET_DUMPABLE", "SUID_DUMP_USER"]) => Call::SetDumpable { dumpable: true },
        // strace cannot tell whether a name of 15 bytes is cut, and always marks it so.
        ("prctl", ["PR_SET_NAME", name]) => Call::SetName { name: Bytes(string(name)?.0) },
        ("prctl", ["PR_SET_PDEATHSIG", sent]) => Call::SetPdeathsig { signal: signal(sent)? },
        // The result of setsid is the caller's pid, which the recorder does not keep.
        ("setsid", []) => return Some((Call::Setsid, count(result).map(|_| Reply::Unit))),
        ("setresuid", [real, effective, saved]) if real == effective && real == saved => {
            Call::Setresuid { uid: id(real)? }
        }
        ("setuid", [uid]) => Call::Setuid { uid: id(uid)? },
        ("setgid", [gid]) => Call::Setgid { gid: id(gid)? },
        ("setgroups", ["0", "NULL"]) => Call::DropGroups,
        ("sched_getaffinity", ["0", "128", mask]) => {
            return Some((Call::SchedGetaffinity, cpus(mask).map(Reply::Affinity)));
        }
        ("mount", args) => Call::Mount { mount: mount(args)? },
        _ => return None,
    };
    Some((call, unit(result)))
}

fn mount(args: &[&str]) -> Option<Mount> {
    Some(match args {
        ["NULL", "\"/\"", "NULL", "MS_REC|MS_PRIVATE", "NULL"] => Mount::Propagation(Propagation::Private),
        ["NULL", "\"/\"", "NULL", "MS_REC|MS_SLAVE", "NULL"] => Mount::Propagation(Propagation::Slave),
        ["NULL", "\"/\"", "NULL", "MS_REC|MS_SHARED", "NULL"] => Mount::Propagation(Propagation::Shared),
        ["\"proc\"", "\"/proc\"", "\"proc\"", "MS_NOSUID|MS_NODEV|MS_NOEXEC", "NULL"] => Mount::Proc,
        _ => return None,
    })
}

fn signals(name: &str, args: &[&str], result: &str) -> Read {
    Some(match (name, args) {
        ("rt_sigprocmask", [how, set, old, "8"]) => {
            let how = match *how {
                "SIG_BLOCK" => MaskHow::Block,
                "SIG_SETMASK" => MaskHow::Set,
                _ => return None,
            };
            (Call::Sigprocmask { how, set: signal_set(set)? }, signal_set(old).map(Reply::Mask))
        }
        ("rt_sigaction", [of, new, old, "8"]) => {
            (Call::Sigaction { signal: signal(of)?, action: action(new)? }, action(old).map(Reply::Action))
        }
        ("rt_sigtimedwait", [set, "NULL", "{tv_sec=0, tv_nsec=0}", "8"]) => {
            let number = result.split(' ').next().and_then(|number| number.parse().ok());
            (Call::Sigtimedwait { set: signal_set(set)? }, number.map(|number| Reply::Signal(Signal(number))))
        }
        _ => return None,
    })
}

fn action(text: &str) -> Option<SigAction> {
    let handler = match field(text, "sa_handler")? {
        "SIG_DFL" => 0,
        "SIG_IGN" => 1,
        handler => address(handler)?,
    };
    Some(SigAction {
        handler,
        flags: flags(field(text, "sa_flags")?, SA_FLAGS)?,
        restorer: field(text, "sa_restorer").map_or(Some(0), address)?,
        mask: signal_set(field(text, "sa_mask")?)?,
    })
}
