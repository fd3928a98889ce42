//! A stage 0 without std, as in a runtime that links only the core. If this program links, the core needs
//! only libc. An allocation anywhere in the core would be an undefined symbol here.
#![no_std]
#![no_main]

use core::ffi::c_int;

use nsexec::stage::Outcome;

/// The program. The libc calls it with a single thread.
// SAFETY: the only `main` of this program.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    match nsexec::init() {
        Outcome::NotInit => 0,
        Outcome::Exit(status) => status,
        Outcome::HandOver => 42,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(101) }
}
