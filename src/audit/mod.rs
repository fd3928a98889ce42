//! What people and programs do with recorded lines.

#[allow(
    clippy::arithmetic_side_effects,
    reason = "it counts lines and pixels, in a process with std; the core never calls it"
)]
pub mod render;
