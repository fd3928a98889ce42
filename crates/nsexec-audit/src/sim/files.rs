//! Files that processes make, and the programs in them (memfd_create(2), open(2), fcntl(2), execveat(2),
//! unlink(2)).
//!
//! The content of an executable is a magic number and the path of its [`Program`]. So a complete copy is the
//! same program, and a partial copy cannot be executed.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::descriptors::{Access, Object};
use super::kernel::{Halt, Kernel};
use super::process::Task;
use super::procfs::{Extra, Node};
use super::program::Program;
use super::streams::Writing;
use nsexec::sys::types::{Errno, Fd, FsType, OpenFlags, Seals, SysResult};

/// The first bytes of an executable.
const MAGIC: &[u8] = b"\x7fELF";

/// The program file of a process: /proc/PID/exe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Exe {
    /// The file of a [`Program`].
    File(String),
    /// A file that a process made.
    Made(usize),
}

/// A file that a process made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    content: Vec<u8>,
    mode: u32,
    links: u64,
    /// The seals of a file in memory; `None` for a file in a directory.
    seals: Option<Seals>,
}

impl Made {
    /// Returns whether this seal is set. A file in a directory has no seals.
    fn is_sealed(&self, seal: u32) -> bool {
        self.seals.is_some_and(|Seals(seals)| seals & seal != 0)
    }
}

const F_SEAL_SEAL: u32 = 0x1;
const F_SEAL_WRITE: u32 = 0x8;

/// Returns the content of an executable.
pub(super) fn executable(path: &str) -> Vec<u8> {
    [MAGIC, path.as_bytes()].concat()
}

impl Kernel {
    /// Implements fstatfs(2), of which the type.
    pub(super) fn fstatfs(&self, me: Task, fd: Fd) -> SysResult<FsType> {
        Ok(match self.object(me, fd)? {
            Object::Regular(_) | Object::Fifo => self.settings.file_system,
            object => object.fs_type(),
        })
    }

    /// Makes a copy of the executable at `path` without a name. With seals, the copy is in memory.
    pub(super) fn unnamed_program(&mut self, path: &str, seals: Option<Seals>) -> Exe {
        self.made.push(Made { content: executable(path), mode: 0o500, links: 0, seals });
        Exe::Made(self.made.len() - 1)
    }

    fn make(&mut self, me: Task, made: Made, name: Option<String>) -> SysResult<Fd> {
        let index = self.made.len();
        let fd = self.install(me, Object::Made(index, Access::Both), true)?;
        self.made.push(made);
        if let Some(name) = name {
            self.names.insert(name, index);
        }
        Ok(fd)
    }

    /// Implements memfd_create(2) with MFD_ALLOW_SEALING.
    pub(super) fn memfd_create(&mut self, me: Task, exec: bool) -> SysResult<Fd> {
        if let (true, Some(errno)) = (exec, self.settings.lacks.get("MFD_EXEC")) {
            return Err(*errno);
        }
        self.make(me, Made { content: Vec::new(), mode: 0o777, links: 0, seals: Some(Seals(0)) }, None)
    }

    /// Implements open(2) with O_TMPFILE or O_CREAT, both with O_EXCL.
    pub(super) fn open_new(&mut self, me: Task, path: &[u8], flags: OpenFlags) -> SysResult<Fd> {
        let new = |links| Made { content: Vec::new(), mode: 0o700, links, seals: None };
        if flags == OpenFlags::Unnamed {
            self.directory(me, path)?;
            return match self.settings.lacks.get("O_TMPFILE") {
                Some(errno) => Err(*errno),
                None => self.make(me, new(0), None),
            };
        }
        match self.resolve(me, Fd::CWD, path) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let slash = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENOENT)?;
        self.directory(me, &path[..slash])?;
        self.make(me, new(1), Some(String::from_utf8_lossy(path).into_owned()))
    }

    fn directory(&self, me: Task, path: &[u8]) -> SysResult<()> {
        match self.resolve(me, Fd::CWD, path)? {
            Node::Extra(Extra::Directory) | Node::Place(_, true) => Ok(()),
            Node::Extra(Extra::Forbidden) => Err(Errno::EACCES),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Implements unlink(2) for a file that a process made.
    pub(super) fn unlink(&mut self, path: &[u8]) -> SysResult<()> {
        let name = String::from_utf8_lossy(path);
        let index = self.names.remove(&*name).ok_or(Errno::ENOENT)?;
        self.made[index].links -= 1;
        Ok(())
    }

    pub(super) fn made_links(&self, index: usize) -> u64 {
        self.made[index].links
    }

    pub(super) fn made_content(&self, index: usize) -> Vec<u8> {
        self.made[index].content.clone()
    }

    /// Writes to a file that a process made, at `offset`.
    ///
    /// Errors: `EPERM`: the file has F_SEAL_WRITE.
    pub(super) fn write_made(&mut self, index: usize, offset: usize, data: &[u8]) -> SysResult<usize> {
        let made = &mut self.made[index];
        if made.is_sealed(F_SEAL_WRITE) {
            return Err(Errno::EPERM);
        }
        made.content.resize(made.content.len().max(offset + data.len()), 0);
        made.content[offset..offset + data.len()].copy_from_slice(data);
        Ok(data.len())
    }

    /// Implements sendfile(2) without an offset, as a read and a write.
    pub(super) fn sendfile(&mut self, me: Task, to: Fd, from: Fd, len: usize) -> Result<usize, Halt> {
        match (self.object(me, from)?, self.object(me, to)?) {
            (
                Object::Regular(_) | Object::Made(_, Access::Read | Access::Both),
                Object::Made(_, Access::Both),
            ) => {}
            (_, Object::Made(_, Access::Both)) => return Err(Errno::EINVAL.into()),
            _ => return Err(Errno::EBADF.into()),
        }
        let bytes = self.read(me, from, len)?;
        if bytes.is_empty() { Ok(0) } else { self.write(me, to, &bytes, Writing::Wait) }
    }

    pub(super) fn fchmod(&mut self, me: Task, fd: Fd, mode: u32) -> SysResult<()> {
        match *self.object(me, fd)? {
            Object::Made(_, Access::PathOnly) => Err(Errno::EBADF),
            Object::Made(index, _) => {
                self.made[index].mode = mode;
                Ok(())
            }
            _ => Err(Errno::EPERM),
        }
    }

    /// Implements F_GET_SEALS of fcntl(2). For each file of tmpfs it returns F_SEAL_SEAL.
    ///
    /// Errors: `EINVAL`: the file cannot have seals.
    pub(super) fn get_seals(&self, me: Task, fd: Fd) -> SysResult<Seals> {
        match self.object(me, fd)? {
            Object::Made(_, Access::PathOnly) => Err(Errno::EBADF),
            Object::Made(index, _) if self.made[*index].seals.is_some() => {
                self.made[*index].seals.ok_or(Errno::EINVAL)
            }
            Object::Made(..) | Object::Regular(_) if self.settings.programs_on_tmpfs => Ok(Seals::SEAL),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Implements F_ADD_SEALS of fcntl(2).
    pub(super) fn add_seals(&mut self, me: Task, fd: Fd, seals: Seals) -> SysResult<()> {
        let index = match *self.object(me, fd)? {
            Object::Made(_, Access::PathOnly) => return Err(Errno::EBADF),
            Object::Made(index, Access::Both) => index,
            Object::Socket(..) | Object::PipeWrite(_) | Object::Null | Object::Sink | Object::Terminal => {
                return Err(Errno::EINVAL);
            }
            // The descriptor must be open for writing (memfd_add_seals).
            _ => return Err(Errno::EPERM),
        };
        let made = &mut self.made[index];
        if made.is_sealed(F_SEAL_SEAL) {
            return Err(Errno::EPERM);
        }
        let Some(Seals(old)) = &mut made.seals else { return Err(Errno::EINVAL) };
        *old |= seals.0;
        Ok(())
    }

    /// Implements execveat(2) of the open file itself.
    pub(super) fn execveat(
        &mut self,
        me: Task,
        fd: Fd,
        argv: Vec<Vec<u8>>,
        envp: Vec<Vec<u8>>,
    ) -> SysResult<()> {
        let object = self.object(me, fd)?;
        let (program, exe) = self.program_in(object)?;
        // An interpreter would open /dev/fd/N, which the exec closes: every descriptor here is close-on-exec
        // (execveat(2), "BUGS").
        if matches!(object, Object::Made(index, _) if self.made[*index].content.starts_with(b"#!")) {
            return Err(Errno::ENOENT);
        }
        self.become_program(me, program, exe, (&format!("{}", fd.0), argv, envp));
        Ok(())
    }

    /// Returns the program in an open file.
    ///
    /// Errors: `ETXTBSY`: the file is open for writing and is not in memory. `ENOENT`: the interpreter of a
    /// script does not exist. `ENOEXEC`: the format is unknown.
    pub(super) fn program_in(&self, object: &Object) -> SysResult<(Program, Exe)> {
        let by_content = |content: &[u8]| {
            let text = |bytes| core::str::from_utf8(bytes).ok();
            // A script: its interpreter runs (execve(2), "Interpreter scripts").
            if let Some(rest) = content.strip_prefix(b"#!") {
                let word = rest.trim_ascii_start().split(|byte| byte.is_ascii_whitespace()).next();
                let found = word.and_then(text).and_then(|path| self.programs.get_key_value(path));
                return found.ok_or(Errno::ENOENT);
            }
            let path = content.strip_prefix(MAGIC).and_then(text);
            path.and_then(|path| self.programs.get_key_value(path)).ok_or(Errno::ENOEXEC)
        };
        match object {
            Object::Regular(content) => {
                let (path, program) = by_content(content)?;
                Ok((program.clone(), Exe::File(path.clone())))
            }
            Object::Made(index, _) => {
                let made = &self.made[*index];
                let noexec = made.seals.is_none() && self.settings.directories_noexec;
                if made.mode & 0o100 == 0 || noexec {
                    return Err(Errno::EACCES);
                }
                if made.seals.is_none() && self.is_open_for_writing(*index) {
                    return Err(Errno::ETXTBSY);
                }
                Ok((by_content(&made.content)?.1.clone(), Exe::Made(*index)))
            }
            _ => Err(Errno::EACCES),
        }
    }
}
