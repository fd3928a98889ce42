//! The files that a command needs, as this machine has them: the program, its interpreter, directories.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, stdin};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::Path;
use std::vec;
use std::vec::Vec;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat, geteuid};
use nsexec::bootstrap::decode;
use nsexec::idmap::IdMap;
use nsexec::launch::{Base, Directory, Prepared};
use nsexec::namespace::NsKind;

use super::FileState;
use crate::plan::Refused;
use nsexec::sys::types::{Capability, CloneFlags, ScriptArgs};

const EACCES: i32 = nix::errno::Errno::EACCES as i32;
const EPERM: i32 = nix::errno::Errno::EPERM as i32;
const ENOTDIR: i32 = nix::errno::Errno::ENOTDIR as i32;

/// The number of bytes of a program that the kernel reads first (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// The number of interpreters of interpreters (`exec_binprm`).
const DEPTH: usize = 5;

/// Searches for the command on this machine. Returns the first candidate that exists and may be executed, and
/// the reason for each candidate refused before it.
///
/// The launch gets the same result unless it searches in another root directory or as another user.
#[must_use]
pub fn search(prepared: &Prepared) -> (Option<Vec<u8>>, BTreeMap<Vec<u8>, Refused>) {
    let other = OtherUser::of(prepared).filter(|_| geteuid().is_root());
    let look = |path: &[u8]| {
        let path = &*from_directory(prepared, path);
        other.as_ref().map_or_else(|| program(path), |user| user.program(path))
    };
    let (found, refused, _) = search_with(prepared, look);
    (found, refused)
}

/// Searches for the command below an open root directory, which may be that of another mount namespace. A
/// path is looked up as the kernel does in that root directory. Interpreters are not looked at, except the
/// shell of a script without `#!`.
#[must_use]
pub fn search_below(
    prepared: &Prepared,
    root: BorrowedFd<'_>,
) -> (Option<Vec<u8>>, BTreeMap<Vec<u8>, Refused>) {
    let look = |path: &[u8]| {
        let path = from_directory(prepared, path);
        match metadata_below(root, &path) {
            Ok(data) if data.is_file() && data.mode() & 0o111 != 0 => match head_below(root, &path) {
                Some(head) if format(&head).is_none() && !has_other_formats() => {
                    FileState::Refused(Refused::UnknownFormat)
                }
                _ => FileState::Usable,
            },
            Ok(_) => FileState::Refused(Refused::NotExecutable),
            Err(error) => FileState::Refused(refused(&error)),
        }
    };
    let (found, refused, _) = search_with(prepared, look);
    (found, refused)
}

/// Returns the metadata of a path below an open root directory.
fn metadata_below(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<fs::Metadata> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    File::from(openat2(root, path, how)?).metadata()
}

/// Returns the first bytes of a file below an open root directory, if this process can read it.
fn head_below(root: BorrowedFd<'_>, path: &[u8]) -> Option<Vec<u8>> {
    // Another file may have taken the name: the open of a FIFO must not block.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    head(&File::from(openat2(root, path, how).ok()?)).ok()
}

/// Returns the bytes of a file by which the kernel finds its format.
fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A format that every kernel knows.
enum Format<'h> {
    /// A script with this interpreter.
    Script(&'h [u8]),
    Elf,
}

/// Returns the format of a file with these first bytes.
fn format(head: &[u8]) -> Option<Format<'_>> {
    match head.strip_prefix(b"#!") {
        Some(rest) => interpreter_of_script(rest).map(Format::Script),
        None => head.starts_with(b"\x7fELF").then_some(Format::Elf),
    }
}

/// Returns the path as the command looks it up: from its working directory.
fn from_directory<'p>(prepared: &Prepared, path: &'p [u8]) -> Cow<'p, [u8]> {
    match &prepared.around.directory {
        Some(directory) if !path.is_empty() && !path.starts_with(b"/") => {
            [directory.path.to_bytes(), b"/", path].concat().into()
        }
        _ => path.into(),
    }
}

/// Returns the root directory of the command, if a flag names it and it can be opened.
#[must_use]
pub fn root_of(prepared: &Prepared) -> Option<OwnedFd> {
    let (Base::Chroot { path } | Base::Directory { path, .. }) = &prepared.around.root.as_ref()?.base else {
        return None;
    };
    openat(AT_FDCWD, &**path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

/// Returns the directories and files of the launch that cannot be used on this machine: the root directory,
/// the working directory, which is below `root` if that is given, and the files on which namespaces are
/// mounted.
#[must_use]
pub fn unusable(prepared: &Prepared, root: Option<BorrowedFd<'_>>) -> BTreeMap<Vec<u8>, Refused> {
    let mut found = BTreeMap::new();
    let mut add = |path: &[u8], state| {
        if let FileState::Refused(why) = state {
            found.insert(path.to_vec(), why);
        }
    };
    let around = &prepared.around;
    let base = around.root.as_ref().map(|root| &root.base);
    if let Some(Base::Chroot { path } | Base::Directory { path, .. }) = base {
        add(path.to_bytes(), directory(path.to_bytes()));
    }
    let joins = decode(prepared.message(), prepared.policy().dialect)
        .is_ok_and(|(asked, _)| asked.joined().contains(NsKind::Mnt));
    if let Some(Directory { path, .. }) = &around.directory {
        let path = path.to_bytes();
        match (root, base) {
            (
                Some(root),
                Some(
                    Base::Chroot { path: above }
                    | Base::Opened { path: above, .. }
                    | Base::Directory { path: above, .. },
                ),
            ) => {
                let state = match metadata_below(root, path) {
                    Ok(data) if data.is_dir() => FileState::Usable,
                    Ok(_) => FileState::Refused(Refused::BelowFile),
                    Err(error) => FileState::Refused(refused(&error)),
                };
                let above = above.to_bytes();
                add(&[above.strip_suffix(b"/").unwrap_or(above), path].concat(), state);
            }
            (None, None | Some(Base::Present)) if !joins => add(path, directory(path)),
            _ => {}
        }
    }
    for one in &around.persistent {
        if let Err(error) = fs::metadata(Path::new(OsStr::from_bytes(one.file.to_bytes()))) {
            add(one.file.to_bytes(), FileState::Refused(refused(&error)));
        }
    }
    found
}

/// The result of a search: the file found, the refused ones, and the first whose state is unknown.
pub(super) type Searched = (Option<Vec<u8>>, BTreeMap<Vec<u8>, Refused>, Option<Vec<u8>>);

/// Searches for the command among files whose state `look` returns. A file of unknown state counts as found.
pub(super) fn search_with(prepared: &Prepared, mut look: impl FnMut(&[u8]) -> FileState) -> Searched {
    let mut refused = BTreeMap::new();
    for candidate in prepared.candidates() {
        match look(candidate) {
            FileState::Usable => return (Some(candidate.to_vec()), refused, None),
            FileState::Unknown => return (Some(candidate.to_vec()), refused, Some(candidate.to_vec())),
            FileState::Refused(Refused::Missing) => {}
            FileState::Refused(Refused::UnknownFormat) => {
                refused.insert(candidate.to_vec(), Refused::UnknownFormat);
                // The shell runs it. Without the shell the search goes on, as execvp(3) does.
                let shell = ScriptArgs::SHELL.to_bytes();
                match look(shell) {
                    FileState::Usable => return (None, refused, None),
                    FileState::Unknown => return (None, refused, Some(shell.to_vec())),
                    FileState::Refused(why) => drop(refused.insert(shell.to_vec(), why)),
                }
            }
            FileState::Refused(why) => drop(refused.insert(candidate.to_vec(), why)),
        }
    }
    (None, refused, None)
}

/// Returns whether this machine can execute a file, with its interpreter.
pub(super) fn program(path: &[u8]) -> FileState {
    executable(Path::new(OsStr::from_bytes(path)), DEPTH)
}

/// Another user than this process, without capabilities over files.
pub(super) struct OtherUser {
    uid: u32,
    gids: Vec<u32>,
}

impl OtherUser {
    /// Returns the user that a privileged process becomes before it searches the command. `None` if the user
    /// stays the same, or has the ids of a joined user namespace.
    pub(super) fn of(prepared: &Prepared) -> Option<Self> {
        const OVERRIDES: u64 = 1 << Capability::DAC_OVERRIDE.0 | 1 << Capability::DAC_READ_SEARCH.0;
        let (launch, around) = (&prepared.policy().launch, &prepared.around);
        let overrides = around.capabilities.is_some_and(|kept| kept & OVERRIDES != 0);
        let (bootstrap, _) = decode(prepared.message(), prepared.policy().dialect).ok()?;
        let created = bootstrap.clone_flags().contains(CloneFlags::NEWUSER);
        if overrides || bootstrap.joined().contains(NsKind::User) {
            return None;
        }
        // The ids outside, by which the kernel compares.
        let outside = |map: Option<IdMap<'_>>, id: u32| match map {
            Some(map) => map.extents().find_map(|line| {
                let above = id.checked_sub(line.inside).filter(|above| *above < line.count)?;
                line.outside.checked_add(above)
            }),
            None if created => None,
            None => Some(id),
        };
        let uid = launch.uid.and_then(|id| outside(bootstrap.uid_map(), id)).filter(|uid| *uid != 0)?;
        let gids = around.groups.iter().flatten().copied().chain(launch.gid);
        let gids = gids.filter_map(|id| outside(bootstrap.gid_map(), id)).collect();
        Some(Self { uid, gids })
    }

    /// Returns whether the permissions let this user execute a file, or search a directory.
    fn may_execute(&self, data: &fs::Metadata) -> bool {
        let bit = match () {
            () if data.uid() == self.uid => 0o100,
            () if self.gids.contains(&data.gid()) => 0o010,
            () => 0o001,
        };
        data.mode() & bit != 0
    }

    /// Returns whether this user can execute a file, with its interpreter.
    pub(super) fn program(&self, path: &[u8]) -> FileState {
        let file = Path::new(OsStr::from_bytes(path));
        let closed = |folder: &Path| fs::metadata(folder).is_ok_and(|data| !self.may_execute(&data));
        if file.ancestors().skip(1).any(closed) {
            return FileState::Refused(Refused::Hidden);
        }
        match program(path) {
            FileState::Usable if closed(file) => FileState::Refused(Refused::NotExecutable),
            found => found,
        }
    }
}

/// Returns whether this process can enter a directory.
pub(super) fn directory(path: &[u8]) -> FileState {
    let path = Path::new(OsStr::from_bytes(path));
    match fs::metadata(path) {
        Ok(data) if !data.is_dir() => FileState::Refused(Refused::BelowFile),
        Ok(_) if may_execute(path) => FileState::Usable,
        Ok(_) => FileState::Refused(Refused::Hidden),
        Err(error) => FileState::Refused(refused(&error)),
    }
}

fn refused(error: &io::Error) -> Refused {
    match error.raw_os_error() {
        Some(EACCES) => Refused::Hidden,
        Some(EPERM) => Refused::NotPermitted,
        Some(ENOTDIR) => Refused::BelowFile,
        _ => Refused::Missing,
    }
}

fn executable(path: &Path, depth: usize) -> FileState {
    match fs::metadata(path) {
        Ok(data) if data.is_file() && may_execute(path) => {}
        Ok(_) => return FileState::Refused(Refused::NotExecutable),
        Err(error) => return FileState::Refused(refused(&error)),
    }
    // A file may be executable and not readable.
    let Ok(file) = File::open(path) else { return FileState::Unknown };
    let Ok(head) = head(&file) else { return FileState::Unknown };
    let interpreter = match format(&head) {
        Some(Format::Script(interpreter)) => Some(interpreter.to_vec()),
        Some(Format::Elf) => interpreter_of_elf(&file, &head),
        None if !head.starts_with(b"#!") && has_other_formats() => return FileState::Unknown,
        None => return FileState::Refused(Refused::UnknownFormat),
    };
    match (interpreter, depth.checked_sub(1)) {
        (None, _) => FileState::Usable,
        // ELOOP, which no plan needs.
        (Some(_), None) => FileState::Unknown,
        (Some(interpreter), Some(depth)) => {
            match executable(Path::new(OsStr::from_bytes(&interpreter)), depth) {
                FileState::Refused(Refused::Missing) => FileState::Refused(Refused::NoInterpreter),
                // execve(2) reports the interpreter's error as the program's.
                state => state,
            }
        }
    }
}

/// Returns whether this process may execute the file. Uses the effective ids and the capabilities, as
/// execve(2) does.
fn may_execute(path: &Path) -> bool {
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

/// Returns the first word after `#!` (execve(2), "Interpreter scripts").
fn interpreter_of_script(rest: &[u8]) -> Option<&[u8]> {
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| [b' ', b'\t', 0].contains(byte));
    words.find(|word| !word.is_empty())
}

/// Returns the interpreter in the program header of this byte order (elf(5), PT_INTERP). `None` for a static
/// program, or a malformed header.
fn interpreter_of_elf(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    const PT_INTERP: u64 = 3;
    let number = |bytes: &[u8], at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        // The second byte after the class is the byte order; 2 is big endian.
        let little = head.get(5) != Some(&2);
        let digits = bytes.iter().rev();
        Some(match little {
            true => digits.fold(0, |n, byte| n << 8 | u64::from(*byte)),
            false => bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        })
    };
    let wide = head.get(4) == Some(&2);
    // e_phoff, e_phentsize, e_phnum; then p_offset and p_filesz.
    let (offset, size, count) = if wide { ((32, 8), 54, 56) } else { ((28, 4), 42, 44) };
    let (start, length) = if wide { ((8, 8), (32, 8)) } else { ((4, 4), (16, 4)) };
    let table = number(head, offset.0, offset.1)?;
    let (size, count) = (number(head, size, 2)?, number(head, count, 2)?);
    let mut entry = vec![0; usize::try_from(size).ok()?];
    for index in 0..count {
        file.read_exact_at(&mut entry, table.checked_add(index.checked_mul(size)?)?).ok()?;
        if number(&entry, 0, 4)? == PT_INTERP {
            let mut path = vec![0; usize::try_from(number(&entry, length.0, length.1)?).ok()?.min(4096)];
            file.read_exact_at(&mut path, number(&entry, start.0, start.1)?).ok()?;
            return path.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
        }
    }
    None
}

/// Returns whether the machine has formats besides those of the kernel (binfmt_misc).
fn has_other_formats() -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc");
    let other = |name: &OsStr| name != "register" && name != "status";
    entries.is_ok_and(|entries| entries.flatten().any(|entry| other(&entry.file_name())))
}

/// Returns whether standard input of the command is a terminal.
pub(super) fn is_terminal(prepared: &Prepared) -> bool {
    let moved = prepared.moves.iter().find(|one| one.number.0 == 0).map(|one| one.fd);
    let fd = moved.map_or(0, |fd| fd.0);
    match prepared.owned.iter().find(|owned| owned.as_raw_fd() == fd) {
        Some(owned) => owned.is_terminal(),
        None => stdin().is_terminal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_of_this_machine_has_its_interpreter() {
        let own = File::open("/proc/self/exe").unwrap();
        let mut head = vec![0; HEAD];
        own.read_exact_at(&mut head, 0).unwrap();
        if let Some(interpreter) = interpreter_of_elf(&own, &head) {
            assert!(Path::new(OsStr::from_bytes(&interpreter)).exists(), "{interpreter:?}");
        }
        assert_eq!(program(b"/proc/self/exe"), FileState::Usable);
        assert_eq!(program(b"/no/such/program"), FileState::Refused(Refused::Missing));
        assert_eq!(program(b"/"), FileState::Refused(Refused::NotExecutable));
    }

    #[test]
    fn scripts_are_followed_to_their_interpreter() {
        let folder = std::env::temp_dir().join(std::format!("nsexec-search-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let state = |content: &str| {
            let path = folder.join("file");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            program(path.as_os_str().as_bytes())
        };
        let states = [
            state("#!/proc/self/exe\n"),
            state("#! \t/no/such/interpreter -x\n"),
            state("#!\n"),
            state("no program"),
            state("#!/\n"),
        ];
        fs::remove_dir_all(&folder).unwrap();
        let refused = FileState::Refused;
        assert_eq!(states[0], FileState::Usable);
        assert_eq!(states[1], refused(Refused::NoInterpreter));
        assert_eq!(states[2], refused(Refused::UnknownFormat));
        assert!(states[3] == refused(Refused::UnknownFormat) || has_other_formats());
        assert_eq!(states[4], refused(Refused::NotExecutable));
    }

    #[test]
    fn directories_are_looked_at() {
        assert_eq!(directory(b"/"), FileState::Usable);
        assert_eq!(directory(b"/no/such"), FileState::Refused(Refused::Missing));
        assert_eq!(directory(b"/proc/self/exe"), FileState::Refused(Refused::BelowFile));
    }
}
