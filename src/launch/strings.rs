//! The command's argv, environment and candidate files, as the strings that the kernel gets. Prepared before
//! the fork.

use std::borrow::ToOwned;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::vec::Vec;

use core::fmt;

/// The search path of a command without a PATH: `confstr(_CS_PATH)`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The reason why execve(2) cannot take a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// No command was given.
    Missing,
    /// An argument, or the name, contains a NUL byte. The kernel would cut the string there.
    NulInArgument,
    /// Not enough memory for the strings of the arguments and the environment.
    NoMemory,
    /// A variable of the environment contains a NUL byte, its name contains an `=`, or its name is empty.
    BadVariable,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no command given",
            Self::NulInArgument => "an argument of the command contains a NUL byte",
            Self::NoMemory => "no memory for the command's arguments and environment",
            Self::BadVariable => {
                "a variable of the command's environment has no proper name or contains a NUL byte"
            }
        })
    }
}

impl core::error::Error for CommandError {}

/// The command as the caller described it.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandLine {
    /// The name, then the arguments.
    pub(super) words: Vec<OsString>,
    /// The argument 0, if it is not the name.
    arg0: Option<OsString>,
    /// Changes to the environment, in order.
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(OsString, OsString),
    Remove(OsString),
    Clear,
}

/// The command as the strings that the kernel gets.
#[derive(Clone, Debug)]
pub struct CommandStrings {
    #[doc(hidden)]
    pub name: Vec<u8>,
    #[doc(hidden)]
    pub argv: NulTerminated,
    #[doc(hidden)]
    pub envp: NulTerminated,
    #[doc(hidden)]
    pub candidates: NulTerminated,
}

/// Strings one after the other, each with its NUL.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct NulTerminated {
    #[doc(hidden)]
    pub text: Vec<u8>,
    #[doc(hidden)]
    pub count: usize,
}

impl NulTerminated {
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), CommandError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 1;
        self.text.try_reserve(length).map_err(|_| CommandError::NoMemory)?;
        self.text.extend(parts.iter().copied().flatten());
        self.text.push(0);
        self.count += 1;
        Ok(())
    }
}

impl CommandLine {
    /// Returns a command without arguments.
    pub(super) fn new(program: &OsStr) -> Self {
        Self { words: [program.to_owned()].into(), ..Self::default() }
    }

    pub(super) fn set_arg0(&mut self, name: &OsStr) {
        self.arg0 = Some(name.to_owned());
    }

    pub(super) fn set_env(&mut self, name: &OsStr, value: &OsStr) {
        self.changes.push(Change::Set(name.to_owned(), value.to_owned()));
    }

    pub(super) fn remove_env(&mut self, name: &OsStr) {
        self.changes.push(Change::Remove(name.to_owned()));
    }

    pub(super) fn clear_env(&mut self) {
        self.changes.push(Change::Clear);
    }

    /// Builds the strings. The command's changes apply to `inherited`, the environment of this process.
    pub(super) fn texts(&self, inherited: Vec<(OsString, OsString)>) -> Result<CommandStrings, CommandError> {
        let name = self.words.first().ok_or(CommandError::Missing)?.as_bytes().to_owned();
        let mut argv = NulTerminated::default();
        let arg0 = self.arg0.iter().chain(self.words.first()).take(1);
        // The name is executed even if the command sees another one.
        if name.contains(&0) {
            return Err(CommandError::NulInArgument);
        }
        for word in arg0.chain(self.words.iter().skip(1)) {
            if word.as_bytes().contains(&0) {
                return Err(CommandError::NulInArgument);
            }
            argv.push(&[word.as_bytes()])?;
        }
        let environment = self.environment(inherited);
        let mut envp = NulTerminated::default();
        for (key, value) in &environment {
            let (key, value) = (key.as_bytes(), value.as_bytes());
            // A leading '=' is part of the name: bash exports such variables, and std parses them so.
            let bad_name = key.is_empty() || key.get(1..).is_some_and(|rest| rest.contains(&b'='));
            if bad_name || key.contains(&0) || value.contains(&0) {
                return Err(CommandError::BadVariable);
            }
            envp.push(&[key, b"=", value])?;
        }
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_bytes());
        let candidates = candidates(&name, path)?;
        Ok(CommandStrings { name, argv, envp, candidates })
    }

    fn environment(&self, inherited: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
        let mut environment = inherited;
        for change in &self.changes {
            match change {
                Change::Clear => environment.clear(),
                Change::Remove(name) => environment.retain(|(key, _)| key != name),
                Change::Set(name, value) => {
                    let first = environment.iter().position(|(key, _)| key == name);
                    // An inherited environment may have a name twice (environ(7)): none keeps the old value.
                    environment.retain(|(key, _)| key != name);
                    environment.insert(first.unwrap_or(environment.len()), (name.clone(), value.clone()));
                }
            }
        }
        environment
    }
}

/// Returns the files that a name may refer to, in the order of `path`, which is the command's own PATH.
///
/// Stage 2 tries them after the joins, and so in the root directory and the working directory of the command.
/// An empty element of PATH is the working directory (environ(7)).
fn candidates(name: &[u8], path: Option<&[u8]>) -> Result<NulTerminated, CommandError> {
    let mut candidates = NulTerminated::default();
    // A name with a slash is a path; an empty name matches no file.
    if name.contains(&b'/') || name.is_empty() {
        candidates.push(&[name])?;
        return Ok(candidates);
    }
    for directory in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        match directory {
            b"" => candidates.push(&[b"./", name])?,
            directory => candidates.push(&[directory, b"/", name])?,
        }
    }
    Ok(candidates)
}

/// Returns the string with its NUL; `None` if it contains one.
pub(super) fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

/// Returns a name for messages.
pub(super) fn shown(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str], inherited: &[(&str, &str)]) -> Result<CommandStrings, CommandError> {
        let command =
            CommandLine { words: words.iter().map(OsString::from).collect(), ..CommandLine::default() };
        command.texts(pairs(inherited))
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        of.iter().map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn a_bare_name_is_searched_in_the_commands_path() {
        let found = texts(&["ls", "-l", ""], &[("A", "1"), ("PATH", "/a::/b")]).unwrap();
        assert_eq!((&found.argv.text[..], found.argv.count), (&b"ls\0-l\0\0"[..], 3));
        assert_eq!((&found.envp.text[..], found.envp.count), (&b"A=1\0PATH=/a::/b\0"[..], 2));
        assert_eq!(&found.candidates.text[..], b"/a/ls\0./ls\0/b/ls\0");
    }

    #[test]
    fn name_with_a_slash_is_the_only_candidate() {
        assert_eq!(texts(&["./a"], &[("PATH", "/a")]).unwrap().candidates.text, b"./a\0");
        assert_eq!(texts(&[""], &[("PATH", "/a")]).unwrap().candidates.text, b"\0");
        assert_eq!(texts(&["a"], &[]).unwrap().candidates.text, b"/bin/a\0/usr/bin/a\0");
    }

    #[test]
    fn nul_bytes_and_bad_variable_names_are_rejected() {
        assert_eq!(texts(&[], &[]).unwrap_err(), CommandError::Missing);
        assert_eq!(texts(&["a", "b\0c"], &[]).unwrap_err(), CommandError::NulInArgument);
        assert_eq!(texts(&["a"], &[("", "1")]).unwrap_err(), CommandError::BadVariable);
        assert_eq!(texts(&["a"], &[("A=B", "1")]).unwrap_err(), CommandError::BadVariable);
        assert_eq!(texts(&["a"], &[("A", "\0")]).unwrap_err(), CommandError::BadVariable);
    }

    #[test]
    fn a_variable_that_is_inherited_twice_is_set_once() {
        let mut command = CommandLine { words: ["a".into()].into(), ..CommandLine::default() };
        command.set_env("A".as_ref(), "3".as_ref());
        let inherited = pairs(&[("Z", "0"), ("A", "1"), ("B", "5"), ("A", "2")]);
        assert_eq!(command.texts(inherited).unwrap().envp.text, b"Z=0\0A=3\0B=5\0");
    }

    #[test]
    fn changes_apply_in_order() {
        let mut command = CommandLine { words: ["a".into()].into(), ..CommandLine::default() };
        command.set_env("B".as_ref(), "2".as_ref());
        command.remove_env("A".as_ref());
        command.set_env("B".as_ref(), "3".as_ref());
        assert_eq!(command.texts(pairs(&[("A", "1")])).unwrap().envp.text, b"B=3\0");
        command.clear_env();
        command.set_env("PATH".as_ref(), "/x".as_ref());
        let texts = command.texts(pairs(&[("A", "1")])).unwrap();
        assert_eq!((texts.envp.text, texts.candidates.text), (b"PATH=/x\0".to_vec(), b"/x/a\0".to_vec()));
    }
}
