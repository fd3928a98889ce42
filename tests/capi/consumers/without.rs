//! A Rust program with std that depends on the core without features.

use nsexec::stage::Outcome;

fn main() {
    assert_eq!(nsexec::init(), Outcome::NotInit);
    println!("untouched");
}
