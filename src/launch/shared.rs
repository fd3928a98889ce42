//! The start of a process that shares the launcher's memory up to its exec: its stack, and its first
//! function.
//!
//! A fork copies the page tables of the launcher, which takes long for a program with much memory, and
//! afterwards each write of either process copies a page. A process that shares the memory needs neither, as
//! with posix_spawn(3). [`memory`](super::shape::memory) decides which starts may share it.
//!
//! Why the sharing is sound:
//!
//! - **Stack.** The process has a stack of its own, with an inaccessible page below it.
//! - **Data.** It reads the input of the launch, which nothing changes meanwhile, and writes to its own stack
//!   only. The launcher returns only after the process has executed the command or has ended: it reads the
//!   end of the log, of which the process holds the last writing end, or reaps the process. The kernel gives
//!   an executing process its new memory before it closes the close-on-exec descriptors. A process that
//!   survives SIGKILL, or that cannot be waited for, keeps its stack; if it could not be killed, the program
//!   aborts (`Stack::keep`).
//! - **Thread-local values.** The process has those of the launching thread, which runs at the same time. So
//!   its code uses none of them: it makes its system calls by the instruction, without errno
//!   ([`sys::linux`](crate::sys::linux)), allocates no memory, takes no lock, and does not panic. A panic
//!   would end the process, because its first function is of the C ABI.
//! - **Signals.** All signals are blocked when the process is created. It has its own copy of the handlers,
//!   and resets those that the program had when the launch was prepared before it restores the mask. A
//!   handler that another thread installs in between is not reset, and could run in it.
//! - **Attributes of the memory.** The two processes share the dumpable attribute, and the kernel writes an
//!   oom score to both. So a start that changes the oom score copies the memory. The process sets
//!   no attribute itself: it needs no dumpable attribute of its own, since the launcher can write the maps of
//!   a dumpable process.
//! - **A new user namespace.** The clone gives the process all capabilities there, and changes nothing of the
//!   memory. The launcher writes the maps through /proc, not through the memory, before it sends the go byte.
//!   The process changes its ids by calls that bypass the libc, whose wrappers would change the ids of the
//!   launcher's other threads.
//! - **Other processes.** Without a new user namespace, and with the launcher's ids, only a process that may
//!   trace the launcher can reach the memory through the process. With a new user namespace a process of its
//!   owner can, and with other ids a process that has these. Two kinds of launchers share the memory then:
//!   - Each such process can trace the launcher
//!     ([`Protection::guard`](super::shape::Protection::guard)). The launcher has no capabilities, so it maps
//!     its own ids alone: setresuid(2) to root of the namespace leaves the ids outside as they are, and the
//!     memory dumpable.
//!   - The launcher has root's ids
//!     ([`Protection::may_hide`](super::shape::Protection::may_hide)). It makes itself not dumpable before it
//!     creates the process, and dumpable again after the process has left the memory. Meanwhile the kernel
//!     demands CAP_SYS_PTRACE in the user namespace in which the launcher's program was executed, for either
//!     process (kernel/ptrace.c, `__ptrace_may_access`). A change of the ids leaves the memory not dumpable.
//!     A core dump of the launcher is not written in that time. A program that another thread forks then, and
//!     that executes nothing, stays not dumpable.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{Pid as NixPid, getpid};

use super::shape::Memory;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{SharedStart, SysResult};

/// The stack of a process that shares the launcher's memory.
#[derive(Debug)]
pub struct Stack {
    /// The end of the stack, where it begins to grow downwards. `None` if the start is simulated.
    end: Option<NonNull<c_void>>,
    /// Whether the launcher must not be dumpable while the process uses the stack.
    hides: bool,
    /// Set if a process may still use the stack.
    in_use: Cell<bool>,
    /// Set if the program would have been aborted, in a simulation.
    aborts: Cell<bool>,
}

/// The first function of a process on its own stack.
pub(super) trait First {
    /// Runs in the new process. Returns its exit status.
    fn run<S: Sys>(&self, sys: &mut S) -> c_int;
}

impl Stack {
    /// Returns the stack of a simulated process, which needs no memory of its own.
    #[must_use]
    pub const fn simulated() -> Self {
        Self { end: None, hides: false, in_use: Cell::new(false), aborts: Cell::new(false) }
    }

    /// Returns the same stack, for a process whose launcher is not dumpable meanwhile
    /// ([`Memory::SharedNotDumpable`]).
    #[must_use]
    pub const fn hiding(self, hides: bool) -> Self {
        Self { hides, ..self }
    }

    /// Returns whether the launcher must not be dumpable while the process uses the stack.
    pub(super) const fn hides(&self) -> bool {
        self.hides
    }

    /// Returns whether the program would have been aborted, in a simulation.
    #[must_use]
    pub fn aborts(&self) -> bool {
        self.aborts.get()
    }

    /// Returns the start of a process that runs `first` on this stack, with a backend of its own.
    ///
    /// # Safety
    /// `first` and everything that it refers to live until the process has executed another program or has
    /// ended. `first` fulfils the conditions of [`SharedStart::new`]. Only one process uses the stack.
    pub(super) unsafe fn start<F: First>(&self, first: &F) -> SharedStart {
        let Some(end) = self.end else { return SharedStart::simulated() };
        let argument = (&raw const *first).cast_mut().cast::<c_void>();
        // SAFETY: ensured by the caller; the stack is that of a `StackMemory`.
        unsafe { SharedStart::new(call::<F>, argument, end.as_ptr()) }
    }

    /// Notes that a process may still use the stack, because it has neither executed the command nor ended.
    /// It has been killed and runs no code any more, but a system call of it may still be in progress. So the
    /// memory of the stack is not given back.
    ///
    /// Aborts this program if the process could not be killed (`running`): it would still run in this memory.
    pub(super) fn keep(&self, running: bool) {
        match self.end {
            Some(_) if running => std::process::abort(),
            Some(_) => {}
            None => self.aborts.set(running),
        }
        self.in_use.set(true);
    }
}

/// The first function of the process.
extern "C" fn call<F: First>(first: *mut c_void) -> c_int {
    // SAFETY: the argument of `Stack::start`, which lives until this process has ended.
    let first = unsafe { &*first.cast::<F>() };
    // SAFETY: this process has one thread, and never runs code that relies on the libc's thread state.
    first.run(&mut unsafe { LinuxSys::new() })
}

/// The launches during which this program is not dumpable.
static HIDING: Mutex<Hiding> = Mutex::new(Hiding { number: 0, was_dumpable: false, program: None });

/// The launches of this program that share its memory with a process that others may trace.
struct Hiding {
    /// Their number.
    number: usize,
    /// Whether the memory was dumpable before the first of them.
    was_dumpable: bool,
    /// The program that they belong to. A fork of it has the number, and not the launches.
    program: Option<NixPid>,
}

impl Hiding {
    fn lock() -> MutexGuard<'static, Self> {
        let mut hiding = HIDING.lock().unwrap_or_else(PoisonError::into_inner);
        let program = Some(getpid());
        if hiding.program != program {
            let was_dumpable = if hiding.number == 0 { Self::reads_dumpable() } else { hiding.was_dumpable };
            *hiding = Self { number: 0, was_dumpable, program };
        } else if hiding.number == 0 {
            hiding.was_dumpable = Self::reads_dumpable();
        }
        hiding
    }

    fn reads_dumpable() -> bool {
        // SAFETY: a call with numbers, which changes nothing.
        unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) == 1 }
    }
}

/// Returns whether this program is dumpable, apart from the time of launches (PR_GET_DUMPABLE(2const)).
pub(super) fn is_dumpable() -> bool {
    Hiding::lock().was_dumpable
}

/// Makes this program not dumpable for one launch. The other launches at this time do the same.
///
/// # Errors
/// Those of [`set_dumpable`](Sys::set_dumpable). The launch is then not counted.
pub(super) fn hide<S: Sys>(sys: &mut S) -> SysResult<()> {
    let mut hiding = Hiding::lock();
    sys.set_dumpable(false)?;
    hiding.number += 1;
    Ok(())
}

/// Ends one launch of [`hide`]. The last one makes this program dumpable again, if it was before.
pub(super) fn unhide<S: Sys>(sys: &mut S) {
    let mut hiding = Hiding::lock();
    hiding.number = hiding.number.saturating_sub(1);
    if hiding.number == 0 && hiding.was_dumpable {
        // Only a filter makes this fail. The program then stays not dumpable.
        let _ = sys.set_dumpable(true);
    }
}

/// The memory of a [`Stack`].
#[derive(Debug)]
pub(super) struct StackMemory {
    base: NonNull<c_void>,
    stack: Stack,
}

impl StackMemory {
    /// The size in bytes. The kernel provides only the pages that are used: about 8 KiB.
    pub(super) const SIZE: usize = 256 << 10;
    /// The inaccessible part at the low end, in bytes: as large as the largest page size.
    const GUARD: usize = 64 << 10;

    /// Maps the memory (mmap(2)). `None` if there is not enough.
    pub(super) fn new(memory: Memory) -> Option<Self> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), Self::SIZE, libc::PROT_READ | libc::PROT_WRITE, kind, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping is that long, so its end is not null.
        let end = unsafe { base.byte_add(Self::SIZE) };
        let hides = memory == Memory::SharedNotDumpable;
        let stack = Stack { end: NonNull::new(end), hides, ..Stack::simulated() };
        let memory = Self { base: NonNull::new(base)?, stack };
        // SAFETY: the low part of our own new mapping, which nothing uses yet.
        let guarded = unsafe { libc::mprotect(base, Self::GUARD, libc::PROT_NONE) };
        (guarded == 0).then_some(memory)
    }

    pub(super) const fn stack(&self) -> &Stack {
        &self.stack
    }
}

impl Drop for StackMemory {
    fn drop(&mut self) {
        if !self.stack.in_use.get() {
            // SAFETY: our own mapping, of this length. No process uses it any more: `in_use`.
            unsafe { libc::munmap(self.base.as_ptr(), Self::SIZE) };
        }
    }
}

#[cfg(test)]
impl StackMemory {
    /// The bytes above the inaccessible part.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: our own mapping, readable and writable above the guard. No process uses it in a test.
        unsafe {
            let base = self.base.as_ptr().cast::<u8>().add(Self::GUARD);
            std::slice::from_raw_parts_mut(base, Self::SIZE - Self::GUARD)
        }
    }

    /// Marks each byte as unused.
    pub(super) fn mark(&mut self) {
        self.bytes().fill(0xa5);
    }

    /// Returns how many bytes at the end of the stack have been used since [`Self::mark`].
    pub(super) fn used(&mut self) -> usize {
        let bytes = self.bytes();
        let unused = bytes.iter().take_while(|byte| **byte == 0xa5).count();
        bytes.len() - unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn stack_has_an_inaccessible_page_below_it() {
        let memory = StackMemory::new(Memory::Shared).unwrap();
        let end = memory.stack().end.unwrap();
        assert_eq!(end.as_ptr().addr() % 16, 0);
        let name = std::format!("{:x}-", memory.base.as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&name)).unwrap();
        assert!(line.contains("---p"), "{line}");
    }
}
