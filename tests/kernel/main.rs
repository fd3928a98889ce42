//! The program on the real kernel: as root and as an ordinary user, one process for each test.
//!
//! `cargo test --test kernel [WORD…]`. Not libtest: its threads share one process, and a test here needs one of its
//! own, with a guard above it that sees everything left behind (`harness`). `kit` is what the tests are written with.

mod clocks;
mod endings;
mod enter;
mod first;
mod guards;
mod hand_over;
mod harness;
mod idmaps;
mod joins;
mod kinds;
mod kit;
mod load;
mod mounts;
mod reach;
mod refusals;
#[path = "../runner/mod.rs"]
mod runner;
mod sealed;
mod surroundings;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, as in a program that is no test.
    let args: Vec<String> = std::env::args().collect();
    match &args[..] {
        [_, word, rest @ ..] if word == sealed::JOINER => return sealed::joiner(rest),
        _ => {}
    }
    harness::main(&[
        guards::TESTS,
        first::TESTS,
        kinds::TESTS,
        idmaps::TESTS,
        clocks::TESTS,
        joins::TESTS,
        enter::TESTS,
        hand_over::TESTS,
        reach::TESTS,
        surroundings::TESTS,
        mounts::TESTS,
        endings::TESTS,
        refusals::TESTS,
        sealed::TESTS,
        terminal::TESTS,
        load::TESTS,
    ])
}
