//! `peers serve unshare|nix|hakoniwa SCENARIO PROGRAM`: launches with a crate, and measures each launch
//! itself, as `benches/library` does. The scenarios are b, c and d.
//!
//! The crates unshare and nix have no time namespace, and hakoniwa has a user and a mount namespace in every
//! launch, and builds a root directory.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::ptr;
use std::time::Instant;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, peer, scenario, program] = &words[..] else { return Err("wrong arguments".into()) };
    let mut launch: Box<dyn FnMut() -> Done> = match (command.as_str(), peer.as_str()) {
        ("serve", "unshare") => Box::new(|| with_unshare(scenario, program)),
        ("serve", "hakoniwa") => Box::new(|| with_hakoniwa(scenario, program)),
        ("serve", "nix") => {
            let mut stack = vec![0; 64 << 10];
            Box::new(move || with_nix(scenario, program, &mut stack))
        }
        _ => return Err("the peers are unshare, nix and hakoniwa".into()),
    };
    let mut socket = socket()?;
    let mut byte = [0];
    while socket.read(&mut byte)? == 1 {
        let begin = Instant::now();
        let done = launch();
        let taken = begin.elapsed().as_nanos();
        if let Err(error) = &done {
            eprintln!("peers: {peer}: {error}");
        }
        socket.write_all(&if done.is_ok() { u64::try_from(taken)? } else { 0 }.to_ne_bytes())?;
    }
    Ok(())
}

/// Returns the driver's socket, moved from descriptor 0. The command gets /dev/null as its descriptor 0.
fn socket() -> Result<File, Box<dyn Error>> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: nothing in this program uses descriptor 0, and the copy is new.
    unsafe {
        let moved = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 10);
        libc::dup2(null.as_raw_fd(), 0);
        Ok(File::from_raw_fd(moved))
    }
}

fn with_unshare(scenario: &str, program: &str) -> Done {
    use unshare::{GidMap, Namespace, UidMap};
    let mut command = unshare::Command::new(program);
    command.env_clear();
    command.unshare(&[Namespace::Mount, Namespace::Pid, Namespace::Uts, Namespace::Ipc]);
    if scenario != "b" {
        command.unshare(&[Namespace::Net]);
    }
    if scenario == "d" {
        command.unshare(&[Namespace::User, Namespace::Cgroup]);
        command.set_id_maps(
            vec![UidMap { inside_uid: 0, outside_uid: 0, count: 1 }],
            vec![GidMap { inside_gid: 0, outside_gid: 0, count: 1 }],
        );
    }
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{status}").into()) }
}

fn with_hakoniwa(scenario: &str, program: &str) -> Done {
    use hakoniwa::{Container, Namespace};
    let mut container = Container::new();
    container.unshare(Namespace::Uts).unshare(Namespace::Ipc);
    if scenario != "b" {
        container.unshare(Namespace::Network);
    }
    if scenario == "d" {
        container.unshare(Namespace::Cgroup);
    }
    let program = Path::new(program);
    let folder = program.parent().ok_or("no folder")?.to_str().ok_or("UTF-8")?;
    let name = program.file_name().ok_or("no name")?.to_str().ok_or("UTF-8")?;
    container.bindmount_ro(folder, "/bench");
    let status = container.command(&format!("/bench/{name}")).status()?;
    if status.success() { Ok(()) } else { Err(status.reason.into()) }
}

/// Maps are written by the parent, and a pipe holds the child until then.
fn with_nix(scenario: &str, program: &str, stack: &mut [u8]) -> Done {
    let b = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let flags = match scenario {
        "b" => b,
        "c" => b | CloneFlags::CLONE_NEWNET,
        _ => b | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWCGROUP,
    };
    let program = CString::new(program)?;
    let (reader, mut writer) = pipe()?;
    let (fd, mapped) = (reader.as_raw_fd(), scenario == "d");
    let child = || {
        let mut byte = 0u8;
        let argv: [*const c_char; 2] = [program.as_ptr(), ptr::null()];
        let environment: [*const c_char; 1] = [ptr::null()];
        // SAFETY: the child makes system calls only, with memory that it has as a copy.
        unsafe {
            if !mapped || libc::read(fd, (&raw mut byte).cast(), 1) == 1 {
                libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
            }
            libc::_exit(1)
        }
    };
    // SAFETY: without CLONE_VM the child has a copy of the memory, and it ends with execve(2) or _exit(2).
    let pid = unsafe { nix::sched::clone(Box::new(child), stack, flags, Some(Signal::SIGCHLD as i32)) }?;
    if mapped {
        fs::write(format!("/proc/{pid}/uid_map"), "0 0 1\n")?;
        fs::write(format!("/proc/{pid}/gid_map"), "0 0 1\n")?;
        writer.write_all(b"m")?;
    }
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
