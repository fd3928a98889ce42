//! The attested state of a command's process on the real kernel is the planned one, and a state that is not
//! the planned one is reported.

use nsexec::idmap::Extent;
use nsexec::launch::{Command, Stdio};
use nsexec::namespace::NsKind::{self, Cgroup, Ipc, Mnt, Net, Pid, Time, User, Uts};
use nsexec::sys::types::{Capability, Resource};
use nsexec_audit::attest::{AttestCommand, AttestError, Attestation, Capabilities, Deviation};
use nsexec_audit::machine::Machine;
use nsexec_audit::plan::Plan;

const SEVEN: [NsKind; 7] = [User, Mnt, Net, Pid, Ipc, Uts, Cgroup];

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn start(kinds: &[NsKind]) -> Command {
    let mut command = Command::new("true");
    command.unshare(kinds.iter().copied());
    command
}

/// Starts the command, and returns its plan and its attestation.
fn attested(command: &Command) -> (Plan, Attestation) {
    let plan = command.plan_attested(&Machine::here()).unwrap();
    let (mut child, attestation) = command.spawn_attested().unwrap();
    assert!(child.wait().unwrap().success());
    (plan, attestation)
}

/// Checks that the state is the planned one.
fn agree(name: &str, command: &Command) {
    let (plan, attestation) = attested(command);
    let texts: Vec<String> = attestation.compare(&plan).iter().map(Deviation::to_string).collect();
    assert!(texts.is_empty(), "{name}: {texts:#?}\n{plan:#?}");
}

#[test]
fn each_shape_of_a_start_has_the_planned_state() {
    agree("nothing", &start(&[]));
    agree("user", start(&[User]).map_root());
    agree("seven", start(&SEVEN).map_root());
    agree("current user", start(&[User, Uts]).map_current_user());
    agree("session", start(&[User, Net]).new_session());
    let mut init = start(&[User, Pid, Net]);
    init.map_root().init();
    match is_root() {
        true => agree("init", &init),
        // The init and its child are not dumpable up to the exec.
        false => drop(init.spawn_attested().map(|_| ()).unwrap_err()),
    }
    agree("time", &start(&[User, Time]));
    agree("through the stages", start(&[User, Mnt]).map_root().before_start(|_| Ok(())));
    if is_root() {
        agree("root", &start(&[Mnt, Net, Pid, Ipc, Uts, Cgroup]));
        agree("other user", start(&[Uts]).uid(1234).gid(1235).groups([7, 5]));
        agree(
            "range",
            start(&[User, Net]).uid_map([Extent { inside: 0, outside: 100_000, count: 10 }]).uid(3),
        );
    }
}

#[test]
fn each_setting_has_the_planned_state() {
    let empty = || {
        let mut command = start(&[User, Mnt]);
        command.map_root().root_empty();
        for folder in ["/bin", "/usr", "/lib", "/lib64"] {
            if std::fs::exists(folder).unwrap() {
                command.bind_read_only(folder, folder);
            }
        }
        command
    };
    agree("capabilities", start(&[User]).map_root().capabilities([Capability::CHOWN, Capability::NET_ADMIN]));
    agree("no capability", start(&[User]).map_root().capabilities([]).no_new_privs());
    agree("umask", start(&[]).umask(0o27));
    agree("score", start(&[]).oom_score_adj(500));
    agree("directory", start(&[]).current_dir("/usr/lib"));
    agree("symbolic link", start(&[]).current_dir("/bin"));
    agree("magic link", start(&[]).current_dir("/proc/self/root"));
    agree("root", &empty());
    agree("root and directory", empty().current_dir("/usr"));
    agree(
        "read-only root",
        start(&[User, Mnt]).map_root().root_read_only("/").tmpfs("/tmp").current_dir("/tmp"),
    );
    agree("descriptors", start(&[]).fd(7, std::fs::File::open("/dev/null").unwrap()).stdout(Stdio::null()));
    agree("limit", start(&[]).limit(Resource::CORE, 0, 0));
    if is_root() {
        let mut command = start(&[Uts]);
        agree("kept capabilities", command.uid(1234).gid(1234).capabilities([Capability::NET_BIND_SERVICE]));
    }
}

#[test]
fn joined_namespaces_are_recognised() {
    let mut holder = Command::new("sleep");
    let mut holder = holder.arg("100").unshare([User, Uts, Net]).map_root().spawn().unwrap();
    let path = |kind: NsKind| format!("/proc/{}/ns/{}", holder.pid(), kind.name());
    let mut joining = start(&[Ipc]);
    joining.join(User, path(User)).join(Uts, path(Uts)).join(Net, path(Net));
    if !is_root() {
        // A process that joins is not dumpable up to its exec (CVE-2016-9962).
        let refused = joining.spawn_attested().map(|_| ()).unwrap_err();
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(matches!(refused, AttestError::Read(error) if error.raw_os_error() == Some(libc::EACCES)));
        return;
    }
    let (plan, attestation) = attested(&joining);
    let deviations = attestation.compare(&plan);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(deviations, []);
    assert_eq!(attestation.joined.len(), 3);
}

#[test]
fn state_that_is_not_planned_is_reported() {
    let (plan, attestation) = attested(start(&[User, Net]).map_root().umask(0o22));
    let parts = |attestation: &Attestation| -> Vec<String> {
        attestation.compare(&plan).into_iter().map(|deviation| deviation.part).collect()
    };
    assert!(parts(&attestation).is_empty());
    type Change = fn(&mut Attestation);
    let changes: [(&str, Change); 14] = [
        ("namespace net", |it| {
            it.found.namespaces.insert("net".into(), it.caller.namespaces["net"]);
        }),
        ("namespace uts", |it| it.found.namespaces.get_mut("uts").unwrap().inode += 1),
        ("user_ids", |it| it.found.user_ids[2] += 1),
        ("group_ids", |it| it.found.group_ids[1] += 1),
        ("groups", |it| it.found.groups.push(4_000_000)),
        ("capabilities", |it| it.found.capabilities = Capabilities::default()),
        ("no_new_privs", |it| it.found.no_new_privs = !it.found.no_new_privs),
        ("blocked", |it| it.found.blocked ^= 1),
        ("ignored", |it| it.found.ignored ^= 1 << 12),
        ("leads_session", |it| it.found.leads_session = !it.found.leads_session),
        ("oom_score_adj", |it| it.found.oom_score_adj += 1),
        ("umask", |it| it.found.umask = 0),
        ("descriptors", |it| it.found.descriptors.push(99)),
        ("root", |it| it.found.root.inode += 1),
    ];
    for (part, change) in changes {
        let mut other = attestation.clone();
        change(&mut other);
        assert_eq!(parts(&other), [part]);
    }
    let mut other = attestation.clone();
    other.found.directory.inode += 1;
    assert_eq!(parts(&other), ["directory"]);
    // A plan of a launch that fails.
    let failing = start(&[]).current_dir("/nowhere").plan_attested(&Machine::here());
    assert_eq!(attestation.compare(&failing.unwrap()).len(), 1);
}

#[test]
fn failed_launch_is_the_error_and_leaves_nothing() {
    let missing = Command::new("/nowhere/tool").spawn_attested().map(|_| ()).unwrap_err();
    assert!(matches!(missing, AttestError::Launch(_)), "{missing}");
    let early = start(&[]).current_dir("/nowhere").spawn_attested().map(|_| ()).unwrap_err();
    assert!(early.to_string().contains("/nowhere"), "{early}");
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "");
}
