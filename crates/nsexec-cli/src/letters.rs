//! The letters of unshare(1) with a file: `-n/run/netns/blue`. clap accepts a value of such a letter after an
//! equals sign only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, CommandFactory};

use super::args::Cli;

/// The letters of the kinds.
const KINDS: &[u8] = b"UmpniuCT";

/// Returns the arguments with `-n=/file` in place of `-n/file`, before the command and its own arguments.
pub(crate) fn with_equals_signs(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(name) = arguments.get(1).and_then(|name| name.to_str()).map(str::to_owned) else {
        return arguments;
    };
    let of_unshare = matches!(name.as_str(), "run" | "plan" | "trace" | "encode");
    if !of_unshare || !arguments.iter().any(|argument| file_at(argument).is_some()) {
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
        if let Some(at) = file_at(argument) {
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

/// Returns the position of the file after letters of which the last is that of a kind.
fn file_at(argument: &OsStr) -> Option<usize> {
    let bytes = argument.as_bytes();
    let letters = bytes.strip_prefix(b"-")?;
    let length = letters.iter().position(|byte| !byte.is_ascii_alphabetic())?;
    let is_kind = letters[..length].last().is_some_and(|letter| KINDS.contains(letter));
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
        assert_eq!(changed("nsexec run -S 0 -w /x -n/run/n"), "nsexec run -S 0 -w /x -n=/run/n");
        assert_eq!(changed("nsexec run --wd /x -n/run/n"), "nsexec run --wd /x -n=/run/n");
    }

    #[test]
    fn arguments_of_the_command_stay() {
        for words in [
            "nsexec run -r make -C/src -n/x",
            "nsexec run -n -- make -C/src",
            "nsexec run -w -n/x true",
            "nsexec enter -n/x",
            "nsexec run -w/x -R/y true",
            "nsexec",
        ] {
            assert_eq!(changed(words), words);
        }
    }
}
