//! The reader of strace's output takes any text, and returns a run or an error. A run without two processes
//! of one role can be written and read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec_audit::{Role, Run, witness};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = witness::split_by_process(text);
    match witness::run_of(&files, Role::Launcher) {
        Ok(run) => match run.to_json_lines() {
            Ok(written) => drop(Run::from_json_lines(&written).expect("what was written can be read")),
            Err(error) => assert!(error.to_string().contains("two sections have the role")),
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = witness::outline::of_files(&files, Role::Launcher);
});
