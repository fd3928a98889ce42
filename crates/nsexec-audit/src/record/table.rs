//! The table of all calls: one row for each method of [`Sys`](nsexec::sys::Sys), which documents them.
//!
//! A row has this form:
//!
//! ```text
//! dup3 Dup3 { fd: Fd, number: Fd } -> Unit(number)
//!     = dup3(fd, number, "O_CLOEXEC");
//! ```
//!
//! - `dup3` is the method, and `Dup3` its variant of `Call`. In JSON the variant has the method's name.
//! - `{ fd: Fd, number: Fd }` are the arguments of the method, and the fields of the variant. Each has a
//!   keyword of [`argument`] or a type of `nsexec::sys::types`, which is copied.
//! - `-> Unit(number)` is the kind of the reply, a type of [`kind`](super::kind), whose documentation says
//!   what the argument in parentheses means.
//! - `= dup3(…)` is strace's form of the call: its name on x86_64 and its arguments, in strace's order.
//!   - `"O_CLOEXEC"` is text that every such call has. A line with other text is not this call.
//!   - `fd` is a field, in the form of its type.
//!   - `Dir(dir)` is one or more fields in another form, a type of `strace::forms`. It may show several of
//!     strace's arguments.
//!   - `reply` is the place of a value that the kernel writes into the caller's memory. Its form follows from
//!     the kind of the reply.
//!
//! `calls!(NAME)` passes all rows to the macro NAME. These macros are in `call`, `borrowed`, `recorder`,
//! `answer` and `strace`. Each form and each kind has its writer and its parser next to each other.

/// An argument, by its keyword in the table: its type in the method, in `CallRef` and in `Call`. `borrow`
/// converts the argument of the method for `CallRef`, `own` that of `CallRef` for `Call`, and `lend` that of
/// `Call` for `CallRef`.
macro_rules! argument {
    // A path or a name.
    (in method: Path) => { &CStr };
    (in borrowed: Path) => { Text<'a> };
    (in call: Path) => { Bytes };
    (borrow Path: $value:ident) => { Text($value.to_bytes()) };
    (own Path: $value:ident) => { $value.0.into() };
    (lend Path: $value:ident) => { Text(&$value.0) };
    // Bytes that the call sends.
    (in method: Data) => { &[u8] };
    (in borrowed: Data) => { Text<'a> };
    (in call: Data) => { Bytes };
    (borrow Data: $value:ident) => { Text($value) };
    (own Data: $value:ident) => { $value.0.into() };
    (lend Data: $value:ident) => { Text(&$value.0) };
    // A buffer that the call fills. `Call` has its size, and the reply has the bytes.
    (in method: Room) => { &mut [u8] };
    (in borrowed: Room) => { usize };
    (in call: Room) => { usize };
    (borrow Room: $value:ident) => { $value.len() };
    // The descriptors of a poll. `Call` has the requested events, and the reply has the result.
    (in method: PollFds) => { &mut [PollFd] };
    (in borrowed: PollFds) => { Requested<'a> };
    (in call: PollFds) => { Vec<PollFd> };
    (borrow PollFds: $value:ident) => { Requested($value) };
    (own PollFds: $value:ident) => { $value.iter().collect() };
    (lend PollFds: $value:ident) => { Requested($value) };
    // The arguments or the environment of an exec.
    (in method: Strings) => { &ExecArgs<'_> };
    (in borrowed: Strings) => { Strings<'a> };
    (in call: Strings) => { Vec<Bytes> };
    (borrow Strings: $value:ident) => { Strings::Exec(*$value) };
    (own Strings: $value:ident) => { $value.to_vec() };
    (lend Strings: $value:ident) => { Strings::Owned($value) };
    // The place of the cached thread id, for a clone.
    (in method: Tid) => { Option<TidAddress> };
    (in borrowed: Tid) => { Option<TidAddress> };
    (in call: Tid) => { Option<TidAddress> };
    // The start of a process that shares the memory. `Call` has only whether it does.
    (in method: Shared) => { Option<SharedStart> };
    (in borrowed: Shared) => { bool };
    (in call: Shared) => { bool };
    (borrow Shared: $value:ident) => { $value.is_some() };
    // Ids.
    (in method: Ids) => { &[u32] };
    (in borrowed: Ids) => { &'a [u32] };
    (in call: Ids) => { Vec<u32> };
    (own Ids: $value:ident) => { $value.into() };
    (lend Ids: $value:ident) => { $value };
    // The instructions of a filter.
    (in method: Program) => { &[BpfInstruction] };
    (in borrowed: Program) => { &'a [BpfInstruction] };
    (in call: Program) => { Vec<BpfInstruction> };
    (own Program: $value:ident) => { $value.into() };
    (lend Program: $value:ident) => { $value };
    // Code of the caller. `Call` has only its number.
    (in method: Hook) => { Hook<'_> };
    (in borrowed: Hook) => { u32 };
    (in call: Hook) => { u32 };
    (borrow Hook: $value:ident) => { $value.number };
    // The first descriptor of a range. The call is not about the file behind it.
    (in method: FirstFd) => { Fd };
    (in borrowed: FirstFd) => { Fd };
    (in call: FirstFd) => { Fd };
    // Any other name is a type, and the value is copied.
    (in method: $type:ident) => { $type };
    (in borrowed: $type:ident) => { $type };
    (in call: $type:ident) => { $type };
    (borrow $type:ident: $value:ident) => { $value };
    (own $type:ident: $value:ident) => { $value };
    (lend $type:ident: $value:ident) => { *$value };
}

/// Passes the rows to the macro with the given name, after other arguments for it.
macro_rules! calls {
    ($then:ident $(, $($first:tt)*)?) => { $then! {
        $($($first)*)?
        // -- descriptors -----------------------------------------------------------------------------------

        openat Openat { dir: Fd, path: Path, flags: OpenFlags } -> Fd
            = openat(Dir(dir), path, flags);
        openat2 Openat2 { dir: Fd, path: Path, flags: OpenFlags } -> Fd
            = openat2(Dir(dir), path, How(flags), "24");
        close Close { fd: Fd } -> Unit
            = close(fd);
        read Read { fd: Fd, len: Room } -> Data(len)
            = read(fd, reply, len);
        write Write { fd: Fd, data: Data } -> Count(data)
            = write(fd, WithLength(data));
        write_nowait WriteNowait { fd: Fd, data: Data } -> Count(data)
            = pwritev2(fd, Vector(data), "1", "-1", "RWF_NOWAIT");
        send Send { fd: Fd, data: Data } -> Count(data)
            = sendto(fd, WithLength(data), "MSG_NOSIGNAL", "NULL", "0");
        send_fd SendFd { socket: Fd, fd: Fd } -> OneByte
            = sendmsg(socket, Rights(fd), "MSG_NOSIGNAL");
        receive_fd ReceiveFd { socket: Fd } -> Received
            = recvmsg(socket, reply, "MSG_CMSG_CLOEXEC");
        dup3 Dup3 { fd: Fd, number: Fd } -> Unit(number)
            = dup3(fd, number, "O_CLOEXEC");
        poll Poll { fds: PollFds, timeout_ms: i32 } -> Polled(fds)
            = poll(Events(fds), timeout_ms);
        fstatfs Fstatfs { fd: Fd } -> FsType
            = fstatfs(fd, reply);
        socket_type SocketType { fd: Fd } -> SocketType
            = getsockopt(fd, "SOL_SOCKET", "SO_TYPE", reply, "[4]");
        link_count LinkCount { path: Path } -> Links
            = newfstatat("AT_FDCWD", path, reply, "0");
        readlink Readlink { path: Path, len: Room } -> Data(len)
            = readlinkat("AT_FDCWD", path, reply, len);
        socketpair Socketpair -> Pair
            = socketpair("AF_UNIX", "SOCK_STREAM|SOCK_CLOEXEC", "0", reply);
        pipe2 Pipe2 -> Pair
            = pipe2(reply, "O_CLOEXEC");
        close_range_cloexec CloseRangeCloexec { first: FirstFd } -> Unit
            = close_range(first, "4294967295", "CLOSE_RANGE_CLOEXEC");
        close_range CloseRange { first: u32, last: u32 } -> Unit
            = close_range(Number(first), Number(last), "0");
        getdents64 Getdents64 { fd: Fd, len: Room } -> Entries(len)
            = getdents64(fd, reply, len);
        set_cloexec SetCloexec {
            fd: Fd,
            // Absent in records of version 0.1, where the flag was always set.
            #[serde(default = "set")]
            on: bool
        } -> Unit
            = fcntl(fd, "F_SETFD", Cloexec(on));
        dup_to DupTo { fd: Fd, number: Fd } -> Unit(number)
            = dup3(fd, number, "0");
        dup_above DupAbove { fd: Fd, least: FirstFd } -> Fd
            = fcntl(fd, "F_DUPFD_CLOEXEC", least);

        // -- the sealed copy of our own program ------------------------------------------------------------

        get_seals GetSeals { fd: Fd } -> Seals
            = fcntl(fd, "F_GET_SEALS");
        add_seals AddSeals { fd: Fd, seals: Seals } -> Unit
            = fcntl(fd, "F_ADD_SEALS", seals);
        memfd_create MemfdCreate { name: Path, exec: bool } -> Fd
            = memfd_create(name, Executable(exec));
        sendfile Sendfile { to: Fd, from: Fd, len: usize } -> Count(len)
            = sendfile(to, from, "NULL", len);
        fchmod Fchmod { fd: Fd, mode: u32 } -> Unit
            = fchmod(fd, Octal(mode));
        unlink Unlink { path: Path } -> Unit
            = unlinkat("AT_FDCWD", path, "0");
        is_read_only IsReadOnly { path: Path } -> ReadOnly
            = statfs(path, reply);
        execveat Execveat { fd: Fd, argv: Strings, envp: Strings } -> Exec
            = execveat(fd, "\"\"", argv, Environment(envp), "AT_EMPTY_PATH");

        // -- processes -------------------------------------------------------------------------------------

        clone_sibling CloneSibling { tid: Tid } -> Forked
            = clone("child_stack=NULL", Sibling(tid));
        fork Fork { exit: ExitSignal, tid: Tid } -> Forked
            = clone("child_stack=NULL", Child(exit, tid));
        clone_child CloneChild { tid: Tid } -> Forked
            = clone("child_stack=NULL", "flags=CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID",
                reply, ChildTid(tid));
        clone_init CloneInit {
            namespaces: CloneFlags,
            // Absent in older records, where the memory was always copied.
            #[serde(default)]
            shared: Shared,
            tid: Tid
        } -> InitFork
            = clone(StackAndFlags(shared, namespaces), reply, ChildTid(tid));
        execve Execve { path: Path, argv: Strings, envp: Strings } -> Exec
            = execve(path, argv, Environment(envp));
        wait4 Wait4 { pid: Pid, which: WaitFor } -> Waited
            = wait4(pid, reply, which, "NULL");
        kill Kill { pid: Pid, signal: Signal } -> Unit
            = kill(pid, signal);
        pidfd_open PidfdOpen { pid: Pid } -> Fd
            = pidfd_open(pid, "0");
        getpid Getpid -> Pid
            = getpid();
        gettid Gettid -> Pid
            = gettid();
        tid_address TidAddress -> TidAddress
            = prctl("PR_GET_TID_ADDRESS", reply);

        // -- attributes of a process -----------------------------------------------------------------------

        setns Setns { fd: Fd, kind: CloneFlags } -> Unit
            = setns(fd, Joined(kind));
        unshare Unshare { flags: CloneFlags } -> Unit
            = unshare(Unshared(flags));
        set_dumpable SetDumpable { dumpable: bool } -> Unit
            = prctl("PR_SET_DUMPABLE", Dumpable(dumpable));
        set_name SetName { name: Path } -> Unit
            = prctl("PR_SET_NAME", ProcessName(name));
        set_pdeathsig SetPdeathsig { signal: Signal } -> Unit
            = prctl("PR_SET_PDEATHSIG", signal);
        setsid Setsid -> Unrecorded
            = setsid();
        setresuid Setresuid { uid: u32 } -> Unit
            = setresuid(ThreeIds(uid));
        setuid Setuid { uid: u32 } -> Unit
            = setuid(Id(uid));
        setgid Setgid { gid: u32 } -> Unit
            = setgid(Id(gid));
        drop_groups DropGroups -> Unit
            = setgroups("0", "NULL");
        sched_getaffinity SchedGetaffinity -> Affinity
            = sched_getaffinity("0", "128", reply);
        mount Mount { mount: Mount } -> Unit
            = mount(mount);

        // -- the surroundings of the command ---------------------------------------------------------------

        chdir Chdir { path: Path } -> Unit
            = chdir(path);
        set_groups SetGroups { groups: Ids } -> Unit
            = setgroups(Groups(groups));
        run_hook RunHook { hook: Hook } -> Unit
            = pre_exec(Number(hook));

        // -- the attributes of the command -----------------------------------------------------------------

        umask Umask { mask: u32 } -> Permissions
            = umask(Octal(mask));
        set_hostname SetHostname { name: Data } -> Unit
            = sethostname(WithLength(name));
        set_limit SetLimit { limit: Limit } -> Unit
            = prlimit64("0", limit, "NULL");
        keep_capabilities KeepCapabilities { keep: bool } -> Unit
            = prctl("PR_SET_KEEPCAPS", Keep(keep));
        drop_bounding DropBounding { capability: Capability } -> Unit
            = prctl("PR_CAPBSET_DROP", capability);
        set_capabilities SetCapabilities { sets: CapabilitySets } -> Unit
            = capset("{version=_LINUX_CAPABILITY_VERSION_3, pid=0}", sets);
        raise_ambient RaiseAmbient { capability: Capability } -> Unit
            = prctl("PR_CAP_AMBIENT", "PR_CAP_AMBIENT_RAISE", capability, "0", "0");
        set_no_new_privs SetNoNewPrivs -> Unit
            = prctl("PR_SET_NO_NEW_PRIVS", "1", "0", "0", "0");
        set_seccomp_filter SetSeccompFilter { program: Program } -> Unit
            = seccomp("SECCOMP_SET_MODE_FILTER", "0", program);
        landlock_restrict_self LandlockRestrictSelf { ruleset: Fd } -> Unit
            = landlock_restrict_self(ruleset, "0");
        set_controlling_terminal SetControllingTerminal { terminal: Fd } -> Unit
            = ioctl(terminal, "TIOCSCTTY", "0");
        new_session_keyring NewSessionKeyring -> Unrecorded
            = keyctl("KEYCTL_JOIN_SESSION_KEYRING", "NULL");
        inet_socket InetSocket -> Fd
            = socket("AF_INET", "SOCK_DGRAM|SOCK_CLOEXEC", "IPPROTO_IP");
        set_loopback_up SetLoopbackUp { socket: Fd } -> Unit
            = ioctl(socket, "SIOCSIFFLAGS", "{ifr_name=\"lo\", ifr_flags=IFF_UP|IFF_RUNNING}");

        // -- the root file system of the command -----------------------------------------------------------

        fchdir Fchdir { dir: Fd } -> Unit
            = fchdir(dir);
        open_tree OpenTree { path: Path, recursive: bool } -> Fd
            = open_tree("AT_FDCWD", path, Copied(recursive));
        move_mount MoveMount { mount: Fd, target: Fd } -> Unit
            = move_mount(mount, "\"\"", target, "\"\"", "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH");
        set_mount_attributes SetMountAttributes {
            mount: Fd,
            recursive: bool,
            attributes: MountAttributes
        } -> Unit
            = mount_setattr(mount, "\"\"", Changed(recursive), attributes, "32");
        mount_here MountHere { kind: MountKind, options: Path } -> Unit
            = mount(kind, options);
        open_in_root OpenInRoot { root: Fd, path: Path, flags: OpenFlags } -> Fd
            = openat2(root, path, HowInRoot(flags), "24");
        mkdirat Mkdirat { dir: Fd, name: Path, mode: u32 } -> Unit
            = mkdirat(Dir(dir), name, Octal(mode));
        symlinkat Symlinkat { target: Path, dir: Fd, name: Path } -> Unit
            = symlinkat(target, Dir(dir), name);
        pivot_root_here PivotRootHere -> Unit
            = pivot_root("\".\"", "\".\"");
        detach_here DetachHere -> Unit
            = umount2("\".\"", "MNT_DETACH");
        chroot_here ChrootHere -> Unit
            = chroot("\".\"");

        // -- signals ---------------------------------------------------------------------------------------

        sigprocmask Sigprocmask { how: MaskHow, set: SignalSet } -> Mask
            = rt_sigprocmask(how, set, reply, "8");
        sigaction Sigaction { signal: Signal, action: SigAction } -> Action
            = rt_sigaction(signal, action, reply, "8");
        wait_signal WaitSignal { set: SignalSet } -> Sent
            = rt_sigtimedwait(set, reply, "NULL", "8");
        sigtimedwait Sigtimedwait { set: SignalSet } -> Signal
            = rt_sigtimedwait(set, "NULL", "{tv_sec=0, tv_nsec=0}", "8");
    } };
}

pub(super) use {argument, calls};
