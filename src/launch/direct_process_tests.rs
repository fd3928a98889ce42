//! Tests of the process of a direct start.

use std::format;
use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use super::tests::{INIT, INTERRUPT, LOG, STAGE_INIT, STAGE_LOG, Seen, TIMER, note};
use super::*;
use crate::deciders::bootstrap::Dialect;
use crate::deciders::idmap::IdMap;
use crate::deciders::policy::{Policy, Setgroups};
use crate::deciders::timens::TimeOffsets;
use crate::launch::pipes::Pipes;
use crate::launch::tail::Tail;
use crate::sys::MockSys;
use crate::sys::types::{FsType, MaskHow, Mount, Propagation, SignalSet, SysResult};

pub(super) fn policy() -> Policy {
    Policy::runc(&Dialect::V1_2).with_ends_with_launcher(true)
}

pub(super) fn with_job<T>(policy: &Policy, f: impl FnOnce(&Job<'_>) -> T) -> T {
    let tail = Tail {
        propagation: policy.launch.propagation,
        mount_proc: policy.launch.mount_proc,
        kill_child: policy.launch.kill_child,
        ..Tail::BARE
    };
    f(&Job { interrupt: Some(INTERRUPT), timer: Some(TIMER), tail, ..Job::bare(policy) })
}

pub(super) fn mapped() -> Bootstrap<'static> {
    let map = IdMap::parse(c"0 1000 1\n").unwrap();
    Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWNET)).with_uid_map(map).with_gid_map(map)
}

/// Replies of a kernel to the process. Each call is noted. `refused` names the call that fails.
fn process(
    policy: &Policy,
    asked: &Bootstrap<'_>,
    (go, refused): (&'static [u8], Option<(&'static str, Errno)>),
    change: impl FnOnce(&mut Job<'_>),
) -> (i32, Vec<String>, String) {
    let (seen, records) = (Seen::default(), Arc::new(Mutex::new(String::new())));
    let say = note(&seen);
    let call: Noted = Arc::new(move |text: String| {
        let failed = refused.filter(|(part, _)| text.contains(part));
        say(text);
        failed.map_or(Ok(()), |(_, errno)| Err(errno))
    });
    let mut sys = kernel(&call, go);
    let log = Arc::clone(&records);
    sys.expect_write_nowait().withf(|fd, _| *fd == STAGE_LOG).returning(move |_, bytes| {
        log.lock().unwrap().push_str(core::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    });
    let pipes = Pipes { init: INIT, stage_init: STAGE_INIT, log: LOG, stage_log: STAGE_LOG };
    let before = BeforeFork { pipes, tid: None, mask: SignalSet::EMPTY };
    let status = with_job(policy, |job| {
        let mut job = *job;
        change(&mut job);
        run(&mut sys, &job, asked, before)
    });
    let seen = core::mem::take(&mut *seen.lock().unwrap());
    let records = records.lock().unwrap().clone();
    (status, seen, records)
}

/// Notes a call of the process, and returns whether it succeeds.
type Noted = Arc<dyn Fn(String) -> SysResult<()> + Send + Sync>;

/// A kernel that passes each call of the process to `call`. The init pipe contains `go`.
fn kernel(call: &Noted, go: &'static [u8]) -> MockSys {
    let mut sys = MockSys::new();
    macro_rules! noted {
        ($($expect:ident($($arg:ident),*) $text:literal $(, $value:expr)?;)*) => { $({
            let call = Arc::clone(call);
            sys.$expect().returning(move |$($arg),*| call(format!($text $(, $value)?)));
        })* };
    }
    noted! {
        expect_set_pdeathsig(signal) "signal at death {}", signal.0;
        expect_close(fd) "close {}", fd.0;
        expect_close_range(_first, _last) "close all";
        expect_set_cloexec(fd, _on) "pass {}", fd.0;
        expect_setsid() "setsid";
        expect_setuid(uid) "setuid {}", uid;
        expect_setgid(gid) "setgid {}", gid;
        expect_drop_groups() "setgroups";
        expect_unshare(flags) "unshare {}", flags;
        expect_setns(_fd, kind) "setns {}", kind;
        expect_mount(mount) "mount {:?}", mount;
    }
    sys.expect_sigprocmask().returning(|how, _| {
        assert!(matches!(how, MaskHow::Block | MaskHow::Set));
        Ok(SignalSet::EMPTY)
    });
    sys.expect_getpid().returning(|| Pid(1));
    let noted = Arc::clone(call);
    sys.expect_read().withf(|fd, _| *fd == STAGE_INIT).returning(move |_, word| {
        noted("read go".into())?;
        word[..go.len()].copy_from_slice(go);
        Ok(go.len())
    });
    let noted = Arc::clone(call);
    sys.expect_poll().withf(|fds, wait| fds[0].fd == STAGE_INIT && *wait == 0).returning(move |_, _| {
        // A refused look is the death of the launcher here: the end of the init pipe is readable.
        Ok(usize::from(noted("look".into()).is_err()))
    });
    let noted = Arc::clone(call);
    sys.expect_openat()
        .returning(move |_, path, _| noted(format!("open {}", path.to_str().unwrap())).map(|()| Fd(30)));
    let noted = Arc::clone(call);
    sys.expect_openat2()
        .returning(move |_, path, _| noted(format!("open {}", path.to_str().unwrap())).map(|()| Fd(31)));
    sys.expect_fstatfs().returning(|fd| Ok(if fd == Fd(31) { FsType::PROC } else { FsType::NSFS }));
    let noted = Arc::clone(call);
    sys.expect_write().returning(move |_, bytes| {
        noted(format!("write {}", String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n'])))?;
        Ok(bytes.len())
    });
    let noted = Arc::clone(call);
    sys.expect_execve().returning(move |path, _, _| {
        let _ = noted(format!("exec {}", path.to_str().unwrap()));
        Errno::ENOENT
    });
    sys
}

/// The first calls of each process.
const BEGUN: [&str; 3] = ["signal at death 9", "close 3", "close 5"];

#[test]
fn process_takes_its_steps_in_order() {
    let flags =
        CloneFlags::NEWUSER.union(CloneFlags::NEWPID).union(CloneFlags::NEWNS).union(CloneFlags::NEWTIME);
    let offsets = TimeOffsets::parse(c"boottime 1 0\n").unwrap();
    let asked = Bootstrap::new(flags).with_timens_offsets(offsets).with_setgroup(true);
    let policy = policy().with_propagation(Some(Propagation::Private)).with_mount_proc(true);
    let (status, seen, records) = process(&policy, &asked, (&[GO], None), |_| {});
    assert_eq!(status, 127);
    let private = format!("mount {:?}", Mount::Propagation(Propagation::Private));
    let fresh = format!("mount {:?}", Mount::Proc);
    let want = [
        "read go",
        "setsid",
        // Opened with the ids of the caller, and written after the namespace exists.
        "open /proc",
        "open self/timens_offsets",
        "close 30",
        "setuid 0",
        "signal at death 9",
        "setgid 0",
        "signal at death 9",
        "setgroups",
        "unshare CLONE_NEWTIME|CLONE_NEWNS",
        "write boottime 1 0",
        "close 31",
        "open /proc/self/ns/time_for_children",
        "setns CLONE_NEWTIME",
        "close 30",
        &private,
        &fresh,
        "look",
        "signal at death 0",
        "exec /a",
    ];
    assert_eq!(seen, [&BEGUN[..], &want].concat());
    assert!(records.contains("nsexec-2[1]: failed to execute a: No such file or directory"), "{records}");
}

#[test]
fn process_leaves_out_what_is_not_asked() {
    let policy = policy().with_session(Session::Keep);
    let keep = policy.with_credentials(Credentials::Keep);
    let (_, seen, _) = process(&keep, &Bootstrap::new(CloneFlags::NEWNET), (&[GO], None), |_| {});
    assert_eq!(seen, [&BEGUN[..], &["read go", "look", "signal at death 0", "exec /a"]].concat());
    // Groups that the policy keeps are not dropped.
    let deny = policy.with_setgroups(Setgroups::Deny);
    let (_, seen, _) = process(&deny, &mapped().with_setgroup(true), (&[GO], None), |_| {});
    assert!(!seen.contains(&"setgroups".into()) && seen.contains(&"setuid 0".into()), "{seen:?}");
}

/// The launcher may have died while a change of ids had cleared the parent-death signal.
#[test]
fn process_looks_for_the_launcher_before_the_exec() {
    for kill_child in [false, true] {
        let policy = policy().with_kill_child(kill_child);
        let died = Some(("look", Errno::EPIPE));
        let (status, seen, records) = process(&policy, &mapped(), (&[GO], died), |_| {});
        assert_eq!((status, records.as_str()), (1, ""));
        assert_eq!(seen.last().map(String::as_str), Some("look"), "{seen:?}");
    }
}

/// With a user namespace the launcher writes the score: its root may not lower it.
#[test]
fn process_writes_its_own_oom_score_without_a_user_namespace() {
    let score = crate::deciders::bootstrap::attribute::OomScoreAdj::parse(c"5").unwrap();
    let plain = Bootstrap::new(CloneFlags::NEWUTS).with_oom_score_adj(score);
    let (_, seen, _) = process(&policy(), &plain, (&[GO], None), |_| {});
    let own =
        ["setsid", "open /proc", "open self/oom_score_adj", "close 30", "write 5", "close 31", "setuid 0"];
    assert_eq!(seen[4..11], own);
    let refused = Some(("open self/oom_score_adj", Errno::EACCES));
    let (_, _, records) = process(&policy(), &plain, (&[GO], refused), |_| {});
    assert!(records.contains("failed to update /proc/self/oom_score_adj: Permission denied"), "{records}");
    let (_, seen, _) = process(&policy(), &mapped().with_oom_score_adj(score), (&[GO], None), |_| {});
    assert!(!seen.contains(&"open self/oom_score_adj".into()), "{seen:?}");
}

/// The kernel refuses offsets of a time namespace that is in use. They are not left out silently.
#[test]
fn offsets_without_a_new_time_namespace_are_written_and_refused() {
    let offsets = TimeOffsets::parse(c"boottime 1 0\n").unwrap();
    let asked = Bootstrap::new(CloneFlags::NEWUTS).with_timens_offsets(offsets);
    let refused = Some(("write boottime", Errno::EACCES));
    let (status, seen, records) = process(&policy(), &asked, (&[GO], refused), |_| {});
    assert_eq!(status, 1);
    assert!(records.contains("failed to update /proc/self/timens_offsets: Permission denied"), "{records}");
    assert!(!seen.contains(&"exec /a".into()), "{seen:?}");
}

#[test]
fn process_without_the_go_byte_exits_silently() {
    for go in [&b""[..], b"x"] {
        let (status, seen, records) = process(&policy(), &mapped(), (go, None), |_| {});
        assert_eq!((status, records.as_str()), (1, ""));
        assert_eq!(seen, [&BEGUN[..], &["read go"]].concat());
    }
}

#[test]
fn process_reports_the_step_that_fails_and_stops() {
    let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWTIME);
    let offsets = TimeOffsets::parse(c"boottime 1 0\n").unwrap();
    let asked = Bootstrap::new(flags).with_timens_offsets(offsets);
    for (step, text) in [
        ("read go", "failed to wait for the launcher's go byte"),
        ("setsid", "setsid failed"),
        ("open self/timens_offsets", "failed to update /proc/self/timens_offsets"),
        ("setuid", "setuid failed"),
        ("setgid", "setgid failed"),
        ("unshare", "failed to unshare remaining namespaces"),
        ("write boottime", "failed to update /proc/self/timens_offsets"),
        ("time_for_children", "failed to enter the new time namespace"),
        ("setns", "failed to enter the new time namespace"),
        ("signal at death 0", "failed to clear the parent-death signal"),
    ] {
        let (status, seen, records) =
            process(&policy(), &asked, (&[GO], Some((step, Errno::EACCES))), |_| {});
        assert_eq!(status, 1, "{step}");
        assert!(records.contains(&format!("nsexec-2[1]: {text}: Permission denied\"")), "{step}: {records}");
        assert!(!seen.contains(&"exec /a".into()), "{step}: {seen:?}");
        // It waits for the go byte once.
        assert_eq!(seen.iter().filter(|call| *call == "read go").count(), 1, "{step}: {seen:?}");
    }
}

/// The launcher has not read the record yet. The process exits only after the go byte.
#[test]
fn error_of_the_descriptors_is_reported_before_the_go_byte_arrives() {
    const NAMED: &[Fd] = &[Fd(9)];
    let named = |job: &mut Job<'_>| (job.tail.descriptors, job.tail.kept) = (Some(NAMED), Some(NAMED));
    let refused = Some(("pass 9", Errno::EBADF));
    let (status, seen, records) = process(&policy(), &mapped(), (&[GO], refused), named);
    assert_eq!(status, 1);
    assert_eq!(seen, [&BEGUN[..], &["close all", "close all", "pass 9", "read go"]].concat());
    assert!(
        records.contains("nsexec-2[1]: failed to pass on descriptor 9: Bad file descriptor"),
        "{records}"
    );
    // Without a fault they are closed before the process waits.
    let (_, seen, _) = process(&policy(), &mapped(), (&[GO], None), named);
    assert_eq!(seen[3..7], ["close all", "close all", "pass 9", "read go"]);
}

#[test]
fn debug_level_shows_the_steps_of_the_process() {
    let debug = |job: &mut Job<'_>| job.level = Level::Debug;
    let (_, _, records) = process(&policy(), &mapped(), (&[GO], None), debug);
    let texts = ["~> nsexec stage-2", "unshare remaining namespaces", "failed to execute a: No such file"];
    assert_eq!(records.lines().count(), texts.len(), "{records}");
    for (line, text) in records.lines().zip(texts) {
        assert!(line.contains(&format!("nsexec-2[1]: {text}")), "{line}");
    }
}

/// Starts /bin/true on the real kernel, with all log records, and looks at the process's stack.
#[test]
fn process_uses_a_part_of_its_stack() {
    struct Nothing;

    impl crate::launch::pipes::LogReader for Nothing {
        fn take(&mut self, _: &[u8]) {}

        fn fatal(&self) -> bool {
            false
        }
    }

    let policy = policy().with_credentials(Credentials::Keep).with_session(Session::New);
    let mut memory = crate::launch::shared::StackMemory::new(crate::launch::shape::Memory::Shared).unwrap();
    memory.mark();
    with_job(&policy, |job| {
        let tail = Tail { candidates: b"/nowhere\0/bin/true\0", kill_child: true, ..job.tail };
        let (level, stack) = (Level::Debug, Some(memory.stack()));
        let job = Job { level, interrupt: None, timer: None, stack, tail, ..*job };
        // SAFETY: the launch closes, reads and writes its own descriptors, and waits for its own child.
        let mut sys = unsafe { crate::sys::linux::LinuxSys::new() };
        let launched = launch(&mut sys, &job, &Bootstrap::new(CloneFlags::EMPTY), &mut Nothing);
        let Some(Launched::Started { pid }) = launched else { panic!("{launched:?}") };
        let ended = sys.wait4(pid, crate::sys::types::WaitFor::Ordinary).unwrap();
        assert_eq!(ended.status, crate::sys::types::WaitStatus::Exited(0));
    });
    let used = memory.used();
    assert!((1000..64 << 10).contains(&used), "{used} bytes");
}
