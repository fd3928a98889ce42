//! Splits a command line as getopt_long(3) does with `+`: the flags end at the first other argument.
//!
//! A decider. clap accepts other command lines: it refuses `--mount-p` beside `--mount`, and `-n/file`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The value of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    /// None.
    Nothing,
    /// A value in the same argument: `--flag=VALUE`, `-xVALUE`, `-x=VALUE`.
    Attached,
    /// As `Attached`, but after a letter only if it begins with a slash or an equals sign. Other letters may
    /// follow.
    Path,
    /// A value in the same argument or in the next one.
    Value,
}

/// A flag: its letter, its long name, and its meaning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag<T> {
    pub(super) letter: u8,
    pub(super) long: &'static str,
    pub(super) takes: Takes,
    pub(super) means: T,
}

pub(super) const fn flag<T: Copy>(letter: u8, long: &'static str, takes: Takes, means: T) -> Flag<T> {
    Flag { letter, long, takes, means }
}

/// The letter of a flag that has none.
pub(super) const NO_LETTER: u8 = 0;

/// The given flags in order, each with its value, and the words after them.
pub(super) type Parsed<'a, T> = (Vec<(T, Option<OsString>)>, &'a [OsString]);

/// Splits the words after the program's name. A flag for which `ends` is true is the last one: the program
/// prints a text and exits before it reads the next flag.
///
/// # Errors
/// The fault of a flag, in a text for people.
pub(super) fn parse<'a, T: Copy>(
    flags: &[Flag<T>],
    ends: impl Fn(T) -> bool,
    words: &'a [OsString],
) -> Result<Parsed<'a, T>, String> {
    let mut given = Vec::new();
    let parsed = split(flags, words, &mut given);
    let last = given.iter().position(|(means, _)| ends(*means));
    match (last, parsed) {
        (Some(last), _) => {
            given.truncate(last + 1);
            Ok((given, &[]))
        }
        (None, parsed) => parsed.map(|words| (given, words)),
    }
}

fn split<'a, T: Copy>(
    flags: &[Flag<T>],
    mut words: &'a [OsString],
    given: &mut Vec<(T, Option<OsString>)>,
) -> Result<&'a [OsString], String> {
    while let Some((word, rest)) = words.split_first() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            words = rest;
            break;
        }
        let Some(letters) = bytes.strip_prefix(b"-").filter(|rest| !rest.is_empty()) else { break };
        words = match letters.strip_prefix(b"-") {
            Some(long) => parse_long(flags, long, rest, given)?,
            None => parse_letters(flags, letters, rest, given)?,
        };
    }
    Ok(words)
}

fn parse_long<'a, T: Copy>(
    flags: &[Flag<T>],
    word: &[u8],
    rest: &'a [OsString],
    given: &mut Vec<(T, Option<OsString>)>,
) -> Result<&'a [OsString], String> {
    let (name, value) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(owned(&word[at + 1..]))),
        None => (word, None),
    };
    let shown = String::from_utf8_lossy(name);
    let begins: Vec<&Flag<T>> = flags.iter().filter(|flag| flag.long.as_bytes().starts_with(name)).collect();
    let whole = begins.iter().find(|flag| flag.long.len() == name.len()).copied();
    let flag = match (whole, &begins[..]) {
        (Some(flag), _) => flag,
        (None, [flag]) => *flag,
        (None, []) => return Err(format!("unknown option '--{shown}'")),
        (None, several) => {
            let names: Vec<String> = several.iter().map(|flag| format!("--{}", flag.long)).collect();
            return Err(format!("option '--{shown}' may be {}", names.join(" or ")));
        }
    };
    let (value, rest) = match (flag.takes, value) {
        (Takes::Nothing, Some(_)) => return Err(format!("option '--{}' takes no value", flag.long)),
        (Takes::Value, None) => {
            let (next, rest) =
                rest.split_first().ok_or_else(|| format!("option '--{}' needs a value", flag.long))?;
            (Some(next.clone()), rest)
        }
        (_, value) => (value, rest),
    };
    given.push((flag.means, value));
    Ok(rest)
}

fn parse_letters<'a, T: Copy>(
    flags: &[Flag<T>],
    letters: &[u8],
    rest: &'a [OsString],
    given: &mut Vec<(T, Option<OsString>)>,
) -> Result<&'a [OsString], String> {
    let mut left = letters;
    while let Some((letter, after)) = left.split_first() {
        let flag = flags.iter().find(|flag| flag.letter == *letter && flag.letter != NO_LETTER);
        let flag = flag.ok_or_else(|| {
            format!("unknown option '-{}'", String::from_utf8_lossy(&[*letter]).escape_default())
        })?;
        let attached = match flag.takes {
            Takes::Nothing => false,
            Takes::Path => matches!(after.first(), Some(b'/' | b'=')),
            Takes::Attached | Takes::Value => !after.is_empty(),
        };
        if attached {
            let value = match flag.takes {
                Takes::Value => after,
                // As for nsenter: `-n=/file` is `-n/file`.
                _ => after.strip_prefix(b"=").unwrap_or(after),
            };
            given.push((flag.means, Some(owned(value))));
            return Ok(rest);
        }
        if flag.takes == Takes::Value {
            let (next, rest) = rest
                .split_first()
                .ok_or_else(|| format!("option '-{}' needs a value", char::from(*letter)))?;
            given.push((flag.means, Some(next.clone())));
            return Ok(rest);
        }
        given.push((flag.means, None));
        left = after;
    }
    Ok(rest)
}

fn owned(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag<char>] = &[
        flag(b'a', "all", Takes::Nothing, 'a'),
        flag(b'h', "help", Takes::Nothing, 'h'),
        flag(b'n', "net", Takes::Path, 'n'),
        flag(b'm', "mount", Takes::Attached, 'm'),
        flag(b'S', "setuid", Takes::Value, 'S'),
        flag(NO_LETTER, "mount-proc", Takes::Attached, 'p'),
        flag(NO_LETTER, "setgroups", Takes::Value, 'g'),
    ];

    fn parsed(words: &str) -> Result<String, String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let (given, rest) = parse(FLAGS, |means| means == 'h', &words)?;
        let shown = given.iter().map(|(flag, value)| match value {
            Some(value) => format!("{flag}={}", value.to_string_lossy()),
            None => flag.to_string(),
        });
        Ok(format!(
            "{}|{}",
            shown.collect::<Vec<_>>().join(" "),
            rest.join(OsStr::new(" ")).to_string_lossy()
        ))
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        assert_eq!(parsed("-a ls -n").as_deref(), Ok("a|ls -n"));
        assert_eq!(parsed("-a -- -n x").as_deref(), Ok("a|-n x"));
        assert_eq!(parsed("-a - -n").as_deref(), Ok("a|- -n"));
        assert_eq!(parsed("").as_deref(), Ok("|"));
    }

    #[test]
    fn letters_have_their_values_in_the_word_or_after_it() {
        assert_eq!(parsed("-an -S 5 -S6 x").as_deref(), Ok("a n S=5 S=6|x"));
        assert_eq!(parsed("-na -n/x -an=/y").as_deref(), Ok("n a n=/x a n=/y|"));
        assert_eq!(parsed("-mx -m=y -m z").as_deref(), Ok("m=x m=y m|z"));
        assert_eq!(parsed("-aS").unwrap_err(), "option '-S' needs a value");
        assert_eq!(parsed("-ax").unwrap_err(), "unknown option '-x'");
    }

    #[test]
    fn no_flag_after_help_is_read() {
        assert_eq!(parsed("-hx").as_deref(), Ok("h|"));
        assert_eq!(parsed("-a --help --nope x").as_deref(), Ok("a h|"));
        assert_eq!(parsed("-x -h").unwrap_err(), "unknown option '-x'");
        assert_eq!(parsed("-a ls -h").as_deref(), Ok("a|ls -h"));
    }

    #[test]
    fn long_flags_may_be_shortened() {
        assert_eq!(parsed("--all --ne=/x --setu 5").as_deref(), Ok("a n=/x S=5|"));
        assert_eq!(parsed("--mount --mount-p=/p").as_deref(), Ok("m p=/p|"));
        assert_eq!(parsed("--set=5").unwrap_err(), "option '--set' may be --setuid or --setgroups");
        assert_eq!(parsed("--nothing").unwrap_err(), "unknown option '--nothing'");
        assert_eq!(parsed("--all=1").unwrap_err(), "option '--all' takes no value");
        assert_eq!(parsed("--setuid").unwrap_err(), "option '--setuid' needs a value");
    }
}
