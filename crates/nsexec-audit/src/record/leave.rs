//! Leaving a function in the middle: a process of the simulated kernel whose turn is over, and a function
//! whose calls are not those of a recording.
//!
//! The function is left by unwinding. A program that was built with `panic = "abort"` cannot unwind: there
//! every further call fails, until the function returns by itself, and its result is ignored. The scripts of
//! the start end after a failed call. [`by_errors`] chooses this way in any program.

use core::cell::Cell;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Reply;
use nsexec::sys::types::{Errno, Pid};

/// The number of failed calls after which the function is regarded as endless.
const LIMIT: u32 = 10_000;

std::thread_local! {
    static BY_ERRORS: Cell<bool> = const { Cell::new(cfg!(panic = "abort")) };
}

/// The payload of an unwinding that leaves a function.
struct Left;

/// Calls `run`. Meanwhile the functions of simulated processes and of [`play_back`](super::play_back) in this
/// thread are left by failing calls, as in a program with `panic = "abort"`, and not by unwinding.
///
/// A function that ignores errors for ever cannot be left in this way: after 10,000 failed calls it panics.
pub fn by_errors<T>(run: impl FnOnce() -> T) -> T {
    /// Restores the earlier way when it is dropped: after a panic of `run` too.
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            BY_ERRORS.set(self.0);
        }
    }
    let _restored = Restored(BY_ERRORS.replace(true));
    run()
}

/// A function that is being left.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    failed: u32,
}

impl Leaving {
    /// Unwinds, or returns the reply of the failed call of this name.
    pub(crate) fn reply(&mut self, call: &'static str) -> Reply {
        if !BY_ERRORS.get() {
            // Not a panic, which would call the panic hook and print.
            resume_unwind(Box::new(Left));
        }
        self.failed += 1;
        assert!(self.failed < LIMIT, "the function goes on after {LIMIT} failed calls, now with {call}");
        match call {
            // These two cannot fail.
            "getpid" | "gettid" => Reply::Pid(Pid(1)),
            _ => Reply::Errno(Errno::EIO),
        }
    }
}

/// Calls `main`. Returns `None` if it was left by unwinding.
pub(crate) fn caught<T>(main: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(main)) {
        Ok(end) => Some(end),
        Err(payload) if payload.is::<Left>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Option<Reply> {
        caught(|| Leaving::default().reply("setsid"))
    }

    #[test]
    fn function_is_left_by_unwinding_or_by_errors() {
        assert_eq!(call(), None);
        assert_eq!(by_errors(call), Some(Reply::Errno(Errno::EIO)));
        assert_eq!(by_errors(|| caught(|| Leaving::default().reply("getpid"))), Some(Reply::Pid(Pid(1))));
        assert_eq!(call(), None);
        let panicked = catch_unwind(|| by_errors(|| panic!("of the test")));
        assert!(panicked.is_err());
        assert_eq!(call(), None);
    }

    #[test]
    #[should_panic(expected = "goes on after 10000 failed calls, now with setsid")]
    fn function_that_ignores_errors_for_ever_panics() {
        by_errors(|| {
            let mut leaving = Leaving::default();
            loop {
                leaving.reply("setsid");
            }
        });
    }
}
