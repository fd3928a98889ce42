//! Stage 0 writes stage 1's files in /proc: the setgroups policy and both maps.

use core::ffi::CStr;
use core::fmt::Write as _;

use super::{IdMap, tool};
use crate::bootstrap::Bootstrap;
use crate::bootstrap::text::Lossy;
use crate::error::{Doing, Error, MapKind, ProcFile, ToolFailure};
use crate::json::Line;
use crate::log::Log;
use crate::policy::Setgroups;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, FsType, OpenFlags, Pid, TidAddress};

/// The files of one process in /proc, through one descriptor of its directory: a pid that is used again cannot
/// lead us to another process.
#[derive(Clone, Copy, Debug)]
pub struct ProcDir {
    pid: Pid,
    dir: Fd,
}

impl ProcDir {
    /// Opens /proc/PID, if /proc is ours.
    ///
    /// # Errors
    /// [`Error::ForeignProc`], [`Doing::ReadProcSelf`] or [`Doing::OpenProcDir`].
    pub fn open<'m, S: Sys>(sys: &mut S, pid: Pid) -> Result<Self, Error<'m>> {
        check_numbering(sys)?;
        let os = |errno| Error::Os { doing: Doing::OpenProcDir(pid), errno };
        let mut buffer = [0; 32];
        let mut line = Line::new(&mut buffer);
        // "/proc/" and ten digits always fit.
        let _ = write!(line, "/proc/{pid}\0");
        let path = CStr::from_bytes_with_nul(line.bytes()).map_err(|_| os(Errno::ENAMETOOLONG))?;
        let dir = sys.openat(Fd::CWD, path, OpenFlags::Directory).map_err(os)?;
        Ok(Self { pid, dir })
    }

    /// Whose directory it is.
    #[must_use]
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// Opens one of the files, and makes sure that it is procfs's: whoever can mount over /proc must not be
    /// written to in its place (CVE-2019-19921, CVE-2025-52881 and their like).
    ///
    /// # Errors
    /// [`Doing::Update`], or [`Error::WrongFileSystem`].
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
        let fd = sys.openat(self.dir, file.name(), flags).map_err(os)?;
        // A step of its own: what an errno of the open means to the callers, one of the check does not.
        let check = Doing::Check(self.pid, file);
        match sys.fstatfs(fd).map_err(|errno| Error::Os { doing: check, errno })? {
            FsType::PROC => Ok(fd),
            found => Err(Error::WrongFileSystem { doing, found }),
        }
    }

    /// Opens its mount namespace, and makes sure that it is one.
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

    /// Closes the directory. Its failure would not matter to anybody.
    pub fn close<S: Sys>(self, sys: &mut S) {
        let _ = sys.close(self.dir);
    }
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
fn write_uninterrupted<S: Sys>(sys: &mut S, fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match sys.write(fd, bytes) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// What stage 0 writes to `setgroups` before the gid map.
///
/// A caller without privilege may map its own group only after denying setgroups for good (Linux 3.19,
/// user_namespaces(7)); with newgidmap it need not. Spec 3.5.
#[must_use]
pub const fn writes_deny(policy: Setgroups, rootless: bool, setgroup: bool) -> bool {
    match policy {
        Setgroups::FromMessage | Setgroups::DropIfAllowed => rootless && !setgroup,
        Setgroups::Deny => true,
        Setgroups::Allow => false,
    }
}

/// What the maps need from whoever writes them.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'w, 'm> {
    /// The maps and the tools' paths.
    pub bootstrap: &'w Bootstrap<'m>,
    /// The setgroups policy.
    pub setgroups: Setgroups,
    /// Stage 0's end of the sync pipe: it becomes readable when stage 1 dies.
    pub stage_1: Fd,
    /// The init pipe: it is hung up when the launcher dies.
    pub init_pipe: Fd,
    /// For the mapping tool's process.
    pub tid: Option<TidAddress>,
}

/// Which process comes back from writing the maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Stage 0, and the maps are in force.
    Done,
    /// The mapping tool's process, which could not become the tool and has said so.
    ToolProcess,
}

/// Writes the setgroups policy, the uid map and the gid map of `target`.
///
/// We are stage 0, in the caller's namespaces, with the caller's privileges; stage 1 waits for our answer in its
/// new user namespace.
///
/// # Errors
/// The first write that fails, with its file; the mapping tool's failure.
pub fn write_maps<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    target: ProcDir,
    writing: Writing<'_, 'm>,
) -> Result<Written, Error<'m>> {
    let boot = writing.bootstrap;
    if writes_deny(writing.setgroups, boot.rootless_euid(), boot.setgroup()) {
        deny_setgroups(sys, target)?;
    }
    let maps = [
        (MapKind::Uid, boot.uid_map(), boot.uidmap_path()),
        (MapKind::Gid, boot.gid_map(), boot.gidmap_path()),
    ];
    for (kind, map, path) in maps {
        let Some(map) = map else { continue };
        let pid = target.pid;
        let file = kind.file();
        log.debug(sys, format_args!("update /proc/{pid}/{} to '{}'", file.as_str(), Lossy(map.text())));
        match write_map(sys, target, file, map) {
            // The one errno that means "not you": the tool may. EACCES means that we may not even look.
            Err(Error::Os { doing: Doing::Update(..), errno: Errno::EPERM }) => {}
            written => {
                written?;
                continue;
            }
        }
        let shown = Lossy(path.map_or(b"(null)", CStr::to_bytes));
        log.debug(sys, format_args!("update /proc/{pid}/{} got -EPERM (trying {shown})", file.as_str()));
        let path = path.ok_or(Error::MappingTool { kind, pid, why: ToolFailure::NotPresent })?;
        if tool::run(sys, log, target, writing, (kind, map, path))? == Written::ToolProcess {
            return Ok(Written::ToolProcess);
        }
    }
    Ok(Written::Done)
}

fn write_map<'m, S: Sys>(
    sys: &mut S,
    target: ProcDir,
    file: ProcFile,
    map: IdMap<'_>,
) -> Result<(), Error<'m>> {
    let fd = target.open_file(sys, file, OpenFlags::ReadWrite)?;
    target.write_once(sys, file, fd, map.as_written())
}

fn deny_setgroups<'m, S: Sys>(sys: &mut S, target: ProcDir) -> Result<(), Error<'m>> {
    match target.open_file(sys, ProcFile::Setgroups, OpenFlags::ReadWrite) {
        Ok(fd) => target.write_once(sys, ProcFile::Setgroups, fd, b"deny"),
        // Before 3.19 there is no such file, and no such rule. A task that is gone gives ENOENT too, and then the
        // map right after this says so.
        Err(Error::Os { doing: Doing::Update(..), errno: Errno::ENOENT }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;

    /// A sandbox's filter may refuse the check with any errno; none of them means what it means of the open.
    #[test]
    fn a_refused_check_is_no_missing_file_and_no_refused_map() {
        for errno in [Errno::ENOENT, Errno::EPERM] {
            let mut sys = MockSys::new();
            sys.expect_openat().returning(|_, _, _| Ok(Fd(9)));
            sys.expect_fstatfs().returning(move |_| Err(errno));
            let target = ProcDir { pid: Pid(7), dir: Fd(8) };
            let refused = Err(Error::Os { doing: Doing::Check(Pid(7), ProcFile::Setgroups), errno });
            assert_eq!(deny_setgroups(&mut sys, target), refused);
        }
    }

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
            // An open would be a call that nobody expects, except where the number is ours.
            if wanted.is_ok() {
                sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
            }
            assert_eq!(ProcDir::open(&mut sys, Pid(3)).map(|_| ()), wanted);
        }
    }

    #[test]
    fn deny_is_written_for_an_unprivileged_single_map_only_unless_told() {
        assert!(writes_deny(Setgroups::FromMessage, true, false));
        assert!(!writes_deny(Setgroups::FromMessage, true, true));
        assert!(!writes_deny(Setgroups::FromMessage, false, false));
        assert!(!writes_deny(Setgroups::FromMessage, false, true));
        assert!(writes_deny(Setgroups::Deny, false, false));
        assert!(!writes_deny(Setgroups::Allow, true, false));
    }

    /// Kernels before 3.19 have no such file; the map that follows says whether the task is there.
    #[test]
    fn without_a_setgroups_file_there_is_nothing_to_deny() {
        for (errno, goes_on) in [(Errno::ENOENT, true), (Errno::EACCES, false), (Errno::ESRCH, false)] {
            let mut sys = MockSys::new();
            sys.expect_openat().once().returning(move |_, _, _| Err(errno));
            assert_eq!(deny_setgroups(&mut sys, ProcDir { pid: Pid(7), dir: Fd(8) }).is_ok(), goes_on);
        }
    }

    /// The kernel takes 4,095 bytes, and counts the NUL.
    #[test]
    fn the_longest_map_is_written_without_its_nul() {
        use crate::idmap::MAP_TEXT_MAX;
        let mut text: std::string::String = (0..341).map(|n| std::format!("{n} {n} 1\n")).collect();
        text.truncate(text.trim_end().rfind('\n').unwrap() + 1);
        let filling = std::iter::repeat_n(' ', MAP_TEXT_MAX - text.len()).collect::<std::string::String>();
        text.insert_str(1, &filling);
        let text = std::ffi::CString::new(text).unwrap();
        let map = IdMap::parse(&text).unwrap();
        let mut sys = MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType::PROC));
        sys.expect_write()
            .once()
            .withf(|_, data| data.len() == MAP_TEXT_MAX)
            .returning(|_, data| Ok(data.len()));
        sys.expect_close().once().returning(|_| Ok(()));
        let target = ProcDir { pid: Pid(7), dir: Fd(8) };
        assert_eq!(write_map(&mut sys, target, ProcFile::UidMap, map), Ok(()));
    }

    #[test]
    fn a_file_that_is_not_procfs_is_never_written() {
        let mut sys = crate::sys::MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType(0x0102_1994)));
        // A write would be a call that nobody expects.
        let target = ProcDir { pid: Pid(7), dir: Fd(8) };
        let map = IdMap::parse(c"0 0 1\n").unwrap();
        let error = write_map(&mut sys, target, ProcFile::UidMap, map).unwrap_err();
        assert!(matches!(error, Error::WrongFileSystem { found: FsType(0x0102_1994), .. }), "{error}");
    }
}
