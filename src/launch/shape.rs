//! The shape of a start: which processes the launcher creates. Decided from what is asked alone, so a plan
//! names it before anything runs.

use core::fmt;

use crate::deciders::bootstrap::{Bootstrap, Dialect};
use crate::deciders::idmap::IdMap;
use crate::deciders::policy::{Credentials, Policy};
use crate::sys::types::CloneFlags;

/// The processes between the launcher and the command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Shape {
    /// None. The launcher creates the command's process in its new namespaces, and writes its maps. If the
    /// kernel refuses that clone, or a map for which the message names a tool, the launcher creates the
    /// stages.
    Direct,
    /// One process, stage 1. It joins and creates the namespaces, and creates the command's process in them.
    Child,
    /// The three stages, of which the last becomes the command.
    Stages(WhyStages),
    /// No stages and no new process: the launcher itself enters the namespaces and executes the command
    /// ([`Launcher::exec`](super::Launcher::exec)). If it creates a user namespace, it forks a
    /// helper, which writes the maps from outside as stage 0 does, and ends before the exec.
    InPlace,
}

/// Why a start needs the stages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WhyStages {
    /// The policy asks for them.
    Policy,
    /// The message is of an older release line.
    Dialect,
    /// A user namespace is created inside of joined namespaces. Its maps are written while the process in it
    /// is dumpable for a moment.
    UserInJoined,
    /// A mapping tool has to write a map. Stage 0 starts and watches it.
    MappingTool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Direct => return f.write_str("direct: one process, because nothing is joined"),
            Self::Child => {
                return f.write_str(
                    "through a child, because only a fork enters a joined pid or a new time namespace",
                );
            }
            Self::InPlace => return f.write_str("in place: this process becomes the command"),
            Self::Stages(why) => why,
        };
        f.write_str("three stages, because ")?;
        f.write_str(match why {
            WhyStages::Policy => "the policy asks for them",
            WhyStages::Dialect => "the dialect is an older one",
            WhyStages::UserInJoined => "a user namespace is created inside of joined ones",
            WhyStages::MappingTool => "a mapping tool writes the maps",
        })
    }
}

/// Returns the shape of a start.
#[must_use]
pub fn shape(asked: &Bootstrap<'_>, policy: &Policy) -> Shape {
    if policy.launch.in_place {
        return Shape::InPlace;
    }
    let why = if policy.launch.stages {
        WhyStages::Policy
    } else if *policy.dialect != Dialect::V1_2 {
        WhyStages::Dialect
    } else if asked.namespaces().is_some() {
        match asked.clone_flags().contains(CloneFlags::NEWUSER) {
            true => WhyStages::UserInJoined,
            false => return Shape::Child,
        }
    } else if needs_no_proc(asked) {
        return Shape::Child;
    } else if needs_tool(asked) {
        WhyStages::MappingTool
    } else {
        return Shape::Direct;
    };
    Shape::Stages(why)
}

/// Returns whether the start creates a time namespace and needs no file of /proc. Without such a file a
/// process enters the namespace only by a fork. A direct start opens the namespace in /proc.
fn needs_no_proc(asked: &Bootstrap<'_>) -> bool {
    let flags = asked.clone_flags();
    flags.contains(CloneFlags::NEWTIME)
        && !flags.contains(CloneFlags::NEWUSER)
        && asked.timens_offsets().is_none()
}

/// Returns whether a mapping tool has to write a map. Without privilege the kernel accepts a map of one id
/// only, the caller's own (user_namespaces(7)). Whether that id is the caller's own shows when it is written:
/// if not, the direct start is given up for the stages.
fn needs_tool(asked: &Bootstrap<'_>) -> bool {
    let is_long = |map: IdMap<'_>| map.extents().map(|extent| u64::from(extent.count)).sum::<u64>() > 1;
    let maps = [asked.uid_map(), asked.gid_map()];
    asked.rootless_euid() && asked.names_mapping_tool() && maps.into_iter().flatten().any(is_long)
}

/// Whether the process of a direct start shares the launcher's memory up to its exec.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Memory {
    /// It does. The kernel copies no page table, so the size of the launcher does not matter.
    Shared,
    /// It does, and the launcher is not dumpable meanwhile (PR_SET_DUMPABLE(2const)). Only a process with
    /// CAP_SYS_PTRACE in the launcher's user namespace can then trace the new process, and it can trace the
    /// launcher too (ptrace(2), "Ptrace access mode checking").
    SharedNotDumpable,
    /// It has a copy, as after fork(2).
    Copied(WhyCopied),
}

/// Why a process has a copy of the launcher's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WhyCopied {
    /// The start is not direct. The stages are forks.
    Stages,
    /// The policy asks for a copy.
    Policy,
    /// The kernel refuses setns(2) to a time namespace in shared memory (`EUSERS`).
    Time,
    /// The kernel writes an oom score to all processes that share the memory.
    OomScore,
    /// The process enters a cgroup. An out-of-memory kill in that cgroup ends all processes that share the
    /// memory of the victim, inside and outside of the cgroup.
    Cgroup,
    /// A user namespace is created. A process of its owner may then trace the new process, and through it
    /// reach the memory of a launcher that it may not trace (user_namespaces(7), "Capabilities").
    User(Guard),
    /// A minimal init keeps the memory after the exec of the command.
    Init,
    /// The effective ids change, or code of the caller may change them. The kernel then makes the memory, and
    /// so the launcher, not dumpable.
    Ids,
}

impl Memory {
    /// Returns whether the process shares the launcher's memory.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::SharedNotDumpable)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Shared => return f.write_str("shared with the launcher up to the exec"),
            Self::SharedNotDumpable => {
                return f.write_str(
                    "shared with the launcher up to the exec, and the launcher is not dumpable meanwhile",
                );
            }
            Self::Copied(why) => why,
        };
        f.write_str("a copy, because ")?;
        f.write_str(match why {
            WhyCopied::Stages => "the stages are forks",
            WhyCopied::Policy => "the policy asks for it",
            WhyCopied::Time => "a time namespace cannot be entered in shared memory",
            WhyCopied::OomScore => "an oom score is written to every process that shares the memory",
            WhyCopied::Cgroup => {
                "an out-of-memory kill in the command's cgroup ends every process that shares the memory"
            }
            WhyCopied::User(guard) => {
                return write!(
                    f,
                    "the owner of the new user namespace could reach the launcher's memory: {guard}"
                );
            }
            WhyCopied::Init => "the init keeps its memory after the exec of the command",
            WhyCopied::Ids => "the ids change, which would make the launcher not dumpable",
        })
    }
}

/// The properties of the launching thread, and of the machine, that decide which processes can trace the
/// launcher (ptrace(2), "Ptrace access mode checking").
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protection {
    /// Whether the real, the effective and the saved user id, and that for files, are one id; likewise the
    /// group ids.
    pub equal_ids: bool,
    /// The permitted capabilities, as bits. `None`: unknown.
    pub permitted: Option<u64>,
    /// Whether the dumpable attribute is 1 (PR_GET_DUMPABLE(2const)).
    pub dumpable: bool,
    /// Whether Yama restricts tracing.
    pub yama: Yama,
    /// Whether AppArmor may give the creator of a user namespace another label (the sysctl
    /// kernel.apparmor_restrict_unprivileged_userns of Ubuntu's kernels is not 0, or unknown).
    pub relabels: bool,
    /// Whether a change of the effective ids makes the memory dumpable (the sysctl fs.suid_dumpable is 1, or
    /// unknown). By default such a change makes it not dumpable.
    #[cfg_attr(feature = "serde", serde(default = "unknown"))]
    pub suid_dumpable: bool,
}

/// The value of [`Protection::suid_dumpable`] in a stored value that lacks it.
#[cfg(feature = "serde")]
const fn unknown() -> bool {
    true
}

/// Whether the security module Yama restricts tracing (the sysctl kernel.yama.ptrace_scope).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Yama {
    /// It does not: the kernel has no Yama, or the scope is 0.
    Off,
    /// It does.
    On,
    /// The sysctl cannot be read.
    Unknown,
}

/// A property of the launcher, or of the machine, that prevents the owner of a new user namespace from
/// tracing the launcher, and not from tracing the new process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Guard {
    /// The launcher has capabilities, or they are unknown (capabilities(7)).
    Capabilities,
    /// Its ids differ from each other.
    Ids,
    /// It is not dumpable.
    NotDumpable,
    /// Yama restricts tracing, or its sysctl cannot be read.
    Yama(Yama),
    /// AppArmor may give the new process another label.
    Label,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capabilities => "the launcher has capabilities",
            Self::Ids => "the launcher's ids are not all the same",
            Self::NotDumpable => "the launcher is not dumpable",
            Self::Yama(Yama::Unknown) => {
                "Yama may restrict tracing (kernel.yama.ptrace_scope cannot be read)"
            }
            Self::Yama(_) => "Yama restricts tracing (kernel.yama.ptrace_scope)",
            Self::Label => {
                "AppArmor may give its creator another label (kernel.apparmor_restrict_unprivileged_userns)"
            }
        })
    }
}

impl Protection {
    /// A launcher with equal ids and without capabilities, dumpable, on a machine where neither module
    /// restricts tracing: every process of its ids can trace it.
    pub const NONE: Self = Self {
        equal_ids: true,
        permitted: Some(0),
        dumpable: true,
        yama: Yama::Off,
        relabels: false,
        suid_dumpable: false,
    };

    /// Returns whether a launcher with root's ids can share its memory with a process that others may trace, if
    /// it is not dumpable meanwhile. Such a launcher can still write the maps of that process: the files
    /// belong to root of the user namespace in which the launcher's program was executed.
    #[must_use]
    pub const fn may_hide(&self) -> bool {
        !self.suid_dumpable && !self.relabels
    }

    /// Returns the first property because of which the process of a new user namespace must not have the
    /// launcher's memory. `None`: each process that will be able to trace the new process can trace the
    /// launcher.
    ///
    /// A process of the launcher's user id and of another group id is not considered: it cannot trace the
    /// launcher, and can trace the new process. Other processes cannot be enumerated. With a copied memory
    /// such a process gets the copy, and the launcher's group ids, in the same way (SECURITY.md).
    #[must_use]
    pub const fn guard(&self) -> Option<Guard> {
        Some(match self {
            Self { permitted: None | Some(1..), .. } => Guard::Capabilities,
            Self { equal_ids: false, .. } => Guard::Ids,
            Self { dumpable: false, .. } => Guard::NotDumpable,
            Self { yama: yama @ (Yama::On | Yama::Unknown), .. } => Guard::Yama(*yama),
            Self { relabels: true, .. } => Guard::Label,
            _ => return None,
        })
    }
}

/// Returns whether the process shares the memory of the launcher. `runs_code`: it runs code of the caller,
/// which may change its ids. `enters_cgroup`: it enters a cgroup of the command. `root_ids`: the launcher's
/// effective user and group id, and those for files (setfsuid(2)), are 0. `protection`: that of the launcher,
/// which matters only if a user namespace is created or the ids change.
#[must_use]
pub fn memory(
    asked: &Bootstrap<'_>,
    policy: &Policy,
    runs_code: bool,
    enters_cgroup: bool,
    root_ids: bool,
    protection: &Protection,
) -> Memory {
    let creates_user = asked.clone_flags().contains(CloneFlags::NEWUSER);
    let guard = protection.guard().filter(|_| creates_user);
    let may_hide = root_ids && protection.may_hide();
    // A launcher without capabilities can map no id but its own (user_namespaces(7)). So root of the new
    // namespace has the launcher's ids outside, and the kernel sees no change of ids.
    let keeps_ids = policy.credentials == Credentials::Keep || root_ids || creates_user;
    let why = if shape(asked, policy) != Shape::Direct {
        WhyCopied::Stages
    } else if policy.launch.copied_memory {
        WhyCopied::Policy
    } else if asked.clone_flags().contains(CloneFlags::NEWTIME) {
        WhyCopied::Time
    } else if asked.oom_score_adj().is_some() {
        WhyCopied::OomScore
    } else if enters_cgroup {
        WhyCopied::Cgroup
    } else if let Some(guard) = guard.filter(|_| !may_hide) {
        WhyCopied::User(guard)
    } else if policy.launch.init {
        WhyCopied::Init
    } else if runs_code || !may_hide && (policy.launch.changes_ids() || !keeps_ids) {
        WhyCopied::Ids
    } else if guard.is_some() || policy.launch.changes_ids() {
        return Memory::SharedNotDumpable;
    } else {
        return Memory::Shared;
    };
    Memory::Copied(why)
}

/// The namespaces of a direct start, in the order of their creation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Order {
    /// Created together with the process.
    pub with_process: CloneFlags,
    /// Created by the process itself: with a user namespace as root of it, without one only a cgroup and a
    /// time namespace.
    pub by_process: CloneFlags,
}

/// Returns the order for these namespaces.
///
/// With a user namespace, only that and the pid namespace are created with the process: the pid namespace is
/// for children only. The others are created after the maps are in force and the process is root: an ipc
/// namespace that is created together with the user namespace gets a wrong SELinux label for its mqueue
/// (runc#4466). Without a user namespace all are created with the process, with two exceptions: clone(2) has
/// no flag for a time namespace, and the root of a cgroup namespace is the cgroup of its creator, which must
/// be that of the command.
#[must_use]
pub const fn order(created: CloneFlags) -> Order {
    let with_process = match created.contains(CloneFlags::NEWUSER) {
        true => CloneFlags(created.0 & (CloneFlags::NEWUSER.0 | CloneFlags::NEWPID.0)),
        false => created.without(CloneFlags::NEWTIME.union(CloneFlags::NEWCGROUP)),
    };
    Order { with_process, by_process: created.without(with_process) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deciders::namespace::NsSet;
    use crate::deciders::namespace::paths::NsPaths;
    use std::string::ToString;

    const NEWUSER: CloneFlags = CloneFlags::NEWUSER;

    fn mapped<'m>(map: &'m core::ffi::CStr) -> Bootstrap<'m> {
        let map = IdMap::parse(map).unwrap();
        Bootstrap::new(NEWUSER).with_uid_map(map).with_gid_map(map)
    }

    fn shape_of(asked: &Bootstrap<'_>) -> Shape {
        shape(asked, &Policy::runc(&Dialect::V1_2))
    }

    #[test]
    fn start_that_joins_nothing_is_direct() {
        let one = NsSet::ALL.iter().map(|kind| kind.flag()).filter(|flag| *flag != CloneFlags::NEWTIME);
        for flags in one.chain([CloneFlags::EMPTY, NsSet::ALL.flags(), NEWUSER.union(CloneFlags::NEWTIME)]) {
            assert_eq!(shape_of(&Bootstrap::new(flags)), Shape::Direct, "{flags}");
        }
        // With offsets, both shapes need /proc.
        let offsets = crate::deciders::timens::TimeOffsets::parse(c"boottime 1 0\n").unwrap();
        let shifted = Bootstrap::new(CloneFlags::NEWTIME).with_timens_offsets(offsets);
        assert_eq!(shape_of(&shifted), Shape::Direct);
        assert_eq!(Shape::Direct.to_string(), "direct: one process, because nothing is joined");
    }

    /// A joined pid namespace and a new time namespace are entered by a fork.
    #[test]
    fn joins_and_a_bare_time_namespace_go_through_a_child() {
        let nothing = Bootstrap::new(CloneFlags::EMPTY);
        let paths = NsPaths::parse(b"net:/n,user:/u,pid:/p", NsSet::ALL).unwrap();
        let created = Bootstrap::new(CloneFlags::NEWNS.union(CloneFlags::NEWTIME));
        for asked in [
            nothing.with_namespaces(paths),
            // A tool is named, and no map is to be written.
            nothing.with_namespaces(paths).with_uidmap_path(c"/usr/bin/newuidmap").with_rootless_euid(true),
            created.with_namespaces(paths),
            created,
            Bootstrap::new(CloneFlags::NEWTIME.union(CloneFlags::NEWNET)),
        ] {
            assert_eq!(shape_of(&asked), Shape::Child, "{}", asked.clone_flags());
        }
        assert_eq!(
            Shape::Child.to_string(),
            "through a child, because only a fork enters a joined pid or a new time namespace"
        );
    }

    #[test]
    fn each_reason_for_the_stages_has_its_text() {
        let nothing = Bootstrap::new(CloneFlags::EMPTY);
        let paths = NsPaths::parse(b"net:/n", NsSet::ALL).unwrap();
        let policy = Policy::runc(&Dialect::V1_2);
        let user_in_joined = "a user namespace is created inside of joined ones";
        let long = mapped(c"0 1000 1\n1 100000 9\n");
        let tool = long.with_rootless_euid(true).with_uidmap_path(c"/usr/bin/newuidmap");
        for (asked, policy, why, text) in [
            (nothing, policy.with_stages(true), WhyStages::Policy, "the policy asks for them"),
            (long.with_namespaces(paths), policy, WhyStages::UserInJoined, user_in_joined),
            (tool, policy, WhyStages::MappingTool, "a mapping tool writes the maps"),
            // The first reason of several is named.
            (tool.with_namespaces(paths), policy, WhyStages::UserInJoined, user_in_joined),
            (
                nothing.with_namespaces(paths),
                policy.with_stages(true),
                WhyStages::Policy,
                "the policy asks for them",
            ),
            (tool, policy.with_stages(true), WhyStages::Policy, "the policy asks for them"),
        ] {
            assert_eq!(shape(&asked, &policy), Shape::Stages(why));
            assert_eq!(Shape::Stages(why).to_string(), std::format!("three stages, because {text}"));
        }
    }

    const WITH_A_CAPABILITY: Protection = Protection { permitted: Some(1 << 10), ..Protection::NONE };

    #[test]
    fn launcher_that_the_owner_of_a_user_namespace_cannot_trace_is_guarded() {
        let none = Protection::NONE;
        assert_eq!(none.guard(), None);
        for (protection, guard, text) in [
            (WITH_A_CAPABILITY, Guard::Capabilities, "the launcher has capabilities"),
            (Protection { permitted: None, ..none }, Guard::Capabilities, "the launcher has capabilities"),
            (Protection { equal_ids: false, ..none }, Guard::Ids, "the launcher's ids are not all the same"),
            (Protection { dumpable: false, ..none }, Guard::NotDumpable, "the launcher is not dumpable"),
            (Protection { yama: Yama::On, ..none }, Guard::Yama(Yama::On), "Yama restricts tracing"),
            (
                Protection { yama: Yama::Unknown, ..none },
                Guard::Yama(Yama::Unknown),
                "Yama may restrict tracing",
            ),
            (
                Protection { relabels: true, ..none },
                Guard::Label,
                "AppArmor may give its creator another label",
            ),
            // The first one of several is named.
            (
                Protection { dumpable: false, yama: Yama::On, ..WITH_A_CAPABILITY },
                Guard::Capabilities,
                "the launcher has capabilities",
            ),
        ] {
            assert_eq!(protection.guard(), Some(guard), "{protection:?}");
            assert!(guard.to_string().starts_with(text), "{guard}");
        }
    }

    #[test]
    fn memory_is_shared_with_a_new_user_namespace_of_an_unguarded_launcher() {
        let asked = mapped(c"0 1000 1\n");
        let policy = Policy::runc(&Dialect::V1_2).with_credentials(Credentials::Root);
        let (none, on) = (Protection::NONE, Protection { yama: Yama::On, ..Protection::NONE });
        let memory =
            |policy, runs_code, protection| memory(&asked, policy, runs_code, false, false, protection);
        assert_eq!(memory(&policy, false, &none), Memory::Shared);
        let copied = memory(&policy, false, &on);
        assert_eq!(copied, Memory::Copied(WhyCopied::User(Guard::Yama(Yama::On))));
        assert_eq!(
            copied.to_string(),
            "a copy, because the owner of the new user namespace could reach the launcher's memory: Yama restricts \
             tracing (kernel.yama.ptrace_scope)"
        );
        // The other reasons hold too.
        assert_eq!(memory(&policy, true, &none), Memory::Copied(WhyCopied::Ids));
        let (mut init, mut user) = (policy, policy);
        init.launch.init = true;
        user.launch.uid = Some(7);
        assert_eq!(memory(&init, false, &none), Memory::Copied(WhyCopied::Init));
        assert_eq!(memory(&user, false, &none), Memory::Copied(WhyCopied::Ids));
        let copied = policy.with_copied_memory(true);
        assert_eq!(memory(&copied, false, &none), Memory::Copied(WhyCopied::Policy));
    }

    /// Root makes itself not dumpable, and shares its memory whatever the guard is.
    #[test]
    fn launcher_with_root_ids_hides_itself() {
        let policy = Policy::runc(&Dialect::V1_2).with_credentials(Credentials::Root);
        let root = Protection { permitted: Some(u64::MAX), ..Protection::NONE };
        let (own, other) = (mapped(c"0 0 1\n"), mapped(c"0 100000 65536\n"));
        let memory = |asked: &Bootstrap<'_>, policy: &Policy, root_ids, protection: &Protection| {
            memory(asked, policy, false, false, root_ids, protection)
        };
        let hidden = Memory::SharedNotDumpable;
        let copied = |guard| Memory::Copied(WhyCopied::User(guard));
        for asked in [&own, &other] {
            for protection in [root, Protection { yama: Yama::On, equal_ids: false, ..root }] {
                assert_eq!(memory(asked, &policy, true, &protection), hidden);
            }
            for protection in
                [Protection { suid_dumpable: true, ..root }, Protection { relabels: true, ..root }]
            {
                assert_eq!(memory(asked, &policy, true, &protection), copied(Guard::Capabilities));
            }
            assert_eq!(memory(asked, &policy, false, &root), copied(Guard::Capabilities));
        }
        // Also for a command with ids of its own, without a user namespace.
        let mut user = policy;
        user.launch.uid = Some(7);
        let net = Bootstrap::new(CloneFlags::NEWNET);
        assert_eq!(memory(&net, &user, true, &root), hidden);
        assert_eq!(memory(&net, &policy, true, &root), Memory::Shared);
        let debugged = Protection { suid_dumpable: true, ..root };
        assert_eq!(memory(&net, &user, true, &debugged), Memory::Copied(WhyCopied::Ids));
        assert!(hidden.is_shared() && !copied(Guard::Ids).is_shared());
        assert!(hidden.to_string().ends_with("and the launcher is not dumpable meanwhile"));
    }

    /// Without a user namespace the process has the launcher's one, so the same processes can trace both.
    #[test]
    fn guard_does_not_matter_without_a_new_user_namespace() {
        let asked = Bootstrap::new(CloneFlags::NEWNET);
        let policy = Policy::runc(&Dialect::V1_2);
        let memory = |root_ids| memory(&asked, &policy, false, false, root_ids, &WITH_A_CAPABILITY);
        assert_eq!(memory(true), Memory::Shared);
        // Root's ids are other ones than those of this launcher.
        assert_eq!(memory(false), Memory::Copied(WhyCopied::Ids));
    }

    /// An out-of-memory kill in the cgroup would also end the launcher.
    #[test]
    fn process_that_enters_a_cgroup_gets_a_copy() {
        let policy = Policy::runc(&Dialect::V1_2);
        for flags in [CloneFlags::EMPTY, CloneFlags::NEWNET, CloneFlags::NEWCGROUP] {
            let memory =
                |enters| memory(&Bootstrap::new(flags), &policy, false, enters, true, &Protection::NONE);
            assert_eq!(memory(false), Memory::Shared, "{flags}");
            assert_eq!(memory(true), Memory::Copied(WhyCopied::Cgroup), "{flags}");
        }
        assert_eq!(
            Memory::Copied(WhyCopied::Cgroup).to_string(),
            "a copy, because an out-of-memory kill in the command's cgroup ends every process that shares the memory"
        );
    }

    #[cfg(feature = "legacy")]
    #[test]
    fn older_dialects_need_the_stages() {
        for dialect in [&Dialect::SEED, &Dialect::V1_0, &Dialect::V1_1] {
            let shape = shape(&Bootstrap::new(CloneFlags::NEWNET), &Policy::runc(dialect));
            assert_eq!(shape, Shape::Stages(WhyStages::Dialect));
            assert_eq!(shape.to_string(), "three stages, because the dialect is an older one");
        }
    }

    /// Without privilege the kernel accepts a map of one id. A tool is needed for any other, if one is named.
    #[test]
    fn tool_is_needed_for_long_maps_without_privilege() {
        let (single, long) = (mapped(c"0 1000 1\n"), mapped(c"0 1000 1\n1 100000 9\n"));
        let range = mapped(c"0 100000 65536\n");
        let stages = Shape::Stages(WhyStages::MappingTool);
        let tool = c"/usr/bin/newgidmap";
        for (asked, rootless, names_tool, wanted) in [
            (long, true, true, stages),
            (range, true, true, stages),
            // The kernel decides on a single id; after its refusal the direct start is given up.
            (single, true, true, Shape::Direct),
            // No tool would help: the launcher reports the refusal.
            (long, true, false, Shape::Direct),
            // The caller's privileges suffice.
            (long, false, true, Shape::Direct),
        ] {
            let asked = asked.with_rootless_euid(rootless);
            let asked = if names_tool { asked.with_gidmap_path(tool) } else { asked };
            assert_eq!(shape_of(&asked), wanted, "{rootless} {names_tool}");
        }
        // One long map is enough.
        let gid_only = Bootstrap::new(NEWUSER).with_gid_map(long.gid_map().unwrap());
        assert_eq!(shape_of(&gid_only.with_rootless_euid(true).with_gidmap_path(tool)), stages);
    }

    #[test]
    fn user_and_pid_namespace_are_created_with_the_process() {
        let all = NsSet::ALL.flags();
        let first = NEWUSER.union(CloneFlags::NEWPID);
        assert_eq!(order(all), Order { with_process: first, by_process: all.without(first) });
        assert_eq!(order(NEWUSER), Order { with_process: NEWUSER, by_process: CloneFlags::EMPTY });
        let two = NEWUSER.union(CloneFlags::NEWIPC);
        assert_eq!(order(two), Order { with_process: NEWUSER, by_process: CloneFlags::NEWIPC });
    }

    #[test]
    fn without_a_user_namespace_all_but_cgroup_and_time_are_created_with_the_process() {
        let all = NsSet::ALL.flags().without(NEWUSER);
        let (time, cgroup) = (CloneFlags::NEWTIME, CloneFlags::NEWCGROUP);
        let late = time.union(cgroup);
        assert_eq!(order(all), Order { with_process: all.without(late), by_process: late });
        assert_eq!(order(cgroup), Order { with_process: CloneFlags::EMPTY, by_process: cgroup });
        assert_eq!(order(time), Order { with_process: CloneFlags::EMPTY, by_process: time });
        let none = Order { with_process: CloneFlags::EMPTY, by_process: CloneFlags::EMPTY };
        assert_eq!(order(CloneFlags::EMPTY), none);
    }
}
