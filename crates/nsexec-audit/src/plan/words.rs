//! The policy of a plan in the words of the man pages.

use std::string::{String, ToString};
use std::vec::Vec;

use nsexec::launch::Descriptors;
use nsexec::policy::{Credentials, LogForm, Policy, Session, Setgroups};
use nsexec::sys::types::Propagation;

/// Returns the policy as subject and value.
pub(super) fn policy(policy: &Policy) -> Vec<(String, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let launch = &policy.launch;
    let lines = [
        ("dialect", policy.dialect.name()),
        (
            "session",
            match policy.session {
                Session::New => "a new one: setsid(2)",
                Session::Keep => "the caller's",
            },
        ),
        (
            "ids of the command",
            match policy.credentials {
                Credentials::Root => "user 0 and group 0 of its user namespace",
                Credentials::RootLast => {
                    "user 0 and group 0 of its user namespace, set right before the exec"
                }
                Credentials::Keep => "the caller's",
            },
        ),
        (
            "/proc/PID/setgroups",
            match policy.setgroups {
                Setgroups::FromMessage => "\"deny\" if the caller is not root and maps its own group only",
                Setgroups::Deny => "\"deny\": setgroups(2) is refused",
                Setgroups::Allow => "not written: setgroups(2) is allowed",
                Setgroups::DropIfAllowed => {
                    "not written; the supplementary groups are dropped if that is allowed"
                }
            },
        ),
        (
            "log records",
            match policy.log_form {
                LogForm::Runc => "level and message",
                LogForm::Detailed => {
                    "level and message; of a failure also the step, the object and the errno"
                }
            },
        ),
        (
            "propagation of mounts",
            match launch.propagation {
                None => "not changed",
                Some(Propagation::Private) => "MS_PRIVATE, recursively",
                Some(Propagation::Slave) => "MS_SLAVE, recursively",
                Some(Propagation::Shared) => "MS_SHARED, recursively",
            },
        ),
        ("fresh /proc", yes(launch.mount_proc)),
        ("dies with the launcher", yes(launch.kill_child)),
        (
            "inherited descriptors",
            match launch.descriptors {
                Descriptors::All => "every one without the flag FD_CLOEXEC",
                Descriptors::Named => "0 to 2, and those that the request names",
                _ => "see the policy of the launcher",
            },
        ),
    ];
    // Listed only if set, since few launchers set it.
    let trusted = launch.trusted_mounts.then_some(("mount namespace to join", "trusted"));
    let stages = launch.stages.then_some(("through the stages", "always"));
    let in_place = launch.in_place.then_some(("in place", "yes"));
    let pins =
        launch.pins.then_some(("end of the process", "in place of an exec: its namespaces stay on files"));
    let all = lines.into_iter().chain(trusted).chain(stages).chain(in_place).chain(pins);
    all.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}
