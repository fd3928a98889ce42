//! Renames pids in texts, only in the forms in which the bootstrap itself writes one.

use std::format;
use std::vec::Vec;

use super::{Names, State, UNKNOWN_PID, pid_of};
use crate::record::{Bytes, Call, Line, Reply};
use crate::transcript::Role;
use nsexec::launch::pid_of_fdinfo;
use nsexec::sys::types::Pid;

/// The beginning of every log record.
const RECORD: &[u8] = b"{\"level\":\"";

/// The texts of stage 0's records that contain a pid, up to the last pid. `#` stands for a pid, a `*` at the
/// end for another of these texts. Each is matched from the beginning of a record's text; the caller's
/// strings come later in it.
const STAGE_0_TEXTS: &[&str] = &[
    "update /proc/#/",
    "forward stage-1 (#) and stage-2 (#) pids to runc",
    "stage-1 (#) is gone: *",
    "stage-1 (#) died while ",
    "failed to open /proc/#:",
    "failed to update /proc/#/",
    "failed to write 'deny' to /proc/#/",
    "failed to check /proc/#/",
    "failed to read back /proc/#/",
    "failed to get container mount namespace (/proc/#/ns/mnt)",
    "failed to use newuid map on #: ",
    "failed to use newgid map on #: ",
    "newuidmap reported success, but /proc/#/",
    "newgidmap reported success, but /proc/#/",
    "/proc belongs to another pid namespace, or is not mounted: we are process #, ",
];

/// The same for stage 1.
const STAGE_1_TEXTS: &[&str] = &["request stage-0 to forward stage-2 pid (#)"];

/// Splits a text into the number that it begins with and the rest.
pub(super) fn number(text: &[u8]) -> Option<(i32, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    Some((core::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

impl Names {
    /// Renames a text that is a number.
    pub(super) fn digits(&self, text: &Bytes, name: impl Fn(i32) -> Pid) -> Bytes {
        match number(&text.0) {
            Some((pid, b"")) => format!("{}", name(pid)).into_bytes().as_slice().into(),
            _ => text.clone(),
        }
    }

    /// Renames the number in the link /proc/self. In the /proc of another pid namespace it is not the
    /// process's own pid.
    pub(super) fn proc_self(&self, role: Role, data: &Bytes) -> Bytes {
        match number(&data.0) {
            Some((pid, b"")) if !self.is_own(role, pid) => Bytes(b"another".as_slice().into()),
            _ => self.digits(data, |pid| self.own(role, pid)),
        }
    }

    /// Returns the line of an fdinfo that names a process, and renames that.
    pub(super) fn fdinfo(&self, data: &Bytes) -> Bytes {
        match pid_of_fdinfo(&data.0) {
            Some(pid) => format!("Pid: {}", self.pid(pid)).into_bytes().as_slice().into(),
            None => Bytes(b"no process".as_slice().into()),
        }
    }

    /// Renames the pid of the path `/proc/PID`. Other paths are not changed.
    pub(super) fn proc_path(&self, path: &Bytes) -> Bytes {
        match path.0.strip_prefix(b"/proc/").and_then(number) {
            Some((pid, b"")) => format!("/proc/{}", self.pid(Pid(pid))).into_bytes().as_slice().into(),
            _ => path.clone(),
        }
    }

    /// Renames the pid of the path `/proc/PID/ns/KIND`, which the launcher mounts on a file.
    pub(super) fn namespace_path(&self, path: &Bytes) -> Bytes {
        match path.0.strip_prefix(b"/proc/").and_then(number) {
            Some((pid, rest)) if rest.starts_with(b"/ns/") => {
                let mut renamed = format!("/proc/{}", self.pid(Pid(pid))).into_bytes();
                renamed.extend(rest);
                renamed.as_slice().into()
            }
            _ => path.clone(),
        }
    }

    /// Renames a transfer on a sync pipe or the init pipe. A four-byte value is a pid after SYNC_RECVPID_PLS,
    /// and in a start through a child. Anything else may be the pid line.
    pub(super) fn value_or_pid_line(&self, state: &mut State, data: &Bytes) -> Bytes {
        const RECVPID_PLS: [u8; 4] = 0x42_u32.to_ne_bytes();
        let Ok(word) = <[u8; 4]>::try_from(&data.0[..]) else { return self.pid_line(data) };
        if core::mem::take(&mut state.pid_follows) {
            return Bytes(self.pid(Pid(i32::from_ne_bytes(word))).0.to_ne_bytes().into());
        }
        state.pid_follows = word == RECVPID_PLS;
        data.clone()
    }

    /// Renames the pids of the pid line, in both of its forms.
    fn pid_line(&self, data: &Bytes) -> Bytes {
        let forms = ["{\"stage1_pid\":#,\"stage2_pid\":#}\n", "{\"pid\": #, \"pid_first\": #}\n"];
        let found =
            forms.iter().find_map(|form| self.fill(form, &data.0).filter(|(_, rest)| rest.is_empty()));
        found.map_or_else(|| data.clone(), |(line, _)| Bytes(line))
    }

    /// Renames the pids of a log record. Other texts are not changed.
    pub(super) fn record(&self, data: &Bytes) -> Bytes {
        self.parts_of_record(&data.0).map_or_else(|| data.clone(), Bytes)
    }

    /// Renames the pids in the launcher's reads of the log pipe, which have been merged into one line.
    pub(super) fn records(&self, lines: &mut [Line]) {
        for line in lines {
            let (Call::Read { .. }, Reply::Data(data)) = (&line.call, &mut line.reply) else { continue };
            if data.0.starts_with(RECORD) {
                let whole = data.0.split_inclusive(|byte| *byte == b'\n');
                let mut records: Vec<Bytes> = whole.map(|record| self.record(&record.into())).collect();
                // They were sorted by their text before the renaming.
                records.sort_unstable_by(|one, other| one.0.cmp(&other.0));
                data.0 = records.iter().flat_map(|record| record.0.iter().copied()).collect();
            }
        }
    }

    /// Renames a record `{"level":"debug", "msg": "nsexec-1[PID]: TEXT"}`. `None` for any other text.
    fn parts_of_record(&self, data: &[u8]) -> Option<Vec<u8>> {
        const MESSAGE: &[u8] = b"\", \"msg\": \"nsexec";
        let level = data.strip_prefix(RECORD)?.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
        let rest = data.get(RECORD.len() + level..)?.strip_prefix(MESSAGE)?;
        let (stage, rest) = match rest {
            // A record from before the stages.
            [b'[', rest @ ..] => (0, rest),
            [b'-', stage @ b'0'..=b'2', b'[', rest @ ..] => (stage - b'0', rest),
            _ => return None,
        };
        let (pid, text) = number(rest)?;
        let text = text.strip_prefix(b"]: ")?;
        let head = data.get(..data.len() - rest.len())?;
        let mut out = [head, format!("{}]: ", self.writer_pid(stage, pid)).as_bytes()].concat();
        out.extend(self.text_of_record(stage, text));
        Some(out)
    }

    /// The number in place of the pid in the prefix of a record. A mapping tool writes as stage 0 before its
    /// exec.
    fn writer_pid(&self, stage: u8, pid: i32) -> Pid {
        let speaks = |role: &Role| match role {
            Role::Stage(number) => *number == stage,
            Role::Tool(_) => stage == 0,
            _ => false,
        };
        let mut roles = self.own.iter().filter(|(role, own)| speaks(role) && own.contains(&pid));
        roles.next().map_or(Pid(pid.saturating_add(UNKNOWN_PID)), |(role, _)| pid_of(*role))
    }

    fn text_of_record(&self, stage: u8, text: &[u8]) -> Vec<u8> {
        const AFFINITY: &[u8] = b"affinity: 0x";
        if let Some(rest) = text.strip_prefix(AFFINITY) {
            let length = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (digits, rest) = rest.split_at(length);
            let mask = core::str::from_utf8(digits).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
            if mask.is_some_and(|mask| self.masks.contains(&mask)) {
                return [AFFINITY, b"0", rest].concat();
            }
        }
        let forms = match stage {
            0 => STAGE_0_TEXTS,
            1 => STAGE_1_TEXTS,
            _ => &[],
        };
        let Some((form, (mut out, rest))) =
            forms.iter().find_map(|form| Some((form, self.fill(form.trim_end_matches('*'), text)?)))
        else {
            return text.into();
        };
        match form.ends_with('*') {
            true => out.extend(self.text_of_record(stage, rest)),
            false => out.extend(rest),
        }
        out
    }

    /// Matches a text against a form. Returns the matched part with its pids renamed, and the rest.
    fn fill<'t>(&self, form: &str, text: &'t [u8]) -> Option<(Vec<u8>, &'t [u8])> {
        let mut pieces = form.split('#');
        let first = pieces.next()?.as_bytes();
        let (mut out, mut rest) = (first.to_vec(), text.strip_prefix(first)?);
        for piece in pieces {
            let (pid, behind) = number(rest)?;
            out.extend(format!("{}", self.pid(Pid(pid))).bytes());
            out.extend(piece.bytes());
            rest = behind.strip_prefix(piece.as_bytes())?;
        }
        Some((out, rest))
    }
}
