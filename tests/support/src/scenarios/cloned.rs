//! The steps of runc's older lines before the message is read: the sealed copy of their own program, and the
//! ready byte.

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::policy::Policy;
use nsexec::sys::types::Errno;
use nsexec_audit::sim::User;

use super::starts::{FIVE, OWN, mapped, ordinary};
use super::{Scenario, Way, flags};

const RUNC: &[Way] = &[Way::Init, Way::Exec];

fn of(dialect: &'static Dialect, name: &'static str, about: &'static str) -> Scenario {
    let message = Bootstrap::new(flags(&FIVE));
    let scenario = Scenario::new(name, about, &User::root(), &message);
    Scenario { policy: Policy::runc(dialect), ..scenario }.ways(&[Way::Init])
}

/// A machine that lacks these calls or flags, each with the errno that it returns.
fn lacking(name: &'static str, about: &'static str, lacks: &[(&'static str, Errno)]) -> Scenario {
    of(&Dialect::V1_1, name, about).setting(|settings| settings.lacks.extend(lacks.iter().copied()))
}

pub(super) fn all() -> Vec<Scenario> {
    let rootless = Scenario::new(
        "cloned_v1_1_rootless",
        "an ordinary user's runc 1.1: the copy is readable to its owner, so that it is dumpable",
        &ordinary(),
        &mapped(&FIVE, OWN).with_rootless_euid(true),
    );
    let no_memfd = ("memfd_create", Errno::ENOSYS);
    let no_unnamed = ("O_TMPFILE", Errno::EISDIR);
    vec![
        of(&Dialect::V1_0, "cloned_v1_0", "runc 1.0: a sealed copy, the ready byte, the message").ways(RUNC),
        of(&Dialect::V1_1, "cloned_v1_1", "runc 1.1: a sealed copy, the ready byte, the message").ways(RUNC),
        Scenario { policy: Policy::runc(&Dialect::V1_1), ..rootless }.ways(&[Way::Init]),
        lacking(
            "cloned_without_the_exec_flag",
            "a kernel before 6.3 does not know MFD_EXEC",
            &[("MFD_EXEC", Errno::EINVAL)],
        ),
        lacking(
            "cloned_in_a_directory",
            "no memfd: a copy without a name, marked in the environment",
            &[no_memfd],
        ),
        lacking(
            "cloned_on_tmpfs",
            "the same on a file system that answers a question for seals: it is copied once",
            &[no_memfd],
        )
        .setting(|settings| settings.programs_on_tmpfs = true),
        lacking(
            "cloned_by_hand",
            "a kernel that lacks everything: a file whose name is taken away, read and written, executed by its path",
            &[no_memfd, no_unnamed, ("sendfile", Errno::EINVAL), ("execveat", Errno::ENOSYS)],
        ),
        lacking("cloned_on_noexec", "the directory of the copies is mounted noexec", &[no_memfd])
            .setting(|settings| settings.directories_noexec = true)
            .refused("could not ensure we are a cloned binary: Permission denied (executing the copy)"),
    ]
}
