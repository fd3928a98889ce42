//! `nsexec enter`: opens the namespaces of a process, joins them through these descriptors, and runs a
//! command where the process lives.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::unistd::geteuid;
use nsexec::bootstrap::Dialect;
use nsexec::launch::causes::CAP_SETGID;
use nsexec::launch::{
    Base, CgroupFile, Descriptors, Directory, Root, Surroundings, is_own_namespace, own_capabilities,
};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{Credentials, LogForm, Policy, Session, Setgroups};
use nsexec::sys::types::Fd;
use nsexec_audit::machine::caller::Facts;

use super::args::{BeforeStartFlags, EnterArgs, HandOverFlags};
use super::before_start;
use super::enter_flags::{EnterFlags, IdValue};
use super::failure::Failure;
use super::hand_over::{self, HandOver};
use super::joins::Joins;
use super::output;
use super::place::{self, Opened};
use super::request::{Request, credentials};
use super::run::{self, Job};
use super::sealed;
use super::target::Process;
use super::values::{JoinValue, KIND_NAMES};

/// Joins the namespaces that the flags name, and runs the command. Returns the command's exit status.
///
/// # Errors
/// The process does not exist, its namespaces may not be opened, or the bootstrap fails.
pub(crate) fn enter(args: &EnterArgs) -> Result<u8, Failure> {
    let entered = decide(&args.flags, &args.hand_over, &args.before_start)?;
    entered.seal()?;
    entered.print_notes();
    run::start(&Job {
        request: &entered.request,
        command: &run::command_or_shell(&args.command),
        verbose: args.verbose,
    })
}

/// The request, and the open files that it names. They must stay open until the stages, which are forks of
/// this process, have joined.
pub(crate) struct Entered {
    pub(crate) request: Request,
    /// The namespaces to join, by the paths that people know.
    pub(crate) joins: Vec<JoinValue>,
    /// Lines for people: that nothing is joined, or what of the process is not taken over.
    notes: Vec<String>,
    /// The root directory of the command, if it is not ours: a plan searches the command there.
    root: Option<OwnedFd>,
    opened: Vec<OwnedFd>,
}

impl Entered {
    /// Returns the root directory of the command, if it is not ours.
    pub(crate) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(OwnedFd::as_fd)
    }

    /// Executes a sealed copy of nsexec, if the command gets another mount namespace or root directory. The
    /// copy opens everything again: the descriptors are close-on-exec.
    pub(crate) fn seal(&self) -> Result<(), Failure> {
        let foreign = self.request.around.root.is_some();
        let joined = self.request.joined;
        sealed::ensure_for_joins(if foreign { joined.with(NsKind::Mnt) } else { joined })
    }

    /// Prints the lines for people on standard error.
    pub(crate) fn print_notes(&self) {
        for note in &self.notes {
            output::print_to_stderr(format_args!("nsexec: {note}\n"));
        }
    }
}

/// Decides what the flags ask for, and opens everything of the process that they need.
///
/// # Errors
/// Wrong usage; or the process does not exist, or may not be entered.
pub(crate) fn decide(
    flags: &EnterFlags,
    hand_over: &HandOverFlags,
    steps: &BeforeStartFlags,
) -> Result<Entered, Failure> {
    check_usage(flags)?;
    hand_over::check(hand_over)?;
    before_start::check(steps)?;
    let process = flags.target.map(Process::open).transpose()?;
    let joins = Joins::open(flags, process.as_ref())?;
    // All namespaces are open. If the process is still alive, all of them belong to this one process.
    process.as_ref().map_or(Ok(()), Process::check_alive)?;
    let mut entered = Entered {
        request: request(
            joins.joined,
            &joins.paths.join(&b','),
            flags.preserve_credentials,
            !geteuid().is_root(),
        )?,
        joins: joins.shown,
        notes: Vec::new(),
        root: None,
        opened: joins.opened,
    };
    entered.request.display_paths = joins.display_paths;
    before_start::add_to(&mut entered.request, steps);
    if joins.joined.is_empty() && joins.named {
        entered.notes.push("nothing to join: every namespace that is named is ours already".to_owned());
    }
    // Under the name nsenter the command inherits everything.
    let guarded = !flags.defaults.are_util_linux();
    let less = guarded
        && process.as_ref().map_or_else(|| hand_over::has_others(joins.joined), Process::is_less_privileged);
    entered.request.hand_over = hand_over::decide(&mut entered.request.policy, hand_over, guarded, less);
    set_ids(&mut entered.request, flags, process.as_ref())?;
    set_root(&mut entered, flags, process.as_ref())?;
    set_directory(&mut entered, flags, process.as_ref())?;
    if let Some(process) = &process {
        if flags.join_cgroup {
            let (path, file) = place::cgroup(process)?;
            entered.request.around.cgroups.push(CgroupFile { path, fd: Fd(file.as_raw_fd()) });
            entered.opened.push(File::into(file));
        }
        set_environment(&mut entered.request, flags, hand_over, process, less)?;
    }
    Ok(entered)
}

fn check_usage(flags: &EnterFlags) -> Result<(), Failure> {
    let of_process = flags.kinds.of_process();
    let files = KIND_NAMES.into_iter().any(|(_, kind)| flags.kinds.file(kind).is_some());
    let follows = [flags.setuid, flags.setgid].contains(&Some(IdValue::Follow));
    let no_dir = |flag: &Option<Option<OsString>>| *flag == Some(None);
    let without_target = [
        (!of_process.is_empty(), "a namespace without =FILE is that of a process"),
        (no_dir(&flags.root), "--root without a directory is that of a process"),
        (no_dir(&flags.directory), "--wd without a directory is that of a process"),
        (follows, "`follow` is the id of a process"),
    ];
    let missing = without_target.into_iter().find(|(given, _)| *given && flags.target.is_none());
    if let Some((_, why)) = missing {
        return Err(Failure::Usage(format!("{why}: add --target PID")));
    }
    let place = flags.root.is_some() || flags.directory.is_some() || flags.join_cgroup || flags.env;
    let named = flags.all || !of_process.is_empty() || files || flags.net_socket.is_some();
    if !named && !place && !flags.defaults.are_util_linux() {
        return Err(Failure::Usage(
            "no namespace to join: add -a for all that differ from ours, or name them (-U -m -p -n -i -u -C -T)"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Sets the ids and the capabilities of the command. Without flags it is root of a user namespace that it
/// joins, and keeps its ids otherwise.
fn set_ids(request: &mut Request, flags: &EnterFlags, process: Option<&Process>) -> Result<(), Failure> {
    let user = request.joined.contains(NsKind::User);
    let follows = [flags.setuid, flags.setgid].contains(&Some(IdValue::Follow));
    let theirs = process.filter(|_| follows).map(|process| place::ids(process, user)).transpose()?;
    let id = |value: Option<IdValue>, theirs: Option<u32>| match value? {
        IdValue::Id(id) => Some(id),
        IdValue::Follow => theirs,
    };
    let uid = id(flags.setuid, theirs.map(|ids| ids.0));
    let gid = id(flags.setgid, theirs.map(|ids| ids.1));
    // As for nsenter(1), the flag concerns a joined user namespace only.
    if flags.keep_caps && (user || !flags.defaults.are_util_linux()) {
        if !user {
            return Err(Failure::Usage("--keep-caps: no user namespace is joined: add -U".to_owned()));
        }
        let mut facts = Facts::gather(false, false);
        facts.gather_known_capabilities();
        request.around.capabilities = Some(facts.known_capabilities);
        // A process of the same user with fewer capabilities may trace it, and so reach shared memory.
        request.policy.launch.copied_memory = true;
    }
    let sets = uid.is_some() || gid.is_some();
    // As for nsenter(1): `-S` alone keeps the groups.
    let sets_groups = gid.is_some() || uid.is_some() && !flags.defaults.are_util_linux();
    // Where its root has no id, the command cannot become root first.
    let theirs = process.filter(|_| flags.kinds.file(NsKind::User).is_none() && !flags.user_parent);
    let root = user && !flags.preserve_credentials;
    let becomes_root = root && sets && theirs.is_none_or(place::maps_root);
    let changed = |id: &u32| !becomes_root || *id != 0;
    (request.policy.launch.uid, request.policy.launch.gid) = (uid.filter(changed), gid.filter(changed));
    if user && sets && !becomes_root {
        request.policy.credentials = Credentials::Keep;
    }
    let may_drop = !request.rootless && own_capabilities().is_none_or(|set| set & 1 << CAP_SETGID != 0);
    let allowed = !user || theirs.is_some_and(place::allows_setgroups);
    if sets_groups && !becomes_root && may_drop && allowed {
        request.around.groups = Some(Vec::new());
        request.policy.launch.groups = true;
    }
    Ok(())
}

/// Returns whether the command gets the root directory and the working directory of the process.
fn is_at_home(entered: &Entered, flags: &EnterFlags) -> bool {
    let mounts = entered.request.joined.contains(NsKind::Mnt) && flags.kinds.file(NsKind::Mnt).is_none();
    !flags.defaults.are_util_linux() && (flags.all || mounts)
}

/// Sets the root directory: with `--all` or the mount namespace that of the process, if it is another one
/// than that of its mount namespace.
fn set_root(entered: &mut Entered, flags: &EnterFlags, process: Option<&Process>) -> Result<(), Failure> {
    let opened = match (&flags.root, process) {
        (Some(Some(path)), _) => place::of_caller("--root", path)?,
        (Some(None), Some(process)) => place::root(process)?,
        (None, Some(process)) if is_at_home(entered, flags) => {
            let root = place::root(process)?;
            if root.path.as_os_str() == "/" {
                entered.root = entered.request.joined.contains(NsKind::Mnt).then_some(root.fd);
                return Ok(());
            }
            let privileged = !entered.request.rootless || entered.request.joined.contains(NsKind::User);
            if !privileged {
                entered.notes.push(format!(
                    "the root directory {} of the process is not taken over: you are not root",
                    root.path.display()
                ));
                return Ok(());
            }
            root
        }
        _ => return Ok(()),
    };
    let Opened { path, fd } = opened;
    let path = c_text(path.as_os_str().as_bytes())?;
    let base = Base::Opened { path, fd: Fd(fd.as_raw_fd()) };
    entered.request.around.root = Some(Root { base, ..Root::default() });
    entered.root = Some(fd);
    // chroot(2) needs the privileges of the user namespace, which is otherwise joined after it.
    let policy = &mut entered.request.policy;
    if entered.request.rootless && policy.credentials == Credentials::RootLast {
        policy.credentials = Credentials::Root;
    }
    Ok(())
}

/// Returns whether the mount namespace to join is ours, and no other root directory is set.
fn skips_mounts(entered: &Entered, flags: &EnterFlags) -> bool {
    let named = flags.all || flags.kinds.mount.is_some();
    named && !entered.request.joined.contains(NsKind::Mnt) && flags.root.is_none()
}

/// Sets the working directory. Below another root directory or in another mount namespace it is looked up
/// there, and cannot lead out of it.
fn set_directory(
    entered: &mut Entered,
    flags: &EnterFlags,
    process: Option<&Process>,
) -> Result<(), Failure> {
    let mounts = entered.request.joined.contains(NsKind::Mnt);
    let confined = mounts || entered.request.around.root.is_some();
    let directory = match (&flags.wdns, &flags.directory, process) {
        (Some(path), ..) => Directory { path: c_text(&[b"/", path.as_bytes()].concat())?, confined: true },
        (None, Some(Some(path)), _) => {
            if confined && !path.as_bytes().starts_with(b"/") {
                return Err(Failure::Usage(format!(
                    "--wd={}: the path must be absolute, since the command has another root directory or mount \
                     namespace",
                    path.to_string_lossy()
                )));
            }
            Directory { path: c_text(path.as_bytes())?, confined }
        }
        (None, Some(None), Some(process)) => {
            let own =
                process.namespace(NsKind::Mnt)?.is_some_and(|theirs| is_own_namespace(&theirs, NsKind::Mnt));
            if !confined && !own {
                return Err(Failure::Usage(
                    "--wd: the working directory of the process is in another mount namespace: add -m"
                        .to_owned(),
                ));
            }
            let path = place::directory(process, &place::root(process)?, false)?;
            Directory { path: c_text(path.as_os_str().as_bytes())?, confined: true }
        }
        (None, None, Some(process)) if confined && flags.root.is_none() && is_at_home(entered, flags) => {
            match place::root(process).and_then(|root| place::directory(process, &root, true)) {
                // The join and the change of the root directory lead there.
                Ok(path) if path.as_os_str() == "/" => return Ok(()),
                Ok(path) => Directory { path: c_text(path.as_os_str().as_bytes())?, confined: true },
                Err(Failure::Other { text, .. }) => {
                    entered.notes.push(text);
                    return Ok(());
                }
                Err(usage) => return Err(usage),
            }
        }
        // As after a join of the own mount namespace by nsenter(1).
        (None, None, _) if flags.defaults.are_util_linux() && skips_mounts(entered, flags) => {
            Directory { path: c"/".to_owned(), confined: false }
        }
        _ => return Ok(()),
    };
    entered.request.around.directory = Some(directory);
    Ok(())
}

/// Sets the environment of the process, or notes that the command is searched in the caller's PATH.
fn set_environment(
    request: &mut Request,
    flags: &EnterFlags,
    hand_over: &HandOverFlags,
    process: &Process,
    less: bool,
) -> Result<(), Failure> {
    if !flags.env {
        request.path_of_caller = hand_over::keeps_path(hand_over);
        return Ok(());
    }
    // LD_PRELOAD, for example, names a file that the command executes code of.
    if less && !request.joined.contains(NsKind::Mnt) && request.around.root.is_none() {
        return Err(Failure::Usage(
            "--env: the process has less power than nsexec, and could execute code on our files through variables \
             such as LD_PRELOAD: add -m, which takes its files too"
                .to_owned(),
        ));
    }
    request.hand_over.environment = Some(place::environment(process)?);
    Ok(())
}

fn c_text(text: &[u8]) -> Result<CString, Failure> {
    CString::new(text).map_err(|error| Failure::ours(error.to_string()))
}

/// Builds the request, which joins namespaces and creates none.
fn request(joined: NsSet, paths: &[u8], preserve: bool, rootless: bool) -> Result<Request, Failure> {
    let user = joined.contains(NsKind::User) && !preserve;
    let paths = c_text(paths)?;
    Ok(Request {
        program: "nsexec",
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
        policy: Policy::runc(&Dialect::V1_2)
            .with_session(Session::Keep)
            .with_credentials(credentials(user))
            .with_setgroups(if user { Setgroups::DropIfAllowed } else { Setgroups::FromMessage })
            .with_log_form(LogForm::Detailed)
            .with_ends_with_launcher(true)
            .with_descriptors(Descriptors::Named),
        around: Surroundings::default(),
        mount_proc_flag: false,
        path_of_caller: false,
        signal_at_end: None,
        display_paths: Vec::new(),
        hand_over: HandOver::default(),
        before_start: BeforeStartFlags::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::policy::Credentials;

    #[test]
    fn command_becomes_root_only_in_a_joined_user_namespace() {
        let net = NsSet::EMPTY.with(NsKind::Net);
        let with_user = net.with(NsKind::User);
        let decided = |joined, preserve| {
            let policy = request(joined, b"net:/proc/self/fd/3", preserve, true).unwrap().policy;
            (policy.credentials, policy.setgroups)
        };
        assert_eq!(decided(net, false), (Credentials::Keep, Setgroups::FromMessage));
        assert_eq!(decided(with_user, false), (Credentials::RootLast, Setgroups::DropIfAllowed));
        assert_eq!(decided(with_user, true), (Credentials::Keep, Setgroups::FromMessage));
    }

    #[test]
    fn descriptor_paths_are_replaced_by_namespace_paths() {
        let mut request = request(NsSet::EMPTY, b"", false, false).unwrap();
        let pair = |fd: i32, kind: &str| (format!("/proc/self/fd/{fd}"), format!("/proc/9/ns/{kind}"));
        request.display_paths = vec![pair(1, "uts"), pair(12, "net")];
        let shown = request
            .with_display_paths("/proc/self/fd/12: no; /proc/self/fd/1, /proc/self/fd/13 /proc/self/fd/1");
        assert_eq!(shown, "/proc/9/ns/net: no; /proc/9/ns/uts, /proc/self/fd/13 /proc/9/ns/uts");
    }

    #[test]
    fn message_without_joins_has_no_paths() {
        assert_eq!(request(NsSet::EMPTY, b"", false, false).unwrap().paths, None);
    }
}
