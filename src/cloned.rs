//! The copy of our own program that nobody can write to (CVE-2019-5736).
//!
//! A container's process that gets hold of /proc/PID/exe of a stage can write to the runtime's binary once the stage has
//! ended, and everybody's next container runs what it wrote. So runc up to 1.1 executes itself once more, from a sealed
//! copy, before it says its first word to the launcher; since 1.2 its Go half does it (spec 2.7).
//!
//! A stage that is not dumpable does not prevent the attack. Stage 2 executes a file of the container's mount namespace.
//! If that file begins with `#!/proc/self/exe`, the kernel executes our own binary once more: dumpable, in the
//! container, with the container's dynamic loader and libraries. A library's constructor opens /proc/self/exe, keeps the
//! descriptor, waits for the launcher's end, and opens /proc/self/fd/N for writing. So our own launcher needs the copy
//! too, whenever it joins a mount namespace: `launch::run_from_sealed_copy` makes it with [`ensure_for_launch`], and
//! `launch::script::launch` asks [`may_join_mounts`] before it makes any process.
//!
//! A copy is known by its seals. One that cannot have any, since this kernel has no memfd, is known by a mark in the
//! environment and by having no name. Before a copy is executed it is held against the very same question, and the mark
//! counts, so that nothing can make us execute ourselves for ever.

#[cfg(test)]
mod tests;

use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::bootstrap::MESSAGE_MAX;
use crate::bootstrap::env::{CLONED_BINARY, OwnProgram};
use crate::error::{Cloning, Doing, Error, Refusal};
use crate::json::Line;
use crate::namespace::join::PATH_MAX;
use crate::sys::Sys;
use crate::sys::types::{ArgPtr, Errno, ExecArgs, Fd, MaskHow, OpenFlags, Seals, SignalSet, SysResult};

/// Bytes of our arguments with their NULs, and of our environment: what Linux lets a single string have
/// (`MAX_ARG_STRLEN`). A launcher gives us a few hundred.
pub const STRINGS_MAX: usize = 131_072;

// The message's memory serves, which is not needed yet: for both kinds of strings, and to copy.
const _: () = assert!(MESSAGE_MAX > 2 * STRINGS_MAX);

/// Arguments: a launcher gives us two.
pub const ARGUMENTS_MAX: usize = 256;

/// Environment variables: a launcher gives us about ten.
pub const VARIABLES_MAX: usize = 1024;

/// Names that are tried for a copy in a directory: somebody else may have taken the first ones.
const NAMES_MAX: u8 = 16;

/// What one `sendfile` copies at most.
const SENDFILE_MAX: usize = 0x7fff_f000;

/// How often sealing is tried. Each time the kernel itself waits for a tenth of a second.
const SEAL_TRIES: u8 = 5;

/// Where a copy is made if the environment names no absolute directory.
const DEFAULT_DIR: &[u8] = b"/tmp";

/// The mark of a copy, and that of one that was made although there had been a mark: there is no third. runc's C has
/// the first alone.
const MARKS: [&str; 2] = ["1", LAST_MARK];

/// The mark after which no further copy is made.
pub const LAST_MARK: &str = "2";

const SELF_EXE: &CStr = c"/proc/self/exe";
const NAME: &CStr = c"runc_cloned:/proc/self/exe";
const LAUNCHER_NAME: &CStr = c"sealed_copy:/proc/self/exe";

/// The variable with the mark of a copy that our own launcher runs from. The copy removes it before anything else.
pub const SEALED_COPY: &str = "_NSEXEC_SEALED_COPY";

/// Whether a file is a copy of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Cloned,
    NotCloned,
    /// Its seals do not tell. It is one if it lies where nobody can write, or has no name.
    AskFile,
}

/// `marked`: whoever executed us says that we are a copy.
fn verdict(seals: SysResult<Seals>, marked: bool) -> Verdict {
    match seals {
        Ok(Seals::CONTENT) => Verdict::Cloned,
        // tmpfs says this of every file of it, our own copies without a name among them.
        Ok(Seals::SEAL) | Err(_) if marked => Verdict::AskFile,
        _ => Verdict::NotCloned,
    }
}

/// How a copy is kept from being changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// By seals.
    Memory,
    /// By having no name, and no write permission.
    File,
}

/// Makes sure that we run from a copy that nobody can write to. Comes back with success only where that is so: otherwise
/// the program begins anew.
///
/// We are whoever the launcher has executed, before our first word to it.
///
/// # Errors
/// Why there is no copy.
pub fn ensure<S: Sys>(sys: &mut S, own: OwnProgram<'_>, memory: &mut [u8]) -> Result<(), Error<'static>> {
    let exe = sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly).map_err(|errno| {
        if errno == Errno::EACCES {
            // The text that people look for; there is nobody to tell if this fails.
            let _ = sys.write(Fd::STDERR, b"you have no read access to runc binary file\n");
        }
        os(Cloning::OpenExe, errno)
    })?;
    if is_copy(sys, exe, SELF_EXE, own.mark.is_some())? {
        // It is close-on-exec, and nobody's end: nothing depends on the close.
        let _ = sys.close(exe);
        return Ok(());
    }
    let (argv, rest) = memory.split_at_mut_checked(STRINGS_MAX).ok_or(TOO_LARGE)?;
    let (envp, buffer) = rest.split_at_mut_checked(STRINGS_MAX).ok_or(TOO_LARGE)?;
    let (mut argv_slots, mut envp_slots) = ([None; ARGUMENTS_MAX + 1], [None; VARIABLES_MAX + 1]);
    let room = Room { argv, envp, argv_slots: &mut argv_slots, envp_slots: &mut envp_slots, buffer };
    become_copy(sys, exe, RUNC, own, room)
}

/// Makes sure that a program of our own launcher runs from a copy that no process can change. Returns success only if it
/// does; otherwise the program starts again, from a copy, with the same arguments, environment and descriptors.
///
/// The environment of the copy has one variable more, [`SEALED_COPY`]: a mark of one byte, and behind it `name`, the
/// process's name, which the exec of a descriptor replaces by the descriptor's number. `own.mark` is that first byte.
///
/// We are the program that is going to launch, with a single thread, before its main work.
///
/// # Errors
/// Why there is no copy. [`Refusal::OwnArguments`] also if `room` is too small: the caller may try again with more.
pub fn ensure_for_launch<S: Sys>(
    sys: &mut S,
    own: OwnProgram<'_>,
    name: &[u8],
    room: Room<'_>,
) -> Result<(), Error<'static>> {
    let exe =
        sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly).map_err(|errno| os(Cloning::OpenExe, errno))?;
    match is_launchers_copy(sys, exe, own.mark.is_some()) {
        Ok(false) => {}
        known => {
            let _ = sys.close(exe);
            return known.map(|_| ());
        }
    }
    become_copy(sys, exe, Form { variable: SEALED_COPY, memfd: LAUNCHER_NAME, name }, own, room)
}

/// Returns whether a container that gets hold of our /proc/self/exe cannot overwrite a file of the host through it: the
/// condition for joining a mount namespace. `marked`: this program has found the mark of a copy in its environment.
///
/// We are the launcher, before it makes any process. The stages are forks, so they have the same /proc/self/exe.
///
/// # Errors
/// If /proc/self/exe cannot be opened, or looked at.
pub fn may_join_mounts<S: Sys>(sys: &mut S, marked: bool) -> SysResult<bool> {
    let exe = sys.openat(Fd::CWD, SELF_EXE, OpenFlags::ReadOnly)?;
    let result = is_launchers_copy(sys, exe, marked);
    let _ = sys.close(exe);
    result.map_err(|error| error.errno().unwrap_or(Errno::EIO))
}

/// Returns whether our program, open as `exe`, is a copy of our own launcher's: sealed, or marked and without a name.
/// Without the mark a file without a name does not count: another process may hold it open, and execute it again. A
/// read-only mount does not count either: it may be remounted while a container holds its descriptor.
fn is_launchers_copy<S: Sys>(sys: &mut S, exe: Fd, marked: bool) -> Result<bool, Error<'static>> {
    match verdict(sys.get_seals(exe), marked) {
        Verdict::Cloned => Ok(true),
        Verdict::NotCloned => Ok(false),
        Verdict::AskFile => {
            sys.link_count(SELF_EXE).map(|links| links == 0).map_err(|errno| os(Cloning::Look, errno))
        }
    }
}

/// How copies are marked and named.
#[derive(Clone, Copy, Debug)]
struct Form<'n> {
    /// The variable with the mark.
    variable: &'static str,
    /// The name of the file in memory, which /proc/PID/exe and /proc/PID/maps show.
    memfd: &'static CStr,
    /// The text behind the mark in the variable.
    name: &'n [u8],
}

/// runc's.
const RUNC: Form<'static> = Form { variable: CLONED_BINARY, memfd: NAME, name: b"" };

/// The memory in which arguments and environment are put together, and the program is copied.
#[derive(Debug)]
pub struct Room<'r> {
    /// For the arguments, each with its NUL; one byte more than they have.
    pub argv: &'r mut [u8],
    /// For the environment, with the mark.
    pub envp: &'r mut [u8],
    /// For a pointer to each argument, and the null pointer.
    pub argv_slots: &'r mut [Option<ArgPtr<'r>>],
    /// For a pointer to each variable, and the null pointer.
    pub envp_slots: &'r mut [Option<ArgPtr<'r>>],
    /// For the program's bytes, if the kernel cannot copy them by itself.
    pub buffer: &'r mut [u8],
}

/// Copies the program, which is open as `exe`, and executes the copy. Returns only if that fails, with `exe` closed.
fn become_copy<S: Sys>(
    sys: &mut S,
    exe: Fd,
    form: Form<'_>,
    own: OwnProgram<'_>,
    room: Room<'_>,
) -> Result<(), Error<'static>> {
    let Room { argv, envp, argv_slots, envp_slots, buffer } = room;
    let strings = strings(sys, own, form, (argv, argv_slots), (envp, envp_slots));
    let copied = strings.and_then(|strings| Ok((strings, filled(sys, exe, form, own.state_dir, buffer)?)));
    let _ = sys.close(exe);
    let ((argv, envp), (copy, kind)) = copied?;
    let copy = protect(sys, copy, kind).map_err(|error| close_after(sys, copy, error))?;
    let errno = execute(sys, copy, &argv, &envp);
    Err(close_after(sys, copy, os(Cloning::Exec, errno)))
}

/// A text and the room for pointers to its strings.
type Strings<'r> = (&'r mut [u8], &'r mut [Option<ArgPtr<'r>>]);

/// Our arguments and our environment with the mark, as execve takes them.
fn strings<'r, S: Sys>(
    sys: &mut S,
    own: OwnProgram<'_>,
    form: Form<'_>,
    argv: Strings<'r>,
    envp: Strings<'r>,
) -> Result<(ExecArgs<'r>, ExecArgs<'r>), Error<'static>> {
    let mark = next_mark(own.mark).ok_or(Error::Refused(Refusal::CopyUnknown))?;
    let argv = ExecArgs::build(arguments(sys, argv.0)?, argv.1);
    let envp = environment(own.environ, form, mark, envp.0).and_then(|text| ExecArgs::build(text, envp.1));
    argv.zip(envp).ok_or(TOO_LARGE)
}

/// A new file with the bytes of `exe`.
fn filled<S: Sys>(
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

/// Closes a copy that does not serve: our own launcher's program may go on without it.
fn close_after<S: Sys>(sys: &mut S, copy: Fd, error: Error<'static>) -> Error<'static> {
    let _ = sys.close(copy);
    error
}

const TOO_LARGE: Error<'static> = Error::Refused(Refusal::OwnArguments);

const fn os(step: Cloning, errno: Errno) -> Error<'static> {
    Error::Os { doing: Doing::EnsureCloned(step), errno }
}

/// Whether the open file, which is at `path`, is a copy of ours: the question that decides about a second one, and that each
/// copy without seals is held against before it is executed.
fn is_copy<S: Sys>(sys: &mut S, file: Fd, path: &CStr, marked: bool) -> Result<bool, Error<'static>> {
    match verdict(sys.get_seals(file), marked) {
        Verdict::Cloned => Ok(true),
        Verdict::NotCloned => Ok(false),
        Verdict::AskFile => is_out_of_reach(sys, path),
    }
}

/// Whether nobody can write to the file at `path`: there is no way to write on its mount, or none to find it.
fn is_out_of_reach<S: Sys>(sys: &mut S, path: &CStr) -> Result<bool, Error<'static>> {
    let failed = |errno| os(Cloning::Look, errno);
    Ok(sys.is_read_only(path).map_err(failed)? || sys.link_count(path).map_err(failed)? == 0)
}

/// Our arguments, each with its NUL. Read again, since nobody hands them to an ELF constructor.
fn arguments<'a, S: Sys>(sys: &mut S, memory: &'a mut [u8]) -> Result<&'a [u8], Error<'static>> {
    let failed = |errno| os(Cloning::ReadArguments, errno);
    let fd = sys.openat(Fd::CWD, c"/proc/self/cmdline", OpenFlags::ReadOnly).map_err(failed)?;
    let got = crate::pipe::read_full(sys, fd, memory);
    let _ = sys.close(fd);
    let got = got.map_err(failed)?;
    // A full buffer may not be all.
    if got < memory.len() { memory.get(..got).ok_or(TOO_LARGE) } else { Err(TOO_LARGE) }
}

/// The mark for a copy of a program that has this one. Whatever a launcher may have set, two copies are enough: `None`.
fn next_mark(mark: Option<&[u8]>) -> Option<&'static str> {
    let [first, last] = MARKS;
    match mark {
        None => Some(first),
        Some(mark) if mark == last.as_bytes() => None,
        Some(_) => Some(last),
    }
}

/// Our environment with the mark, once, each variable with its NUL. `None`: there is no room.
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

/// A new empty file: in memory; else without a name in the directory; else with a name, which is taken away at once.
fn create<S: Sys>(sys: &mut S, name: &CStr, state_dir: Option<&[u8]>) -> Result<(Fd, Kind), Error<'static>> {
    let mut memory = sys.memfd_create(name, true);
    if memory == Err(Errno::EINVAL) {
        // Linux before 6.3 does not know the flag, and needs none.
        memory = sys.memfd_create(name, false);
    }
    if let Ok(fd) = memory {
        return Ok((fd, Kind::Memory));
    }
    // Before 3.17, with vm.memfd_noexec = 2, behind a filter.
    let dir = state_dir.filter(|dir| dir.starts_with(b"/")).unwrap_or(DEFAULT_DIR);
    let mut buffer = [0; PATH_MAX];
    let unnamed = {
        let path = text(&mut buffer, |line| line.push_bytes(dir))?;
        sys.openat(Fd::CWD, path, OpenFlags::Unnamed)
    };
    match unnamed {
        Ok(fd) => Ok((fd, Kind::File)),
        // Before 3.11, and on file systems that have no such files.
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
                sys.unlink(path).map_err(|errno| os(Cloning::Unlink, errno))?;
                return Ok(fd);
            }
            // Somebody else's: another name.
            Err(Errno::EEXIST) => {}
            Err(other) => {
                errno = other;
                break;
            }
        }
    }
    Err(os(Cloning::Create, errno))
}

/// A text with its NUL in `buffer`.
fn text(
    buffer: &mut [u8],
    write: impl FnOnce(&mut Line<'_>) -> fmt::Result,
) -> Result<&CStr, Error<'static>> {
    let mut line = Line::new(buffer);
    let whole = write(&mut line).and_then(|()| line.push_bytes(&[0]));
    let len = line.len();
    let text = buffer.get(..len).filter(|_| whole.is_ok());
    text.and_then(|text| CStr::from_bytes_until_nul(text).ok())
        .ok_or(os(Cloning::Create, Errno::ENAMETOOLONG))
}

/// [`copy_all`], where a limit of the size of files (RLIMIT_FSIZE) is an error: without a handler its signal would end us
/// without a word. It stays blocked after an error, since it is pending then.
fn copy_within_limits<S: Sys>(
    sys: &mut S,
    to: Fd,
    from: Fd,
    buffer: &mut [u8],
) -> Result<(), Error<'static>> {
    // Only a wrong argument makes these fail. Then nothing is blocked, and nothing has to be put back.
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet::XFSZ);
    copy_all(sys, to, from, buffer)?;
    if let Ok(mask) = mask {
        // Before the exec, which keeps a mask.
        let _ = sys.sigprocmask(MaskHow::Set, mask);
    }
    Ok(())
}

/// Copies all of `from`: by the kernel, and the rest by hand where it cannot copy between these two.
fn copy_all<S: Sys>(sys: &mut S, to: Fd, from: Fd, buffer: &mut [u8]) -> Result<(), Error<'static>> {
    loop {
        match sys.sendfile(to, from, SENDFILE_MAX) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    // Both are where the last successful call left them.
    loop {
        let got = match sys.read(from, buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(os(Cloning::Copy, errno)),
        };
        let mut rest = buffer.get(..got).unwrap_or_default();
        while !rest.is_empty() {
            match sys.write(to, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(os(Cloning::Copy, errno)),
            }
        }
    }
}

/// Seals the copy. The kernel refuses with EBUSY as long as somebody else holds one of its pages (memfd_wait_for_pins in
/// mm/memfd.c), after it has waited itself: so it may be under load, though nobody but us knows the file.
fn seal<S: Sys>(sys: &mut S, copy: Fd) -> SysResult<()> {
    for _ in 1..SEAL_TRIES {
        match sys.add_seals(copy, Seals::CONTENT) {
            Err(Errno::EBUSY) => {}
            other => return other,
        }
    }
    sys.add_seals(copy, Seals::CONTENT)
}

/// Sees to it that nobody changes the copy any more, and that it will be known for one. Gives the descriptor to execute.
fn protect<S: Sys>(sys: &mut S, copy: Fd, kind: Kind) -> Result<Fd, Error<'static>> {
    let failed = |errno| os(Cloning::Seal, errno);
    if kind == Kind::Memory {
        seal(sys, copy).map_err(failed)?;
        // A kernel may have added one of its own (vm.memfd_noexec): then we would copy ourselves for ever.
        return match sys.get_seals(copy).map_err(failed)? {
            Seals::CONTENT => Ok(copy),
            _ => Err(Error::Refused(Refusal::CopyUnknown)),
        };
    }
    // Its owner may read it: who cannot read its own program is not dumpable, and cannot ask for its seals either.
    sys.fchmod(copy, 0o500).map_err(failed)?;
    let mut buffer = [0; 32];
    let path = proc_path(&mut buffer, copy)?;
    if !is_copy(sys, copy, path, true)? {
        return Err(Error::Refused(Refusal::CopyUnknown));
    }
    // What is open for writing cannot be executed (ETXTBSY).
    let reopened = sys.openat(Fd::CWD, path, OpenFlags::Path).map_err(failed)?;
    let _ = sys.close(copy);
    Ok(reopened)
}

/// The path of an open file of ours.
fn proc_path(buffer: &mut [u8], fd: Fd) -> Result<&CStr, Error<'static>> {
    text(buffer, |line| write!(line, "/proc/self/fd/{}", fd.0))
}

fn execute<'a, S: Sys>(sys: &mut S, copy: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
    match sys.execveat(copy, argv, envp) {
        // Before 3.19; a filter that does not know the call.
        errno @ (Errno::ENOSYS | Errno::EPERM) => {
            let mut buffer = [0; 32];
            proc_path(&mut buffer, copy).map_or(errno, |path| sys.execve(path, argv, envp))
        }
        errno => errno,
    }
}
