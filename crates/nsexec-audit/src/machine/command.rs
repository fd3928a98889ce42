//! [`PlanCommand`]: the plan of a [`Command`].

use std::borrow::ToOwned;
use std::collections::BTreeSet;
use std::format;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use nsexec::bootstrap::{Bootstrap, decode};
use nsexec::idmap::Extent;
use nsexec::launch::causes::Asked;
use nsexec::launch::{
    Base, Caller, Circumstances, Command, MountStep, Prepared, Range, Root, StatedCaller, new_sysfs,
};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{MountKind, SignalSet};

use super::joins::{Target, look_at};
use super::{FileState, Machine, Permission, search, set_of};
use crate::plan::{Assumptions, Plan, PlanError, Refused, Start, plan};

/// Plans a [`Command`].
pub trait PlanCommand {
    /// Returns the plan of exactly what [`Command::spawn`] does on this machine.
    ///
    /// The standard streams are opened for it, and closed again. The user of the machine may be another one
    /// than that of this process: the ids of the command's maps are those of the machine's user.
    ///
    /// # Errors
    /// [`PlanError::Launch`]: the launch fails before any process is created, with the same error.
    fn plan(&self, machine: &Machine) -> Result<Plan, PlanError>;

    /// Returns the plan of exactly what [`Command::exec`] does on this machine, in a process with one thread.
    ///
    /// # Errors
    /// As [`plan`](Self::plan): [`PlanError::Launch`] has the error that [`Command::exec`] returns.
    fn plan_exec(&self, machine: &Machine) -> Result<Plan, PlanError>;

    /// Plans [`Command::pin`](nsexec::launch::Command::pin) in this directory, for the user of this process.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan), and a setting that a pin refuses.
    fn plan_pin(&self, directory: &Path, machine: &Machine) -> Result<Plan, PlanError>;
}

impl PlanCommand for Command {
    fn plan(&self, machine: &Machine) -> Result<Plan, PlanError> {
        plan_of(self.prepare_as(&caller(machine)).map_err(PlanError::Launch)?, machine)
    }

    fn plan_pin(&self, directory: &Path, machine: &Machine) -> Result<Plan, PlanError> {
        plan_of(self.prepare_pin(directory).map_err(PlanError::Launch)?, machine)
    }

    fn plan_exec(&self, machine: &Machine) -> Result<Plan, PlanError> {
        plan_of(self.prepare_exec_as(&caller(machine)).map_err(PlanError::Launch)?, machine)
    }
}

/// Plans a prepared launch.
fn plan_of(mut prepared: Prepared, machine: &Machine) -> Result<Plan, PlanError> {
    // Another caller of this machine sees the same mounts.
    if machine.is_here() && prepared.around.sysfs.is_some() {
        prepared.around.sysfs = new_sysfs();
    }
    let message = prepared.message().to_owned();
    let (bootstrap, _) =
        decode(&message, prepared.policy().dialect).map_err(|error| PlanError::Message(error.to_string()))?;
    let asked = asked(&bootstrap, &prepared, machine.uid != 0);
    let mut assumptions = machine.assumptions();
    assumptions.sealed = prepared.marked_copy;
    (assumptions.ignored, assumptions.caught) = (SignalSet(machine.ignored), SignalSet(machine.caught));
    let mut unknown = unknown(machine, &asked, &prepared);
    joins(machine, &bootstrap, &mut assumptions, &mut unknown);
    files(machine, &asked, &prepared, &mut assumptions, &mut unknown);
    masks(&asked, &prepared, &mut assumptions, &mut unknown);
    unknown.extend(unknown_sys(machine, &asked, &prepared).map(ToOwned::to_owned));
    assumptions.no_terminal = machine.is_here() && !search::is_terminal(&prepared);
    assumptions.unknown = unknown;
    let mut plan = plan(&Start::Launcher(prepared), &assumptions)?;
    plan.circumstances = Some(Circumstances::new(asked, machine.causes()));
    Ok(plan)
}

/// Returns the user that launches the command: this process, or the one that the machine states.
fn caller(machine: &Machine) -> Caller {
    let here = Caller::here();
    if machine.is_here() && (machine.uid, machine.gid) == (here.uid, here.gid) {
        return here;
    }
    let ranges =
        |ranges: &[(u32, u32)]| ranges.iter().map(|&(first, count)| Range { first, count }).collect();
    let map = |lines: &[(u32, u32, u32)]| {
        lines.iter().map(|&(inside, outside, count)| Extent { inside, outside, count }).collect()
    };
    let own = machine.own_user.as_ref();
    let stated = StatedCaller {
        subuids: ranges(&machine.subuids),
        subgids: ranges(&machine.subgids),
        users: own.map(|own| map(&own.users)).unwrap_or_default(),
        groups: own.map(|own| map(&own.groups)).unwrap_or_default(),
        setgroups_denied: own.is_some_and(|own| !own.setgroups),
    };
    Caller { uid: machine.uid, gid: machine.gid, stated: Some(stated) }
}

/// Returns the parts of the request that the cause of a failure depends on.
fn asked(bootstrap: &Bootstrap<'_>, prepared: &Prepared, rootless: bool) -> Asked {
    let flags = bootstrap.clone_flags();
    let mut asked = Asked::default();
    asked.created = NsKind::ALL.into_iter().filter(|kind| flags.contains(kind.flag())).collect();
    asked.joined = bootstrap.joined();
    asked.rootless = rootless;
    asked.mount_proc_flag = prepared.policy().launch.mount_proc;
    asked.mounts_proc = mounts_proc(prepared);
    asked.command_path = prepared.candidates().count() == 1;
    asked
}

/// Returns the facts about the machine that the launch depends on and that are unknown.
fn unknown(machine: &Machine, asked: &Asked, prepared: &Prepared) -> Vec<String> {
    let mut unknown = Vec::new();
    let in_user = asked.created.contains(NsKind::User);
    if machine.capabilities.is_none() {
        unknown.push("the capabilities of this process".to_owned());
    }
    if machine.seccomp {
        unknown.push("which system calls the seccomp filter of this process permits".to_owned());
    }
    if let Some(label) = &machine.confined_as {
        unknown.push(format!("what the security module permits to a process with the label {label}"));
    }
    if in_user && asked.rootless && machine.apparmor_restricts.is_some_and(|value| value != 0) {
        unknown.push(
            "whether an AppArmor profile lets this program use a new user namespace \
             (kernel.apparmor_restrict_unprivileged_userns is on)"
                .to_owned(),
        );
    }
    if in_user && machine.user_namespaces == Permission::Unknown {
        unknown.push("whether this process may create a user namespace: no attempt was made".to_owned());
    }
    for kind in asked.created.iter() {
        if !machine.limits.contains_key(kind.name()) && (kind, machine.user_namespaces) != PERMITTED {
            unknown.push(format!("the limit user.max_{}_namespaces", kind.name()));
        }
        if set_of(&machine.kinds).is_empty() {
            unknown.push(format!("whether this kernel has namespaces of kind {}", kind.name()));
        }
    }
    for name in new_file_systems(prepared) {
        if !machine.file_systems.contains(&name) {
            unknown.push(format!("whether this kernel has the file system {name}"));
        }
    }
    if asked.joined.contains(NsKind::User) && machine.own_user.is_some() {
        unknown.push("the place of the user namespace to join below this process's own".to_owned());
    }
    if machine.subuids.len().max(machine.subgids.len()) > 1 && uses_tools(prepared) {
        unknown.push("subordinate ids beyond the first range".to_owned());
    }
    if prepared.around.terminal {
        unknown.push("whether standard input is a terminal that controls no other session".to_owned());
    }
    for cgroup in &prepared.around.cgroups {
        unknown.push(format!("whether the cgroup {} accepts the process", cgroup.path.to_string_lossy()));
    }
    if prepared.around.landlock.is_some() {
        unknown.push("whether the Landlock rule set of the command permits its exec".to_owned());
    }
    if prepared.around.filter.is_some() {
        unknown.push("whether the seccomp filter of the command permits its exec".to_owned());
    }
    if prepared.around.hooks() > 0 {
        unknown.push("what the code does that the command runs before its exec (pre_exec)".to_owned());
    }
    unknown
}

/// A successful attempt shows that the limit of user namespaces is not reached.
const PERMITTED: (NsKind, Permission) = (NsKind::User, Permission::Permitted);

/// Returns whether a mapping tool writes the maps.
fn uses_tools(prepared: &Prepared) -> bool {
    let decoded = decode(prepared.message(), prepared.policy().dialect).ok();
    decoded.is_some_and(|(bootstrap, _)| bootstrap.uidmap_path().or(bootstrap.gidmap_path()).is_some())
}

/// Looks at the namespaces to join.
fn joins(
    machine: &Machine,
    bootstrap: &Bootstrap<'_>,
    assumptions: &mut Assumptions,
    unknown: &mut Vec<String>,
) {
    let entries = bootstrap.namespaces().into_iter().flat_map(|paths| paths.iter());
    let targets: Vec<Target> =
        entries.map(|entry| Target { kind: entry.kind, path: entry.path.to_vec() }).collect();
    if machine.is_here() {
        look_at(&targets, assumptions);
        return;
    }
    for Target { kind, path } in targets {
        unknown.push(format!("the {kind} namespace to join, {}", String::from_utf8_lossy(&path)));
    }
}

/// Looks at the files of the command: the program, the working directory, the sources of mounts.
fn files(
    machine: &Machine,
    asked: &Asked,
    prepared: &Prepared,
    assumptions: &mut Assumptions,
    unknown: &mut Vec<String>,
) {
    let state = |path: &[u8], look: fn(&[u8]) -> FileState| {
        let known = core::str::from_utf8(path).ok().and_then(|path| machine.files.get(path));
        match known {
            Some(state) => *state,
            None if machine.is_here() => look(path),
            None => FileState::Unknown,
        }
    };
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let root = prepared.around.root.as_ref();
    let elsewhere =
        root.is_some_and(|root| covers_programs(root, prepared)) || asked.joined.contains(NsKind::Mnt);
    if elsewhere {
        let name = prepared.argv().next().map(shown).unwrap_or_default();
        unknown.push(format!("whether the command {name} exists below its root directory"));
    } else {
        let other = search::OtherUser::of(prepared).filter(|_| machine.is_here() && machine.uid == 0);
        let look = |path: &[u8]| match (&other, core::str::from_utf8(path).ok()) {
            (Some(user), Some(text)) if !machine.files.contains_key(text) => user.program(path),
            _ => state(path, search::program),
        };
        let (found, refused, open) = search::search_with(prepared, look);
        assumptions.command = Some(found.unwrap_or_default());
        assumptions.refused = refused;
        unknown.extend(open.map(|path| format!("whether {} can be executed", shown(&path))));
    }
    if let Some(directory) = prepared.around.directory.as_ref().filter(|_| !elsewhere) {
        let path = directory.path.to_bytes();
        match state(path, search::directory) {
            FileState::Usable => {}
            FileState::Unknown => unknown.push(format!("whether the directory {} exists", shown(path))),
            FileState::Refused(why) => drop(assumptions.refused.insert(path.to_vec(), why)),
        }
    }
    for path in sources(prepared) {
        match state(path, search::directory) {
            FileState::Refused(Refused::BelowFile) => drop(assumptions.files.insert(path.to_vec())),
            FileState::Unknown => unknown.push(format!("whether {} exists", shown(path))),
            FileState::Refused(_) | FileState::Usable => {}
        }
    }
}

/// Returns whether the command has another root directory, or mounts that may cover its program or its
/// working directory. Those over /proc, /sys, /dev and /tmp cover only what is below them.
fn covers_programs(root: &Root, prepared: &Prepared) -> bool {
    let directory = prepared.around.directory.as_ref().map(|directory| directory.path.to_bytes());
    let is_below = |point: &[u8]| {
        let below = |path: &[u8]| path.strip_prefix(point).is_some_and(|rest| rest.starts_with(b"/"));
        prepared.candidates().any(below) || directory.is_some_and(below)
    };
    let covers = |step: &MountStep| match step {
        MountStep::Bind { point, .. } | MountStep::New { point, .. } | MountStep::Devices { point } => {
            let path = point.path.to_bytes();
            !["/proc", "/sys", "/dev", "/tmp"].iter().any(|free| path == free.as_bytes()) || is_below(path)
        }
        MountStep::MakeDirectory { .. } | MountStep::Link { .. } => false,
    };
    root.base != Base::Present || root.mounts.iter().any(covers)
}

/// Returns whether a mount below the root directory of the command is a new /proc.
fn mounts_proc(prepared: &Prepared) -> bool {
    let mut steps = prepared.around.root.iter().flat_map(|root| &root.mounts);
    steps.any(|step| matches!(step, MountStep::New { kind: MountKind::Proc, .. }))
}

/// Returns the names of the file systems that the launch mounts below the command's root directory, without
/// proc: nsexec supports no kernel without it.
fn new_file_systems(prepared: &Prepared) -> BTreeSet<String> {
    let steps = prepared.around.root.iter().flat_map(|root| &root.mounts);
    let kinds = steps.flat_map(|step| match step {
        MountStep::New { kind, .. } if *kind != MountKind::Proc => [*kind].to_vec(),
        MountStep::Devices { .. } => [MountKind::Tmpfs, MountKind::Devpts].to_vec(),
        _ => Vec::new(),
    });
    kinds.map(|kind| kind.name().to_string_lossy().into_owned()).collect()
}

/// Decides whether mounts over /proc prevent a new one. Those that a new user namespace gets from another one
/// do. Others may be mounts of the same user namespace, which do not (`MNT_LOCKED` in the kernel's
/// `mnt_already_visible`), and no file tells.
fn masks(asked: &Asked, prepared: &Prepared, assumptions: &mut Assumptions, unknown: &mut Vec<String>) {
    let in_user = asked.created.contains(NsKind::User) || asked.joined.contains(NsKind::User);
    let owns = assumptions.own_user.as_ref().is_some_and(|own| own.owns.contains(NsKind::Mnt));
    let mounts = prepared.policy().launch.mount_proc || mounts_proc(prepared);
    if assumptions.proc_masked && owns && !in_user && mounts {
        assumptions.proc_masked = false;
        unknown.push("whether the mounts over parts of /proc come from another user namespace".to_owned());
    }
}

/// Returns the fact on which a new /sys depends, if it is unknown. The command runs in any case.
fn unknown_sys(machine: &Machine, asked: &Asked, prepared: &Prepared) -> Option<&'static str> {
    let new = prepared.around.sysfs.as_ref()?;
    let in_user = asked.created.contains(NsKind::User) || asked.joined.contains(NsKind::User);
    let owns = machine.own_user.as_ref().is_some_and(|own| own.owns.iter().any(|kind| kind == "mnt"));
    match new.covered && owns && !in_user {
        _ if !machine.is_here() => Some("the mounts at and below /sys"),
        // As for /proc: see `masks`.
        true => Some("whether the mounts over parts of /sys come from another user namespace"),
        false => None,
    }
}

/// Returns the files of the caller that become a part of the command's root directory.
fn sources(prepared: &Prepared) -> impl Iterator<Item = &[u8]> {
    let root = prepared.around.root.as_ref();
    let base = root.and_then(|root| match &root.base {
        Base::Directory { path, .. } | Base::Chroot { path } => Some(path),
        _ => None,
    });
    let binds = root.into_iter().flat_map(|root| &root.mounts).filter_map(|step| match step {
        MountStep::Bind { source, .. } => Some(source),
        _ => None,
    });
    base.into_iter().chain(binds).map(|path| path.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verdict;

    fn unknown(command: &Command, machine: &Machine) -> Vec<String> {
        match command.plan(machine).unwrap().verdict() {
            Verdict::CannotTell(facts) => facts,
            Verdict::Runs => Vec::new(),
            Verdict::Fails(fault) => panic!("{fault}"),
        }
    }

    fn in_user() -> Command {
        let mut command = Command::new("/bin/tool");
        command.unshare([NsKind::User, NsKind::Net]).map_root();
        command
    }

    #[test]
    fn files_of_another_machine_are_unknown_until_they_are_stated() {
        let mut machine = Machine::ordinary(1000);
        let mut command = in_user();
        command.current_dir("/srv");
        let open = ["whether /bin/tool can be executed", "whether the directory /srv exists"];
        assert_eq!(unknown(&command, &machine), open);
        machine.files.insert("/bin/tool".into(), FileState::Usable);
        machine.files.insert("/srv".into(), FileState::Usable);
        assert_eq!(unknown(&command, &machine), [""; 0]);
        machine.files.insert("/srv".into(), FileState::Refused(Refused::Hidden));
        let Verdict::Fails(fault) = command.plan(&machine).unwrap().verdict() else { panic!("it runs") };
        let text = "stage-2: failed to change to the directory /srv: Permission denied";
        assert_eq!(fault.to_string(), text);
        machine.files.insert("/bin/tool".into(), FileState::Refused(Refused::UnknownFormat));
        command.current_dir("/");
        machine.files.insert("/".into(), FileState::Usable);
        assert_eq!(unknown(&command, &machine), ["whether /bin/sh can be executed"]);
        machine.files.insert("/bin/sh".into(), FileState::Usable);
        let plan = command.plan(&machine).unwrap();
        assert_eq!(plan.verdict(), Verdict::Runs);
        assert!(plan.run.to_json_lines().unwrap().contains("/bin/sh"));
        machine.files.insert("/bin/sh".into(), FileState::Refused(Refused::Missing));
        let Verdict::Fails(fault) = command.plan(&machine).unwrap().verdict() else { panic!("it runs") };
        assert!(fault.to_string().starts_with("failed to execute /bin/tool: No such file"), "{fault}");
    }

    #[test]
    fn file_system_that_the_kernel_does_not_list_is_unknown() {
        let mut command = in_user();
        command.unshare([NsKind::Mnt, NsKind::Ipc]).mqueue("/dev/mqueue");
        let with = |command: &Command, names: &[&str]| {
            let mut machine = Machine::ordinary(1000);
            machine.file_systems.retain(|name| names.contains(&name.as_str()));
            let unknown = unknown(command, &machine);
            unknown
                .iter()
                .filter_map(|fact| fact.split_once("the file system "))
                .map(|(_, name)| name.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(with(&command, &["mqueue"]), [""; 0]);
        assert_eq!(with(&command, &["tmpfs", "devpts"]), ["mqueue"]);
        command.dev("/dev");
        assert_eq!(with(&command, &[]), ["devpts", "mqueue", "tmpfs"]);
    }

    #[test]
    fn kind_that_the_kernel_lacks_fails_and_is_named() {
        for (kind, name) in [(NsKind::Time, "time"), (NsKind::User, "user")] {
            let mut machine = Machine::ordinary(1000);
            machine.kinds.retain(|known| known != name);
            let mut command = in_user();
            command.unshare([kind]);
            let Verdict::Fails(fault) = command.plan(&machine).unwrap().verdict() else { panic!("it runs") };
            let text = fault.to_string();
            assert!(text.contains("Invalid argument"), "{text}");
            assert!(text.contains(&format!("this kernel has no {name} namespaces")), "{text}");
        }
    }

    #[test]
    fn each_restriction_that_no_file_describes_is_unknown() {
        let with = |change: fn(&mut Machine)| {
            let mut machine = Machine::ordinary(1000);
            machine.files.insert("/bin/tool".into(), FileState::Usable);
            change(&mut machine);
            unknown(&in_user(), &machine).join("; ")
        };
        assert_eq!(with(|_| {}), "");
        assert!(with(|machine| machine.seccomp = true).contains("seccomp filter"));
        assert!(with(|machine| machine.confined_as = Some("box".into())).ends_with("the label box"));
        assert!(
            with(|machine| machine.user_namespaces = Permission::Unknown).contains("no attempt was made")
        );
        assert!(with(|machine| machine.capabilities = None).contains("capabilities"));
        assert_eq!(with(|machine| machine.limits.clear()), "the limit user.max_net_namespaces");
        assert!(with(|machine| machine.kinds.clear()).contains("kind net"));
        assert!(with(|machine| machine.apparmor_restricts = Some(1)).contains("AppArmor"));
    }

    #[test]
    fn another_root_directory_hides_the_command() {
        let mut machine = Machine::ordinary(1000);
        machine.files.insert("/bin/tool".into(), FileState::Usable);
        machine.files.insert("/usr".into(), FileState::Usable);
        let mut command = in_user();
        command.unshare([NsKind::Mnt, NsKind::Pid]).proc("/proc");
        assert_eq!(unknown(&command, &machine), [""; 0], "a new /proc covers no program");
        command.tmpfs("/bin");
        assert_eq!(
            unknown(&command, &machine),
            ["whether the command /bin/tool exists below its root directory"]
        );
    }

    /// The test's own user has none of these ids.
    #[test]
    fn the_maps_are_those_of_the_user_of_the_machine() {
        let plan = |change: fn(&mut Machine), mapped: fn(&mut Command) -> &mut Command| {
            let mut machine = Machine::ordinary(4242);
            machine.files.insert("/bin/tool".into(), FileState::Usable);
            change(&mut machine);
            let mut command = Command::new("/bin/tool");
            mapped(command.unshare([NsKind::User]));
            command.plan(&machine).map(|plan| (plan.verdict(), plan.run.to_json_lines().unwrap()))
        };
        let (verdict, calls) = plan(|_| {}, Command::map_root).unwrap();
        assert_eq!(verdict, Verdict::Runs);
        assert!(calls.contains("0 4242 1"), "{calls}");
        let ranges = |machine: &mut Machine| {
            (machine.subuids, machine.subgids) = ([(7_000_000, 10)].into(), [(8_000_000, 10)].into());
        };
        let (verdict, calls) = plan(ranges, Command::map_auto).unwrap();
        assert_eq!(verdict, Verdict::Runs);
        assert!(calls.contains("newuidmap") && calls.contains("7000000") && calls.contains("8000000"));
        let without = plan(|_| {}, Command::map_auto);
        assert!(matches!(without, Err(PlanError::Launch(_))), "{without:?}");
        // Root maps any id itself.
        let root = |machine: &mut Machine| {
            (machine.subuids, machine.subgids) = ([(7_000_000, 10)].into(), [(8_000_000, 10)].into());
            (machine.uid, machine.gid, machine.capabilities) = (0, 0, Machine::root().capabilities);
        };
        let (verdict, calls) = plan(root, Command::map_auto).unwrap();
        assert!(verdict == Verdict::Runs && !calls.contains("newuidmap"), "{verdict}");
    }

    #[test]
    fn wrong_settings_are_the_error_of_the_launch() {
        let mut command = in_user();
        command.join(NsKind::Net, "/proc/self/ns/net");
        let planned = command.plan(&Machine::ordinary(1000)).unwrap_err();
        assert_eq!(planned, PlanError::Launch(command.spawn().unwrap_err()));
    }
}
