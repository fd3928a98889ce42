//! `Command` on the real kernel: the manners of `std::process::Command`, maps, joins, descriptors, threads.
//!
//! Each test runs as the user who runs the suite. As root, the last test runs the whole suite again as an
//! ordinary user.

mod again;
mod kit;
mod manners;
mod mounts;
mod namespaces;
mod threads;
