//! Tests at a terminal. `terminal.py` types, and checks the output. Each scenario is a function there.

use crate::harness::{BOTH, Test, test};
use crate::kit::{Ctx, PYTHON};

pub(crate) const TESTS: &[Test] = &[
    test!(interrupt_ends_a_command_that_does_not_listen, BOTH),
    test!(interrupt_at_any_moment_of_the_start, BOTH),
    test!(interrupt_comes_once_to_a_command_that_listens, BOTH),
    test!(quit_ends_a_command_that_does_not_listen, BOTH),
    test!(interrupt_reaches_a_pipeline, BOTH),
    test!(suspend_and_foreground, BOTH),
    test!(suspend_in_the_background_and_end, BOTH),
    test!(a_shell_with_jobs_inside, BOTH),
    test!(interrupt_within_a_shell_inside, BOTH),
    test!(a_shell_inside_suspends_the_job, BOTH),
    test!(the_terminal_ends_a_command_that_is_stopped, BOTH),
    test!(a_hang_up_ends_it, BOTH),
    test!(a_stop_of_the_command_alone_is_not_the_jobs, BOTH),
    test!(a_background_job_that_reads_is_stopped, BOTH),
    test!(the_terminal_is_the_callers, BOTH),
    test!(a_change_of_size_is_told_once, BOTH),
    test!(signals_reach_the_whole_group_of_another_session, BOTH),
    test!(a_change_of_size_reaches_the_whole_group_of_another_session, BOTH),
    test!(suspend_and_foreground_of_another_session, BOTH),
    test!(a_container_cannot_type_into_the_terminal, BOTH),
];

fn play(ctx: &Ctx, scenario: &str) {
    let args = ["-I", "-S", "-c", include_str!("terminal.py"), ctx.bin.to_str().unwrap(), scenario];
    let mut cmd = ctx.cmd(PYTHON, args);
    cmd.command.env_remove("TERM");
    let done = cmd.done();
    assert!(done.status.success(), "{scenario}: {}\n{}{}", done.status, done.text(), done.err);
}

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        fn $name(ctx: &Ctx) {
            play(ctx, stringify!($name));
        }
    )*};
}

scenarios! {
    interrupt_ends_a_command_that_does_not_listen
    interrupt_at_any_moment_of_the_start
    interrupt_comes_once_to_a_command_that_listens
    quit_ends_a_command_that_does_not_listen
    interrupt_reaches_a_pipeline
    suspend_and_foreground
    suspend_in_the_background_and_end
    a_shell_with_jobs_inside
    interrupt_within_a_shell_inside
    a_shell_inside_suspends_the_job
    the_terminal_ends_a_command_that_is_stopped
    a_hang_up_ends_it
    a_stop_of_the_command_alone_is_not_the_jobs
    a_background_job_that_reads_is_stopped
    the_terminal_is_the_callers
    a_change_of_size_is_told_once
    signals_reach_the_whole_group_of_another_session
    a_change_of_size_reaches_the_whole_group_of_another_session
    suspend_and_foreground_of_another_session
    a_container_cannot_type_into_the_terminal
}
