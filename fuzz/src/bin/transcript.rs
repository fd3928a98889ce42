//! A run that is read from JSON lines is written to lines that mean the same run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec_audit::Run;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Run::from_json_lines(text) {
        Ok(run) => {
            let written = run.to_json_lines().expect("a run can be written");
            let again = Run::from_json_lines(&written).expect("what was written can be read");
            assert_eq!(written, again.to_json_lines().expect("a run can be written"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
