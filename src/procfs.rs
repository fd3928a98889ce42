//! Files below /proc: opened so that no other file is opened in their place, and checked to be procfs.
//!
//! A mount can cover any file of /proc, also with another file of procfs, which fstatfs cannot tell apart: the
//! oom_score_adj or the uid_map of another process. openat2(2) with RESOLVE_NO_XDEV crosses no mount point. Before Linux
//! 5.6, and under a filter that refuses the call, openat(2) serves, and such a mount is not noticed.

use core::ffi::CStr;
use core::fmt::Write as _;

use crate::error::{Doing, Error, ProcFile};
use crate::json::Line;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, FsType, OpenFlags, Pid};

/// The files of one process in /proc, through one descriptor of its directory: a pid that is used again cannot
/// lead us to another process.
#[derive(Clone, Copy, Debug)]
pub struct ProcDir {
    pid: Pid,
    dir: Fd,
    /// The kernel has answered openat2 for this directory.
    openat2: bool,
}

impl ProcDir {
    /// Opens /proc/PID, if /proc is ours and nothing is mounted over the directory.
    ///
    /// # Errors
    /// [`Error::ForeignProc`], [`Doing::ReadProcSelf`] or [`Doing::OpenProcDir`].
    pub fn open<'m, S: Sys>(sys: &mut S, pid: Pid) -> Result<Self, Error<'m>> {
        check_numbering(sys)?;
        let os = |errno| Error::Os { doing: Doing::OpenProcDir(pid), errno };
        let mut buffer = [0; 16];
        let mut line = Line::new(&mut buffer);
        // Ten digits always fit.
        let _ = write!(line, "{pid}\0");
        let path = CStr::from_bytes_with_nul(line.bytes()).map_err(|_| os(Errno::ENAMETOOLONG))?;
        let (dir, openat2) = open_in_proc(sys, path, OpenFlags::Directory).map_err(os)?;
        Ok(Self { pid, dir, openat2 })
    }

    /// The process whose directory it is.
    #[must_use]
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// Opens one of the files, and makes sure that it is procfs's: whoever can mount over /proc must not be
    /// written to in its place (CVE-2019-19921, CVE-2025-52881 and their like).
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
        // No second way where openat2 has worked: by then EPERM is about the file.
        let opened = match self.openat2 {
            true => sys.openat2(self.dir, file.name(), flags),
            false => sys.openat(self.dir, file.name(), flags),
        };
        let fd = opened.map_err(os)?;
        // A step of its own: what an errno of the open means to the callers, one of the check does not.
        let check = Doing::Check(self.pid, file);
        match sys.fstatfs(fd).map_err(|errno| Error::Os { doing: check, errno })? {
            FsType::PROC => Ok(fd),
            found => Err(Error::WrongFileSystem { doing, found }),
        }
    }

    /// Opens its mount namespace, and makes sure that it is one. Plain openat(2): the link leads out of procfs.
    ///
    /// # Errors
    /// [`Doing::OpenMountNamespace`], or [`Error::WrongFileSystem`].
    pub fn open_mount_namespace<'m, S: Sys>(self, sys: &mut S) -> Result<Fd, Error<'m>> {
        let doing = Doing::OpenMountNamespace(self.pid);
        let os = |errno| Error::Os { doing, errno };
        let fd = sys.openat(self.dir, c"ns/mnt", OpenFlags::Namespace).map_err(os)?;
        match sys.fstatfs(fd).map_err(os)? {
            FsType::NSFS => Ok(fd),
            found => Err(Error::WrongFileSystem { doing, found }),
        }
    }

    /// One write of `bytes` to an open file, and its close. The kernel parses each write on its own, so there is
    /// no second one: a short count is an error.
    ///
    /// # Errors
    /// [`Doing::Update`].
    pub fn write_once<'m, S: Sys>(
        self,
        sys: &mut S,
        file: ProcFile,
        fd: Fd,
        bytes: &[u8],
    ) -> Result<(), Error<'m>> {
        let doing = Doing::Update(self.pid, file);
        let written = write_uninterrupted(sys, fd, bytes);
        // The kernel applied the text in the write already; a close cannot take it back.
        let _ = sys.close(fd);
        match written {
            Ok(got) if got == bytes.len() => Ok(()),
            Ok(got) => Err(Error::Short { doing, got, want: bytes.len() }),
            Err(errno) => Err(Error::Os { doing, errno }),
        }
    }

    /// Returns whether the process is exiting or dead, from its `stat` file, which every user may read. `None`: the file
    /// cannot be read, because hidepid hides it (proc(5)), or because the process has been reaped.
    ///
    /// The answer is exact for a process whose files were refused: do_exit() sets PF_EXITING, then gives up the memory, by
    /// which the files become root's, and only later closes the descriptors.
    pub fn is_exiting<S: Sys>(self, sys: &mut S) -> Option<bool> {
        let fd = self.open_file(sys, ProcFile::Stat, OpenFlags::ReadOnly).ok()?;
        // The name has at most 64 bytes, and each of about 50 numbers at most 20.
        let mut buffer = [0; 1280];
        let read = loop {
            match sys.read(fd, &mut buffer) {
                Err(Errno::EINTR) => {}
                result => break result,
            }
        };
        let _ = sys.close(fd);
        is_exiting(buffer.get(..read.ok()?)?)
    }

    /// Closes the directory. A failure has no consequence.
    pub fn close<S: Sys>(self, sys: &mut S) {
        let _ = sys.close(self.dir);
    }
}

/// Returns whether the process of this /proc/PID/stat is exiting (PF_EXITING) or dead. `None`: the text has another form.
#[must_use]
pub fn is_exiting(stat: &[u8]) -> Option<bool> {
    const PF_EXITING: u64 = 0x4;
    // The name stands in parentheses, and may contain some itself.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = core::str::from_utf8(stat.get(end..)?).ok()?.split_ascii_whitespace().skip(1);
    let state = fields.next()?;
    // ppid, pgrp, session, tty_nr, tpgid, flags (proc_pid_stat(5)).
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    Some(flags & PF_EXITING != 0 || matches!(state, "Z" | "X" | "x"))
}

/// Opens a file below /proc by a path like `self/oom_score_adj`, and makes sure that nothing is mounted over it. The caller
/// checks that it is procfs's.
///
/// # Errors
/// `EXDEV`: something is mounted over it, or over a directory of the path. Others as of openat(2).
pub fn open<S: Sys>(sys: &mut S, path: &CStr, flags: OpenFlags) -> Result<Fd, Errno> {
    open_in_proc(sys, path, flags).map(|(fd, _)| fd)
}

/// Returns also whether the kernel has answered openat2.
fn open_in_proc<S: Sys>(sys: &mut S, path: &CStr, flags: OpenFlags) -> Result<(Fd, bool), Errno> {
    // From / the mount of /proc itself would be crossed. It needs no check: what is opened lies in the same mount.
    let proc = sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory)?;
    let opened = match sys.openat2(proc, path, flags) {
        // Before 5.6, or a seccomp filter that does not know it. If EPERM was about the file, openat says it too.
        Err(Errno::ENOSYS | Errno::EPERM) => sys.openat(proc, path, flags).map(|fd| (fd, false)),
        opened => opened.map(|fd| (fd, true)),
    };
    let _ = sys.close(proc);
    opened
}

/// Makes sure that /proc counts processes as we do. In a new pid namespace with the old /proc a number that a clone gave us
/// is there somebody else's, whose user namespace would get our maps.
///
/// The link names us in the numbering of the pid namespace that the procfs was mounted for, and is not there for a process
/// which that one does not see (pid_namespaces(7), "/proc and PID namespaces").
fn check_numbering<'m, S: Sys>(sys: &mut S) -> Result<(), Error<'m>> {
    let own = sys.getpid();
    let mut buffer = [0; 16];
    let found = match sys.readlink(c"/proc/self", &mut buffer) {
        Ok(len) => {
            let text = core::str::from_utf8(buffer.get(..len).unwrap_or_default());
            text.ok().and_then(|text| text.parse().ok()).map(Pid)
        }
        // Nothing is there, or no link: an empty folder, a file, another file system.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => None,
        Err(errno) => return Err(Error::Os { doing: Doing::ReadProcSelf, errno }),
    };
    if found == Some(own) { Ok(()) } else { Err(Error::ForeignProc { own, found }) }
}

/// A write that a signal interrupted before it began is made again.
///
/// # Errors
/// The errno of the write.
pub fn write_uninterrupted<S: Sys>(sys: &mut S, fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match sys.write(fd, bytes) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::MockSys;

    /// The directory of process 7, open as 8, on a kernel with openat2.
    pub(crate) const DIR: ProcDir = ProcDir { pid: Pid(7), dir: Fd(8), openat2: true };

    #[test]
    fn nothing_is_opened_in_the_proc_of_another_pid_namespace() {
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
            // An open would be an unexpected call, except where the number is ours.
            if wanted.is_ok() {
                sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
                sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(10)));
                sys.expect_close().once().withf(|fd| *fd == Fd(9)).returning(|_| Ok(()));
            }
            assert_eq!(ProcDir::open(&mut sys, Pid(3)).map(|_| ()), wanted);
        }
    }

    #[test]
    fn a_mount_over_a_file_is_an_error_and_nothing_else_is_opened() {
        let mut sys = MockSys::new();
        sys.expect_openat2().once().returning(|_, _, _| Err(Errno::EXDEV));
        let error = DIR.open_file(&mut sys, ProcFile::UidMap, OpenFlags::ReadWrite).unwrap_err();
        let text = "failed to update /proc/7/uid_map, which is a mount point: something is mounted over it (unmount it, or mount a new /proc)";
        assert_eq!(std::string::ToString::to_string(&error), text);
        let mut sys = MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_openat2().once().returning(|_, _, _| Err(Errno::EXDEV));
        sys.expect_close().once().returning(|_| Ok(()));
        assert_eq!(open(&mut sys, c"self/oom_score_adj", OpenFlags::ReadWrite), Err(Errno::EXDEV));
    }

    #[test]
    fn openat_serves_where_openat2_is_missing_and_is_asked_at_once_afterwards() {
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
    fn a_dying_process_is_known_by_its_flags_or_its_state() {
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

    /// A file that cannot be read is no answer: hidepid hides that of a living process too.
    #[test]
    fn without_the_stat_file_nothing_is_known() {
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
