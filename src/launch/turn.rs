//! The turn of a launch to fork, among the launches of this process.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::script::FailureKind;
use super::watch::Watch;
use crate::sys::linux::LinuxSys;

/// The launches of this process in the part between the creation of their pipes and the moment at which the
/// launcher has closed the stages' ends of them.
///
/// A fork copies every descriptor, and so the ends of each launch in this part. Usually the first process of a
/// launch closes them at once (`kept`), and any number of such launches may be in this part.
///
/// The processes of other launches keep all descriptors up to the exec: those whose command inherits all, and
/// those with code of the caller. Such a launch is alone in this part. Otherwise its processes could keep a
/// log pipe or an init pipe of another launch open, and the other launcher would wait for the end of the file
/// until their exec. So they hold only copies of the launcher's ends of earlier launches. After the
/// launcher's death, the stages of the latest launch get the end of file first, and those of the earlier ones
/// as soon as these have ended.
static LAUNCHES: Mutex<Launches> =
    Mutex::new(Launches { running: 0, alone: false, waiting: 0, waiting_alone: 0 });

/// Notified when a launch has left that part.
static LAUNCH_ENDED: Condvar = Condvar::new();

/// The interval in which a waiting launch checks for an interrupt or its time limit.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The launches of this process in that part.
#[derive(Debug)]
struct Launches {
    /// Their number.
    running: usize,
    /// Whether one of them is alone.
    alone: bool,
    /// The number of threads that wait for their turn.
    waiting: usize,
    /// The number of those that wait to be alone. The others wait for them.
    waiting_alone: usize,
}

impl Launches {
    const fn may_begin(&self, alone: bool) -> bool {
        match alone {
            true => self.running == 0,
            false => !self.alone && self.waiting_alone == 0,
        }
    }
}

/// The turn of one launch to fork.
#[derive(Debug)]
pub(super) struct Turn(());

impl Turn {
    /// Waits until this launch may fork, `alone` or beside others. That wait has no limit of its own: a
    /// recorder can block the other launch for ever. So an interrupt or the time limit of this launch ends
    /// the wait.
    ///
    /// # Errors
    /// [`FailureKind::Interrupted`] or [`FailureKind::TimedOut`].
    pub(super) fn wait(watch: &mut Watch, alone: bool) -> Result<Self, FailureKind> {
        // SAFETY: the backend polls, and reads a signal from the caller's own descriptor. It does not fork.
        let mut sys = unsafe { LinuxSys::new() };
        let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        while !launches.may_begin(alone) {
            if watch.can_end() {
                watch.pause(&mut sys, 0)?;
            }
            launches.waiting += 1;
            launches.waiting_alone += usize::from(alone);
            launches = match watch.can_end() {
                true => {
                    LAUNCH_ENDED
                        .wait_timeout(launches, CHECK_INTERVAL)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                false => LAUNCH_ENDED.wait(launches).unwrap_or_else(PoisonError::into_inner),
            };
            launches.waiting -= 1;
            launches.waiting_alone -= usize::from(alone);
        }
        launches.running += 1;
        launches.alone = alone;
        Ok(Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        launches.running -= 1;
        launches.alone = false;
        // Notified only if a thread waits: `notify_all` makes a system call, which strace shows and a
        // recorder does not.
        if launches.waiting > 0 {
            LAUNCH_ENDED.notify_all();
        }
    }
}
