//! The directory of the command's process in /proc, even if that /proc belongs to another pid namespace.

use core::ffi::CStr;
use core::fmt::Write as _;

use super::pipes::close;
use crate::scripts::pipe::uninterrupted;
use crate::scripts::procfs::{self, ProcDir};
use crate::sys::Sys;
use crate::sys::types::{Fd, FsType, OpenFlags, Pid};
use crate::words::error::Error;
use crate::words::json::Line;

/// Opens the directory of a process in /proc. In the /proc of another pid namespace the pid from clone(2) is
/// that of another process. The number of the process there is in the fdinfo of its pidfd (pidfd_open(2),
/// proc_pid_fdinfo(5)).
///
/// Runs in the launcher, which has not reaped the process, so no other process gets the number.
///
/// # Errors
/// Those of [`ProcDir::open`]. [`Error::ForeignProc`]: the process is not visible there, or has no pidfd.
pub(super) fn open_directory<'m, S: Sys>(
    sys: &mut S,
    process: Pid,
    pidfd: Option<Fd>,
) -> Result<ProcDir, Error<'m>> {
    match ProcDir::open(sys, process) {
        // Without a /proc/self this /proc does not show the launcher, and so none of its descriptors.
        Err(error @ Error::ForeignProc { found: Some(_), .. }) => {
            let number = pidfd.and_then(|pidfd| number_in_proc(sys, pidfd)).ok_or(error)?;
            ProcDir::open_number(sys, number)
        }
        opened => opened,
    }
}

/// Returns the number that the process of a pidfd has in /proc. `None` if this /proc does not show it.
fn number_in_proc<S: Sys>(sys: &mut S, pidfd: Fd) -> Option<Pid> {
    let mut buffer = [0; 32];
    let mut path = Line::new(&mut buffer);
    write!(path, "self/fdinfo/{}\0", pidfd.0).ok()?;
    let path = CStr::from_bytes_with_nul(path.bytes()).ok()?;
    let file = procfs::open(sys, path, OpenFlags::ReadOnly).ok()?;
    // Another file system could name any process.
    let is_proc = sys.fstatfs(file) == Ok(FsType::PROC);
    let mut text = [0; 512];
    let read = if is_proc { uninterrupted(sys, |sys| sys.read(file, &mut text)).ok() } else { None };
    close(sys, file);
    pid_of_fdinfo(text.get(..read?)?)
}

/// Returns the pid in the text of a pidfd's fdinfo. `None` for 0, which stands for a process that is not
/// visible, and for -1, which stands for a process that has ended.
#[must_use]
pub fn pid_of_fdinfo(text: &[u8]) -> Option<Pid> {
    number_of_fdinfo(core::str::from_utf8(text).ok()?).filter(|number| *number > 0).map(Pid)
}

/// Returns the value of the line `Pid` in the fdinfo of a pidfd (proc_pid_fdinfo(5)).
pub(super) fn number_of_fdinfo(text: &str) -> Option<i32> {
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use crate::sys::types::Errno;

    #[test]
    fn fdinfo_has_the_number_of_a_visible_process() {
        let text = |pid: &str| {
            std::format!("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t7\nPid:\t{pid}\nNSpid:\t3\n")
        };
        assert_eq!(pid_of_fdinfo(text("4711").as_bytes()), Some(Pid(4711)));
        for hidden in ["0", "-1", "", "x"] {
            assert_eq!(pid_of_fdinfo(text(hidden).as_bytes()), None, "{hidden}");
        }
        assert_eq!(pid_of_fdinfo(b"pos:\t0\n"), None);
    }

    #[test]
    fn pid_line_of_fdinfo_is_parsed() {
        for (line, number) in [("4711", Some(4711)), ("0", Some(0)), ("-1", Some(-1)), ("", None)] {
            let text =
                std::format!("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nPid:\t{line}\nNSpid:\t{line}\t1\n");
            assert_eq!(number_of_fdinfo(&text), number);
        }
        assert_eq!(number_of_fdinfo("pos:\t0\n"), None);
    }

    /// A kernel whose /proc belongs to another pid namespace, in which this process has the number 20.
    fn foreign(fs: FsType, fdinfo: &'static str) -> MockSys {
        let mut sys = MockSys::new();
        sys.expect_getpid().returning(|| Pid(2));
        sys.expect_readlink().returning(|_, buffer| {
            buffer[..2].copy_from_slice(b"20");
            Ok(2)
        });
        sys.expect_openat().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_openat2().returning(|_, path, _| match path.to_bytes() {
            b"self/fdinfo/5" => Ok(Fd(10)),
            b"21" => Ok(Fd(11)),
            _ => Err(Errno::ENOENT),
        });
        sys.expect_fstatfs().returning(move |_| Ok(fs));
        sys.expect_read().returning(move |_, buffer| {
            buffer[..fdinfo.len()].copy_from_slice(fdinfo.as_bytes());
            Ok(fdinfo.len())
        });
        sys.expect_close().returning(|_| Ok(()));
        sys
    }

    #[test]
    fn directory_in_a_foreign_proc_is_that_of_the_same_process() {
        let mut sys = foreign(FsType::PROC, "Pid:\t21\n");
        assert_eq!(open_directory(&mut sys, Pid(3), Some(Fd(5))).unwrap().pid(), Pid(21));
        let refused = Err(Error::ForeignProc { own: Pid(2), found: Some(Pid(20)) });
        let open = |mut sys: MockSys, pidfd| open_directory(&mut sys, Pid(3), pidfd).map(|_| ());
        assert_eq!(open(foreign(FsType::PROC, "Pid:\t21\n"), None), refused);
        assert_eq!(open(foreign(FsType::PROC, "Pid:\t0\n"), Some(Fd(5))), refused);
        assert_eq!(open(foreign(FsType::NSFS, "Pid:\t21\n"), Some(Fd(5))), refused);
    }
}
