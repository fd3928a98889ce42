//! Tests every branch of the sealed copy with a mock kernel.

extern crate std;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use mockall::predicate::eq;

use super::*;
use crate::sys::MockSys;

const EXE: Fd = Fd(3);
const CMDLINE: Fd = Fd(4);
const COPY: Fd = Fd(5);

/// Returns a mock whose program is readable and returns `seals`.
fn running(seals: SysResult<Seals>) -> MockSys {
    let mut sys = MockSys::new();
    sys.expect_openat().withf(|_, path, _| path == SELF_EXE).return_const(Ok(EXE));
    sys.expect_get_seals().with(eq(EXE)).return_const(seals);
    sys.expect_close().return_const(Ok(()));
    sys
}

/// Adds the arguments `text`, readable in two or more parts.
fn with_arguments(mut sys: MockSys, text: &'static [u8]) -> MockSys {
    sys.expect_openat().withf(|_, path, _| path == c"/proc/self/cmdline").return_const(Ok(CMDLINE));
    let mut rest = text;
    sys.expect_read().withf(|fd, _| *fd == CMDLINE).returning_st(move |_, buf| {
        let (now, later) = rest.split_at(rest.len().min(buf.len()));
        rest = later;
        buf[..now.len()].copy_from_slice(now);
        Ok(now.len())
    });
    sys
}

/// Expects that SIGXFSZ is blocked, and that the mask is then restored.
fn with_mask(mut sys: MockSys) -> MockSys {
    let was = SignalSet(4);
    sys.expect_sigprocmask().once().with(eq(MaskHow::Block), eq(SignalSet::XFSZ)).return_const(Ok(was));
    sys.expect_sigprocmask().once().with(eq(MaskHow::Set), eq(was)).return_const(Ok(SignalSet::XFSZ));
    sys
}

/// Expects a copy of the program into a memfd.
fn with_memfd(sys: MockSys) -> MockSys {
    let mut sys = with_mask(with_arguments(sys, b"runc\0init\0"));
    sys.expect_memfd_create().withf(|name, exec| name == NAME && *exec).return_const(Ok(COPY));
    sys.expect_sendfile().once().return_const(Ok(7_usize));
    sys.expect_sendfile().once().return_const(Ok(0_usize));
    sys.expect_add_seals().with(eq(COPY), eq(Seals::CONTENT)).return_const(Ok(()));
    sys
}

/// Returns the result of sealing if the kernel refuses with EBUSY `refusals` times.
fn seals_after(refusals: usize) -> SysResult<()> {
    let mut sys = MockSys::new();
    sys.expect_add_seals().times(refusals).with(eq(COPY), eq(Seals::CONTENT)).return_const(Err(Errno::EBUSY));
    sys.expect_add_seals().times(0..=1).with(eq(COPY), eq(Seals::CONTENT)).return_const(Ok(()));
    seal(&mut sys, COPY)
}

/// Expects a copy into a file of a directory, with `links` directory entries. memfd_create is missing.
fn with_file(sys: MockSys, links: u64) -> MockSys {
    let mut sys = with_mask(with_arguments(sys, b"runc\0init\0"));
    sys.expect_memfd_create().return_const(Err(Errno::ENOSYS));
    sys.expect_sendfile().return_const(Ok(0_usize));
    sys.expect_fchmod().with(eq(COPY), eq(0o500)).return_const(Ok(()));
    sys.expect_is_read_only().withf(|path| path == c"/proc/self/fd/5").return_const(Ok(false));
    sys.expect_link_count().withf(|path| path == c"/proc/self/fd/5").return_const(Ok(links));
    sys
}

fn own<'e>(marked: bool) -> OwnProgram<'e> {
    OwnProgram { state_dir: Some(b"/run/runc"), mark: marked.then_some(b""), environ: Some(b"A=1\0B=\0") }
}

fn ensure_with(sys: &mut MockSys, own: OwnProgram<'_>) -> Result<(), std::string::String> {
    ensure(sys, own, &mut vec![0; 2 * STRINGS_MAX + 4]).map_err(|error| error.to_string())
}

fn refused(text: &str) -> Result<(), std::string::String> {
    Err(std::format!("could not ensure we are a cloned binary: {text}"))
}

#[test]
fn sealed_program_is_not_copied_again() {
    for marked in [true, false] {
        // Any further call would be an unexpected call of the mock.
        assert_eq!(ensure_with(&mut running(Ok(Seals::CONTENT)), own(marked)), Ok(()));
    }
}

#[test]
fn file_check_requires_the_mark() {
    let verdicts = |seals| (verdict(seals, false), verdict(seals, true));
    assert_eq!(verdicts(Ok(Seals::CONTENT)), (Verdict::Cloned, Verdict::Cloned));
    assert_eq!(verdicts(Err(Errno::EINVAL)), (Verdict::NotCloned, Verdict::CheckFile));
    assert_eq!(verdicts(Ok(Seals::SEAL)), (Verdict::NotCloned, Verdict::CheckFile));
    // Other seals are not those that this program sets.
    for seals in [0, 0x7, 0xe, 0x1f, 0x2f] {
        assert_eq!(verdicts(Ok(Seals(seals))), (Verdict::NotCloned, Verdict::NotCloned), "{seals:#x}");
    }
    for (read_only, links, cloned) in
        [(Ok(true), None, true), (Ok(false), Some(Ok(0)), true), (Ok(false), Some(Ok(1)), false)]
    {
        let mut sys = running(Err(Errno::EINVAL));
        sys.expect_is_read_only().withf(|path| path == SELF_EXE).return_const(read_only);
        if let Some(links) = links {
            sys.expect_link_count().withf(|path| path == SELF_EXE).return_const(links);
        }
        if cloned {
            assert_eq!(ensure_with(&mut sys, own(true)), Ok(()));
        } else {
            let mut sys = with_memfd(sys);
            sys.expect_get_seals().with(eq(COPY)).return_const(Ok(Seals::CONTENT));
            sys.expect_execveat().return_const(Errno::EACCES);
            assert_eq!(ensure_with(&mut sys, own(true)), refused("Permission denied (executing the copy)"));
        }
    }
}

#[test]
fn failed_file_check_is_an_error() {
    let mut sys = running(Err(Errno::EINVAL));
    sys.expect_is_read_only().return_const(Err(Errno::EIO));
    assert_eq!(ensure_with(&mut sys, own(true)), refused("Input/output error (examining its file)"));
    let mut sys = running(Err(Errno::EINVAL));
    sys.expect_is_read_only().return_const(Ok(false));
    sys.expect_link_count().return_const(Err(Errno::EACCES));
    assert_eq!(ensure_with(&mut sys, own(true)), refused("Permission denied (examining its file)"));
}

#[test]
fn missing_read_access_is_also_reported_on_stderr() {
    let mut sys = MockSys::new();
    sys.expect_openat().return_const(Err(Errno::EACCES));
    let text: &[u8] = b"you have no read access to runc binary file\n";
    sys.expect_write().once().with(eq(Fd::STDERR), eq(text)).returning(|_, text| Ok(text.len()));
    assert_eq!(ensure_with(&mut sys, own(false)), refused("Permission denied (opening /proc/self/exe)"));
    let mut sys = MockSys::new();
    sys.expect_openat().return_const(Err(Errno::ENOENT));
    assert_eq!(
        ensure_with(&mut sys, own(false)),
        refused("No such file or directory (opening /proc/self/exe)")
    );
}

#[test]
fn copy_is_sealed_and_executed_with_arguments_and_mark() {
    let mut sys = with_memfd(running(Err(Errno::EINVAL)));
    sys.expect_get_seals().with(eq(COPY)).once().return_const(Ok(Seals::CONTENT));
    sys.expect_execveat()
        .once()
        .withf(|fd, argv, envp| {
            let strings = |args: &ExecArgs<'_>| args.strings().map(Vec::from).collect::<Vec<_>>();
            *fd == COPY
                && strings(argv) == [b"runc", b"init"]
                && strings(envp) == [&b"A=1"[..], b"B=", b"_LIBCONTAINER_CLONED_BINARY=1"]
        })
        .return_const(Errno::ENOEXEC);
    assert_eq!(ensure_with(&mut sys, own(false)), refused("Exec format error (executing the copy)"));
}

#[test]
fn sealing_is_repeated_after_ebusy() {
    assert_eq!(seals_after(1), Ok(()));
    assert_eq!(seals_after(usize::from(SEAL_TRIES) - 1), Ok(()));
    assert_eq!(seals_after(usize::from(SEAL_TRIES)), Err(Errno::EBUSY));
    let mut sys = MockSys::new();
    sys.expect_add_seals().once().return_const(Err(Errno::EPERM));
    assert_eq!(seal(&mut sys, COPY), Err(Errno::EPERM));
}

#[test]
fn environment_of_the_copy_has_the_mark_once() {
    let mut memory = [0; 256];
    let old =
        b"_LIBCONTAINER_CLONED_BINARY=0\0A=1\0_LIBCONTAINER_CLONED_BINARY=\0_LIBCONTAINER_CLONED_BINARYX=2\0";
    assert_eq!(
        environment(Some(old), RUNC, "1", &mut memory),
        Some(&b"A=1\0_LIBCONTAINER_CLONED_BINARYX=2\0_LIBCONTAINER_CLONED_BINARY=1\0"[..])
    );
    assert_eq!(environment(None, RUNC, "1", &mut memory), None);
    assert_eq!(environment(Some(b"A=1\0"), RUNC, "1", &mut memory[..33]), None);
    assert!(environment(Some(b"A=1\0"), RUNC, "1", &mut memory[..34]).is_some());
}

#[test]
fn oversized_arguments_are_refused_before_the_copy() {
    let too_large = refused("the arguments or the environment are too large for the sealed copy");
    // One argument more than there are slots; one byte more than fits.
    for arguments in [vec![0; ARGUMENTS_MAX + 1], vec![b'a'; STRINGS_MAX]] {
        let mut sys = with_arguments(running(Err(Errno::EINVAL)), arguments.leak());
        assert_eq!(ensure_with(&mut sys, own(false)), too_large);
    }
    for environ in [None, Some(&[0_u8; VARIABLES_MAX][..])] {
        let mut sys = with_arguments(running(Err(Errno::EINVAL)), b"runc\0init\0");
        assert_eq!(ensure_with(&mut sys, OwnProgram { environ, ..own(false) }), too_large);
    }
    // Memory that is too small for them.
    let mut sys = running(Err(Errno::EINVAL));
    assert_eq!(ensure(&mut sys, own(false), &mut [0; 100]), Err(TOO_LARGE));
    let mut sys = running(Err(Errno::EINVAL));
    sys.expect_openat().return_const(Err(Errno::EMFILE));
    assert_eq!(
        ensure_with(&mut sys, own(false)),
        refused("Too many open files (reading /proc/self/cmdline)")
    );
}

#[test]
fn memfd_create_is_repeated_without_mfd_exec() {
    let mut sys = MockSys::new();
    sys.expect_memfd_create().with(eq(NAME), eq(true)).once().return_const(Err(Errno::EINVAL));
    sys.expect_memfd_create().with(eq(NAME), eq(false)).once().return_const(Ok(COPY));
    assert_eq!(create(&mut sys, NAME, None), Ok((COPY, Kind::Memory)));
}

#[test]
fn without_memfd_the_copy_is_a_file_of_the_state_directory() {
    let unnamed = |dir: Option<&'static [u8]>, expected: &'static CStr| {
        let mut sys = MockSys::new();
        sys.expect_memfd_create().once().return_const(Err(Errno::EPERM));
        sys.expect_openat()
            .once()
            .withf(move |dir, path, flags| {
                *dir == Fd::CWD && path == expected && *flags == OpenFlags::Unnamed
            })
            .return_const(Ok(COPY));
        assert_eq!(create(&mut sys, NAME, dir), Ok((COPY, Kind::File)));
    };
    unnamed(Some(b"/run/runc"), c"/run/runc");
    unnamed(Some(b"run/runc"), c"/tmp");
    unnamed(Some(b""), c"/tmp");
    unnamed(None, c"/tmp");
    let long = [&b"/"[..], &[b'a'; PATH_MAX]].concat();
    let mut sys = MockSys::new();
    sys.expect_memfd_create().return_const(Err(Errno::EPERM));
    assert_eq!(create(&mut sys, NAME, Some(&long)), Err(os(CopyStep::Create, Errno::ENAMETOOLONG)));
}

#[test]
fn named_copy_is_unlinked_immediately() {
    let named = |taken: usize| {
        let mut sys = MockSys::new();
        sys.expect_memfd_create().return_const(Err(Errno::ENOSYS));
        sys.expect_openat().once().return_const(Err(Errno::EISDIR));
        sys.expect_getpid().return_const(crate::sys::types::Pid(42));
        sys.expect_openat().times(taken).return_const(Err(Errno::EEXIST));
        sys
    };
    let mut sys = named(2);
    let path = c"/run/runc/runc.42.2";
    sys.expect_openat()
        .once()
        .withf(move |_, found, flags| found == path && *flags == OpenFlags::New)
        .return_const(Ok(COPY));
    sys.expect_unlink().once().withf(move |found| found == path).return_const(Ok(()));
    assert_eq!(create(&mut sys, NAME, Some(b"/run/runc")), Ok((COPY, Kind::File)));
    assert_eq!(
        create(&mut named(NAMES_MAX.into()), NAME, Some(b"/run/runc")),
        Err(os(CopyStep::Create, Errno::EEXIST))
    );
    let mut sys = named(1);
    sys.expect_openat().once().return_const(Err(Errno::EROFS));
    let error = create(&mut sys, NAME, None).unwrap_err().to_string();
    assert_eq!(
        Err(error),
        refused("Read-only file system (creating a file in _LIBCONTAINER_STATEDIR or /tmp)")
    );
    let mut sys = named(0);
    sys.expect_openat().once().return_const(Ok(COPY));
    sys.expect_unlink().return_const(Err(Errno::EACCES));
    assert_eq!(create(&mut sys, NAME, None), Err(os(CopyStep::Unlink, Errno::EACCES)));
}

#[test]
fn copy_is_complete_after_partial_transfers() {
    let mut sys = MockSys::new();
    for reply in [Err(Errno::EINTR), Ok(4), Ok(3), Ok(0)] {
        sys.expect_sendfile().once().with(eq(COPY), eq(EXE), eq(SENDFILE_MAX)).return_const(reply);
    }
    assert_eq!(copy_all(&mut sys, COPY, EXE, &mut [0; 8]), Ok(()));

    // With read and write, from the offset where sendfile failed.
    let mut sys = MockSys::new();
    sys.expect_sendfile().once().return_const(Ok(4_usize));
    sys.expect_sendfile().once().return_const(Err(Errno::EINVAL));
    sys.expect_read().once().return_const(Err(Errno::EINTR));
    sys.expect_read().once().returning(|_, buf| {
        buf[..3].copy_from_slice(b"abc");
        Ok(3)
    });
    sys.expect_write().once().withf(|_, rest| rest == b"abc").return_const(Err(Errno::EINTR));
    sys.expect_write().once().withf(|_, rest| rest == b"abc").return_const(Ok(2_usize));
    sys.expect_write().once().withf(|_, rest| rest == b"c").return_const(Ok(1_usize));
    sys.expect_read().once().return_const(Ok(0_usize));
    assert_eq!(copy_all(&mut sys, COPY, EXE, &mut [0; 8]), Ok(()));

    let mut sys = MockSys::new();
    sys.expect_sendfile().return_const(Err(Errno::EIO));
    sys.expect_read().return_const(Err(Errno::EIO));
    assert_eq!(copy_all(&mut sys, COPY, EXE, &mut [0; 8]), Err(os(CopyStep::Copy, Errno::EIO)));
    let mut sys = MockSys::new();
    sys.expect_sendfile().return_const(Err(Errno::EIO));
    sys.expect_read().return_const(Ok(1_usize));
    sys.expect_write().return_const(Err(Errno::ENOSPC));
    assert_eq!(copy_all(&mut sys, COPY, EXE, &mut [0; 8]), Err(os(CopyStep::Copy, Errno::ENOSPC)));
}

/// Otherwise the pending signal would end the process before it can report the error.
#[test]
fn sigxfsz_stays_blocked_after_a_truncated_copy() {
    let mut sys = MockSys::new();
    sys.expect_sigprocmask()
        .once()
        .with(eq(MaskHow::Block), eq(SignalSet::XFSZ))
        .return_const(Ok(SignalSet(4)));
    sys.expect_sendfile().once().return_const(Err(Errno::EFBIG));
    sys.expect_read().once().return_const(Ok(1_usize));
    sys.expect_write().once().return_const(Err(Errno::EFBIG));
    let cut = copy_within_limits(&mut sys, COPY, EXE, &mut [0; 8]);
    assert_eq!(cut, Err(os(CopyStep::Copy, Errno::EFBIG)));
}

#[test]
fn copy_that_fails_its_check_is_not_executed() {
    let unknown = refused("the sealed copy does not pass its own check");
    // The kernel has added F_SEAL_EXEC.
    let mut sys = with_memfd(running(Err(Errno::EINVAL)));
    sys.expect_get_seals().with(eq(COPY)).return_const(Ok(Seals(0x2f)));
    assert_eq!(ensure_with(&mut sys, own(false)), unknown);
    // A file that still has a directory entry, as on NFS.
    let mut sys = with_file(running(Err(Errno::EINVAL)), 1);
    sys.expect_openat().once().return_const(Ok(COPY));
    sys.expect_get_seals().with(eq(COPY)).return_const(Err(Errno::EINVAL));
    assert_eq!(ensure_with(&mut sys, own(false)), unknown);
    let mut sys = with_memfd(running(Err(Errno::EINVAL)));
    sys.expect_get_seals().with(eq(COPY)).return_const(Err(Errno::EINVAL));
    assert_eq!(ensure_with(&mut sys, own(false)), refused("Invalid argument (sealing the copy)"));
}

#[test]
fn copy_in_a_file_is_executed_through_an_o_path_descriptor() {
    for seals in [Err(Errno::EINVAL), Ok(Seals::SEAL)] {
        let mut sys = with_file(running(seals), 0);
        sys.expect_openat().once().withf(|_, _, flags| *flags == OpenFlags::Unnamed).return_const(Ok(COPY));
        sys.expect_get_seals().with(eq(COPY)).return_const(seals);
        sys.expect_openat()
            .once()
            .withf(|_, path, flags| path == c"/proc/self/fd/5" && *flags == OpenFlags::Path)
            .return_const(Ok(Fd(6)));
        sys.expect_execveat().once().withf(|fd, _, _| *fd == Fd(6)).return_const(Errno::ENOMEM);
        assert_eq!(ensure_with(&mut sys, own(false)), refused("Cannot allocate memory (executing the copy)"));
    }
}

#[test]
fn copy_is_executed_by_path_without_execveat() {
    for (refusal, falls_back) in [(Errno::ENOSYS, true), (Errno::EPERM, true), (Errno::EACCES, false)] {
        let mut sys = MockSys::new();
        sys.expect_execveat().once().return_const(refusal);
        if falls_back {
            sys.expect_execve()
                .once()
                .withf(|path, _, _| path == c"/proc/self/fd/5")
                .return_const(Errno::ETXTBSY);
        }
        let errno = execute(&mut sys, COPY, &ExecArgs::EMPTY, &ExecArgs::EMPTY);
        assert_eq!(errno, if falls_back { Errno::ETXTBSY } else { refusal });
    }
}

fn launch_with(sys: &mut MockSys, own: OwnProgram<'_>, size: usize) -> Result<(), Error<'static>> {
    let (mut argv, mut envp, mut buffer) = (vec![0; size], vec![0; size], [0; 8]);
    let (mut argv_slots, mut envp_slots) = (vec![None; 8], vec![None; 8]);
    let room = Room {
        argv: &mut argv,
        envp: &mut envp,
        argv_slots: &mut argv_slots,
        envp_slots: &mut envp_slots,
        buffer: &mut buffer,
    };
    ensure_for_launch(sys, own, b"a name", room)
}

#[test]
fn launcher_copy_needs_seals_or_mark_without_name() {
    let asked = |seals, marked, links: Option<SysResult<u64>>| {
        let mut sys = MockSys::new();
        sys.expect_openat().once().withf(|_, path, _| path == SELF_EXE).return_const(Ok(EXE));
        sys.expect_get_seals().once().with(eq(EXE)).return_const(seals);
        sys.expect_close().once().with(eq(EXE)).return_const(Ok(()));
        if let Some(links) = links {
            sys.expect_link_count().once().withf(|path| path == SELF_EXE).return_const(links);
        }
        may_join_mounts(&mut sys, marked)
    };
    let none = Err(Errno::EINVAL);
    assert_eq!(asked(Ok(Seals::CONTENT), false, None), Ok(true));
    assert_eq!(asked(none, false, None), Ok(false));
    assert_eq!(asked(none, true, Some(Ok(0))), Ok(true));
    assert_eq!(asked(none, true, Some(Ok(1))), Ok(false));
    assert_eq!(asked(Ok(Seals::SEAL), true, Some(Ok(0))), Ok(true));
    assert_eq!(asked(none, true, Some(Err(Errno::EACCES))), Err(Errno::EACCES));
    // A memfd without seals can be modified, marked or not.
    assert_eq!(asked(Ok(Seals(0)), true, None), Ok(false));
    let mut sys = MockSys::new();
    sys.expect_openat().return_const(Err(Errno::ENOENT));
    assert_eq!(may_join_mounts(&mut sys, true), Err(Errno::ENOENT));
}

#[test]
fn launcher_copy_receives_mark_and_process_name() {
    let mut sys = with_arguments(running(Err(Errno::EINVAL)), b"a\0b\0");
    sys = with_mask(sys);
    sys.expect_memfd_create().withf(|name, exec| name == LAUNCHER_NAME && *exec).return_const(Ok(COPY));
    sys.expect_sendfile().once().return_const(Ok(7_usize));
    sys.expect_sendfile().once().return_const(Ok(0_usize));
    sys.expect_add_seals().with(eq(COPY), eq(Seals::CONTENT)).return_const(Ok(()));
    sys.expect_get_seals().with(eq(COPY)).return_const(Ok(Seals::CONTENT));
    sys.expect_execveat()
        .once()
        .withf(|fd, argv, envp| {
            let strings = |args: &ExecArgs<'_>| args.strings().map(Vec::from).collect::<Vec<_>>();
            *fd == COPY
                && strings(argv) == [b"a", b"b"]
                && strings(envp) == [&b"A=1"[..], b"B=", b"_NSEXEC_SEALED_COPY=1a name"]
        })
        .return_const(Errno::ENOEXEC);
    assert_eq!(launch_with(&mut sys, own(false), 100), Err(os(CopyStep::Exec, Errno::ENOEXEC)));
}

#[test]
fn failed_launcher_copy_leaves_no_descriptor_open() {
    let closing = |sys: &mut MockSys, fds: &'static [Fd]| {
        for fd in fds {
            sys.expect_close().once().with(eq(*fd)).return_const(Ok(()));
        }
    };
    let unsealed = || {
        let mut sys = MockSys::new();
        sys.expect_openat().withf(|_, path, _| path == SELF_EXE).return_const(Ok(EXE));
        sys.expect_get_seals().with(eq(EXE)).return_const(Err(Errno::EINVAL));
        with_arguments(sys, b"a\0")
    };
    // Too little room: no file is created.
    let mut sys = unsealed();
    closing(&mut sys, &[CMDLINE, EXE]);
    assert_eq!(launch_with(&mut sys, own(false), 10), Err(TOO_LARGE));
    // The memfd cannot be sealed.
    let mut sys = with_mask(unsealed());
    sys.expect_memfd_create().return_const(Ok(COPY));
    sys.expect_sendfile().return_const(Ok(0_usize));
    sys.expect_add_seals().return_const(Err(Errno::EPERM));
    closing(&mut sys, &[CMDLINE, EXE, COPY]);
    assert_eq!(launch_with(&mut sys, own(false), 100), Err(os(CopyStep::Seal, Errno::EPERM)));
    let mut sys = unsealed();
    sys.expect_sigprocmask().once().return_const(Err(Errno::EINVAL));
    sys.expect_memfd_create().return_const(Ok(COPY));
    sys.expect_sendfile().return_const(Err(Errno::EFBIG));
    sys.expect_read().withf(|fd, _| *fd == EXE).return_const(Err(Errno::EIO));
    closing(&mut sys, &[CMDLINE, COPY, EXE]);
    assert_eq!(launch_with(&mut sys, own(false), 100), Err(os(CopyStep::Copy, Errno::EIO)));
    // The file cannot be examined.
    let mut sys = MockSys::new();
    sys.expect_openat().return_const(Ok(EXE));
    sys.expect_get_seals().return_const(Err(Errno::EINVAL));
    sys.expect_link_count().return_const(Err(Errno::EIO));
    closing(&mut sys, &[EXE]);
    assert_eq!(launch_with(&mut sys, own(true), 100), Err(os(CopyStep::Look, Errno::EIO)));
}

/// The kernel, the file system or another process may report anything: the number of copies is limited.
#[test]
fn third_copy_is_never_made() {
    let mut marks = vec![None];
    while let Some(next) = next_mark(*marks.last().unwrap()) {
        marks.push(Some(next.as_bytes()));
        assert!(marks.len() < 5);
    }
    assert_eq!(marks, [None, Some(&b"1"[..]), Some(b"2")]);
    let mut sys = running(Ok(Seals(0)));
    let own = OwnProgram { mark: Some(b"2"), ..own(true) };
    assert_eq!(ensure_with(&mut sys, own), refused("the sealed copy does not pass its own check"));
}
