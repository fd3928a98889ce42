//! What only runc's older release lines need: 1.0, 1.1, and the seed, the commit of 2018 on which the rewrite
//! is based (`docs/protocol.md#dialects`).
//!
//! Without the feature `legacy` the crate has one dialect, [`Dialect::V1_2`](crate::bootstrap::Dialect), and
//! nothing of this folder. Outside of it, each call of this module is behind that feature.
//!
//! | module | contents |
//! |---|---|
//! | `dialects` | the older dialects and their differences, as data |
//! | `environment` | the environment of 1.0 and of the seed |
//! | `first_steps` | the sealed copy and the ready byte, in 1.0 and 1.1 |
//! | `cgroup` | the cgroup namespace that stage 2 creates, in 1.0 and 1.1 |
//! | `mount_sources`, `mount_fds` | the sources of bind mounts, in 1.1: the attribute and the variable |
//! | `sources`, `rights` | the steps of the stages for these sources, and descriptors in messages |
//! | `seed` | the pid line of the seed, and the failures that its stages report to stage 0 |
//! | `errors` | the steps and failures of all these |
//! | `launcher` | the launcher's half (feature `std`) |

#[doc(hidden)]
pub mod cgroup;
#[doc(hidden)]
pub mod dialects;
#[doc(hidden)]
pub mod environment;
#[doc(hidden)]
pub mod errors;
#[doc(hidden)]
pub mod first_steps;
#[cfg(feature = "std")]
pub(crate) mod launcher;
#[doc(hidden)]
pub mod mount_fds;
#[doc(hidden)]
pub mod mount_sources;
#[doc(hidden)]
pub mod rights;
#[doc(hidden)]
pub mod seed;
#[doc(hidden)]
pub mod sources;

pub use dialects::{CGROUP_BYTE, CgroupPlacement, Differences, EnvironmentForm, READY};
pub use errors::{Failure, Step};
pub use mount_fds::{MountFds, MountFdsError};
pub use mount_sources::MountSources;
