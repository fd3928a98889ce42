//! Random calls with random arguments, from many processes: the simulated kernel replies, and never panics.

use std::ffi::CStr;

use nsexec::sys::Sys;
use nsexec::sys::types::*;
use nsexec_audit::sim::*;

fn ignore<T>(_: T) {}

/// The generator xorshift64*, so that a run is the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

const PATHS: [&CStr; 18] = [
    c"/proc/self/uid_map",
    c"/proc/self/gid_map",
    c"/proc/self/setgroups",
    c"/proc/self/timens_offsets",
    c"/proc/self/oom_score_adj",
    c"/proc/self/ns/pid_for_children",
    c"/proc/self/ns/user",
    c"/proc/101/uid_map",
    c"/proc/101",
    c"/proc/self/fd",
    c"uid_map",
    c"ns/net",
    c"/fifo",
    c"/proc",
    c"self/stat",
    c"101",
    c"stat",
    c"/nowhere",
];

/// Makes one random call with random arguments.
fn any_call(sys: &mut SimSys, dice: &mut Dice) {
    let texts: [&[u8]; 9] = [
        b"",
        b"0 0 1\n",
        b"0 100000 65536\n",
        b"4294967295 4294967295 4294967295",
        b"0 0 18446744073709551616\n\xff",
        b"deny",
        b"-9223372036854775808",
        b"monotonic -9223372036854775808 999999999\n",
        &[b'x'; 5000],
    ];
    let fd = Fd(dice.roll(14) as i32 - 2);
    let number = [0, 1, 100, 101, 102, 0xffff_ffff][dice.roll(6) as usize];
    let pid = Pid(number as i32);
    let text = texts[dice.roll(9) as usize];
    let kinds = [CloneFlags::NEWUSER, CloneFlags::NEWPID, CloneFlags::NEWTIME, CloneFlags::NEWNET];
    let kind = CloneFlags(
        kinds[dice.roll(4) as usize].0 | kinds[dice.roll(4) as usize].0 | (dice.roll(50) as u32 / 49),
    );
    let path = PATHS[dice.roll(18) as usize];
    let flags = [
        OpenFlags::ReadWrite,
        OpenFlags::ReadOnly,
        OpenFlags::Namespace,
        OpenFlags::Directory,
        OpenFlags::List,
    ];
    let signal = Signal([0, 9, 13, 15, 17, 65, -1][dice.roll(7) as usize]);
    let action = [SigAction::DEFAULT, SigAction::IGNORE][dice.roll(2) as usize];
    let set = SignalSet(dice.roll(u64::MAX));
    let mut buffer = [0; 300];
    let len = dice.roll(300) as usize;
    match dice.roll(52) {
        0..=3 => ignore(sys.openat(
            if dice.roll(3) == 0 { fd } else { Fd::CWD },
            path,
            flags[dice.roll(5) as usize],
        )),
        4 => ignore(sys.close(fd)),
        5 => ignore(sys.read(fd, &mut buffer[..len])),
        6..=8 => ignore(sys.write(fd, text)),
        9 => ignore(sys.write_nowait(fd, text)),
        10 => ignore(sys.send(fd, text)),
        11 => ignore(sys.poll(
            &mut [PollFd::new(fd, PollEvents(-1)), PollFd::new(Fd(3), PollEvents::IN)],
            dice.roll(3) as i32 - 1,
        )),
        12 => ignore(sys.socketpair()),
        13 => ignore(sys.pipe2()),
        14 => ignore(sys.getdents64(fd, &mut buffer[..len])),
        15 if number % 4 == 0 => ignore(sys.close_range(number % 12, number % 16)),
        15 => ignore(sys.close_range_cloexec(fd)),
        16 => ignore(sys.clone_sibling(None)),
        17 => ignore(sys.fork(ExitSignal::Chld, None)),
        18 => ignore(sys.fork(ExitSignal::None, None)),
        19 => ignore(sys.execve(c"/bin/any", &ExecArgs::EMPTY, &ExecArgs::EMPTY)),
        20 => ignore(sys.wait4(pid, WaitFor::Ordinary)),
        21 => ignore(sys.wait4(Pid::ANY, WaitFor::Stages)),
        22 => ignore(sys.kill(pid, signal)),
        23 => ignore(sys.pidfd_open(pid)),
        24 => ignore(sys.setns(fd, kind)),
        25..=27 => ignore(sys.unshare(kind)),
        28 => ignore(sys.setresuid(number)),
        29 => ignore(sys.setuid(number)),
        30 => ignore(sys.setgid(number)),
        31 => ignore(sys.drop_groups()),
        32 => ignore(sys.sigaction(signal, action)),
        33 if dice.roll(8) == 0 => ignore(sys.wait_signal(set)),
        33 => ignore(sys.sigprocmask(MaskHow::Set, set)),
        34 => ignore(sys.set_pdeathsig(signal)),
        35 => ignore(sys.openat2(fd, path, flags[dice.roll(5) as usize])),
        36 => ignore(sys.socket_type(fd)),
        39 => ignore(sys.clone_child(None)),
        40 => ignore(sys.dup_to(fd, Fd(number as i32 % 12))),
        41 => ignore(sys.dup_above(fd, Fd(number as i32 % 12))),
        42 => ignore(sys.chdir(c"/proc/self/fd")),
        43 => ignore(sys.set_groups(&[number, 0])),
        37 | 38 => ignore(sys.clone_init(
            kind.without(if dice.roll(2) == 0 { CloneFlags::NEWTIME } else { CloneFlags::EMPTY }),
            (dice.roll(2) == 0).then(SharedStart::simulated),
            None,
        )),
        44..=47 => any_tree_call(sys, dice, fd),
        48 | 49 => any_attribute(sys, dice, fd),
        51 => ignore(sys.mount(Mount::Sysfs { read_only: dice.roll(2) == 0 })),
        _ => ignore(sys.mount(Mount::Proc)),
    }
}

/// Makes one random call that sets an attribute.
fn any_attribute(sys: &mut SimSys, dice: &mut Dice, fd: Fd) {
    let capability = Capability([0, 8, 12, 21, 40, 63, 99][dice.roll(7) as usize]);
    let mut set = || [0, 1, 1 << 8, 1 << 12, 1 << 21, u64::MAX][dice.roll(6) as usize];
    let sets = CapabilitySets { effective: set(), permitted: set(), inheritable: set() };
    let resource = Resource(dice.roll(18) as u32);
    let (soft, hard) = (dice.roll(30), dice.roll(30));
    let instruction =
        BpfInstruction { code: dice.roll(40) as u16, jt: dice.roll(3) as u8, jf: 0, k: dice.roll(70) as u32 };
    match dice.roll(14) {
        0 => ignore(sys.umask(dice.roll(u64::MAX) as u32)),
        1 => ignore(sys.set_hostname(&[b'x'; 70][..dice.roll(70) as usize])),
        2 => ignore(sys.set_limit(Limit { resource, soft, hard })),
        3 => ignore(sys.keep_capabilities(dice.roll(2) == 0)),
        4 => ignore(sys.drop_bounding(capability)),
        5 => ignore(sys.set_capabilities(sets)),
        6 => ignore(sys.raise_ambient(capability)),
        7 => ignore(sys.set_no_new_privs()),
        8 => ignore(sys.set_seccomp_filter(&[instruction; 3][..dice.roll(4) as usize])),
        9 => ignore(sys.landlock_restrict_self(fd)),
        10 => ignore(sys.inet_socket()),
        11 => ignore(sys.set_controlling_terminal(fd)),
        12 => ignore(sys.new_session_keyring()),
        _ => ignore(sys.set_loopback_up(fd)),
    }
}

/// Makes one random call that changes the tree of mounts.
fn any_tree_call(sys: &mut SimSys, dice: &mut Dice, fd: Fd) {
    let path = [c"/", c"/proc", c"a", c"../..", c"/fifo", c"link/a", c"", c"/proc/self/ns/net"]
        [dice.roll(8) as usize];
    let other = [Fd(dice.roll(9) as i32), Fd::CWD][dice.roll(2) as usize];
    let kinds = [
        MountKind::Tmpfs,
        MountKind::Proc,
        MountKind::Sysfs,
        MountKind::Mqueue,
        MountKind::Devpts,
        MountKind::Overlay,
    ];
    let attributes = MountAttributes { set: dice.roll(20), clear: dice.roll(20) };
    let flags = [OpenFlags::Path, OpenFlags::ReadWrite, OpenFlags::Directory, OpenFlags::New];
    match dice.roll(13) {
        0 => ignore(sys.chdir(path)),
        1 => ignore(sys.fchdir(fd)),
        2 => ignore(sys.open_tree(path, dice.roll(2) == 0)),
        3 | 4 => ignore(sys.move_mount(fd, other)),
        5 => ignore(sys.set_mount_attributes(fd, dice.roll(2) == 0, attributes)),
        6 => ignore(sys.mount_here(kinds[dice.roll(6) as usize], c"")),
        7 => ignore(sys.open_in_root(other, path, flags[dice.roll(4) as usize])),
        8 => ignore(sys.mkdirat(other, path, 0o755)),
        9 => ignore(sys.symlinkat(path, other, c"link")),
        10 => ignore(sys.pivot_root_here()),
        11 => ignore(sys.detach_here()),
        _ => ignore(sys.chroot_here()),
    }
}

#[test]
fn random_calls_never_panic() {
    let mut calls = 0;
    for seed in 1..1500 {
        let mut sim = Sim::new(Settings::default(), &User::root());
        sim.settings().processes = 10;
        sim.settings().descriptors = 10;
        sim.settings().pipe_buffer = 4096;
        sim.file("/fifo", Extra::Fifo);
        let main = move |sys: &mut SimSys| {
            let mut dice = Dice(seed);
            for _ in 0..60 {
                any_call(sys, &mut dice);
                // Each process continues with its own sequence.
                dice.0 ^= sys.getpid().0 as u64;
            }
            Ended::Exit(0)
        };
        sim.program("/bin/any", Program::new(|_| Ended::Exit(3)));
        sim.launcher(main);
        let report = sim.run(&mut Random::new(seed), None);
        calls += report.calls;
        ignore(report.to_string());
    }
    println!("{calls} calls");
    assert!(calls > 100_000, "{calls} calls: they all die too early");
}
