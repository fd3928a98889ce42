//! Our own launcher on a simulated machine, with the files that a launch meets there.

use core::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::assume::{Assumptions, Refused};
use super::{above, absolute};
use crate::note::descriptor_notes;
use crate::record::AnySys;
use crate::sim::{Ended, Extra, LauncherFile, Program, Sim};
use nsexec::bootstrap::decode;
use nsexec::launch::script::Launched;
use nsexec::launch::shape::Memory;
use nsexec::launch::shared::Stack;
use nsexec::launch::{Base, Collector, DEVICES, LaunchError, MountStep, Prepared, Root, SCAFFOLD};
use nsexec::sys::types::{Errno, Fd, ScriptArgs, Signal, SignalSet};

/// Creates the files that the search for the command meets.
fn search(sim: &mut Sim, prepared: &Prepared, assumptions: &Assumptions) {
    for (given, refused) in &assumptions.refused {
        let path = &*String::from_utf8_lossy(given);
        let is_executed =
            prepared.candidates().any(|path| path == given) || given == ScriptArgs::SHELL.to_bytes();
        if is_executed {
            let errno = match refused {
                Refused::NotExecutable | Refused::Hidden => Errno::EACCES,
                Refused::NotPermitted => Errno::EPERM,
                Refused::Missing | Refused::NoInterpreter => Errno::ENOENT,
                Refused::UnknownFormat => Errno::ENOEXEC,
                Refused::BelowFile => Errno::ENOTDIR,
            };
            sim.refuse_exec(path, errno);
        }
        // After EACCES the search looks whether the file is there.
        let from = prepared.around.directory.as_ref().filter(|_| is_executed && !path.starts_with('/'));
        let from = from.map_or(String::new(), |from| from.path.to_string_lossy().into_owned() + "/");
        let path = &*format!("{from}{path}");
        let path = &*absolute(path);
        // A working directory may be a file itself.
        let is_below = *refused == Refused::BelowFile && !is_directory(prepared, given);
        sim.file(if is_below { above(path) } else { path }, unusable(*refused));
    }
    let first = || prepared.candidates().find(|path| !assumptions.refused.contains_key(*path));
    let found = assumptions.command.as_deref().or_else(first);
    for path in prepared.candidates().filter(|path| path.starts_with(b"/proc/") && Some(*path) != found) {
        // The path may name a pid that a simulated process has, as for a path to join.
        let Ok(path) = core::str::from_utf8(path) else { continue };
        if !assumptions.refused.contains_key(path.as_bytes()) {
            sim.file(path, Extra::Missing);
        }
    }
    if let Some(path) = found.filter(|path| !path.is_empty()) {
        // The names of programs are compared in the same form.
        sim.program(&String::from_utf8_lossy(path), Program::ends(Ended::Stay));
    }
    // A file in no format that the kernel knows is a script for the shell.
    let shell = ScriptArgs::SHELL;
    if assumptions.refused.values().any(|why| *why == Refused::UnknownFormat)
        && !assumptions.refused.contains_key(shell.to_bytes())
    {
        if let Ok(path) = shell.to_str() {
            sim.program(path, Program::ends(Ended::Stay));
        }
    }
}

/// Returns the file in place of one that cannot be used.
fn unusable(refused: Refused) -> Extra {
    match refused {
        Refused::NotExecutable => Extra::Forbidden,
        Refused::Hidden => Extra::Hidden,
        Refused::NotPermitted => Extra::NotPermitted,
        Refused::Missing => Extra::Missing,
        Refused::NoInterpreter | Refused::UnknownFormat | Refused::BelowFile => {
            Extra::Regular(Rc::from(&b""[..]))
        }
    }
}

/// Creates the files of the caller that become a part of the command's root directory.
fn sources(sim: &mut Sim, root: &Root, assumptions: &Assumptions) {
    let base = match &root.base {
        // An open directory is created with the other descriptors.
        Base::Present | Base::Memory | Base::Opened { .. } => None,
        Base::Directory { path, .. } | Base::Chroot { path } => Some(path),
        // Its directories are in the options only.
        Base::Overlay { .. } => None,
    };
    let binds = root.mounts.iter().filter_map(|step| match step {
        MountStep::Bind { source, .. } => Some(source),
        _ => None,
    });
    for source in base.into_iter().chain(binds) {
        // As for a path to join, one that is not UTF-8 does not exist on the simulated machine.
        let Ok(path) = source.to_str() else { continue };
        match assumptions.files.contains(source.to_bytes()) {
            true => sim.file(path, Extra::Regular(Rc::from(&b""[..]))),
            false => sim.file(path, Extra::Directory),
        }
    }
    if let Ok(path) = SCAFFOLD.to_str() {
        sim.file(path, Extra::Directory);
    }
    for path in DEVICES.iter().filter_map(|(path, _)| path.to_str().ok()) {
        sim.file(path, Extra::Regular(Rc::from(&b""[..])));
    }
}

/// Returns whether the working directory of the command has this path.
fn is_directory(prepared: &Prepared, path: &[u8]) -> bool {
    prepared.around.directory.as_ref().is_some_and(|directory| directory.path.to_bytes() == path)
}

/// Creates the working directory, if it is one of /proc, of which most is not modelled.
fn working_directory(sim: &mut Sim, prepared: &Prepared, assumptions: &Assumptions) {
    let directory = prepared.around.directory.as_ref().and_then(|directory| directory.path.to_str().ok());
    if let Some(path) = directory.filter(|path| path.starts_with("/proc/")) {
        if !assumptions.refused.contains_key(path.as_bytes()) {
            sim.file(path, Extra::Directory);
        }
    }
}

/// Returns the descriptors in the paths of the namespaces to join.
fn joined_descriptors(prepared: &Prepared) -> Vec<Fd> {
    let Ok((bootstrap, _)) = decode(prepared.message(), prepared.policy().dialect) else { return Vec::new() };
    let number = |path: &[u8]| {
        let digits = path.strip_prefix(b"/proc/self/fd/")?;
        core::str::from_utf8(digits).ok()?.parse().ok().map(Fd)
    };
    let paths = bootstrap.namespaces();
    paths.into_iter().flat_map(|paths| paths.iter()).filter_map(|entry| number(entry.path)).collect()
}

/// Opens the descriptors of the launcher that the launch uses, before its pipes, which would get the numbers.
fn descriptors(sim: &mut Sim, prepared: &Prepared) {
    let moved: Vec<Fd> = prepared.moves.iter().map(|one| one.fd).collect();
    let given = prepared.named_descriptors().iter().chain(&prepared.around.withheld).chain(&moved);
    for fd in given.filter(|fd| **fd > Fd::STDERR) {
        // The file does not matter.
        sim.duplicate(Fd(0), *fd);
    }
    for fd in joined_descriptors(prepared) {
        // Its path leads to the namespace.
        sim.duplicate(Fd(0), fd);
    }
    if let Some(Base::Opened { path, fd }) = prepared.around.root.as_ref().map(|root| &root.base) {
        if let Ok(path) = path.to_str() {
            sim.directory(path, *fd);
        }
    }
    for cgroup in &prepared.around.cgroups {
        // The file does not matter: a cgroup accepts every process on the simulated machine.
        sim.duplicate(Fd(0), cgroup.fd);
    }
    if let Some(ruleset) = prepared.around.landlock {
        sim.ruleset(ruleset);
    }
}

/// The error of the launcher, if the launch failed.
pub(super) type Outcome = Rc<RefCell<Option<LaunchError>>>;

/// Returns the lines of a plan about /sys. Each is listed only if it is unusual.
pub(super) fn lines(prepared: &Prepared) -> Vec<(String, String)> {
    let Some(new) = &prepared.around.sysfs else { return Vec::new() };
    let lines = [(new.covered, "/sys", "partly covered"), (new.read_only, "mount of /sys", "read-only")];
    let line = |(_, key, value): (bool, &str, &str)| (key.to_string(), value.to_string());
    lines.into_iter().filter(|(given, ..)| *given).map(line).collect()
}

/// Sets up the launcher, which stores its error in `outcome`. Returns the notes of its
/// descriptors.
pub(super) fn set_up(
    sim: &mut Sim,
    prepared: &Prepared,
    assumptions: &Assumptions,
    outcome: Outcome,
) -> Vec<(String, String)> {
    if let Some(root) = &prepared.around.root {
        sources(sim, root, assumptions);
    }
    if let Some(new) = &prepared.around.sysfs {
        if new.covered {
            sim.cover_sys();
        }
        if new.read_only {
            sim.make_sys_read_only();
        }
    }
    for path in prepared.around.persistent.iter().filter_map(|one| one.file.to_str().ok()) {
        sim.file(path, Extra::Regular(Rc::from(&b""[..])));
    }
    search(sim, prepared, assumptions);
    sim.launcher_file(if assumptions.sealed { LauncherFile::Sealed } else { LauncherFile::Named });
    sim.block(assumptions.blocked);
    for signal in (1..=64).map(Signal) {
        let is_in = |set: SignalSet| set.0 >> (signal.0 - 1) & 1 == 1;
        match (is_in(assumptions.caught), is_in(assumptions.ignored)) {
            (true, _) => sim.catch(signal),
            (false, true) => sim.ignore(signal),
            (false, false) => {}
        }
    }
    working_directory(sim, prepared, assumptions);
    // Before standard input is copied to another number.
    if prepared.around.terminal && !assumptions.no_terminal {
        sim.terminal();
    }
    let mut prepared = prepared.clone();
    descriptors(sim, &prepared);
    if prepared.is_interruptible() {
        // No interrupt occurs in a plan: the pipe is never written to.
        let (interrupt, _) = sim.pipe(false);
        prepared = prepared.interrupted_through(interrupt);
    }
    if prepared.timeout().is_some() {
        // No time passes in a plan.
        let (timer, _) = sim.pipe(false);
        prepared = prepared.timed_through(timer);
    }
    let notes = descriptor_notes(&prepared).collect();
    let planned = prepared.memory(assumptions.has_root_ids(), &assumptions.protection());
    let prepared = Rc::new(prepared);
    sim.launcher(move |sys| {
        let simulated = Stack::simulated().hiding(planned == Memory::SharedNotDumpable);
        let stack = planned.is_shared().then_some(&simulated);
        let mut memory = vec![0; prepared.message().len()];
        let mut log = Collector::default();
        let launched = prepared.run(&mut AnySys(&mut *sys), &mut memory, stack, &mut log);
        match launched {
            // The error would be that of a call after the end of the turn.
            _ if sys.is_turn_over() => Ended::Stay,
            // The launcher waits for the command.
            Launched::Started { .. } => {
                *outcome.borrow_mut() = None;
                Ended::Stay
            }
            Launched::Failed(failure) => {
                *outcome.borrow_mut() = Some(prepared.explain(failure, log.into_fatal()));
                Ended::Exit(1)
            }
            Launched::Exit(status) => Ended::Exit(status),
        }
    });
    notes
}
