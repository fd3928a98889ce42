//! Users of the built files: C and C++ programs with the header, pkg-config, and Rust programs that depend on
//! the crate.

use std::fs;
use std::path::Path;

use crate::kit::{Case, Kind, Outcome, Said, command, folder, root, run, sources};

pub(crate) const CASES: &[Case] = &[
    ("header_compiles_as_c_and_cxx", header),
    ("pkg_config_works_after_the_folder_moved", pkg_config),
    ("rust_programs_depend_on_the_crate", rust_programs),
];

/// Compiles the header with the strictest flags, included twice, and calls every function.
fn header() -> Outcome {
    let lib = Kind::Release.folder()?;
    let calls = "#include <nsexec.h>\n#include <nsexec.h>\n#include <stddef.h>\n\
                 int main(void) { nsexec(); nsexec_v1_1(); nsexec_v1_0(); nsexec_seed();\n\
                 return escape_json_string(NULL) != NULL; }\n";
    let mut said = 0;
    for (compiler, language, standards) in
        [("gcc", "c", &["c99", "c11", "c17", "gnu17"][..]), ("g++", "c++", &["c++98", "c++11", "c++20"])]
    {
        let source = folder().join(if language == "c" { "calls.c" } else { "calls.cc" });
        fs::write(&source, calls).map_err(|error| error.to_string())?;
        for standard in standards {
            let program = folder().join("calls");
            let mut cc = command(compiler);
            cc.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-pedantic", "-Werror"]);
            if language == "c" {
                cc.args(["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wold-style-definition"]);
            }
            cc.arg("-I").arg(&lib).arg(&source).arg("-o").arg(&program);
            run(cc.arg("-L").arg(&lib).arg("-lnsexec"))?;
            run(&mut command(&program))?;
            said += 1;
        }
    }
    Ok(Said::Held(format!("{said} standards")))
}

/// Builds as a person does in a shell; then again after the folder was moved.
fn pkg_config() -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let moved = folder().join("moved to another place");
    fs::create_dir_all(&moved).map_err(text)?;
    for file in ["libnsexec.a", "nsexec.h", "nsexec.pc"] {
        fs::copy(Kind::Release.folder()?.join(file), moved.join(file)).map_err(text)?;
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(text)?;
    for lib in [Kind::Release.folder()?, moved] {
        let program = folder().join("by-pkg-config");
        let script = "eval \"gcc -DSTART=nsexec -pthread -o '$1' '$2' $(pkg-config --cflags --libs nsexec)\"";
        let mut shell = command("sh");
        shell.args(["-euc", script, "sh"]).arg(&program).arg(sources().join("c/program.c"));
        run(shell.env("PKG_CONFIG_PATH", &lib))?;
        let out = run(&mut command(&program))?;
        if !out.ends_with(": 42\nover\n") {
            return Err(format!("the program said {out}"));
        }
        let version =
            run(command("pkg-config").args(["--modversion", "nsexec"]).env("PKG_CONFIG_PATH", &lib))?;
        if !manifest.contains(&format!("\nversion = \"{}\"\n", version.trim())) {
            return Err(format!("version {version}"));
        }
    }
    Ok(Said::Held(String::new()))
}

/// Rust programs with std: with the default features, with all of them, and without any.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("launcher", "default-features = true", "launcher.rs"),
    ("everything", "features = [\"legacy\", \"serde\"]", "launcher.rs"),
    ("nothing", "default-features = false", "without.rs"),
];

fn rust_programs() -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let mut said = String::new();
    for (name, features, source) in PROGRAMS {
        let here = folder().join(name);
        fs::create_dir_all(here.join("src")).map_err(text)?;
        let manifest = format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n[workspace]\n\
             [dependencies]\nnsexec = {{ path = {:?}, {features} }}\n",
            root()
        );
        fs::write(here.join("Cargo.toml"), manifest).map_err(text)?;
        fs::copy(sources().join("consumers").join(source), here.join("src/main.rs")).map_err(text)?;
        // Use the versions in this crate's Cargo.lock: they are in the local cache.
        fs::copy(root().join("Cargo.lock"), here.join("Cargo.lock")).map_err(text)?;
        let mut cargo = command("cargo");
        cargo.args(["run", "-q", "--offline"]).current_dir(&here);
        let out = run(cargo.env("CARGO_TARGET_DIR", target_folder()))?;
        if out != "untouched\n" {
            return Err(format!("{name}: {out}"));
        }
        said += &format!("{name} ");
    }
    Ok(Said::Held(said))
}

/// Returns the target folder, in which the dependencies are built already for this crate's tests.
fn target_folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(root())
}
