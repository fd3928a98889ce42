//! Tests that parsing inverts the display of a line, and of the comparison with strace's output.

use std::collections::BTreeMap;
use std::string::ToString;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::record::Bytes;
use nsexec::sys::types::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes)
}

fn fd() -> impl Strategy<Value = Fd> {
    (0..2000).prop_map(Fd)
}

fn pid() -> impl Strategy<Value = Pid> {
    (1..i32::MAX).prop_map(Pid)
}

fn signal() -> impl Strategy<Value = Signal> {
    (1..=64).prop_map(Signal)
}

fn set() -> impl Strategy<Value = SignalSet> {
    prop_oneof![any::<u64>(), (0..64).prop_map(|bit| 1_u64 << bit)].prop_map(SignalSet)
}

fn tid() -> impl Strategy<Value = Option<TidAddress>> {
    proptest::option::of(any::<usize>().prop_map(|address| TidAddress { address, cached: 0 }))
}

fn action() -> impl Strategy<Value = SigAction> {
    let flags = prop_oneof![Just(0), Just(0x1400_0004), any::<u64>()];
    (any::<usize>(), flags, any::<usize>(), set()).prop_map(|(handler, flags, restorer, mask)| {
        // Without SA_RESTORER the trampoline is not shown.
        let restorer = if flags & 0x0400_0000 == 0 { 0 } else { restorer };
        SigAction { handler, flags, restorer, mask }
    })
}

fn poll_fd() -> impl Strategy<Value = PollFd> {
    (fd(), any::<i16>()).prop_map(|(fd, events)| PollFd::new(fd, PollEvents(events)))
}

fn open_flags() -> impl Strategy<Value = OpenFlags> {
    use OpenFlags::*;
    proptest::sample::select(std::vec![ReadWrite, ReadOnly, Namespace, Directory, List, Unnamed, New, Path])
}

/// Returns the flags that are used with openat2. The bootstrap creates no files with it.
fn open_flags_of_proc() -> impl Strategy<Value = OpenFlags> {
    use OpenFlags::*;
    proptest::sample::select(std::vec![ReadWrite, ReadOnly, Directory, List])
}

/// Returns any set of the namespaces that clone(2) creates.
fn clone_flags() -> impl Strategy<Value = CloneFlags> {
    any::<u32>().prop_map(|bits| CloneFlags(bits & 0x7e02_0000))
}

fn exit_signal() -> impl Strategy<Value = ExitSignal> {
    proptest::sample::select(std::vec![ExitSignal::Chld, ExitSignal::None])
}

fn wait_for() -> impl Strategy<Value = WaitFor> {
    proptest::sample::select(std::vec![
        WaitFor::Ordinary,
        WaitFor::OrdinaryNow,
        WaitFor::Stages,
        WaitFor::StagesNow
    ])
}

fn mount() -> impl Strategy<Value = Mount> {
    use Propagation::*;
    let kinds = [Private, Slave, Shared].map(Mount::Propagation);
    let others = [Mount::Proc, Mount::Sysfs { read_only: true }, Mount::Sysfs { read_only: false }];
    proptest::sample::select(kinds.into_iter().chain(others).collect::<Vec<_>>())
}

fn wait_status() -> impl Strategy<Value = WaitStatus> {
    prop_oneof![
        (0..256).prop_map(WaitStatus::Exited),
        signal().prop_map(WaitStatus::Signaled),
        (0..0x10000).prop_map(WaitStatus::Other)
    ]
}

fn received(came: Option<(u8, Option<Fd>, bool)>) -> Received {
    match came {
        Some((byte, fd, truncated)) => Received { byte: Some(byte), fd, truncated },
        None => Received { byte: None, fd: None, truncated: false },
    }
}

/// Returns a call, and a reply that it may have.
fn success() -> impl Strategy<Value = (Call, Reply)> {
    let count = |call: fn(Fd, Bytes) -> Call| {
        (fd(), bytes(), any::<u16>())
            .prop_map(move |(fd, data, count)| (call(fd, data), Reply::Count(count.into())))
    };
    let unit = |call: BoxedStrategy<Call>| call.prop_map(|call| (call, Reply::Unit)).boxed();
    let pair = |call: Call| (fd(), fd()).prop_map(move |(a, b)| (call.clone(), Reply::Pair(a, b))).boxed();
    let parts = std::vec![
        (prop_oneof![fd(), Just(Fd::CWD)], bytes(), open_flags(), fd())
            .prop_map(|(dir, path, flags, fd)| (Call::Openat { dir, path, flags }, Reply::Fd(fd)))
            .boxed(),
        (prop_oneof![fd(), Just(Fd::CWD)], bytes(), open_flags_of_proc(), fd())
            .prop_map(|(dir, path, flags, fd)| (Call::Openat2 { dir, path, flags }, Reply::Fd(fd)))
            .boxed(),
        unit(fd().prop_map(|fd| Call::Close { fd }).boxed()),
        (fd(), 0..5000_usize, bytes())
            .prop_map(|(fd, len, data)| (Call::Read { fd, len }, Reply::Data(data)))
            .boxed(),
        count(|fd, data| Call::Write { fd, data }).boxed(),
        count(|fd, data| Call::WriteNowait { fd, data }).boxed(),
        count(|fd, data| Call::Send { fd, data }).boxed(),
        (fd(), fd()).prop_map(|(socket, fd)| (Call::SendFd { socket, fd }, Reply::Count(1))).boxed(),
        (fd(), proptest::option::of((any::<u8>(), proptest::option::of(fd()), any::<bool>())))
            .prop_map(|(socket, came)| (Call::ReceiveFd { socket }, Reply::Received(received(came))))
            .boxed(),
        unit((fd(), fd()).prop_map(|(fd, number)| Call::Dup3 { fd, number }).boxed()),
        polls().boxed(),
        (fd(), prop_oneof![Just(FsType::NSFS), Just(FsType::PROC), (0..i64::MAX).prop_map(FsType)])
            .prop_map(|(fd, kind)| (Call::Fstatfs { fd }, Reply::FsType(kind)))
            .boxed(),
        (fd(), any::<i32>())
            .prop_map(|(fd, kind)| (Call::SocketType { fd }, Reply::SocketType(SocketType(kind))))
            .boxed(),
        (bytes(), any::<u64>())
            .prop_map(|(path, links)| (Call::LinkCount { path }, Reply::Links(links)))
            .boxed(),
        (bytes(), 0..5000_usize, bytes())
            .prop_map(|(path, len, data)| (Call::Readlink { path, len }, Reply::Data(data)))
            .boxed(),
        pair(Call::Socketpair),
        pair(Call::Pipe2),
        unit(fd().prop_map(|first| Call::CloseRangeCloexec { first }).boxed()),
        unit((any::<u32>(), any::<u32>()).prop_map(|(first, last)| Call::CloseRange { first, last }).boxed(),),
        (fd(), 0..5000_usize, 0..100_usize)
            .prop_map(|(fd, len, count)| {
                (Call::Getdents64 { fd, len }, Reply::Data(Bytes(std::vec![0; count])))
            })
            .boxed(),
        unit((fd(), any::<bool>()).prop_map(|(fd, on)| Call::SetCloexec { fd, on }).boxed()),
        (tid(), prop_oneof![pid().prop_map(Reply::Parent), Just(Reply::Child)])
            .prop_map(|(tid, reply)| (Call::CloneSibling { tid }, reply))
            .boxed(),
        (tid(), prop_oneof![pid().prop_map(Reply::Parent), Just(Reply::Child)])
            .prop_map(|(tid, reply)| (Call::CloneChild { tid }, reply))
            .boxed(),
        (exit_signal(), tid(), pid())
            .prop_map(|(exit, tid, pid)| (Call::Fork { exit, tid }, Reply::Parent(pid)))
            .boxed(),
        (clone_flags(), any::<bool>(), tid(), pid(), proptest::option::of(fd()))
            .prop_map(|(namespaces, shared, tid, pid, pidfd)| {
                (Call::CloneInit { namespaces, shared, tid }, Reply::ParentOfInit { pid, pidfd })
            })
            .boxed(),
        (clone_flags(), any::<bool>(), tid())
            .prop_map(|(namespaces, shared, tid)| (Call::CloneInit { namespaces, shared, tid }, Reply::Child))
            .boxed(),
        (bytes(), proptest::collection::vec(bytes(), 0..5), 0..4_usize)
            .prop_map(|(path, argv, count)| {
                (Call::Execve { path, argv, envp: std::vec![Bytes::default(); count] }, Reply::NoReturn)
            })
            .boxed(),
        (prop_oneof![pid(), Just(Pid::ANY)], wait_for(), pid(), wait_status())
            .prop_map(|(pid, which, waited, status)| {
                (Call::Wait4 { pid, which }, Reply::Waited(Waited { pid: waited, status }))
            })
            .boxed(),
        unit((pid(), signal()).prop_map(|(pid, signal)| Call::Kill { pid, signal }).boxed()),
        (pid(), fd()).prop_map(|(pid, fd)| (Call::PidfdOpen { pid }, Reply::Fd(fd))).boxed(),
        (fd(), fd(), fd())
            .prop_map(|(fd, least, made)| (Call::DupAbove { fd, least }, Reply::Fd(made)))
            .boxed(),
        pid().prop_map(|pid| (Call::Getpid, Reply::Pid(pid))).boxed(),
        pid().prop_map(|pid| (Call::Gettid, Reply::Pid(pid))).boxed(),
        any::<usize>()
            .prop_map(|address| (Call::TidAddress, Reply::TidAddress(TidAddress { address, cached: 0 })))
            .boxed(),
        unit(identity().boxed()),
        any::<u64>().prop_map(|cpus| (Call::SchedGetaffinity, Reply::Affinity(cpus))).boxed(),
        (any::<bool>(), set(), set())
            .prop_map(|(block, set, old)| {
                let how = if block { MaskHow::Block } else { MaskHow::Set };
                (Call::Sigprocmask { how, set }, Reply::Mask(old))
            })
            .boxed(),
        (signal(), action(), action())
            .prop_map(|(signal, action, old)| (Call::Sigaction { signal, action }, Reply::Action(old)))
            .boxed(),
        (set(), signal(), any::<bool>())
            .prop_map(|(set, signal, by_kernel)| {
                (Call::WaitSignal { set }, Reply::Sent(SentSignal { signal, by_kernel }))
            })
            .boxed(),
        (set(), signal())
            .prop_map(|(set, signal)| (Call::Sigtimedwait { set }, Reply::Signal(signal)))
            .boxed(),
    ];
    proptest::strategy::Union::new(parts.into_iter().chain(copies()).chain(trees()).chain(attributes()))
}

/// Returns the calls of a process that copies its own program.
fn copies() -> Vec<BoxedStrategy<(Call, Reply)>> {
    let seals = || (0..0x40_u32).prop_map(Seals);
    let unit = |call: BoxedStrategy<Call>| call.prop_map(|call| (call, Reply::Unit)).boxed();
    std::vec![
        (fd(), seals()).prop_map(|(fd, seals)| (Call::GetSeals { fd }, Reply::Seals(seals))).boxed(),
        unit((fd(), seals()).prop_map(|(fd, seals)| Call::AddSeals { fd, seals }).boxed()),
        (bytes(), any::<bool>(), fd())
            .prop_map(|(name, exec, fd)| (Call::MemfdCreate { name, exec }, Reply::Fd(fd)))
            .boxed(),
        (fd(), fd(), any::<usize>(), any::<usize>())
            .prop_map(|(to, from, len, count)| (Call::Sendfile { to, from, len }, Reply::Count(count)))
            .boxed(),
        unit((fd(), 0..0o10000_u32).prop_map(|(fd, mode)| Call::Fchmod { fd, mode }).boxed()),
        unit(bytes().prop_map(|path| Call::Unlink { path }).boxed()),
        (bytes(), any::<bool>())
            .prop_map(|(path, is)| (Call::IsReadOnly { path }, Reply::ReadOnly(is)))
            .boxed(),
        (fd(), proptest::collection::vec(bytes(), 0..5), 0..4_usize)
            .prop_map(|(fd, argv, count)| {
                (Call::Execveat { fd, argv, envp: std::vec![Bytes::default(); count] }, Reply::NoReturn)
            })
            .boxed(),
    ]
}

/// Returns the calls that set attributes.
fn attributes() -> Vec<BoxedStrategy<(Call, Reply)>> {
    let unit = |call: BoxedStrategy<Call>| call.prop_map(|call| (call, Reply::Unit)).boxed();
    let capability = || (0..70_u32).prop_map(Capability);
    let limit = (0..20_u32, any::<u64>(), any::<u64>()).prop_map(|(number, soft, hard)| Limit {
        resource: Resource(number),
        soft,
        hard,
    });
    let sets = (any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(effective, permitted, inheritable)| CapabilitySets { effective, permitted, inheritable });
    // strace shows the number of the instructions.
    let empty = BpfInstruction { code: 0, jt: 0, jf: 0, k: 0 };
    std::vec![
        (0..0o1000_u32, 0..0o1000_u32)
            .prop_map(|(mask, old)| (Call::Umask { mask }, Reply::Permissions(old)))
            .boxed(),
        unit(bytes().prop_map(|name| Call::SetHostname { name }).boxed()),
        unit(limit.prop_map(|limit| Call::SetLimit { limit }).boxed()),
        unit(any::<bool>().prop_map(|keep| Call::KeepCapabilities { keep }).boxed()),
        unit(capability().prop_map(|capability| Call::DropBounding { capability }).boxed()),
        unit(sets.prop_map(|sets| Call::SetCapabilities { sets }).boxed()),
        unit(capability().prop_map(|capability| Call::RaiseAmbient { capability }).boxed()),
        unit(Just(Call::SetNoNewPrivs).boxed()),
        unit(
            (0..20_usize)
                .prop_map(move |count| Call::SetSeccompFilter { program: std::vec![empty; count] })
                .boxed()
        ),
        unit(fd().prop_map(|ruleset| Call::LandlockRestrictSelf { ruleset }).boxed()),
        unit(fd().prop_map(|terminal| Call::SetControllingTerminal { terminal }).boxed()),
        unit(Just(Call::NewSessionKeyring).boxed()),
        fd().prop_map(|fd| (Call::InetSocket, Reply::Fd(fd))).boxed(),
        unit(fd().prop_map(|socket| Call::SetLoopbackUp { socket }).boxed()),
    ]
}

/// Returns the calls that change the tree of mounts.
fn trees() -> Vec<BoxedStrategy<(Call, Reply)>> {
    use MountKind::*;
    let kind = proptest::sample::select(std::vec![Tmpfs, Proc, Sysfs, Mqueue, Devpts, Overlay]);
    let unit = |call: BoxedStrategy<Call>| call.prop_map(|call| (call, Reply::Unit)).boxed();
    let dir = || prop_oneof![fd(), Just(Fd::CWD)];
    let attributes = (any::<u64>(), any::<u64>()).prop_map(|(set, clear)| MountAttributes { set, clear });
    std::vec![
        unit(fd().prop_map(|dir| Call::Fchdir { dir }).boxed()),
        (bytes(), any::<bool>(), fd())
            .prop_map(|(path, recursive, fd)| (Call::OpenTree { path, recursive }, Reply::Fd(fd)))
            .boxed(),
        unit((fd(), fd()).prop_map(|(mount, target)| Call::MoveMount { mount, target }).boxed()),
        unit(
            (fd(), any::<bool>(), attributes)
                .prop_map(|(mount, recursive, attributes)| {
                    Call::SetMountAttributes { mount, recursive, attributes }
                })
                .boxed()
        ),
        unit((kind, bytes()).prop_map(|(kind, options)| Call::MountHere { kind, options }).boxed()),
        (fd(), bytes(), open_flags(), fd())
            .prop_map(|(root, path, flags, fd)| (Call::OpenInRoot { root, path, flags }, Reply::Fd(fd)))
            .boxed(),
        unit(
            (dir(), bytes(), 0..0o10000_u32)
                .prop_map(|(dir, name, mode)| Call::Mkdirat { dir, name, mode })
                .boxed()
        ),
        unit(
            (bytes(), dir(), bytes())
                .prop_map(|(target, dir, name)| Call::Symlinkat { target, dir, name })
                .boxed()
        ),
        unit(
            proptest::sample::select(std::vec![Call::PivotRootHere, Call::DetachHere, Call::ChrootHere])
                .boxed()
        ),
    ]
}

fn polls() -> impl Strategy<Value = (Call, Reply)> {
    (proptest::collection::vec((poll_fd(), any::<bool>()), 0..4), any::<i32>()).prop_map(
        |(fds, timeout_ms)| {
            let asked: Vec<PollFd> = fds.iter().map(|(fd, _)| *fd).collect();
            let mut polled = asked.clone();
            for (slot, (_, ready)) in polled.iter_mut().zip(&fds) {
                slot.revents = PollEvents(i16::from(*ready));
            }
            // Only the position would distinguish two entries of the same descriptor.
            polled.dedup_by_key(|fd| fd.fd);
            let asked = asked.into_iter().take(polled.len()).collect::<Vec<_>>();
            let same = asked
                .iter()
                .zip(&polled)
                .all(|(one, other)| one.fd == other.fd && one.events == other.events);
            let (asked, polled) = if same { (asked, polled) } else { (Vec::new(), Vec::new()) };
            let count = polled.iter().filter(|fd| fd.revents != PollEvents(0)).count();
            (Call::Poll { fds: asked, timeout_ms }, Reply::Polled { count, fds: polled })
        },
    )
}

fn identity() -> impl Strategy<Value = Call> {
    let word = prop_oneof![any::<u32>(), Just(0x7e02_0080), Just(0)].prop_map(CloneFlags);
    prop_oneof![
        (fd(), word.clone()).prop_map(|(fd, kind)| Call::Setns { fd, kind }),
        word.prop_map(|flags| Call::Unshare { flags }),
        any::<bool>().prop_map(|dumpable| Call::SetDumpable { dumpable }),
        proptest::collection::vec(any::<u8>(), 0..16).prop_map(|name| Call::SetName { name: Bytes(name) }),
        signal().prop_map(|signal| Call::SetPdeathsig { signal }),
        (fd(), fd()).prop_map(|(fd, number)| Call::DupTo { fd, number }),
        proptest::collection::vec(any::<u32>(), 0..4).prop_map(|groups| Call::SetGroups { groups }),
        Just(Call::Setsid),
        any::<u32>().prop_map(|uid| Call::Setresuid { uid }),
        any::<u32>().prop_map(|uid| Call::Setuid { uid }),
        any::<u32>().prop_map(|gid| Call::Setgid { gid }),
        Just(Call::DropGroups),
        mount().prop_map(|mount| Call::Mount { mount }),
    ]
}

/// Returns copies of a line as JSON, each with one value changed, and the path of that value.
fn variations(value: &serde_json::Value) -> Vec<(String, serde_json::Value)> {
    use serde_json::Value;
    let inside = |key: String, inner: &Value, put: &dyn Fn(Value) -> Value| -> Vec<(String, Value)> {
        let all = variations(inner).into_iter();
        all.map(|(path, changed)| (std::format!("{key}.{path}"), put(changed))).collect()
    };
    match value {
        Value::Number(number) => {
            // Numbers that do not fit their field are skipped when the line is parsed.
            let other = number.as_i64().map_or(Value::from(1), |number| Value::from(number ^ 1));
            vec![(String::new(), other)]
        }
        Value::Bool(is) => vec![(String::new(), Value::from(!is))],
        Value::String(text) => vec![(String::new(), Value::from(std::format!("{text}!")))],
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(at, item)| {
                inside(at.to_string(), item, &|changed| {
                    let mut items = items.clone();
                    items[at] = changed;
                    Value::Array(items)
                })
            })
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| {
                inside(name.clone(), field, &|changed| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), changed);
                    Value::Object(fields)
                })
            })
            .collect(),
        Value::Null => vec![],
    }
}

fn one_line(origin: Origin, line: &Line) -> Run {
    let section = Section { lines: vec![line.clone()], ..Section::new(Role::Launcher) };
    Run { origin, sections: vec![section], ..Run::default() }
}

/// Returns whether a comparison of a record with its witness ignores this value: [`NOT_SHOWN`].
fn is_not_shown(line: &Line, path: &str) -> bool {
    match (&line.call, &line.reply) {
        (_, Reply::TidAddress(_))
        | (
            Call::Fork { .. } | Call::CloneSibling { .. } | Call::CloneChild { .. } | Call::CloneInit { .. },
            _,
        ) => path.ends_with("cached."),
        // The generated filters have empty instructions only.
        (Call::SetSeccompFilter { .. }, _) => path.contains("program"),
        (Call::SetName { name }, _) => path.contains("name") && name.0.len() >= 15,
        // Bytes after a NUL are padding; random data has NULs anywhere.
        (Call::Getdents64 { .. }, Reply::Data(_)) => path.contains("data"),
        (Call::Sigaction { .. }, _) => path.ends_with("restorer."),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A record and its witness that differ in one value of any call are different.
    #[test]
    fn every_value_of_every_call_is_compared((call, reply) in success()) {
        let line = Line { call, reply };
        let (record, text) = (one_line(Origin::Recorded, &line), serde_json::to_value(&line).unwrap());
        prop_assert!(crate::diff::compare(&record, &one_line(Origin::Witnessed, &line)).is_empty());
        for (path, changed) in variations(&text) {
            let Ok(other) = serde_json::from_value::<Line>(changed) else { continue };
            if other == line || is_not_shown(&line, &path) {
                continue;
            }
            let diff = crate::diff::compare(&record, &one_line(Origin::Witnessed, &other));
            prop_assert!(!diff.is_empty(), "{path}: {line:?} is taken for {other:?}");
        }
    }

    #[test]
    fn displayed_line_is_parsed_back((call, reply) in success(), errno in 1..200_i32, fails in any::<bool>()) {
        let reply = if fails { Reply::Errno(Errno(errno)) } else { reply };
        let line = Line { call, reply };
        let text = line.to_string();
        prop_assert_eq!(parse_line(&text), Some(line), "{}", text);
    }

    #[test]
    fn parse_line_never_panics(text in "[a-z_0-9]{0,10}\\(.{0,40}\\) = .{0,10}") {
        let _ = parse_line(&text);
    }
}

#[test]
fn foreign_calls_are_not_parsed() {
    for text in [
        "openat(AT_FDCWD, \"/etc/ld.so.cache\", O_RDONLY) = 3",
        "openat(AT_FDCWD, \"/tmp/x\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3",
        "socketpair(AF_UNIX, SOCK_STREAM, 0, [3, 4]) = 0",
        "clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD) = 7",
        "setgroups(1, NULL) = 0",
        "prctl(PR_SET_TIMERSLACK, 1) = 0",
        "read(3,  <unfinished ...>",
        "exit_group(0) = ?",
    ] {
        assert_eq!(parse_line(text), None, "{text}");
    }
}

/// Lines as strace 6.1 writes them, shortened.
#[test]
fn only_lines_of_the_allocator_are_left_out() {
    for (line, left_out) in [
        ("mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000", true),
        ("mprotect(0x7f0000000000, 4096, PROT_READ|PROT_WRITE) = 0", true),
        ("mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0) = 0x7f0000000000", false),
        ("mmap(NULL, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000", false),
        ("mprotect(0x7f0000000000, 4096, PROT_READ|PROT_EXEC) = 0", false),
        (r#"write(3, "\n{\"of\":[0],\"line\":{}}", 20) = 20"#, false),
        (r#"write(3, "a line", 6) = 6"#, false),
        ("uname({sysname=\"Linux\", ...}) = 0", false),
        // The process was killed in the call; then also with a line of another process in between.
        ("prctl(PR_SET_PDEATHSIG, SIGKILL <unfinished ...>) = ?", true),
        ("prctl(PR_SET_PDEATHSIG, SIGKILL) = ?", true),
        ("poll([{fd=5, events=POLLIN}], 1, -1) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)", false),
    ] {
        assert_eq!(is_left_out(line), left_out, "{line}");
    }
}

/// The page docs/comparison.md has the complete list, and no entry that the code does not have.
#[test]
fn comparison_page_lists_every_entry() {
    use crate::normalise::RENAMED;
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/comparison.md"));
    let row = |(what, how): &(&str, &str)| std::format!("| {what} | {how} |");
    for entry in RENAMED.iter().chain(NOT_SHOWN) {
        assert!(page.contains(&row(entry)), "{}", row(entry));
    }
    for (beginning, _) in LEFT_OUT {
        assert!(page.contains(&std::format!("`{beginning}`")), "{beginning}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.contains("| becomes |")).count();
    // The header of the table, and three rows of omitted lines.
    assert_eq!(rows, RENAMED.len() + NOT_SHOWN.len() + 4);
}

#[test]
fn a_run_begins_at_the_mark_and_follows_the_clones() {
    let launcher = "execve(\"/x\", [\"/x\"], 0x7ffd /* 9 vars */) = 0\nbrk(NULL) = 0x55\n\
        statx(AT_FDCWD, \"/nsexec-witness/begin\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7ff) = -1 ENOENT (No such file or directory)\n\
        pipe2([4, 5], O_CLOEXEC) = 0\n\
        clone(child_stack=NULL, flags=0) = 12\nbrk(0x5600) = 0x5600\n\
        uname({sysname=\"Linux\", ...}) = 0\n\
        wait4(12, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], __WNOTHREAD|__WCLONE, NULL) = 12\n\
        statx(AT_FDCWD, \"/nsexec-witness/end\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7ff) = -1 ENOENT (No such file or directory)\n\
        getpid() = 11\n+++ exited with 0 +++\n";
    let child = "close(4) = 0\n--- SIGCHLD {si_signo=SIGCHLD} ---\n\
        poll([{fd=5, events=POLLIN}], 1, -1) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)\n\
        restart_syscall(<... resuming interrupted poll ...>) = 1\n\
        execve(\"/bin/true\", [\"true\"], 0x7f /* 0 vars */) = 0\nbrk(NULL) = 0x1\nopenat(AT_FDCWD, \"/x\", O_RDONLY) = 3\n\
        exit_group(0) = ?\n+++ exited with 0 +++\n";
    let files = BTreeMap::from([(11, launcher.into()), (12, child.into()), (13, "getpid() = 13\n".into())]);
    let run = run_of(&files, Role::Launcher).unwrap();
    let shown: Vec<String> = run.sections[1].lines.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "clone(child_stack=NULL, flags=0) = 0",
            "close(4) = 0",
            "poll([{fd=5, events=POLLIN}], 1, -1) = 1 ([])",
            "execve(\"/bin/true\", [\"true\"], 0x… /* 0 vars */) = 0",
        ]
    );
    let [launcher, stage_0] = &run.sections[..] else { panic!("two processes") };
    assert_eq!((launcher.lines.len(), launcher.foreign.len()), (3, 1));
    assert_eq!((stage_0.role, stage_0.end), (Role::Stage(0), End::Exited(0)));
}

/// A run with two processes of one role can be compared, but is not written: `from_json_lines` would refuse
/// it.
#[test]
fn run_with_two_processes_of_one_role_is_not_written() {
    let mark = |name: &str| {
        format!(
            "statx(AT_FDCWD, \"/nsexec-witness/{name}\", 0, STATX_ALL, 0x7ff) = -1 ENOENT (No such file or directory)\n"
        )
    };
    let clone = |pid: i32| {
        format!(
            "clone(child_stack=NULL, flags=CLONE_PIDFD|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|CLONE_NEWUSER, parent_tid=[9], child_tidptr=0x7fef) = {pid}\n"
        )
    };
    let files = |clones: &[i32]| {
        let clones: String = clones.iter().copied().map(clone).collect();
        let launcher = mark("begin") + &clones + &mark("end");
        BTreeMap::from([(11, launcher), (12, "getpid() = 12\n".into()), (13, "getpid() = 13\n".into())])
    };
    let once = run_of(&files(&[12]), Role::Launcher).unwrap();
    assert_eq!(Run::from_json_lines(&once.to_json_lines().unwrap()).unwrap(), once);
    let twice = run_of(&files(&[12, 13]), Role::Launcher).unwrap();
    assert_eq!([twice.sections[1].role, twice.sections[2].role], [once.sections[1].role; 2]);
    let refused = twice.to_json_lines().unwrap_err().to_string();
    assert_eq!(
        refused,
        format!("the run cannot be written: two sections have the role {}", once.sections[1].role)
    );
    assert!(!crate::diff::compare(&once, &twice).is_empty());
}

#[test]
fn single_strace_file_is_split_by_process() {
    let text = "11 getpid() = 11\n11 read(3,  <unfinished ...>\n12 close(4) = 0\n\
        11 <... read resumed>\"ab\", 4) = 2\n12 +++ exited with 0 +++\n";
    let files = split_by_process(text);
    assert_eq!(files[&11], "getpid() = 11\nread(3, \"ab\", 4) = 2\n");
    assert_eq!(files[&12], "close(4) = 0\n+++ exited with 0 +++\n");
}

/// With `-v` strace shows the entries and the whole status.
#[test]
fn verbose_directory_entries_and_stat_are_parsed() {
    let text = r#"getdents64(3, [{d_ino=84670, d_off=1, d_reclen=24, d_type=DT_DIR, d_name="."}, {d_ino=84674, d_off=12, d_reclen=24, d_type=DT_LNK, d_name="3"}], 1024) = 48"#;
    let Some(Line { reply: Reply::Data(data), .. }) = parse_line(text) else { panic!("no entries") };
    assert_eq!((data.0.len(), &data.0[16..21], &data.0[43..45]), (48, &[24, 0, 4, b'.', 0][..], &b"3\0"[..]));
    assert_eq!(&data.0[..8], &84670_u64.to_ne_bytes());
    // Unknown kinds, and lengths that do not add up, are refused.
    assert_eq!(parse_line(&text.replace("DT_LNK", "DT_X")), None);
    assert_eq!(parse_line(&text.replace("= 48", "= 47")), None);
    let status =
        "newfstatat(AT_FDCWD, \"/proc/self/task\", {st_dev=makedev(0, 0x15), st_nlink=3, st_uid=0}, 0) = 0";
    assert_eq!(parse_line(status).map(|line| line.reply), Some(Reply::Links(3)));
    // Padding after a name is ignored.
    let call = Call::Getdents64 { fd: Fd(3), len: 1024 };
    let mut other = data.clone();
    other.0[21] = 7;
    let line = |data| Line { call: call.clone(), reply: Reply::Data(data) };
    let (record, seen) =
        (one_line(Origin::Recorded, &line(other.clone())), one_line(Origin::Witnessed, &line(data)));
    assert!(crate::diff::compare(&record, &seen).is_empty());
    other.0[43] = b'4';
    let record = one_line(Origin::Recorded, &line(other));
    assert!(!crate::diff::compare(&record, &seen).is_empty());
}

/// Strings of other calls may contain the paths of the marks and strace's own words.
#[test]
fn strings_of_other_calls_are_not_marks() {
    let text = "execve(\"/x\", [\"/nsexec-witness/begin\"], [\"A=/nsexec-witness/end\"]) = 0\n\
        statx(AT_FDCWD, \"/nsexec-witness/begin\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7ff) = -1 ENOENT (No such file or directory)\n\
        sendto(4, \"/nsexec-witness/end = ? ERESTART\", 32, MSG_NOSIGNAL, NULL, 0) = 32\n\
        write(3, \"/nsexec-witness/end\", 19) = 19\n\
        getpid() = 7\n\
        statx(AT_FDCWD, \"/nsexec-witness/end\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7ff) = -1 ENOENT (No such file or directory)\n\
        getpid() = 8\n";
    let run = run_of(&BTreeMap::from([(7, text.into())]), Role::Launcher).unwrap();
    let names: Vec<&str> = run.sections[0].lines.iter().map(|line| line.call.name()).collect();
    assert_eq!(names, ["sendto", "write", "getpid"]);
    assert_eq!(
        run_of(&BTreeMap::from([(7, text.lines().next().unwrap().into())]), Role::Launcher),
        Err(WitnessError::NoBegin)
    );
}

/// An undeclared exec is shown without its environment.
#[test]
fn undeclared_exec_is_shown_without_environment() {
    for (line, shown) in [
        (r#"execve("/x", NULL, ["A=s3cret"]) = 0"#, r#"execve("/x", NULL, …) = 0"#),
        (
            r#"execveat(3, "/x", ["x"], ["A=s3cret"], 0) = -1 EPERM (Operation not permitted)"#,
            r#"execveat(3, "/x", ["x"], …) = -1 EPERM (Operation not permitted)"#,
        ),
        (r#"execve("/x", ["s3cret""#, "execve(…"),
    ] {
        let text = std::format!(
            "statx(AT_FDCWD, \"/nsexec-witness/begin\", 0, 0, 0x7) = -1 ENOENT (No such file or directory)\n{line}\n"
        );
        let run = run_of(&BTreeMap::from([(7, text)]), Role::Launcher).unwrap();
        assert_eq!(run.sections[0].foreign.iter().map(|line| &line.text[..]).collect::<Vec<_>>(), [shown]);
    }
}

/// Lines of the command and of its children are dropped, even a child's line that comes before its parent's
/// clone.
#[test]
fn lines_after_the_exec_are_dropped() {
    let mark = |what| {
        std::format!(
            "statx(AT_FDCWD, \"/nsexec-witness/{what}\", 0, 0, 0x7) = -1 ENOENT (No such file or directory)"
        )
    };
    let text = [
        "9 execve(\"/nsexec\", [], []) = 0".into(),
        std::format!("9 {}", mark("begin")),
        "9 clone(child_stack=NULL, flags=SIGCHLD) = 10".into(),
        "10 getpid() = 10".into(),
        "10 execve(\"/bin/sh\", [\"sh\"], []) = 0".into(),
        "10 brk(NULL) = 0x1".into(),
        "10 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>".into(),
        "11 getpid() = 11".into(),
        "10 <... clone resumed>) = 11".into(),
        "11 getppid() = 10".into(),
        "10 vfork() = 12".into(),
        "12 getppid() = 10".into(),
        "12 +++ exited with 0 +++".into(),
        std::format!("9 {}", mark("end")),
        "9 getpid() = 9".into(),
    ]
    .join("\n");
    let files = split_by_process(&text);
    assert_eq!(files.keys().copied().collect::<Vec<_>>(), [9, 10]);
    assert_eq!(
        files[&10].lines().collect::<Vec<_>>(),
        ["getpid() = 10", "execve(\"/bin/sh\", [\"sh\"], []) = 0"]
    );
    assert_eq!(files[&9].lines().count(), 4);
}

/// Lines of an ordinary user's strace for a process that is not dumpable: addresses in place of strings.
#[test]
fn outline_compares_arguments_in_registers() {
    let line = |call, reply| Line { call, reply };
    let lines = vec![
        line(Call::Setns { fd: Fd(4), kind: CloneFlags::NEWNET }, Reply::Unit),
        line(Call::Write { fd: Fd(5), data: b"abc".as_slice().into() }, Reply::Count(3)),
        line(Call::Kill { pid: Pid(7), signal: Signal::KILL }, Reply::Errno(Errno::ESRCH)),
        line(Call::Setsid, Reply::Unit),
        line(
            Call::Poll { fds: vec![PollFd::new(Fd(5), PollEvents::IN)], timeout_ms: -1 },
            Reply::Polled { count: 1, fds: vec![PollFd::new(Fd(5), PollEvents::IN)] },
        ),
    ];
    let section = Section { lines, ..Section::new(Role::Launcher) };
    let said = outline::of_run(&Run { sections: vec![section], ..Run::default() });
    let seen = |from: &str, to: &str| {
        let text = "statx(AT_FDCWD, \"/nsexec-witness/begin\", 0, 0, 0x7) = -1 ENOENT (No such file or directory)\n\
            setns(4, CLONE_NEWNET) = 0\nwrite(5, 0x7f00, 3) = 3\n\
            kill(7, SIGKILL) = -1 ESRCH (No such process)\nsetsid() = 7\n\
            poll(0x7f00, 1, -1) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)\n\
            restart_syscall(<... resuming interrupted poll ...>) = 1\n";
        let files = BTreeMap::from([(7, text.replace(from, to))]);
        outline::compare(&said, &outline::of_files(&files, Role::Launcher).unwrap())
    };
    assert_eq!(seen("", ""), []);
    for (from, to) in [
        ("setns(4", "setns(5"),
        ("CLONE_NEWNET", "CLONE_NEWUTS"),
        ("write(5", "write(6"),
        ("0x7f00, 3) = 3", "0x7f00, 4) = 3"),
        ("0x7f00, 3) = 3", "0x7f00, 3) = 2"),
        ("kill(7", "kill(8"),
        ("SIGKILL", "SIGTERM"),
        ("ESRCH", "EPERM"),
        ("poll(0x7f00, 1", "poll(0x7f00, 2"),
        (") = 1\n", ") = 0\n"),
        ("setsid() = 7\n", ""),
        ("setsid() = 7\n", "setsid() = 7\nsetsid() = 7\n"),
    ] {
        assert_ne!(seen(from, to), [], "{from}");
    }
}

#[test]
fn ppoll_of_aarch64_is_parsed_as_poll() {
    let poll = parse_line("poll([{fd=5, events=POLLOUT}], 1, 200) = 0 (Timeout)");
    let ppoll = "ppoll([{fd=5, events=POLLOUT}], 1, {tv_sec=0, tv_nsec=200000000}, NULL, 0) = 0 (Timeout)";
    assert!(poll.is_some());
    assert_eq!(parse_line(ppoll), poll);
}
