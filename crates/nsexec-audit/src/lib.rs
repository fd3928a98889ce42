//! Runs as data: what was planned, recorded or witnessed, in one schema, and what can be said about it.
//!
//! | read | for |
//! |---|---|
//! | [`transcript`] | a [`Run`]: the sections of its processes, as JSON lines and back |
//! | [`sections`] | which process is which: from who made it, and how |
//! | [`normalise`] | what a comparison leaves out or renames, and nothing else |
//! | [`diff`] | two runs, section by section |
//! | [`witness`] | strace's output in the same schema |
//! | [`rules`] | what must hold in every run, each with its reason |
//! | [`plan`] | a run before it happens, on the simulated kernel |
//! | [`replay`] | a run of another machine, fed back as the replies |
//! | [`render`] | a run as text, as a diagram, as a picture |

extern crate std;

pub mod diff;
pub mod normalise;
pub mod note;
pub mod plan;
pub mod record;
pub mod render;
pub mod replay;
pub mod rules;
pub mod sections;
pub mod sim;
pub mod transcript;
pub mod witness;

pub use transcript::{End, Origin, Role, Run, Section};
