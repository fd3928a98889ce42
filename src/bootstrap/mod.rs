//! The bootstrap message: what the launcher asks for, as bytes and as values.
//!
//! ```text
//! bytes ──[Header::parse, Bootstrap::parse]──> Bootstrap ──[encode]──> bytes
//! ```
//!
//! Everything in a [`Bootstrap`] has been checked, so that afterwards nobody looks at a raw byte. It borrows
//! from the message; nothing is copied, and nothing allocated.

pub mod attribute;
pub mod dialect;
pub mod encode;
pub mod env;
pub mod error;
pub mod message;
pub mod mount_fds;
pub mod text;

use core::ffi::CStr;

pub use attribute::{Attribute, MountSources, OomScoreAdj, OomScoreAdjError};
pub use dialect::Dialect;
pub use encode::{EncodeError, encode, encoded_len};
pub use env::{EnvError, Environment, OwnProgram, RawEnv};
pub use error::{ParseError, ParseErrorKind};
pub use message::{ByteOrder, HEADER_LEN, Header, MESSAGE_MAX, decode};
pub use mount_fds::{MountFds, MountFdsError};
pub use text::Steps;

use crate::idmap::IdMap;
use crate::namespace::NsSet;
use crate::namespace::paths::NsPaths;
use crate::sys::types::CloneFlags;
use crate::timens::TimeOffsets;

/// What a bootstrap message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bootstrap<'m> {
    clone_flags: CloneFlags,
    namespaces: Option<NsPaths<'m>>,
    uid_map: Option<IdMap<'m>>,
    gid_map: Option<IdMap<'m>>,
    setgroup: Option<bool>,
    oom_score_adj: Option<OomScoreAdj<'m>>,
    rootless_euid: bool,
    uidmap_path: Option<&'m CStr>,
    gidmap_path: Option<&'m CStr>,
    timens_offsets: Option<TimeOffsets<'m>>,
    mount_sources: Option<MountSources<'m>>,
}

impl<'m> Bootstrap<'m> {
    /// A message that creates these namespaces and says nothing else.
    #[must_use]
    pub const fn new(clone_flags: CloneFlags) -> Self {
        Self {
            clone_flags,
            namespaces: None,
            uid_map: None,
            gid_map: None,
            setgroup: None,
            oom_score_adj: None,
            rootless_euid: false,
            uidmap_path: None,
            gidmap_path: None,
            timens_offsets: None,
            mount_sources: None,
        }
    }

    /// The namespaces to create. Bits that mean no namespace are kept: unshare(2) says EINVAL to them.
    #[must_use]
    pub const fn clone_flags(&self) -> CloneFlags {
        self.clone_flags
    }

    /// The namespaces to join.
    #[must_use]
    pub const fn namespaces(&self) -> Option<NsPaths<'m>> {
        self.namespaces
    }

    /// The kinds of the namespaces to join.
    #[must_use]
    pub fn joined(&self) -> NsSet {
        self.namespaces.map_or(NsSet::EMPTY, |paths| paths.kinds())
    }

    /// The user id map. It may be there without a user namespace to create, and is not used then.
    #[must_use]
    pub const fn uid_map(&self) -> Option<IdMap<'m>> {
        self.uid_map
    }

    /// The group id map; see [`uid_map`](Self::uid_map).
    #[must_use]
    pub const fn gid_map(&self) -> Option<IdMap<'m>> {
        self.gid_map
    }

    /// Whether setgroups(2) stays allowed in the new user namespace. Not present means no.
    #[must_use]
    pub fn setgroup(&self) -> bool {
        self.setgroup.unwrap_or(false)
    }

    /// The same attribute as it stood in the message: `None` if it was not there.
    #[must_use]
    pub const fn setgroup_present(&self) -> Option<bool> {
        self.setgroup
    }

    /// The OOM score adjustment.
    #[must_use]
    pub const fn oom_score_adj(&self) -> Option<OomScoreAdj<'m>> {
        self.oom_score_adj
    }

    /// Whether the launcher is an ordinary user. Not present means no (runc's own test leaves it out).
    #[must_use]
    pub const fn rootless_euid(&self) -> bool {
        self.rootless_euid
    }

    /// Where newuidmap is. Whether the path is absolute has not been checked.
    #[must_use]
    pub const fn uidmap_path(&self) -> Option<&'m CStr> {
        self.uidmap_path
    }

    /// Where newgidmap is. Whether the path is absolute has not been checked.
    #[must_use]
    pub const fn gidmap_path(&self) -> Option<&'m CStr> {
        self.gidmap_path
    }

    /// Clock offsets for a new time namespace, since 1.2.
    #[must_use]
    pub const fn timens_offsets(&self) -> Option<TimeOffsets<'m>> {
        self.timens_offsets
    }

    /// Sources of bind mounts, in 1.1 only.
    #[must_use]
    pub const fn mount_sources(&self) -> Option<MountSources<'m>> {
        self.mount_sources
    }

    /// This message with other namespaces to create.
    #[must_use]
    pub const fn with_clone_flags(self, clone_flags: CloneFlags) -> Self {
        Self { clone_flags, ..self }
    }

    /// This message with namespaces to join.
    #[must_use]
    pub const fn with_namespaces(self, namespaces: NsPaths<'m>) -> Self {
        Self { namespaces: Some(namespaces), ..self }
    }

    /// This message with a user id map.
    #[must_use]
    pub const fn with_uid_map(self, map: IdMap<'m>) -> Self {
        Self { uid_map: Some(map), ..self }
    }

    /// This message with a group id map.
    #[must_use]
    pub const fn with_gid_map(self, map: IdMap<'m>) -> Self {
        Self { gid_map: Some(map), ..self }
    }

    /// This message with a word on setgroups(2).
    #[must_use]
    pub const fn with_setgroup(self, allowed: bool) -> Self {
        Self { setgroup: Some(allowed), ..self }
    }

    /// This message with an OOM score adjustment.
    #[must_use]
    pub const fn with_oom_score_adj(self, oom: OomScoreAdj<'m>) -> Self {
        Self { oom_score_adj: Some(oom), ..self }
    }

    /// This message with a word on who the launcher is.
    #[must_use]
    pub const fn with_rootless_euid(self, rootless_euid: bool) -> Self {
        Self { rootless_euid, ..self }
    }

    /// This message with the path of newuidmap.
    #[must_use]
    pub const fn with_uidmap_path(self, path: &'m CStr) -> Self {
        Self { uidmap_path: Some(path), ..self }
    }

    /// This message with the path of newgidmap.
    #[must_use]
    pub const fn with_gidmap_path(self, path: &'m CStr) -> Self {
        Self { gidmap_path: Some(path), ..self }
    }

    /// This message with clock offsets.
    #[must_use]
    pub const fn with_timens_offsets(self, offsets: TimeOffsets<'m>) -> Self {
        Self { timens_offsets: Some(offsets), ..self }
    }

    /// This message with sources of bind mounts.
    #[must_use]
    pub const fn with_mount_sources(self, sources: MountSources<'m>) -> Self {
        Self { mount_sources: Some(sources), ..self }
    }

    /// Whether both messages ask for the same: that SETGROUP is there as false, or is not there, is the same.
    #[must_use]
    pub fn means_the_same_as(&self, other: &Self) -> bool {
        let plain = |message: &Self| Self { setgroup: Some(message.setgroup()), ..*message };
        plain(self) == plain(other)
    }
}

#[cfg(test)]
mod tests;
