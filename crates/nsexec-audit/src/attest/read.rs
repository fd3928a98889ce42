//! The state of a process as /proc shows it.

use std::collections::BTreeMap;
use std::format;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::{Capabilities, FileId, State};
use nsexec::bootstrap::{Dialect, decode};
use nsexec::launch::StatusText;
use nsexec::namespace::NsKind;

impl State {
    /// Reads the state of the process with this pid, which should be waiting.
    ///
    /// # Errors
    /// Those of the files of /proc. `EACCES`: this process may not trace it (ptrace(2)).
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::at(&format!("/proc/{pid}"))
    }

    /// Reads the state of this process and this thread.
    ///
    /// # Errors
    /// Those of the files of /proc.
    pub fn here() -> io::Result<Self> {
        Self::at("/proc/thread-self")
    }

    fn at(process: &str) -> io::Result<Self> {
        let status = StatusText::new(&fs::read(format!("{process}/status"))?);
        let field = |name: &str| field(&status, name);
        let bits = |name: &str| bits(&status, name);
        let [pid, session] = pid_and_session(&fs::read_to_string(format!("{process}/stat"))?)?;
        let mut groups = numbers(field("Groups")?)?;
        groups.sort_unstable();
        Ok(Self {
            namespaces: namespaces(process)?,
            user_ids: first_three(field("Uid")?)?,
            group_ids: first_three(field("Gid")?)?,
            groups,
            capabilities: Capabilities {
                inheritable: bits("CapInh")?,
                permitted: bits("CapPrm")?,
                effective: bits("CapEff")?,
                bounding: bits("CapBnd")?,
                ambient: bits("CapAmb")?,
            },
            no_new_privs: field("NoNewPrivs")? == "1",
            blocked: bits("SigBlk")?,
            ignored: bits("SigIgn")?,
            leads_session: pid == session,
            oom_score_adj: number(fs::read_to_string(format!("{process}/oom_score_adj"))?.trim())?,
            umask: u32::from_str_radix(field("Umask")?, 8).map_err(malformed)?,
            descriptors: descriptors(process)?,
            root: file(&format!("{process}/root"))?,
            directory: file(&format!("{process}/cwd"))?,
        })
    }
}

/// Returns the namespaces that a message joins, as far as they can be found.
pub(super) fn joined(message: &[u8], dialect: &Dialect) -> BTreeMap<String, FileId> {
    let Ok((bootstrap, _)) = decode(message, dialect) else { return BTreeMap::new() };
    let entries = bootstrap.namespaces().into_iter().flat_map(|paths| paths.iter());
    let found = entries.filter_map(|entry| {
        let path = core::str::from_utf8(entry.path).ok()?;
        Some((entry.kind.name().to_string(), namespace(Path::new(path)).ok()?))
    });
    found.collect()
}

/// Returns the file at an absolute path in the root directory of a process.
pub(super) fn below_root(pid: i32, path: &str) -> io::Result<FileId> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(&*format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(&root, path, how) {
        Ok(found) => id_of(&found.into()),
        // A magic link of /proc. A launch follows it only if its process has the caller's root directory.
        Err(Errno::EXDEV) => file(path),
        Err(errno) => Err(errno.into()),
    }
}

fn malformed(error: impl Into<std::boxed::Box<dyn core::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Returns the value of a field, or an error that names it.
fn field<'s>(status: &'s StatusText, name: &str) -> io::Result<&'s str> {
    status.field(name).ok_or_else(|| malformed(format!("the file has no field {name}")))
}

/// Returns the value of a field that is a bit set.
fn bits(status: &StatusText, name: &str) -> io::Result<u64> {
    status.bits(name).ok_or_else(|| malformed(format!("the file has no bit set {name}")))
}

fn number<T: core::str::FromStr<Err: core::error::Error + Send + Sync + 'static>>(
    text: &str,
) -> io::Result<T> {
    text.parse().map_err(malformed)
}

fn numbers(text: &str) -> io::Result<Vec<u32>> {
    text.split_whitespace().map(number).collect()
}

fn first_three(text: &str) -> io::Result<[u32; 3]> {
    match numbers(text)?.get(..3) {
        Some(&[one, two, three]) => Ok([one, two, three]),
        _ => Err(malformed("/proc/PID/status has fewer than three ids")),
    }
}

/// Returns the first field of /proc/PID/stat and its sixth, the session. The name between parentheses may
/// contain anything.
fn pid_and_session(stat: &str) -> io::Result<[i32; 2]> {
    let parse = || {
        let pid = stat.split(' ').next()?.parse().ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        Some([pid, rest.split(' ').nth(3)?.parse().ok()?])
    };
    parse().ok_or_else(|| malformed("/proc/PID/stat is malformed"))
}

fn namespaces(process: &str) -> io::Result<BTreeMap<String, FileId>> {
    let mut found = BTreeMap::new();
    for kind in NsKind::ALL {
        match namespace(Path::new(&format!("{process}/ns/{}", kind.name()))) {
            Ok(id) => {
                found.insert(kind.name().to_string(), id);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn namespace(path: &Path) -> io::Result<FileId> {
    let found = fs::metadata(path)?;
    Ok(FileId { mount: 0, device: found.dev(), inode: found.ino() })
}

fn file(path: &str) -> io::Result<FileId> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    id_of(&nix::fcntl::openat(AT_FDCWD, path, flags, Mode::empty())?.into())
}

fn id_of(file: &File) -> io::Result<FileId> {
    let info = StatusText::new(&fs::read(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?);
    let found = file.metadata()?;
    Ok(FileId { mount: number(field(&info, "mnt_id")?)?, device: found.dev(), inode: found.ino() })
}

/// Returns the descriptors that are not close-on-exec.
fn descriptors(process: &str) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("{process}/fdinfo"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        // Another thread may have closed the descriptor meanwhile.
        let Ok(info) = fs::read(format!("{process}/fdinfo/{name}")) else { continue };
        let info = StatusText::new(&info);
        let flags = i32::from_str_radix(field(&info, "flags")?, 8).map_err(malformed)?;
        if !OFlag::from_bits_truncate(flags).contains(OFlag::O_CLOEXEC) {
            found.push(number(&name)?);
        }
    }
    found.sort_unstable();
    Ok(found)
}
