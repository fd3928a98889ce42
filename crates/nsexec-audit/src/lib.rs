//! Runs of the namespace bootstrap as data: planned, recorded or witnessed, in one schema, and the tools for
//! them.
//!
//! | module | content |
//! |---|---|
//! | [`record`] | the recorder: every system call of a run, in order |
//! | [`recording`] | a launch of a `Command` that is recorded, and what can be done with its record |
//! | [`attest`] | the state of a process that becomes a command, read from the kernel, beside the plan |
//! | [`state`] | the state of a process, found or expected |
//! | [`sim`] | the simulated kernel |
//! | [`note`] | a launch as data, stored in its record |
//! | [`transcript`] | a [`Run`]: the sections of its processes, to and from JSON lines |
//! | [`sections`] | the role of each process, derived from its parent and the call that created it |
//! | [`normalise`] | the values that a comparison omits or renames |
//! | [`diff`] | the comparison of two runs, section by section |
//! | [`emit`] | the calls of a run as a seccomp profile, AppArmor rules, a line of systemd |
//! | [`witness`] | strace's output in the same schema |
//! | [`rules`] | conditions that hold in every run, each with its reason |
//! | [`plan`] | a run before it happens, on the simulated kernel |
//! | [`machine`] | the facts of a machine, which a plan of a `Command` depends on |
//! | [`replay`] | a run of another machine, repeated with the recorded replies |
//! | [`render`] | a run as text, as a diagram, as a picture, as a page |
//! | [`byte_order`] | messages of a machine with another byte order |

extern crate std;

pub mod attest;
pub mod byte_order;
pub mod diff;
pub mod emit;
pub mod machine;
pub mod normalise;
pub mod note;
pub mod plan;
pub mod record;
pub mod recording;
pub mod render;
pub mod replay;
pub mod rules;
pub mod sections;
pub mod sim;
pub mod state;
pub mod transcript;
pub mod witness;

pub use transcript::{End, Origin, Role, Run, Section};
