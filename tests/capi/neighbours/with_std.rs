//! Another Rust library in the same program, with std. It allocates, formats and unwinds.

use std::panic;

#[unsafe(no_mangle)]
pub extern "C" fn neighbour(number: i32) -> i32 {
    panic::set_hook(Box::new(|_| {}));
    let text = format!("{number}");
    // A panic must use this library's personality function, and not the one of nsexec.
    let caught = panic::catch_unwind(move || {
        assert!(text.is_empty(), "{text}");
        0
    });
    caught.map_or_else(|text| text.downcast::<String>().map_or(-1, |text| text.len() as i32), |never| never)
        + number
}
