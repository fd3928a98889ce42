//! The sealed copy of this program, which no process can modify (CVE-2019-5736).
//!
//! A container process can open /proc/PID/exe of a stage, wait for the end of the stage, and then overwrite
//! the runtime's binary. The next container would run the attacker's code. So runc up to 1.1 executes itself
//! once more, from a sealed copy, before it sends the first byte to the launcher. Since 1.2 the Go code of
//! runc does this (`docs/protocol.md#dialects`).
//!
//! A non-dumpable stage does not prevent the attack. Stage 2 executes a file of the container's mount
//! namespace. If that file begins with `#!/proc/self/exe`, the kernel executes the runtime's binary once
//! more: dumpable, in the container, with the container's dynamic loader and libraries. The constructor of a
//! library opens /proc/self/exe, keeps the descriptor, waits for the launcher's end, and opens
//! /proc/self/fd/N for writing. So our own launcher needs the copy too, whenever it joins a mount namespace.
//! `launch::run_from_sealed_copy` makes it with [`ensure_for_launch`], and `launch::script::launch` calls
//! [`may_join_mounts`] before it makes any process.
//!
//! A copy is recognised by its seals. A kernel without memfd has no seals: then the copy is recognised by a
//! mark in the environment together with a missing directory entry. Each copy must pass the same check before
//! it is executed, and the marks count the copies, so the program cannot execute itself without end.

#[cfg(test)]
mod tests;

use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::deciders::bootstrap::MESSAGE_MAX;
use crate::deciders::bootstrap::env::{CLONED_BINARY, OwnProgram};
use crate::scripts::join::PATH_MAX;
use crate::sys::Sys;
use crate::sys::types::{ArgPtr, Errno, ExecArgs, Fd, MaskHow, OpenFlags, Seals, SignalSet, SysResult};
use crate::words::error::{CopyStep, Doing, Error, Refusal};
use crate::words::json::Line;

/// The maximum size of the arguments with their NULs, and of the environment, in bytes. Linux has the same
/// limit for a single string (`MAX_ARG_STRLEN`). A launcher passes a few hundred bytes.
pub const STRINGS_MAX: usize = 131_072;

// The message has not been read yet, so its memory holds both kinds of strings and the copy buffer.
const _: () = assert!(MESSAGE_MAX > 2 * STRINGS_MAX);

/// The maximum number of arguments. A launcher passes two.
pub const ARGUMENTS_MAX: usize = 256;

/// The maximum number of environment variables. A launcher passes about ten.
pub const VARIABLES_MAX: usize = 1024;

/// The number of names that are tried for a copy in a directory. Other processes may use the first ones.
const NAMES_MAX: u8 = 16;

/// The maximum number of bytes that one `sendfile` call copies.
const SENDFILE_MAX: usize = 0x7fff_f000;

/// The number of attempts to seal the copy. In each, the kernel itself waits for a tenth of a second.
const SEAL_TRIES: u8 = 5;

/// The directory for the copy if the environment has no absolute directory.
const DEFAULT_DIR: &[u8] = b"/tmp";

/// The mark of the first copy, and the mark of a copy made although the program had a mark. No third mark
/// exists. runc's C code has only the first.
const MARKS: [&str; 2] = ["1", LAST_MARK];

/// The mark after which no further copy is made.
pub const LAST_MARK: &str = "2";

const SELF_EXE: &CStr = c"/proc/self/exe";
const NAME: &CStr = c"runc_cloned:/proc/self/exe";
const LAUNCHER_NAME: &CStr = c"sealed_copy:/proc/self/exe";

/// The variable with the mark of a copy that our own launcher runs from. The copy removes the variable before
/// anything else.
pub const SEALED_COPY: &str = "_NSEXEC_SEALED_COPY";

/// Whether a file is a sealed copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Cloned,
    NotCloned,
    /// Seals are not conclusive. The file is a copy if it is on a read-only mount or has no directory entry.
    CheckFile,
}

/// Judges a file by its seals. `marked`: the environment has the mark of a copy.
fn verdict(seals: SysResult<Seals>, marked: bool) -> Verdict {
    match seals {
        Ok(Seals::CONTENT) => Verdict::Cloned,
        // tmpfs reports F_SEAL_SEAL for every file, also for a copy without a directory entry.
        Ok(Seals::SEAL) | Err(_) if marked => Verdict::CheckFile,
        _ => Verdict::NotCloned,
    }
}

/// The protection of a copy against changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A file in memory with seals.
    Memory,
    /// A file without a directory entry and without write permission.
    File,
}

/// Ensures that this program runs from a copy that no process can modify. Returns success only if it does;
/// otherwise the program starts again from a new copy.
///
/// Runs as the program that the launcher executed, before it sends the first byte to the launcher.
///
/// # Errors
/// The reason why the copy was not made.
pub fn ensure<S: Sys>(sys: &mut S, own: OwnProgram<'_>, memory: &mut [u8]) -> Result<(), Error<'static>> {
    let exe = sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly).map_err(|errno| {
        if errno == Errno::EACCES {
            // Users search for this text of runc. A failure of the write cannot be reported anywhere.
            let _ = sys.write(Fd::STDERR, b"you have no read access to runc binary file\n");
        }
        os(CopyStep::OpenExe, errno)
    })?;
    if is_copy(sys, exe, SELF_EXE, own.mark.is_some())? {
        // The descriptor is close-on-exec and not the end of a pipe: an error of the close has no
        // consequence.
        let _ = sys.close(exe);
        return Ok(());
    }
    let (argv, rest) = memory.split_at_mut_checked(STRINGS_MAX).ok_or(TOO_LARGE)?;
    let (envp, buffer) = rest.split_at_mut_checked(STRINGS_MAX).ok_or(TOO_LARGE)?;
    let (mut argv_slots, mut envp_slots) = ([None; ARGUMENTS_MAX + 1], [None; VARIABLES_MAX + 1]);
    let room = Room { argv, envp, argv_slots: &mut argv_slots, envp_slots: &mut envp_slots, buffer };
    become_copy(sys, exe, RUNC, own, room)
}

/// Ensures that a program of our own launcher runs from a copy that no process can modify. Returns success
/// only if it does; otherwise the program starts again, from a copy, with the same arguments, environment and
/// descriptors.
///
/// The environment of the copy has one more variable, [`SEALED_COPY`]: a mark of one byte, followed by
/// `name`, the process's name. The exec of a descriptor replaces that name by the descriptor's number.
/// `own.mark` is that first byte.
///
/// Runs as the program that is going to launch, with a single thread, before its main work.
///
/// # Errors
/// The reason why the copy was not made. If `room` is too small, this is [`Refusal::OwnArguments`]: the
/// caller may try again with more room.
pub fn ensure_for_launch<S: Sys>(
    sys: &mut S,
    own: OwnProgram<'_>,
    name: &[u8],
    room: Room<'_>,
) -> Result<(), Error<'static>> {
    let exe =
        sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly).map_err(|errno| os(CopyStep::OpenExe, errno))?;
    match is_launchers_copy(sys, exe, own.mark.is_some()) {
        Ok(false) => {}
        known => {
            let _ = sys.close(exe);
            return known.map(|_| ());
        }
    }
    become_copy(sys, exe, Form { variable: SEALED_COPY, memfd: LAUNCHER_NAME, name }, own, room)
}

/// Returns whether a container that opens our /proc/self/exe cannot overwrite a file of the host through it.
/// Only then may a mount namespace be joined. `marked`: the environment of this program has the mark of a
/// copy.
///
/// Runs in the launcher, before it makes any process. The stages are forks, so they have the same
/// /proc/self/exe.
///
/// # Errors
/// The errno if /proc/self/exe cannot be opened or examined.
pub fn may_join_mounts<S: Sys>(sys: &mut S, marked: bool) -> SysResult<bool> {
    let exe = sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly)?;
    let result = is_launchers_copy(sys, exe, marked);
    let _ = sys.close(exe);
    result.map_err(|error| error.errno().unwrap_or(Errno::EIO))
}

/// Returns whether our program, open as `exe`, is a copy made by our own launcher: sealed, or marked and
/// without a directory entry.
///
/// Without the mark, a file without a directory entry does not count: another process may hold it open, and
/// execute it again. A read-only mount does not count either: it may be remounted while a container holds its
/// descriptor.
fn is_launchers_copy<S: Sys>(sys: &mut S, exe: Fd, marked: bool) -> Result<bool, Error<'static>> {
    match verdict(sys.get_seals(exe), marked) {
        Verdict::Cloned => Ok(true),
        Verdict::NotCloned => Ok(false),
        Verdict::CheckFile => {
            sys.link_count(SELF_EXE).map(|links| links == 0).map_err(|errno| os(CopyStep::Look, errno))
        }
    }
}

/// The marks and names of copies.
#[derive(Clone, Copy, Debug)]
struct Form<'n> {
    /// The variable with the mark.
    variable: &'static str,
    /// The name of the memfd, which /proc/PID/exe and /proc/PID/maps show.
    memfd: &'static CStr,
    /// The text that follows the mark in the variable.
    name: &'n [u8],
}

/// The form of runc's copies.
const RUNC: Form<'static> = Form { variable: CLONED_BINARY, memfd: NAME, name: b"" };

/// The memory for arguments, environment and copy buffer.
#[derive(Debug)]
pub struct Room<'r> {
    /// For the arguments, each with its NUL, and one byte more.
    pub argv: &'r mut [u8],
    /// For the environment, with the mark.
    pub envp: &'r mut [u8],
    /// For a pointer to each argument, and the final null pointer.
    pub argv_slots: &'r mut [Option<ArgPtr<'r>>],
    /// For a pointer to each variable, and the final null pointer.
    pub envp_slots: &'r mut [Option<ArgPtr<'r>>],
    /// For the program's bytes, if the kernel cannot copy the file itself.
    pub buffer: &'r mut [u8],
}

/// Copies the program, which is open as `exe`, and executes the copy. Returns only if that fails, with `exe`
/// closed.
fn become_copy<S: Sys>(
    sys: &mut S,
    exe: Fd,
    form: Form<'_>,
    own: OwnProgram<'_>,
    room: Room<'_>,
) -> Result<(), Error<'static>> {
    let Room { argv, envp, argv_slots, envp_slots, buffer } = room;
    let strings = strings(sys, own, form, (argv, argv_slots), (envp, envp_slots));
    let copied =
        strings.and_then(|strings| Ok((strings, create_filled_copy(sys, exe, form, own.state_dir, buffer)?)));
    let _ = sys.close(exe);
    let ((argv, envp), (copy, kind)) = copied?;
    let copy = protect(sys, copy, kind).map_err(|error| close_after(sys, copy, error))?;
    let errno = execute(sys, copy, &argv, &envp);
    Err(close_after(sys, copy, os(CopyStep::Exec, errno)))
}

/// A buffer for strings, and the slots for pointers to them.
type Strings<'r> = (&'r mut [u8], &'r mut [Option<ArgPtr<'r>>]);

/// Returns our arguments, and our environment with the mark, in the form for execve(2).
fn strings<'r, S: Sys>(
    sys: &mut S,
    own: OwnProgram<'_>,
    form: Form<'_>,
    argv: Strings<'r>,
    envp: Strings<'r>,
) -> Result<(ExecArgs<'r>, ExecArgs<'r>), Error<'static>> {
    let mark = next_mark(own.mark).ok_or(Error::Refused(Refusal::CopyNotRecognised))?;
    let argv = ExecArgs::build(arguments(sys, argv.0)?, argv.1);
    let envp = environment(own.environ, form, mark, envp.0).and_then(|text| ExecArgs::build(text, envp.1));
    argv.zip(envp).ok_or(TOO_LARGE)
}

/// Creates a new file with the bytes of `exe`.
fn create_filled_copy<S: Sys>(
    sys: &mut S,
    exe: Fd,
    form: Form<'_>,
    state_dir: Option<&[u8]>,
    buffer: &mut [u8],
) -> Result<(Fd, Kind), Error<'static>> {
    let (copy, kind) = create(sys, form.memfd, state_dir)?;
    copy_within_limits(sys, copy, exe, buffer).map_err(|error| close_after(sys, copy, error))?;
    Ok((copy, kind))
}

/// Closes an unusable copy and returns the error: our own launcher's program may go on without a copy.
fn close_after<S: Sys>(sys: &mut S, copy: Fd, error: Error<'static>) -> Error<'static> {
    let _ = sys.close(copy);
    error
}

const TOO_LARGE: Error<'static> = Error::Refused(Refusal::OwnArguments);

const fn os(step: CopyStep, errno: Errno) -> Error<'static> {
    Error::Os { doing: Doing::EnsureCloned(step), errno }
}

/// Returns whether the open file, located at `path`, is a sealed copy. This check decides whether the program
/// copies itself, and each copy without seals must pass it before it is executed.
fn is_copy<S: Sys>(sys: &mut S, file: Fd, path: &CStr, marked: bool) -> Result<bool, Error<'static>> {
    match verdict(sys.get_seals(file), marked) {
        Verdict::Cloned => Ok(true),
        Verdict::NotCloned => Ok(false),
        Verdict::CheckFile => is_unwritable(sys, path),
    }
}

/// Returns whether no process can write to the file at `path`: its mount is read-only, or it has no directory
/// entry.
fn is_unwritable<S: Sys>(sys: &mut S, path: &CStr) -> Result<bool, Error<'static>> {
    let failed = |errno| os(CopyStep::Look, errno);
    Ok(sys.is_read_only(path).map_err(failed)? || sys.link_count(path).map_err(failed)? == 0)
}

/// Reads our arguments, each with its NUL, from /proc/self/cmdline: an ELF constructor receives them only
/// with glibc.
fn arguments<'a, S: Sys>(sys: &mut S, memory: &'a mut [u8]) -> Result<&'a [u8], Error<'static>> {
    let failed = |errno| os(CopyStep::ReadArguments, errno);
    let fd = sys.openat(Fd::CWD, c"/proc/self/cmdline", OpenFlags::ReadOnly).map_err(failed)?;
    let got = crate::scripts::pipe::read_full(sys, fd, memory);
    let _ = sys.close(fd);
    let got = got.map_err(failed)?;
    // A full buffer may not hold all arguments.
    if got < memory.len() { memory.get(..got).ok_or(TOO_LARGE) } else { Err(TOO_LARGE) }
}

/// Returns the mark for a copy of a program with the mark `mark`, or `None` after the second copy. Two copies
/// are enough even if the launcher has set a mark itself.
fn next_mark(mark: Option<&[u8]>) -> Option<&'static str> {
    let [first, last] = MARKS;
    match mark {
        None => Some(first),
        Some(mark) if mark == last.as_bytes() => None,
        Some(_) => Some(last),
    }
}

/// Returns our environment with the mark, once, each variable with its NUL, or `None` if it does not fit.
fn environment<'a>(own: Option<&[u8]>, form: Form<'_>, mark: &str, memory: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut line = Line::new(memory);
    let is_mark = |variable: &[u8]| {
        variable.strip_prefix(form.variable.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    let variables = own?.split_inclusive(|byte| *byte == 0).filter(|variable| !is_mark(variable));
    for variable in variables {
        line.push_bytes(variable).ok()?;
    }
    write!(line, "{}={mark}", form.variable).ok()?;
    line.push_bytes(form.name).ok()?;
    line.push_bytes(&[0]).ok()?;
    let len = line.len();
    memory.get(..len)
}

/// Creates an empty file: in memory; otherwise in the directory without an entry; otherwise with an entry,
/// which is removed immediately.
fn create<S: Sys>(sys: &mut S, name: &CStr, state_dir: Option<&[u8]>) -> Result<(Fd, Kind), Error<'static>> {
    let mut memory = sys.memfd_create(name, true);
    if memory == Err(Errno::EINVAL) {
        // Linux before 6.3 does not have MFD_EXEC, and does not need it.
        memory = sys.memfd_create(name, false);
    }
    if let Ok(fd) = memory {
        return Ok((fd, Kind::Memory));
    }
    // memfd_create(2) fails before Linux 3.17, with vm.memfd_noexec = 2, and with a seccomp filter that
    // refuses it.
    let dir = state_dir.filter(|dir| dir.starts_with(b"/")).unwrap_or(DEFAULT_DIR);
    let mut buffer = [0; PATH_MAX];
    let unnamed = {
        let path = text(&mut buffer, |line| line.push_bytes(dir))?;
        sys.openat(Fd::CWD, path, OpenFlags::Unnamed)
    };
    match unnamed {
        Ok(fd) => Ok((fd, Kind::File)),
        // O_TMPFILE fails before Linux 3.11 and on file systems that do not support it.
        Err(_) => create_named(sys, dir, &mut buffer).map(|fd| (fd, Kind::File)),
    }
}

fn create_named<S: Sys>(sys: &mut S, dir: &[u8], buffer: &mut [u8]) -> Result<Fd, Error<'static>> {
    let pid = sys.getpid();
    let mut errno = Errno::EEXIST;
    for number in 0..NAMES_MAX {
        let path = text(buffer, |line| {
            line.push_bytes(dir)?;
            write!(line, "/runc.{pid}.{number}")
        })?;
        match sys.openat(Fd::CWD, path, OpenFlags::New) {
            Ok(fd) => {
                sys.unlink(path).map_err(|errno| os(CopyStep::Unlink, errno))?;
                return Ok(fd);
            }
            // The name is in use: try another.
            Err(Errno::EEXIST) => {}
            Err(other) => {
                errno = other;
                break;
            }
        }
    }
    Err(os(CopyStep::Create, errno))
}

/// Writes a text and its NUL to `buffer`.
fn text(
    buffer: &mut [u8],
    write: impl FnOnce(&mut Line<'_>) -> fmt::Result,
) -> Result<&CStr, Error<'static>> {
    let mut line = Line::new(buffer);
    let whole = write(&mut line).and_then(|()| line.push_bytes(&[0]));
    let len = line.len();
    let text = buffer.get(..len).filter(|_| whole.is_ok());
    text.and_then(|text| CStr::from_bytes_until_nul(text).ok())
        .ok_or(os(CopyStep::Create, Errno::ENAMETOOLONG))
}

/// Calls [`copy_all`] so that a file size limit (RLIMIT_FSIZE) is an error. Without a handler its signal
/// SIGXFSZ would end this process before it can report. After an error the signal stays blocked, since it is
/// pending then.
fn copy_within_limits<S: Sys>(
    sys: &mut S,
    to: Fd,
    from: Fd,
    buffer: &mut [u8],
) -> Result<(), Error<'static>> {
    // Only an invalid argument makes these fail. Then nothing is blocked, and the mask need not be restored.
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet::XFSZ);
    copy_all(sys, to, from, buffer)?;
    if let Ok(mask) = mask {
        // Restored before the exec, which preserves the mask.
        let _ = sys.sigprocmask(MaskHow::Set, mask);
    }
    Ok(())
}

/// Copies all of `from`, with sendfile(2), or with read and write for the part that sendfile cannot copy.
fn copy_all<S: Sys>(sys: &mut S, to: Fd, from: Fd, buffer: &mut [u8]) -> Result<(), Error<'static>> {
    loop {
        match sys.sendfile(to, from, SENDFILE_MAX) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    // Both file offsets are where the last successful call left them.
    loop {
        let got = match sys.read(from, buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(os(CopyStep::Copy, errno)),
        };
        let mut rest = buffer.get(..got).unwrap_or_default();
        while !rest.is_empty() {
            match sys.write(to, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(os(CopyStep::Copy, errno)),
            }
        }
    }
}

/// Seals the copy. The kernel waits, and then refuses with EBUSY, while another process or the kernel holds a
/// reference to one of its pages (memfd_wait_for_pins in mm/memfd.c). Under load this happens although only
/// this process has the file.
fn seal<S: Sys>(sys: &mut S, copy: Fd) -> SysResult<()> {
    for _ in 1..SEAL_TRIES {
        match sys.add_seals(copy, Seals::CONTENT) {
            Err(Errno::EBUSY) => {}
            other => return other,
        }
    }
    sys.add_seals(copy, Seals::CONTENT)
}

/// Protects the copy against changes and checks that it will be recognised. Returns the descriptor to
/// execute.
fn protect<S: Sys>(sys: &mut S, copy: Fd, kind: Kind) -> Result<Fd, Error<'static>> {
    let failed = |errno| os(CopyStep::Seal, errno);
    if kind == Kind::Memory {
        seal(sys, copy).map_err(failed)?;
        // The kernel may have added a seal (vm.memfd_noexec). Then the copy would not be recognised and would
        // copy itself again, without end.
        return match sys.get_seals(copy).map_err(failed)? {
            Seals::CONTENT => Ok(copy),
            _ => Err(Error::Refused(Refusal::CopyNotRecognised)),
        };
    }
    // The owner keeps read permission: a process that cannot read its own program is non-dumpable, and cannot
    // read its seals.
    sys.fchmod(copy, 0o500).map_err(failed)?;
    let mut buffer = [0; 32];
    let path = proc_path(&mut buffer, copy)?;
    if !is_copy(sys, copy, path, true)? {
        return Err(Error::Refused(Refusal::CopyNotRecognised));
    }
    // A file that is open for writing cannot be executed (ETXTBSY).
    let reopened = sys.openat(Fd::CWD, path, OpenFlags::Path).map_err(failed)?;
    let _ = sys.close(copy);
    Ok(reopened)
}

/// Returns the /proc path of an open descriptor of this process.
fn proc_path(buffer: &mut [u8], fd: Fd) -> Result<&CStr, Error<'static>> {
    text(buffer, |line| write!(line, "/proc/self/fd/{}", fd.0))
}

fn execute<'a, S: Sys>(sys: &mut S, copy: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
    match sys.execveat(copy, argv, envp) {
        // ENOSYS: before Linux 3.19. EPERM: a seccomp filter that does not list the call.
        errno @ (Errno::ENOSYS | Errno::EPERM) => {
            let mut buffer = [0; 32];
            proc_path(&mut buffer, copy).map_or(errno, |path| sys.execve(path, argv, envp))
        }
        errno => errno,
    }
}
