//! Stage 0 writes stage 1's files in /proc: the setgroups policy and both maps.

use core::ffi::CStr;

use super::mapping_tool;
pub use super::mapping_tool::{Writing, Written};
use crate::deciders::bootstrap::text::Lossy;
use crate::deciders::idmap::IdMap;
use crate::deciders::policy::Setgroups;
use crate::scripts::procfs::{ProcDir, write_once};
use crate::sys::Sys;
use crate::sys::types::{Errno, OpenFlags};
use crate::words::error::{Doing, Error, MapKind, ProcFile, ToolFailure};
use crate::words::log::Log;

/// Returns whether stage 0 writes "deny" to `setgroups` before the gid map.
///
/// A caller without privilege may map its own group only after it has denied setgroups permanently (Linux
/// 3.19, user_namespaces(7)). newgidmap does not need this. See `docs/protocol.md#groups`.
#[must_use]
pub const fn writes_deny(policy: Setgroups, rootless: bool, setgroup: bool) -> bool {
    match policy {
        Setgroups::FromMessage | Setgroups::DropIfAllowed => rootless && !setgroup,
        Setgroups::Deny => true,
        Setgroups::Allow => false,
    }
}

/// Writes the setgroups policy, the uid map and the gid map of `target`.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges. Stage 1 waits for the answer in
/// its new user namespace.
///
/// # Errors
/// The first write that fails, with its file, or the mapping tool's failure.
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
        let pid = target.pid();
        let file = kind.file();
        log.debug(sys, format_args!("update /proc/{pid}/{} to '{}'", file.as_str(), Lossy(map.text())));
        match write_map(sys, target, file, map) {
            // Only EPERM means that a tool with more privileges may succeed. EACCES comes from the open, and
            // does not start the tool.
            Err(Error::Os { doing: Doing::Update(..), errno: Errno::EPERM }) => {}
            written => {
                written?;
                continue;
            }
        }
        let shown = Lossy(path.map_or(b"(null)", CStr::to_bytes));
        log.debug(sys, format_args!("update /proc/{pid}/{} got -EPERM (trying {shown})", file.as_str()));
        let path = path.ok_or(Error::MappingTool { kind, pid, why: ToolFailure::NotPresent })?;
        if mapping_tool::run(sys, log, target, writing, (kind, map, path))? == Written::ToolProcess {
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
    write_once(sys, fd, map.as_written(), Doing::Update(target.pid(), file))
}

fn deny_setgroups<'m, S: Sys>(sys: &mut S, target: ProcDir) -> Result<(), Error<'m>> {
    let file = ProcFile::Setgroups;
    match target.open_file(sys, file, OpenFlags::ReadWrite) {
        Ok(fd) => write_once(sys, fd, b"deny", Doing::Update(target.pid(), file)),
        // Before Linux 3.19 the file does not exist and the rule does not apply. A dead task gives ENOENT
        // too; then the write of the map that follows reports it.
        Err(Error::Os { doing: Doing::Update(..), errno: Errno::ENOENT }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::procfs::tests::DIR;
    use crate::sys::MockSys;
    use crate::sys::types::{Fd, FsType, Pid};

    /// A seccomp filter may refuse the check with any errno. Then ENOENT does not mean a missing file, and
    /// EPERM does not mean a refused map.
    #[test]
    fn refused_fstatfs_is_neither_enoent_nor_eperm_of_open() {
        for errno in [Errno::ENOENT, Errno::EPERM] {
            let mut sys = MockSys::new();
            sys.expect_openat2().returning(|_, _, _| Ok(Fd(9)));
            sys.expect_fstatfs().returning(move |_| Err(errno));
            let refused = Err(Error::Os { doing: Doing::Check(Pid(7), ProcFile::Setgroups), errno });
            assert_eq!(deny_setgroups(&mut sys, DIR), refused);
        }
    }

    #[test]
    fn deny_is_written_as_flags_and_policy_require() {
        assert!(writes_deny(Setgroups::FromMessage, true, false));
        assert!(!writes_deny(Setgroups::FromMessage, true, true));
        assert!(!writes_deny(Setgroups::FromMessage, false, false));
        assert!(!writes_deny(Setgroups::FromMessage, false, true));
        assert!(writes_deny(Setgroups::Deny, false, false));
        assert!(!writes_deny(Setgroups::Allow, true, false));
    }

    /// Before Linux 3.19 the file does not exist. The map that follows shows whether the task exists.
    #[test]
    fn missing_setgroups_file_is_ignored() {
        for (errno, goes_on) in [(Errno::ENOENT, true), (Errno::EACCES, false), (Errno::ESRCH, false)] {
            let mut sys = MockSys::new();
            sys.expect_openat2().once().returning(move |_, _, _| Err(errno));
            assert_eq!(deny_setgroups(&mut sys, DIR).is_ok(), goes_on);
        }
    }

    /// The kernel accepts 4,095 bytes, including the NUL.
    #[test]
    fn longest_id_map_is_written_without_its_nul() {
        use crate::deciders::idmap::MAP_TEXT_MAX;
        let mut text: std::string::String = (0..341).map(|n| std::format!("{n} {n} 1\n")).collect();
        text.truncate(text.trim_end().rfind('\n').unwrap() + 1);
        let filling = std::iter::repeat_n(' ', MAP_TEXT_MAX - text.len()).collect::<std::string::String>();
        text.insert_str(1, &filling);
        let text = std::ffi::CString::new(text).unwrap();
        let map = IdMap::parse(&text).unwrap();
        let mut sys = MockSys::new();
        sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType::PROC));
        sys.expect_write()
            .once()
            .withf(|_, data| data.len() == MAP_TEXT_MAX)
            .returning(|_, data| Ok(data.len()));
        sys.expect_close().once().returning(|_| Ok(()));
        assert_eq!(write_map(&mut sys, DIR, ProcFile::UidMap, map), Ok(()));
    }

    #[test]
    fn id_map_is_never_written_outside_procfs() {
        let mut sys = crate::sys::MockSys::new();
        sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType(0x0102_1994)));
        // A write would be an unexpected call of the mock.
        let map = IdMap::parse(c"0 0 1\n").unwrap();
        let error = write_map(&mut sys, DIR, ProcFile::UidMap, map).unwrap_err();
        assert!(matches!(error, Error::WrongFileSystem { found: FsType(0x0102_1994), .. }), "{error}");
    }
}
