//! The decoder of the bootstrap message agrees with a second decoder, and the encoder is its inverse. The
//! first byte of the input selects the dialect and the byte order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::bootstrap::Dialect;
use nsexec_audit::byte_order::ByteOrder;
use support::message::accepted;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let choice = usize::from(*choice);
    let dialect = Dialect::ALL[choice % Dialect::ALL.len()];
    let order = if choice < 128 { ByteOrder::Little } else { ByteOrder::Big };
    accepted(bytes, dialect, order);
});
