//! Launches without enough memory: this program's allocator refuses one large allocation on request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use nsexec::bootstrap::Bootstrap;
use nsexec::launch::{LaunchError, Launcher, exit_code};
use nsexec::sys::types::CloneFlags;

use crate::Case;
use crate::cases::{leaves_nothing, policy};

pub(crate) const CASES: &[Case] = &[("each_large_allocation_may_fail", each_large_allocation_may_fail)];

/// The size in bytes from which an allocation is large.
const LARGE: usize = 50_000;

/// The number of large allocations that succeed before one is refused. Negative: none is refused.
static BEFORE_REFUSAL: AtomicIsize = AtomicIsize::new(-1);

/// The system's allocator, except for the refused allocation.
#[derive(Debug)]
pub(crate) struct Refusing;

impl Refusing {
    fn refuses(size: usize) -> bool {
        size >= LARGE
            && BEFORE_REFUSAL.load(Ordering::Relaxed) >= 0
            && BEFORE_REFUSAL.fetch_sub(1, Ordering::Relaxed) == 0
    }
}

// SAFETY: passes every call on to the system's allocator, or returns null, as an allocator may.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        if Self::refuses(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if Self::refuses(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Refuses each large allocation once: those of the message, of its copy, of stage 0's buffer, and of the
/// command's strings.
fn each_large_allocation_may_fail() {
    let path = std::ffi::CString::new(format!("/{}", "x".repeat(60_000))).unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_uidmap_path(&path).with_gidmap_path(&path);
    // The candidate files are a longer text than the variable.
    let search = format!("/usr/bin:/bin{}", ":y".repeat(20_000));
    let mut texts = Vec::new();
    for before in 0.. {
        let launched = leaves_nothing(|| {
            BEFORE_REFUSAL.store(before, Ordering::Relaxed);
            let launched = Launcher::new(&bootstrap, policy())
                .map_err(|error| (error.to_string(), 1))
                .and_then(|mut launcher| {
                    let launched = launcher.command("true", [""; 0]).env("PATH", &search).spawn();
                    let told = |error: LaunchError| (error.to_string(), error.exit_code());
                    launched.map(|mut child| child.wait().unwrap()).map_err(told)
                });
            let refused = BEFORE_REFUSAL.swap(-1, Ordering::Relaxed) == -1;
            assert_eq!(refused, launched.is_err(), "{before}: {launched:?}");
            launched
        });
        match launched {
            Err((text, 1)) => texts.push(text),
            Err(error) => panic!("{before}: {error:?}"),
            Ok(status) => {
                assert_eq!(exit_code(status), 0);
                break;
            }
        }
    }
    let of = |start: &str| texts.iter().filter(|text| text.starts_with(start)).count();
    assert_eq!(of("no memory for a bootstrap message of 1200"), 3, "{texts:?}");
    assert!(of("no memory for the command's arguments and environment") > 0, "{texts:?}");
    assert_eq!(of("no memory"), texts.len(), "{texts:?}");
}
