//! Checks what stage 0 has done before it acknowledges the maps and the time offsets.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::facts::{Request, Shape, writer};
use super::reading::{OOM_SCORE, ProcFiles, files_of_init, shown, sync_values};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::idmap::{IdMap, MapCheck};
use nsexec::launch::script::GO;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{CloneFlags, Errno, Fd, OpenFlags, Pid, WaitStatus};

pub(super) const ACKNOWLEDGED: Rule = Rule {
    name: "maps-acknowledged-when-written",
    reason: "Stage 0 acknowledges maps and time offsets only when the kernel has accepted each of them completely \
             and unchanged, or when a mapping tool has exited with 0 and the map that was read back is correct. \
             A tool is started only after EPERM. The oom score, which the new processes inherit, is written before stage 1 \
             exists. In a direct start the launcher writes the maps before the go byte, and with a new user namespace \
             also the score. Otherwise the command's process writes its own score. It writes its time offsets before it \
             enters its time namespace. In a start through a child stage 1 writes its own score and offsets before it \
             creates stage 2. In a start in place the helper acknowledges the maps, and the launcher writes its own score \
             and offsets.",
    reference: "docs/protocol.md#mapping-tools, docs/protocol.md#weaknesses-of-the-c-code",
    severity: Severity::Breach,
    check: acknowledged,
};

fn acknowledged(run: &Run, facts: &Facts) -> Vec<Finding> {
    let shape = Shape::of(run);
    let mut findings = of_writer(run, facts, shape);
    if let Some(init) = run.section(Role::Stage(2)).filter(|_| shape == Shape::Direct) {
        findings.extend(of_init(init, files_of_init(facts.creates_user()), facts));
    }
    if let Some(own) = run.section(Role::Stage(1)).filter(|_| shape == Shape::InPlace) {
        findings.extend(of_init(own, files_of_init(false), facts));
    }
    findings
}

/// Checks that the process that becomes the command, in a direct start or in place, enters its new time
/// namespace only after it has written the offsets, and executes the command only with the oom score.
fn of_init(init: &Section, own: &[&[u8]], facts: &Facts) -> Vec<Finding> {
    let nothing = Request::default();
    let mut state = State::new(facts.asked.as_ref().unwrap_or(&nothing));
    let file = &b"timens_offsets"[..];
    let mut findings = Vec::new();
    for (index, line) in init.lines.iter().enumerate() {
        // The child of the init is the command of a minimal init, and no mapping tool.
        let is_command = matches!(line.call, Call::Fork { .. });
        let mut found = if is_command { None } else { state.see(line) };
        let enters = matches!(line.call, Call::Setns { kind: CloneFlags::NEWTIME, .. });
        if enters && state.owes(file) {
            found = Some("enters its time namespace without the offsets".into());
        }
        let own_score = own.contains(&OOM_SCORE);
        if matches!(line.call, Call::Execve { .. }) && own_score && state.owes(OOM_SCORE) {
            found = Some("executes the command without the oom score".into());
        }
        findings.extend(found.map(|what| Finding::on(init, index, what)));
    }
    findings
}

fn of_writer(run: &Run, facts: &Facts, shape: Shape) -> Vec<Finding> {
    let Some(section) = run.section(writer(shape)) else { return Vec::new() };
    let nothing = Request::default();
    let mut state = State::new(facts.asked.as_ref().unwrap_or(&nothing));
    let said: Vec<_> = sync_values(section).collect();
    let mut findings = Vec::new();
    for (index, line) in section.lines.iter().enumerate() {
        let mut found: Vec<String> = state.see(line).into_iter().collect();
        for word in said.iter().filter(|word| word.index == index) {
            let missing = [&b"uid_map"[..], b"gid_map", b"timens_offsets"].into_iter().filter(|file| {
                let of_maps = *file != b"timens_offsets";
                let message = if of_maps { SyncMessage::UsermapAck } else { SyncMessage::TimeoffsetsAck };
                word.is(true, message) && state.owes(file)
            });
            found.extend(missing.map(|file| format!("acknowledges the maps without {}", shown(file))));
        }
        if shape == Shape::Direct && matches!(&line.call, Call::Send { data, .. } if data.0 == [GO]) {
            let own = files_of_init(facts.creates_user());
            let missing = [&b"uid_map"[..], b"gid_map", OOM_SCORE]
                .into_iter()
                .filter(|file| state.owes(file) && !own.contains(file));
            found.extend(missing.map(|file| format!("lets the init run without {}", shown(file))));
        }
        if matches!(line.call, Call::CloneSibling { .. }) {
            let (next, files): (u8, &[&[u8]]) = match shape {
                Shape::Child => (2, files_of_init(false)),
                Shape::Direct | Shape::Stages | Shape::InPlace => (1, &[OOM_SCORE]),
            };
            let missing = files.iter().filter(|file| state.owes(file));
            found.extend(missing.map(|file| format!("creates stage {next} without {}", shown(file))));
        }
        findings.extend(found.into_iter().map(|what| Finding::on(section, index, what)));
    }
    findings
}

/// The progress of stage 0.
struct State<'a> {
    asked: &'a Request,
    files: ProcFiles,
    /// The last map that the kernel refused.
    refused: Option<&'static [u8]>,
    /// The map that a tool reported as written.
    claimed: Option<&'static [u8]>,
    /// The descriptor for reading that map back, with the bytes read so far.
    reading: Option<(Fd, Vec<u8>)>,
    done: BTreeSet<&'static [u8]>,
}

impl<'a> State<'a> {
    fn new(asked: &'a Request) -> Self {
        let (refused, claimed, reading) = (None, None, None);
        Self { asked, files: ProcFiles::default(), refused, claimed, reading, done: BTreeSet::new() }
    }

    /// Returns the requested content of a file.
    fn wanted(&self, file: &[u8]) -> Option<&'a [u8]> {
        match file {
            b"uid_map" => self.asked.uid_map.as_deref(),
            b"gid_map" => self.asked.gid_map.as_deref(),
            b"timens_offsets" => self.asked.offsets.as_deref(),
            OOM_SCORE => self.asked.oom_score.as_deref(),
            _ => None,
        }
    }

    /// Returns whether a requested file is not written yet.
    fn owes(&self, file: &[u8]) -> bool {
        self.wanted(file).is_some() && !self.done.contains(file)
    }

    fn see(&mut self, line: &Line) -> Option<String> {
        let mut found = None;
        match (&line.call, &line.reply) {
            (Call::Write { data, .. }, reply) => {
                if let Some((file, _)) = self.files.written(line) {
                    let text = data.0.strip_suffix(&[0]).unwrap_or(&data.0);
                    if self.wanted(file).is_some_and(|wanted| wanted != text) {
                        found = Some(format!("writes something else to {} than asked", shown(file)));
                    } else if *reply == Reply::Count(data.0.len()) {
                        self.done.insert(file);
                    } else if *reply == Reply::Errno(Errno::EPERM) {
                        self.refused = Some(file);
                    }
                }
            }
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Errno(Errno::EPERM)) => {
                self.refused = [&b"uid_map"[..], b"gid_map"].into_iter().find(|file| *file == path.0);
            }
            (Call::Fork { .. }, Reply::Parent(_)) if self.refused.is_none() => {
                found = Some("starts a mapping tool although the kernel refused no map".into());
            }
            // wait4 returns pid 0 if no child has ended yet.
            (Call::Wait4 { .. }, Reply::Waited(waited))
                if waited.pid != Pid(0) && waited.status == WaitStatus::Exited(0) =>
            {
                self.claimed = self.refused.take();
            }
            (
                Call::Openat { path, flags: OpenFlags::ReadOnly, .. }
                | Call::Openat2 { path, flags: OpenFlags::ReadOnly, .. },
                Reply::Fd(fd),
            ) if self.claimed.is_some_and(|file| file == path.0) => {
                self.reading = Some((*fd, Vec::new()));
            }
            (Call::Read { fd, .. }, Reply::Data(data)) => found = self.read(*fd, &data.0),
            (Call::Close { fd }, _) if self.reading.as_ref().is_some_and(|(reading, _)| reading == fd) => {
                self.reading = None;
            }
            _ => {}
        }
        self.files.see(line);
        found
    }

    /// Handles one read of a map file. At end of file, the map is compared with the requested one.
    fn read(&mut self, fd: Fd, data: &[u8]) -> Option<String> {
        let (_, text) = self.reading.as_mut().filter(|(reading, _)| *reading == fd)?;
        text.extend(data);
        if !data.is_empty() {
            return None;
        }
        let (file, (_, text)) = (self.claimed.take()?, self.reading.take()?);
        let wanted = CString::new(self.wanted(file).unwrap_or_default()).unwrap_or_default();
        let checked = IdMap::parse(&wanted).ok().map(|map| {
            let mut check = MapCheck::new(&map);
            check.feed(&text).and_then(|()| check.finish())
        });
        match checked {
            Some(Ok(())) => {
                self.done.insert(file);
                None
            }
            // Stage 0 then reports an error, and sends no acknowledgement.
            _ => None,
        }
    }
}
