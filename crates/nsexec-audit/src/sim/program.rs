//! The programs of simulated processes: closures over [`SimSys`], and a few built-in programs.

use core::fmt;
use std::ffi::CString;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::turn::SimSys;
use nsexec::sys::Sys;
use nsexec::sys::types::{Fd, OpenFlags, Signal};

/// The way in which a program's function ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The process exits with this status.
    Exit(i32),
    /// The process dies by this signal.
    Signal(Signal),
    /// The process returns to the caller of the bootstrap: it lives, keeps its resources, and makes no more
    /// calls.
    HandOver,
    /// The process lives until it is killed, and makes no more calls.
    Stay,
}

/// The reason why a living process makes no calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    HandedOver,
    Stays,
    /// The process existed before the run.
    Background,
}

/// The function of a process. It must depend only on the replies of its system calls, since it is called
/// again for each turn of the process.
pub type Main = Rc<dyn Fn(&mut SimSys) -> Ended>;

/// An executable file.
#[derive(Clone)]
pub struct Program {
    /// The function that it runs.
    pub main: Main,
    /// True if root owns the file and its set-user-id bit is set.
    pub setuid_root: bool,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("setuid_root", &self.setuid_root).finish_non_exhaustive()
    }
}

impl Program {
    /// Returns an ordinary program with this function.
    pub fn new(main: impl Fn(&mut SimSys) -> Ended + 'static) -> Self {
        Self { main: Rc::new(main), setuid_root: false }
    }

    /// Returns a program that makes no call and ends at once with `ended`.
    #[must_use]
    pub fn ends(ended: Ended) -> Self {
        Self::new(move |_| ended)
    }

    /// Returns the same program, owned by root and with the set-user-id bit.
    #[must_use]
    pub fn setuid_root(self) -> Self {
        Self { setuid_root: true, ..self }
    }

    /// Returns newuidmap(1) or newgidmap(1). It checks every line against the caller's own id and its
    /// subordinate ids, then writes the map in one write, as root.
    #[must_use]
    pub fn mapping_tool(file: &'static str, allowance: Allowance) -> Self {
        Self::new(move |sys| Ended::Exit(map(sys, file, allowance).map_or(1, |()| 0))).setuid_root()
    }
}

/// The ids that a mapping tool lets its caller map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// The caller's own id, as a range of one id.
    pub own: u32,
    /// The first of its subordinate ids (subuid(5)).
    pub first: u32,
    /// The number of subordinate ids.
    pub count: u32,
}

impl Allowance {
    fn covers(self, outside: u32, count: u32) -> bool {
        let end = outside.checked_add(count);
        let subordinate =
            outside >= self.first && end.is_some_and(|end| end <= self.first.saturating_add(self.count));
        count > 0 && (subordinate || (outside, count) == (self.own, 1))
    }
}

fn map(sys: &mut SimSys, file: &str, allowance: Allowance) -> Option<()> {
    let argv = sys.argv();
    let words: Vec<&str> = argv.iter().map(|arg| core::str::from_utf8(arg).ok()).collect::<Option<_>>()?;
    let (pid, numbers) = words.get(1..)?.split_first()?;
    let mut text = String::new();
    for line in numbers.chunks(3) {
        let [inside, outside, count] = *line else { return None };
        let [inside, outside, count] = [inside, outside, count].map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (inside?, outside?, count?);
        if !allowance.covers(outside, count) {
            return None;
        }
        text.push_str(&std::format!("{inside} {outside} {count}\n"));
    }
    let path = CString::new(std::format!("/proc/{pid}/{file}")).ok()?;
    let fd = sys.openat(Fd::CWD, &path, OpenFlags::ReadWrite).ok()?;
    let written = sys.write(fd, text.as_bytes()).ok()?;
    sys.close(fd).ok()?;
    (written == text.len()).then_some(())
}
