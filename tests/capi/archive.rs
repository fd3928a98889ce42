//! Tests of the archive `libnsexec.a`: its symbols, its sections, and the builds that make it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::kit::{Case, Kind, Outcome, Said, command, folder, root, run};

pub(crate) const CASES: &[Case] = &[
    ("archive_defines_five_symbols_and_needs_only_the_libc", symbols),
    ("symbol_check_finds_every_fault", symbols_are_checked),
    ("no_panic_is_reachable_except_in_a_sort", panics),
    ("panic_check_finds_a_panic", panics_are_found),
    ("object_has_no_section_groups_and_no_executable_stack", sections),
    ("build_is_reproducible", bytes),
    ("archive_contains_no_path_of_the_build_machine", folders),
    ("relative_folder_ignores_cdpath", relative),
    ("build_script_prints_its_usage", usage),
];

const VISIBLE: [&str; 5] = ["escape_json_string", "nsexec", "nsexec_seed", "nsexec_v1_0", "nsexec_v1_1"];

/// The symbols that the C library provides. glibc and musl both do.
const FROM_LIBC: &[&str] = &[
    "__errno_location",
    "_exit",
    "bcmp",
    "calloc",
    "environ",
    "free",
    "getenv",
    "malloc",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "strdup",
    "strlen",
];

/// Returns the wrong names in an archive or object, and all its undefined names.
fn violations(file: &Path) -> Result<(Vec<String>, Vec<String>), String> {
    let shown = listed(file, "--defined-only")?;
    let asked = listed(file, "--undefined-only")?;
    let mut wrong: Vec<String> = Vec::new();
    wrong
        .extend(VISIBLE.iter().filter(|name| !shown.contains(**name)).map(|name| format!("missing: {name}")));
    wrong.extend(
        shown.iter().filter(|name| !VISIBLE.contains(&name.as_str())).map(|name| format!("visible: {name}")),
    );
    wrong.extend(
        asked
            .iter()
            .filter(|name| !FROM_LIBC.contains(&name.as_str()))
            .map(|name| format!("asked for: {name}")),
    );
    Ok((wrong, asked.into_iter().collect()))
}

/// Returns the global and weak names of the archive or object. `sort` is nm's option for defined or undefined
/// names.
fn listed(file: &Path, sort: &str) -> Result<BTreeSet<String>, String> {
    let text = run(command("nm").args(["--extern-only", sort]).arg(file))?;
    // `ADDRESS TYPE NAME`, `TYPE NAME`, or the heading of an archive's member.
    let name = |line: &str| line.rsplit_once(' ').map(|(_, name)| name.to_owned());
    Ok(text.lines().filter_map(name).collect())
}

fn symbols() -> Outcome {
    let mut said = String::new();
    for kind in Kind::SHIPPED {
        let archive = kind.archive()?;
        let members = run(command("ar").arg("t").arg(&archive))?;
        if members.trim() != "nsexec.o" {
            return Err(format!("{}: members {members}", kind.name()));
        }
        let (wrong, asked) = violations(&archive)?;
        if !wrong.is_empty() {
            return Err(format!("{}: {}", kind.name(), wrong.join(", ")));
        }
        // No unwinder: it would be a dependency.
        let bytes = fs::read(&archive).map_err(|error| error.to_string())?;
        for never in ["_Unwind_", "on \"purpose\"", "libgcc_s"] {
            if bytes.windows(never.len()).any(|window| window == never.as_bytes()) {
                return Err(format!("{}: it has {never}", kind.name()));
            }
        }
        said += &format!("{}: asks the libc for {}\n", kind.name(), asked.join(" "));
    }
    Ok(Said::Held(said))
}

/// Checks [`violations`] with an object that has every fault.
fn symbols_are_checked() -> Outcome {
    let source = folder().join("faulty.c");
    let object = folder().join("faulty.o");
    let text = "void _Unwind_Resume(void); void nsexec(void) { _Unwind_Resume(); }\n\
                __attribute__((weak)) void rust_eh_personality(void) {}\n\
                int shared = 1; static int own = 2; int *show(void) { return &own; }\n";
    fs::write(&source, text).map_err(|error| error.to_string())?;
    run(command("gcc").arg("-c").arg(&source).arg("-o").arg(&object))?;
    let (wrong, _) = violations(&object)?;
    let wanted = [
        "missing: escape_json_string",
        "missing: nsexec_seed",
        "missing: nsexec_v1_0",
        "missing: nsexec_v1_1",
        "visible: rust_eh_personality",
        "visible: shared",
        "visible: show",
        "asked for: _Unwind_Resume",
    ];
    match wrong == wanted {
        true => Ok(Said::Held(String::new())),
        false => Err(format!("found: {wrong:?}")),
    }
}

/// The calls of functions that panic, in the optimised archive: the caller and the function, as parts of
/// their names. Every other operation that may panic in Rust (an index, an overflow, `unwrap`) has no call
/// left.
///
/// The sort of core panics if an order is not total. The archive sorts id maps by their numbers alone.
const PANICS: [(&str, &str); 4] = [
    ("4core9panicking9panic_fmt", "rust_begin_unwind"),
    ("panic_on_ord_violation", "4core9panicking9panic_fmt"),
    ("4core5slice4sort6shared9smallsort19bidirectional_merge", "panic_on_ord_violation"),
    ("4core5slice4sort6shared9smallsort18small_sort_general", "panic_on_ord_violation"),
];

/// Returns the calls of functions that panic which [`PANICS`] does not have, and the number of all: each
/// relocation of the archive that names such a function, with the section that contains it. The compiler puts
/// each function in a section of its own, with its name.
fn panic_calls(archive: &Path) -> Result<(Vec<String>, usize), String> {
    let text = run(command("readelf").args(["--relocs", "--wide"]).arg(archive))?;
    let (mut caller, mut other, mut all) = ("", Vec::new(), 0);
    for line in text.lines() {
        if let Some(section) = line.strip_prefix("Relocation section '.rela") {
            caller = section.split('\'').next().unwrap_or_default();
            continue;
        }
        let Some(name) = line.split_whitespace().nth(4).filter(|name| panics_by_name(name)) else { continue };
        if [".debug", ".eh_frame"].iter().any(|section| caller.starts_with(section)) {
            continue;
        }
        all += 1;
        if !PANICS.iter().any(|(from, to)| caller.contains(from) && name.contains(to)) {
            other.push(format!("{caller} calls {name}"));
        }
    }
    Ok((other, all))
}

/// Returns whether a function of this mangled name panics. The message of a panic has a name of its own,
/// which the handler uses.
fn panics_by_name(name: &str) -> bool {
    let of_core = ["panicking", "panic_", "_failed", "_fail", "_overflow"];
    name.contains("rust_begin_unwind")
        || name.contains("4core")
            && !name.contains("5panic10panic_info")
            && of_core.iter().any(|part| name.contains(part))
}

fn panics() -> Outcome {
    let (other, all) = panic_calls(&Kind::Release.archive()?)?;
    match other.is_empty() {
        true => Ok(Said::Held(format!("{all} calls of functions that panic: {PANICS:?}"))),
        false => Err(other.join("\n")),
    }
}

/// Checks [`panic_calls`] with the archive that panics on purpose, and with one that is not optimised.
fn panics_are_found() -> Outcome {
    let (found, _) = panic_calls(&Kind::Panics.archive()?)?;
    if !found.iter().any(|call| call.contains("panic_fmt")) {
        return Err(format!("the panic on purpose is not found: {found:?}"));
    }
    let (checks, _) = panic_calls(&Kind::Debug.archive()?)?;
    match checks.iter().any(|call| call.contains("panic_bounds_check") || call.contains("overflow")) {
        true => Ok(Said::Held(format!("without optimisation: {} calls", checks.len()))),
        false => Err(format!("the checks of a debug build are not found: {} calls", checks.len())),
    }
}

/// Checks the sections. A section group of the same name in another library would replace ours. An executable
/// stack is a weakness. Thread-local storage may be missing in a static program.
///
/// The shared object among the programs shows that no relocation changes the code.
fn sections() -> Outcome {
    for kind in Kind::SHIPPED {
        let text = run(command("readelf")
            .args(["--wide", "--section-headers", "--section-groups"])
            .arg(kind.archive()?))?;
        if !text.contains("There are no section groups in this file.") {
            return Err(format!("{}: section groups", kind.name()));
        }
        let stack =
            text.lines().find(|line| line.contains(" .note.GNU-stack ")).ok_or("no .note.GNU-stack")?;
        let flags = stack.split_whitespace().rev().nth(3).unwrap_or_default();
        if flags.contains('X') {
            return Err(format!("{}: an executable stack: {stack}", kind.name()));
        }
        let never =
            [" .tdata", " .tbss", " .init_array", " .fini_array", " .ctors", " .llvmbc", " .gnu.lto_"];
        if let Some(found) = never.iter().find(|name| text.contains(**name)) {
            return Err(format!("{}: a section{found}", kind.name()));
        }
    }
    Ok(Said::Held(String::new()))
}

/// Copies the sources of the archive into a folder of this name.
fn sources(name: &str) -> Result<PathBuf, String> {
    let copy = folder().join(name);
    fs::create_dir_all(&copy).map_err(|error| error.to_string())?;
    let parts = ["Cargo.toml", "Cargo.lock", "README.md", "src", "crates", "tests", "examples"];
    run(command("cp").arg("-r").args(parts.map(|part| root().join(part))).arg(&copy))?;
    Ok(copy)
}

/// Checks that the archive contains no path of the build machine. The path has special characters, and cargo
/// reads flags from each possible place.
fn folders() -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let copy = sources("somebody's sources")?;
    fs::create_dir_all(copy.join(".cargo")).map_err(text)?;
    let flags = "rustflags = [\"-C\", \"force-frame-pointers=yes\"]\n";
    let home = std::env::var("HOME").map_err(|error| error.to_string())?;
    for (name, config, variable) in [
        ("target", format!("[target.'cfg(unix)']\n{flags}"), None),
        ("build", format!("[build]\n{flags}"), None),
        ("environment", String::new(), Some(("RUSTFLAGS", "-C force-frame-pointers=yes"))),
    ] {
        fs::write(copy.join(".cargo/config.toml"), config).map_err(text)?;
        let made = folder().join("folders").join(name);
        let mut build = command(copy.join("crates/nsexec-capi/build"));
        run(build.arg(&made).env("CARGO_TARGET_DIR", copy.join("target")).envs(variable))?;
        let bytes = fs::read(made.join("libnsexec.a")).map_err(text)?;
        for never in [folder().to_string_lossy().as_ref(), home.as_str(), "somebody's"] {
            if bytes.windows(never.len()).any(|window| window == never.as_bytes()) {
                return Err(format!("flags of {name}: it has {never}"));
            }
        }
    }
    Ok(Said::Held(String::new()))
}

/// Builds the archive again, in a folder of another name and with another CARGO_HOME.
fn bytes() -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let copy = sources("the same sources")?;
    let home = folder().join("home of cargo");
    fs::create_dir_all(&home).map_err(text)?;
    let known = std::env::var_os("CARGO_HOME")
        .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo"), Into::into);
    if known.join("registry").exists() {
        std::os::unix::fs::symlink(known.join("registry"), home.join("registry")).map_err(text)?;
    }
    for kind in Kind::SHIPPED {
        let again = folder().join("again").join(kind.name());
        let mut build = command(copy.join("crates/nsexec-capi/build"));
        if kind == Kind::Debug {
            build.arg("--debug");
        }
        run(build.arg(&again).env("CARGO_TARGET_DIR", copy.join("target")).env("CARGO_HOME", &home))?;
        for file in ["libnsexec.a", "nsexec.h", "nsexec.pc"] {
            let first = fs::read(kind.folder()?.join(file)).map_err(text)?;
            let second = fs::read(again.join(file)).map_err(text)?;
            if first != second {
                return Err(format!(
                    "{}: {file} differs: {} and {} bytes",
                    kind.name(),
                    first.len(),
                    second.len()
                ));
            }
        }
    }
    Ok(Said::Held(String::new()))
}

/// Checks that a relative folder is relative to the working directory, even if CDPATH is exported.
fn relative() -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let (here, elsewhere) = (folder().join("here"), folder().join("elsewhere"));
    fs::create_dir_all(&here).map_err(text)?;
    fs::create_dir_all(elsewhere.join("made here")).map_err(text)?;
    let mut build = command(root().join("crates/nsexec-capi/build"));
    run(build.arg("made here").current_dir(&here).env("CDPATH", &elsewhere))?;
    let names = |folder: &Path| -> Result<BTreeSet<String>, String> {
        let entries = fs::read_dir(folder).map_err(text)?.flatten();
        Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let made = names(&here.join("made here"))?;
    if made != ["libnsexec.a", "nsexec.h", "nsexec.pc"].map(str::to_owned).into() {
        return Err(format!("made: {made:?}"));
    }
    let strays = names(&elsewhere.join("made here"))?;
    if !strays.is_empty() {
        return Err(format!("strays: {strays:?}"));
    }
    Ok(Said::Held(String::new()))
}

fn usage() -> Outcome {
    let called = |arguments: &[&str]| -> Result<(Option<i32>, bool, bool), String> {
        let output = command(root().join("crates/nsexec-capi/build"))
            .args(arguments)
            .output()
            .map_err(|error| error.to_string())?;
        let says = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).starts_with("crates/nsexec-capi/build [--debug] DIR")
        };
        Ok((output.status.code(), says(&output.stdout), says(&output.stderr)))
    };
    for arguments in [&["--help"][..], &["-h"]] {
        if called(arguments)? != (Some(0), true, false) {
            return Err(format!("{arguments:?}: {:?}", called(arguments)?));
        }
    }
    for arguments in [&[][..], &["--debug"], &["--wrong", "x"], &["one", "two"], &[""]] {
        if called(arguments)? != (Some(2), false, true) {
            return Err(format!("{arguments:?}: {:?}", called(arguments)?));
        }
    }
    Ok(Said::Held(String::new()))
}
