//! The size that the archive adds to a program.

use std::fs;
use std::path::Path;

use crate::kit::{Case, Kind, Outcome, Said, command, folder, run, there_is};
use crate::programs::plain;

pub(crate) const CASES: &[Case] = &[("a_program_grows_by_less_than_200_kb", growth)];

const LIMIT: u64 = 200 * 1024;

/// runc's Go source in Debian's package.
pub(crate) const RUNC: &str = "/usr/share/gocode/src/github.com/opencontainers/runc/libcontainer/nsenter";

const WAYS: &[(&str, &[&str])] = &[
    ("dynamic", &["gcc"]),
    ("gc-sections", &["gcc", "-ffunction-sections", "-Wl,--gc-sections"]),
    ("static", &["gcc", "-static"]),
    ("static-pie", &["gcc", "-static-pie", "-fPIE"]),
    ("musl static", &["musl-gcc", "-static"]),
];

/// Compares stripped files: the program with the archive, without it, and with runc's C code if this machine
/// has it. Only the archive has a limit.
fn growth() -> Outcome {
    let mut said = String::new();
    for (name, compiler) in WAYS.iter().filter(|(_, compiler)| there_is(compiler[0])) {
        let path = folder().join("sized");
        let size = |path: &Path| fs::metadata(path).map(|data| data.len()).map_err(|error| error.to_string());
        run(&mut plain(compiler, false, &path)?)?;
        let without = size(&path)?;
        run(plain(compiler, true, &path)?.arg("-L").arg(Kind::Release.folder()?).arg("-lnsexec"))?;
        let ours = size(&path)? - without;
        let runcs = Path::new(RUNC);
        let theirs = match runcs.join("nsexec.c").exists() && compiler[0] == "gcc" {
            true => {
                let files = ["nsexec.c", "cloned_binary.c", "escape.c"].map(|file| runcs.join(file));
                run(plain(compiler, true, &path)?.args(files.iter().filter(|file| file.exists())))?;
                format!("{} bytes", size(&path)? - without)
            }
            false => "not known here".into(),
        };
        said += &format!("{name}: {ours} bytes more than {without}; runc's C: {theirs}\n");
        if ours >= LIMIT {
            return Err(said);
        }
    }
    let sections = run(command("size").arg(Kind::Release.archive()?))?;
    let numbers: Vec<&str> = sections.lines().nth(1).unwrap_or_default().split_whitespace().take(3).collect();
    said += &format!("sections: {} text, {} data, {} zeroes", numbers[0], numbers[1], numbers[2]);
    Ok(Said::Held(said))
}
