//! A Rust program with std that depends on the launcher.

use nsexec::stage::Outcome;

fn main() {
    assert_eq!(nsexec::init(), Outcome::NotInit);
    // The program keeps its own panic handler and unwinder.
    std::panic::set_hook(Box::new(|_| {}));
    assert!(std::panic::catch_unwind(|| panic!()).is_err());
    println!("untouched");
}
