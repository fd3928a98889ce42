//! An allocator that ends the processes of a launch: [`AbortsInChildren`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI32, Ordering};

/// The allocator of the system. It aborts in every process but one: another thread may have held its lock at
/// the time of the fork.
#[derive(Debug)]
pub struct AbortsInChildren {
    /// The process that may allocate. With 0, each may.
    allowed: AtomicI32,
}

impl AbortsInChildren {
    /// Returns an allocator for all processes.
    #[allow(clippy::new_without_default, reason = "a global allocator needs a constant function")]
    pub const fn new() -> Self {
        Self { allowed: AtomicI32::new(0) }
    }

    /// From now on, only this process may allocate.
    pub fn allow_this_process_only(&self) {
        // SAFETY: getpid only returns a number.
        self.allowed.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    }

    fn check(&self) {
        // SAFETY: getpid only returns a number.
        let pid = unsafe { libc::getpid() };
        let allowed = self.allowed.load(Ordering::Relaxed);
        if allowed != 0 && pid != allowed {
            // SAFETY: abort takes no argument, and may be called anywhere.
            unsafe { libc::abort() }
        }
    }
}

// SAFETY: every call goes to the allocator of the system, unless the process ends.
unsafe impl GlobalAlloc for AbortsInChildren {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.check();
        // SAFETY: the caller keeps the rules of the trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.check();
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}
