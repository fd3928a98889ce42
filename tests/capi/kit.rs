//! Shared by the cases: a folder, commands with a time limit, and the three archives.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The result of a case that did not fail.
pub(crate) enum Said {
    Held(String),
    Skipped(String),
}

/// The result of a case; the error describes the problem.
pub(crate) type Outcome = Result<Said, String>;

pub(crate) type Case = (&'static str, fn() -> Outcome);

/// The time limit of a command, longer than a build on a busy machine.
const LIMIT_SECS: &str = "420";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the folder of this suite's sources.
pub(crate) fn sources() -> PathBuf {
    root().join("tests/capi")
}

/// The temporary folder of this run. Dropping it removes the folder.
pub(crate) struct Folder;

impl Folder {
    pub(crate) fn make() -> Self {
        fs::create_dir_all(folder()).expect("the folder of this run");
        Self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(folder());
    }
}

pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-{}", std::process::id())))
}

/// Returns a command with a time limit and an empty standard input. It does not inherit the variables of the
/// protocol and of pkg-config, and the one that tests/run sets for libtest: a compiler must not see it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECS]).arg(program).stdin(Stdio::null()).env("LC_ALL", "C");
    for name in [
        "_LIBCONTAINER_INITPIPE",
        "_LIBCONTAINER_LOGPIPE",
        "_LIBCONTAINER_LOGLEVEL",
        "PKG_CONFIG_PATH",
        "RUSTC_BOOTSTRAP",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs the command. Returns its standard output, or all its output if it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}\n{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Returns whether a program is in PATH.
pub(crate) fn there_is(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A variant of the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Release,
    Debug,
    /// Panics on purpose. Used in tests only.
    Panics,
}

impl Kind {
    pub(crate) const SHIPPED: [Self; 2] = [Self::Release, Self::Debug];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
            Self::Panics => "panics",
        }
    }

    /// Returns the folder with the archive, the header and the pkg-config file. The first call builds them.
    pub(crate) fn folder(self) -> Result<PathBuf, String> {
        static BUILT: [OnceLock<Result<(), String>>; 3] = [const { OnceLock::new() }; 3];
        // The name contains a space, as the name of a build folder may.
        let folder = folder().join(format!("lib {}", self.name()));
        BUILT[self as usize].get_or_init(|| build(self, root(), &folder).map(drop)).clone()?;
        Ok(folder)
    }

    pub(crate) fn archive(self) -> Result<PathBuf, String> {
        Ok(self.folder()?.join("libnsexec.a"))
    }
}

/// Runs `crates/nsexec-capi/build` of the sources at `root`, with `folder` as its output.
pub(crate) fn build(kind: Kind, root: &Path, folder: &Path) -> Result<String, String> {
    let mut build = command(root.join("crates/nsexec-capi/build"));
    if kind == Kind::Debug {
        build.arg("--debug");
    }
    build.arg(folder);
    if kind == Kind::Panics {
        build.args(["--", "--cfg", "nsexec_archive_panics"]);
    }
    run(&mut build)
}
