//! Kills each process of a launch after each of its system calls, on the real kernel: the launcher, and the
//! three stages, stages 1 and 2 of a start through a child, or the process of a direct start.

use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nsexec::launch::{LaunchError, exit_code};
use nsexec_audit::record::{LineRef, Recorder, Reply, ReplyRef, Sink};

use crate::cases::{Shape, everything, leaves_nothing};
use crate::{Case, helper, no_child_left};
use support::LIMIT;

pub(crate) const CASES: &[Case] = &[
    ("launcher_of_stages_dies_after_each_call", || launcher_dies_after_each_call(Shape::Stages)),
    ("launcher_of_a_direct_start_dies_after_each_call", || launcher_dies_after_each_call(Shape::Direct)),
    ("launcher_of_a_child_dies_after_each_call", || launcher_dies_after_each_call(Shape::Child)),
    ("stage_0_dies", || a_process_dies(Shape::Stages, 1)),
    ("stage_1_dies", || a_process_dies(Shape::Stages, 2)),
    ("stage_2_dies", || a_process_dies(Shape::Stages, 3)),
    ("process_of_a_direct_start_dies", || a_process_dies(Shape::Direct, 1)),
    ("stage_1_of_a_start_through_a_child_dies", || a_process_dies(Shape::Child, 1)),
    ("stage_2_of_a_start_through_a_child_dies", || a_process_dies(Shape::Child, 2)),
];

/// Ends a process after one of its calls. The launcher has depth 0, its child has depth 1, and so on.
///
/// A fork copies the sink, so each process counts its own calls.
struct Death {
    depth: usize,
    lines: usize,
    at: (usize, usize),
}

impl Death {
    fn at(depth: usize, line: usize) -> Self {
        Self { depth: 0, lines: 0, at: (depth, line) }
    }
}

impl Sink for Death {
    fn line(&mut self, line: &LineRef<'_>) {
        if let ReplyRef::Value(Reply::Child) = line.reply {
            (self.depth, self.lines) = (self.depth + 1, 0);
        } else {
            self.lines += 1;
        }
        if (self.depth, self.lines) == self.at {
            kill(nix::unistd::getpid(), Signal::SIGKILL).unwrap();
            // Process 1 of a pid namespace cannot send itself SIGKILL.
            // SAFETY: no code of this process runs after this call.
            unsafe { nix::libc::_exit(99) }
        }
    }
}

/// A launcher that kills itself after a line of its record, if it writes that many lines.
pub(crate) fn die_helper(words: &[String]) {
    let line = words[0].parse().unwrap();
    let mut child = everything(Shape::from_word(&words[1]), true)
        .command("sleep", ["1000"])
        .spawn_through(|sys| Recorder::new(sys, Death::at(0, line)))
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    std::io::stdout().write_all(b"alive").unwrap();
}

fn launcher_dies_after_each_call(shape: Shape) {
    for line in 1.. {
        let output = helper(&["die", &line.to_string(), shape.word()]).output().unwrap();
        no_child_left(LIMIT).unwrap_or_else(|left| panic!("after line {line}: {left}"));
        if !output.stdout.is_empty() {
            // The script of the launcher makes more than 15 calls.
            assert!(line > 15, "{line}");
            return;
        }
    }
}

fn a_process_dies(shape: Shape, depth: usize) {
    // The process of a direct start does the work of stage 2, and is named like it.
    let stage = match shape {
        Shape::Direct => 2,
        Shape::Child => depth,
        Shape::Stages => depth - 1,
    };
    for line in 0.. {
        let result = leaves_nothing(|| {
            let mut launcher = everything(shape, false);
            let child = launcher
                .command("true", [""; 0])
                .spawn_through(|sys| Recorder::new(sys, Death::at(depth, line)));
            child.map(|mut child| exit_code(child.wait().unwrap()))
        });
        match result {
            Ok(0) => {
                assert!(line > 5, "{line}");
                return;
            }
            // Stage 2 had the go byte, and died before its exec. In the other shapes the launcher asks for
            // that.
            Ok(status) => assert!(depth == 3 && (status == 137 || status == 99), "line {line}: {status}"),
            Err(LaunchError::Bootstrap(failure)) => {
                let text = failure.to_string();
                let unknown = shape == Shape::Stages && text.contains("a stage (pid");
                let named = text.contains(&format!("stage-{stage} (pid")) || unknown;
                let how = text.contains("was killed by SIGKILL") || text.contains("exited with status 99");
                assert!(named && how, "line {line}: {text} {failure:#?}");
            }
            Err(error) => panic!("line {line}: {error}"),
        }
    }
}
