//! [`Command`] for programs that run on tokio: it starts commands and waits for them without blocking a
//! thread of the runtime. With the feature `tokio`.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Output};
use std::vec::Vec;

use core::fmt;

use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::{JoinHandle, spawn, spawn_blocking};

use super::error::LaunchError;
use super::stdio::Stdio;

/// Starts a command in namespaces, from an asynchronous program.
///
/// It is made from a [`launch::Command`](super::Command), which has the settings.
///
/// ```
/// use nsexec::launch;
/// use nsexec::namespace::NsKind::{Net, User};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// let mut command = launch::Command::new("id");
/// command.arg("-u").unshare([User, Net]).map_root();
/// let output = launch::tokio::Command::from(command).output().await?;
/// assert_eq!(output.stdout, b"0\n");
/// # Ok(())
/// # })
/// # }
/// ```
///
/// The launch itself runs on a thread of the runtime for blocking calls (`tokio::task::spawn_blocking`): the
/// functions of [`before_start`](super::Command::before_start) and
/// [`on_record`](super::Command::on_record) are called there. A future that is dropped during the launch does
/// not end it; the command is then killed and reaped as soon as it has begun.
#[derive(Clone, Debug)]
pub struct Command {
    inner: super::Command,
}

impl From<super::Command> for Command {
    fn from(inner: super::Command) -> Self {
        Self { inner }
    }
}

impl Command {
    /// Returns the command whose settings apply to the next start.
    pub const fn settings(&mut self) -> &mut super::Command {
        &mut self.inner
    }

    /// Starts the command, and returns after its exec.
    ///
    /// # Errors
    /// Those of [`Command::spawn`](super::Command::spawn), and [`LaunchError::Wait`]: the kernel has no pidfd
    /// (before Linux 5.3), no descriptor is free, or the runtime ends. The command has been killed then.
    ///
    /// # Panics
    /// Outside of a tokio runtime that has its I/O driver enabled.
    pub async fn spawn(&mut self) -> Result<Child, LaunchError> {
        self.start(None).await
    }

    /// Starts the command, waits for it, and returns what it wrote, as
    /// [`Command::output`](super::Command::output) does. If the future is dropped, the command is killed.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn), and [`LaunchError::Wait`]: it could not be waited for.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    pub async fn output(&mut self) -> Result<Output, LaunchError> {
        let defaults = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        let mut child = self.start(Some(defaults)).await?;
        child.kill_on_drop(true);
        child.wait_with_output().await.map_err(|error| LaunchError::waiting(&error))
    }

    /// Starts the command and waits for it. If the future is dropped, the command is killed.
    ///
    /// # Errors
    /// Those of [`output`](Self::output).
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    pub async fn status(&mut self) -> Result<ExitStatus, LaunchError> {
        let mut child = self.spawn().await?;
        child.kill_on_drop(true);
        child.wait().await.map_err(|error| LaunchError::waiting(&error))
    }

    /// Starts the command on a thread for blocking calls. `defaults` are the streams that were not set.
    async fn start(&mut self, defaults: Option<[Stdio; 3]>) -> Result<Child, LaunchError> {
        let mut command = self.inner.clone();
        let started = spawn_blocking(move || {
            let mut child = command.start(defaults.unwrap_or(Stdio::INHERITED))?;
            // If the future is dropped meanwhile, so is the result of this function.
            let kills = child.kills_on_drop();
            child.kill_on_drop(true);
            Ok::<_, LaunchError>((child, kills))
        });
        let joined = started.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => LaunchError::waiting(&io::Error::other("the runtime ends")),
        });
        let (child, kills) = joined??;
        let mut child = Child::new(child).map_err(|error| LaunchError::waiting(&error))?;
        child.kill_on_drop(kills);
        Ok(child)
    }
}

/// A command that runs in its namespaces, in an asynchronous program.
///
/// As with [`launch::Child`](super::Child), dropping it neither ends the command nor reaps it, unless
/// [`kill_on_drop`](super::Command::kill_on_drop) asks for both. That drop blocks until the command is
/// reaped, which after SIGKILL is a short time.
pub struct Child {
    /// The writing end of the command's standard input, if it is piped.
    pub stdin: Option<Sender>,
    /// The reading end of the command's standard output, if it is piped.
    pub stdout: Option<Receiver>,
    /// The reading end of the command's standard error, if it is piped.
    pub stderr: Option<Receiver>,
    /// Readable when the command has ended.
    pidfd: AsyncFd<OwnedFd>,
    inner: super::Child,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Child {
    fn new(mut inner: super::Child) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "its successor (tokio 1.54) is unsafe for the sake of other types: an OwnedFd is one descriptor for its whole life"
        )]
        let pidfd = AsyncFd::new(inner.pidfd()?.try_clone_to_owned()?)?;
        let stdin = inner.stdin.take().map(|pipe| Sender::from_owned_fd(pipe.into())).transpose()?;
        let stdout = inner.stdout.take().map(|pipe| Receiver::from_owned_fd(pipe.into())).transpose()?;
        let stderr = inner.stderr.take().map(|pipe| Receiver::from_owned_fd(pipe.into())).transpose()?;
        Ok(Self { stdin, stdout, stderr, pidfd, inner })
    }

    const fn kill_on_drop(&mut self, kill: bool) {
        self.inner.kill_on_drop(kill);
    }

    /// The handle for a program without tokio: its pid, namespaces and pidfd. Its pipes are here.
    #[must_use]
    pub const fn inner(&self) -> &super::Child {
        &self.inner
    }

    /// The process id as a number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Waits until the command has ended. Later calls return the same status again. Closes
    /// [`stdin`](Self::stdin) first. If the future is dropped, nothing is lost.
    ///
    /// # Errors
    /// Those of [`Child::wait`](super::Child::wait).
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            self.pidfd.readable().await?.clear_ready();
        }
    }

    /// Reads standard output and standard error to their ends, as far as they are piped, and waits for the
    /// command.
    ///
    /// # Errors
    /// The error of a read, or those of [`wait`](Self::wait).
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        // Both at the same time: the command may fill one while the other is read.
        let mut stderr = Reader(spawn(read_to_end(self.stderr.take())));
        let stdout = read_to_end(self.stdout.take()).await;
        let stderr = (&mut stderr.0).await.map_err(io::Error::other);
        // Also after an error of a read, so that the command is reaped.
        let status = self.wait().await?;
        Ok(Output { status, stdout: stdout?, stderr: stderr?? })
    }

    /// Sends SIGKILL to the command, and waits for its end. In a pid namespace of its own, that ends all
    /// processes in it.
    ///
    /// # Errors
    /// Those of [`Child::kill`](super::Child::kill) and [`wait`](Self::wait).
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.inner.kill()?;
        self.wait().await
    }
}

/// A task that ends with the future that waits for it.
struct Reader(JoinHandle<io::Result<Vec<u8>>>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_to_end(pipe: Option<Receiver>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
