//! Two runs, compared section by section.

use core::fmt;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::normalise::{Grade, normalise};
use super::transcript::{End, Origin, Run, Section};
use crate::sys::record::{Line, Reply};
use crate::sys::types::Signal;

/// Lines shown before and behind the first that differs.
pub const CONTEXT: usize = 2;

/// What differs between two runs; nothing if there are no sections in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diff {
    /// Where the first run comes from.
    pub left: Origin,
    /// Where the second comes from.
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
    /// The lines around it in the first run, with their numbers. Without any, the section is missing there.
    pub left: Vec<(usize, String)>,
    /// The same in the second run.
    pub right: Vec<(usize, String)>,
}

impl Diff {
    /// Whether the runs are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }
}

/// Compares two runs, as far as a witness can tell if one of them is one.
#[must_use]
pub fn compare(left: &Run, right: &Run) -> Diff {
    let witnessed = [left.origin, right.origin].contains(&Origin::Witnessed);
    let grade = if witnessed { Grade::Witness } else { Grade::Full };
    let mut diff = Diff { left: left.origin, right: right.origin, sections: Vec::new() };
    let (left, right) = (normalise(left, grade), normalise(right, grade));
    let mut roles: Vec<_> = left.sections.iter().chain(&right.sections).map(|section| section.role).collect();
    roles.sort_unstable();
    roles.dedup();
    for role in roles {
        let sections = [left.section(role), right.section(role)];
        let name =
            sections.iter().flatten().next().map_or_else(|| role.to_string(), |some| some.name.clone());
        diff.sections.extend(difference(name, sections));
    }
    diff
}

/// A line as it is compared. What nobody declared is equal to nothing.
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

/// `ends`: both know how the process ended, so it can be compared.
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

fn difference(name: String, sections: [Option<&Section>; 2]) -> Option<Difference> {
    // The end of a process that executed something is that program's.
    let known = |section: &Option<&Section>| {
        section.is_none_or(|section| {
            let executed = section.lines.last().is_some_and(|line| line.reply == Reply::NoReturn);
            section.end != End::Unknown && !executed
        })
    };
    let ends = sections.iter().all(known);
    let [left, right] = sections.map(|section| section.map(|section| items(section, ends)));
    let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
    let same = left.iter().zip(&right).take_while(|(left, right)| left.same(right)).count();
    let killed =
        |section: Option<&Section>| section.is_some_and(|section| section.end == End::Signaled(Signal::KILL));
    // Both end with that line; before it, one has come further.
    if sections.into_iter().all(killed) && same + 1 >= left.len().min(right.len()) {
        return None;
    }
    if same == left.len() && same == right.len() && sections.iter().all(Option::is_some) {
        return None;
    }
    let around = |items: &[Item<'_>]| {
        let numbered = items.iter().enumerate().skip(same.saturating_sub(CONTEXT));
        let shown = numbered.take_while(|(index, _)| *index <= same + CONTEXT);
        shown.map(|(index, item)| (index + 1, item.text())).collect()
    };
    Some(Difference { section: name, line: same + 1, left: around(&left), right: around(&right) })
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.sections {
            writeln!(f, "{}: line {} differs", difference.section, difference.line)?;
            for (origin, lines) in [(self.left, &difference.left), (self.right, &difference.right)] {
                writeln!(f, "  {origin}:")?;
                if lines.is_empty() {
                    writeln!(f, "        (no such process)")?;
                }
                for (number, text) in lines {
                    let mark = if *number == difference.line { '>' } else { ' ' };
                    writeln!(f, "  {mark} {number:>4}  {text}")?;
                }
                if lines.last().is_some_and(|(number, _)| *number < difference.line) {
                    writeln!(f, "  > {:>4}  (nothing more)", difference.line)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::transcript::{Foreign, Role};
    use crate::sys::record::Call;
    use std::vec;

    fn run(names: &[&str]) -> Run {
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
    fn of_whom_sigkill_ended_only_what_both_came_to_is_compared() {
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
        assert!(!compare(&whole, &killed(&["a", "x"], Signal::KILL)).is_empty());
        assert!(!compare(&whole, &killed(&["a", "b"], Signal::TERM)).is_empty());
        assert!(
            !compare(&killed(&["a", "b", "c"], Signal::TERM), &killed(&["a", "b"], Signal::TERM)).is_empty()
        );
    }

    #[test]
    fn one_line_less_one_process_less_and_an_undeclared_call_are_differences() {
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
