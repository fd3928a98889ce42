//! Descriptors, their objects, and reads and writes (pipe(7), unix(7), close(2)).
//!
//! A descriptor is a number in one process. All copies that forks made share its open file description, which
//! is closed with the last copy. Only then does the other end see the end of the file.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::vec::Vec;

use super::creds::Creds;
use super::kernel::{Halt, Kernel};
use super::mounts::Place;
use super::namespaces::NsId;
use super::process::Task;
use super::procfs::PidEntry;
use super::streams::{Pair, Pipe, Writing, take};
use nsexec::sys::types::{Errno, Fd, FsType, SocketType, SysResult};

/// The access mode of a descriptor, for objects where it differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// O_PATH: the descriptor only marks a place in the file tree (open(2)).
    PathOnly,
    Read,
    Both,
}

/// The object of an open file description.
#[derive(Clone, Debug)]
pub(super) enum Object {
    /// One side, 0 or 1, of a socket pair.
    Socket(usize, usize),
    PipeRead(usize),
    PipeWrite(usize),
    Namespace(NsId),
    /// A file of /proc/PID, with the user namespace that it showed when it was opened.
    Proc(Task, PidEntry, NsId, Access),
    /// /proc, opened with O_PATH, with the pid namespace whose processes it shows.
    ProcRoot(NsId),
    /// /proc/PID itself.
    ProcDir(Task, Access),
    /// Any other file, opened with O_PATH.
    PathOnly(FsType),
    /// /proc/PID/fd, opened to read its entries.
    FdList(Task, Access),
    Pidfd(Task),
    /// /dev/null.
    Null,
    /// A sink: the report shows the bytes written here.
    Sink,
    Regular(Rc<[u8]>),
    /// A file that a process made.
    Made(usize, Access),
    Fifo,
    /// Any other directory.
    Directory(FsType),
    /// An internet socket, with the network namespace in which it was created.
    InetSocket(NsId),
    /// A Landlock rule set.
    Ruleset,
    /// A place in the tree of mounts, and whether it is a directory. The content of a file is not modelled.
    Tree(Place, bool, Access),
}

/// `TMPFS_MAGIC`: the type of the file system that holds the files of a test.
pub(super) const TMPFS: FsType = FsType(0x0102_1994);

impl Object {
    /// Returns the type that fstatfs(2) reports.
    pub(super) fn fs_type(&self) -> FsType {
        const PIPEFS: FsType = FsType(0x5049_5045);
        const SOCKFS: FsType = FsType(0x534f_434b);
        const ANON_INODE_FS: FsType = FsType(0x0904_1934);
        match self {
            Self::Namespace(_) => FsType::NSFS,
            Self::Proc(..) | Self::ProcRoot(_) | Self::ProcDir(..) | Self::FdList(..) => FsType::PROC,
            Self::Socket(..) | Self::InetSocket(_) => SOCKFS,
            Self::Ruleset => ANON_INODE_FS,
            Self::PipeRead(_) | Self::PipeWrite(_) => PIPEFS,
            Self::Pidfd(_) => FsType::PIDFS,
            Self::Directory(kind) | Self::PathOnly(kind) => *kind,
            Self::Null | Self::Sink | Self::Regular(_) | Self::Made(..) | Self::Fifo | Self::Tree(..) => {
                TMPFS
            }
        }
    }

    /// Returns whether the object was opened with O_PATH.
    pub(super) fn is_path_only(&self) -> bool {
        matches!(
            self,
            Self::PathOnly(_)
                | Self::ProcRoot(_)
                | Self::ProcDir(_, Access::PathOnly)
                | Self::FdList(_, Access::PathOnly)
                | Self::Made(_, Access::PathOnly)
                | Self::Tree(.., Access::PathOnly)
        )
    }
}

/// An open file description.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) object: Object,
    /// The number of its descriptors in all tables, plus the number of its copies in transit through a
    /// socket.
    pub(super) refs: usize,
    offset: usize,
    /// The credentials of its opener, which the files of /proc check.
    opener: Creds,
}

/// An entry of a descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) description: usize,
    pub(super) cloexec: bool,
}

/// A descriptor table.
pub(super) type Table = BTreeMap<i32, Slot>;

impl Kernel {
    pub(super) fn slot(&self, me: Task, fd: Fd) -> SysResult<Slot> {
        self.process(me).fds.get(&fd.0).copied().ok_or(Errno::EBADF)
    }

    /// Returns the object of a descriptor.
    pub(super) fn object(&self, me: Task, fd: Fd) -> SysResult<&Object> {
        let slot = self.slot(me, fd)?;
        Ok(&self.descriptions[slot.description].object)
    }

    /// Implements getsockopt(2) with SO_TYPE. Every simulated socket pair is of stream sockets.
    pub(super) fn socket_type(&self, me: Task, fd: Fd) -> SysResult<SocketType> {
        match self.object(me, fd)? {
            Object::Socket(..) => Ok(SocketType::STREAM),
            Object::InetSocket(_) => Ok(SocketType::DGRAM),
            object if object.is_path_only() => Err(Errno::EBADF),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    pub(super) fn namespace_of(&self, me: Task, fd: Fd) -> SysResult<NsId> {
        match self.object(me, fd)? {
            Object::Namespace(ns) => Ok(*ns),
            object if object.is_path_only() => Err(Errno::EBADF),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Opens `object` at the lowest free number.
    pub(super) fn install(&mut self, me: Task, object: Object, cloexec: bool) -> SysResult<Fd> {
        let number = self.free_number(me)?;
        let opener = self.process(me).creds.clone();
        self.descriptions.push(Description { object, refs: 1, offset: 0, opener });
        let description = self.descriptions.len() - 1;
        self.process_mut(me).fds.insert(number, Slot { description, cloexec });
        Ok(Fd(number))
    }

    /// Returns the lowest free number. Fails with `EMFILE`.
    pub(super) fn free_number(&self, me: Task) -> SysResult<i32> {
        let table = &self.process(me).fds;
        (0..self.descriptor_limit(me)).find(|number| !table.contains_key(number)).ok_or(Errno::EMFILE)
    }

    /// Installs a descriptor received through a socket at the lowest free number. If no number is free, the
    /// descriptor is closed.
    pub(super) fn put(&mut self, me: Task, slot: Slot) -> SysResult<Fd> {
        let number = self.free_number(me).inspect_err(|_| self.release(slot))?;
        self.process_mut(me).fds.insert(number, slot);
        Ok(Fd(number))
    }

    /// Implements dup3(2) with O_CLOEXEC.
    ///
    /// Errors: `EINVAL`: both numbers are the same. `EBADF`: `fd` is not open, or `number` is beyond the
    /// limit.
    pub(super) fn dup3(&mut self, me: Task, fd: Fd, number: Fd) -> SysResult<()> {
        if fd == number {
            return Err(Errno::EINVAL);
        }
        if !(0..self.descriptor_limit(me)).contains(&number.0) {
            return Err(Errno::EBADF);
        }
        self.duplicate(me, fd, number, true)
    }

    /// Implements dup3(2) without flags. The errors are those of [`dup3`](Self::dup3).
    pub(super) fn dup_to(&mut self, me: Task, fd: Fd, number: Fd) -> SysResult<()> {
        self.dup3(me, fd, number)?;
        self.set_cloexec(me, number, false)
    }

    /// Implements fcntl(2) with F_DUPFD_CLOEXEC.
    ///
    /// Errors: `EBADF`: `fd` is not open. `EINVAL`: `least` is beyond the limit. `EMFILE`.
    pub(super) fn dup_above(&mut self, me: Task, fd: Fd, least: Fd) -> SysResult<Fd> {
        self.slot(me, fd)?;
        if !(0..self.descriptor_limit(me)).contains(&least.0) {
            return Err(Errno::EINVAL);
        }
        let table = &self.process(me).fds;
        let free = (least.0..self.descriptor_limit(me)).find(|number| !table.contains_key(number));
        let number = Fd(free.ok_or(Errno::EMFILE)?);
        self.duplicate(me, fd, number, true)?;
        Ok(number)
    }

    pub(super) fn duplicate(&mut self, me: Task, fd: Fd, number: Fd, cloexec: bool) -> SysResult<()> {
        let description = self.slot(me, fd)?.description;
        self.descriptions[description].refs += 1;
        if let Some(old) = self.process_mut(me).fds.insert(number.0, Slot { description, cloexec }) {
            self.release(old);
        }
        Ok(())
    }

    /// Adds a reference to each description in a table that a fork copied.
    pub(super) fn share(&mut self, table: &Table) {
        for slot in table.values() {
            self.descriptions[slot.description].refs += 1;
        }
    }

    pub(super) fn close(&mut self, me: Task, fd: Fd) -> SysResult<()> {
        let slot = self.process_mut(me).fds.remove(&fd.0).ok_or(Errno::EBADF)?;
        self.release(slot);
        Ok(())
    }

    /// Drops a reference. When the last one is dropped, the other end sees the close.
    pub(super) fn release(&mut self, slot: Slot) {
        let description = &mut self.descriptions[slot.description];
        description.refs -= 1;
        if description.refs > 0 {
            return;
        }
        match description.object {
            Object::PipeRead(pipe) => self.pipes[pipe].readers -= 1,
            Object::PipeWrite(pipe) => self.pipes[pipe].writers -= 1,
            Object::Socket(pair, side) => {
                // unix_release_sock: unread bytes reset the peer.
                let pair = &mut self.pairs[pair];
                pair.open[side] = false;
                pair.reset[1 - side] = !pair.bytes[side].is_empty();
                pair.bytes[side].clear();
                for (_, description) in core::mem::take(&mut pair.rights[side]) {
                    self.release(Slot { description, cloexec: true });
                }
            }
            _ => {}
        }
    }

    pub(super) fn pipe(&mut self, me: Task, cloexec: bool) -> SysResult<(Fd, Fd)> {
        let capacity = self.settings.pipe_buffer;
        self.pipes.push(Pipe { bytes: VecDeque::new(), capacity, readers: 1, writers: 1 });
        let pipe = self.pipes.len() - 1;
        let read = self.install(me, Object::PipeRead(pipe), cloexec)?;
        let write = self.install(me, Object::PipeWrite(pipe), cloexec);
        if write.is_err() {
            self.close(me, read)?;
        }
        Ok((read, write?))
    }

    pub(super) fn socketpair(&mut self, me: Task, cloexec: bool) -> SysResult<(Fd, Fd)> {
        let capacity = self.settings.socket_buffer;
        self.pairs.push(Pair::new(capacity));
        let pair = self.pairs.len() - 1;
        let one = self.install(me, Object::Socket(pair, 0), cloexec)?;
        let other = self.install(me, Object::Socket(pair, 1), cloexec);
        if other.is_err() {
            self.close(me, one)?;
        }
        Ok((one, other?))
    }

    pub(super) fn set_cloexec(&mut self, me: Task, fd: Fd, cloexec: bool) -> SysResult<()> {
        self.slot(me, fd)?;
        self.process_mut(me).fds.entry(fd.0).and_modify(|slot| slot.cloexec = cloexec);
        Ok(())
    }

    /// Implements close_range(first, ~0, CLOSE_RANGE_CLOEXEC). A negative number is above every descriptor.
    pub(super) fn close_range_cloexec(&mut self, me: Task, first: Fd) -> SysResult<()> {
        if first.0 >= 0 {
            self.process_mut(me).fds.range_mut(first.0..).for_each(|(_, slot)| slot.cloexec = true);
        }
        Ok(())
    }

    /// Implements close_range(first, ~0, 0). A negative number is above every descriptor.
    pub(super) fn close_range(&mut self, me: Task, first: Fd) -> SysResult<()> {
        if first.0 >= 0 {
            let closed = self.process_mut(me).fds.split_off(&first.0);
            closed.into_values().for_each(|slot| self.release(slot));
        }
        Ok(())
    }

    /// Implements read(2). Returns the queued bytes first, then the reset once, then the end of the file.
    pub(super) fn read(&mut self, me: Task, fd: Fd, len: usize) -> Result<Vec<u8>, Halt> {
        let index = self.slot(me, fd)?.description;
        let bytes = match self.descriptions[index].object.clone() {
            Object::Socket(pair, side) => {
                let (bytes, came) = self.pairs[pair].take(side, len).ok_or(Halt::Block)??;
                // A read has no room for descriptors: they are closed (unix(7)).
                for description in came {
                    self.release(Slot { description, cloexec: true });
                }
                bytes
            }
            Object::PipeRead(pipe) => {
                let pipe = &mut self.pipes[pipe];
                if pipe.bytes.is_empty() && pipe.writers > 0 && len > 0 {
                    return Err(Halt::Block);
                }
                take(&mut pipe.bytes, len)
            }
            Object::Proc(task, file, user, _) => {
                let text = self.read_proc(&self.descriptions[index].opener, task, file, user)?;
                self.advance(index, text.as_bytes(), len)
            }
            Object::Regular(content) => self.advance(index, &content, len),
            Object::Null | Object::Sink | Object::Fifo => Vec::new(),
            Object::Tree(_, false, Access::Read | Access::Both) => Vec::new(),
            Object::Namespace(_) | Object::Pidfd(_) | Object::Ruleset => return Err(Errno::EINVAL.into()),
            // No datagram ever comes.
            Object::InetSocket(_) => return Err(Halt::Block),
            Object::Directory(_)
            | Object::Tree(_, true, Access::Read | Access::Both)
            | Object::FdList(_, Access::Read | Access::Both)
            | Object::ProcDir(_, Access::Read | Access::Both) => {
                return Err(Errno::EISDIR.into());
            }
            Object::Made(made, Access::Read | Access::Both) => {
                self.advance(index, &self.made_content(made), len)
            }
            Object::ProcRoot(_)
            | Object::ProcDir(_, Access::PathOnly)
            | Object::FdList(_, Access::PathOnly)
            | Object::Made(_, Access::PathOnly)
            | Object::Tree(.., Access::PathOnly)
            | Object::PathOnly(_)
            | Object::PipeWrite(_) => {
                return Err(Errno::EBADF.into());
            }
        };
        Ok(bytes)
    }

    fn advance(&mut self, index: usize, content: &[u8], len: usize) -> Vec<u8> {
        let offset = &mut self.descriptions[index].offset;
        let piece: Vec<u8> = content.iter().skip(*offset).take(len).copied().collect();
        *offset += piece.len();
        piece
    }

    /// Implements write(2), send(2) and pwritev2(2); `how` selects between them.
    pub(super) fn write(&mut self, me: Task, fd: Fd, data: &[u8], how: Writing) -> Result<usize, Halt> {
        let index = self.slot(me, fd)?.description;
        let object = self.descriptions[index].object.clone();
        if object.is_path_only() {
            return Err(Errno::EBADF.into());
        }
        if how == Writing::Send && !matches!(object, Object::Socket(..) | Object::InetSocket(_)) {
            return Err(Errno::ENOTSOCK.into());
        }
        match object {
            Object::Proc(.., Access::Read) => Err(Errno::EBADF.into()),
            Object::Proc(..) | Object::Socket(..) | Object::PipeWrite(_) | Object::Null | Object::Sink
                if data.is_empty() && how == Writing::NoWait =>
            {
                Ok(0)
            }
            Object::Socket(..) | Object::PipeWrite(_) => self.write_stream(me, &object, data, how),
            // For most other files, buffered writes without blocking are not supported (EOPNOTSUPP, observed
            // on Linux 6.18).
            Object::Proc(..) | Object::Null | Object::Sink | Object::Regular(_) if how == Writing::NoWait => {
                Err(Errno::EOPNOTSUPP.into())
            }
            Object::Proc(task, file, user, _) => {
                let Description { opener, offset, .. } = self.descriptions[index].clone();
                let written = self.write_proc((me, &opener, offset), (task, file, user), data)?;
                // Only writes to these files move the position (map_write, proc_setgroups_write).
                if matches!(file, PidEntry::UidMap | PidEntry::GidMap | PidEntry::Setgroups) {
                    self.descriptions[index].offset += written;
                }
                Ok(written)
            }
            Object::Made(made, Access::Both) => {
                let offset = self.descriptions[index].offset;
                let written = self.write_made(made, offset, data)?;
                self.descriptions[index].offset += written;
                Ok(written)
            }
            Object::Sink => {
                self.sink.extend_from_slice(data);
                Ok(data.len())
            }
            Object::Null | Object::Tree(_, false, Access::Both) => Ok(data.len()),
            // It has no peer.
            Object::InetSocket(_) => Err(Errno::EDESTADDRREQ.into()),
            Object::Ruleset => Err(Errno::EINVAL.into()),
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// Implements fstatfs(2), of which the type.
    pub(super) fn fstatfs(&self, me: Task, fd: Fd) -> SysResult<FsType> {
        Ok(match self.object(me, fd)? {
            Object::Regular(_) | Object::Fifo => self.settings.file_system,
            object => object.fs_type(),
        })
    }

    /// Implements getdents64(2) for a list of descriptors. Returns as many whole records as fit.
    pub(super) fn getdents64(&mut self, me: Task, fd: Fd, len: usize) -> SysResult<Vec<u8>> {
        let index = self.slot(me, fd)?.description;
        let object = &self.descriptions[index].object;
        let numbers: Vec<_> = match object {
            Object::FdList(task, Access::Read | Access::Both) => {
                self.process(*task).fds.keys().map(|fd| std::format!("{fd}")).collect()
            }
            object if object.is_path_only() => return Err(Errno::EBADF),
            // The entries of other directories are not modelled.
            Object::ProcDir(..) | Object::Directory(_) | Object::Tree(_, true, _) => Vec::new(),
            _ => return Err(Errno::ENOTDIR),
        };
        let names: Vec<_> = [".".into(), "..".into()].into_iter().chain(numbers).collect();
        let offset = self.descriptions[index].offset;
        let mut bytes = Vec::new();
        let mut taken = 0;
        for (at, name) in names.iter().enumerate().skip(offset) {
            let record = dirent(at, name);
            if bytes.len() + record.len() > len {
                break;
            }
            bytes.extend(record);
            taken += 1;
        }
        if taken == 0 && offset < names.len() {
            return Err(Errno::EINVAL);
        }
        self.descriptions[index].offset += taken;
        Ok(bytes)
    }

    /// Returns whether any descriptor has the file open for writing.
    pub(super) fn is_open_for_writing(&self, made: usize) -> bool {
        let writes = |object: &Object| matches!(object, Object::Made(index, Access::Both) if *index == made);
        self.descriptions.iter().any(|description| description.refs > 0 && writes(&description.object))
    }

    /// Returns a description of a descriptor for people.
    pub(super) fn describe(&self, slot: Slot) -> std::string::String {
        match &self.descriptions[slot.description].object {
            Object::Socket(pair, side) => {
                std::format!(
                    "socket pair {pair} side {side}, {} B queued",
                    self.pairs[*pair].bytes[*side].len()
                )
            }
            Object::PipeRead(pipe) => {
                std::format!("pipe {pipe} read end, {} B queued", self.pipes[*pipe].bytes.len())
            }
            Object::PipeWrite(pipe) => std::format!("pipe {pipe} write end"),
            Object::Namespace(ns) => std::format!("{} namespace {}", self.namespaces[ns.0].kind.name(), ns.0),
            Object::Proc(task, file, ..) => std::format!("{file:?} of {}", self.process(*task).role),
            Object::ProcDir(task, _) => std::format!("/proc of {}", self.process(*task).role),
            Object::FdList(task, _) => std::format!("descriptors of {}", self.process(*task).role),
            Object::Pidfd(task) => std::format!("pidfd of {}", self.process(*task).role),
            other => std::format!("{other:?}"),
        }
    }
}

/// Returns one linux_dirent64: inode, offset, length, type, name (getdents64(2)).
fn dirent(at: usize, name: &str) -> Vec<u8> {
    let len = (19 + name.len() + 1).next_multiple_of(8);
    let mut record = Vec::new();
    record.extend((at as u64 + 1).to_ne_bytes());
    record.extend((at as u64 + 1).to_ne_bytes());
    record.extend((len as u16).to_ne_bytes());
    record.push(if at < 2 { 4 } else { 10 });
    record.extend(name.as_bytes());
    record.resize(len, 0);
    record
}
