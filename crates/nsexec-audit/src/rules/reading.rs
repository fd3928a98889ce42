//! Interprets lines for the rules: the values on the sync pipes, the files of /proc, the calls that only
//! report.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::facts::Shape;
use crate::record::{Call, Line, Reply};
use crate::transcript::Section;
use nsexec::bootstrap::text::is_invisible;
use nsexec::launch::LaunchPolicy;
use nsexec::launch::script::GO;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::Fd;

/// Returns whether the call succeeded.
pub(super) fn succeeded(line: &Line) -> bool {
    !matches!(line.reply, Reply::Errno(_))
}

/// Returns whether a call changes the identity of a process: its session, its ids, or its groups.
pub(super) fn changes_identity(call: &Call) -> bool {
    matches!(
        call,
        Call::Setsid
            | Call::Setuid { .. }
            | Call::Setgid { .. }
            | Call::Setresuid { .. }
            | Call::DropGroups
            | Call::SetGroups { .. }
    )
}

/// Returns whether a call sets an id that the launcher was asked to give the command.
pub(super) fn sets_ids_of_command(call: &Call, asked: LaunchPolicy) -> bool {
    match call {
        Call::Setuid { uid } => asked.uid == Some(*uid),
        Call::Setgid { gid } => asked.gid == Some(*gid),
        Call::SetGroups { .. } => asked.groups,
        _ => false,
    }
}

/// Returns whether a call only serves a report: a record, the pid or tid in it, or the wait for room in the
/// pipe.
pub(super) fn reports(line: &Line) -> bool {
    match &line.call {
        Call::WriteNowait { .. } | Call::Getpid | Call::Gettid | Call::Poll { .. } => true,
        // Standard error, or a record that is written with a blocking write because the kernel does not
        // support RWF_NOWAIT.
        Call::Write { fd, data } => *fd == Fd::STDERR || data.0.starts_with(b"{\"level\""),
        _ => false,
    }
}

/// Returns whether a process may still make this call after a failure: report, restore signals, close, or
/// kill the processes that wait for it.
pub(super) fn may_follow_failure(line: &Line) -> bool {
    reports(line)
        || matches!(
            line.call,
            Call::Close { .. } | Call::Kill { .. } | Call::Sigprocmask { .. } | Call::Sigtimedwait { .. }
        )
}

/// A complete value on a sync pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SyncValue {
    /// The index of the line that completed it.
    pub(super) index: usize,
    pub(super) sent: bool,
    pub(super) value: u32,
    /// It is the pid that follows [`SyncMessage::RecvpidPls`]. A pid may have the value of a message.
    is_pid: bool,
}

impl SyncValue {
    pub(super) fn is(&self, sent: bool, message: SyncMessage) -> bool {
        self.sent == sent && !self.is_pid && self.value == message.value()
    }
}

/// Returns the values that a process sent and received, including those that came in pieces.
pub(super) fn sync_values(section: &Section) -> impl Iterator<Item = SyncValue> + '_ {
    let mut pieces: BTreeMap<(bool, Fd), Vec<u8>> = BTreeMap::new();
    let mut pid_follows = None;
    section.lines.iter().enumerate().filter_map(move |(index, line)| {
        let (sent, fd, data) = match (&line.call, &line.reply) {
            (Call::Read { fd, len: 1..=4 }, Reply::Data(data)) => (false, *fd, &data.0[..]),
            // A plain write if the pipe is not a socket.
            (Call::Send { fd, data } | Call::Write { fd, data }, Reply::Count(count))
                if data.0.len() <= 4 =>
            {
                (true, *fd, data.0.get(..*count).unwrap_or_default())
            }
            (Call::Close { fd }, _) => {
                pieces.retain(|(_, of), _| of != fd);
                return None;
            }
            _ => return None,
        };
        let word = pieces.entry((sent, fd)).or_default();
        word.extend(data);
        let bytes = <[u8; 4]>::try_from(&word[..]).ok()?;
        word.clear();
        let value = u32::from_ne_bytes(bytes);
        let is_pid = pid_follows == Some(sent);
        pid_follows = (!is_pid && value == SyncMessage::RecvpidPls.value()).then_some(sent);
        Some(SyncValue { index, sent, value, is_pid })
    })
}

/// Returns the index of the line at which a process had completely sent or received a message.
pub(super) fn message_at(section: &Section, sent: bool, message: SyncMessage) -> Option<usize> {
    sync_values(section).find(|word| word.is(sent, message)).map(|word| word.index)
}

/// Returns the index of the line at which stage 2 received the launcher's go byte.
pub(super) fn go_message_at(section: &Section, shape: Shape) -> Option<usize> {
    let finished = match shape {
        // A start in place has no go byte.
        Shape::Direct | Shape::Child | Shape::InPlace => 0,
        Shape::Stages => message_at(section, true, SyncMessage::ChildFinish)?,
    };
    let is_go = |line: &Line| matches!((&line.call, &line.reply), (Call::Read { len: 1, .. }, Reply::Data(data)) if data.0 == [GO]);
    section.lines.iter().skip(finished).position(is_go).map(|at| finished + at)
}

/// The file that stage 0 writes for itself. The other files are stage 1's.
pub(super) const OOM_SCORE: &[u8] = b"oom_score_adj";

/// Returns the files in /proc that the init of a direct start writes for itself. Root of a new user namespace
/// may not lower its oom score, so there the launcher writes it.
pub(super) const fn files_of_init(creates_user: bool) -> &'static [&'static [u8]] {
    if creates_user { &[b"timens_offsets"] } else { &[b"timens_offsets", OOM_SCORE] }
}

/// The files in /proc that a stage writes.
const PROC_FILES: [&[u8]; 5] = [b"uid_map", b"gid_map", b"setgroups", b"timens_offsets", OOM_SCORE];

/// Returns the file of /proc that a path names.
pub(super) fn file_of(path: &[u8]) -> Option<&'static [u8]> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    PROC_FILES.into_iter().find(|file| *file == name)
}

/// The open descriptors that are files of /proc, and whether each was verified to be on procfs.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcFiles {
    open: BTreeMap<Fd, (&'static [u8], bool)>,
}

impl ProcFiles {
    pub(super) fn see(&mut self, line: &Line) {
        use nsexec::sys::types::FsType;
        match (&line.call, &line.reply) {
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Fd(fd)) => {
                self.open.remove(fd);
                if let Some(file) = file_of(&path.0) {
                    self.open.insert(*fd, (file, false));
                }
            }
            (Call::Fstatfs { fd }, Reply::FsType(FsType::PROC)) => {
                if let Some((_, checked)) = self.open.get_mut(fd) {
                    *checked = true;
                }
            }
            (Call::Close { fd }, _) => {
                self.open.remove(fd);
            }
            _ => {}
        }
    }

    /// Returns the file that a line writes to, and whether it was verified.
    pub(super) fn written(&self, line: &Line) -> Option<(&'static [u8], bool)> {
        match &line.call {
            Call::Write { fd, .. } => self.open.get(fd).copied(),
            _ => None,
        }
    }
}

/// The check whether stage 1 is exiting: the descriptor of its open stat file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatFile(Option<Fd>);

impl StatFile {
    /// Returns whether a line belongs to this check. The check changes nothing, and stage 0 makes it after a
    /// refusal.
    pub(super) fn asks(&mut self, line: &Line) -> bool {
        match (&line.call, &line.reply) {
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, reply) if path.0 == b"stat" => {
                if let Reply::Fd(fd) = reply {
                    self.0 = Some(*fd);
                }
                true
            }
            (Call::Fstatfs { fd } | Call::Read { fd, .. }, _) => self.0 == Some(*fd),
            (Call::Close { fd }, _) if self.0 == Some(*fd) => {
                self.0 = None;
                true
            }
            _ => false,
        }
    }
}

/// Returns a path or name that is safe to print on a terminal.
pub(super) fn shown(file: &[u8]) -> String {
    String::from_utf8_lossy(file).chars().map(|c| if is_invisible(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_with_the_value_of_a_message_is_no_message() {
        let send = |value: u32| Line {
            call: Call::Send { fd: Fd(4), data: value.to_ne_bytes()[..].into() },
            reply: Reply::Count(4),
        };
        let mut section = Section::new(crate::transcript::Role::Stage(1));
        for value in [SyncMessage::RecvpidPls, SyncMessage::UsermapPls, SyncMessage::ChildFinish] {
            section.push(send(value.value()));
        }
        assert_eq!(message_at(&section, true, SyncMessage::UsermapPls), None);
        assert_eq!(message_at(&section, true, SyncMessage::ChildFinish), Some(2));
        section.push(send(SyncMessage::UsermapPls.value()));
        assert_eq!(message_at(&section, true, SyncMessage::UsermapPls), Some(3));
    }
}
