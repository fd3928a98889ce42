//! The program under the names `unshare` and `nsenter`, beside the machine's util-linux: the same command
//! lines have the same output and exit status.

mod beside;
mod own;

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::kit::{Cmd, Ctx, Done};
use beside::{
    both_nsenter, both_processes, both_unshare, root_nsenter, root_unshare, user_nsenter, user_unshare,
};
use own::{
    ends_by_the_signal_of_the_command, environment_is_cleared, environment_of_the_process, forwards_signals,
    later_flags, lines_that_util_linux_refuses, lsns_shows_owners_and_parents,
    lsns_shows_the_file_of_a_namespace, name_is_that_of_the_first_argument, network_of_a_socket,
    usage_errors_name_the_program,
};

pub(crate) const TESTS: &[Test] = &[
    test!(both_unshare, BOTH),
    test!(both_processes, BOTH),
    test!(both_nsenter, BOTH),
    test!(root_unshare, ROOT),
    test!(root_nsenter, ROOT),
    test!(user_unshare, USER),
    test!(user_nsenter, USER),
    test!(name_is_that_of_the_first_argument, BOTH),
    test!(usage_errors_name_the_program, BOTH),
    test!(lines_that_util_linux_refuses, BOTH),
    test!(later_flags, BOTH),
    test!(environment_is_cleared, BOTH),
    test!(forwards_signals, BOTH),
    test!(ends_by_the_signal_of_the_command, BOTH),
    test!(environment_of_the_process, BOTH),
    test!(network_of_a_socket, ROOT),
    test!(lsns_shows_owners_and_parents, BOTH),
    test!(lsns_shows_the_file_of_a_namespace, ROOT),
];

/// Functions for the scripts. `is PID NAME` waits until the process has this name. `child PID NAME` prints
/// the first child of a process when it has this name.
const FUNCTIONS: &str = r#"
is() { until [ "$(cat /proc/$1/comm)" = $2 ]; do sleep 0.01; done 2>/dev/null; }
child() {
    until c=$(cat /proc/$1/task/$1/children) && [ "$(cat /proc/${c%% *}/comm)" = $2 ]; do sleep 0.01; done 2>/dev/null
    echo ${c%% *}
}
list() { until l=$(lsns -n -r -t $1 -o $2 $3) && [ -n "$l" ]; do sleep 0.01; done; echo "$l" | uniq; } 2>/dev/null
end() { kill -9 "$@"; wait; } 2>/dev/null
"#;

/// Makes the links, and returns their paths.
fn links(ctx: &Ctx) -> [String; 2] {
    let folder = ctx.file("links");
    fs::create_dir_all(&folder).expect("a folder");
    ["unshare", "nsenter"].map(|name| {
        let link = folder.join(name);
        // A test may ask again.
        let _ = symlink(&ctx.bin, &link);
        link.to_str().expect("a path").to_owned()
    })
}

/// Returns a shell with the functions above. `$U` and `$N` are the two programs.
fn shell<'c>(ctx: &'c Ctx, [unshare, nsenter]: [&str; 2], script: &str) -> Cmd<'c> {
    let script = format!("{FUNCTIONS}\n{script}");
    ctx.cmd("sh", ["-c", &script]).env("U", unshare).env("N", nsenter).env("SHELL", "/bin/sh")
}

/// Runs a script with the links.
fn linked(ctx: &Ctx, script: &str) -> Done {
    let [unshare, nsenter] = links(ctx);
    shell(ctx, [&unshare, &nsenter], script).done()
}
