//! The facts that rules need besides the calls: the request.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use crate::record::{Call, Line, Reply, hex_digits, unhex};
use crate::sections::is_made_by_launcher;
use crate::transcript::{Role, Run, Section};
use nsexec::bootstrap::dialect::Dialect;
use nsexec::bootstrap::{Bootstrap, HEADER_LEN, Header};
use nsexec::legacy::CgroupPlacement;
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Policy};
use nsexec::sys::types::{CloneFlags, Fd};

/// The request: the message that stage 0 read, and the policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// The options that the message cannot express.
    pub policy: Policy,
    /// The content of the message. `None` if stage 0 did not read a valid one.
    pub asked: Option<Request>,
}

/// The request of a bootstrap message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// The kinds of namespaces to create.
    pub created: CloneFlags,
    /// The kinds of namespaces to join.
    pub joined: CloneFlags,
    /// Whether the message has a list of namespaces.
    pub lists_namespaces: bool,
    /// The path of the user namespace to join.
    pub user_path: Option<Vec<u8>>,
    /// Whether the caller has no privilege.
    pub rootless: bool,
    /// Whether the new user namespace may change groups.
    pub setgroup: bool,
    /// The text of the uid map, if there is one.
    pub uid_map: Option<Vec<u8>>,
    /// The text of the gid map, if there is one.
    pub gid_map: Option<Vec<u8>>,
    /// The text of the time offsets, if there is one.
    pub offsets: Option<Vec<u8>>,
    /// The text of the oom score, if there is one.
    pub oom_score: Option<Vec<u8>>,
    /// Whether there are sources of bind mounts.
    pub mount_sources: bool,
    /// The absolute paths of the mapping tools.
    pub tools: Vec<Vec<u8>>,
}

impl Facts {
    /// Returns the facts from the run's note of the message ([`message_note`]), or else from the bytes that
    /// stage 0 read from the init pipe, in the policy's dialect. A direct start sends no message.
    #[must_use]
    pub fn of(run: &Run, policy: Policy) -> Self {
        let noted = run.notes.get(MESSAGE).and_then(|text| unhex(text));
        if let Some(bootstrap) = noted.as_deref().and_then(|bytes| decoded(bytes, policy.dialect)) {
            return Self { policy, asked: Some(Request::of(&bootstrap)) };
        }
        let read = read_first(run);
        let mut messages = read.values().filter_map(|bytes| decoded(bytes, policy.dialect));
        let asked = messages.next().map(|bootstrap| Request::of(&bootstrap));
        Self { policy, asked }
    }

    /// Returns the facts for a drop-in that a Go runtime starts.
    #[must_use]
    pub fn of_drop_in(run: &Run) -> Self {
        Self::of(run, Policy::runc(&Dialect::V1_2))
    }

    /// Returns whether stage 2 creates the cgroup namespace, according to the dialect and the message.
    pub(super) fn cgroup_in_stage_2(&self) -> bool {
        let placed = self.policy.dialect.legacy.cgroup_namespace != CgroupPlacement::WithOthers;
        placed && self.asked.as_ref().is_some_and(|asked| asked.created.contains(CloneFlags::NEWCGROUP))
    }

    /// Returns whether stage 2 becomes root only just before its exec.
    pub(super) fn root_last(&self) -> bool {
        let created = self.asked.as_ref().map(|asked| asked.created);
        self.policy.credentials == Credentials::RootLast && created == Some(CloneFlags::EMPTY)
    }

    /// Returns whether a stage becomes root as soon as it is in the user namespace.
    pub(super) fn root_at_once(&self) -> bool {
        self.policy.credentials != Credentials::Keep && !self.root_last()
    }

    pub(super) fn creates_user(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.created.contains(CloneFlags::NEWUSER))
    }
}

/// The name of the note with the bootstrap message.
pub(crate) const MESSAGE: &str = "message";

/// Returns the note from which [`Facts::of`] learns the request of a direct start: the name, and the message
/// as hexadecimal digits.
#[must_use]
pub fn message_note(message: &[u8]) -> (String, String) {
    (MESSAGE.into(), message.iter().flat_map(hex_digits).collect())
}

impl Request {
    /// Returns the request of this message.
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
            oom_score: bootstrap.oom_score_adj().map(|score| score.text().into()),
            mount_sources: bootstrap.mount_sources().is_some(),
            tools: tools.into_iter().flatten().map(|path| path.to_bytes().into()).collect(),
        }
    }
}

/// The key of the note of a run of a start in place, in which the launcher has the role of stage 1.
pub(super) const IN_PLACE_VIEW: &str = "in place";

/// The processes between the launcher and the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// None: the launcher created the command's process itself.
    Direct,
    /// Stage 1, which the launcher created itself.
    Child,
    /// The stages, or the run does not show it.
    Stages,
    /// None: the launcher, as stage 1, became the command. Stage 0 is its helper.
    InPlace,
}

impl Shape {
    /// Returns the shape of a run, as the calls show it.
    pub(super) fn of(run: &Run) -> Self {
        if run.notes.contains_key(IN_PLACE_VIEW) {
            return Self::InPlace;
        }
        // An init that was given up for the stages has another role.
        if is_made_by_launcher(run, Role::Stage(2)) {
            Self::Direct
        } else if is_made_by_launcher(run, Role::Stage(1)) {
            Self::Child
        } else {
            Self::Stages
        }
    }
}

/// Returns whether this is stage 1 of a start through a child: the launcher created it.
pub(super) fn is_child(section: &Section) -> bool {
    section
        .lines
        .first()
        .is_some_and(|line| matches!(line, Line { call: Call::CloneChild { .. }, reply: Reply::Child }))
}

/// Returns whether this is the first process that our own launcher created.
pub(super) fn is_first(section: &Section) -> bool {
    section.role == Role::Stage(0) || is_child(section) || starts_directly(section)
}

/// Returns whether this is the command's process of a direct start.
pub(super) fn starts_directly(section: &Section) -> bool {
    section
        .lines
        .first()
        .is_some_and(|line| matches!(line, Line { call: Call::CloneInit { .. }, reply: Reply::Child }))
}

/// Returns the process that writes the files in /proc of the new process: the launcher in a direct start,
/// stage 1 itself in a start through a child, otherwise stage 0, which is the helper of a start in place.
pub(super) const fn writer(shape: Shape) -> Role {
    match shape {
        Shape::Direct => Role::Launcher,
        Shape::Child => Role::Stage(1),
        Shape::Stages | Shape::InPlace => Role::Stage(0),
    }
}

/// Returns the bytes that stage 0 read before it created the sync pipes, by descriptor. The message is on a
/// descriptor that it did not close.
fn read_first(run: &Run) -> BTreeMap<Fd, Vec<u8>> {
    let mut read = BTreeMap::<Fd, Vec<u8>>::new();
    for line in run.section(Role::Stage(0)).into_iter().flat_map(|section| &section.lines) {
        match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) => read.entry(*fd).or_default().extend(&data.0),
            // In older dialects stage 0 reads its own program first, to copy it.
            (Call::Close { fd }, _) => drop(read.remove(fd)),
            (Call::Execve { .. } | Call::Execveat { .. }, Reply::NoReturn) => read.clear(),
            // The sync pipes are created after the message is read.
            (Call::Socketpair, _) => break,
            _ => {}
        }
    }
    read
}

fn decoded<'m>(message: &'m [u8], dialect: &Dialect) -> Option<Bootstrap<'m>> {
    let header = Header::parse(message).ok()?;
    let payload = message.get(HEADER_LEN..)?.get(..header.payload_len())?;
    Bootstrap::parse(payload, dialect).ok()
}
