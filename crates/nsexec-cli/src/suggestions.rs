//! Suggestions for flags that nsexec does not have: those of unshare(1), nsenter(1) and bwrap(1).
//!
//! The table is consulted only for a flag that clap does not know. A flag that nsexec gets needs its
//! row removed: the row has no effect then, and the test of the table fails.

use clap::CommandFactory;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::{Cli, Family, family};

/// The commands of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// `run`, and the commands with its flags.
    Run,
    /// `enter`, and the commands with its flags.
    Enter,
    /// Both.
    Both,
}

/// The flags, each with the commands at which it is looked up, and the text after "tip: ".
const TABLE: &[(&[&str], At, &str)] = &[
    (&["--uid"], At::Both, "use '--setuid UID'"),
    (&["--gid"], At::Both, "use '--setgid GID'"),
    (&["--chdir"], At::Both, "use '--wd DIR'"),
    (
        &["--cap-add", "--cap-drop"],
        At::Both,
        "change the capabilities in the command: -- setpriv or -- capsh; '--keep-caps' keeps those of the user namespace",
    ),
    (
        &["-Z", "--follow-context"],
        At::Enter,
        "change the SELinux context in the command: -- runcon CONTEXT CMD",
    ),
    (&["--unshare-all"], At::Run, "use '--all', or no flag at all, which mounts a new /proc too"),
    (
        &["--unshare-user", "--unshare-user-try"],
        At::Run,
        "use '-r', which creates a user namespace and maps you to root",
    ),
    (&["--unshare-ipc"], At::Run, "use '--ipc'"),
    (&["--unshare-pid"], At::Run, "use '--pid'"),
    (&["--unshare-net"], At::Run, "use '--net'"),
    (&["--unshare-uts"], At::Run, "use '--uts'"),
    (&["--unshare-cgroup", "--unshare-cgroup-try"], At::Run, "use '--cgroup'"),
    (&["--share-net"], At::Run, "name the kinds to create in place of '--all': -r -m -p -i -u -C -T"),
    (&["--die-with-parent"], At::Run, "use '--kill-child'"),
    (&["--proc"], At::Run, "use '--mount-proc'"),
    (&["--setenv"], At::Both, "use '--set-env NAME=VALUE'"),
    (&["--clearenv"], At::Both, "use '--clear-env'"),
    (&["--unsetenv"], At::Both, "use '--clear-env' and '--set-env', or -- env -u NAME CMD"),
    (&["--as-pid-1"], At::Run, "leave it out: the command of '-p' is process 1, unless '--init' is given"),
    (&["--hostname"], At::Run, "add '-u', and set it in the command: -- sh -c 'hostname NAME && exec CMD'"),
    (
        &[
            "--bind",
            "--ro-bind",
            "--dev-bind",
            "--bind-try",
            "--ro-bind-try",
            "--dev-bind-try",
            "--tmpfs",
            "--dev",
            "--dir",
            "--symlink",
            "--overlay",
            "--remount-ro",
        ],
        At::Run,
        "nsexec has no flag for mounts: mount in the command, as in -r -m -- sh -c 'mount --bind A B && exec CMD'; the \
         library has them (Command::bind)",
    ),
];

/// Replaces clap's suggestion for an unknown flag. `command`: the name of the subcommand.
///
/// clap suggests a flag that looks similar, and to pass the flag to the command. Both mislead a person that
/// knows the flag from another program. A similar flag is kept only if it looks like a typing error.
pub(crate) fn improve(error: &mut clap::Error, command: &str) {
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return };
    let flag = flag.split([' ', '=']).next().unwrap_or_default().to_owned();
    error.remove(ContextKind::Suggested);
    let similar = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(similar)) => Some(similar.clone()),
        _ => None,
    };
    let found = find(&flag, command);
    if found.is_some() || similar.is_some_and(|similar| distance(&flag, &similar) > 2) {
        error.remove(ContextKind::SuggestedArg);
        // clap's usage line shows the similar flag.
        let mut cli = Cli::command();
        cli.build();
        if let Some(command) = cli.find_subcommand_mut(command) {
            error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
        }
    }
    if let Some(text) = found {
        let tip = StyledStr::from(text.to_owned());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// Returns the text for a flag.
fn find(flag: &str, command: &str) -> Option<&'static str> {
    let at = match family(command)? {
        Family::Run => At::Run,
        Family::Enter => At::Enter,
    };
    let fits = |row: &&(&[&str], At, &str)| row.0.contains(&flag) && (row.1 == at || row.1 == At::Both);
    TABLE.iter().find(fits).map(|(_, _, text)| *text)
}

/// Returns the edit distance of two words: the fewest letters to insert, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((above, diagonal), candidate) in row.iter().skip(1).zip(&row).zip(&other) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(*candidate != letter)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{PLAN_ENTER, TRACE_ENTER};
    use clap::Parser;

    fn message(command: &str, flag: &str) -> String {
        let mut error = Cli::try_parse_from(["nsexec", command, flag, "--", "true"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{command} {flag}");
        improve(&mut error, command);
        error.render().to_string()
    }

    #[test]
    fn each_unknown_flag_of_the_table_gets_its_text_alone() {
        for (flags, at, text) in TABLE {
            let commands: &[&str] = match at {
                At::Run => &["run", "doctor"],
                At::Enter => &["enter", PLAN_ENTER, TRACE_ENTER],
                At::Both => &["run", "enter", PLAN_ENTER, TRACE_ENTER],
            };
            for (flag, command) in
                flags.iter().flat_map(|flag| commands.iter().map(move |command| (flag, command)))
            {
                let message = message(command, flag);
                assert!(message.contains(&format!("tip: {text}")), "{message}");
                assert!(!message.contains("similar") && !message.contains("as a value"), "{message}");
            }
        }
    }

    #[test]
    fn no_suggestion_is_made_for_other_flags_unless_it_is_a_typing_error() {
        let typing = message("run", "--mount-prok");
        assert!(typing.contains("'--mount-proc'"), "{typing}");
        for (command, flag) in [("run", "-z"), ("run", "--bogus"), ("enter", "-z")] {
            let message = message(command, flag);
            assert!(!message.contains("tip:"), "{message}");
        }
        let all = message("run", "--unshare-all");
        assert!(all.contains("tip: use '--all'") && !all.contains("similar"), "{all}");
        assert!(message("enter", "-Z").contains("runcon CONTEXT CMD"));
    }

    #[test]
    fn distance_counts_letters() {
        let cases = [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ab", 1), ("ab", "xabc", 2)];
        for (one, other, expected) in cases {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
