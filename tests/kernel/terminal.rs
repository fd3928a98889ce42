//! Tests at a terminal. `terminal.py` types, and checks the output. Each scenario is a function there.

use crate::harness::{BOTH, Test, test};
use crate::kit::{Ctx, PYTHON};

pub(crate) const TESTS: &[Test] = &[
    test!(interrupt_ends_a_command_without_a_handler, BOTH),
    test!(interrupt_at_any_moment_of_the_launch, BOTH),
    test!(interrupt_arrives_once_at_a_handler, BOTH),
    test!(quit_ends_a_command_without_a_handler, BOTH),
    test!(interrupt_reaches_a_pipeline, BOTH),
    test!(suspend_and_foreground, BOTH),
    test!(suspend_in_the_background_and_end, BOTH),
    test!(inner_shell_has_job_control, BOTH),
    test!(interrupt_reaches_an_inner_shell, BOTH),
    test!(suspend_in_an_inner_shell_stops_the_job, BOTH),
    test!(the_terminal_ends_a_command_that_is_stopped, BOTH),
    test!(hang_up_ends_the_command, BOTH),
    test!(stop_of_only_the_command_does_not_stop_the_job, BOTH),
    test!(a_background_job_that_reads_is_stopped, BOTH),
    test!(command_has_the_callers_terminal, BOTH),
    test!(size_change_is_signalled_once, BOTH),
    test!(signals_reach_the_whole_group_of_another_session, BOTH),
    test!(size_change_reaches_the_whole_group_of_another_session, BOTH),
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
    interrupt_ends_a_command_without_a_handler
    interrupt_at_any_moment_of_the_launch
    interrupt_arrives_once_at_a_handler
    quit_ends_a_command_without_a_handler
    interrupt_reaches_a_pipeline
    suspend_and_foreground
    suspend_in_the_background_and_end
    inner_shell_has_job_control
    interrupt_reaches_an_inner_shell
    suspend_in_an_inner_shell_stops_the_job
    the_terminal_ends_a_command_that_is_stopped
    hang_up_ends_the_command
    stop_of_only_the_command_does_not_stop_the_job
    a_background_job_that_reads_is_stopped
    command_has_the_callers_terminal
    size_change_is_signalled_once
    signals_reach_the_whole_group_of_another_session
    size_change_reaches_the_whole_group_of_another_session
    suspend_and_foreground_of_another_session
    a_container_cannot_type_into_the_terminal
}
