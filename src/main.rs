//! The program `nsexec`. All of it is in [`cli`].
#![cfg_attr(not(test), no_main)]

#[cfg_attr(test, allow(dead_code, reason = "the program's entry is not part of its tests"))]
mod cli;

/// C's entry, and not Rust's: that one ignores SIGPIPE before anything of ours runs, and nobody could tell afterwards
/// what the launcher had meant for the mapping tool and the command.
#[cfg(not(test))]
// Nothing else in this program has the name `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> core::ffi::c_int {
    cli::main().into()
}
