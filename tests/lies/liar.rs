//! A backend with one fault in one kind of call.

use std::ffi::CString;

use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec_audit::record::{Answer, Bytes, Call, Reply};

use crate::planted::Lie;

/// The real kernel, but for the calls that the lie affects.
pub(crate) struct FaultyBackend {
    sys: LinuxSys,
    lie: Lie,
}

impl FaultyBackend {
    pub(crate) const fn new(sys: LinuxSys, lie: Lie) -> Self {
        Self { sys, lie }
    }
}

impl Answer for FaultyBackend {
    fn answer(&mut self, call: Call) -> Reply {
        match self.lie {
            Lie::None => perform(&mut self.sys, &call),
            Lie::ChangesCall(other) => {
                let mut asked = call;
                other(&mut asked);
                perform(&mut self.sys, &asked)
            }
            Lie::ChangesReply(other) => {
                let mut reply = perform(&mut self.sys, &call);
                other(&call, &mut reply);
                reply
            }
            Lie::ReplacesCall(other) => {
                other(&mut self.sys, &call).unwrap_or_else(|| perform(&mut self.sys, &call))
            }
            Lie::SkipsCall(which) => which(&call).unwrap_or_else(|| perform(&mut self.sys, &call)),
            Lie::AddsCall(which, more) => {
                let reply = perform(&mut self.sys, &call);
                if which(&call) {
                    more(&mut self.sys);
                }
                reply
            }
        }
    }
}

fn reply<T>(result: SysResult<T>, good: impl FnOnce(T) -> Reply) -> Reply {
    result.map_or_else(Reply::Errno, good)
}

fn unit(result: SysResult<()>) -> Reply {
    reply(result, |()| Reply::Unit)
}

fn data(len: usize, call: impl FnOnce(&mut [u8]) -> SysResult<usize>) -> Reply {
    // Not zeroed: the buffers of real callers need not be either.
    let mut buffer = vec![0xff; len];
    reply(call(&mut buffer), |count| Reply::Data(buffer[..count].into()))
}

fn pair(result: SysResult<(Fd, Fd)>) -> Reply {
    reply(result, |(one, other)| Reply::Pair(one, other))
}

fn forked(result: SysResult<Fork>) -> Reply {
    reply(result, |fork| match fork {
        Fork::Parent { child } => Reply::Parent(child),
        Fork::Child => Reply::Child,
    })
}

fn init_forked(result: SysResult<InitFork>) -> Reply {
    reply(result, |fork| match fork {
        InitFork::Parent { child, pidfd } => Reply::ParentOfInit { pid: child, pidfd },
        InitFork::Child => Reply::Child,
    })
}

fn path(bytes: &Bytes) -> CString {
    CString::new(bytes.0.clone()).expect("no NUL")
}

/// Calls `exec` with these strings.
fn with_strings(
    argv: &[Bytes],
    envp: &[Bytes],
    exec: impl FnOnce(&ExecArgs<'_>, &ExecArgs<'_>) -> Errno,
) -> Reply {
    let text = |strings: &[Bytes]| -> Vec<u8> {
        strings.iter().flat_map(|string| string.0.iter().copied().chain([0])).collect()
    };
    let (argv_text, envp_text) = (text(argv), text(envp));
    let (mut argv_slots, mut envp_slots) = (vec![None; argv.len() + 1], vec![None; envp.len() + 1]);
    let argv = ExecArgs::build(&argv_text, &mut argv_slots).expect("arguments");
    let envp = ExecArgs::build(&envp_text, &mut envp_slots).expect("an environment");
    Reply::Errno(exec(&argv, &envp))
}

/// Makes a call that is given as data.
fn perform(sys: &mut LinuxSys, call: &Call) -> Reply {
    match call {
        Call::Openat { dir, path: file, flags } => reply(sys.openat(*dir, &path(file), *flags), Reply::Fd),
        Call::Openat2 { dir, path: file, flags } => reply(sys.openat2(*dir, &path(file), *flags), Reply::Fd),
        Call::Close { fd } => unit(sys.close(*fd)),
        Call::Read { fd, len } => data(*len, |buffer| sys.read(*fd, buffer)),
        Call::Write { fd, data } => reply(sys.write(*fd, &data.0), Reply::Count),
        Call::WriteNowait { fd, data } => reply(sys.write_nowait(*fd, &data.0), Reply::Count),
        Call::Send { fd, data } => reply(sys.send(*fd, &data.0), Reply::Count),
        Call::SendFd { socket, fd } => reply(sys.send_fd(*socket, *fd), Reply::Count),
        Call::ReceiveFd { socket } => reply(sys.receive_fd(*socket), Reply::Received),
        Call::Dup3 { fd, number } => unit(sys.dup3(*fd, *number)),
        Call::Poll { fds, timeout_ms } => {
            let mut fds = fds.clone();
            reply(sys.poll(&mut fds, *timeout_ms), |count| Reply::Polled { count, fds })
        }
        Call::SocketType { fd } => reply(sys.socket_type(*fd), Reply::SocketType),
        Call::Fstatfs { fd } => reply(sys.fstatfs(*fd), Reply::FsType),
        Call::LinkCount { path: file } => reply(sys.link_count(&path(file)), Reply::Links),
        Call::Readlink { path: file, len } => data(*len, |buffer| sys.readlink(&path(file), buffer)),
        Call::Socketpair => pair(sys.socketpair()),
        Call::Pipe2 => pair(sys.pipe2()),
        Call::CloseRangeCloexec { first } => unit(sys.close_range_cloexec(*first)),
        Call::Getdents64 { fd, len } => data(*len, |buffer| sys.getdents64(*fd, buffer)),
        Call::CloseRange { first, last } => unit(sys.close_range(*first, *last)),
        Call::SetCloexec { fd, on } => unit(sys.set_cloexec(*fd, *on)),
        Call::GetSeals { fd } => reply(sys.get_seals(*fd), Reply::Seals),
        Call::AddSeals { fd, seals } => unit(sys.add_seals(*fd, *seals)),
        Call::MemfdCreate { name, exec } => reply(sys.memfd_create(&path(name), *exec), Reply::Fd),
        Call::Sendfile { to, from, len } => reply(sys.sendfile(*to, *from, *len), Reply::Count),
        Call::Fchmod { fd, mode } => unit(sys.fchmod(*fd, *mode)),
        Call::Unlink { path: file } => unit(sys.unlink(&path(file))),
        Call::IsReadOnly { path: file } => reply(sys.is_read_only(&path(file)), Reply::ReadOnly),
        Call::Execveat { fd, argv, envp } => {
            with_strings(argv, envp, |argv, envp| sys.execveat(*fd, argv, envp))
        }
        Call::Execve { path: file, argv, envp } => {
            with_strings(argv, envp, |argv, envp| sys.execve(&path(file), argv, envp))
        }
        _ => perform_on_processes(sys, call),
    }
}

fn perform_on_processes(sys: &mut LinuxSys, call: &Call) -> Reply {
    match call {
        Call::CloneSibling { tid } => forked(sys.clone_sibling(*tid)),
        Call::Fork { exit, tid } => forked(sys.fork(*exit, *tid)),
        Call::CloneChild { tid } => forked(sys.clone_child(*tid)),
        // A liar's process has a copy of the memory, as that of every wrapped backend.
        Call::CloneInit { namespaces, tid, .. } => init_forked(sys.clone_init(*namespaces, None, *tid)),
        Call::Wait4 { pid, which } => reply(sys.wait4(*pid, *which), Reply::Waited),
        Call::Kill { pid, signal } => unit(sys.kill(*pid, *signal)),
        Call::PidfdOpen { pid } => reply(sys.pidfd_open(*pid), Reply::Fd),
        Call::Getpid => Reply::Pid(sys.getpid()),
        Call::Gettid => Reply::Pid(sys.gettid()),
        Call::TidAddress => reply(sys.tid_address(), Reply::TidAddress),
        Call::Setns { fd, kind } => unit(sys.setns(*fd, *kind)),
        Call::Unshare { flags } => unit(sys.unshare(*flags)),
        Call::SetDumpable { dumpable } => unit(sys.set_dumpable(*dumpable)),
        Call::SetName { name } => unit(sys.set_name(&path(name))),
        Call::SetPdeathsig { signal } => unit(sys.set_pdeathsig(*signal)),
        Call::Setsid => unit(sys.setsid()),
        Call::Setresuid { uid } => unit(sys.setresuid(*uid)),
        Call::Setuid { uid } => unit(sys.setuid(*uid)),
        Call::Setgid { gid } => unit(sys.setgid(*gid)),
        Call::DropGroups => unit(sys.drop_groups()),
        Call::SetGroups { groups } => unit(sys.set_groups(groups)),
        Call::DupTo { fd, number } => unit(sys.dup_to(*fd, *number)),
        Call::DupAbove { fd, least } => reply(sys.dup_above(*fd, *least), Reply::Fd),
        Call::Chdir { path: directory } => unit(sys.chdir(&path(directory))),
        Call::RunHook { hook } => unit(sys.run_hook(Hook { number: *hook, code: &|| Ok(()) })),
        Call::SchedGetaffinity => reply(sys.sched_getaffinity(), Reply::Affinity),
        Call::Mount { mount } => unit(sys.mount(*mount)),
        Call::Sigprocmask { how, set } => reply(sys.sigprocmask(*how, *set), Reply::Mask),
        Call::Sigaction { signal, action } => reply(sys.sigaction(*signal, *action), Reply::Action),
        Call::WaitSignal { set } => reply(sys.wait_signal(*set), Reply::Sent),
        Call::Sigtimedwait { set } => reply(sys.sigtimedwait(*set), Reply::Signal),
        _ => perform_on_attributes(sys, call),
    }
}

fn perform_on_attributes(sys: &mut LinuxSys, call: &Call) -> Reply {
    match call {
        Call::Umask { mask } => reply(sys.umask(*mask), Reply::Permissions),
        Call::SetHostname { name } => unit(sys.set_hostname(&name.0)),
        Call::SetLimit { limit } => unit(sys.set_limit(*limit)),
        Call::KeepCapabilities { keep } => unit(sys.keep_capabilities(*keep)),
        Call::DropBounding { capability } => unit(sys.drop_bounding(*capability)),
        Call::SetCapabilities { sets } => unit(sys.set_capabilities(*sets)),
        Call::RaiseAmbient { capability } => unit(sys.raise_ambient(*capability)),
        Call::SetNoNewPrivs => unit(sys.set_no_new_privs()),
        Call::SetSeccompFilter { program } => unit(sys.set_seccomp_filter(program)),
        Call::LandlockRestrictSelf { ruleset } => unit(sys.landlock_restrict_self(*ruleset)),
        Call::SetControllingTerminal { terminal } => unit(sys.set_controlling_terminal(*terminal)),
        Call::NewSessionKeyring => unit(sys.new_session_keyring()),
        Call::InetSocket => reply(sys.inet_socket(), Reply::Fd),
        Call::SetLoopbackUp { socket } => unit(sys.set_loopback_up(*socket)),
        _ => perform_on_the_tree(sys, call),
    }
}

fn perform_on_the_tree(sys: &mut LinuxSys, call: &Call) -> Reply {
    match call {
        Call::Fchdir { dir } => unit(sys.fchdir(*dir)),
        Call::OpenTree { path: file, recursive } => reply(sys.open_tree(&path(file), *recursive), Reply::Fd),
        Call::MoveMount { mount, target } => unit(sys.move_mount(*mount, *target)),
        Call::SetMountAttributes { mount, recursive, attributes } => {
            unit(sys.set_mount_attributes(*mount, *recursive, *attributes))
        }
        Call::MountHere { kind, options } => unit(sys.mount_here(*kind, &path(options))),
        Call::OpenInRoot { root, path: file, flags } => {
            reply(sys.open_in_root(*root, &path(file), *flags), Reply::Fd)
        }
        Call::Mkdirat { dir, name, mode } => unit(sys.mkdirat(*dir, &path(name), *mode)),
        Call::Symlinkat { target, dir, name } => unit(sys.symlinkat(&path(target), *dir, &path(name))),
        Call::PivotRootHere => unit(sys.pivot_root_here()),
        Call::DetachHere => unit(sys.detach_here()),
        Call::ChrootHere => unit(sys.chroot_here()),
        other => panic!("a call that is not made here: {other:?}"),
    }
}
