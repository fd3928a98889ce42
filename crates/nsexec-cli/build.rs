//! Tells the program which commit it was built from.
//!
//! In this order: what a distributor says (`NSEXEC_COMMIT`), what cargo wrote into a packaged crate, what git says of
//! this very folder. Without any of them the version stands alone; nothing here can fail a build.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// As many digits as `git rev-parse --short=12` gives: enough to find the commit for ever.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NSEXEC_COMMIT");
    if env::var_os("CARGO_FEATURE_CLI").is_none() {
        return;
    }
    let folder = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let folder = Path::new(&folder);
    let commit = env::var("NSEXEC_COMMIT").ok().or_else(|| packaged(folder)).or_else(|| checked_out(folder));
    if let Some(commit) = commit.as_deref().and_then(short) {
        let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
        println!("cargo::rustc-env=NSEXEC_VERSION={version} ({commit})");
    }
}

/// The first digits, if it looks like a commit at all.
fn short(commit: &str) -> Option<&str> {
    let commit = commit.trim();
    let hexadecimal = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    (commit.len() >= 7 && hexadecimal).then(|| commit.get(..DIGITS).unwrap_or(commit))
}

/// `.cargo_vcs_info.json` of a crate that came from `cargo package`: `{"git": {"sha1": "…"}, …}`.
fn packaged(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// The commit of this folder, if the folder is the top of a work tree: sources that were unpacked inside somebody
/// else's repository must not take that one's commit.
fn checked_out(folder: &Path) -> Option<String> {
    let top = git(folder, &["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(folder).ok()? {
        return None;
    }
    // The log of HEAD grows with each commit, checkout, rebase and reset. Its path is asked for, since in a linked
    // work tree `.git` is no folder.
    let head_log = git(folder, &["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={}", folder.join(head_log).display());
    git(folder, &["rev-parse", "HEAD"])
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(folder).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
