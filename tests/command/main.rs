//! `Command` on the real kernel: the interface of `std::process::Command`, maps, joins, descriptors, threads.
//!
//! Each test runs with the ids of the suite. If these are root's, one test runs the other tests again, in a
//! process of an ordinary user.

mod again;
mod attributes;
mod closing;
mod exec;
mod init;
mod kit;
mod manners;
mod mounts;
mod namespaces;
mod probe;
mod session;
mod threads;
