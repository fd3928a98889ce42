//! `nsexec diff`: compares two stored runs, of two machines, two kernels or two versions.

use nsexec_audit::Run;
use nsexec_audit::diff::{compare, unified};
use nsexec_audit::render::saved;

use super::args::DiffArgs;
use super::failure::Failure;
use super::output;
use super::printable;
use super::show;

/// The exit status if the runs differ, as that of `trace`.
const DIFFERENT: u8 = 3;

/// The longest note whose two values are printed.
const NOTE_MAX: usize = 120;

/// Prints the differences of two runs. Returns 0 if their calls are equal, else 3.
///
/// # Errors
/// A file cannot be read, or is not a run.
pub(crate) fn diff(args: &DiffArgs) -> Result<u8, Failure> {
    if [&args.left, &args.right].iter().all(|file| file.as_os_str() == "-") {
        return Err(Failure::Usage("only one of both files can be standard input".to_owned()));
    }
    // One of the files may have the values of the environment, and the other only the names.
    let (left, right) = (show::read(&args.left)?.without_values(), show::read(&args.right)?.without_values());
    let names = [&args.left, &args.right].map(|file| file.display().to_string());
    let (mut text, equal) = differences(&left, &right, [&names[0], &names[1]]);
    if args.html {
        text = left.to_html_beside(&right);
    }
    // Names and notes in the files must not send control sequences to the terminal.
    output::print(&text.chars().map(printable).collect::<String>())?;
    Ok(if equal { 0 } else { DIFFERENT })
}

/// Returns the differences as text, and whether the calls are equal.
fn differences(left: &Run, right: &Run, names: [&str; 2]) -> (String, bool) {
    let mut out = notes(left, right, names);
    let diff = compare(left, right);
    if diff.is_empty() {
        let calls: usize = left.sections.iter().map(|section| section.lines.len()).sum();
        out += &format!("the same calls: {calls} calls of {} processes\n", left.sections.len());
        return (out, true);
    }
    out += &format!("the first difference of each process:\n{}", diff.with_names(names));
    out += &format!("\nall differences:\n{}", unified(left, right, names));
    (out, false)
}

/// Returns the facts in which the runs differ. They explain different calls, and are not compared themselves.
fn notes(left: &Run, right: &Run, names: [&str; 2]) -> String {
    let [old, new] = [left, right].map(|run| saved::facts(run).collect::<std::collections::BTreeMap<_, _>>());
    let mut keys: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let mut out = String::new();
    for key in keys.into_iter().filter(|key| old.get(key) != new.get(key)) {
        let value = |notes: &std::collections::BTreeMap<&str, &str>| {
            let value = notes.get(key).map_or("not stated", |value| value);
            value.chars().take(NOTE_MAX).collect::<String>()
        };
        out += &format!("  {key}: {} | {}\n", value(&old), value(&new));
    }
    if out.is_empty() { out } else { format!("facts that differ, {} | {}:\n{out}\n", names[0], names[1]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec_audit::record::{Call, Line, Reply};
    use nsexec_audit::{Role, Section};

    fn run(names: &[&str], kernel: &str) -> Run {
        let mut section = Section::new(Role::Stage(1));
        let line =
            |name: &&str| Line { call: Call::SetName { name: name.as_bytes().into() }, reply: Reply::Unit };
        section.lines = names.iter().map(line).collect();
        let notes = [("kernel".to_owned(), kernel.to_owned()), ("interrupt".to_owned(), kernel.to_owned())];
        Run { sections: vec![section], notes: notes.into(), ..Run::default() }
    }

    #[test]
    fn equal_calls_are_reported_with_the_facts_that_differ() {
        let (text, equal) = differences(&run(&["a"], "5"), &run(&["a"], "6"), ["x", "y"]);
        assert!(equal);
        assert_eq!(
            text,
            "facts that differ, x | y:\n  kernel: 5 | 6\n\nthe same calls: 1 calls of 1 processes\n"
        );
    }

    #[test]
    fn differences_are_the_first_one_and_a_unified_view() {
        let (text, equal) = differences(&run(&["a", "b"], "5"), &run(&["a", "c", "d"], "5"), ["x", "y"]);
        assert!(!equal);
        crate::testing::snapshot(|| insta::assert_snapshot!("cli_diff", text));
    }
}
