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
#[path = "../runner/mod.rs"]
mod runner;
mod sizes;

use std::process::ExitCode;
use std::time::Instant;

use kit::{Case, Folder, Said};

fn main() -> ExitCode {
    let cases: Vec<Case> =
        [archive::CASES, programs::CASES, sizes::CASES, escape::CASES, consumers::CASES].concat();
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let cases = runner::chosen("capi", cases, |(name, _)| (*name).to_owned());
    runner::begin();
    let folder = Folder::make();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, case) in cases {
        let start = Instant::now();
        match case() {
            Ok(Said::Held(what)) => {
                passed += 1;
                println!("case {name} ... ok, {} ms{}", start.elapsed().as_millis(), indented(&what));
            }
            Ok(Said::Skipped(reason)) => {
                skipped += 1;
                println!("skipped: capi::{name}: {reason}");
            }
            Err(problem) => {
                failed += 1;
                println!("case {name} ... FAILED{}", indented(&problem));
            }
        }
    }
    drop(folder);
    println!("capi: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("\n    {line}")).collect()
}
