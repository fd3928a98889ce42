//! A worker: begins one start after another, disturbs it, and waits for the end of all its processes.
//!
//! The worker is the subreaper of its launches, and has no other children.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::draw::{Action, Around, Blow, Launcher, Start};
use crate::family::{Member, call_of, descendants, describe};
use crate::judge;
use crate::launcher::{Wires, become_launcher, descriptors};
use crate::parent::Parent;
use crate::place::Place;
use crate::tally::Tally;

/// The longest permitted wait after the last disturbance. It takes far less than a second on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// After this time a process that was stopped is continued, although the launch had to end without that.
const HELD: Duration = Duration::from_secs(10);

/// A signal that a process of the launch has got.
#[derive(Debug)]
#[expect(dead_code, reason = "a complaint shows the fields")]
pub(crate) struct Hit {
    pub(crate) signal: i32,
    /// The name of the process at that time.
    pub(crate) comm: String,
    pub(crate) is_launcher: bool,
}

/// The end of a start.
pub(crate) struct End {
    pub(crate) status: Option<WaitStatus>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) hits: Vec<Hit>,
    /// The time from the last disturbance to the end.
    pub(crate) waited: Duration,
    /// Processes that did not end, or that ended only after SIGCONT.
    pub(crate) hung: Vec<String>,
    pub(crate) parent: Option<Parent>,
}

/// Something that is due at a moment.
enum Event {
    Blow(Action),
    Continue(Member),
    /// As `Continue`, but the launch had to end before.
    ContinueAtLast(Member),
    Launcher(i32),
}

struct Watch {
    launcher: i32,
    usual: Duration,
    events: Vec<(Instant, Event)>,
    last: Instant,
    /// The launcher does not begin with blocked signals.
    sees_signals: bool,
    end: End,
}

/// Runs the starts of a worker: those whose number is `first` plus a multiple of `step`.
pub(crate) fn work(place: &Place, seed: u64, numbers: &mut dyn Iterator<Item = u64>, busy: u32) -> Tally {
    let mut tally = Tally::default();
    let chld = SigSet::from(Signal::SIGCHLD);
    chld.thread_block().expect("a mask");
    let children =
        SignalFd::with_flags(&chld, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).expect("signalfd");
    let mut usual: HashMap<&str, Duration> = HashMap::new();
    for number in numbers {
        let start = Start::draw(seed, number);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let open = descriptors();
        let pids = start.around.iter().find_map(|around| match around {
            Around::Pids(count) => Some(count),
            _ => None,
        });
        let cgroup = place.pids_cgroup();
        if let Some(count) = pids {
            if !Place::has_pids() {
                continue;
            }
            std::fs::create_dir(&cgroup).expect("a cgroup");
            std::fs::write(cgroup.join("pids.max"), count.to_string()).expect("a limit");
        }
        let typical = usual.entry(start.shape.name).or_insert(Duration::from_millis(6) * busy);
        let begun = Instant::now();
        let end = run(place, &start, *typical, &children);
        if start.disturbances() == ["None"] {
            *typical = (*typical * 3 + begun.elapsed()) / 4;
        }
        tally.waited(u64::try_from(end.waited.as_millis()).expect("a time"), number);
        let mut complaints = judge::judge(&start, &end, &mut tally);
        drop(end);
        if pids.is_some() && std::fs::remove_dir(&cgroup).is_err() {
            complaints.push(format!("the cgroup {} cannot be removed", cgroup.display()));
        }
        if std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts") != mounts {
            complaints.push("mounts are left".to_owned());
        }
        if descriptors() != open {
            complaints.push("the worker's descriptors have changed".to_owned());
        }
        let named = |what: String| format!("start {number} of seed {seed}: {what}\n        {start:?}");
        tally.complaints.extend(complaints.into_iter().map(named));
        if tally.complaints.len() > 5 {
            break;
        }
    }
    tally
}

#[allow(clippy::disallowed_methods, reason = "a worker has one thread, and no handlers of a fork")]
fn run(place: &Place, start: &Start, usual: Duration, children: &SignalFd) -> End {
    let mut parent = match start.shape.launcher {
        Launcher::DropIn(_, message) => Some(Parent::new(place, start, message)),
        _ => None,
    };
    let memory = || File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC).expect("a file in memory"));
    let (out, err) = (memory(), memory());
    let wires = Wires { out: &out, err: &err, pipes: parent.as_ref().and_then(Parent::pipes) };
    // SAFETY: a worker has one thread.
    let launcher = match unsafe { fork() }.expect("fork") {
        ForkResult::Child => become_launcher(place, start, &wires),
        ForkResult::Parent { child } => child.as_raw(),
    };
    if let Some(parent) = &mut parent {
        parent.close_theirs();
    }
    let now = Instant::now();
    let moment = |action: &Action| now + usual.mul_f64(action.moment as f64 / 1000.0);
    let end = End {
        status: None,
        out: String::new(),
        err: String::new(),
        hits: Vec::new(),
        waited: Duration::ZERO,
        hung: Vec::new(),
        parent,
    };
    let events = start.actions.iter().map(|action| (moment(action), Event::Blow(*action))).collect();
    let sees_signals = !start.around.contains(&Around::SignalsBlocked);
    let mut watch = Watch { launcher, usual, events, last: now, sees_signals, end };
    while watch.reap() {
        watch.act();
        if watch.last.elapsed() > LIMIT && watch.events.is_empty() {
            watch.give_up();
            break;
        }
        watch.sleep(children);
    }
    let Watch { last, mut end, .. } = watch;
    end.waited = last.elapsed();
    if let Some(parent) = &mut end.parent {
        parent.finish();
    }
    end.out = text(out);
    end.err = text(err);
    end
}

fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a file");
    file.read_to_end(&mut bytes).expect("a file");
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Watch {
    /// Reaps all children that have ended. Returns whether any are left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() == self.launcher) => {
                    self.end.status = Some(status);
                }
                Ok(_) => {}
                // ECHILD: no process is left.
                Err(_) => return false,
            }
        }
    }

    /// Does everything that is due.
    fn act(&mut self) {
        if self.end.parent.as_mut().is_some_and(Parent::step) {
            self.last = Instant::now();
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.events).into_iter().partition(|(at, _)| *at <= now);
        self.events = later;
        let due: Vec<(Instant, Event)> = due;
        for (_, event) in due {
            match event {
                Event::Blow(action) => self.strike(&action),
                Event::Continue(member) => self.send(&member, libc::SIGCONT),
                Event::ContinueAtLast(member) => self.continue_at_last(&member),
                Event::Launcher(signal) => {
                    if let Some(launcher) = Member::open(self.launcher) {
                        self.send(&launcher, signal);
                    }
                }
            }
        }
    }

    fn send(&mut self, member: &Member, signal: i32) {
        if member.send(signal) {
            let is_launcher = member.pid == self.launcher;
            self.end.hits.push(Hit { signal, comm: member.comm.clone(), is_launcher });
            self.last = Instant::now();
        }
    }

    /// Continues a process, and complains if the launch had to end without that.
    ///
    /// A command that was stopped ends only after SIGCONT, and so does its init: both outlive a launcher
    /// without `--kill-child`. So does a process that was stopped before its first call, if the launcher died
    /// (SECURITY.md#a-stage-that-is-stopped). getsubids(1) and its creation
    /// by the standard library, with clone3(2), precede the launch. A launcher with blocked signals does not
    /// see the SIGTERM.
    fn continue_at_last(&mut self, member: &Member) {
        let still = describe(member.pid);
        let is_foreign = [" echo ", " nsexec-init ", " getsubids "].iter().any(|name| still.contains(name));
        let has_died = matches!(self.end.status, Some(WaitStatus::Signaled(..)));
        let is_permitted = match call_of(member.pid) {
            // -1: an interrupt stopped it between its birth and its first call.
            Some(libc::SYS_clone | -1) => has_died,
            Some(libc::SYS_clone3) => true,
            _ => false,
        };
        // A process that was stopped twice may have been stopped before its first call. Nothing continues a
        // process that is stopped after the launcher has died.
        let stops = self.end.hits.iter().filter(|hit| hit.signal == libc::SIGSTOP).count();
        let once = stops == 1 && self.end.hits.first().is_some_and(|hit| hit.signal == libc::SIGSTOP);
        if member.send(libc::SIGCONT) {
            if !is_foreign && !is_permitted && once && self.sees_signals {
                self.end.hung.push(format!("it ended only after SIGCONT: {still}"));
            }
            self.last = Instant::now();
        }
    }

    fn strike(&mut self, action: &Action) {
        if action.blow == Blow::CloseInit {
            if let Some(parent) = &mut self.end.parent {
                parent.close_init();
                self.last = Instant::now();
            }
            return;
        }
        let all = descendants();
        let Some(at) = action.victim.checked_rem(all.len() as u64) else { return };
        let Some(member) = Member::open(all[usize::try_from(at).expect("an index")]) else { return };
        let pause = Instant::now() + self.usual.mul_f64(action.pause as f64 / 1000.0);
        let second = match action.blow {
            Blow::Kill => return self.send(&member, libc::SIGKILL),
            Blow::Term => return self.send(&member, libc::SIGTERM),
            Blow::Int => return self.send(&member, libc::SIGINT),
            Blow::StopThenTerm => libc::SIGTERM,
            Blow::StopThenKill => libc::SIGKILL,
            Blow::StopCont | Blow::CloseInit => 0,
        };
        self.send(&member, libc::SIGSTOP);
        if second != 0 {
            self.events.push((pause, Event::Launcher(second)));
        }
        let event = if second == libc::SIGTERM && member.pid != self.launcher {
            (pause + HELD, Event::ContinueAtLast(member))
        } else {
            (pause + Duration::from_millis(2), Event::Continue(member))
        };
        self.events.push(event);
    }

    /// Sleeps until a child ends, the drop-in writes, or something is due.
    fn sleep(&self, children: &SignalFd) {
        let (mut fds, part) = self.end.parent.as_ref().map_or((Vec::new(), None), Parent::waits);
        fds.push(children.as_raw_fd());
        let mut polls: Vec<libc::pollfd> =
            fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
        let next = self.events.iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min();
        let limit =
            part.into_iter().chain(next).chain([Duration::from_millis(100)]).min().unwrap_or_default();
        let limit = libc::timespec {
            tv_sec: i64::try_from(limit.as_secs()).expect("a time"),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // SAFETY: the array and the time outlive the call.
        unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as u64, &raw const limit, std::ptr::null()) };
        while matches!(children.read_signal(), Ok(Some(_))) {}
    }

    /// Describes all processes that are left, and kills them.
    fn give_up(&mut self) {
        let left = descendants();
        self.end.hung.extend(left.iter().map(|pid| format!("left: {}", describe(*pid))));
        let members: Vec<Member> = left.into_iter().filter_map(Member::open).collect();
        for member in &members {
            member.send(libc::SIGKILL);
        }
        while self.reap() {
            for member in descendants().into_iter().filter_map(Member::open) {
                member.send(libc::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Makes this process a worker: a subreaper in a mount namespace of its own, which dies with its parent.
pub(crate) fn become_worker(place: &Place, worker: u64) {
    use nix::mount::{MsFlags, mount};
    place.worker.store(worker, Ordering::Relaxed);
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a signal");
    nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
}
