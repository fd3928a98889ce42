//! Tests of the program on the real kernel, as root and as an ordinary user. Each test runs in a process of
//! its own.
//!
//! `cargo test --test kernel [WORD…]`. The harness is not libtest, whose threads share one process. Here each
//! test has its own process, under a guard that finds everything the test leaves behind (`harness`). `kit`
//! has the functions that the tests use.

mod before_start;
mod clocks;
mod doctor;
mod endings;
mod enter;
mod first;
mod guards;
mod hand_over;
mod harness;
mod idmaps;
mod in_place;
mod joins;
mod kinds;
mod kit;
mod linked;
mod load;
mod mounts;
mod network_sys;
mod pin;
mod place;
mod reach;
mod refusals;
mod sealed;
mod session;
mod shared;
mod surroundings;
mod terminal;
mod unshare;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Checked before anything else, as in a program that is not a test.
    let args: Vec<String> = std::env::args().collect();
    match &args[..] {
        [_, word, rest @ ..] if word == sealed::JOINER => return sealed::joiner(rest),
        _ => {}
    }
    harness::main(&[
        guards::TESTS,
        first::TESTS,
        kinds::TESTS,
        in_place::TESTS,
        idmaps::TESTS,
        clocks::TESTS,
        joins::TESTS,
        enter::TESTS,
        place::TESTS,
        hand_over::TESTS,
        before_start::TESTS,
        pin::TESTS,
        reach::TESTS,
        surroundings::TESTS,
        mounts::TESTS,
        network_sys::TESTS,
        endings::TESTS,
        refusals::TESTS,
        doctor::TESTS,
        sealed::TESTS,
        shared::TESTS,
        terminal::TESTS,
        session::TESTS,
        unshare::TESTS,
        linked::TESTS,
        load::TESTS,
    ])
}
