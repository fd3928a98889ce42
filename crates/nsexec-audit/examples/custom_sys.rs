//! Runs a launch over a backend of one's own: `custom_sys`.
//!
//! The backend receives each call of the launch as data. It refuses some calls, as a seccomp filter would,
//! and passes the other calls to a simulated kernel. So the tests of a program can check its launch on a
//! machine with such a filter, without that machine.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use nix::unistd::geteuid;
use nsexec::launch::script::Launched;
use nsexec::launch::{Collector, Command, LaunchError, Prepared};
use nsexec::namespace::NsKind::{Mnt, Net, User};
use nsexec::sys::types::Errno;
use nsexec_audit::record::{Answer, Answered, Call, Reply};
use nsexec_audit::sim::{Ended, Oldest, Program, Settings, Sim, SimSys, User as Account};

/// A kernel behind a filter that refuses the calls with these names.
struct Filtered<'s> {
    kernel: &'s mut SimSys,
    refused: &'static [(&'static str, Errno)],
}

impl Answer for Filtered<'_> {
    fn answer(&mut self, call: Call) -> Reply {
        match self.refused.iter().find(|(name, _)| *name == call.name()) {
            Some((_, errno)) => Reply::Errno(*errno),
            None => self.kernel.answer(call),
        }
    }
}

/// Runs the launch on a machine whose filter refuses these calls. Returns its error.
fn outcome(prepared: Prepared, refused: &'static [(&'static str, Errno)]) -> Option<LaunchError> {
    // The launch maps the ids of this program's user, so the simulated user has the same ids.
    let account = match geteuid().as_raw() {
        0 => Account::root(),
        uid => Account::ordinary(uid),
    };
    let mut sim = Sim::new(Settings::default(), &account);
    sim.program("/usr/bin/tool", Program::ends(Ended::Exit(0)));
    let error = Rc::new(RefCell::new(None));
    let kept = Rc::clone(&error);
    sim.launcher(move |kernel| {
        let mut memory = vec![0; prepared.message().len()];
        let mut log = Collector::default();
        let sys = &mut Answered(Filtered { kernel, refused });
        match prepared.run(sys, &mut memory, None, &mut log) {
            Launched::Started { .. } => Ended::Exit(0),
            Launched::Failed(failure) => {
                *kept.borrow_mut() = Some(prepared.explain(failure, log.into_fatal()));
                Ended::Exit(1)
            }
            // In each process of the launch that ends.
            Launched::Exit(status) => Ended::Exit(status),
        }
    });
    let report = sim.run(&mut Oldest, None);
    assert_eq!(report.stuck().count(), 0, "{report}");
    error.take()
}

/// The launch under test.
fn tool() -> Command {
    let mut command = Command::new("/usr/bin/tool");
    command.unshare([User, Mnt, Net]).map_root().env_clear();
    command
}

fn main() -> Result<(), Box<dyn Error>> {
    const MACHINES: [(&str, &[(&str, Errno)]); 3] = [
        ("no filter", &[]),
        ("a filter that refuses unshare", &[("unshare", Errno::EPERM)]),
        ("a filter without close_range", &[("close_range", Errno::ENOSYS)]),
    ];
    for (machine, refused) in MACHINES {
        match outcome(tool().prepare()?, refused) {
            None => println!("{machine}: the command runs"),
            Some(error) => println!("{machine}: {error}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(refused: &'static [(&'static str, Errno)]) -> Option<LaunchError> {
        outcome(tool().prepare().unwrap(), refused)
    }

    #[test]
    fn launch_succeeds_without_a_filter_and_with_fallbacks() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("close_range", Errno::ENOSYS)]), None);
        assert_eq!(of(&[("openat2", Errno::ENOSYS), ("pidfd_open", Errno::EPERM)]), None);
    }

    #[test]
    fn refused_call_is_named_by_the_error() {
        let error = of(&[("unshare", Errno::EPERM)]).unwrap();
        assert!(error.to_string().contains("unshare"), "{error}");
        assert_eq!(error.step().unwrap().1, Some(Errno::EPERM));
    }
}
