//! A Rust program with std that calls the C symbols.

use nsexec::stage::Outcome;

fn main() {
    nsexec::capi::nsexec();
    nsexec::capi::nsexec_v1_1();
    nsexec::capi::nsexec_v1_0();
    nsexec::capi::nsexec_seed();
    assert_eq!(nsexec::init(), Outcome::NotInit);
    // The program uses its own panic handler and unwinder.
    std::panic::set_hook(Box::new(|_| {}));
    assert!(std::panic::catch_unwind(|| panic!()).is_err());
    println!("untouched");
}
