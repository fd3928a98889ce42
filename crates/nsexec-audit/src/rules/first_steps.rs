//! Checks stage 0's steps before it reads the message, in the dialects that have such steps.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::facts::Shape;
use super::reading::succeeded;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::sys::types::{Fd, OpenFlags, Seals};

pub(super) const COPY: Rule = Rule {
    name: "runs-from-a-copy",
    reason: "A program that copies itself sends and reads no message before it has verified that it is a protected \
             copy, and executes only such a copy. Otherwise a container could write to the \
             runtime through /proc/PID/exe.",
    reference: "CVE-2019-5736; docs/protocol.md#dialects",
    severity: Severity::Breach,
    check: copy,
};

pub(super) const READY: Rule = Rule {
    name: "ready-byte",
    reason: "Dialects whose launcher waits for the byte 0x00 send it once, before they read the message. The others \
             do not send it: the launcher would read it in place of the pid line.",
    reference: "runc 4ecff8d9d, b5bdf592f; docs/protocol.md#the-sealed-copy",
    severity: Severity::Breach,
    check: ready,
};

/// Returns stage 0 if a launcher executed it. Our own launcher forks, and needs neither a copy nor the ready
/// byte.
pub(super) fn executed(run: &Run) -> Option<&Section> {
    run.section(Role::Stage(0)).filter(|section| section.lines.iter().any(is_exec))
}

fn is_exec(line: &Line) -> bool {
    matches!(line.call, Call::Execve { .. } | Call::Execveat { .. }) && line.reply == Reply::NoReturn
}

/// Returns the lines before the first sync pipe, which every dialect creates after it has the message.
fn before_the_stages(section: &Section) -> impl Iterator<Item = (usize, &Line)> {
    section.lines.iter().enumerate().take_while(|(_, line)| line.call != Call::Socketpair)
}

/// The state of one program image of stage 0. Each exec starts a new one.
#[derive(Default)]
struct Program {
    open: BTreeMap<Fd, File>,
    /// Whether it is known to be a protected copy.
    known: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum File {
    /// Our own program.
    Exe,
    /// A copy, and whether it can still be changed.
    Copy {
        open: bool,
    },
    Other,
}

fn copy(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(section) = executed(run).filter(|_| facts.policy.dialect.legacy.cloned_binary) else {
        return Vec::new();
    };
    let mut program = Program::default();
    let mut first = true;
    let mut findings = Vec::new();
    for (index, line) in before_the_stages(section) {
        if is_exec(line) {
            // The first exec is the launcher's.
            if !first && !program.executes_a_copy(&line.call) {
                findings.push(Finding::on(section, index, "executes a file that is not a protected copy"));
            }
            (program, first) = (Program::default(), false);
        } else if !first {
            if program.speaks(line) && !program.known {
                let what = "communicates with the launcher from a program that is not a protected copy";
                findings.push(Finding::on(section, index, what));
                break;
            }
            program.see(line);
        }
    }
    findings
}

impl Program {
    fn see(&mut self, line: &Line) {
        match (&line.call, &line.reply) {
            (Call::Openat { path, flags, .. } | Call::Openat2 { path, flags, .. }, Reply::Fd(fd)) => {
                let file = match flags {
                    OpenFlags::Unnamed | OpenFlags::New => File::Copy { open: true },
                    // The copy, opened again with a descriptor that cannot write.
                    OpenFlags::Path => File::Copy { open: self.any_open_copy() },
                    _ if path.0 == b"/proc/self/exe" => File::Exe,
                    _ => File::Other,
                };
                self.open.insert(*fd, file);
            }
            (Call::MemfdCreate { .. }, Reply::Fd(fd)) => {
                self.open.insert(*fd, File::Copy { open: true });
            }
            (Call::GetSeals { fd }, Reply::Seals(Seals::CONTENT)) => {
                self.known |= self.open.get(fd) == Some(&File::Exe);
            }
            (Call::IsReadOnly { path }, Reply::ReadOnly(true))
            | (Call::LinkCount { path }, Reply::Links(0)) => {
                self.known |= path.0 == b"/proc/self/exe";
            }
            (Call::AddSeals { fd, seals: Seals::CONTENT }, Reply::Unit) => self.protect(*fd),
            (Call::Fchmod { fd, mode }, Reply::Unit) if mode & 0o222 == 0 => self.protect(*fd),
            // A later write changes the content again.
            (Call::Sendfile { to: fd, .. } | Call::Write { fd, .. }, Reply::Count(1..)) => {
                if let Some(File::Copy { open }) = self.open.get_mut(fd) {
                    *open = true;
                }
            }
            (Call::Close { fd }, _) => {
                self.open.remove(fd);
            }
            _ => {}
        }
    }

    fn protect(&mut self, fd: Fd) {
        if let Some(File::Copy { open }) = self.open.get_mut(&fd) {
            *open = false;
        }
    }

    fn any_open_copy(&self) -> bool {
        self.open.values().any(|file| *file == File::Copy { open: true })
    }

    fn executes_a_copy(&self, call: &Call) -> bool {
        let fd = match call {
            Call::Execveat { fd, .. } => Some(*fd),
            Call::Execve { path, .. } => {
                let number = path.0.strip_prefix(b"/proc/self/fd/");
                let number = number.and_then(|number| core::str::from_utf8(number).ok());
                number.and_then(|number| number.parse().ok()).map(Fd)
            }
            _ => None,
        };
        fd.is_some_and(|fd| self.open.get(&fd) == Some(&File::Copy { open: false }))
    }

    /// Returns whether the line sends, or reads from a descriptor that this program has not opened.
    fn speaks(&self, line: &Line) -> bool {
        match line.call {
            Call::Send { .. } => true,
            Call::Read { fd, .. } => !self.open.contains_key(&fd),
            _ => false,
        }
    }
}

fn ready(run: &Run, facts: &Facts) -> Vec<Finding> {
    // The helper of a start in place sends no such byte, and creates no sync pipe.
    let section = run.section(Role::Stage(0)).filter(|_| Shape::of(run) != Shape::InPlace);
    let Some(section) = section else { return Vec::new() };
    let wanted = facts.policy.dialect.legacy.ready_byte && executed(run).is_some();
    let mut findings = Vec::new();
    let mut sent = 0;
    let mut own = Vec::new();
    for (index, line) in before_the_stages(section) {
        match (&line.call, &line.reply) {
            (_, Reply::Fd(fd)) => own.push(*fd),
            (Call::Close { fd }, _) => own.retain(|open| open != fd),
            _ if is_exec(line) => own.clear(),
            (Call::Send { data, .. } | Call::Write { data, .. }, _) if data.0 == [0] && succeeded(line) => {
                sent += 1;
                if !wanted {
                    findings.push(Finding::on(section, index, "a ready byte that no launcher waits for"));
                } else if sent > 1 {
                    findings.push(Finding::on(section, index, "a second ready byte"));
                }
            }
            (Call::Read { fd, .. }, _) if wanted && sent == 0 && !own.contains(fd) => {
                findings.push(Finding::on(section, index, "reads the message before it is ready"));
                break;
            }
            _ => {}
        }
    }
    findings
}
