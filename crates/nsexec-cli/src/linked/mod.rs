//! The program under the names `unshare` and `nsenter`: the command lines and defaults of util-linux.
//!
//! The flags become those of `run` and `enter`, with [`Defaults::UtilLinux`]. The request, its decision and
//! the launch are the same.
//!
//! [`Defaults::UtilLinux`]: super::defaults::Defaults::UtilLinux

mod getopt;
mod help;
mod nsenter;
mod unshare;
mod wait;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::args::VERSION;
use super::failure::{FAILED, Failure};
use super::request::Request;
use super::{output, printable};

/// A name under which the program behaves as another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// unshare(1).
    Unshare,
    /// nsenter(1).
    Nsenter,
}

impl Name {
    /// Returns the name in the last component of the first argument.
    pub(crate) fn of(argument: &OsStr) -> Option<Self> {
        match last_component(argument) {
            b"unshare" => Some(Self::Unshare),
            b"nsenter" => Some(Self::Nsenter),
            _ => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Unshare => "unshare",
            Self::Nsenter => "nsenter",
        }
    }
}

/// Returns the part of a path after the last slash, which may be empty.
fn last_component(path: &OsStr) -> &[u8] {
    path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The request of a command line.
enum Asked {
    /// The help text.
    Help,
    /// The version.
    Version,
    /// The launch, which ended with this status.
    Ended(u8),
}

/// Runs the program under this name. Returns the exit status: 1 for each failure of its own, as in
/// util-linux.
pub(crate) fn run(name: Name, arguments: &[OsString]) -> u8 {
    let arguments = arguments.get(1..).unwrap_or_default();
    let asked = match name {
        Name::Unshare => unshare::unshare(arguments),
        Name::Nsenter => nsenter::nsenter(arguments),
    };
    let printed = match asked {
        Ok(Asked::Ended(status)) => return status,
        Ok(Asked::Help) => output::print(help::of(name)),
        Ok(Asked::Version) => output::print(&format!("{} of nsexec {VERSION}\n", name.word())),
        Err(failure) => Err(failure),
    };
    printed.map_or_else(|failure| report(name.word(), failure), |()| 0)
}

/// Prints the failure on standard error. Returns the exit status.
fn report(name: &str, failure: Failure) -> u8 {
    let (text, status) = match failure {
        Failure::Usage(text) => (format!("{text}\nTry '{name} --help' for more information."), FAILED),
        Failure::Other { text, status } => (text, status),
        Failure::Limited(text) => (text, FAILED),
    };
    // File names and contents must not send control sequences to the terminal.
    let shown: String = text.chars().map(printable).collect();
    output::print_to_stderr(format_args!("{name}: {shown}\n"));
    status
}

/// Sets what depends on the name, and returns the command: without one a login shell, as in util-linux.
fn command_of(request: &mut Request, name: Name, words: &[OsString]) -> Vec<OsString> {
    request.program = name.word();
    if !words.is_empty() {
        return words.to_vec();
    }
    let shell = super::run::command_or_shell(words);
    request.hand_over.arg0 =
        shell.first().map(|shell| OsStr::from_bytes(&[b"-", last_component(shell)].concat()).to_owned());
    shell
}

/// Returns the value of a flag as text.
fn text<'v>(flag: &str, value: &'v OsStr) -> Result<&'v str, Failure> {
    value.to_str().ok_or_else(|| Failure::Usage(format!("{flag}: the value is not text in UTF-8")))
}

/// Parses the value of a flag.
fn parsed<T, E: std::fmt::Display>(
    flag: &str,
    value: &OsStr,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    parse(text(flag, value)?)
        .map_err(|why| Failure::Usage(format!("{flag} {}: {why}", value.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_decides() {
        let of = |text: &str| Name::of(OsStr::new(text));
        assert_eq!((of("unshare"), of("/usr/bin/nsenter")), (Some(Name::Unshare), Some(Name::Nsenter)));
        for other in ["", "nsexec", "/unshare/nsexec", "unshare/", "-unshare", "unshare.old"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
