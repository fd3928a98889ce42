//! Another Rust library in the same program, without std. It has a panic handler of its own.
#![no_std]

use core::fmt::Write;

struct Length(i32);

impl Write for Length {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.0 += s.len() as i32;
        Ok(())
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn neighbour(number: i32) -> i32 {
    let mut length = Length(0);
    assert!(write!(length, "{number}").is_ok());
    length.0 + number
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
