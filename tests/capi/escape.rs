//! Tests of `escape_json_string`, by the cases in `tests/capi/c/escape.c`.

use std::path::Path;

use crate::kit::{Case, Kind, Outcome, Said, command, folder, run, sources, there_is};
use crate::sizes::RUNC;

pub(crate) const CASES: &[Case] = &[
    ("escape_json_string_keeps_runcs_contract", contract),
    ("escape_json_string_agrees_with_runc_on_random_texts", random_texts),
];

const WRAPPED: &str = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=strdup";

/// Compiles and runs the cases with this compiler. Returns the last line of their output.
fn cases(kind: Kind, compiler: &[&str], more: &[&Path]) -> Result<String, String> {
    let path = folder().join("escape");
    let lib = kind.folder()?;
    let (compiler, flags) = compiler.split_first().ok_or("no compiler")?;
    let mut cc = command(compiler);
    cc.args(flags).args(["-g", WRAPPED, "-I"]).arg(&lib).arg("-o").arg(&path);
    run(cc.arg(sources().join("c/escape.c")).args(more).arg("-L").arg(&lib).arg("-lnsexec"))?;
    run(&mut command(&path))
}

fn contract() -> Outcome {
    let mut said = String::new();
    for kind in Kind::SHIPPED {
        for (name, compiler) in [
            ("glibc", &["gcc"][..]),
            ("with sanitizers", &["gcc", "-fsanitize=address,undefined"]),
            // Not static: the linker would also wrap the calls inside the C library.
            ("musl", &["musl-gcc"]),
        ] {
            if there_is(compiler[0]) {
                said += &format!("{}, {name}: {}", kind.name(), cases(kind, compiler, &[])?);
            }
        }
    }
    Ok(Said::Held(said))
}

/// Compares random texts with runc's own C code, if this machine has it.
fn random_texts() -> Outcome {
    let theirs = Path::new(RUNC).join("escape.c");
    if !theirs.exists() {
        return Ok(Said::Skipped("Debian's package of runc's sources is not on this machine".into()));
    }
    let object = folder().join("runcs-escape.o");
    let mut cc = command("gcc");
    run(cc.args(["-c", "-Descape_json_string=runcs", "-o"]).arg(&object).arg(&theirs))?;
    cases(Kind::Release, &["gcc", "-DRUNC=runcs"], &[&object]).map(Said::Held)
}
