//! Tests of `libnsexec.a` as a client uses it: builds it, inspects it, links it in every way that a runtime
//! may, and drives the programs with the independent parent of `tests/protocol`.
//!
//! This process only starts others: `crates/nsexec-capi/build`, compilers, strace, Python, and the programs
//! that they build. `capi WORD…` runs the cases whose names contain one of the words.

mod archive;
mod consumers;
mod escape;
mod kit;
mod programs;
mod sizes;

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use kit::{Case, Folder, Said};
use support::{Suite, Test, Threads, Verdict};

fn main() -> ExitCode {
    let cases: Vec<Case> =
        [archive::CASES, programs::CASES, sizes::CASES, escape::CASES, consumers::CASES].concat();
    let folder = Arc::new(LazyLock::new(Folder::make));
    let test = |(name, case): &Case| {
        let (folder, case) = (folder.clone(), *case);
        Test::new(*name, move || {
            LazyLock::force(&folder);
            match case() {
                Ok(Said::Held(what)) => {
                    println!("{}", indented(&what));
                    Verdict::Passed
                }
                Ok(Said::Skipped(reason)) => Verdict::Skipped(reason),
                Err(problem) => Verdict::Failed(problem),
            }
        })
    };
    let suite = Suite::new("capi", cases.iter().map(test).collect());
    support::begin();
    suite.main(Threads::One)
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("\n    {line}")).collect()
}
