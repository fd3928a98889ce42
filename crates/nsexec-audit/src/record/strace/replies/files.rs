//! The replies that are structures: file systems, directory entries, messages with descriptors, events,
//! statuses.

use core::fmt::{self, Formatter};
use std::vec;
use std::vec::Vec;

use super::{Shown, count};
use crate::record::strace::parts::{array, field};
use crate::record::strace::words::{
    Quoted, SignalName, UNKNOWN_ADDRESS, fd, flags, number, poll_events, signal, whole, write_poll_events,
};
use crate::record::{Bytes, Call, Reply, kind};
use nsexec::sys::types::{Fd, FsType, Pid, PollEvents, PollFd, Received, WaitStatus, Waited};

impl Shown for kind::FsType {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::FsType(FsType::NSFS) => f.write_str("{f_type=NSFS_MAGIC, ...}"),
            Reply::FsType(FsType::PROC) => f.write_str("{f_type=PROC_SUPER_MAGIC, ...}"),
            Reply::FsType(kind) => write!(f, "{{f_type={:#x}, ...}}", kind.0),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    /// Only some names are known; a line with another name is not recognised.
    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        let word = flags(field(filled, "f_type")?, FILE_SYSTEMS)?;
        i64::try_from(word).ok().map(FsType).map(Reply::FsType)
    }
}

const FILE_SYSTEMS: &[(u64, &str)] = &[
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

impl Shown for kind::Entries {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Data(data) => write!(f, "{UNKNOWN_ADDRESS} /* {} entries */", number_of_entries(&data.0)),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        entries(filled, result).map(|entries| Reply::Data(Bytes(entries)))
    }
}

/// Returns the number of `struct linux_dirent64` in a buffer. The length of each follows its inode and
/// offset.
fn number_of_entries(mut data: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&[low, high]) = data.get(16..18) {
        count += 1;
        let length = usize::from(u16::from_ne_bytes([low, high])).max(1);
        data = data.get(length..).unwrap_or_default();
    }
    count
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

/// Returns an entry as the kernel writes it. `None` if the name does not fit its length.
fn dirent(inode: u64, offset: u64, length: u16, kind: u8, name: &[u8]) -> Option<Vec<u8>> {
    let mut entry = Vec::new();
    entry.extend(inode.to_ne_bytes());
    entry.extend(offset.to_ne_bytes());
    entry.extend(length.to_ne_bytes());
    entry.push(kind);
    entry.extend(name);
    let length = usize::from(length);
    (entry.len() < length).then(|| {
        entry.resize(length, 0);
        entry
    })
}

impl Shown for kind::Received {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        let Reply::Received(Received { byte, fd, truncated }) = reply else {
            let failed = matches!(reply, Reply::Errno(_));
            return f.write_str(if failed { "{msg_namelen=0}" } else { UNKNOWN_ADDRESS });
        };
        write_one_byte(f, byte.as_slice())?;
        match fd {
            Some(fd) => write_rights(f, *fd)?,
            None => f.write_str("msg_controllen=0")?,
        }
        let cut = if *truncated { "MSG_CTRUNC|" } else { "" };
        write!(f, ", msg_flags={cut}MSG_CMSG_CLOEXEC}}")
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        received(filled, result).map(Reply::Received)
    }
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

/// Writes the beginning of a message: no address, one byte.
pub(in crate::record::strace) fn write_one_byte(f: &mut Formatter<'_>, byte: &[u8]) -> fmt::Result {
    let byte = Quoted(byte, byte.len());
    write!(f, "{{msg_name=NULL, msg_namelen=0, msg_iov=[{{iov_base={byte}, iov_len=1}}], msg_iovlen=1, ")
}

/// Returns the bytes of a message that consists of one byte.
pub(in crate::record::strace) fn one_byte(message: &str) -> Option<Vec<u8>> {
    let [piece] = array(field(message, "msg_iov")?)?[..] else { return None };
    (field(piece, "iov_len")? == "1").then_some(whole(field(piece, "iov_base")?)?)
}

/// Writes the one descriptor of a message.
pub(in crate::record::strace) fn write_rights(f: &mut Formatter<'_>, fd: Fd) -> fmt::Result {
    let about = "cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS";
    write!(f, "msg_control=[{{{about}, cmsg_data=[{}]}}], msg_controllen=20", fd.0)
}

/// Returns the one descriptor of a message.
pub(in crate::record::strace) fn rights(message: &str) -> Option<Fd> {
    let [control] = array(field(message, "msg_control")?)?[..] else { return None };
    let is_fd = field(control, "cmsg_level")? == "SOL_SOCKET" && field(control, "cmsg_type")? == "SCM_RIGHTS";
    let [number] = array(field(control, "cmsg_data")?)?[..] else { return None };
    fd(number).filter(|_| is_fd)
}

impl Shown for kind::Polled {
    fn parse(call: &Call, _: &str, result: &str) -> Option<Reply> {
        let Call::Poll { fds, .. } = call else { return None };
        found(fds.clone(), result)
    }
}

/// Writes descriptors with their events, under this name.
pub(in crate::record::strace) fn write_polled<'a>(
    f: &mut Formatter<'_>,
    fds: impl Iterator<Item = &'a PollFd>,
    what: impl Fn(&PollFd) -> (&'static str, PollEvents),
) -> fmt::Result {
    let mut between = "[";
    let mut some = false;
    for fd in fds {
        write!(f, "{between}{{fd={}", fd.fd.0)?;
        // The kernel skips a negative number, and so does strace.
        if fd.fd.0 >= 0 {
            let (name, events) = what(fd);
            write!(f, ", {name}=")?;
            write_poll_events(f, events)?;
        }
        f.write_str("}")?;
        (between, some) = (", ", true);
    }
    f.write_str(if some { "]" } else { "[]" })
}

/// Parses `{fd=5, events=POLLIN}` and `{fd=-1}`. The field `name` is returned as the requested events.
pub(in crate::record::strace) fn polled(elements: Vec<&str>, name: &str) -> Option<Vec<PollFd>> {
    let one = |element: &str| {
        let number = fd(field(element, "fd")?)?;
        // strace does not show the events of a negative descriptor, which the kernel skips.
        let events = field(element, name).map_or(Some(PollEvents(0)), poll_events)?;
        Some(PollFd::new(number, events))
    };
    elements.into_iter().map(one).collect()
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

impl Shown for kind::Waited {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            // Without a child that changed its state, the kernel has written no status.
            Reply::Waited(waited) if waited.pid.0 != 0 => write_status(f, waited.status),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        let (pid, status) = (result.parse().ok().map(Pid)?, status(filled)?);
        Some(Reply::Waited(Waited { pid, status }))
    }
}

/// Writes a status of wait4(2), in brackets.
fn write_status(f: &mut Formatter<'_>, status: WaitStatus) -> fmt::Result {
    match status {
        WaitStatus::Exited(code) => write!(f, "[{{WIFEXITED(s) && WEXITSTATUS(s) == {code}}}]"),
        WaitStatus::Signaled(signal) => {
            write!(f, "[{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}]", SignalName(signal))
        }
        WaitStatus::Stopped(signal) => {
            write!(f, "[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]", SignalName(signal))
        }
        WaitStatus::Other(word) => write!(f, "[{word:#x}]"),
    }
}

/// Parses a status of wait4(2), in brackets.
fn status(text: &str) -> Option<WaitStatus> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let inside = inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inside);
    if let Some(code) = inside.strip_prefix("WIFEXITED(s) && WEXITSTATUS(s) == ") {
        return code.parse().ok().map(WaitStatus::Exited);
    }
    if let Some(killed) = inside.strip_prefix("WIFSIGNALED(s) && WTERMSIG(s) == ") {
        return signal(killed.trim_end_matches(" && WCOREDUMP(s)")).map(WaitStatus::Signaled);
    }
    if let Some(stopped) = inside.strip_prefix("WIFSTOPPED(s) && WSTOPSIG(s) == ") {
        return signal(stopped).map(WaitStatus::Stopped);
    }
    number(inside).and_then(|word| i32::try_from(word).ok()).map(WaitStatus::Other)
}
