//! `nsexec enter`: the namespaces of a process, opened first and joined through those very descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;
use nsexec::bootstrap::Dialect;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{LogForm, Policy, Session, Setgroups};

use super::args::EnterArgs;
use super::failure::Failure;
use super::request::{Request, credentials};
use super::run::{self, Job};
use super::sealed;
use super::values::{KIND_NAMES, flag_of};

/// Joins what the flags name, and runs the command.
///
/// # Errors
/// No such process, no permission to look at its namespaces, or the bootstrap's failure.
pub(crate) fn enter(args: &EnterArgs) -> Result<u8, Failure> {
    let named = args.kinds.set();
    if !args.all && named.is_empty() {
        return Err(Failure::Usage(
            "no namespace to join: add -a for all that differ from ours, or name them (-U -m -p -n -i -u -C -T)"
                .to_owned(),
        ));
    }
    let process = Process::open(args.target)?;
    let mut joins = Vec::new();
    for (_, kind) in KIND_NAMES {
        if !(args.all || named.contains(kind)) {
            continue;
        }
        match process.namespace(kind)? {
            Some(theirs) if is_ours(&theirs, kind) => {}
            Some(theirs) => joins.push((kind, theirs)),
            // A kernel without this kind: "all" cannot mean it.
            None if !named.contains(kind) => {}
            None => {
                let (pid, name) = (args.target, kind.proc_name());
                return Err(Failure::ours(format!(
                    "failed to open /proc/{pid}/ns/{name}: No such file or directory (this kernel has no {} \
                     namespaces)",
                    flag_of(kind)
                )));
            }
        }
    }
    // All are open by now, and if it still lives, all are of one and the same process.
    process.check_alive()?;
    let joined = joins.iter().map(|(kind, _)| *kind).collect();
    // Starts the program again, which then opens all of them again: they are close-on-exec.
    sealed::for_joins(joined)?;
    let paths: Vec<String> =
        joins.iter().map(|(kind, fd)| format!("{}:/proc/self/fd/{}", kind.name(), fd.as_raw_fd())).collect();
    let mut request = request(joined, &paths.join(","), args.preserve_credentials, !geteuid().is_root())?;
    let stands_for = |(kind, fd): &(NsKind, OwnedFd)| {
        let name = format!("/proc/{}/ns/{}", args.target, kind.proc_name());
        (format!("/proc/self/fd/{}", fd.as_raw_fd()), name)
    };
    request.stands_for = joins.iter().map(stands_for).collect();
    // `joins` holds the descriptors open until the stages, which are forks, have used them.
    let job =
        Job { request: &request, command: &args.command, verbose: args.verbose, mount_proc_flag: false };
    let status = run::start(&job);
    drop(joins);
    status
}

/// The message and the policy: joins alone.
fn request(joined: NsSet, paths: &str, preserve: bool, rootless: bool) -> Result<Request, Failure> {
    let user = joined.contains(NsKind::User) && !preserve;
    let paths = CString::new(paths).map_err(|error| Failure::ours(error.to_string()))?;
    Ok(Request {
        created: NsSet::EMPTY,
        joined,
        paths: (!joined.is_empty()).then_some(paths),
        users: None,
        groups: None,
        setgroup: false,
        oom_score_adj: None,
        rootless,
        newuidmap: None,
        newgidmap: None,
        time_offsets: None,
        policy: Policy {
            dialect: &Dialect::V1_2,
            session: Session::Keep,
            credentials: credentials(user),
            setgroups: if user { Setgroups::DropIfAllowed } else { Setgroups::FromMessage },
            log_form: LogForm::Detailed,
            propagation: None,
            mount_proc: false,
            kill_child: false,
            trusted_mounts: false,
        },
        stands_for: Vec::new(),
    })
}

/// A process, held by its directory in /proc.
///
/// As good as a pidfd for what we need, and on every kernel: what is opened below it belongs to this very process, and
/// is not there any more once it is reaped, whoever has its number by then.
struct Process {
    pid: i32,
    directory: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Result<Self, Failure> {
        let path = format!("/proc/{pid}");
        match openat(
            AT_FDCWD,
            Path::new(&path),
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(directory) => Ok(Self { pid, directory }),
            Err(Errno::ENOENT | Errno::ESRCH) => Err(gone(pid)),
            Err(errno) => Err(Failure::ours(format!("failed to open {path}: {}", words(errno)))),
        }
    }

    /// The file of a namespace; `None` if the kernel does not have the kind.
    fn namespace(&self, kind: NsKind) -> Result<Option<OwnedFd>, Failure> {
        let name = kind.proc_name();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(&self.directory, Path::new(&format!("ns/{name}")), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) if !Path::new(&format!("/proc/self/ns/{name}")).is_symlink() => Ok(None),
            // A process that has ended and waits for its parent has no namespaces any more.
            Err(Errno::ENOENT | Errno::ESRCH) => Err(gone(self.pid)),
            Err(errno) => Err(Failure::ours(format!(
                "failed to open /proc/{}/ns/{name}: {}{}",
                self.pid,
                words(errno),
                match errno {
                    Errno::EACCES | Errno::EPERM =>
                        " (it is another user's process, or it has privileges that we lack: be root)",
                    _ => "",
                }
            ))),
        }
    }

    /// Whether it still lives: the directory of a process that was reaped is empty, a zombie's state is Z.
    fn check_alive(&self) -> Result<(), Failure> {
        let stat =
            openat(&self.directory, Path::new("stat"), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let text = stat.map_err(io::Error::from).and_then(|fd| {
            let mut text = String::new();
            io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text).map(|_| text)
        });
        match text {
            Ok(text) if lives(&text) => Ok(()),
            _ => Err(gone(self.pid)),
        }
    }
}

/// The state in /proc/PID/stat, which stands behind the name, which may contain anything.
fn lives(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// Whether we are in this namespace already: setns to one's own user namespace is EINVAL, and the others cost
/// privileges for nothing.
fn is_ours(theirs: &OwnedFd, kind: NsKind) -> bool {
    let path = format!("/proc/self/ns/{}", kind.proc_name());
    let ours = open(Path::new(&path), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    match (ours.and_then(fstat), fstat(theirs)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

fn gone(pid: i32) -> Failure {
    Failure::ours(format!(
        "failed to enter process {pid}: No such process (it has ended, or is hidden from us)"
    ))
}

fn words(errno: Errno) -> String {
    nsexec::sys::types::Errno(errno as i32).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::policy::Credentials;

    #[test]
    fn the_state_stands_behind_any_name() {
        assert!(lives("7 (a) Z (b) S 1 7"));
        assert!(!lives("7 (sh) Z 1 7"));
        assert!(!lives("7 (sh) X 1 7"));
        assert!(!lives(""));
    }

    #[test]
    fn root_inside_only_where_a_user_namespace_is_joined() {
        let net = NsSet::EMPTY.with(NsKind::Net);
        let with_user = net.with(NsKind::User);
        let decided = |joined, preserve| {
            let policy = request(joined, "net:/proc/self/fd/3", preserve, true).unwrap().policy;
            (policy.credentials, policy.setgroups)
        };
        assert_eq!(decided(net, false), (Credentials::Keep, Setgroups::FromMessage));
        assert_eq!(decided(with_user, false), (Credentials::Root, Setgroups::DropIfAllowed));
        assert_eq!(decided(with_user, true), (Credentials::Keep, Setgroups::FromMessage));
    }

    #[test]
    fn descriptors_are_shown_as_what_they_stand_for() {
        let mut request = request(NsSet::EMPTY, "", false, false).unwrap();
        let pair = |fd: i32, kind: &str| (format!("/proc/self/fd/{fd}"), format!("/proc/9/ns/{kind}"));
        request.stands_for = vec![pair(1, "uts"), pair(12, "net")];
        let shown =
            request.in_known_names("/proc/self/fd/12: no; /proc/self/fd/1, /proc/self/fd/13 /proc/self/fd/1");
        assert_eq!(shown, "/proc/9/ns/net: no; /proc/9/ns/uts, /proc/self/fd/13 /proc/9/ns/uts");
    }

    #[test]
    fn nothing_to_join_is_a_plain_message() {
        assert_eq!(request(NsSet::EMPTY, "", false, false).unwrap().paths, None);
    }
}
