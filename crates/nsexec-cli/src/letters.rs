//! The letters of unshare(1) and nsenter(1) with a file: `-n/run/netns/blue`. clap accepts a value of such a
//! letter after an equals sign only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, CommandFactory};

use super::args::{Cli, Family, PLAN_ENTER, PLAN_PIN, TRACE_ENTER, family};

/// The letters of the kinds.
const KINDS: &[u8] = b"UmpniuCT";

/// The letters of `enter` with an optional path. `r` is the root directory, and `w` the working directory.
const OF_ENTER: &[u8] = b"UmpniuCTrw";

/// Returns the arguments with `plan enter` and `trace enter` as one argument, which is the name of a
/// subcommand.
pub(crate) fn with_joined_words(mut arguments: Vec<OsString>) -> Vec<OsString> {
    for name in [PLAN_ENTER, PLAN_PIN, TRACE_ENTER] {
        let words = arguments.get(1..3).is_some_and(|words| words.join(OsStr::new(" ")) == name);
        if words {
            arguments.splice(1..3, [OsString::from(name)]);
        }
    }
    arguments
}

/// Returns the arguments with `-n=/file` in place of `-n/file`, before the command and its own arguments.
pub(crate) fn with_equals_signs(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(name) = arguments.get(1).and_then(|name| name.to_str()).map(str::to_owned) else {
        return arguments;
    };
    let letters = match family(&name) {
        Some(Family::Run) => KINDS,
        Some(Family::Enter) => OF_ENTER,
        None => return arguments,
    };
    if !arguments.iter().any(|argument| file_at(argument, letters).is_some()) {
        return arguments;
    }
    let mut cli = Cli::command();
    // Defines the flags of the subcommands.
    cli.build();
    let Some(command) = cli.find_subcommand(&name) else { return arguments };
    let mut is_value = false;
    for argument in arguments.iter_mut().skip(2) {
        if std::mem::take(&mut is_value) {
            continue;
        }
        let bytes = argument.as_bytes();
        if bytes == b"--" || !bytes.starts_with(b"-") || bytes == b"-" {
            break;
        }
        if let Some(at) = file_at(argument, letters) {
            let (letters, file) = bytes.split_at(at);
            *argument = OsString::from_vec([letters, b"=", file].concat());
            continue;
        }
        let takes = |find: &dyn Fn(&&Arg) -> bool| {
            let range = command.get_arguments().find(find).and_then(Arg::get_num_args);
            range.is_some_and(|range| range.min_values() > 0)
        };
        is_value = match argument.to_str().map(|text| (text, text.strip_prefix("--"))) {
            Some((_, Some(long))) => takes(&|one| one.get_long() == Some(long)),
            // A letter that takes a value, as the last one.
            Some((text, None)) => {
                takes(&|one| one.get_short().is_some() && one.get_short() == text.chars().last())
            }
            None => false,
        };
    }
    arguments
}

/// Returns the position of the file after letters of which the last is one of `with_file`.
fn file_at(argument: &OsStr, with_file: &[u8]) -> Option<usize> {
    let bytes = argument.as_bytes();
    let letters = bytes.strip_prefix(b"-")?;
    let length = letters.iter().position(|byte| !byte.is_ascii_alphabetic())?;
    let is_kind = letters[..length].last().is_some_and(|letter| with_file.contains(letter));
    (is_kind && letters[length] == b'/').then_some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(words: &str) -> String {
        let words = words.split_whitespace().map(OsString::from).collect();
        with_equals_signs(words).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn file_after_a_letter_gets_an_equals_sign() {
        assert_eq!(changed("nsexec run -n/run/n -- true"), "nsexec run -n=/run/n -- true");
        assert_eq!(changed("nsexec plan -rn/run/n -u/u"), "nsexec plan -rn=/run/n -u=/u");
        assert_eq!(changed("nsexec doctor -n/run/n -- true"), "nsexec doctor -n=/run/n -- true");
        assert_eq!(changed("nsexec run -S 0 -w /x -n/run/n"), "nsexec run -S 0 -w /x -n=/run/n");
        assert_eq!(changed("nsexec run --wd /x -n/run/n"), "nsexec run --wd /x -n=/run/n");
    }

    #[test]
    fn enter_has_two_more_letters_with_a_path() {
        assert_eq!(
            changed("nsexec enter -n/x -r/y -w/z true -n/q"),
            "nsexec enter -n=/x -r=/y -w=/z true -n/q"
        );
        assert_eq!(changed("nsexec enter -S 0 -aw/z -W /d -u/x"), "nsexec enter -S 0 -aw=/z -W /d -u=/x");
    }

    #[test]
    fn two_words_become_the_name_of_a_subcommand() {
        let joined = |words: &str| {
            let words = words.split_whitespace().map(OsString::from).collect();
            with_joined_words(words).join(OsStr::new("|")).into_string().unwrap()
        };
        assert_eq!(joined("nsexec plan enter -t 1"), "nsexec|plan enter|-t|1");
        assert_eq!(joined("nsexec trace enter"), "nsexec|trace enter");
        assert_eq!(joined("nsexec plan -r enter"), "nsexec|plan|-r|enter");
        assert_eq!(joined("nsexec plan -- enter"), "nsexec|plan|--|enter");
        assert_eq!(joined("nsexec"), "nsexec");
    }

    #[test]
    fn arguments_of_the_command_stay() {
        for words in [
            "nsexec run -r make -C/src -n/x",
            "nsexec run -n -- make -C/src",
            "nsexec run -w -n/x true",
            "nsexec decode -n/x",
            "nsexec enter -t 1 -n nsenter -n/x",
            "nsexec run -w/x -R/y true",
            "nsexec",
        ] {
            assert_eq!(changed(words), words);
        }
    }
}
