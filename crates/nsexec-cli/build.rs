//! Sets `NSEXEC_VERSION`: the version and the commit that the program is built from.
//!
//! The commit comes from the first of: the variable `NSEXEC_COMMIT` (for distributors),
//! `.cargo_vcs_info.json` of a packaged crate, git in this workspace. Without a commit `NSEXEC_VERSION` is
//! not set. No error here fails the build.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The number of digits that `git rev-parse --short=12` prints. 12 digits identify a commit.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NSEXEC_COMMIT");
    let folder = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let folder = Path::new(&folder);
    let commit = env::var("NSEXEC_COMMIT").ok().or_else(|| packaged(folder)).or_else(|| checked_out(folder));
    if let Some(commit) = commit.as_deref().and_then(short) {
        let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
        println!("cargo::rustc-env=NSEXEC_VERSION={version} ({commit})");
    }
}

/// Returns the first digits of `commit`; `None` if the text does not look like a commit.
fn short(commit: &str) -> Option<&str> {
    let commit = commit.trim();
    let hexadecimal = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    (commit.len() >= 7 && hexadecimal).then(|| commit.get(..DIGITS).unwrap_or(commit))
}

/// Returns the commit in `.cargo_vcs_info.json`, a file of `cargo package`: `{"git": {"sha1": "…"}, …}`.
fn packaged(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// Returns the commit of the workspace two folders up, if that is the top of a git work tree. Sources that
/// were unpacked inside another repository must not get that repository's commit.
fn checked_out(folder: &Path) -> Option<String> {
    let top = git(folder, &["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(folder.join("../..")).ok()? {
        return None;
    }
    // The log of HEAD grows with each commit, checkout, rebase and reset. Git is asked for its path, because
    // `.git` is a file in a linked work tree.
    let head_log = git(folder, &["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={}", folder.join(head_log).display());
    git(folder, &["rev-parse", "HEAD"])
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(folder).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
