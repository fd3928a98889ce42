//! The start of the process: its entry, its allocator and its stack.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::os::fd::BorrowedFd;

use nsexec::launch::without_sigxfsz;

/// The program's entry, in place of Rust's own `main`.
///
/// Rust's runtime ignores SIGPIPE before `main` runs. The caller's disposition of SIGPIPE would be lost, and
/// the mapping tools and the command could not inherit it.
///
/// The arguments are passed on from here: the standard library finds them by itself with glibc, but not with
/// musl.
///
/// # Safety
/// `argv` points to `argc` strings.
#[cfg(not(test))]
// SAFETY: nothing else in this program has the name `main`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn main(
    argc: core::ffi::c_int,
    argv: *const *const core::ffi::c_char,
) -> core::ffi::c_int {
    use std::os::unix::ffi::OsStrExt;

    // Checked first: a program with elevated privileges must not read its arguments or environment.
    if let Some(elevation) = nsexec::entry::Elevation::of_this_process() {
        return crate::refuse(elevation).into();
    }
    reserve_stack();
    let count = usize::try_from(argc).unwrap_or_default();
    let argument = |at| {
        // SAFETY: `argv` points to `argc` strings that live as long as the program.
        let bytes = unsafe { core::ffi::CStr::from_ptr(*argv.add(at)) }.to_bytes();
        std::ffi::OsStr::from_bytes(bytes).to_owned()
    };
    crate::run_program((0..count).map(argument)).into()
}

/// The system's allocator, which ends the program with one line and status 1 if memory runs out (RLIMIT_AS, a
/// memory cgroup, overcommit). Rust's default is to abort with SIGABRT.
struct ExitOnOutOfMemory;

#[global_allocator]
static ALLOCATOR: ExitOnOutOfMemory = ExitOnOutOfMemory;

// SAFETY: each method forwards to the system allocator under the same contract, and never returns null.
unsafe impl GlobalAlloc for ExitOnOutOfMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc`.
        exit_if_null(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        exit_if_null(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `realloc`.
        exit_if_null(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Grows the stack to the size that the program needs, if the address space is limited (RLIMIT_AS). A lack of
/// memory is then reported by [`ExitOnOutOfMemory`]; a later growth of the stack would fail with SIGSEGV.
///
/// Without that limit nothing is touched: it would cost 128 page faults, a tenth of the start.
#[cfg_attr(test, allow(dead_code, reason = "called by the program's entry"))]
fn reserve_stack() {
    /// The size of the stack in bytes; no subcommand uses more.
    const STACK: usize = if cfg!(debug_assertions) { 1536 << 10 } else { 512 << 10 };
    const FRAME: usize = 8 << 10;

    // The compiler decides the size of a stack frame, so the recursion compares addresses.
    #[inline(never)]
    fn touch(top: usize, size: usize) {
        let mut frame = [0_u8; FRAME];
        std::hint::black_box(&mut frame);
        if top.abs_diff(frame.as_ptr().addr()) < size {
            touch(top, size);
        }
        std::hint::black_box(&mut frame);
    }

    let soft = |resource| {
        let mut limit = nix::libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one `rlimit`, which lives until the call returns.
        unsafe { nix::libc::getrlimit(resource, &raw mut limit) };
        limit.rlim_cur
    };
    if soft(nix::libc::RLIMIT_AS) == nix::libc::RLIM_INFINITY {
        return;
    }
    // At most half of the stack's limit.
    let size = usize::try_from(soft(nix::libc::RLIMIT_STACK) / 2).unwrap_or(STACK).min(STACK);
    // Ends the program if there is not enough memory. The memory is freed again for the stack.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(size + 8 * FRAME)));
    touch((&raw const size).addr(), size);
}

fn exit_if_null(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() { out_of_memory(size) } else { memory }
}

/// Ends the program with one line on standard error. Allocates nothing.
fn out_of_memory(size: usize) -> ! {
    let mut buffer = [0; 128];
    let mut text = std::io::Cursor::new(&mut buffer[..]);
    // The text is shorter than the buffer.
    let _ = writeln!(
        text,
        "nsexec: out of memory: cannot allocate {size} bytes (limits: ulimit -v, memory.max of the cgroup)"
    );
    let length = usize::try_from(text.position()).unwrap_or_default();
    // SAFETY: nothing here closes standard error. If the caller closed it, the write fails.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = without_sigxfsz(|| nix::unistd::write(stderr, &buffer[..length]));
    // SAFETY: _exit(2) uses no memory of this process.
    unsafe { nix::libc::_exit(1) }
}
