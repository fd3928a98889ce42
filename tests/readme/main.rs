//! The Rust program in README.md compiles. `example.rs` is this program; the test compares it with the text in README.md.
#![cfg(feature = "std")]

#[allow(dead_code, reason = "compiled only: it works for root and for user 1000")]
mod example;

#[test]
fn the_rust_program_in_the_readme_is_the_compiled_one() {
    let blocks: Vec<&str> = include_str!("../../README.md")
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks, [include_str!("example.rs")]);
}
