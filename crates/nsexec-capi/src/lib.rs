//! The C symbols of `libnsexec.a`, which a Go runtime links in place of runc's C code.
//!
//! One of the modules with `unsafe` code (SECURITY.md lists them). The script `build` makes the archive, with
//! profiles that have `panic = "abort"`. Only there the crate is without std and has its own panic handler.
//! Otherwise, in tests and lints, std has one.
#![cfg_attr(panic = "abort", no_std)]

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, Ordering};

use nsexec::bootstrap::dialect::Dialect;
use nsexec::entry;
use nsexec::json::{Escaped, Line};
use nsexec::policy::Policy;
#[cfg(panic = "abort")]
use nsexec::{
    log::{Level, Log},
    policy::LogForm,
    sys::linux::LinuxSys,
    sys::types::Fd,
};

/// The descriptor to which a panic is reported while a bootstrap runs. A static, since the panic handler's
/// arguments are fixed.
static LOG_PIPE: AtomicI32 = AtomicI32::new(NO_LOG_PIPE);

/// The value of [`LOG_PIPE`] if no bootstrap runs, or if the bootstrap has no log pipe.
const NO_LOG_PIPE: i32 = -1;

/// Runs the bootstrap of runc 1.2.0 and later: `void nsexec(void)`.
///
/// Returns without any effect if `_LIBCONTAINER_INITPIPE` is not set. Otherwise returns in stage 2 only; the
/// other stages exit, and so does a bootstrap that fails.
#[unsafe(no_mangle)]
pub extern "C" fn nsexec() {
    start(&Dialect::V1_2);
}

/// Runs the bootstrap of runc 1.1.0 to 1.1.15: `void nsexec_v1_1(void)`. Otherwise as [`nsexec()`].
#[unsafe(no_mangle)]
pub extern "C" fn nsexec_v1_1() {
    start(&Dialect::V1_1);
}

/// Runs the bootstrap of runc 1.0.0-rc94 to 1.0.3: `void nsexec_v1_0(void)`. Otherwise as [`nsexec()`].
#[unsafe(no_mangle)]
pub extern "C" fn nsexec_v1_0() {
    start(&Dialect::V1_0);
}

/// Runs the bootstrap of runc of 2018, before 1.0.0-rc6: `void nsexec_seed(void)`. Otherwise as [`nsexec()`].
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
    // After the bootstrap, another file may get this descriptor number.
    #[cfg(not(nsexec_archive_panics))]
    LOG_PIPE.store(NO_LOG_PIPE, Ordering::Relaxed);
}

/// `char *escape_json_string(char *text)`: returns the text escaped for a JSON string, with runc's escapes.
/// Bytes from 128 on are copied as they are.
///
/// The result is memory from malloc(3), which the caller frees. If nothing had to be escaped, it is `text`
/// itself; otherwise it is new memory, and `text` is freed. If memory runs out, it is a text that reports
/// this, or null if that text cannot be allocated either. Returns null for null.
///
/// # Safety
/// `text` is null or a NUL-terminated string in memory from malloc(3). The caller transfers its ownership.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn escape_json_string(text: *mut c_char) -> *mut c_char {
    if text.is_null() {
        return text;
    }
    // SAFETY: the caller passes a NUL-terminated string, and its ownership.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    let Some(room) = escaped_len(bytes) else {
        return text;
    };
    // SAFETY: malloc(3) accepts any size.
    let memory: *mut u8 = unsafe { libc::malloc(room.saturating_add(1)) }.cast();
    if !memory.is_null() {
        // Zeroed, so that the buffer is initialised and its last byte is the NUL.
        // SAFETY: malloc(3) returned this many bytes, and nothing else uses them.
        let buffer = unsafe {
            memory.write_bytes(0, room.saturating_add(1));
            core::slice::from_raw_parts_mut(memory, room)
        };
        write_escaped(&mut Line::new(buffer), bytes);
    }
    // SAFETY: the caller got `text` from malloc(3), and `bytes` is not used any more.
    unsafe { libc::free(text.cast()) };
    match memory.is_null() {
        // SAFETY: a NUL-terminated string.
        true => unsafe { libc::strdup(c"escape_json_string: out of memory".as_ptr()) },
        false => memory.cast(),
    }
}

/// Returns the length of the escaped text; `None` if nothing has to be escaped.
fn escaped_len(bytes: &[u8]) -> Option<usize> {
    let mut counted = ByteCounter(0);
    for byte in bytes {
        match byte.is_ascii() {
            true => drop(Escaped(&mut counted).write_char(char::from(*byte))),
            false => counted.0 = counted.0.saturating_add(1),
        }
    }
    (counted.0 != bytes.len()).then_some(counted.0)
}

/// Writes the escaped text into a line whose buffer has exactly that length.
fn write_escaped(line: &mut Line<'_>, bytes: &[u8]) {
    for byte in bytes {
        let _ = match byte.is_ascii() {
            true => Escaped(&mut *line).write_char(char::from(*byte)),
            // Copied as in runc's C. Log records of the stages have \xHH instead.
            false => line.push_bytes(&[*byte]),
        };
    }
}

/// A writer that only counts bytes.
struct ByteCounter(usize);

impl Write for ByteCounter {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(s.len());
        Ok(())
    }
}

/// The value of [`LOG_PIPE`] after the first panic.
#[cfg(panic = "abort")]
const PANICKED: i32 = -2;

/// Reports a panic as one fatal log record and exits with status 1. A panic never unwinds into C.
#[cfg(panic = "abort")]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let log = LOG_PIPE.swap(PANICKED, Ordering::Relaxed);
    // A panic inside this function is not reported.
    if log != PANICKED {
        // SAFETY: this process only blocks signals, writes, waits for space in the pipe, and then exits.
        let mut sys = unsafe { LinuxSys::new() };
        let pipe = (log != NO_LOG_PIPE).then_some(Fd(log));
        let mut log = Log::open(&mut sys, pipe, Level::Fatal, LogForm::Runc);
        let text = info.message();
        match info.location() {
            Some(place) => log.fatal_text(&mut sys, format_args!("bug in nsexec, at {place}: {text}"), None),
            None => log.fatal_text(&mut sys, format_args!("bug in nsexec: {text}"), None),
        }
    }
    // SAFETY: _exit(2) uses no memory of this process.
    unsafe { libc::_exit(1) }
}

// A build without optimisation has a reference to this symbol in the compiled core library. It is never
// called: with panic=abort nothing unwinds. The symbol is weak, so a definition elsewhere takes precedence.
#[cfg(panic = "abort")]
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
