//! A parser for the log records that [`layout`](crate::log::layout) writes, and their collector. The parser
//! never fails by a panic.

use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use core::fmt;

use super::script::LogReader;
use crate::deciders::bootstrap::text::is_invisible;
use crate::sys::types::Errno;
use crate::words::error::Code;
use crate::words::log::{Level, RECORD_MAX};

/// One log record of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The level.
    pub level: Level,
    /// The stage that wrote it; `None` before a stage was chosen.
    pub stage: Option<u8>,
    /// The writer's pid, in its own pid namespace.
    pub pid: i32,
    /// The text. That of a fatal record with an errno ends with the errno in words.
    pub text: String,
    /// The stable name of the failure: see [`Error::code`](crate::error::Error::code). Fatal records only.
    pub code: Option<Code>,
    /// The error of the failed call. Fatal records only.
    pub errno: Option<Errno>,
}

impl Record {
    /// Parses one line, without its newline. Returns `None` for any line that `layout` does not write. A code
    /// that this version does not have is left out.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("{\"level\":\"")?;
        let (level, rest) = rest.split_once("\", \"msg\": \"nsexec")?;
        let level = (0..=6).map(Level::from_number).find(|known| known.name() == level)?;
        let (stage, rest) = match rest.strip_prefix('-') {
            Some(rest) => rest.split_once('[').map(|(stage, rest)| (Some(stage), rest))?,
            None => (None, rest.strip_prefix('[')?),
        };
        let stage = stage.map(str::parse).transpose().ok()?;
        let (pid, rest) = rest.split_once("]: ")?;
        let pid = pid.parse().ok()?;
        let (text, rest) = unescape(rest)?;
        let (code, rest) = match rest.strip_prefix(", \"code\": \"") {
            Some(rest) => rest.split_once('"').map(|(code, rest)| (Code::from_text(code), rest))?,
            None => (None, rest),
        };
        let (errno, rest) = match rest.strip_prefix(", \"errno\": ") {
            Some(rest) => {
                let (errno, rest) = rest.split_at_checked(rest.find('}')?)?;
                (Some(Errno(errno.parse().ok()?)), rest)
            }
            None => (None, rest),
        };
        (rest == "}").then_some(Self { level, stage, pid, text, code, errno })
    }
}

impl fmt::Display for Record {
    /// Writes `stage-1: TEXT` on one line, with control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(f, "stage-{stage}: ")?;
        }
        OneLine(&self.text).fmt(f)
    }
}

/// A text for a terminal. Control characters, which a path may contain, and characters that change the
/// direction of text are escaped.
pub(super) struct OneLine<'t>(pub(super) &'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|c| match is_invisible(c) {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// Decodes a JSON string up to its closing quote. Returns it, and the text after the quote.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((out, chars.as_str())),
            '\\' => out.push(match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (digits, rest) = chars.as_str().split_at_checked(4)?;
                    chars = rest.chars();
                    char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                }
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
}

/// The maximum number of fatal records. Three stages write one each, and one more for each namespace that
/// could not be joined.
const FATAL_MAX: usize = 32;

/// The maximum number of other records. The longest launch, with 340 map lines, writes far fewer.
const OTHER_MAX: usize = 4096;

/// The function that gets the records that are not fatal.
pub(super) type OnRecord = Arc<Mutex<dyn FnMut(&Record) + Send>>;

/// Parses and keeps the bytes of a log pipe. It calls no code of the caller while the stages run.
#[derive(Debug, Default)]
pub struct Collector {
    line: Vec<u8>,
    fatal: Vec<Record>,
    other: Vec<Record>,
}

impl Collector {
    /// Returns the fatal records, and the others, each in the order of arrival.
    pub(super) fn into_records(self) -> (Vec<Record>, Vec<Record>) {
        (self.fatal, self.other)
    }

    /// Returns the fatal records, in the order of arrival.
    #[must_use]
    pub fn into_fatal(self) -> Vec<Record> {
        self.fatal
    }

    fn end_line(&mut self) {
        let line = core::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        // All writers are our own stages. A line that is not a record is kept as a warning, so that it is not
        // lost.
        let record = Record::parse(&line).unwrap_or_else(|| Record {
            level: Level::Warning,
            stage: None,
            pid: 0,
            text: line.into_owned(),
            code: None,
            errno: None,
        });
        let (records, max) = match record.level {
            Level::Panic | Level::Fatal => (&mut self.fatal, FATAL_MAX),
            _ => (&mut self.other, OTHER_MAX),
        };
        if records.len() < max {
            records.push(record);
        }
    }
}

impl LogReader for Collector {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < RECORD_MAX {
                self.line.push(*byte);
            }
        }
    }

    fn fatal(&self) -> bool {
        !self.fatal.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::types::Pid;
    use crate::words::log::{Details, Writer, layout};
    use proptest::prelude::*;
    use std::string::ToString;

    fn laid_out(level: Level, writer: (Writer, Pid), text: &str, details: Option<Details>) -> Vec<u8> {
        let mut buffer = [0; RECORD_MAX];
        let len = layout(&mut buffer, level, writer, format_args!("{text}"), details);
        buffer[..len].to_vec()
    }

    proptest! {
        // The default file of failures would be created beside the source.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parse_reads_what_layout_writes(
            number in 0_u32..7,
            stage in proptest::option::of(0_u8..3),
            pid in 1..i32::MAX,
            text in "\\PC{0,80}|[\\x00-\\x7f\"\\\\]{0,80}",
            errno in proptest::option::of(proptest::option::of(1_i32..200)),
        ) {
            let level = Level::from_number(number);
            let writer = (stage.map_or(Writer::Setup, Writer::Stage), Pid(pid));
            let details = errno.map(|errno| Details { code: Code::UnshareUser, errno: errno.map(Errno) });
            let bytes = laid_out(level, writer, &text, details);
            let line = core::str::from_utf8(&bytes).unwrap().strip_suffix('\n').unwrap();
            prop_assert_eq!(Record::parse(line), Some(Record {
                level,
                stage,
                pid,
                text,
                code: details.map(|details| details.code),
                errno: details.and_then(|details| details.errno),
            }));
        }

        #[test]
        fn parse_of_any_line_does_not_panic(line in ".{0,200}") {
            let _ = Record::parse(&line);
        }

        #[test]
        fn truncated_record_is_rejected(cut in 0_usize..200) {
            let details = Some(Details { code: Code::Join, errno: Some(Errno::EPERM) });
            let bytes = laid_out(Level::Fatal, (Writer::Stage(1), Pid(7)), "a \"b\" \u{1}", details);
            let line = core::str::from_utf8(&bytes).unwrap().strip_suffix('\n').unwrap();
            prop_assume!(cut < line.len());
            prop_assert_eq!(Record::parse(&line[..cut]), None);
        }
    }

    #[test]
    fn collector_accepts_pieces_of_any_length() {
        let mut bytes = laid_out(Level::Warning, (Writer::Stage(0), Pid(5)), "one", None);
        bytes.extend(laid_out(Level::Fatal, (Writer::Stage(1), Pid(6)), "two", None));
        bytes.extend(b"no record\n");
        for size in 1..bytes.len() {
            let mut collector = Collector::default();
            bytes.chunks(size).for_each(|piece| collector.take(piece));
            assert!(collector.fatal());
            let (fatal, other) = collector.into_records();
            assert_eq!((fatal.len(), fatal[0].to_string()), (1, "stage-1: two".into()));
            let texts: Vec<_> = other.iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["stage-0: one", "no record"]);
        }
    }

    #[test]
    fn a_record_is_shown_on_one_line() {
        let line = r#"{"level":"fatal", "msg": "nsexec-1[3]: failed to open /a\n\u001b[31m: No such file or directory"}"#;
        let record = Record::parse(line).unwrap();
        assert_eq!(record.to_string(), "stage-1: failed to open /a\\n\\u{1b}[31m: No such file or directory");
    }
}
