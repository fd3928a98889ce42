//! The exact list of a run's calls as a restriction for other programs: an OCI seccomp profile, AppArmor
//! rules, a line of systemd.
//!
//! The list covers the processes of the launch, from the launcher's first call to the exec of the command.
//! The command needs its own calls in addition.
//!
//! | module | content |
//! |---|---|
//! | [`seccomp`] | the profile of the OCI runtime specification |
//! | [`apparmor`] | rules for a profile (apparmor.d(5)) |
//! | this module | the line `RestrictNamespaces=` (systemd.exec(5)) |

pub mod apparmor;
pub mod seccomp;
#[cfg(test)]
mod tests;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::record::{Call, Line};
use crate::transcript::Run;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::CloneFlags;

/// Returns the lines of a run in which a process makes a call. The first line of a child repeats the clone of
/// its parent, which does not matter for a list of calls.
fn calls(run: &Run) -> impl Iterator<Item = &Line> {
    run.sections.iter().flat_map(|section| &section.lines)
}

/// Returns the flags of the namespaces that a call creates or joins.
pub(crate) const fn flags(call: &Call) -> Option<CloneFlags> {
    match call {
        Call::CloneInit { namespaces, .. } => Some(*namespaces),
        Call::Unshare { flags } => Some(*flags),
        Call::Setns { kind, .. } => Some(*kind),
        _ => None,
    }
}

/// Returns the kinds of namespaces that a run creates or joins.
#[must_use]
pub fn kinds(run: &Run) -> NsSet {
    let all = calls(run).filter_map(|line| flags(&line.call));
    NsSet::from_flags(all.fold(CloneFlags::EMPTY, CloneFlags::union))
}

/// Returns a drop-in for a systemd unit, with the line `RestrictNamespaces=`.
#[must_use]
pub fn systemd(run: &Run) -> String {
    let kinds = kinds(run);
    let names: Vec<String> = kinds.iter().map(|kind| kind.name().to_string()).collect();
    let value = if names.is_empty() { "yes".to_string() } else { names.join(" ") };
    let time = match kinds.contains(NsKind::Time) {
        true => "# Not every version of systemd knows the kind time: see systemd.exec(5).\n",
        false => "",
    };
    format!(
        "# The namespaces that the planned launch creates or joins. systemd.exec(5)\n{time}[Service]\n\
         RestrictNamespaces={value}\n"
    )
}
