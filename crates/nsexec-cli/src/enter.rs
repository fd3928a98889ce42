//! `nsexec enter`: opens the namespaces of a process, joins them through these descriptors, and runs a
//! command.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::geteuid;
use nsexec::bootstrap::Dialect;
use nsexec::launch::{Descriptors, Surroundings, is_own_namespace};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{LogForm, Policy, Session, Setgroups};

use super::args::EnterArgs;
use super::failure::Failure;
use super::hand_over::{self, HandOver};
use super::request::{Request, credentials};
use super::run::{self, Job};
use super::sealed;
use super::target::Process;
use super::values::{KIND_NAMES, flag_of};

/// Joins the namespaces that the flags name, and runs the command. Returns the command's exit status.
///
/// # Errors
/// The process does not exist, its namespaces may not be opened, or the bootstrap fails.
pub(crate) fn enter(args: &EnterArgs) -> Result<u8, Failure> {
    let named = args.kinds.set();
    if !args.all && named.is_empty() {
        return Err(Failure::Usage(
            "no namespace to join: add -a for all that differ from ours, or name them (-U -m -p -n -i -u -C -T)"
                .to_owned(),
        ));
    }
    hand_over::check(&args.hand_over)?;
    let process = Process::open(args.target)?;
    let mut joins = Vec::new();
    for (_, kind) in KIND_NAMES {
        if !(args.all || named.contains(kind)) {
            continue;
        }
        match process.namespace(kind)? {
            Some(theirs) if is_own_namespace(&theirs, kind) => {}
            Some(theirs) => joins.push((kind, theirs)),
            // `--all` skips a kind that the kernel does not have.
            None if !named.contains(kind) => {}
            None => {
                return Err(Failure::ours(format!(
                    "failed to open {}: No such file or directory (this kernel has no {} namespaces)",
                    process.path(kind),
                    flag_of(kind)
                )));
            }
        }
    }
    // All namespaces are open. If the process is still alive, all of them belong to this one process.
    process.check_alive()?;
    let joined = joins.iter().map(|(kind, _)| *kind).collect();
    // This executes a sealed copy of nsexec, which opens the namespaces again: the descriptors are
    // close-on-exec.
    sealed::ensure_for_joins(joined)?;
    let paths: Vec<String> =
        joins.iter().map(|(kind, fd)| format!("{}:/proc/self/fd/{}", kind.name(), fd.as_raw_fd())).collect();
    let mut request = request(joined, &paths.join(","), args.preserve_credentials, !geteuid().is_root())?;
    let display_paths =
        |(kind, fd): &(NsKind, OwnedFd)| (format!("/proc/self/fd/{}", fd.as_raw_fd()), process.path(*kind));
    request.display_paths = joins.iter().map(display_paths).collect();
    request.hand_over =
        hand_over::decide(&mut request.policy, &args.hand_over, true, process.is_less_privileged());
    // Keep the descriptors in `joins` open until the stages, which are forks of this process, have joined.
    let job =
        Job { request: &request, command: &args.command, verbose: args.verbose, mount_proc_flag: false };
    let status = run::start(&job);
    drop(joins);
    status
}

/// Builds the request, which joins namespaces and creates none.
fn request(joined: NsSet, paths: &str, preserve: bool, rootless: bool) -> Result<Request, Failure> {
    let user = joined.contains(NsKind::User) && !preserve;
    let paths = CString::new(paths).map_err(|error| Failure::ours(error.to_string()))?;
    Ok(Request {
        created: NsSet::EMPTY,
        joined,
        paths: (!joined.is_empty()).then_some(paths),
        users: None,
        groups: None,
        setgroup: false,
        oom_score_adj: None,
        rootless,
        newuidmap: None,
        newgidmap: None,
        time_offsets: None,
        policy: Policy::runc(&Dialect::V1_2)
            .with_session(Session::Keep)
            .with_credentials(credentials(user))
            .with_setgroups(if user { Setgroups::DropIfAllowed } else { Setgroups::FromMessage })
            .with_log_form(LogForm::Detailed)
            .with_ends_with_launcher(true)
            .with_descriptors(Descriptors::Named),
        around: Surroundings::default(),
        signal_at_end: None,
        display_paths: Vec::new(),
        hand_over: HandOver::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::policy::Credentials;

    #[test]
    fn command_becomes_root_only_in_a_joined_user_namespace() {
        let net = NsSet::EMPTY.with(NsKind::Net);
        let with_user = net.with(NsKind::User);
        let decided = |joined, preserve| {
            let policy = request(joined, "net:/proc/self/fd/3", preserve, true).unwrap().policy;
            (policy.credentials, policy.setgroups)
        };
        assert_eq!(decided(net, false), (Credentials::Keep, Setgroups::FromMessage));
        assert_eq!(decided(with_user, false), (Credentials::RootLast, Setgroups::DropIfAllowed));
        assert_eq!(decided(with_user, true), (Credentials::Keep, Setgroups::FromMessage));
    }

    #[test]
    fn descriptor_paths_are_replaced_by_namespace_paths() {
        let mut request = request(NsSet::EMPTY, "", false, false).unwrap();
        let pair = |fd: i32, kind: &str| (format!("/proc/self/fd/{fd}"), format!("/proc/9/ns/{kind}"));
        request.display_paths = vec![pair(1, "uts"), pair(12, "net")];
        let shown = request
            .with_display_paths("/proc/self/fd/12: no; /proc/self/fd/1, /proc/self/fd/13 /proc/self/fd/1");
        assert_eq!(shown, "/proc/9/ns/net: no; /proc/9/ns/uts, /proc/self/fd/13 /proc/9/ns/uts");
    }

    #[test]
    fn message_without_joins_has_no_paths() {
        assert_eq!(request(NsSet::EMPTY, "", false, false).unwrap().paths, None);
    }
}
