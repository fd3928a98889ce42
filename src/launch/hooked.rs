//! Launches of the program `nsexec` with a function before the start, as that of
//! [`Command::before_start`](super::Command::before_start).

use std::io;

use super::error::LaunchError;
use super::handle::Child;
use super::{Launcher, Prepared};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::Pid;

impl Launcher {
    /// Does the same as [`spawn`](Self::spawn), and calls the function before the start: the process that
    /// becomes the command waits in its namespaces. The launch must go through the stages, since most
    /// namespaces of a direct start are created later.
    ///
    /// An error of the function ends the launch. With the kind [`io::ErrorKind::Interrupted`] the error of
    /// the launch is that of the signal or of the time limit, if one of them is pending.
    #[doc(hidden)]
    pub fn spawn_after(
        &mut self,
        mut function: impl FnMut(Pid) -> io::Result<()> + Send,
    ) -> Result<Child, LaunchError> {
        self.spawn_prepared(self.prepare()?, Some(&mut function))
    }

    /// As [`spawn_after`](Self::spawn_after), through another backend: see
    /// [`spawn_through`](Self::spawn_through).
    #[doc(hidden)]
    pub fn spawn_through_after<S: Sys>(
        &mut self,
        wrap: impl FnOnce(LinuxSys) -> S,
        mut function: impl FnMut(Pid) -> io::Result<()> + Send,
    ) -> Result<Child, LaunchError> {
        let mut prepared: Prepared = self.prepare()?;
        self.spawn_with(&mut prepared, Some(&mut function), wrap, |_| None)
    }
}
