//! The main job without the newer system calls, as root and as an ordinary user. A seccomp filter answers a
//! call with the errno of an old kernel: one call in each test, and all of them in `all`.
//!
//! `scripts` has the launches, as shell scripts. Each must have the result that it has without a filter, or a
//! line that names the missing call, where `Script::needs` lists the call. The command checks that the filter
//! is in force: the copy of this program with the argument CHECK makes the refused calls.

mod drop_in;
mod scripts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use nix::unistd::geteuid;
use support::{Ordinary, Suite, Test, Threads, Verdict, seccomp};

use scripts::{SCRIPTS, Script};

/// The newer system calls that nsexec or its libc makes, and the errno of an old kernel. Only the libc makes
/// clone3, faccessat2 and epoll_pwait2.
const CALLS: [(&str, libc::c_long, i32); 14] = [
    ("pwritev2", libc::SYS_pwritev2, libc::EOPNOTSUPP),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, libc::ENOSYS),
    ("open_tree", libc::SYS_open_tree, libc::ENOSYS),
    ("move_mount", libc::SYS_move_mount, libc::ENOSYS),
    ("clone3", libc::SYS_clone3, libc::ENOSYS),
    ("pidfd_open", libc::SYS_pidfd_open, libc::ENOSYS),
    ("openat2", libc::SYS_openat2, libc::ENOSYS),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, libc::ENOSYS),
    ("faccessat2", libc::SYS_faccessat2, libc::ENOSYS),
    ("close_range", libc::SYS_close_range, libc::ENOSYS),
    ("epoll_pwait2", libc::SYS_epoll_pwait2, libc::ENOSYS),
    ("mount_setattr", libc::SYS_mount_setattr, libc::ENOSYS),
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, libc::ENOSYS),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self, libc::ENOSYS),
];

/// pwritev2 of a kernel before 4.6, or of a filter.
const WITHOUT_PWRITEV2: (&str, libc::c_long, i32) = ("pwritev2", libc::SYS_pwritev2, libc::ENOSYS);

/// Argument of this program: it checks the filter, see [`check`].
const CHECK: &str = "check-the-filter";

/// The variable of the check: each refused call, as its number and errno.
const REFUSED: &str = "NSEXEC_TEST_REFUSED";

/// The first word of each line that the check prints.
const CHECKED: &str = "checked:";

type Calls = Vec<(&'static str, libc::c_long, i32)>;

fn main() -> ExitCode {
    support::begin();
    let args: Vec<String> = std::env::args().collect();
    match &args[..] {
        [_, word] if word == CHECK => return check(),
        [_, word, program] if word == drop_in::WORD => return drop_in::main(Path::new(program)),
        _ => {}
    }
    let mut sets: Vec<(String, Calls)> = CALLS.map(|call| (call.0.to_owned(), vec![call])).to_vec();
    sets.push(("pwritev2_enosys".to_owned(), vec![WITHOUT_PWRITEV2]));
    sets.push(("all".to_owned(), CALLS.to_vec()));
    let place = Arc::new(LazyLock::new(Place::new));
    let tests = sets.into_iter().flat_map(|(name, calls)| {
        ["root", "user"].map(|user| {
            let (place, calls) = (place.clone(), calls.clone());
            Test::new(format!("{name}@{user}"), move || without(&calls, user, &place))
        })
    });
    Suite::new("fallbacks", tests.collect()).main(Threads::One)
}

/// Makes each call of [`REFUSED`] with arguments that have no effect. Prints whether this process has a
/// filter, and whether the calls return their errno.
fn check() -> ExitCode {
    let listed = std::env::var(REFUSED).unwrap_or_default();
    let refused = listed.split_whitespace().all(|pair| {
        let (number, errno) = pair.split_once('=').expect("NUMBER=ERRNO");
        let (number, errno): (libc::c_long, i32) = (number.parse().unwrap(), errno.parse().unwrap());
        // SAFETY: no descriptor, address, process or flag has this value, so the kernel refuses the call.
        let result = unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) };
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(errno)
    });
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).expect("Seccomp").trim();
    println!("{CHECKED} mode {mode}, {}", if refused { "refused" } else { "permitted" });
    ExitCode::SUCCESS
}

/// Shared by the tests: copies of the programs that every user may execute, and the results without a filter.
struct Place {
    folder: PathBuf,
    user: Result<Ordinary, String>,
    plain: Mutex<BTreeMap<(&'static str, &'static str), Seen>>,
}

impl Place {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("nsexec-fallbacks-{}", std::process::id()));
        let user = Ordinary::provide();
        fs::create_dir(&folder).expect("a folder");
        fs::copy(env!("CARGO_BIN_EXE_nsexec"), folder.join("nsexec")).expect("a copy of the program");
        fs::copy("/proc/self/exe", folder.join("check")).expect("a copy of this program");
        for file in ["", "nsexec", "check"] {
            fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        Self { folder, user, plain: Mutex::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The result of a script: the lines of both outputs, and separately the lines that the check printed.
#[derive(Clone, Debug)]
struct Seen {
    lines: Vec<String>,
    checks: Vec<String>,
}

/// Runs all scripts without these calls.
fn without(calls: &Calls, user: &'static str, place: &Place) -> Verdict {
    if user == "root" && !geteuid().is_root() {
        return Verdict::Skipped("needs root".to_owned());
    }
    let ids = match (user, &place.user) {
        ("root", _) => (0, 0),
        (_, Ok(user)) => (user.uid, user.gid),
        (_, Err(reason)) => return Verdict::Skipped(reason.clone()),
    };
    let mut problems = Vec::new();
    let mut checks = 0;
    for script in SCRIPTS.iter().filter(|script| !script.uses_tools || geteuid().is_root()) {
        let mut plain = place.plain.lock().expect("no test panics with the lock");
        let plain = plain.entry((script.name, user)).or_insert_with(|| run(script, &[], ids, place));
        if plain.checks.iter().any(|line| !line.contains("mode 0")) {
            return Verdict::Skipped("this machine's own filter is in force".to_owned());
        }
        let seen = run(script, calls, ids, place);
        checks += seen.checks.len();
        if let Err(problem) = judge(script, calls, plain, &seen) {
            problems.push(format!(
                "{}: {problem}\nwithout the filter: {plain:#?}\nwith it: {seen:#?}",
                script.name
            ));
        }
    }
    match problems.is_empty() {
        true if checks == 0 => Verdict::Failed("no command has checked the filter".to_owned()),
        true => Verdict::Passed,
        false => Verdict::Failed(problems.join("\n\n")),
    }
}

/// Compares a result with that without the filter.
fn judge(script: &Script, calls: &Calls, plain: &Seen, seen: &Seen) -> Result<(), String> {
    let in_force = format!("{CHECKED} mode 2, refused");
    if seen.checks.iter().any(|line| *line != in_force) {
        return Err("the filter is not in force".to_owned());
    }
    let needed: Vec<&str> =
        calls.iter().map(|call| call.0).filter(|name| script.needs.contains(name)).collect();
    if needed.is_empty() {
        if seen.checks.len() != plain.checks.len() || seen.checks.is_empty() && script.checks {
            return Err("the check did not run".to_owned());
        }
        return if seen.lines == plain.lines { Ok(()) } else { Err("another result".to_owned()) };
    }
    let said: Vec<&String> = seen.lines.iter().filter(|line| !plain.lines.contains(line)).collect();
    let named = said.iter().filter(|line| needed.iter().any(|name| line.contains(name))).count();
    if named == 0 { Err(format!("no line names {}", needed.join(" or "))) } else { Ok(()) }
}

/// Runs a script under a filter that refuses the calls. If there are none, it runs without a filter.
fn run(script: &Script, calls: &[(&str, libc::c_long, i32)], ids: (u32, u32), place: &Place) -> Seen {
    let folder = place.folder.join("work");
    fs::create_dir(&folder).expect("a folder");
    chown(&folder, Some(ids.0), Some(ids.1)).expect("chown");
    let pairs: Vec<(libc::c_long, i32)> = calls.iter().map(|call| (call.1, call.2)).collect();
    let listed: Vec<String> = pairs.iter().map(|(number, errno)| format!("{number}={errno}")).collect();
    let mut program = seccomp::refusing(&pairs);
    let (filters, changes) = (!pairs.is_empty(), geteuid().is_root());
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "sh", "-c", &format!("exec 2>&1; {}", script.text)]);
    command.env("N", place.folder.join("nsexec")).env("P", place.folder.join("check"));
    command.env("CHECK", format!("{}/check {CHECK}", place.folder.display()));
    command.env(REFUSED, listed.join(" ")).env("LC_ALL", "C").env("SHELL", "/bin/sh");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir(&folder).stdin(Stdio::null());
    support::fresh(&mut command);
    // SAFETY: the closure makes system calls only, on memory that it owns.
    unsafe {
        command.pre_exec(move || {
            if filters {
                seccomp::install(&mut program)?;
            }
            if changes && ids.0 != 0 {
                support::become_ids(ids.0, ids.1)?;
            }
            Ok(())
        });
    }
    let output = command.output().expect("timeout of coreutils");
    fs::remove_dir_all(&folder).expect("the folder is removed");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let (checks, lines) = text
        .lines()
        .map(str::to_owned)
        .chain(output.status.code().map(|code| format!("status {code}")))
        .partition(|line| line.starts_with(CHECKED));
    Seen { lines, checks }
}
