//! The bootstrap message and its decoder. The encoder is `launch::encode`.
//!
//! ```text
//! bytes ──[Header::parse, Bootstrap::parse]──> Bootstrap ──[launch::encode]──> bytes
//! ```
//!
//! All values in a [`Bootstrap`] have been checked, so its users never parse raw bytes. It borrows from the
//! message; nothing is copied or allocated.

#[doc(hidden)]
pub mod attribute;
#[doc(hidden)]
pub mod dialect;
#[doc(hidden)]
pub mod env;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod message;
#[doc(hidden)]
pub mod text;

use core::ffi::CStr;

pub use attribute::{Attribute, OomScoreAdj, OomScoreAdjError};
pub use dialect::Dialect;
pub use env::EnvError;
#[doc(hidden)]
pub use env::{Environment, OwnProgram, RawEnv};
pub use error::{ParseError, ParseErrorKind};
pub use message::{HEADER_LEN, Header, MESSAGE_MAX, decode};

use crate::deciders::idmap::IdMap;
use crate::deciders::namespace::NsSet;
use crate::deciders::namespace::paths::NsPaths;
use crate::deciders::timens::TimeOffsets;
use crate::sys::types::CloneFlags;

/// A decoded bootstrap message.
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
    #[cfg(feature = "legacy")]
    pub(crate) mount_sources: Option<crate::legacy::MountSources<'m>>,
}

impl<'m> Bootstrap<'m> {
    /// Returns a message that creates these namespaces and has no other attribute.
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
            #[cfg(feature = "legacy")]
            mount_sources: None,
        }
    }

    /// Returns the flags of the namespaces to create. Bits that are not namespace flags are kept:
    /// [`refuse_impossible`](crate::unshare::refuse_impossible) refuses them.
    #[must_use]
    pub const fn clone_flags(&self) -> CloneFlags {
        self.clone_flags
    }

    /// Returns the namespaces to join.
    #[must_use]
    pub const fn namespaces(&self) -> Option<NsPaths<'m>> {
        self.namespaces
    }

    /// Returns the kinds of the namespaces to join.
    #[must_use]
    pub fn joined(&self) -> NsSet {
        self.namespaces.map_or(NsSet::EMPTY, |paths| paths.kinds())
    }

    /// Returns the user id map. It is used only if the message creates a user namespace.
    #[must_use]
    pub const fn uid_map(&self) -> Option<IdMap<'m>> {
        self.uid_map
    }

    /// Returns the group id map; see [`uid_map`](Self::uid_map).
    #[must_use]
    pub const fn gid_map(&self) -> Option<IdMap<'m>> {
        self.gid_map
    }

    /// Returns whether setgroups(2) stays allowed in the new user namespace. An absent attribute means no.
    #[must_use]
    pub fn setgroup(&self) -> bool {
        self.setgroup.unwrap_or(false)
    }

    /// Returns the same attribute as in the message, or `None` if it is absent.
    #[must_use]
    pub const fn setgroup_present(&self) -> Option<bool> {
        self.setgroup
    }

    /// Returns the OOM score adjustment.
    #[must_use]
    pub const fn oom_score_adj(&self) -> Option<OomScoreAdj<'m>> {
        self.oom_score_adj
    }

    /// Returns whether the launcher's effective user id is not 0. An absent attribute means no (runc's own
    /// test omits it).
    #[must_use]
    pub const fn rootless_euid(&self) -> bool {
        self.rootless_euid
    }

    /// Returns the path of newuidmap. It may be relative: this is not checked here.
    #[must_use]
    pub const fn uidmap_path(&self) -> Option<&'m CStr> {
        self.uidmap_path
    }

    /// Returns the path of newgidmap. It may be relative: this is not checked here.
    #[must_use]
    pub const fn gidmap_path(&self) -> Option<&'m CStr> {
        self.gidmap_path
    }

    /// Returns the clock offsets for a new time namespace, since 1.2.
    #[must_use]
    pub const fn timens_offsets(&self) -> Option<TimeOffsets<'m>> {
        self.timens_offsets
    }

    /// Returns this message with other namespaces to create.
    #[must_use]
    pub const fn with_clone_flags(self, clone_flags: CloneFlags) -> Self {
        Self { clone_flags, ..self }
    }

    /// Returns this message with namespaces to join.
    #[must_use]
    pub const fn with_namespaces(self, namespaces: NsPaths<'m>) -> Self {
        Self { namespaces: Some(namespaces), ..self }
    }

    /// Returns this message with a user id map.
    #[must_use]
    pub const fn with_uid_map(self, map: IdMap<'m>) -> Self {
        Self { uid_map: Some(map), ..self }
    }

    /// Returns this message with a group id map.
    #[must_use]
    pub const fn with_gid_map(self, map: IdMap<'m>) -> Self {
        Self { gid_map: Some(map), ..self }
    }

    /// Returns this message with the setgroups(2) attribute.
    #[must_use]
    pub const fn with_setgroup(self, allowed: bool) -> Self {
        Self { setgroup: Some(allowed), ..self }
    }

    /// Returns this message with an OOM score adjustment.
    #[must_use]
    pub const fn with_oom_score_adj(self, oom: OomScoreAdj<'m>) -> Self {
        Self { oom_score_adj: Some(oom), ..self }
    }

    /// Returns this message with the rootless attribute.
    #[must_use]
    pub const fn with_rootless_euid(self, rootless_euid: bool) -> Self {
        Self { rootless_euid, ..self }
    }

    /// Returns this message with the path of newuidmap.
    #[must_use]
    pub const fn with_uidmap_path(self, path: &'m CStr) -> Self {
        Self { uidmap_path: Some(path), ..self }
    }

    /// Returns this message with the path of newgidmap.
    #[must_use]
    pub const fn with_gidmap_path(self, path: &'m CStr) -> Self {
        Self { gidmap_path: Some(path), ..self }
    }

    /// Returns this message with clock offsets.
    #[must_use]
    pub const fn with_timens_offsets(self, offsets: TimeOffsets<'m>) -> Self {
        Self { timens_offsets: Some(offsets), ..self }
    }

    /// Returns whether the message has the path of a mapping tool.
    #[cfg(feature = "std")]
    #[must_use]
    pub(crate) const fn names_mapping_tool(&self) -> bool {
        self.uidmap_path.is_some() || self.gidmap_path.is_some()
    }

    /// Returns this message without the paths of the mapping tools.
    #[cfg(feature = "std")]
    #[must_use]
    pub(crate) const fn without_mapping_tools(self) -> Self {
        Self { uidmap_path: None, gidmap_path: None, ..self }
    }

    /// Returns this message without the time offsets.
    #[cfg(feature = "std")]
    #[must_use]
    pub(crate) const fn without_timens_offsets(self) -> Self {
        Self { timens_offsets: None, ..self }
    }

    /// Returns whether both messages have the same meaning. A SETGROUP of false and an absent SETGROUP are
    /// the same.
    #[must_use]
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        let plain = |message: &Self| Self { setgroup: Some(message.setgroup()), ..*message };
        plain(self) == plain(other)
    }
}

#[cfg(test)]
pub(crate) mod tests;
