//! Opens files below /proc, without crossing a mount point, and checks that each is a file of procfs.
//!
//! A mount can cover any file of /proc, even with another file of procfs: the oom_score_adj or the uid_map of
//! another process. fstatfs(2) does not detect that. openat2(2) with RESOLVE_NO_XDEV crosses no mount point.
//! Before Linux 5.6, and under a filter that refuses openat2, openat(2) opens the file, and such a mount is
//! not detected.

use core::ffi::CStr;
use core::fmt::Write as _;

use crate::scripts::pipe::uninterrupted;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, FsType, OpenFlags, Pid};
use crate::words::error::{Doing, Error, ProcFile};
use crate::words::json::Line;

/// The directory of one process in /proc, as an open descriptor. If the kernel reuses the pid, the descriptor
/// does not lead to the new process.
#[derive(Clone, Copy, Debug)]
pub struct ProcDir {
    pid: Pid,
    pub(crate) dir: Fd,
    /// Whether openat2 has opened this directory.
    openat2: bool,
}

impl ProcDir {
    /// Opens /proc/PID, if /proc belongs to our pid namespace and nothing is mounted over the directory.
    ///
    /// # Errors
    /// [`Error::ForeignProc`], [`Doing::ReadProcSelf`] or [`Doing::OpenProcDir`].
    pub fn open<'m, S: Sys>(sys: &mut S, pid: Pid) -> Result<Self, Error<'m>> {
        check_proc_pid_namespace(sys)?;
        Self::open_number(sys, pid)
    }

    /// Opens the directory of the process with this number in /proc, whatever pid namespace /proc belongs to.
    ///
    /// # Errors
    /// [`Doing::OpenProcDir`].
    pub(crate) fn open_number<'m, S: Sys>(sys: &mut S, pid: Pid) -> Result<Self, Error<'m>> {
        let os = |errno| Error::Os { doing: Doing::OpenProcDir(pid), errno };
        let mut buffer = [0; 16];
        let mut line = Line::new(&mut buffer);
        // Ten digits always fit.
        let _ = write!(line, "{pid}\0");
        let path = CStr::from_bytes_with_nul(line.bytes()).map_err(|_| os(Errno::ENAMETOOLONG))?;
        let (dir, openat2) = open_in_proc(sys, path, OpenFlags::Directory).map_err(os)?;
        Ok(Self { pid, dir, openat2 })
    }

    /// Returns the pid of the process.
    #[must_use]
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// Opens one of the files, and checks that it is a file of procfs. Otherwise a write could reach a file
    /// that an attacker has mounted over it (CVE-2019-19921, CVE-2025-52881).
    ///
    /// # Errors
    /// [`Doing::Update`], [`Doing::ReadBack`] or [`Doing::Check`]; [`Error::WrongFileSystem`].
    pub fn open_file<'m, S: Sys>(
        self,
        sys: &mut S,
        file: ProcFile,
        flags: OpenFlags,
    ) -> Result<Fd, Error<'m>> {
        let doing = match flags {
            OpenFlags::ReadOnly => Doing::ReadBack(self.pid, file),
            _ => Doing::Update(self.pid, file),
        };
        let os = |errno| Error::Os { doing, errno };
        // No fallback if openat2 has opened the directory: then EPERM is about the file.
        let opened = match self.openat2 {
            true => sys.openat2(self.dir, file.name(), flags),
            false => sys.openat(self.dir, file.name(), flags),
        };
        let fd = opened.map_err(os)?;
        // A separate step: callers interpret the errnos of the open, and the errnos of the check mean
        // something else.
        let check = Doing::Check(self.pid, file);
        require(sys, fd, FsType::PROC, (doing, check))
    }

    /// Returns whether the process is exiting or dead, from its `stat` file, which every user may read.
    /// `None`: the file cannot be read, because hidepid hides it (proc(5)), or because the process has been
    /// reaped.
    ///
    /// The result is exact for a process whose files were refused. do_exit() first sets PF_EXITING, then
    /// releases the memory, from which point on the files belong to root, and closes the descriptors last.
    #[inline(never)]
    pub fn is_exiting<S: Sys>(self, sys: &mut S) -> Option<bool> {
        let fd = self.open_file(sys, ProcFile::Stat, OpenFlags::ReadOnly).ok()?;
        // The name has at most 64 bytes, and each of about 50 numbers at most 20.
        let mut buffer = [0; 1280];
        let read = uninterrupted(sys, |sys| sys.read(fd, &mut buffer));
        let _ = sys.close(fd);
        is_exiting(buffer.get(..read.ok()?)?)
    }

    /// Closes the directory. An error of the close is ignored.
    pub fn close<S: Sys>(self, sys: &mut S) {
        let _ = sys.close(self.dir);
    }
}

/// Returns whether the process of this /proc/PID/stat is exiting (PF_EXITING) or dead, or `None` if the text
/// has another format.
#[must_use]
pub fn is_exiting(stat: &[u8]) -> Option<bool> {
    const PF_EXITING: u64 = 0x4;
    // The name is in parentheses, and may itself contain parentheses.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = core::str::from_utf8(stat.get(end..)?).ok()?.split_ascii_whitespace().skip(1);
    let state = fields.next()?;
    // ppid, pgrp, session, tty_nr, tpgid, flags (proc_pid_stat(5)).
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    Some(flags & PF_EXITING != 0 || matches!(state, "Z" | "X" | "x"))
}

/// Opens a namespace, and checks that the file is one. Uses openat(2), since a link of /proc/PID/ns leads out
/// of procfs.
///
/// # Errors
/// `doing`, or [`Error::WrongFileSystem`].
pub fn open_namespace<'m, S: Sys>(
    sys: &mut S,
    dir: Fd,
    path: &CStr,
    doing: Doing<'m>,
) -> Result<Fd, Error<'m>> {
    let fd = sys.openat(dir, path, OpenFlags::Namespace).map_err(|errno| Error::Os { doing, errno })?;
    require(sys, fd, FsType::NSFS, (doing, doing))
}

/// Checks that an open file is on the file system `wanted`, and returns the file. `doing` is the step that
/// opened the file, and `check` this step, for callers that distinguish the errnos of both.
///
/// # Errors
/// `check`, or [`Error::WrongFileSystem`] with `doing`.
fn require<'m, S: Sys>(
    sys: &mut S,
    fd: Fd,
    wanted: FsType,
    (doing, check): (Doing<'m>, Doing<'m>),
) -> Result<Fd, Error<'m>> {
    match sys.fstatfs(fd).map_err(|errno| Error::Os { doing: check, errno })? {
        found if found == wanted => Ok(fd),
        found => Err(Error::WrongFileSystem { doing, found }),
    }
}

/// Writes `bytes` to a file of /proc in one call, and closes the file. The kernel parses each write
/// separately, so a short count is an error.
///
/// # Errors
/// `doing`.
pub fn write_once<'m, S: Sys>(sys: &mut S, fd: Fd, bytes: &[u8], doing: Doing<'m>) -> Result<(), Error<'m>> {
    let written = uninterrupted(sys, |sys| sys.write(fd, bytes));
    // The write has already taken effect; an error of the close does not change that.
    let _ = sys.close(fd);
    match written {
        Ok(got) if got == bytes.len() => Ok(()),
        Ok(got) => Err(Error::Short { doing, got, want: bytes.len() }),
        Err(errno) => Err(Error::Os { doing, errno }),
    }
}

/// Writes `bytes` to a file below /proc with [`write_once`], if the file is on procfs.
///
/// # Errors
/// `doing`, or [`Error::WrongFileSystem`].
pub fn write<'m, S: Sys>(sys: &mut S, path: &CStr, bytes: &[u8], doing: Doing<'m>) -> Result<(), Error<'m>> {
    let fd = open_to_write(sys, path, doing)?;
    write_once(sys, fd, bytes, doing)
}

/// Opens a file below /proc for [`write_once`], if the file is on procfs.
///
/// # Errors
/// `doing`, or [`Error::WrongFileSystem`].
pub fn open_to_write<'m, S: Sys>(sys: &mut S, path: &CStr, doing: Doing<'m>) -> Result<Fd, Error<'m>> {
    let fd = open(sys, path, OpenFlags::ReadWrite).map_err(|errno| Error::Os { doing, errno })?;
    require(sys, fd, FsType::PROC, (doing, doing))
}

/// Opens a file below /proc by a path like `self/oom_score_adj`, without crossing a mount point. The caller
/// checks that it is a file of procfs.
///
/// # Errors
/// `EXDEV`: something is mounted over the file, or over a directory of the path. Others as for openat(2).
pub fn open<S: Sys>(sys: &mut S, path: &CStr, flags: OpenFlags) -> Result<Fd, Errno> {
    open_in_proc(sys, path, flags).map(|(fd, _)| fd)
}

/// Opens a file below /proc. Also returns whether openat2 opened it.
fn open_in_proc<S: Sys>(sys: &mut S, path: &CStr, flags: OpenFlags) -> Result<(Fd, bool), Errno> {
    // Relative to /, openat2 would refuse the mount point /proc itself. The files below this descriptor are
    // in the mount.
    let proc = sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory)?;
    let opened = match sys.openat2(proc, path, flags) {
        // Before Linux 5.6, or a seccomp filter that refuses openat2. If EPERM is about the file, openat
        // returns it too.
        Err(Errno::ENOSYS | Errno::EPERM) => sys.openat(proc, path, flags).map(|fd| (fd, false)),
        opened => opened.map(|fd| (fd, true)),
    };
    let _ = sys.close(proc);
    opened
}

/// Checks that /proc belongs to our pid namespace. In a new pid namespace with the old /proc, the pid from
/// clone(2) belongs to another process in that /proc. The maps would be written to that process's user
/// namespace.
///
/// The link /proc/self contains our pid in the pid namespace for which the procfs was mounted. A process that
/// is not visible in that namespace has no such link (pid_namespaces(7), "/proc and PID namespaces").
fn check_proc_pid_namespace<'m, S: Sys>(sys: &mut S) -> Result<(), Error<'m>> {
    let own = sys.getpid();
    let mut buffer = [0; 16];
    let found = match sys.readlink(c"/proc/self", &mut buffer) {
        Ok(len) => {
            let text = core::str::from_utf8(buffer.get(..len).unwrap_or_default());
            text.ok().and_then(|text| text.parse().ok()).map(Pid)
        }
        // The link does not exist, or is not a link: an empty directory, a file, another file system.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => None,
        Err(errno) => return Err(Error::Os { doing: Doing::ReadProcSelf, errno }),
    };
    if found == Some(own) { Ok(()) } else { Err(Error::ForeignProc { own, found }) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::MockSys;

    /// The directory of process 7, open as descriptor 8, on a kernel with openat2.
    pub(crate) const DIR: ProcDir = ProcDir { pid: Pid(7), dir: Fd(8), openat2: true };

    #[test]
    fn proc_of_another_pid_namespace_is_refused() {
        let foreign = |own, found: Option<i32>| Error::ForeignProc { own: Pid(own), found: found.map(Pid) };
        let os = |errno| Error::Os { doing: Doing::ReadProcSelf, errno };
        let cases = [
            (Ok("4711"), Err(foreign(2, Some(4711)))),
            (Ok("/somewhere"), Err(foreign(2, None))),
            (Err(Errno::ENOENT), Err(foreign(2, None))),
            (Err(Errno::EINVAL), Err(foreign(2, None))),
            (Err(Errno::EACCES), Err(os(Errno::EACCES))),
            (Ok("2"), Ok(())),
        ];
        for (link, wanted) in cases {
            let mut sys = MockSys::new();
            sys.expect_getpid().returning(|| Pid(2));
            sys.expect_readlink().withf(|path, _| path == c"/proc/self").returning(move |_, buf| {
                let text = link?;
                buf[..text.len()].copy_from_slice(text.as_bytes());
                Ok(text.len())
            });
            // An open would be an unexpected call, except if the number is our pid.
            if wanted.is_ok() {
                sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
                sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(10)));
                sys.expect_close().once().withf(|fd| *fd == Fd(9)).returning(|_| Ok(()));
            }
            assert_eq!(ProcDir::open(&mut sys, Pid(3)).map(|_| ()), wanted);
        }
    }

    #[test]
    fn mount_over_a_proc_file_is_an_error() {
        let mut sys = MockSys::new();
        sys.expect_openat2().once().returning(|_, _, _| Err(Errno::EXDEV));
        let error = DIR.open_file(&mut sys, ProcFile::UidMap, OpenFlags::ReadWrite).unwrap_err();
        let text = "failed to update /proc/7/uid_map, which is a mount point: something is mounted over it (unmount it, or \
                    mount a new /proc)";
        assert_eq!(std::string::ToString::to_string(&error), text);
        let mut sys = MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_openat2().once().returning(|_, _, _| Err(Errno::EXDEV));
        sys.expect_close().once().returning(|_| Ok(()));
        assert_eq!(open(&mut sys, c"self/oom_score_adj", OpenFlags::ReadWrite), Err(Errno::EXDEV));
    }

    #[test]
    fn openat_replaces_a_missing_openat2() {
        for missing in [Errno::ENOSYS, Errno::EPERM] {
            let mut sys = MockSys::new();
            sys.expect_getpid().returning(|| Pid(2));
            sys.expect_readlink().returning(|_, buf| {
                buf[0] = b'2';
                Ok(1)
            });
            sys.expect_openat2().once().returning(move |_, _, _| Err(missing));
            sys.expect_openat()
                .times(3)
                .returning(|dir, _, _| Ok(Fd(if dir == Fd::CWD { 8 } else { dir.0 + 1 })));
            sys.expect_close().returning(|_| Ok(()));
            sys.expect_fstatfs().once().returning(|_| Ok(FsType::PROC));
            let target = ProcDir::open(&mut sys, Pid(3)).unwrap();
            assert_eq!(target.open_file(&mut sys, ProcFile::UidMap, OpenFlags::ReadWrite), Ok(Fd(10)));
        }
    }

    #[test]
    fn exiting_process_is_detected_by_flags_or_state() {
        let stat = |state: &str, flags: u64| {
            std::format!("7 (a) (b) c) {state} 1 2 3 0 -1 {flags} 0 0 0 0 1 2 3 4 20 0 1 0 5 0 0 0\n")
        };
        for (state, flags, exiting) in [
            ("S", 0x40_0040, false),
            ("R", 0x40_0044, true),
            ("D", 0x40_0004, true),
            ("Z", 0x40_0000, true),
            ("X", 0, true),
        ] {
            assert_eq!(is_exiting(stat(state, flags).as_bytes()), Some(exiting), "{state} {flags:#x}");
        }
        for text in ["", "7 (a", "7 (a) S 1 2 3 0 -1", "7 (a) S 1 2 3 0 -1 x 0"] {
            assert_eq!(is_exiting(text.as_bytes()), None, "{text}");
        }
    }

    /// An unreadable file is not a sign of exit: hidepid hides the file of a running process too.
    #[test]
    fn unreadable_stat_file_gives_no_result() {
        for errno in [Errno::ENOENT, Errno::EPERM, Errno::ESRCH] {
            let mut sys = MockSys::new();
            sys.expect_openat2().returning(move |_, _, _| Err(errno));
            sys.expect_openat().returning(move |_, _, _| Err(errno));
            assert_eq!(DIR.is_exiting(&mut sys), None);
        }
        let mut sys = MockSys::new();
        sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType::PROC));
        sys.expect_read().once().returning(|_, _| Err(Errno::ESRCH));
        sys.expect_close().once().returning(|_| Ok(()));
        assert_eq!(DIR.is_exiting(&mut sys), None);
    }
}
