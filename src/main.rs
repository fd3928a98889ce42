//! The program `nsexec`. All of it is in [`cli`].
#![cfg_attr(not(test), no_main)]

#[cfg_attr(test, allow(dead_code, reason = "the program's entry is not part of its tests"))]
mod cli;

/// C's entry, and not Rust's: that one ignores SIGPIPE before anything of ours runs, and nobody could tell afterwards
/// what the launcher had meant for the mapping tool and the command.
///
/// The arguments come with it: the standard library finds them by itself with glibc, but not with musl.
///
/// # Safety
/// `argv` has `argc` strings.
#[cfg(not(test))]
// SAFETY: nothing else in this program has the name `main`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(
    argc: core::ffi::c_int,
    argv: *const *const core::ffi::c_char,
) -> core::ffi::c_int {
    use std::os::unix::ffi::OsStrExt;

    let count = usize::try_from(argc).unwrap_or_default();
    let argument = |at| {
        // SAFETY: the C library gives `argc` pointers to strings that live as long as the program.
        let bytes = unsafe { core::ffi::CStr::from_ptr(*argv.add(at)) }.to_bytes();
        std::ffi::OsStr::from_bytes(bytes).to_owned()
    };
    cli::main((0..count).map(argument)).into()
}
