//! Puts the calls of all processes into one order in which they can have happened.
//!
//! The order follows from the [`events`](mod@super::events): a process begins after the call that creates it,
//! a message is read after it is sent, and a process is reaped after its end. Between two events the calls of
//! a process stay together.

use std::vec;
use std::vec::Vec;

use super::events::{EventKind, events};
use super::{Document, SectionView};
use crate::record::Call;
use crate::transcript::Role;

/// A step of the whole run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A call: the index of its section, and of its line there.
    Line(usize, usize),
    /// The end of the process with this section.
    End(usize),
}

/// Returns every line of every section once, and the end of each process.
#[must_use]
pub fn in_time(document: &Document<'_>) -> Vec<Step> {
    let count = document.sections.len();
    let mut order = Order { document, next: vec![0; count], ended: vec![false; count], steps: Vec::new() };
    for event in events(document) {
        match (event.source, event.what) {
            (Some((section, line)), _) => order.advance(section, line + 1),
            (None, EventKind::End { role, .. }) => {
                if let Some(section) = order.first_running(role) {
                    order.end(section);
                }
            }
            (None, _) => {}
        }
    }
    for section in 0..count {
        order.end(section);
    }
    order.steps
}

struct Order<'d, 'a> {
    document: &'d Document<'a>,
    /// The next line of each section.
    next: Vec<usize>,
    ended: Vec<bool>,
    steps: Vec<Step>,
}

impl Order<'_, '_> {
    fn section(&self, index: usize) -> Option<&SectionView<'_>> {
        self.document.sections.get(index)
    }

    /// Adds the lines of a section up to `end`.
    fn advance(&mut self, section: usize, end: usize) {
        let begin = self.next.get(section).copied().unwrap_or(end);
        for line in begin..end {
            self.steps.push(Step::Line(section, line));
            if let Some(next) = self.next.get_mut(section) {
                *next = line + 1;
            }
            if self.creates_an_init(section, line) {
                self.given_up();
            }
        }
    }

    /// Adds the rest of a section, and its end.
    fn end(&mut self, section: usize) {
        if self.ended.get(section).copied().unwrap_or(true) {
            return;
        }
        let lines = self.section(section).map_or(0, |view| view.section.lines.len());
        self.advance(section, lines);
        self.steps.push(Step::End(section));
        if let Some(ended) = self.ended.get_mut(section) {
            *ended = true;
        }
    }

    fn first_running(&self, role: Role) -> Option<usize> {
        let running = |index: &usize| self.ended.get(*index) == Some(&false);
        let has_role = |index: &usize| self.section(*index).and_then(SectionView::column) == Some(role);
        (0..self.ended.len()).filter(running).find(has_role)
    }

    fn creates_an_init(&self, section: usize, line: usize) -> bool {
        let line = self.section(section).and_then(|view| view.section.lines.get(line));
        line.is_some_and(|line| matches!(line.call, Call::CloneInit { .. }) && line.reply.child().is_some())
    }

    /// Adds the processes that no event shows. The launcher has created them for a direct start that it gave
    /// up, and killed them.
    fn given_up(&mut self) {
        for section in 0..self.ended.len() {
            if self.section(section).is_some_and(|view| view.column().is_none()) {
                self.end(section);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::super::walk::{Object, walk};
    use super::*;
    use crate::record::Reply;

    #[test]
    fn every_call_stands_once_and_after_its_cause() {
        for sample in samples() {
            sample.with(|document| {
                let steps = in_time(document);
                let walked = walk(document);
                let at = |wanted: Step| steps.iter().position(|step| *step == wanted).unwrap();
                let count: usize = walked.iter().map(Vec::len).sum();
                assert_eq!(steps.len(), count + walked.len(), "{}", sample.name);
                let mut sent = std::collections::BTreeMap::new();
                let mut received = std::collections::BTreeMap::new();
                for (section, seen) in walked.iter().enumerate() {
                    let positions: Vec<usize> =
                        (0..seen.len()).map(|line| at(Step::Line(section, line))).collect();
                    assert!(positions.is_sorted(), "{}", sample.name);
                    assert!(positions.iter().all(|line| *line < at(Step::End(section))));
                    for (line, seen) in seen.iter().enumerate() {
                        let Some(Object::End { channel, outer }) = &seen.context.object else { continue };
                        match (&seen.line.call, &seen.line.reply) {
                            (Call::Send { .. }, Reply::Count(_)) => {
                                sent.entry((*channel, *outer)).or_insert(at(Step::Line(section, line)));
                            }
                            (Call::Read { .. }, Reply::Data(data)) if !data.0.is_empty() => {
                                received.entry((*channel, !*outer)).or_insert(at(Step::Line(section, line)));
                            }
                            _ => {}
                        }
                    }
                }
                for (stream, read) in received {
                    // A sample without a launcher has reads without their sends.
                    assert!(sent.get(&stream).is_none_or(|sent| *sent < read), "{} {stream:?}", sample.name);
                }
            });
        }
    }
}
