//! Snapshot tests of the three forms. The documents come from runs on the real kernel
//! (`examples/record_sections.rs`), and from a hand-made run in which stage 2 dies.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::events::{EventKind, events};
use super::mermaid::mermaid;
use super::summary::summary;
use super::svg::svg;
use super::text::{Look, text};
use super::{COLUMNS, Document, Fact, Fate, SectionView};
use crate::plan::{Assumptions, Plan, Start, plan};
use crate::record::{Call, Line, Reply, Transcript};
use crate::transcript::{Role, Run, Section};
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::policy::{Policy, Session};
use nsexec::sys::types::{CloneFlags, Errno, Fd, Pid, Signal, WaitFor, WaitStatus, Waited};

/// Returns the column of a process from the name of its section.
fn column(name: &str) -> Role {
    COLUMNS.into_iter().find(|role| name.starts_with(&role.to_string())).unwrap()
}

fn section_of(transcript: &Transcript) -> Section {
    let Transcript { section: name, lines, .. } = transcript;
    Section { name: name.clone(), lines: lines.clone(), ..Section::new(column(name)) }
}

/// A document with the data that it borrows.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    transcripts: Vec<Transcript>,
}

impl Sample {
    fn recorded(name: &'static str, title: &'static str, data: &str) -> Self {
        let mut transcripts = Vec::new();
        for part in data.split("{\"schema\"").skip(1) {
            transcripts.push(Transcript::from_json_lines(&format!("{{\"schema\"{part}")).unwrap());
        }
        Self { name, title, transcripts }
    }

    /// Returns the status of a process as reported to the process that waited for it.
    fn status(&self, index: usize) -> Option<WaitStatus> {
        let lines = || self.transcripts.iter().flat_map(|transcript| &transcript.lines);
        let is = |name: &str| self.transcripts[index].section.starts_with(name);
        let before = self.transcripts[..index].iter().filter(|other| is(&other.section)).count();
        let mut made = lines().filter_map(|line| match (&line.call, &line.reply) {
            (Call::Fork { exit, .. }, Reply::Parent(pid)) if is("mapping") || is("stage-0") => {
                ((*exit == nsexec::sys::types::ExitSignal::Chld) == is("mapping")).then_some(*pid)
            }
            _ => None,
        });
        let siblings: Vec<Pid> = lines()
            .filter_map(|line| match (&line.call, &line.reply) {
                (Call::CloneSibling { .. } | Call::CloneChild { .. }, Reply::Parent(pid)) => Some(*pid),
                _ => None,
            })
            .collect();
        let pid = match () {
            () if is("stage-1") => siblings.first().copied(),
            () if is("stage-2") => siblings.get(1).copied(),
            () => made.nth(before),
        }?;
        lines().find_map(|line| match &line.reply {
            Reply::Waited(waited) if waited.pid == pid => Some(waited.status),
            _ => None,
        })
    }

    fn outcome(&self, index: usize) -> (String, Fate) {
        let transcript = &self.transcripts[index];
        let executes = transcript.lines.last().is_some_and(|line| line.reply == Reply::NoReturn);
        match self.status(index) {
            Some(WaitStatus::Exited(0)) => ("exit 0".into(), Fate::Ended),
            Some(WaitStatus::Exited(code)) => (format!("exit {code}"), Fate::Failed),
            Some(WaitStatus::Signaled(signal)) => (format!("killed by {signal}"), Fate::Failed),
            _ if executes => ("is the command".into(), Fate::Continues),
            _ => ("goes on".into(), Fate::Continues),
        }
    }

    /// Returns the shape of a plan's start. A record has none.
    fn shape(&self) -> Option<&'static str> {
        match self.name {
            "direct" => Some("direct: one process, because nothing is joined"),
            "child" => {
                Some("through a child, because only a fork enters a joined pid or a new time namespace")
            }
            _ => None,
        }
    }

    /// Calls `test` with the sample's document.
    pub(super) fn with<T>(&self, test: impl FnOnce(&Document<'_>) -> T) -> T {
        let outcomes: Vec<(String, Fate)> = (0..self.transcripts.len()).map(|at| self.outcome(at)).collect();
        let sections: Vec<Section> = self.transcripts.iter().map(section_of).collect();
        let views: Vec<SectionView<'_>> = sections
            .iter()
            .zip(&outcomes)
            .map(|(section, (outcome, fate))| SectionView { section, outcome, fate: *fate })
            .collect();
        let said = |start: &str| -> Vec<String> {
            let lines = self.transcripts.iter().flat_map(|transcript| &transcript.lines);
            lines
                .filter_map(|line| match &line.call {
                    Call::Send { data, .. } | Call::WriteNowait { data, .. } => {
                        core::str::from_utf8(&data.0).ok()
                    }
                    _ => None,
                })
                .filter(|text| text.starts_with(start))
                .map(|text| text.trim_end().to_string())
                .collect()
        };
        let (pid_line, log) = (said("{\"stage1_pid\""), said("{\"level\""));
        let user = if ["rootful", "exec", "window", "no_launcher"].contains(&self.name) {
            "0 (root)"
        } else {
            "1001"
        };
        let run = Run { sections: sections.clone(), ..Run::default() };
        let summary = summary(&run, None, None);
        let summary: Vec<Fact<'_>> = summary.iter().map(|(key, value)| Fact { key, value }).collect();
        test(&Document {
            title: self.title,
            summary: &summary,
            verdict: Some("the command runs"),
            hash: Some("5d1f6a0e7c2b9384"),
            shape: self.shape(),
            assumptions: &[
                Fact { key: "uid", value: user },
                Fact { key: "kernel", value: "6.1" },
                Fact { key: "dialect", value: "v1_2" },
            ],
            sections: &views,
            pid_line: pid_line.first().map(String::as_str),
            log: &log.iter().map(String::as_str).collect::<Vec<_>>(),
            findings: &["every rule holds"],
        })
    }
}

macro_rules! recorded {
    ($name:literal, $title:literal) => {
        Sample::recorded(
            $name,
            $title,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/render/", $name, ".jsonl")),
        )
    };
}

pub(super) fn samples() -> Vec<Sample> {
    [
        recorded!("rootful", "A container with a user namespace, made by root"),
        recorded!("rootless", "A container of an ordinary user, with one id"),
        recorded!("tools", "A container of an ordinary user, with mapping tools"),
        recorded!("direct", "A direct start of a container of an ordinary user"),
        recorded!("child", "A start through a child, which joins and creates namespaces"),
        recorded!("exec", "A command in the namespaces of a container"),
        recorded!("refused", "A network namespace that may not be joined"),
        recorded!("tool_fails", "A mapping tool that fails"),
        recorded!("window", "A new user namespace beside a network namespace that is joined"),
        recorded!("exec_rootless", "A command in the namespaces of an ordinary user"),
        stage_2_dies(),
        no_launcher(),
    ]
    .into()
}

/// A run in which stage 2 is killed before its turn: stage 0's last message has no reader.
fn stage_2_dies() -> Sample {
    let mut sample = recorded!("rootless", "A stage 2 that is killed; \"#<&>'%\" in its title");
    let section = |name: &str| COLUMNS.into_iter().position(|role| role == column(name)).unwrap();
    for transcript in &mut sample.transcripts {
        let lines = &mut transcript.lines;
        let is_your_turn = |line: &Line| match (&line.call, &line.reply) {
            (Call::Send { data, .. }, _) | (Call::Read { .. }, Reply::Data(data)) => {
                data.0.starts_with(b"D\0")
            }
            _ => false,
        };
        match section(&transcript.section) {
            0 => {
                let stage_0 = lines.iter().find_map(|line| match line.reply {
                    Reply::Parent(pid) => Some(pid),
                    _ => None,
                });
                let is_wait = |line: &Line| matches!(line.call, Call::Wait4 { .. });
                let last = lines.iter().rposition(is_wait).unwrap();
                lines.truncate(last + 1);
                for line in lines {
                    if let Reply::Waited(waited) = &mut line.reply {
                        if Some(waited.pid) == stage_0 {
                            waited.status = WaitStatus::Exited(1);
                        }
                    }
                }
                let lines = &mut transcript.lines;
                let pid = pid_of_stage_2(lines);
                let status = WaitStatus::Signaled(Signal::KILL);
                lines.push(Line {
                    call: Call::Wait4 { pid: Pid::ANY, which: WaitFor::Stages },
                    reply: Reply::Waited(Waited { pid, status }),
                });
            }
            1 => {
                let last = lines.iter().rposition(is_your_turn).unwrap();
                let Call::Send { fd, .. } = lines[last].call else { unreachable!() };
                lines.truncate(last + 1);
                lines.push(Line { call: Call::Read { fd, len: 4 }, reply: Reply::Data(b""[..].into()) });
            }
            3 => lines.truncate(lines.iter().position(is_your_turn).unwrap()),
            _ => {}
        }
    }
    Sample { name: "stage_2_dies", ..sample }
}

fn pid_of_stage_2(launcher: &[Line]) -> Pid {
    let number = launcher.iter().find_map(|line| match &line.reply {
        Reply::Data(data) => {
            let text = String::from_utf8_lossy(&data.0).into_owned();
            text.split("stage2_pid\":").nth(1)?.trim_end_matches("}\n").parse().ok()
        }
        _ => None,
    });
    Pid(number.unwrap())
}

/// A run as in a plan of the drop-in: runc is the launcher, and its calls are not recorded.
fn no_launcher() -> Sample {
    let mut sample = recorded!("rootful", "Without a launcher of ours");
    sample.transcripts.remove(0);
    Sample { name: "no_launcher", ..sample }
}

pub(super) fn assert_snapshot(name: &str, shown: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

#[test]
fn text_form_matches_its_snapshots() {
    for sample in samples() {
        let shown = sample.with(|document| text(document, Look::default()));
        assert!(shown.lines().all(|line| line == line.trim_end()), "no blanks at the end of a line");
        assert_snapshot(&format!("render_text_{}", sample.name), &shown);
    }
}

#[test]
fn text_in_time_matches_its_snapshots() {
    let look = Look { order: super::text::Order::Time, ..Look::default() };
    for sample in samples().into_iter().filter(|sample| ["direct", "tools"].contains(&sample.name)) {
        let shown = sample.with(|document| text(document, look));
        assert_snapshot(&format!("render_time_{}", sample.name), &shown);
    }
}

#[test]
fn folded_text_keeps_to_its_width_and_loses_nothing() {
    for sample in samples() {
        let squeezed = |text: String| text.replace([' ', '\n'], "");
        let whole = sample.with(|document| text(document, Look::default()));
        for width in [40, 60, 100, 140] {
            let look = Look { width: Some(width), ..Look::default() };
            let shown = sample.with(|document| text(document, look));
            for line in shown.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
            assert_eq!(squeezed(shown.clone()), squeezed(whole.clone()));
            if sample.name == "rootful" && [60, 100].contains(&width) {
                assert_snapshot(&format!("render_text_rootful_{width}"), &shown);
            }
        }
    }
}

#[test]
fn coloured_text_without_escapes_is_the_plain_text() {
    for sample in samples() {
        for width in [None, Some(80)] {
            let plain = sample.with(|document| text(document, Look { width, ..Look::default() }));
            let coloured =
                sample.with(|document| text(document, Look { width, colour: true, ..Look::default() }));
            let mut bare = String::new();
            for (index, part) in coloured.split('\x1b').enumerate() {
                bare.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
            }
            assert_eq!(bare, plain);
            if sample.name == "rootless" && width.is_none() {
                assert_snapshot("render_text_rootless_coloured", &coloured.replace('\x1b', "\\e"));
            }
        }
    }
}

#[test]
fn mermaid_form_matches_its_snapshots() {
    for sample in samples() {
        let shown = sample.with(mermaid);
        assert_snapshot(&format!("render_mermaid_{}", sample.name), &shown);
        let mut active = std::collections::BTreeMap::<&str, i32>::new();
        for line in shown.lines().map(str::trim) {
            // Outside entities, no text contains a character that mermaid reads as syntax.
            if let Some((_, words)) = line.split_once(": ").filter(|_| !line.starts_with("title")) {
                let words = words.split('#').map(|part| part.split_once(';').map_or(part, |(_, rest)| rest));
                assert!(!words.skip(1).any(|part| part.contains([';', '#'])), "{line}");
            }
            if let Some(who) = line.strip_prefix("activate ") {
                *active.entry(who).or_default() += 1;
            } else if let Some(who) = line.strip_prefix("deactivate ") {
                *active.entry(who).or_default() -= 1;
                assert!(active[who] >= 0, "{line}");
            }
        }
    }
}

#[test]
fn svg_form_is_valid_and_matches_its_snapshots() {
    for sample in samples() {
        let shown = sample.with(svg);
        let parsed = roxmltree::Document::parse(&shown).unwrap();
        let texts = parsed.descendants().filter(|node| node.has_tag_name("text")).count();
        assert!(texts > 20);
        if let Some(directory) = std::env::var_os("NSEXEC_PICTURES") {
            let file = std::path::Path::new(&directory).join(format!("{}.svg", sample.name));
            std::fs::write(file, &shown).unwrap();
        }
        if ["rootful", "stage_2_dies", "direct", "child"].contains(&sample.name) {
            assert_snapshot(&format!("render_svg_{}", sample.name), &shown);
        }
    }
}

#[test]
fn the_example_in_the_documentation_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/example-plan.svg");
    let shown = samples()[0].with(svg);
    if std::env::var_os("NSEXEC_PICTURES").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == shown, "run this test with NSEXEC_PICTURES set");
}

#[test]
fn every_message_of_a_successful_run_is_shown_once() {
    for sample in samples().iter().filter(|sample| ["rootful", "exec"].contains(&sample.name)) {
        let all = sample.with(events);
        let words: Vec<(Role, Role, String)> = all
            .iter()
            .filter_map(|event| match &event.what {
                EventKind::Message { from, to, text, lost, .. } => {
                    assert!(!lost, "{text}");
                    Some((*from, *to, text.clone()))
                }
                _ => None,
            })
            .collect();
        let sent = |text: &str| words.iter().filter(|(.., said)| said.starts_with(text)).count();
        assert_eq!(sent("the bootstrap message"), 1);
        assert_eq!(sent("the pid of stage 2: "), 1);
        assert_eq!(sent("the pid line"), 1);
        assert_eq!(sent("your turn"), 1);
        assert_eq!(sent("done"), 2);
        assert_eq!(sent("go"), 1);
        let last = words.last().unwrap();
        assert_eq!((last.0, last.1), (Role::Launcher, Role::Stage(2)));
    }
}

#[test]
fn direct_start_shows_two_processes_and_only_the_go_byte() {
    let sample = samples().into_iter().find(|sample| sample.name == "direct").unwrap();
    let messages: Vec<(Role, Role, String)> = sample
        .with(events)
        .into_iter()
        .filter_map(|event| match event.what {
            EventKind::Message { from, to, text, lost: false, .. } => Some((from, to, text)),
            _ => None,
        })
        .collect();
    assert_eq!(messages, [(Role::Launcher, Role::Stage(2), "go".to_string())]);
    let diagram = sample.with(mermaid);
    assert_eq!(diagram.matches("participant ").count(), 2, "{diagram}");
    let shown = sample.with(|document| text(document, Look::default()));
    for absent in ["stage 0", "stage 1", "the stages", "pid line", "bootstrap message"] {
        assert!(!shown.contains(absent), "{absent}: {shown}");
    }
}

#[test]
fn start_through_a_child_shows_three_processes_and_two_messages() {
    let sample = samples().into_iter().find(|sample| sample.name == "child").unwrap();
    let mut messages = Vec::new();
    for event in sample.with(events) {
        if let EventKind::Message { from, to, text, lost: false, .. } = event.what {
            messages.push((from, to, text.split(':').next().unwrap_or_default().to_string()));
        }
    }
    let (one, two) = (Role::Stage(1), Role::Stage(2));
    let pid = "the pid of stage 2".to_string();
    assert_eq!(messages, [(one, Role::Launcher, pid), (Role::Launcher, two, "go".to_string())]);
    let diagram = sample.with(mermaid);
    assert_eq!(diagram.matches("participant ").count(), 3, "{diagram}");
    let shown = sample.with(|document| text(document, Look::default()));
    for absent in ["stage 0", "pid line", "bootstrap message", "mapping tool"] {
        assert!(!shown.contains(absent), "{absent}: {shown}");
    }
}

/// Returns the launcher of a direct start whose clone or map the kernel refused, up to the fork of stage 0.
fn given_up(refused: &[Line]) -> Section {
    let line = |call, reply| Line { call, reply };
    let pipes = |one| {
        [
            line(Call::Socketpair, Reply::Pair(Fd(one), Fd(one + 1))),
            line(Call::Pipe2, Reply::Pair(Fd(one + 2), Fd(one + 3))),
        ]
    };
    let close = |fd| line(Call::Close { fd: Fd(fd) }, Reply::Unit);
    let fork = Call::Fork { exit: nsexec::sys::types::ExitSignal::None, tid: None };
    let mut lines = Vec::from(pipes(3));
    lines.extend_from_slice(refused);
    lines.extend([close(4), close(6), close(3), close(5)]);
    lines.extend(pipes(3));
    lines.extend([line(fork, Reply::Parent(Pid(12))), close(4)]);
    Section { lines, ..Section::new(Role::Launcher) }
}

#[test]
fn refused_direct_start_is_explained_and_followed_by_the_stages() {
    let clone = |reply| Line {
        call: Call::CloneInit {
            namespaces: nsexec::sys::types::CloneFlags::NEWUSER,
            shared: false,
            tid: None,
        },
        reply,
    };
    let (call, which) = (Call::Kill { pid: Pid(11), signal: Signal::KILL }, WaitFor::Stages);
    let kill = Line { call, reply: Reply::Unit };
    let waited = Waited { pid: Pid(11), status: WaitStatus::Signaled(Signal::KILL) };
    let wait = Line { call: Call::Wait4 { pid: Pid(11), which }, reply: Reply::Waited(waited) };
    let created = clone(Reply::ParentOfInit { pid: Pid(11), pidfd: None });
    for (refused, reasons) in [
        (
            &[clone(Reply::Errno(Errno::EPERM))][..],
            &[
                "the stages create the namespaces one after the other, and report the one that is refused",
                "no process was created: the stages get pipes of their own",
            ][..],
        ),
        (
            &[created, kill, wait],
            &[
                "the direct start is given up, before the go byte",
                "the process has ended",
                "the new process's end: closed so that its death shows as end of file",
            ],
        ),
    ] {
        let section = given_up(refused);
        let view = SectionView { section: &section, outcome: "", fate: Fate::Continues };
        let document = Document { sections: &[view], ..Document::default() };
        let shown = text(&document, Look::default());
        let of_stages = [
            "the init pipe: for the bootstrap message, and for the pid line in reply",
            "# stage 0\n",
            "the stages' end: closed so that their death shows as end of file",
        ];
        for reason in reasons.iter().chain(&of_stages) {
            assert_eq!(shown.matches(reason).count(), 1, "{reason}: {shown}");
        }
        // The process of the direct attempt has no column.
        let forks =
            events(&document).into_iter().filter(|event| matches!(event.what, EventKind::Fork { .. }));
        assert_eq!(forks.count(), 1);
        assert!(mermaid(&document).contains("participant S0"));
    }
}

/// The merge terminates wherever a record is cut off, and every end is shown.
#[test]
fn merge_ends_for_a_record_cut_anywhere() {
    for sample in samples() {
        for victim in 0..sample.transcripts.len() {
            for keep in 0..sample.transcripts[victim].lines.len() {
                let mut transcripts = sample.transcripts.clone();
                transcripts[victim].lines.truncate(keep);
                let broken = Sample { name: "", title: "", transcripts };
                let all = broken.with(events);
                let ends = all.iter().filter(|event| matches!(event.what, EventKind::End { .. })).count();
                assert_eq!(ends, sample.transcripts.len());
                for (index, event) in all.iter().enumerate() {
                    let EventKind::End { role, .. } = &event.what else { continue };
                    let is_its = |event: &&super::events::Event| {
                        event
                            .source
                            .is_some_and(|(section, _)| column(&sample.transcripts[section].section) == *role)
                    };
                    let after = all[index..].iter().find(is_its);
                    assert!(role.is_tool() || after.is_none(), "{} {victim} {keep}: {after:?}", sample.name);
                }
            }
        }
    }
}

#[test]
fn unread_message_is_shown_as_lost() {
    let sample = stage_2_dies();
    let all = sample.with(events);
    let lost: Vec<String> = all
        .iter()
        .filter_map(|event| match &event.what {
            EventKind::Message { text, lost: true, .. } => Some(text.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ["your turn"]);
}

#[test]
fn failed_send_is_shown_as_lost_with_its_reason() {
    let line = Line {
        call: Call::Send { fd: Fd(6), data: 0x44_u32.to_ne_bytes()[..].into() },
        reply: Reply::Errno(Errno::EPIPE),
    };
    let pair = |one, other| Line { call: Call::Socketpair, reply: Reply::Pair(Fd(one), Fd(other)) };
    let lines = Vec::from([pair(3, 4), pair(5, 6), line]);
    let section = Section { lines, ..Section::new(Role::Stage(0)) };
    let view = SectionView { section: &section, outcome: "exit 1", fate: Fate::Failed };
    let document = Document { sections: &[view], ..Document::default() };
    assert!(matches!(&events(&document)[0].what, EventKind::Message { to: Role::Stage(2), lost: true, .. }));
    let shown = text(&document, Look::default());
    assert!(shown.contains("# → stage 2: your turn, but the peer is gone"), "{shown}");
}

#[test]
fn long_data_is_cut_between_bytes_and_shows_its_length() {
    let data: Vec<u8> = (0..200).flat_map(|_| [0, b'7']).collect();
    let line = Line { call: Call::Write { fd: Fd(3), data: data[..].into() }, reply: Reply::Count(400) };
    let section = Section { lines: Vec::from([line]), ..Section::new(Role::Stage(0)) };
    let view = SectionView { section: &section, outcome: "", fate: Fate::Ended };
    let document = Document { sections: &[view], ..Document::default() };
    let shown = text(&document, Look::default());
    let expected = format!("  write(3, \"{}\"... /* 400 bytes */, 400) = 400\n", "\\0007".repeat(24));
    assert_eq!(shown, format!("stage-0 parent\n{expected}"));
    assert_eq!(shown.matches("bytes").count(), 1);
    assert!(!shown.to_string().contains('#'));
}

/// Returns the plan of a start in place: an ordinary user becomes root of a new user and network namespace.
fn in_place() -> Plan {
    let map = IdMap::parse(c"0 1000 1\n").unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWNET))
        .with_rootless_euid(true)
        .with_uid_map(map)
        .with_gid_map(map);
    // setsid(2) is refused to the leader of a process group.
    let policy = Policy::runc(&Dialect::V1_2).with_session(Session::Keep);
    let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
    launcher.command("/bin/true", [""; 0]).env_clear();
    plan(&Start::Launcher(launcher.prepare_exec().unwrap()), &Assumptions::ordinary(1000)).unwrap()
}

#[test]
fn summary_of_a_start_in_place_is_that_of_the_launcher() {
    let plan = in_place();
    assert!(plan.succeeds, "{:?}", plan.log);
    assert_eq!(plan.shape.split(':').next(), Some("in place"));
    for (subject, value) in [
        ("starts", "this process becomes /bin/true as: /bin/true"),
        ("ids", "user 0 and group 0 of the new user namespace"),
        (
            "rights",
            "every capability in the new user namespace, and over the new namespaces net; none outside of it",
        ),
    ] {
        let found = plan.summary().into_iter().find(|(key, _)| *key == subject);
        assert_eq!(found, Some((subject, value.to_string())));
    }
    // The run without the notes of the plan, as a record of it.
    let shown = crate::render::saved::show(&plan.run, |document| text(document, Look::default()));
    assert!(shown.contains("the command was started"), "{shown}");
    assert!(shown.contains("this process becomes /bin/true"), "{shown}");
}
