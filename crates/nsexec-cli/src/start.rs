//! The start of the process: C's `main`, the allocator, and the room of the stack.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::os::fd::BorrowedFd;

use nsexec::launch::without_sigxfsz;

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

    // Before anything else is looked at, the arguments and the environment among it.
    if let Some(elevation) = nsexec::entry::Elevation::of_this_process() {
        return crate::refuse(elevation).into();
    }
    reserve_stack();
    let count = usize::try_from(argc).unwrap_or_default();
    let argument = |at| {
        // SAFETY: the C library gives `argc` pointers to strings that live as long as the program.
        let bytes = unsafe { core::ffi::CStr::from_ptr(*argv.add(at)) }.to_bytes();
        std::ffi::OsStr::from_bytes(bytes).to_owned()
    };
    crate::run_program((0..count).map(argument)).into()
}

/// The system's allocator. Where it has no memory (RLIMIT_AS, a memory cgroup, overcommit), the program ends with one line
/// and status 1: Rust's own answer is SIGABRT.
struct Memory;

#[global_allocator]
static MEMORY_OR_EXIT: Memory = Memory;

// SAFETY: each method is the system allocator's, whose contract is the caller's; a null is never passed on.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        present(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        present(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        present(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Lets the stack grow to what the program needs, while a lack of memory can still be told: later it would be SIGSEGV.
#[cfg_attr(test, allow(dead_code, reason = "called by the program's entry"))]
fn reserve_stack() {
    /// More than any subcommand uses.
    const STACK: usize = if cfg!(debug_assertions) { 1536 << 10 } else { 512 << 10 };
    const FRAME: usize = 8 << 10;

    // How much of the stack a frame takes is the compiler's affair: the addresses tell.
    #[inline(never)]
    fn touch(top: usize, size: usize) {
        let mut frame = [0_u8; FRAME];
        std::hint::black_box(&mut frame);
        if top.abs_diff(frame.as_ptr().addr()) < size {
            touch(top, size);
        }
        std::hint::black_box(&mut frame);
    }

    let mut limit = nix::libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes two numbers.
    unsafe { nix::libc::getrlimit(nix::libc::RLIMIT_STACK, &raw mut limit) };
    // With a limit of the stack that is small on purpose, half of it.
    let size = usize::try_from(limit.rlim_cur / 2).unwrap_or(STACK).min(STACK);
    // Ends the program if there is no room; it is free again for the stack.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(size + 8 * FRAME)));
    touch((&raw const size).addr(), size);
}

fn present(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() { out_of_memory(size) } else { memory }
}

/// Ends the program with one line on standard error. Allocates nothing.
fn out_of_memory(size: usize) -> ! {
    let mut buffer = [0; 128];
    let mut text = std::io::Cursor::new(&mut buffer[..]);
    // The text is shorter than the buffer.
    let _ = writeln!(
        text,
        "nsexec: out of memory: {size} bytes cannot be had (limits: ulimit -v, memory.max of the cgroup)"
    );
    let length = usize::try_from(text.position()).unwrap_or_default();
    // SAFETY: standard error is not closed by anything here; if the caller has closed it, the write fails.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = without_sigxfsz(|| nix::unistd::write(stderr, &buffer[..length]));
    // SAFETY: _exit touches nothing of this process's memory.
    unsafe { nix::libc::_exit(1) }
}
