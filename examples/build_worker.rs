//! Runs the steps of a build in parallel, each in namespaces of its own: `build_worker STEPS`.
//!
//! A step cannot see the files that other steps make, the network, or processes. Its result is what it wrote
//! to /tmp/out.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nsexec::launch::Command;
use nsexec::namespace::NsKind::{Ipc, Mnt, Net, Pid, User, Uts};

/// Runs a shell script for each step, in the folder of that step. Returns the steps that failed, with the
/// reasons.
fn run_steps(scripts: &[String], results: &Path) -> Vec<(usize, String)> {
    // Each step is a copy of this one.
    let mut template = Command::new("/bin/sh");
    template.unshare([User, Mnt, Pid, Net, Ipc, Uts]).map_root();
    // With capabilities over its mount namespace a step could make the mounts writable again.
    template.capabilities([]).no_new_privs();
    template.root_read_only("/").tmpfs("/tmp").proc("/proc").current_dir("/tmp");
    template.env_clear().env("PATH", "/usr/bin:/bin");
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed);
            let Some(script) = scripts.get(step) else { return };
            if let Err(why) = run_step(template.clone(), script, &results.join(step.to_string())) {
                failed.lock().unwrap().push((step, why.to_string()));
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    failed.into_inner().unwrap()
}

fn run_step(mut step: Command, script: &str, result: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir(result)?;
    // The result's folder is the only one of the host that the step can change.
    let output = step.bind(result, "/tmp/out").args(["-c", script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let steps = std::env::args().nth(1).ok_or("usage: build_worker STEPS")?.parse()?;
    let results = std::env::temp_dir().join(format!("build_worker-{}", std::process::id()));
    fs::create_dir(&results)?;
    let scripts: Vec<String> = (0..steps).map(|step| format!("echo {step} > out/number")).collect();
    let failed = run_steps(&scripts, &results);
    fs::remove_dir_all(&results)?;
    println!("{} of {steps} steps failed", failed.len());
    for (step, why) in failed {
        println!("step {step}: {why}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_steps_have_their_results_and_only_the_wrong_one_fails() {
        let results = std::env::temp_dir().join(format!("build_worker-test-{}", std::process::id()));
        fs::create_dir(&results).unwrap();
        // `ls` shows that a step sees its own result's folder alone.
        let script = |step| format!("ls > out/seen; echo $(({step} * 2)) > out/number; [ {step} != 617 ]");
        let scripts: Vec<String> = (0..1000).map(script).collect();
        let failed = run_steps(&scripts, &results);
        let read = |step: usize, name| fs::read_to_string(results.join(step.to_string()).join(name));
        let right = (0..1000).all(|step| {
            read(step, "number").is_ok_and(|number| number == format!("{}\n", step * 2))
                && read(step, "seen").is_ok_and(|seen| seen == "out\n")
        });
        fs::remove_dir_all(&results).unwrap();
        assert!(right);
        assert_eq!(failed.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [617]);
        assert!(failed[0].1.starts_with("exit status: 1"), "{failed:?}");
    }
}
