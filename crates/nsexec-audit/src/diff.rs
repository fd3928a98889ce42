//! Compares two runs, section by section.

mod unified;

use core::fmt;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::normalise::normalise;
use super::transcript::{End, Origin, Run, Section};
use super::witness::as_shown;
use crate::record::{Bytes, Call, Line, Reply, without_value};
use nsexec::sys::types::Signal;

pub use unified::unified;

/// The number of lines shown before and after the first different one.
pub const CONTEXT: usize = 2;

/// The differences between two runs. No sections mean no difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diff {
    /// The origin of the first run.
    pub left: Origin,
    /// The origin of the second run.
    pub right: Origin,
    /// The sections that differ.
    pub sections: Vec<Difference>,
}

/// The first difference in a section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The section.
    pub section: String,
    /// The first line that differs, from 1. The end of a process counts as a line.
    pub line: usize,
    /// The lines around it in the first run, with their numbers. Empty if the section is missing there.
    pub left: Vec<(usize, String)>,
    /// The same in the second run.
    pub right: Vec<(usize, String)>,
    /// A difference that the lines do not show, such as the names of the environment variables that differ.
    /// Never has a value of a variable.
    pub unseen: Option<String>,
}

impl Diff {
    /// Returns whether the runs are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }
}

/// Compares two runs.
///
/// A record and a witness are two views of the same run. They are compared without renaming; only what strace
/// does not show is left out ([`NOT_SHOWN`](super::witness::NOT_SHOWN)). Any other two runs are different
/// runs, and are compared after [`normalise`].
#[must_use]
pub fn compare(left: &Run, right: &Run) -> Diff {
    let mut diff = Diff { left: left.origin, right: right.origin, sections: Vec::new() };
    let pair = Pair::of(left, right);
    for (name, sections) in pair.sections() {
        diff.sections.extend(difference(name, sections, pair.same_run));
    }
    diff
}

/// Two runs as they are compared.
struct Pair {
    left: Run,
    right: Run,
    /// The origins of both, if they are views of the same run.
    same_run: Option<[Origin; 2]>,
}

impl Pair {
    fn of(left: &Run, right: &Run) -> Self {
        let origins = [left.origin, right.origin];
        let witnessed = origins.contains(&Origin::Witnessed);
        let same_run = witnessed && origins.contains(&Origin::Recorded);
        let prepared = |run: &Run| {
            let run = if witnessed { as_shown(run) } else { run.clone() };
            if same_run { run } else { normalise(&run) }
        };
        Self { left: prepared(left), right: prepared(right), same_run: same_run.then_some(origins) }
    }

    /// Returns each process of the runs: its name, and its section in each of them.
    fn sections(&self) -> impl Iterator<Item = (String, [Option<&Section>; 2])> {
        let Self { left, right, .. } = self;
        let mut roles: Vec<_> =
            left.sections.iter().chain(&right.sections).map(|section| section.role).collect();
        roles.sort_unstable();
        roles.dedup();
        roles.into_iter().map(|role| {
            let sections = [left.section(role), right.section(role)];
            let first = sections.iter().flatten().next();
            (first.map_or_else(|| role.to_string(), |some| some.name.clone()), sections)
        })
    }
}

/// A line as it is compared. An undeclared call equals no other line.
enum Item<'s> {
    Line(&'s Line),
    Foreign(&'s str),
    End(End),
}

impl Item<'_> {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Line(one), Self::Line(other)) => one == other,
            (Self::End(one), Self::End(other)) => one == other,
            _ => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Line(line) => line.to_string(),
            Self::Foreign(text) => format!("{text} (not declared)"),
            Self::End(end) => format!("+++ {end} +++"),
        }
    }
}

/// Returns the lines of a section. `ends`: whether both runs have the process's end, so that it can be
/// compared.
fn items(section: &Section, ends: bool) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut foreign = section.foreign.iter().peekable();
    for index in 0..=section.lines.len() {
        while let Some(foreign) = foreign.next_if(|foreign| foreign.after <= index) {
            items.push(Item::Foreign(&foreign.text));
        }
        items.extend(section.lines.get(index).map(Item::Line));
    }
    if ends {
        items.push(Item::End(section.end));
    }
    items
}

/// Returns the lines of both sections. The end of the process is a line if both runs show it.
fn both(sections: [Option<&Section>; 2]) -> [Vec<Item<'_>>; 2] {
    // After an exec, the end belongs to the executed program.
    let known = |section: &Option<&Section>| {
        section.is_none_or(|section| {
            let executed = section.lines.last().is_some_and(|line| line.reply == Reply::NoReturn);
            section.end != End::Unknown && !executed
        })
    };
    let ends = sections.iter().all(known);
    sections.map(|section| section.map_or_else(Vec::new, |section| items(section, ends)))
}

/// Returns the first difference of two sections. `same_run`: the origins of both, if they are views of the
/// same run.
fn difference(
    name: String,
    sections: [Option<&Section>; 2],
    same_run: Option<[Origin; 2]>,
) -> Option<Difference> {
    let [left, right] = both(sections);
    let same = left.iter().zip(&right).take_while(|(left, right)| left.same(right)).count();
    let killed =
        |section: Option<&Section>| section.is_some_and(|section| section.end == End::Signaled(Signal::KILL));
    // The process was killed before the recorder wrote its first line. In another run it may have come
    // further: the lines of its parent, which created and reaped it, are the same.
    let unborn = match (same_run, sections) {
        (Some([Origin::Recorded, _]), [None, Some(seen)])
        | (Some([Origin::Witnessed, _]), [Some(seen), None]) => {
            killed(Some(seen))
                && seen.foreign.is_empty()
                && seen.lines.iter().all(|line| line.reply == Reply::Child)
        }
        (None, [None, Some(seen)] | [Some(seen), None]) => killed(Some(seen)) && seen.foreign.is_empty(),
        _ => false,
    };
    if unborn {
        return None;
    }
    // Both end with SIGKILL. Before that, one of them has more calls.
    if sections.into_iter().all(killed) && same + 1 >= left.len().min(right.len()) {
        let rest = |items| rest_before_the_end(items, same);
        let may_be = same_run.is_none_or(|origins| match origins {
            [Origin::Witnessed, _] => sigkill_explains(rest(&right), rest(&left)),
            _ => sigkill_explains(rest(&left), rest(&right)),
        });
        if may_be {
            return None;
        }
    }
    if same == left.len() && same == right.len() && sections.iter().all(Option::is_some) {
        return None;
    }
    let around = |items: &[Item<'_>]| {
        let numbered = items.iter().enumerate().skip(same.saturating_sub(CONTEXT));
        let shown = numbered.take_while(|(index, _)| *index <= same + CONTEXT);
        shown.map(|(index, item)| (index + 1, item.text())).collect()
    };
    let unseen = left.get(same).zip(right.get(same)).and_then(|(left, right)| unseen(left, right));
    Some(Difference { section: name, line: same + 1, left: around(&left), right: around(&right), unseen })
}

/// Returns the items after the first `same` ones, without the end of the process.
fn rest_before_the_end<'i, 's>(items: &'i [Item<'s>], same: usize) -> &'i [Item<'s>] {
    items.get(same..items.len().saturating_sub(1)).unwrap_or_default()
}

/// Returns whether SIGKILL explains the difference between the rest of a record and of its witness. Either
/// the recorder had not written the last call yet, or it had announced an exec or a close that did not
/// happen.
fn sigkill_explains(record: &[Item<'_>], witness: &[Item<'_>]) -> bool {
    match (record, witness) {
        ([], []) | ([], [Item::Line(_)]) => true,
        ([Item::Line(Line { call, reply })], []) => {
            let closes = matches!(call, Call::Close { .. } | Call::CloseRange { .. });
            *reply == Reply::NoReturn || closes && *reply == Reply::Unit
        }
        _ => false,
    }
}

/// Describes a difference of two lines that their text does not show.
fn unseen(left: &Item<'_>, right: &Item<'_>) -> Option<String> {
    let (Item::Line(left), Item::Line(right)) = (left, right) else { return None };
    match (&left.call, &right.call) {
        (
            Call::Execve { envp: left, .. } | Call::Execveat { envp: left, .. },
            Call::Execve { envp: right, .. } | Call::Execveat { envp: right, .. },
        ) if left != right => Some(format!("the environments differ: {}", environments(left, right))),
        _ if left.to_string() == right.to_string() => {
            Some("they differ in a value that the text does not show".to_string())
        }
        _ => None,
    }
}

/// Names the variables in which two environments differ. Never shows a value: values may be secrets.
fn environments(left: &[Bytes], right: &[Bytes]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut behind: Vec<&Bytes> = right.iter().collect();
    let mut missing: Vec<&Bytes> = Vec::new();
    for variable in left {
        match behind.iter().position(|other| *other == variable) {
            Some(at) => drop(behind.remove(at)),
            None => missing.push(variable),
        }
    }
    let name = |variable: &Bytes| {
        let name = without_value(&variable.0).0;
        let end = name.iter().rposition(|byte| *byte == b'=').unwrap_or(0);
        name.get(..end).unwrap_or_default().escape_ascii().to_string()
    };
    for variable in missing {
        match behind.iter().position(|other| name(other) == name(variable)) {
            Some(at) => {
                behind.remove(at);
                words.push(format!("{} has another value", name(variable)));
            }
            None => words.push(format!("{} is only in the first", name(variable))),
        }
    }
    words.extend(behind.into_iter().map(|variable| format!("{} is only in the second", name(variable))));
    if words.is_empty() {
        words.push("another order".to_string());
    }
    words.join(", ")
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_names([&self.left.to_string(), &self.right.to_string()]))
    }
}

impl Diff {
    /// Returns the differences as text, with these names of both runs.
    #[must_use]
    pub fn with_names(&self, [left, right]: [&str; 2]) -> String {
        let mut out = String::new();
        for difference in &self.sections {
            out.push_str(&format!("{}: line {} differs\n", difference.section, difference.line));
            for (name, lines) in [(left, &difference.left), (right, &difference.right)] {
                out.push_str(&format!("  {name}:\n"));
                if lines.is_empty() {
                    out.push_str("        (no such process)\n");
                }
                for (number, text) in lines {
                    let mark = if *number == difference.line { '>' } else { ' ' };
                    out.push_str(&format!("  {mark} {number:>4}  {text}\n"));
                }
                if lines.last().is_some_and(|(number, _)| *number < difference.line) {
                    out.push_str(&format!("  > {:>4}  (nothing more)\n", difference.line));
                }
            }
            if let Some(unseen) = &difference.unseen {
                out.push_str(&format!("  ({unseen})\n"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Call;
    use crate::transcript::{Foreign, Role};
    use nsexec::sys::types::{Errno, Fd};
    use std::vec;

    pub(in crate::diff) fn run(names: &[&str]) -> Run {
        let mut section = Section::new(Role::Stage(1));
        section.lines = names
            .iter()
            .map(|name| Line { call: Call::SetName { name: name.as_bytes().into() }, reply: Reply::Unit })
            .collect();
        Run { sections: vec![section], ..Run::default() }
    }

    #[test]
    fn equal_runs_have_no_difference() {
        assert!(compare(&run(&["a", "b"]), &run(&["a", "b"])).is_empty());
    }

    #[test]
    fn the_first_difference_is_shown_with_two_lines_around_it() {
        let diff = compare(&run(&["a", "b", "c", "d", "e", "f", "g"]), &run(&["a", "b", "c", "x"]));
        let expected = "\
stage-1 child: line 4 differs
  record:
       2  prctl(PR_SET_NAME, \"b\") = 0
       3  prctl(PR_SET_NAME, \"c\") = 0
  >    4  prctl(PR_SET_NAME, \"d\") = 0
       5  prctl(PR_SET_NAME, \"e\") = 0
       6  prctl(PR_SET_NAME, \"f\") = 0
  record:
       2  prctl(PR_SET_NAME, \"b\") = 0
       3  prctl(PR_SET_NAME, \"c\") = 0
  >    4  prctl(PR_SET_NAME, \"x\") = 0
";
        assert_eq!(diff.to_string(), expected);
    }

    #[test]
    fn compares_only_the_common_prefix_after_sigkill() {
        let killed = |names: &[&str], signal| {
            let mut run = run(names);
            run.sections[0].end = End::Signaled(signal);
            run
        };
        let whole = killed(&["a", "b", "c"], Signal::KILL);
        for shorter in [&["a"][..], &["a", "b"], &[], &["a", "b", "c"]] {
            assert!(compare(&whole, &killed(shorter, Signal::KILL)).is_empty(), "{shorter:?}");
            assert!(compare(&killed(shorter, Signal::KILL), &whole).is_empty(), "{shorter:?}");
        }
        // In one of the runs it was killed before its first line, so that run has no section of it.
        let nothing = Run::default();
        assert!(compare(&whole, &nothing).is_empty() && compare(&nothing, &whole).is_empty());
        assert!(!compare(&killed(&["a"], Signal::TERM), &nothing).is_empty());
        assert!(!compare(&whole, &killed(&["a", "x"], Signal::KILL)).is_empty());
        assert!(!compare(&whole, &killed(&["a", "b"], Signal::TERM)).is_empty());
        assert!(
            !compare(&killed(&["a", "b", "c"], Signal::TERM), &killed(&["a", "b"], Signal::TERM)).is_empty()
        );
    }

    /// Two views of the same run: the record may lack the last call, or have one announced exec more.
    #[test]
    fn killed_record_may_lack_one_call_only() {
        let killed = |origin, names: &[&str]| {
            let mut run = run(names);
            (run.origin, run.sections[0].end) = (origin, End::Signaled(Signal::KILL));
            run
        };
        let record = |names: &[&str]| killed(Origin::Recorded, names);
        let seen = |names: &[&str]| killed(Origin::Witnessed, names);
        for (said, saw, same) in [
            (&["a"][..], &["a", "b"][..], true),
            (&["a", "b"], &["a", "b"], true),
            (&["a"], &["a", "b", "c"], false),
            (&["a", "b"], &["a"], false),
            (&["a"], &["x"], false),
        ] {
            assert_eq!(compare(&record(said), &seen(saw)).is_empty(), same, "{said:?}, {saw:?}");
            assert_eq!(compare(&seen(saw), &record(said)).is_empty(), same, "{said:?}, {saw:?}");
        }
        let mut announced = record(&["a"]);
        let exec = Call::Execve { path: Bytes::default(), argv: vec![], envp: vec![] };
        announced.sections[0].lines.push(Line { call: exec, reply: Reply::NoReturn });
        assert!(compare(&announced, &seen(&["a"])).is_empty());
        for (reply, same) in [(Reply::Unit, true), (Reply::Errno(Errno::EBADF), false)] {
            let close = Line { call: Call::Close { fd: Fd(3) }, reply };
            *announced.sections[0].lines.last_mut().unwrap() = close;
            assert_eq!(compare(&announced, &seen(&["a"])).is_empty(), same);
        }
        // A process that was killed before its first line is in the witness only.
        let nothing = Run { origin: Origin::Recorded, ..Run::default() };
        assert!(compare(&nothing, &seen(&[])).is_empty());
        assert!(!compare(&nothing, &seen(&["a"])).is_empty());
    }

    /// A record and a witness are views of the same run, so nothing is renamed. A plan is another run.
    #[test]
    fn only_different_runs_are_renamed() {
        let kill = |origin, pid| {
            let mut section = Section::new(Role::Launcher);
            let fork = Call::Fork { exit: nsexec::sys::types::ExitSignal::None, tid: None };
            let pid = nsexec::sys::types::Pid(pid);
            section.lines = vec![
                Line { call: fork, reply: Reply::Parent(pid) },
                Line { call: Call::Kill { pid, signal: Signal::KILL }, reply: Reply::Unit },
            ];
            Run { origin, sections: vec![section], ..Run::default() }
        };
        use Origin::{Planned, Recorded, Witnessed};
        for (one, other, same) in [
            (Planned, Recorded, true),
            (Planned, Witnessed, true),
            (Recorded, Recorded, true),
            (Recorded, Witnessed, false),
            (Witnessed, Recorded, false),
        ] {
            assert_eq!(compare(&kill(one, 7), &kill(other, 8)).is_empty(), same, "{one} and {other}");
            assert!(compare(&kill(one, 7), &kill(other, 7)).is_empty());
        }
    }

    #[test]
    fn environment_differences_show_names_only() {
        let exec = |variables: &[&str]| {
            let mut run = run(&["a"]);
            let envp = variables.iter().map(|variable| variable.as_bytes().into()).collect();
            let call = Call::Execve { path: Bytes::default(), argv: vec![], envp };
            run.sections[0].lines.push(Line { call, reply: Reply::NoReturn });
            run
        };
        let said = |left: &[&str], right: &[&str]| {
            let text = compare(&exec(left), &exec(right)).to_string();
            assert!(!text.contains("s3cret"), "{text}");
            let found =
                text.split_once("the environments differ: ").and_then(|(_, rest)| rest.split_once(')'));
            found.map(|(words, _)| words.to_string()).unwrap_or(text)
        };
        assert_eq!(said(&["A=s3cret"], &["A=s3cret"]), "");
        assert_eq!(
            said(&["A=s3cret"], &["A=s3cret", "LD_PRELOAD=s3cret"]),
            "LD_PRELOAD is only in the second"
        );
        assert_eq!(
            said(&["A=s3cret1", "B=1"], &["A=s3cret2"]),
            "A has another value, B is only in the first"
        );
        assert_eq!(said(&["A=1", "B=s3cret"], &["B=s3cret", "A=1"]), "another order");
        assert_eq!(said(&["A\x1b=s3cret"], &[]), "A\\x1b is only in the first");
    }

    #[test]
    fn missing_line_missing_process_and_foreign_call_differ() {
        let whole = run(&["a", "b"]);
        let shorter = compare(&whole, &run(&["a"]));
        assert!(shorter.to_string().contains(">    2  (nothing more)"), "{shorter}");
        let missing = compare(&whole, &Run::default());
        assert!(missing.to_string().contains("(no such process)"), "{missing}");
        let mut foreign = whole.clone();
        foreign.sections[0].foreign.push(Foreign { after: 1, text: "uname({…}) = 0".into() });
        let diff = compare(&whole, &foreign);
        assert!(diff.to_string().contains(">    2  uname({…}) = 0 (not declared)"), "{diff}");
    }
}
