//! The C symbols of `libnsexec.a`: what a Go runtime links in the place of runc's C.
//!
//! One of the places with `unsafe` (SECURITY.md lists them). The crate has a panic handler of its own and is built with
//! `panic = "abort"`: it cannot be linked into a Rust program with std as an ordinary dependency. `build` makes the archive.
#![cfg_attr(not(test), no_std)]

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, Ordering};

use nsexec::bootstrap::dialect::Dialect;
use nsexec::entry;
use nsexec::json::{Escaped, Line};
use nsexec::policy::Policy;
#[cfg(not(test))]
use nsexec::{
    log::{Level, Log},
    policy::LogForm,
    sys::linux::LinuxSys,
    sys::types::Fd,
};

/// The descriptor that a panic is reported to, while a bootstrap runs: a panic handler has no arguments of ours.
static LOG_PIPE: AtomicI32 = AtomicI32::new(NO_LOG_PIPE);

/// No bootstrap runs, or it has no log pipe.
const NO_LOG_PIPE: i32 = -1;

/// The bootstrap of runc 1.2.0 and later: `void nsexec(void)`.
///
/// Returns untouched where `_LIBCONTAINER_INITPIPE` is absent, and in stage 2. Does not return from the other
/// stages, and not from a bootstrap that fails.
#[unsafe(no_mangle)]
pub extern "C" fn nsexec() {
    start(&Dialect::V1_2);
}

/// [`nsexec`] as runc 1.1.0 to 1.1.15 has it: `void nsexec_v1_1(void)`.
#[unsafe(no_mangle)]
pub extern "C" fn nsexec_v1_1() {
    start(&Dialect::V1_1);
}

/// [`nsexec`] as runc 1.0.0-rc94 to 1.0.3 has it: `void nsexec_v1_0(void)`.
#[unsafe(no_mangle)]
pub extern "C" fn nsexec_v1_0() {
    start(&Dialect::V1_0);
}

/// [`nsexec`] as runc had it in 2018, before 1.0.0-rc6: `void nsexec_seed(void)`.
#[unsafe(no_mangle)]
pub extern "C" fn nsexec_seed() {
    start(&Dialect::SEED);
}

fn start(dialect: &'static Dialect) {
    LOG_PIPE.store(entry::log_pipe(dialect).map_or(NO_LOG_PIPE, |fd| fd.0), Ordering::Relaxed);
    let _ = entry::drop_in(&Policy::runc(dialect));
    #[cfg(nsexec_archive_panics)]
    #[allow(clippy::panic, reason = "an archive for the tests alone: what a panic in a stage does")]
    {
        panic!("on \"purpose\"\nin two lines");
    }
    // From here on the number may become another file's.
    #[cfg(not(nsexec_archive_panics))]
    LOG_PIPE.store(NO_LOG_PIPE, Ordering::Relaxed);
}

/// `char *escape_json_string(char *text)`: the text as the inside of a JSON string, with runc's escapes. Bytes from 128
/// on stay as they are.
///
/// Takes memory from malloc(3) and gives such memory back: the same if nothing had to be escaped, otherwise a new one,
/// and the old is freed. Without memory it gives a text that says so, or null if there is none for that either.
/// Null gives null.
///
/// # Safety
/// `text` is null, or a string with its NUL in memory from malloc(3), which the caller gives away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn escape_json_string(text: *mut c_char) -> *mut c_char {
    if text.is_null() {
        return text;
    }
    // SAFETY: the caller promises a string with its NUL, which is ours now.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    let Some(room) = escaped_len(bytes) else {
        return text;
    };
    // SAFETY: any size may be asked for.
    let memory: *mut u8 = unsafe { libc::malloc(room.saturating_add(1)) }.cast();
    if !memory.is_null() {
        // Zeroed, so that the buffer is initialised and its last byte is the NUL.
        // SAFETY: malloc gave this many bytes, and nobody else has them.
        let buffer = unsafe {
            memory.write_bytes(0, room.saturating_add(1));
            core::slice::from_raw_parts_mut(memory, room)
        };
        write_escaped(&mut Line::new(buffer), bytes);
    }
    // SAFETY: from malloc(3) by the caller's promise, and `bytes` is not used any more.
    unsafe { libc::free(text.cast()) };
    match memory.is_null() {
        // SAFETY: a string with its NUL.
        true => unsafe { libc::strdup(c"escape_json_string: out of memory".as_ptr()) },
        false => memory.cast(),
    }
}

/// The length with escapes, if there is anything to escape.
fn escaped_len(bytes: &[u8]) -> Option<usize> {
    let mut counted = Counted(0);
    for byte in bytes {
        match byte.is_ascii() {
            true => drop(Escaped(&mut counted).write_char(char::from(*byte))),
            false => counted.0 = counted.0.saturating_add(1),
        }
    }
    (counted.0 != bytes.len()).then_some(counted.0)
}

/// Fills a line that has exactly the room.
fn write_escaped(line: &mut Line<'_>, bytes: &[u8]) {
    for byte in bytes {
        let _ = match byte.is_ascii() {
            true => Escaped(&mut *line).write_char(char::from(*byte)),
            // Passed through, as runc's does: the log of the stages writes \xHH.
            false => line.push_bytes(&[*byte]),
        };
    }
}

/// Counts what goes through it.
struct Counted(usize);

impl Write for Counted {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(s.len());
        Ok(())
    }
}

/// Stands in [`LOG_PIPE`] from the first panic on.
#[cfg(not(test))]
const PANICKED: i32 = -2;

/// Where a panic ends: a bug of ours becomes one fatal record and status 1, and never crosses into C.
#[cfg(not(test))]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let log = LOG_PIPE.swap(PANICKED, Ordering::Relaxed);
    // A panic of this very function has nobody to tell.
    if log != PANICKED {
        // SAFETY: the calls from here on are a mask, a write and a wait for room, and then this process ends.
        let mut sys = unsafe { LinuxSys::new() };
        let pipe = (log != NO_LOG_PIPE).then_some(Fd(log));
        let mut log = Log::open(&mut sys, pipe, Level::Fatal, LogForm::Runc);
        let text = info.message();
        match info.location() {
            Some(place) => log.last_word(&mut sys, format_args!("bug in nsexec, at {place}: {text}"), None),
            None => log.last_word(&mut sys, format_args!("bug in nsexec: {text}"), None),
        }
    }
    // SAFETY: _exit touches nothing of this process's memory.
    unsafe { libc::_exit(1) }
}

// The compiled core library of a build without optimisation names it, and nothing calls it: with panic=abort nobody
// unwinds. Weak, so that it never stands in another's way.
#[cfg(not(test))]
core::arch::global_asm!(
    ".weak rust_eh_personality",
    ".type rust_eh_personality, @function",
    "rust_eh_personality:",
    "ret"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> Option<Vec<u8>> {
        let len = escaped_len(text)?;
        let mut buffer = std::vec![0; len];
        let mut line = Line::new(&mut buffer);
        write_escaped(&mut line, text);
        assert_eq!(line.len(), len);
        Some(buffer)
    }

    #[test]
    fn bytes_of_any_encoding_are_escaped_as_runc_does() {
        for plain in [&b""[..], b"abcdef", b"<->", b"Barney B\xc3\xa4r", b"\x80\xff"] {
            assert_eq!(escaped(plain), None);
        }
        let text = b"\\\"\n\r\x08\t\x0c\x07 \x0f\x7f\x80 B\xc3\xa4r\x1b";
        let want = b"\\\\\\\"\\n\\r\\b\\t\\f\\u0007 \\u000f\\u007f\x80 B\xc3\xa4r\\u001b";
        assert_eq!(escaped(text).as_deref(), Some(&want[..]));
    }
}
