//! The negative control: a model of runc's C on the same simulated kernel, with the same launcher, message
//! and machine.
//!
//! The model must show two faults that runc has, and our code must not. One is a stage 1 that survives the
//! death of stage 0. The other is a deadlock on a full log pipe. A simulator in which the model has no faults
//! is wrong.
//!
//! The model has only what these faults need: descriptors without close-on-exec, waits that do not notice
//! another process's death, and blocking log writes. See docs/protocol.md#weaknesses-of-the-c-code.

use std::ffi::CString;

use nsexec::bootstrap::{Bootstrap, Dialect, decode};
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::sys::Sys;
use nsexec::sys::types::*;
use nsexec_audit::Role;
use nsexec_audit::plan::runc::{CONFIG, Manner};
use nsexec_audit::record::Call;
use nsexec_audit::sim::{
    Ended, Fault, FaultKind, FinalState, Oldest, Program, Random, Report, Sim, SimSys, User, Youngest,
    all_schedules,
};
use support::scenarios::{self, Scenario, flags, map};

/// The 4-byte values that runc's stages exchange on the sync pipes.
const USERMAP_PLS: u32 = 0x40;
const USERMAP_ACK: u32 = 0x41;
const RECVPID_PLS: u32 = 0x42;
const RECVPID_ACK: u32 = 0x43;
const GRANDCHILD: u32 = 0x44;
const CHILD_FINISH: u32 = 0x45;

/// The descriptors that runc's launcher passes to its child in this simulation.
const INIT_PIPE: Fd = Fd(4);
const LOG_PIPE: Fd = Fd(6);

/// A failure in the C code: it writes a record, and calls exit(1). The model does not distinguish failures.
struct Bail;

/// One stage of the model: its log, and the calls of the C code, each made once without retries.
struct Model<'s> {
    sys: &'s mut SimSys,
    stage: u8,
    debug: bool,
}

impl Model<'_> {
    /// write_log: one write, which blocks until the pipe has room.
    fn log(&mut self, level: &str, text: &str) {
        if level == "fatal" || self.debug {
            let pid = self.sys.getpid();
            let record =
                format!("{{\"level\":\"{level}\", \"msg\": \"nsexec-{}[{pid}]: {text}\"}}\n", self.stage);
            let _ = self.sys.write(LOG_PIPE, record.as_bytes());
        }
    }

    fn debug(&mut self, text: &str) {
        self.log("debug", text);
    }

    /// bail(): writes a fatal record.
    fn must<T>(&mut self, result: SysResult<T>, text: &str) -> Result<T, Bail> {
        result.map_err(|errno| {
            self.log("fatal", &format!("{text}: {errno}"));
            Bail
        })
    }

    fn send_value(&mut self, fd: Fd, value: u32) -> Result<(), Bail> {
        let wrote = self.sys.write(fd, &value.to_ne_bytes());
        self.must(wrote, "failed to sync: write").map(|_| ())
    }

    fn receive_value(&mut self, fd: Fd) -> Result<u32, Bail> {
        let mut word = [0; 4];
        let got = self.sys.read(fd, &mut word);
        match self.must(got, "failed to sync: read")? {
            4 => Ok(u32::from_ne_bytes(word)),
            _ => self.must(Err(Errno(0)), "failed to sync: read").map(|()| 0),
        }
    }

    fn expect(&mut self, fd: Fd, value: u32) -> Result<(), Bail> {
        match self.receive_value(fd)? {
            heard if heard == value => Ok(()),
            _ => Err(Bail),
        }
    }

    /// nsexec(): reads the message and runs stage 0. Stages 1 and 2 return here too.
    fn bootstrap(&mut self, size: usize) -> Result<Ended, Bail> {
        let mut bytes = vec![0; size];
        let mut got = 0;
        while got < size {
            let count = self.sys.read(INIT_PIPE, &mut bytes[got..]);
            got += self.must(count, "failed to read netlink message")?;
        }
        let (message, _) = decode(&bytes, &Dialect::V1_2).map_err(|_| Bail)?;
        self.debug("=> nsexec container setup");
        let child = self.sys.socketpair();
        let child = self.must(child, "failed to setup sync pipe between parent and child")?;
        let grandchild = self.sys.socketpair();
        let grandchild = self.must(grandchild, "failed to setup sync pipe between parent and grandchild")?;
        self.debug("~> nsexec stage-0");
        self.debug("spawn stage-1");
        let forked = self.sys.clone_sibling(None);
        match self.must(forked, "unable to spawn stage-1")? {
            Fork::Child => self.stage_1(&message, child, grandchild),
            Fork::Parent { child: stage_1 } => self.stage_0(&message, stage_1, child, grandchild),
        }
    }

    fn stage_0(
        &mut self,
        message: &Bootstrap<'_>,
        stage_1: Pid,
        child: (Fd, Fd),
        grandchild: (Fd, Fd),
    ) -> Result<Ended, Bail> {
        let _ = self.sys.close(child.0);
        self.debug("-> stage-1 synchronisation loop");
        loop {
            match self.receive_value(child.1)? {
                USERMAP_PLS => {
                    self.debug("stage-1 requested userns mappings");
                    let uid = (message.uid_map(), "uid_map", message.uidmap_path());
                    let gid = (message.gid_map(), "gid_map", message.gidmap_path());
                    for (ids, file, tool) in [uid, gid] {
                        let ids = ids.map(|ids| String::from_utf8_lossy(ids.text()).into_owned());
                        self.write_map(stage_1, file, &ids.unwrap_or_default(), tool.is_some())?;
                    }
                    self.send_value(child.1, USERMAP_ACK)?;
                }
                RECVPID_PLS => {
                    self.debug("stage-1 requested pid to be forwarded");
                    let stage_2 = self.receive_value(child.1)?;
                    self.send_value(child.1, RECVPID_ACK)?;
                    self.debug(&format!("forward stage-1 ({stage_1}) and stage-2 ({stage_2}) pids to runc"));
                    let line = format!("{{\"stage1_pid\":{stage_1},\"stage2_pid\":{stage_2}}}\n");
                    let wrote = self.sys.write(INIT_PIPE, line.as_bytes());
                    self.must(wrote, "failed to sync with runc: write(pid-JSON)")?;
                }
                CHILD_FINISH => break,
                _ => return Err(Bail),
            }
        }
        self.debug("stage-1 complete");
        let _ = self.sys.close(grandchild.0);
        self.debug("signalling stage-2 to run");
        self.send_value(grandchild.1, GRANDCHILD)?;
        self.expect(grandchild.1, CHILD_FINISH)?;
        self.debug("<~ nsexec stage-0");
        Ok(Ended::Exit(0))
    }

    /// update_uidmap and try_mapping_tool: the tool inherits every descriptor, and the model waits for the
    /// tool only.
    fn write_map(&mut self, stage_1: Pid, file: &str, ids: &str, tool: bool) -> Result<(), Bail> {
        self.debug(&format!("update /proc/{stage_1}/{file} to '{}'", ids.replace('\n', "\\n")));
        let path = CString::new(format!("/proc/{stage_1}/{file}")).expect("no NUL");
        let fd = self.sys.openat(Fd::CWD, &path, OpenFlags::ReadWrite);
        let fd = self.must(fd, "failed to open map")?;
        let wrote = self.sys.write(fd, ids.as_bytes());
        let _ = self.sys.close(fd);
        if wrote != Err(Errno::EPERM) || !tool {
            return self.must(wrote, "failed to update map").map(|_| ());
        }
        let forked = self.sys.fork(ExitSignal::Chld, None);
        match self.must(forked, "failed to fork")? {
            Fork::Child => {
                let name = if file == "uid_map" { "/usr/bin/newuidmap" } else { "/usr/bin/newgidmap" };
                let words = format!("{name} {stage_1} {ids}");
                let text: String = words.split_whitespace().map(|word| format!("{word}\0")).collect();
                let mut slots = [None; 20];
                let argv = ExecArgs::build(text.as_bytes(), &mut slots).expect("few enough");
                let path = CString::new(name).expect("no NUL");
                let errno = self.sys.execve(&path, &argv, &ExecArgs::EMPTY);
                self.must(Err(errno), "failed to execv")
            }
            Fork::Parent { child } => {
                let waited = self.sys.wait4(child, WaitFor::Ordinary);
                self.must(waited, "failed to waitpid").map(|_| ())
            }
        }
    }

    fn stage_1(
        &mut self,
        message: &Bootstrap<'_>,
        child: (Fd, Fd),
        grandchild: (Fd, Fd),
    ) -> Result<Ended, Bail> {
        let _ = self.sys.close(child.1);
        self.stage = 1;
        self.debug("~> nsexec stage-1");
        let asked = message.clone_flags();
        if asked.contains(CloneFlags::NEWUSER) {
            self.debug("unshare user namespace");
            let unshared = self.sys.unshare(CloneFlags::NEWUSER);
            self.must(unshared, "failed to unshare user namespace")?;
            self.debug("request stage-0 to map user namespace");
            self.send_value(child.0, USERMAP_PLS)?;
            self.debug("waiting stage-0 to complete the mapping of user namespace");
            self.expect(child.0, USERMAP_ACK)?;
            let root = self.sys.setresuid(0);
            self.must(root, "failed to become root in user namespace")?;
        }
        self.debug("unshare remaining namespaces");
        let unshared = self.sys.unshare(asked.without(CloneFlags::NEWUSER));
        self.must(unshared, "failed to unshare remaining namespaces")?;
        self.debug("spawn stage-2");
        let forked = self.sys.clone_sibling(None);
        let stage_2 = match self.must(forked, "unable to spawn stage-2")? {
            Fork::Child => return self.stage_2(child, grandchild),
            Fork::Parent { child } => child,
        };
        self.debug(&format!("request stage-0 to forward stage-2 pid ({stage_2})"));
        self.send_value(child.0, RECVPID_PLS)?;
        self.send_value(child.0, u32::try_from(stage_2.0).expect("a pid"))?;
        self.expect(child.0, RECVPID_ACK)?;
        self.debug("signal completion to stage-0");
        self.send_value(child.0, CHILD_FINISH)?;
        self.debug("<~ nsexec stage-1");
        Ok(Ended::Exit(0))
    }

    fn stage_2(&mut self, child: (Fd, Fd), grandchild: (Fd, Fd)) -> Result<Ended, Bail> {
        let _ = self.sys.close(grandchild.1);
        let _ = self.sys.close(child.0);
        self.stage = 2;
        self.debug("~> nsexec stage-2");
        self.expect(grandchild.0, GRANDCHILD)?;
        for result in [self.sys.setsid(), self.sys.setuid(0), self.sys.setgid(0)] {
            self.must(result, "setsid failed")?;
        }
        self.debug("signal completion to stage-0");
        self.send_value(grandchild.0, CHILD_FINISH)?;
        let _ = self.sys.close(grandchild.0);
        self.debug("<= nsexec container setup");
        // Reads the configuration, as the Go runtime does.
        let mut config = vec![0; CONFIG.len()];
        let got = self.sys.read(INIT_PIPE, &mut config);
        let _ = self.sys.close(LOG_PIPE);
        Ok(if got == Ok(CONFIG.len()) { Ended::HandOver } else { Ended::Exit(1) })
    }
}

/// Returns the same machine with the model of the C code as the program.
fn with_c_model(mut sim: Sim, scenario: &Scenario, level: Level) -> Sim {
    sim.settings().leaks_descriptors = true;
    let (size, debug) = (scenario.message.len(), level == Level::Debug);
    let main = move |sys: &mut SimSys| {
        let mut model = Model { sys, stage: 0, debug };
        model.bootstrap(size).unwrap_or(Ended::Exit(1))
    };
    sim.program("/usr/bin/runc", Program::new(main));
    sim
}

fn stuck(report: &Report) -> Vec<(Role, &'static str)> {
    report.stuck().map(|(role, call)| (role, call.name())).collect()
}

fn is_started(report: &Report) -> bool {
    let end = |role| report.find(role).map(|process| process.end.clone());
    end(Role::Launcher) == Some(FinalState::Exited(0)) && end(Role::Stage(2)) == Some(FinalState::HandedOver)
}

/// The model is a fair comparison: without a fault it starts the containers that our code starts.
#[test]
fn c_model_starts_a_container() {
    for name in ["nothing", "rootful", "rootful_user", "rootless_tools"] {
        let scenario = scenarios::named(name);
        for manner in [Manner::Init, Manner::Exec] {
            let sim = with_c_model(scenario.launched(manner, Level::Debug), &scenario, Level::Debug);
            for seed in 0..20 {
                let report = sim.run(&mut Random::new(seed), None);
                assert!(is_started(&report), "{name}, {manner:?}, seed {seed}\n{report}");
            }
        }
    }
}

/// Sends SIGKILL to stage 0 at each of its calls after the fork of the tool, which runs forever.
fn with_a_tool_that_stays(sim: &Sim) -> Vec<Report> {
    let mut sim = sim.clone();
    sim.program("/usr/bin/newuidmap", Program::ends(Ended::Stay));
    let whole = sim.run(&mut Oldest, None);
    let lines = &whole.find(Role::Stage(0)).expect("a stage 0").transcript.lines;
    let forked = lines.iter().position(|line| {
        matches!(line.call, Call::Fork { exit: ExitSignal::Chld, .. })
            && matches!(line.reply, nsexec_audit::record::Reply::Parent(_))
    });
    let after = forked.expect("a tool") + 1;
    let role = whole.find(Role::Stage(0)).expect("a stage 0").role;
    // Includes the call in which stage 0 waits, which is not recorded yet.
    (after..=lines.len())
        .flat_map(|line| {
            let fault = Fault { at: nsexec_audit::sim::Place { role, line }, what: FaultKind::Kill };
            [sim.run(&mut Oldest, Some(fault)), sim.run(&mut Youngest, Some(fault))]
        })
        .filter(|report| report.fault_fired)
        .collect()
}

/// The tool holds the sync pair open, so stage 1 never notices the death of stage 0.
#[test]
fn c_model_leaves_a_stage_and_our_code_does_not() {
    let scenario = scenarios::named("rootless_tools");
    let ours = scenario.launched(Manner::Exec, Level::Warning);
    let c = with_c_model(ours.clone(), &scenario, Level::Warning);
    let reports = with_a_tool_that_stays(&c);
    assert!(!reports.is_empty());
    for report in &reports {
        // The launcher waits too: the surviving stage holds the log pipe open.
        assert_eq!(stuck(report), [(Role::Launcher, "read"), (Role::Stage(1), "read")], "{report}");
    }
    let reports = with_a_tool_that_stays(&ours);
    assert!(reports.len() >= 2);
    for report in &reports {
        assert_eq!(stuck(report), [], "{report}");
        // The tool is another program, and a dead stage 0 cannot kill it.
        assert!(report.alive().all(|process| process.role.is_tool()), "{report}");
    }
}

/// A log pipe of one page, level debug, and no reader.
#[test]
fn c_model_blocks_on_its_log_and_our_code_does_not() {
    // The map has so many lines that its records fill the page.
    let ids: String = (0..120).map(|line| format!("{line} {} 1\n", 100_000 + 2 * line)).collect();
    let message = Bootstrap::new(flags(&[NsKind::Mnt, NsKind::Pid]).union(CloneFlags::NEWUSER))
        .with_uid_map(map(&ids))
        .with_gid_map(map(&ids));
    // In this simulation runc's launcher reads the log at the end.
    let scenario = Scenario::new("full_log", "a log pipe that nobody reads", &User::root(), &message)
        .setting(|settings| settings.pipe_buffer = 4096);
    let ours = scenario.launched(Manner::Init, Level::Debug);
    let c = with_c_model(ours.clone(), &scenario, Level::Debug);
    let mut deadlocks = 0;
    let schedules = all_schedules(2_000, |script| {
        let report = c.run(script, None);
        let stuck = stuck(&report);
        assert!(stuck.iter().any(|(role, call)| *role != Role::Launcher && *call == "write"), "{report}");
        assert!(stuck.contains(&(Role::Launcher, "read")), "{report}");
        deadlocks += 1;
    });
    println!(
        "the model: {deadlocks} deadlocks in {} schedules (complete: {})",
        schedules.count, schedules.complete
    );
    assert!(deadlocks > 0);
    let schedules = all_schedules(2_000, |script| {
        let report = ours.run(script, None);
        assert!(is_started(&report), "{report}");
    });
    println!("ours: started in each of {} schedules (complete: {})", schedules.count, schedules.complete);
    for seed in 0..200 {
        let report = c.run(&mut Random::new(seed), None);
        assert!(!stuck(&report).is_empty(), "seed {seed}\n{report}");
        let report = ours.run(&mut Random::new(seed), None);
        assert!(is_started(&report), "seed {seed}\n{report}");
    }
    // With room for all records the same model starts the container.
    let roomy = scenario.setting(|settings| settings.pipe_buffer = 65_536);
    let c = with_c_model(roomy.launched(Manner::Init, Level::Debug), &roomy, Level::Debug);
    assert!(is_started(&c.run(&mut Oldest, None)));
}
