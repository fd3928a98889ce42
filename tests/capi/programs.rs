//! Programs that link the archive in every way that a runtime may. Each is linked, driven by a parent
//! process, and watched by strace.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::geteuid;

use crate::kit::{Case, Kind, Outcome, Said, command, folder, root, run, sources, there_is};

pub(crate) const CASES: &[Case] = &[
    ("programs_link_in_every_way", linked_in_every_way),
    ("cargos_library_does_not_link_with_rust_std", raw_library),
    ("programs_need_only_the_libc", needed),
    ("programs_are_driven_by_the_independent_parent", driven),
    ("no_system_call_without_an_init_pipe", untouched),
];

const TODAY: &str = "nsexec";

const OLDER: [&str; 3] = ["nsexec_v1_1", "nsexec_v1_0", "nsexec_seed"];

/// System calls that only one stage makes, in a start that creates a user namespace and joins nothing.
const PANICKING_STAGES: [(&str, &str); 3] = [
    ("stage-0", "-DPANIC_AT=SYS_openat"),
    ("stage-1", "-DPANIC_AT=SYS_setresuid"),
    ("stage-2", "-DPANIC_AT=SYS_setsid"),
];

/// A linked program.
#[derive(Clone, Debug)]
struct Program {
    name: String,
    path: PathBuf,
    /// The function of the archive that it calls.
    start: &'static str,
    /// The number that its main prints.
    number: i32,
    threads: bool,
    kind: Kind,
    /// Linked with another library, which needs more than the C library.
    neighbour: bool,
}

/// A way to link: its name, the compiler with its flags, and the libraries.
type Way = (&'static str, &'static [&'static str], &'static [&'static str]);

const GCC: &[Way] = &[
    ("dynamic", &["gcc", "-no-pie", "-fno-pie"], &["-lnsexec"]),
    ("pie", &["gcc", "-pie", "-fPIE", "-Wl,-z,now,-z,relro,-z,text,--fatal-warnings"], &["-lnsexec"]),
    ("static", &["gcc", "-static"], &["-lnsexec"]),
    ("static-pie", &["gcc", "-static-pie", "-fPIE"], &["-lnsexec"]),
    ("gc-sections", &["gcc", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"], &["-lnsexec"]),
    ("static-gc-sections", &["gcc", "-static", "-ffunction-sections", "-Wl,--gc-sections"], &["-lnsexec"]),
    ("whole-archive", &["gcc"], &["-Wl,--whole-archive", "-lnsexec", "-Wl,--no-whole-archive"]),
    (
        "static-whole-archive",
        &["gcc", "-static"],
        &["-Wl,--whole-archive", "-lnsexec", "-Wl,--no-whole-archive"],
    ),
    ("lto", &["gcc", "-O2", "-flto"], &["-lnsexec"]),
    ("gold", &["gcc", "-fuse-ld=gold"], &["-lnsexec"]),
];

const MUSL: &[Way] = &[
    ("musl", &["musl-gcc"], &["-lnsexec"]),
    ("musl-static", &["musl-gcc", "-static"], &["-lnsexec"]),
    ("musl-static-pie", &["musl-gcc", "-static-pie", "-fPIE"], &["-lnsexec"]),
];

const CLANG: &[Way] =
    &[("clang", &["clang"], &["-lnsexec"]), ("clang-static", &["clang", "-static"], &["-lnsexec"])];

/// The libraries that a Rust library with std needs, as `rustc --print native-static-libs` lists them.
const STD: &[&str] = &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];
const STATIC_STD: &[&str] = &["-lgcc_eh", "-lpthread", "-lm", "-ldl", "-lc"];

/// The settings from which one program is built.
struct Recipe<'a> {
    name: &'a str,
    kind: Kind,
    start: &'static str,
    compiler: &'a [&'a str],
    defines: &'a [&'a str],
    libraries: Vec<&'a str>,
}

/// Compiles and links `tests/capi/c/program.c`.
fn link(recipe: &Recipe<'_>) -> Result<PathBuf, String> {
    let path = folder().join(format!("{}-{}", recipe.kind.name(), recipe.name));
    let lib = recipe.kind.folder()?;
    let (compiler, flags) = recipe.compiler.split_first().ok_or("no compiler")?;
    let mut cc = command(compiler);
    cc.args(flags).args(["-Wall", "-Wextra", "-Werror", "-O1", "-g"]);
    cc.arg(format!("-DSTART={}", recipe.start)).args(recipe.defines);
    cc.arg("-I").arg(&lib).arg("-o").arg(&path).arg(sources().join("c/program.c"));
    cc.arg("-L").arg(&lib).arg("-L").arg(folder()).args(&recipe.libraries).arg("-pthread");
    run(&mut cc)?;
    Ok(path)
}

fn program(recipe: &Recipe<'_>) -> Result<Program, String> {
    let path = link(recipe)?;
    let neighbour = recipe.defines.contains(&"-DNEIGHBOUR");
    Ok(Program {
        name: format!("{}_{}", recipe.kind.name(), recipe.name.replace('-', "_")),
        path,
        start: recipe.start,
        number: if neighbour { 44 } else { 42 },
        threads: recipe.defines.contains(&"-DTHREAD"),
        kind: recipe.kind,
        neighbour,
    })
}

/// Returns all programs. The first call links them.
fn programs() -> Result<&'static [Program], String> {
    static LINKED: OnceLock<Result<Vec<Program>, String>> = OnceLock::new();
    LINKED.get_or_init(all_programs).as_deref().map_err(Clone::clone)
}

fn all_programs() -> Result<Vec<Program>, String> {
    let mut all = Vec::new();
    let mut add = |name: &str, kind, start, compiler: &[&str], defines: &[&str], libraries: &[&str]| {
        let libraries = libraries.to_vec();
        let recipe = Recipe { name, kind, start, compiler, defines, libraries };
        program(&recipe).map(|program| all.push(program))
    };
    for kind in Kind::SHIPPED {
        for (name, compiler, libraries) in ways() {
            add(name, kind, TODAY, &compiler, &[], libraries)?;
        }
        add("threads", kind, TODAY, &["gcc"], &["-DTHREAD"], &["-lnsexec"])?;
        for start in OLDER {
            add(start, kind, start, &["gcc"], &[], &["-lnsexec"])?;
            add(&format!("{start}-static-pie"), kind, start, &["gcc", "-static-pie"], &[], &["-lnsexec"])?;
        }
    }
    add("dynamic", Kind::Panics, TODAY, &["gcc"], &[], &["-lnsexec"])?;
    for (name, at) in PANICKING_STAGES {
        add(name, Kind::Panics, TODAY, &["gcc"], &[at], &["-lnsexec"])?;
    }
    for kind in Kind::SHIPPED {
        all.push(shared_object(kind)?);
        all.extend(beside_other_rust(kind)?);
    }
    Ok(all)
}

/// Returns the ways to link with the compilers and linkers of this machine.
fn ways() -> Vec<(&'static str, Vec<&'static str>, &'static [&'static str])> {
    let mut ways: Vec<_> = GCC.iter().map(|(name, cc, libraries)| (*name, cc.to_vec(), *libraries)).collect();
    for (compiler, more) in [("musl-gcc", MUSL), ("clang", CLANG)] {
        if there_is(compiler) {
            ways.extend(more.iter().map(|(name, cc, libraries)| (*name, cc.to_vec(), *libraries)));
        }
    }
    // The linker that is part of rustup's toolchains.
    if let Some(folder) = rustup_lld() {
        ways.push(("lld", vec!["gcc", "-fuse-ld=lld", folder], &["-lnsexec"]));
        ways.push((
            "lld-static-pie",
            vec!["gcc", "-fuse-ld=lld", folder, "-static-pie", "-fPIE"],
            &["-lnsexec"],
        ));
    }
    ways
}

/// Returns gcc's option `-BFOLDER` for the folder of rustup's lld.
fn rustup_lld() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let target = run(command("rustc").args(["--print", "target-libdir"])).ok()?;
        let folder = Path::new(target.trim()).parent()?.join("bin/gcc-ld");
        folder.join("ld.lld").is_file().then(|| format!("-B{}", folder.display()))
    });
    found.as_deref()
}

/// Builds a shared object that contains the archive, and a program that calls it. `-z text` makes sure that
/// the code needs no relocation.
fn shared_object(kind: Kind) -> Result<Program, String> {
    let lib = kind.folder()?;
    let source = folder().join("library.c");
    let text = "#include <nsexec.h>\nvoid begin(void);\nvoid begin(void) { nsexec(); }\n";
    fs::write(&source, text).map_err(|error| error.to_string())?;
    let name = format!("{}-begin", kind.name());
    let mut cc = command("gcc");
    cc.args(["-shared", "-fPIC", "-Wl,-z,text,-z,defs,--fatal-warnings", "-o"]);
    cc.arg(folder().join(format!("lib{name}.so"))).arg("-I").arg(&lib).arg(&source);
    run(cc.arg("-L").arg(&lib).arg("-lnsexec"))?;
    let header = folder().join("begin.h");
    fs::write(&header, "void begin(void);\n").map_err(|error| error.to_string())?;
    let defines = ["-include", header.to_str().ok_or("a path in UTF-8")?];
    let (library, path) = (format!("-l{name}"), format!("-Wl,-rpath,{}", folder().display()));
    let libraries = vec![library.as_str(), path.as_str()];
    let linked = program(&Recipe {
        name: "shared-object",
        kind,
        start: "begin",
        compiler: &["gcc"],
        defines: &defines,
        libraries,
    })?;
    // The shared object calls `nsexec`.
    Ok(Program { start: TODAY, ..linked })
}

/// Links the archive with another Rust library, with std and without, in either order.
fn beside_other_rust(kind: Kind) -> Result<Vec<Program>, String> {
    let mut all = Vec::new();
    for (library, needs, static_needs) in [("with_std", STD, STATIC_STD), ("without_std", &[][..], &[][..])] {
        neighbour(library)?;
        let flag = format!("-l{library}");
        for (order, libraries) in [("before", ["-lnsexec", &flag]), ("after", [&flag, "-lnsexec"])] {
            for (how, compiler, needs) in
                [("", &["gcc"][..], needs), ("-static", &["gcc", "-static"][..], static_needs)]
            {
                let name = format!("{order}-{library}{how}");
                let libraries = libraries.iter().chain(needs).copied().collect();
                let (start, defines) = (TODAY, &["-DNEIGHBOUR"]);
                // glibc warns of its resolver in a static program.
                let compiler: Vec<&str> = compiler.iter().copied().chain(["-Wl,--no-warnings"]).collect();
                all.push(program(&Recipe {
                    name: &name,
                    kind,
                    start,
                    compiler: &compiler,
                    defines,
                    libraries,
                })?);
            }
        }
    }
    Ok(all)
}

/// Builds the other Rust library, `libNAME.a`.
fn neighbour(name: &str) -> Result<(), String> {
    let library = folder().join(format!("lib{name}.a"));
    if library.exists() {
        return Ok(());
    }
    let mut rustc = command("rustc");
    rustc.args(["--edition", "2024", "--crate-type", "staticlib", "-O", "-o"]).arg(&library);
    if name == "without_std" {
        rustc.args(["-C", "panic=abort", "-C", "lto"]);
    }
    run(rustc.arg(sources().join(format!("neighbours/{name}.rs")))).map(drop)
}

fn linked_in_every_way() -> Outcome {
    let names: Vec<&str> = programs()?.iter().map(|program| program.name.as_str()).collect();
    Ok(Said::Held(format!("{}: {}", names.len(), names.join(" "))))
}

/// The control of `beside_other_rust`: cargo's library, without the second half of
/// `crates/nsexec-capi/build`, fails to link. Both libraries define a panic handler.
fn raw_library() -> Outcome {
    Kind::Debug.folder()?;
    neighbour("with_std")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let mut cc = command("gcc");
    cc.args(["-DSTART=nsexec", "-DNEIGHBOUR", "-I"]).arg(Kind::Debug.folder()?);
    cc.arg("-o").arg(folder().join("raw")).arg(sources().join("c/program.c"));
    cc.arg("-L").arg(target.join("capi/capi-debug")).arg("-L").arg(folder());
    match run(cc.args(["-lnsexec_capi", "-lwith_std"]).args(STD)) {
        Err(said) if said.contains("multiple definition of") && said.contains("rust_begin_unwind") => {
            Ok(Said::Held(String::new()))
        }
        other => Err(format!("{other:?}")),
    }
}

/// Checks which libraries the dynamic programs need.
fn needed() -> Outcome {
    let mut all = BTreeSet::new();
    for program in programs()?.iter().filter(|program| !program.neighbour) {
        let text =
            run(command("readelf").args(["--wide", "--dynamic", "--program-headers"]).arg(&program.path))?;
        let needed = text.lines().filter(|line| line.contains("(NEEDED)"));
        all.extend(needed.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())));
        if text.contains("(TEXTREL)") {
            return Err(format!("{}: relocations of its code", program.name));
        }
        let stack = text.lines().find(|line| line.trim_start().starts_with("GNU_STACK")).unwrap_or_default();
        if !stack.contains(" RW ") {
            return Err(format!("{}: its stack: {stack}", program.name));
        }
    }
    // The shared object is our own. The C library has several names.
    let foreign =
        |name: &&String| !["libc.so", "libc.so.6"].contains(&name.as_str()) && !name.contains("-begin.so");
    match all.iter().find(foreign) {
        Some(name) => Err(format!("a program needs {name}")),
        None => Ok(Said::Held(all.into_iter().collect::<Vec<_>>().join(" "))),
    }
}

/// Runs the tests of `tests/capi/drive.py` on every program.
fn driven() -> Outcome {
    if !geteuid().is_root() {
        return Ok(Said::Skipped("it starts programs of several users, which takes root".into()));
    }
    let programs = programs()?;
    let described: Vec<_> = programs
        .iter()
        .map(|program| {
            serde_json::json!({
                "name": program.name,
                "path": program.path,
                "start": program.start,
                "number": program.number,
                "threads": program.threads,
                "panic": program.kind == Kind::Panics,
            })
        })
        .collect();
    let mut python = command("python3");
    python.arg(sources().join("drive.py")).current_dir(root());
    python.env("NSEXEC_PROGRAMS", serde_json::Value::from(described).to_string());
    python.env("NSEXEC", &programs[0].path).env("PYTHONDONTWRITEBYTECODE", "1");
    // unittest prints to standard error.
    let output = python.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let ran: Option<usize> =
        text.lines().rev().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok());
    // Every program has at least one test, and most have six.
    match ran {
        Some(ran) if output.status.success() && ran >= 5 * programs.len() => {
            Ok(Said::Held(format!("{ran} tests of {} programs", programs.len())))
        }
        _ => Err(format!("{}: {ran:?} tests\n{text}", output.status)),
    }
}

/// Checks that a constructor makes no system call between its two marks if there is no init pipe. Every
/// second program has a log pipe.
fn untouched() -> Outcome {
    let mut said = 0;
    let programs = programs()?.iter().filter(|program| program.kind != Kind::Panics);
    for (at, program) in programs.enumerate() {
        let log = folder().join("strace");
        let mut strace = command("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log).arg(&program.path);
        if at % 2 == 1 {
            strace.env("_LIBCONTAINER_LOGPIPE", "4").env("_LIBCONTAINER_LOGLEVEL", "4");
        }
        run(&mut strace)?;
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let between = between_marks(&text).ok_or_else(|| format!("{}: no marks:\n{text}", program.name))?;
        if !between.is_empty() {
            return Err(format!("{}: {between:?}", program.name));
        }
        said += 1;
    }
    // Check `between_marks` itself, on a program that makes a call there.
    let busy =
        "7 write(-1, \"before\", 6) = -1 EBADF\n7 getpid() = 7\n7 write(-1, \"after\", 5) = -1 EBADF\n";
    match between_marks(busy) {
        Some(between) if between.len() == 1 => Ok(Said::Held(format!("{said} programs"))),
        other => Err(format!("the check saw {other:?}")),
    }
}

/// Returns the calls between the two marks, of the thread that makes the marks.
fn between_marks(strace: &str) -> Option<Vec<&str>> {
    let mark = |text: &str| strace.lines().position(|line| line.contains(&format!("write(-1, \"{text}\"")));
    let (before, after) = (mark("before")?, mark("after")?);
    let lines: Vec<&str> = strace.lines().collect();
    let (pid, _) = lines[before].split_once(' ')?;
    // With threads, strace may split the line of a mark.
    let ours = |line: &&str| line.starts_with(pid) && !line.contains("<... write resumed>");
    Some(lines[before + 1..after].iter().copied().filter(ours).collect())
}

/// Returns a command that links the program with the archive if `start` is true, or without it, to compare
/// sizes.
pub(crate) fn plain(compiler: &[&str], start: bool, path: &Path) -> Result<Command, String> {
    let lib = Kind::Release.folder()?;
    let (compiler, flags) = compiler.split_first().ok_or("no compiler")?;
    let mut cc = command(compiler);
    cc.args(flags).args(["-O2", "-s", "-pthread", "-I"]).arg(&lib).arg("-o").arg(path);
    cc.arg(sources().join("c/program.c"));
    if start {
        cc.arg("-DSTART=nsexec");
    }
    Ok(cc)
}
