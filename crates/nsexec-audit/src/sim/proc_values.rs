//! The contents of the files of /proc/PID, and the effects of writes to them (proc(5),
//! docs/protocol.md#id-maps, docs/protocol.md#unshare-and-clone, docs/protocol.md#oom_score_adj).

use std::string::String;
use std::vec::Vec;

use super::creds::{Creds, cap};
use super::descriptors::Object;
use super::idmaps::{Ids, PAGE};
use super::kernel::Kernel;
use super::namespaces::NsId;
use super::process::{Life, Task};
use super::procfs::PidEntry;
use nsexec::sys::types::{Errno, Fd, SysResult};

/// `KTIME_SEC_MAX`.
const SECONDS_MAX: i64 = i64::MAX / 1_000_000_000;

impl Kernel {
    pub(super) fn read_proc(
        &self,
        opener: &Creds,
        task: Task,
        file: PidEntry,
        user: NsId,
    ) -> SysResult<String> {
        let process = self.process(task);
        // The opener's user namespace decides how the outside ids are shown (m_show). An opener inside the
        // namespace sees them as its parent namespace does.
        let seen_from = match opener.user == user {
            true => self.user(user).parent.unwrap_or(user),
            false => opener.user,
        };
        let (of, reader) = (self.user(user), self.user(seen_from));
        match file {
            PidEntry::UidMap => Ok(of.uid_map.text(&reader.uid_map)),
            PidEntry::GidMap => Ok(of.gid_map.text(&reader.gid_map)),
            PidEntry::Setgroups => Ok(if of.setgroups { "allow\n".into() } else { "deny\n".into() }),
            PidEntry::Cmdline => {
                let text = |arg: &Vec<u8>| String::from_utf8_lossy(arg).into_owned() + "\0";
                Ok(process.argv.iter().map(text).collect())
            }
            PidEntry::OomScoreAdj if process.is_reaped() => Err(Errno::ESRCH),
            PidEntry::OomScoreAdj => Ok(std::format!("{}\n", process.oom)),
            PidEntry::Stat if process.is_reaped() => Err(Errno::ESRCH),
            PidEntry::Stat => Ok(self.stat(task)),
            PidEntry::FdInfo(fd) => Ok(self.fdinfo(task, Fd(fd))),
            PidEntry::TimensOffsets if process.has_ended() => Err(Errno::ESRCH),
            PidEntry::TimensOffsets => Ok(self.time_text(process.ns.time_for_children)),
        }
    }

    /// Returns /proc/PID/fdinfo/FD. For a pidfd, with the number of its process in this /proc: 0 if it is not
    /// visible, -1 if it has been reaped (pidfd_show_fdinfo).
    fn fdinfo(&self, task: Task, fd: Fd) -> String {
        let mut text = String::from("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1\n");
        if let Ok(Object::Pidfd(of)) = self.object(task, fd) {
            let number = match self.process(*of).is_reaped() {
                true => -1,
                false => self.proc_pid_ns(task).and_then(|ns| self.number(*of, ns)).map_or(0, |pid| pid.0),
            };
            text += &std::format!("Pid:\t{number}\nNSpid:\t{number}\n");
        }
        text
    }

    /// Returns /proc/PID/stat up to the flags, of which only PF_EXITING is modelled (do_task_stat).
    fn stat(&self, task: Task) -> String {
        const PF_EXITING: u32 = 0x4;
        let process = self.process(task);
        let (state, flags) = match process.life {
            Life::Alive => ('S', 0),
            Life::Dying(_) => ('R', PF_EXITING),
            Life::Zombie(_) | Life::Reaped(..) => ('Z', PF_EXITING),
        };
        let pid = process.numbers.last().map_or(0, |(_, pid)| pid.0);
        std::format!("{pid} ({}) {state} 0 0 0 0 -1 {flags} 0\n", process.name)
    }

    fn time_text(&self, ns: NsId) -> String {
        let super::namespaces::State::Time(time) = &self.namespaces[ns.0].state else { return String::new() };
        let of = |clock| time.offsets.iter().find(|(name, _)| *name == clock).map_or(0, |(_, secs)| *secs);
        std::format!(
            "monotonic  {:10}         0\nboottime   {:10}         0\n",
            of("monotonic"),
            of("boottime")
        )
    }

    /// Handles a write by `me`, at `offset`, to a file that `opener` opened.
    pub(super) fn write_proc(
        &mut self,
        (me, opener, offset): (Task, &Creds, usize),
        (task, file, user): (Task, PidEntry, NsId),
        data: &[u8],
    ) -> SysResult<usize> {
        let at_start = |result| if offset == 0 { result } else { Err(Errno::EINVAL) };
        match file {
            PidEntry::UidMap | PidEntry::GidMap => {
                let ids = if file == PidEntry::UidMap { Ids::Users } else { Ids::Groups };
                let writer = self.process(me).creds.clone();
                self.write_map((opener, &writer), user, ids, (offset, data))
            }
            PidEntry::Setgroups => {
                at_start(Ok(()))?;
                self.write_setgroups(user, data)
            }
            PidEntry::TimensOffsets => {
                at_start(Ok(()))?;
                self.write_offsets(opener, task, data)
            }
            PidEntry::OomScoreAdj => self.write_oom(me, task, data),
            PidEntry::Cmdline | PidEntry::Stat | PidEntry::FdInfo(_) => Err(Errno::EINVAL),
        }
    }

    /// Handles a write to timens_offsets. At most two lines are read, so a third one makes the write short.
    /// The offsets are final once a process has entered the namespace (timens_offsets_write,
    /// proc_timens_set_offset).
    fn write_offsets(&mut self, opener: &Creds, task: Task, data: &[u8]) -> SysResult<usize> {
        if data.len() >= PAGE {
            return Err(Errno::EINVAL);
        }
        let (offsets, used) = parse_offsets(data).ok_or(Errno::EINVAL)?;
        if self.process(task).has_ended() {
            return Err(Errno::ESRCH);
        }
        let ns = self.process(task).ns.time_for_children;
        if !self.capable(opener, self.owner(ns), cap::SYS_TIME) {
            return Err(Errno::EPERM);
        }
        if offsets.iter().any(|(_, secs)| *secs > SECONDS_MAX / 2 || *secs < -self.settings.uptime) {
            return Err(Errno::ERANGE);
        }
        let time = self.time_ns_mut(ns);
        if time.frozen {
            return Err(Errno::EACCES);
        }
        time.offsets = offsets;
        Ok(used)
    }

    /// Handles a write to oom_score_adj. The number may be in any base and is trimmed. Input beyond twelve
    /// bytes is dropped. A value below the lowest one set by a privileged process needs CAP_SYS_RESOURCE
    /// (oom_score_adj_write, __set_oom_adj). Processes with the same memory have the same score.
    fn write_oom(&mut self, me: Task, task: Task, data: &[u8]) -> SysResult<usize> {
        let data = &data[..data.len().min(12)];
        let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
        let score = parse_integer(core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim())?;
        if !(-1000..=1000).contains(&score) {
            return Err(Errno::EINVAL);
        }
        if self.process(task).is_reaped() {
            return Err(Errno::ESRCH);
        }
        let privileged = self.may(me, NsId(0), cap::SYS_RESOURCE);
        if score < self.process(task).oom_min && !privileged {
            return Err(Errno::EACCES);
        }
        // The score belongs to the memory.
        for task in self.with_memory_of(task) {
            let process = self.process_mut(task);
            process.oom = score;
            if privileged {
                process.oom_min = score;
            }
        }
        Ok(data.len())
    }
}

/// Parses up to two lines. Returns them and their length in bytes.
fn parse_offsets(data: &[u8]) -> Option<(Vec<(&'static str, i64)>, usize)> {
    let text = core::str::from_utf8(data.split(|byte| *byte == 0).next()?).ok()?;
    let mut offsets = Vec::new();
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut words = line.split_ascii_whitespace();
        let clock = match words.next()? {
            "monotonic" | "1" => "monotonic",
            "boottime" | "7" => "boottime",
            _ => return None,
        };
        let secs = words.next()?.parse().ok()?;
        let nanos: u64 = words.next()?.parse().ok()?;
        if nanos >= 1_000_000_000 || words.next().is_some() {
            return None;
        }
        offsets.push((clock, secs));
        rest = after;
        if rest.is_empty() {
            return Some((offsets, data.len()));
        }
        if offsets.len() == 2 {
            return Some((offsets, text.len() - rest.len()));
        }
    }
}

/// Parses as kstrtoint does with base 0.
///
/// Errors: `EINVAL`: not a number. `ERANGE`: the number is too large.
fn parse_integer(text: &str) -> SysResult<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None if digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(Errno::EINVAL);
    }
    // At most twelve digits, which always fit.
    let value = i64::from_str_radix(digits, base).map_err(|_| Errno::ERANGE)?;
    i32::try_from(if negative { -value } else { value }).map_err(|_| Errno::ERANGE)
}
