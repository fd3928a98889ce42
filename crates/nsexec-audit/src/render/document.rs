//! The parts of a [`Document`] that follow from a run: the end of each process, in words.

use std::borrow::ToOwned;
use std::string::{String, ToString};
use std::vec::Vec;

use super::words::Payload;
use super::{Document, Fate, SectionView};
use crate::record::Call;
use crate::transcript::{End, Role, Run, Section};

/// Calls `show` with the document of a run. `base` has its other parts.
pub fn with_sections<T>(run: &Run, base: &Document<'_>, show: impl FnOnce(&Document<'_>) -> T) -> T {
    let outcomes: Vec<(String, Fate)> = run.sections.iter().map(|section| outcome(section, run)).collect();
    let sections = run.sections.iter().zip(&outcomes);
    let sections: Vec<SectionView<'_>> =
        sections.map(|(section, (outcome, fate))| SectionView { section, outcome, fate: *fate }).collect();
    show(&Document { sections: &sections, ..*base })
}

/// Returns the end of a process of a run, in words and as a class.
pub fn outcome(section: &Section, run: &Run) -> (String, Fate) {
    // With a minimal init its child becomes the command.
    let command = run.section(Role::Stage(3)).or_else(|| run.section(Role::Stage(2))).map(|last| last.end);
    let is_init = section.role == Role::Stage(2) && run.section(Role::Stage(3)).is_some();
    if is_init && section.end == End::Unknown && command == Some(End::Executed) {
        return ("waits for the command".to_owned(), Fate::Continues);
    }
    if section.role == Role::Launcher && section.end == End::Unknown && run.pins_namespaces() {
        return ("returns: the namespaces are on their files".to_owned(), Fate::Ended);
    }
    let fate = match (section.role, section.end) {
        (Role::Launcher, End::Unknown) => match command {
            Some(End::Executed | End::HandedOver) => Fate::Continues,
            _ => Fate::Failed,
        },
        (_, End::Executed | End::HandedOver) => Fate::Continues,
        (_, End::Exited(0)) => Fate::Ended,
        _ => Fate::Failed,
    };
    // A plan contains the end of every stage that ends.
    let waits = |section: &Section| section.role != Role::Launcher && section.end == End::Unknown;
    let words = match (section.role, section.end, fate) {
        (Role::Launcher, End::Unknown, Fate::Continues) => "waits for the command".to_owned(),
        (_, End::Unknown, _) if waits(section) || run.sections.iter().any(waits) => {
            "waits for ever".to_owned()
        }
        (Role::Launcher, End::Unknown, _) => "reports the failure".to_owned(),
        (_, end, _) => end.to_string(),
    };
    (words, fate)
}

/// Returns the pid line that stage 0 sent, without its newline.
pub(crate) fn pid_line(run: &Run) -> Option<String> {
    let lines = &run.section(Role::Stage(0))?.lines;
    lines.iter().find_map(|line| match &line.call {
        Call::Send { data, .. } if Payload::to_launcher(&data.0) == Payload::PidLine => {
            Some(String::from_utf8_lossy(&data.0).trim_end().to_string())
        }
        _ => None,
    })
}

/// Returns the records on the log pipe, in the order of the sections.
pub(crate) fn log(run: &Run) -> Vec<String> {
    let lines = run.sections.iter().flat_map(|section| &section.lines);
    let records = lines.filter_map(|line| match &line.call {
        Call::WriteNowait { data, .. } => Some(String::from_utf8_lossy(&data.0).trim_end().to_string()),
        _ => None,
    });
    records.collect()
}
