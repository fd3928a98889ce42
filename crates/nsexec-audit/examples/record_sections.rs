//! Runs a bootstrap on the real kernel under the recorder and writes its sections to a file: the data of the
//! tests of `nsexec_audit::render` (tests/data/render).
//!
//! `record_sections FILE FLAGS [join=KIND:PATH,…] [uid=MAP] [gid=MAP] [setgroup] [rootless] [offsets=TEXT]
//! [uidtool=PATH] [gidtool=PATH] [level=N] [direct]`. With `direct`, our own launcher starts /bin/true
//! without stages. `FLAGS` is a hexadecimal number; `;` is a newline in a map.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use nsexec::bootstrap::dialect::Dialect;
use nsexec::bootstrap::env::Environment;
use nsexec::bootstrap::{Bootstrap, MESSAGE_MAX, decode};
use nsexec::idmap::IdMap;
use nsexec::launch::encode::encode;
use nsexec::launch::script::Launched;
use nsexec::launch::{Collector, Launcher};
use nsexec::log::Level;
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::nsexec::{Scratch, bootstrap};
use nsexec::policy::{Credentials, Policy, Session};
use nsexec::stage::Outcome;
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, Pid, Propagation, WaitFor, WaitStatus,
};
use nsexec::timens::TimeOffsets;
use nsexec_audit::Role;
use nsexec_audit::record::{Line, LineRef, Recorder, Reply, ReplyRef, Sink, Transcript};
use nsexec_audit::render::walk::created_role;

/// A file to which all processes append their lines, and the role of this process.
struct Shared {
    file: File,
    role: Role,
}

impl Sink for Shared {
    fn line(&mut self, line: &LineRef<'_>) {
        if let ReplyRef::Value(Reply::Child) = line.reply {
            let parent = Line { call: line.call.to_call(), reply: Reply::Parent(Pid(1)) };
            self.role = created_role(Some(self.role), &parent).expect("a known clone point");
        }
        let entry = serde_json::to_string(&(self.role.to_string(), line)).unwrap() + "\n";
        self.file.write_all(entry.as_bytes()).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut values = BTreeMap::new();
    for argument in &arguments[2..] {
        let (key, value) = argument.split_once('=').unwrap_or((argument, "1"));
        values.insert(key, CString::new(value.replace(';', "\n")).unwrap());
    }
    let flags = CloneFlags(u32::from_str_radix(&arguments[1], 16).unwrap());
    let mut memory = vec![0; MESSAGE_MAX];
    let len = message(flags, &values, &mut memory);
    let message = memory[..len].to_vec();
    let number = values.get("level").map_or(3, |level| level.to_str().unwrap().parse().unwrap());
    let path = format!("{}.raw", arguments[0]);
    let file = OpenOptions::new().append(true).create_new(true).open(&path).unwrap();
    // SAFETY: this process has a single thread.
    let sys = unsafe { LinuxSys::new() };
    let mut sys = Recorder::new(sys, Shared { file, role: Role::Launcher });
    if values.contains_key("direct") {
        launch_directly(&mut sys, &message, &mut memory);
    } else {
        launch(&mut sys, &message, &mut memory, Level::from_number(number));
    }
    sort(&path, &arguments[0]);
    fs::remove_file(&path).unwrap();
}

fn message(flags: CloneFlags, values: &BTreeMap<&str, CString>, memory: &mut [u8]) -> usize {
    let mut boot = Bootstrap::new(flags)
        .with_setgroup(values.contains_key("setgroup"))
        .with_rootless_euid(values.contains_key("rootless"));
    if let Some(join) = values.get("join") {
        boot = boot.with_namespaces(NsPaths::parse(join.to_bytes(), NsSet::ALL).unwrap());
    }
    if let Some(map) = values.get("uid") {
        boot = boot.with_uid_map(IdMap::parse(map).unwrap());
    }
    if let Some(map) = values.get("gid") {
        boot = boot.with_gid_map(IdMap::parse(map).unwrap());
    }
    if let Some(offsets) = values.get("offsets") {
        boot = boot.with_timens_offsets(TimeOffsets::parse(offsets).unwrap());
    }
    if let Some(path) = values.get("uidtool") {
        boot = boot.with_uidmap_path(path);
    }
    if let Some(path) = values.get("gidtool") {
        boot = boot.with_gidmap_path(path);
    }
    encode(&boot, &Dialect::V1_2, memory).unwrap()
}

/// A short launcher: pipes, fork, message, pid line, reaping, go byte.
fn launch(sys: &mut Recorder<LinuxSys, Shared>, message: &[u8], memory: &mut [u8], level: Level) {
    let (init, stage_init) = sys.socketpair().unwrap();
    let (log, stage_log) = sys.pipe2().unwrap();
    if sys.fork(ExitSignal::None, None).unwrap() == Fork::Child {
        sys.close(init).unwrap();
        sys.close(log).unwrap();
        let status = stages(sys, stage_init, stage_log, memory, level);
        // SAFETY: ends this process, which must not run the rest of the launcher.
        unsafe { libc::_exit(status) }
    }
    sys.close(stage_init).unwrap();
    sys.close(stage_log).unwrap();
    sys.send(init, message).unwrap();
    let mut buffer = [0; 128];
    let started = matches!(sys.read(init, &mut buffer), Ok(1..));
    while sys.sink().role == Role::Launcher {
        match sys.wait4(Pid(-1), WaitFor::Stages) {
            Ok(waited) if waited.status != WaitStatus::Exited(0) => {}
            Ok(_) if !started => {}
            // The second exit with status 0: stage 0 and stage 1 have ended.
            Ok(_) if buffer[127] < 1 => buffer[127] += 1,
            Ok(_) => break,
            Err(Errno::ECHILD) => return,
            Err(errno) => panic!("{errno}"),
        }
    }
    sys.send(init, b"G").unwrap();
    sys.close(init).unwrap();
    // The command is not part of the protocol, so this wait is not recorded. Before its exec the command is a
    // stage. SAFETY: only waits.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
}

/// Our own launcher's start, as `nsexec run` would make it.
fn launch_directly(sys: &mut Recorder<LinuxSys, Shared>, message: &[u8], memory: &mut [u8]) {
    let (bootstrap, _) = decode(message, &Dialect::V1_2).unwrap();
    let mounts = bootstrap.clone_flags().contains(CloneFlags::NEWNS);
    let policy = Policy::runc(&Dialect::V1_2)
        .with_session(Session::New)
        .with_credentials(Credentials::Root)
        .with_propagation(mounts.then_some(Propagation::Private))
        .with_mount_proc(mounts);
    let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
    let prepared = launcher.command("/bin/true", [""; 0]).prepare().unwrap();
    match prepared.run(sys, memory, None, &mut Collector::default()) {
        // SAFETY: ends this process, which must not run the rest of the launcher.
        Launched::Exit(status) => unsafe { libc::_exit(status) },
        Launched::Failed(failure) => panic!("{failure:?}"),
        // The command is not part of the protocol, so this wait is not recorded. SAFETY: only waits.
        Launched::Started { pid } => unsafe {
            libc::waitpid(pid.0, std::ptr::null_mut(), 0);
        },
    }
}

fn stages(sys: &mut Recorder<LinuxSys, Shared>, init: Fd, log: Fd, memory: &mut [u8], level: Level) -> i32 {
    let environment = Environment::new(Some(init), Some(log), level);
    let policy = Policy::runc(&Dialect::V1_2);
    match bootstrap(sys, environment, &policy, &mut Scratch { message: memory }) {
        Outcome::Exit(status) => status,
        Outcome::NotInit => 2,
        Outcome::HandOver => {
            let mut word = [0];
            if sys.read(init, &mut word) == Ok(1) {
                let mut slots = [const { None }; 4];
                let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
                sys.execve(c"/usr/bin/true", &argv, &ExecArgs::EMPTY);
            }
            1
        }
    }
}

/// Sorts the lines into sections and writes each as a transcript in JSON lines.
fn sort(raw: &str, path: &str) {
    let mut sections: Vec<Transcript> = Vec::new();
    for entry in fs::read_to_string(raw).unwrap().lines() {
        let (name, line): (String, Line) = serde_json::from_str(entry).unwrap();
        let begins = line.reply == Reply::Child || !sections.iter().any(|known| known.section == name);
        if begins {
            sections.push(Transcript::new(&name));
        }
        let section = sections.iter_mut().rfind(|section| section.section == name).unwrap();
        section.push(line);
    }
    let mut out = String::new();
    for section in sections {
        out.push_str(&section.to_json_lines().unwrap());
    }
    fs::write(path, out).unwrap();
}
