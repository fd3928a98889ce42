//! A server that launches a command with nsexec's launcher and measures each launch itself.
//!
//! `serve [PREPARATION]... SCENARIO PROGRAM [PID]`: the preparations are those of `floor.c`. Each byte on
//! descriptor 0 asks for one launch. The answer has 8 bytes: the nanoseconds from the construction of the
//! launcher to the reaping of the command, or 0 after a failure.

pub mod parent;

use std::error::Error;
use std::ffi::CString;
use std::io::{Read, Write};
use std::time::Instant;

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::{Child, LaunchError, Launcher};
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::policy::{Credentials, Policy, Session, Setgroups};
use nsexec::sys::types::CloneFlags;
use nsexec::timens::TimeOffsets;

/// The namespaces that scenario e joins.
const JOINED: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"];

/// The launch to measure, with the texts that the bootstrap borrows.
pub struct Scenario {
    name: char,
    paths: String,
    map: CString,
    offsets: CString,
    program: String,
}

impl Scenario {
    /// Reads `SCENARIO PROGRAM [PID]`. `PID` is the process whose namespaces scenario e joins.
    ///
    /// # Errors
    /// An argument is missing.
    pub fn parse(words: &[String]) -> Result<Self, Box<dyn Error>> {
        let [name, program, rest @ ..] = words else { return Err("SCENARIO and PROGRAM are missing".into()) };
        let target = rest.first().map_or("self", String::as_str);
        let paths = JOINED.map(|kind| format!("{kind}:/proc/{target}/ns/{kind}")).join(",");
        Ok(Self {
            name: name.chars().next().unwrap_or('a'),
            paths,
            map: CString::new(format!("0 {} 1\n", parent::user()))?,
            offsets: c"boottime 86400 0\n".into(),
            program: program.clone(),
        })
    }

    fn flags(&self) -> CloneFlags {
        use CloneFlags as Flags;
        let b = [Flags::NEWNS, Flags::NEWPID, Flags::NEWUTS, Flags::NEWIPC];
        let rest = [Flags::NEWNET, Flags::NEWUSER, Flags::NEWCGROUP, Flags::NEWTIME];
        let chosen = match self.name {
            'a' | 'e' => vec![],
            'b' => b.to_vec(),
            'c' => [&b[..], &rest[..1]].concat(),
            'f' => [&b[..], &[Flags::NEWUSER]].concat(),
            _ => [&b[..], &rest].concat(),
        };
        chosen.into_iter().fold(Flags::EMPTY, Flags::union)
    }

    /// Launches the command once with `start`, and waits for its end.
    ///
    /// # Errors
    /// The launch failed, or the command did.
    pub fn launch(&self, start: Start) -> Result<(), Box<dyn Error>> {
        let mut bootstrap = Bootstrap::new(self.flags());
        let mut policy =
            Policy::runc(&Dialect::V1_2).with_session(Session::Keep).with_credentials(Credentials::Keep);
        if ['d', 'f'].contains(&self.name) {
            let map = IdMap::parse(&self.map).map_err(|error| error.to_string())?;
            bootstrap = bootstrap.with_uid_map(map).with_gid_map(map);
            policy = policy.with_credentials(Credentials::Root);
        }
        if self.name == 'd' {
            let offsets = TimeOffsets::parse(&self.offsets).map_err(|error| error.to_string())?;
            bootstrap = bootstrap.with_timens_offsets(offsets);
        }
        if self.name == 'f' {
            // An ordinary user may map its group only then (user_namespaces(7)).
            policy = policy.with_setgroups(Setgroups::Deny);
        }
        if self.name == 'e' {
            let paths =
                NsPaths::parse(self.paths.as_bytes(), NsSet::ALL).map_err(|error| error.to_string())?;
            bootstrap = bootstrap.with_namespaces(paths);
        }
        let mut launcher = Launcher::new(&bootstrap, policy)?;
        // The benchmark made the mount namespace itself.
        launcher.command(&self.program, [""; 0]).trust_mount_namespace();
        match start(&mut launcher)?.wait()?.success() {
            true => Ok(()),
            false => Err("the command failed".into()),
        }
    }
}

/// How a launch is started: with or without the recorder.
pub type Start = fn(&mut Launcher) -> Result<Child, LaunchError>;

/// Answers requests until descriptor 0 is closed.
///
/// # Errors
/// The arguments are wrong, or a preparation failed.
pub fn serve(words: &[String], start: Start) -> Result<(), Box<dyn Error>> {
    let rest = parent::prepare(words)?;
    let scenario = Scenario::parse(rest)?;
    let mut socket = parent::socket()?;
    let mut byte = [0];
    while socket.read(&mut byte)? == 1 {
        let begin = Instant::now();
        let done = scenario.launch(start);
        let taken = begin.elapsed().as_nanos();
        if let Err(error) = &done {
            eprintln!("library: {error}");
        }
        let answer = if done.is_ok() { u64::try_from(taken)? } else { 0 };
        socket.write_all(&answer.to_ne_bytes())?;
    }
    Ok(())
}
