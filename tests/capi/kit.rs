//! What the cases stand on: a folder, commands with a limit, the three archives.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What a case has to say for itself.
pub(crate) enum Said {
    Held(String),
    Skipped(String),
}

/// A problem is what went wrong, in words.
pub(crate) type Outcome = Result<Said, String>;

pub(crate) type Case = (&'static str, fn() -> Outcome);

/// Longer than a build on a busy machine.
const LIMIT_SECS: &str = "420";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this suite's own files lie.
pub(crate) fn sources() -> PathBuf {
    root().join("tests/capi")
}

/// The folder of this run, gone at its end.
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

/// A command with a limit in time, nothing on its standard input, and none of our own build's variables.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECS]).arg(program).stdin(Stdio::null()).env("LC_ALL", "C");
    for name in
        ["_LIBCONTAINER_INITPIPE", "_LIBCONTAINER_LOGPIPE", "_LIBCONTAINER_LOGLEVEL", "PKG_CONFIG_PATH"]
    {
        command.env_remove(name);
    }
    command
}

/// Its standard output, or all that it said.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}\n{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Whether a program is on the PATH.
pub(crate) fn there_is(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Which archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Release,
    Debug,
    /// One that panics on purpose. Nobody ships it.
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

    /// The folder with its three files, which are made at the first call.
    pub(crate) fn folder(self) -> Result<PathBuf, String> {
        static BUILT: [OnceLock<Result<(), String>>; 3] = [const { OnceLock::new() }; 3];
        // With a blank, as a build folder may have.
        let folder = folder().join(format!("lib {}", self.name()));
        BUILT[self as usize].get_or_init(|| build(self, root(), &folder).map(drop)).clone()?;
        Ok(folder)
    }

    pub(crate) fn archive(self) -> Result<PathBuf, String> {
        Ok(self.folder()?.join("libnsexec.a"))
    }
}

/// `capi/build` of the sources at `root`, into `folder`.
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
