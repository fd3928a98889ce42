//! Runs a command in new namespaces, as root or as an ordinary user: `run_in_namespaces id`.

use std::error::Error;
use std::ffi::CString;
use std::process::exit;

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::{Launcher, exit_code};
use nsexec::policy::{Credentials, Policy, Session, Setgroups};
use nsexec::sys::types::{CloneFlags, Propagation};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("usage: run_in_namespaces COMMAND [ARGUMENT]...")?;

    // Maps only the caller, to root.
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let (uid_map, gid_map) = (CString::new(format!("0 {uid} 1\n"))?, CString::new(format!("0 {gid} 1\n"))?);
    let flags = [CloneFlags::NEWUSER, CloneFlags::NEWNS, CloneFlags::NEWPID, CloneFlags::NEWUTS]
        .into_iter()
        .fold(CloneFlags::EMPTY, CloneFlags::union);
    let bootstrap = Bootstrap::new(flags)
        .with_uid_map(IdMap::parse(&uid_map).map_err(|error| error.to_string())?)
        .with_gid_map(IdMap::parse(&gid_map).map_err(|error| error.to_string())?);
    let policy = Policy::runc(&Dialect::V1_2)
        .with_session(Session::Keep)
        .with_credentials(Credentials::Root)
        .with_setgroups(Setgroups::Deny)
        .with_propagation(Some(Propagation::Private))
        .with_mount_proc(true)
        .with_kill_child(true);

    match Launcher::new(&bootstrap, policy)?.command(program, words).spawn() {
        Ok(mut child) => exit(exit_code(child.wait()?)),
        Err(error) => {
            eprintln!("run_in_namespaces: {error}");
            exit(error.exit_code())
        }
    }
}
