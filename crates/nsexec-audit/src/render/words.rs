//! Words for values that are numbers on the wire: messages and bytes.

use std::format;
use std::string::{String, ToString};

use nsexec::bootstrap::text::is_invisible;
use nsexec::legacy::CGROUP_BYTE;
use nsexec::sync::SyncMessage;

/// The content of one transfer between two processes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A sync message of the stages.
    Sync(SyncMessage),
    /// The pid of stage 2, which follows [`SyncMessage::RecvpidPls`].
    Pid(i32),
    /// The bootstrap message, or a part of it, with its number of bytes.
    Bootstrap(usize),
    /// The ready byte: the launcher may send the bootstrap message.
    Ready,
    /// The pid line to the launcher: the pids of stages 1 and 2.
    PidLine,
    /// The launcher's permission for stage 2 to execute the command.
    Go,
    /// The byte by which runc 1.0 reports that stage 2 is in its cgroup.
    CgroupReady,
    /// A mount source: a descriptor, sent together with one byte.
    MountSource,
    /// The exit status that stage 0 must use, which follows [`SyncMessage::Failed`].
    Status(u32),
    /// A value that is not a known message.
    Unknown(u32),
    /// A JSON object with the configuration that a Go runtime sends to its init after the bootstrap.
    Configuration,
    /// Other bytes, with their number.
    Bytes(usize),
}

const MESSAGES: [SyncMessage; 9] = [
    SyncMessage::UsermapPls,
    SyncMessage::UsermapAck,
    SyncMessage::RecvpidPls,
    SyncMessage::RecvpidAck,
    SyncMessage::Grandchild,
    SyncMessage::ChildFinish,
    SyncMessage::TimeoffsetsPls,
    SyncMessage::TimeoffsetsAck,
    SyncMessage::Failed,
];

impl Payload {
    /// Interprets four bytes between two stages. After [`SyncMessage::RecvpidPls`] they are a pid. In a run
    /// with mount sources, 0x46 and 0x47 are the messages about mount sources, not about time offsets.
    #[must_use]
    pub fn between_stages(data: &[u8], after: Option<&Self>, mount_sources: bool) -> Self {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return Self::Bytes(data.len()) };
        if after == Some(&Self::Sync(SyncMessage::RecvpidPls)) {
            return Self::Pid(i32::from_ne_bytes(bytes));
        }
        let value = u32::from_ne_bytes(bytes);
        if after == Some(&Self::Sync(SyncMessage::Failed)) {
            return Self::Status(value);
        }
        let of_1_1 = [SyncMessage::MountsourcesPls, SyncMessage::MountsourcesAck].into_iter();
        if let Some(message) = of_1_1.filter(|_| mount_sources).find(|message| message.value() == value) {
            return Self::Sync(message);
        }
        match MESSAGES.into_iter().find(|message| message.value() == value) {
            Some(message) => Self::Sync(message),
            None => Self::Unknown(value),
        }
    }

    /// Interprets bytes that the launcher writes to the init pipe.
    #[must_use]
    pub fn from_launcher(data: &[u8]) -> Self {
        match data {
            // The smallest bootstrap message is a header of 16 bytes; the go byte is one byte.
            b"G" => Self::Go,
            [CGROUP_BYTE] => Self::CgroupReady,
            // These two bytes would be a length above the limit of 1 MiB for a bootstrap message.
            [b'{', b'"', ..] => Self::Configuration,
            _ => Self::Bootstrap(data.len()),
        }
    }

    /// Interprets bytes that a stage writes to the init pipe.
    #[must_use]
    pub fn to_launcher(data: &[u8]) -> Self {
        match data {
            [0] => Self::Ready,
            data if data.starts_with(b"{\"stage1_pid\"") || data.starts_with(b"{\"pid\"") => Self::PidLine,
            data => Self::Bytes(data.len()),
        }
    }

    /// Interprets bytes that stage 1 writes to the init pipe in a start through a child: the pid of stage 2.
    #[must_use]
    pub fn of_child(data: &[u8]) -> Self {
        match <[u8; 4]>::try_from(data) {
            Ok(bytes) => Self::Pid(i32::from_ne_bytes(bytes)),
            Err(_) => Self::Bytes(data.len()),
        }
    }

    /// Returns the content in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Sync(message) => in_words(*message).into(),
            Self::Pid(pid) => format!("the pid of stage 2: {pid}"),
            Self::Bootstrap(_) => "the bootstrap message".into(),
            Self::Ready => "ready".into(),
            Self::PidLine => "the pid line".into(),
            Self::Go => "go".into(),
            Self::Configuration => "the runtime's configuration".into(),
            Self::CgroupReady => "your cgroup is ready".into(),
            Self::MountSource => "a mount source".into(),
            Self::Status(status) => format!("status {status}"),
            Self::Unknown(value) => format!("{value:#x}, an unknown message"),
            Self::Bytes(1) => "1 byte".into(),
            Self::Bytes(count) => format!("{count} bytes"),
        }
    }
}

/// Returns a sync message in words.
#[must_use]
pub const fn in_words(message: SyncMessage) -> &'static str {
    match message {
        SyncMessage::UsermapPls => "request the maps",
        SyncMessage::UsermapAck => "the maps are written",
        SyncMessage::RecvpidPls => "forward this pid",
        SyncMessage::RecvpidAck => "the pid has arrived",
        SyncMessage::Grandchild => "your turn",
        SyncMessage::ChildFinish => "done",
        SyncMessage::TimeoffsetsPls => "request the time offsets",
        SyncMessage::TimeoffsetsAck => "the time offsets are written",
        SyncMessage::MountsourcesPls => "request the mount sources",
        SyncMessage::MountsourcesAck => "the mount sources are sent",
        SyncMessage::Failed => "failed, with this status",
    }
}

/// Returns the bytes of a /proc file on one line: without the last newline and NUL, with other newlines as `;
/// `. The text is cut after `limit` characters.
#[must_use]
pub fn one_line(data: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(data);
    let text = text.trim_end_matches(['\n', '\0']).replace('\n', "; ");
    let shown: String = text.chars().map(|c| if is_invisible(c) { '?' } else { c }).collect();
    if shown.chars().count() <= limit {
        return shown;
    }
    let cut: String = shown.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Returns the text of a fatal log record, or `None` for any other record.
#[must_use]
pub fn fatal_text(record: &[u8]) -> Option<String> {
    if let Some(text) = record.strip_prefix(b"FATAL: ") {
        return Some(one_line(text, usize::MAX));
    }
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    (record.get("level")?.as_str()? == "fatal").then_some(())?;
    Some(record.get("msg")?.as_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bidirectional controls and invisible characters could make a path look like another one
    /// (CVE-2021-42574).
    #[test]
    fn bidirectional_and_invisible_characters_are_replaced() {
        assert_eq!(one_line("/a\u{202e}b\u{200b}\u{1b}[31m\u{2066}é".as_bytes(), 60), "/a?b??[31m?é");
    }
}
