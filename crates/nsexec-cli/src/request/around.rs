//! Decides on the command's surroundings: the loopback interface, /sys, the root directory, the mounts, the
//! working directory and the capabilities.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nsexec::launch::{Base, Directory, MountStep, Persistent, Place, Root, Surroundings};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{MountKind, Propagation};
use nsexec_audit::machine::caller::Facts;

use super::super::args::NamespaceFlags;
use super::super::values::flag_of;
use super::{Kinds, UsageError, c_text, propagation};

/// The bit of CAP_NET_ADMIN in a set of capabilities (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;

/// Decides on the surroundings.
///
/// # Errors
/// A path that cannot be used.
pub(super) fn of(flags: &NamespaceFlags, facts: &Facts, kinds: &Kinds) -> Result<Surroundings, UsageError> {
    let mut around = Surroundings::default();
    around.loopback = turns_loopback_on(flags, facts, kinds);
    around.sysfs = facts.sysfs.clone().filter(|_| mounts_sys(flags, kinds));
    around.root = root(flags, kinds)?;
    around.directory = directory(flags, kinds)?;
    around.persistent = persistent(flags)?;
    // As for unshare(1), the flag concerns a new user namespace only.
    let keeps = flags.keep_caps && (!flags.defaults.are_util_linux() || kinds.created.contains(NsKind::User));
    around.capabilities = keeps.then_some(facts.known_capabilities);
    Ok(around)
}

/// Returns whether the loopback interface of a new network namespace is turned on: by default, if the process
/// has the capability for it.
fn turns_loopback_on(flags: &NamespaceFlags, facts: &Facts, kinds: &Kinds) -> bool {
    // In a user namespace that it creates or joins, the process has all capabilities.
    let in_user = [kinds.created, kinds.joined].iter().any(|set| set.contains(NsKind::User));
    let may = in_user || facts.capabilities.is_none_or(|set| set & 1 << CAP_NET_ADMIN != 0);
    kinds.created.contains(NsKind::Net) && !flags.no_loopback && may
}

/// Returns whether a new /sys is mounted: by default, in new network and mount namespaces, unless the command
/// has another root directory. The mount must not reach the host: in a new user namespace mounts propagate
/// only from the host.
fn mounts_sys(flags: &NamespaceFlags, kinds: &Kinds) -> bool {
    let creates = |kind| kinds.created.contains(kind);
    let reaches_host = matches!(propagation(flags, kinds), None | Some(Propagation::Shared));
    creates(NsKind::Net)
        && creates(NsKind::Mnt)
        && !flags.no_mount_sys
        && flags.root.is_none()
        && (!reaches_host || creates(NsKind::User))
}

/// Returns whether the policy's own step mounts /proc. With a root directory, or at another place, /proc is
/// mounted with the root directory.
pub(super) fn mounts_proc_itself(flags: &NamespaceFlags, kinds: &Kinds) -> bool {
    kinds.mount_proc && flags.root.is_none() && proc_place(flags) == "/proc"
}

fn proc_place(flags: &NamespaceFlags) -> &OsStr {
    flags.mount_proc.as_ref().and_then(Option::as_deref).unwrap_or(OsStr::new("/proc"))
}

/// Returns the root directory and the mounts below it.
fn root(flags: &NamespaceFlags, kinds: &Kinds) -> Result<Option<Root>, UsageError> {
    let mut root = Root::default();
    if flags.root.is_some() && kinds.joined.contains(NsKind::Mnt) {
        return Err(UsageError(
            "--root and --join mount=…: the path would be looked up in that namespace, whose processes could let it \
             lead anywhere"
                .to_owned(),
        ));
    }
    if let Some(directory) = &flags.root {
        root.base = Base::Chroot { path: c_text(absolute("--root", directory)?)? };
    }
    if kinds.mount_proc && !mounts_proc_itself(flags, kinds) {
        let path = proc_place(flags);
        let path = match flags.root {
            // Below the new root directory, as with unshare(1).
            Some(_) => path.as_bytes().to_vec(),
            None => absolute("--mount-proc", path)?,
        };
        let point = Place::new(&path).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&path);
            UsageError(format!("--mount-proc={shown}: expected an absolute path without '.' and '..'"))
        })?;
        root.mounts.push(MountStep::New { kind: MountKind::Proc, options: Default::default(), point });
    }
    Ok((root != Root::default()).then_some(root))
}

/// Returns the files on which namespaces are mounted.
fn persistent(flags: &NamespaceFlags) -> Result<Vec<Persistent>, UsageError> {
    let file = |(kind, file): (NsKind, &OsString)| {
        let flag = format!("--{}", flag_of(kind));
        let file = c_text(absolute(&flag, file)?)?;
        Ok(Persistent { kind: c_text(kind.proc_name())?, file })
    };
    flags.kinds.files().map(file).collect()
}

/// Returns the absolute form of a path of the caller.
fn absolute(flag: &str, path: &OsStr) -> Result<Vec<u8>, UsageError> {
    let absolute = std::path::absolute(path).map_err(|error| UsageError(format!("{flag}: {error}")))?;
    Ok(absolute.into_os_string().as_bytes().to_vec())
}

/// Returns the working directory. With another root directory it is below that. Mounts below the present root
/// directory change the working directory on their way, so that of the caller is set again.
fn directory(flags: &NamespaceFlags, kinds: &Kinds) -> Result<Option<Directory>, UsageError> {
    let present = match (&flags.root, kinds.mount_proc && !mounts_proc_itself(flags, kinds)) {
        (None, true) => std::env::current_dir().ok().map(OsString::from),
        _ => None,
    };
    let Some(path) = flags.directory.as_ref().or(present.as_ref()) else { return Ok(None) };
    let confined = flags.root.is_some() || kinds.joined.contains(NsKind::Mnt);
    if confined && !path.as_bytes().starts_with(b"/") {
        let shown = path.to_string_lossy();
        return Err(UsageError(format!(
            "--wd {shown}: the path must be absolute, since the command has another root directory or mount namespace"
        )));
    }
    Ok(Some(Directory { path: c_text(path.as_bytes())?, confined }))
}
