//! Shows what a command would do, call by call, without doing it: `plan_review`.
//!
//! The test keeps the plan as a snapshot. So a change of the command, or of this library, shows up in a
//! review as the calls that it adds or removes.

use std::error::Error;
use std::fmt::Write as _;

use nsexec::launch::Command;
use nsexec::namespace::NsKind::{Mnt, Net, User};
use nsexec_audit::machine::{Machine, PlanCommand};
use nsexec_audit::plan::Plan;

/// The command under review: a tool without network, in a read-only tree.
fn tool() -> Command {
    let mut command = Command::new("/usr/bin/tool");
    command.unshare([User, Mnt, Net]).map_root();
    command.env_clear().root_read_only("/").tmpfs("/tmp").current_dir("/tmp").no_new_privs();
    command
}

/// Returns the calls of the process that becomes the command, from its first mount on.
fn calls(plan: &Plan) -> String {
    let mut text = String::new();
    for section in &plan.run.sections {
        let begins = section.lines.iter().position(|line| line.call.name() == "open_tree");
        let is_command = section.lines.iter().any(|line| line.call.name() == "execve");
        for line in section.lines.iter().skip(begins.unwrap_or_default()).filter(|_| is_command) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn main() -> Result<(), Box<dyn Error>> {
    let plan = tool().plan(&Machine::here())?;
    println!("{}", calls(&plan));
    println!("{}", plan.verdict());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_the_reviewed_ones() {
        let plan = tool().plan(&Machine::ordinary(1000)).unwrap();
        insta::assert_snapshot!(calls(&plan), @r#"
        open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE) = 3
        mount_setattr(3, "", AT_EMPTY_PATH|AT_RECURSIVE, {attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV, attr_clr=0, propagation=0 /* MS_??? */, userns_fd=0}, 32) = 0
        openat(AT_FDCWD, "/", O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY) = 5
        move_mount(3, "", 5, "", MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH) = 0
        close(5) = 0
        openat2(3, "/tmp", {flags=O_RDONLY|O_CLOEXEC|O_PATH, resolve=RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}, 24) = 5
        fchdir(5) = 0
        mount("tmpfs", ".", "tmpfs", MS_NOSUID|MS_NODEV, "mode=755") = 0
        close(5) = 0
        fchdir(3) = 0
        close(3) = 0
        pivot_root(".", ".") = 0
        umount2(".", MNT_DETACH) = 0
        openat(AT_FDCWD, "/", O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY) = 3
        openat2(3, "/tmp", {flags=O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY, resolve=RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}, 24) = 5
        close(3) = 0
        fchdir(5) = 0
        close(5) = 0
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) = 0
        poll([{fd=4, events=POLLIN}], 1, 0) = 0 (Timeout)
        prctl(PR_SET_PDEATHSIG, 0) = 0
        execve("/usr/bin/tool", ["/usr/bin/tool"], 0x… /* 0 vars */) = 0
        "#);
    }
}
