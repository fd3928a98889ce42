//! What rules need to know besides the calls: what was asked for.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::record::{Call, Reply};
use crate::transcript::{Role, Run};
use nsexec::bootstrap::dialect::{CgroupPlacement, Dialect};
use nsexec::bootstrap::{Bootstrap, ByteOrder, HEADER_LEN, Header};
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Policy};
use nsexec::sys::types::{CloneFlags, Fd};

/// What was asked for: the message that stage 0 read, and the policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// What the message cannot say.
    pub policy: Policy,
    /// What the message says; `None` if stage 0 did not read one that is right.
    pub asked: Option<Asked>,
}

/// What a message asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// Kinds to create.
    pub created: CloneFlags,
    /// Kinds to join.
    pub joined: CloneFlags,
    /// Whether there is a list of namespaces at all.
    pub lists_namespaces: bool,
    /// The path of the user namespace to join.
    pub user_path: Option<Vec<u8>>,
    /// The caller has no privilege.
    pub rootless: bool,
    /// The new namespace may change groups.
    pub setgroup: bool,
    /// The uid map's text, if there is one.
    pub uid_map: Option<Vec<u8>>,
    /// The gid map's.
    pub gid_map: Option<Vec<u8>>,
    /// The time offsets' text.
    pub offsets: Option<Vec<u8>>,
    /// There are sources of bind mounts.
    pub mount_sources: bool,
    /// Absolute paths of the mapping tools.
    pub tools: Vec<Vec<u8>>,
}

impl Facts {
    /// From the bytes that stage 0 read from the init pipe, in the dialect of the policy.
    #[must_use]
    pub fn of(run: &Run, policy: Policy) -> Self {
        let read = read_first(run);
        let mut messages = read.values().filter_map(|bytes| decoded(bytes, policy.dialect));
        let asked = messages.next().map(|bootstrap| Asked::of(&bootstrap));
        Self { policy, asked }
    }

    /// As a Go runtime asks of the drop-in.
    #[must_use]
    pub fn of_drop_in(run: &Run) -> Self {
        Self::of(run, Policy::runc(&Dialect::V1_2))
    }

    /// Whether stage 2 creates the cgroup namespace, by the dialect and the message.
    pub(super) fn cgroup_in_stage_2(&self) -> bool {
        let placed = self.policy.dialect.cgroup_namespace != CgroupPlacement::WithOthers;
        placed && self.asked.as_ref().is_some_and(|asked| asked.created.contains(CloneFlags::NEWCGROUP))
    }

    /// Whether stage 2 becomes root right before its exec, and no stage earlier.
    pub(super) fn root_last(&self) -> bool {
        let created = self.asked.as_ref().map(|asked| asked.created);
        self.policy.credentials == Credentials::RootLast && created == Some(CloneFlags::EMPTY)
    }

    /// Whether a stage becomes root as soon as it is in the user namespace.
    pub(super) fn root_at_once(&self) -> bool {
        self.policy.credentials != Credentials::Keep && !self.root_last()
    }

    pub(super) fn creates_user(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.created.contains(CloneFlags::NEWUSER))
    }
}

impl Asked {
    /// What this message asks for.
    #[must_use]
    pub fn of(bootstrap: &Bootstrap<'_>) -> Self {
        let kinds = bootstrap.namespaces().map(|paths| paths.kinds());
        let joined = NsKind::ALL
            .into_iter()
            .filter(|kind| kinds.is_some_and(|kinds| kinds.contains(*kind)))
            .fold(CloneFlags::EMPTY, |flags, kind| flags.union(kind.flag()));
        let user =
            bootstrap.namespaces().and_then(|paths| paths.iter().find(|entry| entry.kind == NsKind::User));
        let tools = [bootstrap.uidmap_path(), bootstrap.gidmap_path()];
        Self {
            created: bootstrap.clone_flags(),
            joined,
            lists_namespaces: kinds.is_some(),
            user_path: user.map(|entry| entry.path.to_vec()),
            rootless: bootstrap.rootless_euid(),
            setgroup: bootstrap.setgroup(),
            uid_map: bootstrap.uid_map().map(|map| map.text().into()),
            gid_map: bootstrap.gid_map().map(|map| map.text().into()),
            offsets: bootstrap.timens_offsets().map(|offsets| offsets.text().into()),
            mount_sources: bootstrap.mount_sources().is_some(),
            tools: tools.into_iter().flatten().map(|path| path.to_bytes().into()).collect(),
        }
    }
}

/// What stage 0 read before it made the sync pipes, by descriptor: the message, from one that it did not close.
fn read_first(run: &Run) -> BTreeMap<Fd, Vec<u8>> {
    let mut read = BTreeMap::<Fd, Vec<u8>>::new();
    for line in run.section(Role::Stage(0)).into_iter().flat_map(|section| &section.lines) {
        match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) => read.entry(*fd).or_default().extend(&data.0),
            // In older dialects it reads its own program first, and copies it.
            (Call::Close { fd }, _) => drop(read.remove(fd)),
            (Call::Execve { .. } | Call::Execveat { .. }, Reply::NoReturn) => read.clear(),
            // The sync pipes come after the message.
            (Call::Socketpair, _) => break,
            _ => {}
        }
    }
    read
}

fn decoded<'m>(message: &'m [u8], dialect: &Dialect) -> Option<Bootstrap<'m>> {
    let header = Header::parse(message, ByteOrder::NATIVE).ok()?;
    let payload = message.get(HEADER_LEN..)?.get(..header.payload_len())?;
    Bootstrap::parse(payload, dialect, ByteOrder::NATIVE).ok()
}
