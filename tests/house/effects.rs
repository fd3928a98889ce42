//! Effects outside `Sys`: the files that may use libc, nix, or the parts of std that make system calls.
//!
//! A call through the trait `Sys` is visible as `sys.`. This rule checks the other side: no other file has a
//! way to the kernel. docs/design.md describes the files of the root package.

use crate::imports::{path_is_foreign, references};
use crate::source::{Source, line_of, words};

/// A file, or a folder with `/` at its end, that may reach the kernel without `Sys`.
pub(crate) struct Place {
    pub(crate) path: &'static str,
    /// The entries of [`WAYS`] that the file uses.
    pub(crate) uses: &'static [&'static str],
    /// The reason, which a person reads.
    pub(crate) why: &'static str,
}

/// The ways to the kernel: crates, parts of std, and declarations of foreign functions.
const WAYS: &[&str] = &[
    "libc",
    "nix",
    ENV,
    "std::fs",
    IO,
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "terminal_size",
    "tokio",
    EXTERN,
    ASM,
    INCLUDE,
    PRINT,
];

/// The parts of these without system calls of their own: conversions, and traits of values that another way
/// made.
const PURE: &[&str] = &[
    "std::os::fd",
    "std::os::unix::ffi",
    "std::os::unix::fs::DirBuilderExt",
    "std::os::unix::fs::FileExt",
    "std::os::unix::fs::FileTypeExt",
    "std::os::unix::fs::MetadataExt",
    "std::os::unix::fs::OpenOptionsExt",
    "std::os::unix::fs::PermissionsExt",
    "std::os::unix::process::ExitStatusExt",
    "std::process::ExitCode",
];

/// Functions of modules that are values otherwise. Each is found as `module::function`, and as an import.
const FUNCTIONS: &[(&str, &[&str])] = &[
    (
        ENV,
        &["current_dir", "current_exe", "home_dir", "remove_var", "set_current_dir", "set_var", "temp_dir"],
    ),
    (IO, &["copy", "pipe", "stderr", "stdin", "stdout"]),
    ("std::time::Instant", &["now"]),
    ("std::time::SystemTime", &["now"]),
];
const ENV: &str = "std::env";
const IO: &str = "std::io";

/// Source that is not in the file: this rule would not read it.
const INCLUDE: &str = "include!";

/// A macro that writes to a standard stream.
const PRINT: &str = "print!";

/// A block of foreign functions or variables.
const EXTERN: &str = "extern";

/// Assembly.
const ASM: &str = "asm";

/// Methods of `Path` that make system calls like the functions of `std::fs`.
const PATH_METHODS: &[&str] = &[
    "canonicalize",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "metadata",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "try_exists",
];

pub(crate) const PLACES: &[Place] = &[
    // The root package. The core has two entries: the backend, and the edge that constructs it.
    Place { path: "src/sys/linux/", uses: &["libc", ASM], why: "implements `Sys`" },
    Place {
        path: "src/entry.rs",
        uses: &["libc", EXTERN],
        why: "constructs the backend, reads the libc's environment and auxiliary vector, and exits",
    },
    Place {
        path: "src/launch/spawn.rs",
        uses: &["libc", "nix", "std::thread"],
        why: "surrounds the launch script: page that detects a fork, timer, exit of a stage, launching thread",
    },
    Place {
        path: "src/launch/handle.rs",
        uses: &["libc", "std::fs", "std::process", "std::time::Instant"],
        why: "the handle of a command: waits for it, reads its output, sends signals to it",
    },
    Place {
        path: "src/launch/tokio.rs",
        uses: &["std::process", IO, "tokio"],
        why: "the handle of a command on the reactor of tokio, and a thread for the launch",
    },
    Place {
        path: "src/launch/stdio.rs",
        uses: &["nix", "std::fs", "std::net", "std::os", "std::process"],
        why: "opens pipes and /dev/null for the standard streams of a command",
    },
    Place {
        path: "src/launch/subordinate.rs",
        uses: &["nix", "std::fs"],
        why: "reads subordinate ids and searches for the mapping tools",
    },
    Place {
        path: "src/launch/getsubids.rs",
        uses: &["nix", "std::os", "std::process"],
        why: "runs getsubids(1), which lists subordinate ids",
    },
    Place {
        path: "src/launch/cgroup.rs",
        uses: &["nix", "std::fs"],
        why: "opens the files through which the command enters its cgroups",
    },
    Place {
        path: "src/launch/pin.rs",
        uses: &["nix", "std::fs"],
        why: "creates and removes the files of pinned namespaces, and unmounts them",
    },
    Place {
        path: "src/launch/sys_mounts.rs",
        uses: &["std::fs", "libc"],
        why: "the mounts at and below /sys, before a launch that mounts a new one",
    },
    Place { path: "src/launch/mounts.rs", uses: &["std::fs"], why: "whether the sources of mounts exist" },
    Place {
        path: "src/launch/build.rs",
        uses: &["libc"],
        why: "the number of one errno; its effects are in the files that it calls",
    },
    Place {
        path: "src/launch/command.rs",
        uses: &[IO, "std::process"],
        why: "names the types of std's results",
    },
    Place {
        path: "src/launch/shared.rs",
        uses: &["libc", "nix", "std::process"],
        why: "the stack of a process that shares the memory; aborts if that process cannot be ended; reads whether \
              this program is dumpable, and its pid",
    },
    Place {
        path: "src/launch/supervise.rs",
        uses: &["libc", "nix", IO, "std::process", "std::time::Instant"],
        why: "supervision: waits for the command, sends signals to it, handles signals",
    },
    Place {
        path: "src/launch/query.rs",
        uses: &["libc", "nix", "std::fs", "std::process", EXTERN],
        why: "queries about processes, descriptors and namespaces",
    },
    Place {
        path: "src/launch/causes/read.rs",
        uses: &["nix", "std::fs", "std::process"],
        why: "reads the facts about this user and this machine, for the cause of a failure and for a report",
    },
    Place {
        path: "src/launch/sealed.rs",
        uses: &[ENV, EXTERN],
        why: "reads the environment as the libc has it, and removes the mark of a copy",
    },
    // The libraries around it.
    Place {
        path: "crates/nsexec-capi/src/lib.rs",
        uses: &["libc", ASM],
        why: "memory of C, exit after a panic, a symbol that the linker needs",
    },
    Place {
        path: "crates/nsexec-audit/src/record/shared.rs",
        uses: &["nix"],
        why: "the memory to which all recorded processes write",
    },
    Place {
        path: "crates/nsexec-audit/src/witness/mod.rs",
        uses: &["std::fs"],
        why: "marks the run for strace, and reads the files of strace",
    },
    Place {
        path: "crates/nsexec-audit/src/attest/mod.rs",
        uses: &["std::thread"],
        why: "a thread that reads the state of the new process while the launch waits",
    },
    Place {
        path: "crates/nsexec-audit/src/attest/hand_over.rs",
        uses: &["nix", "std::net", "std::os"],
        why: "lets the new process wait while its state is read",
    },
    Place {
        path: "crates/nsexec-audit/src/attest/read.rs",
        uses: &["nix", "std::fs"],
        why: "reads the state of a process in /proc",
    },
    Place {
        path: "crates/nsexec-audit/src/machine/caller.rs",
        uses: &["nix", "std::fs"],
        why: "reads the facts about the caller: ids, account, subordinate ids, mapping tools",
    },
    Place {
        path: "crates/nsexec-audit/src/machine/joins.rs",
        uses: &["nix", "std::fs"],
        why: "looks at the namespaces to join",
    },
    Place {
        path: "crates/nsexec-audit/src/machine/proc.rs",
        uses: &["nix", "std::fs", "std::process"],
        why: "reads the state of /proc",
    },
    Place {
        path: "crates/nsexec-audit/src/machine/read.rs",
        uses: &["nix", "std::fs"],
        why: "reads the facts of this machine for a plan",
    },
    Place {
        path: "crates/nsexec-audit/src/machine/search.rs",
        uses: &["nix", "std::fs", IO],
        why: "looks at the files that a command needs",
    },
    // The program.
    Place {
        path: "crates/nsexec-cli/src/before_start.rs",
        uses: &["nix", "std::fs", "std::process"],
        why: "writes the pid for a script, and waits for it, before the command starts",
    },
    Place {
        path: "crates/nsexec-cli/src/request/around.rs",
        uses: &["std::env"],
        why: "the working directory of the caller, which the command keeps",
    },
    Place {
        path: "crates/nsexec-cli/src/run.rs",
        uses: &["nix", "std::fs", "std::process"],
        why: "reads the effective ids, checks that the files exist on which namespaces are mounted, and whether /proc shows this process",
    },
    Place {
        path: "crates/nsexec-cli/src/decode/mod.rs",
        uses: &[IO, "std::fs"],
        why: "reads the message to decode",
    },
    Place {
        path: "crates/nsexec-cli/src/enter.rs",
        uses: &["nix", "std::fs"],
        why: "reads the effective user id, compares a file with the own namespace",
    },
    Place {
        path: "crates/nsexec-cli/src/joins.rs",
        uses: &["nix"],
        why: "compares the file of a namespace with the own namespace",
    },
    Place {
        path: "crates/nsexec-cli/src/linked/unshare.rs",
        uses: &["nix"],
        why: "reads the effective ids for -c",
    },
    Place {
        path: "crates/nsexec-cli/src/linked/nsenter.rs",
        uses: &["std::fs"],
        why: "checks whether SELinux is active, for -Z",
    },
    Place {
        path: "crates/nsexec-cli/src/linked/wait.rs",
        uses: &["nix", "std::process"],
        why: "waits for the command with the caller's signal mask, and ends by the signal of the command",
    },
    Place {
        path: "crates/nsexec-cli/src/place.rs",
        uses: &["nix", "std::fs"],
        why: "opens the directories and the cgroup of the process to enter",
    },
    Place {
        path: "crates/nsexec-cli/src/init.rs",
        uses: &["nix"],
        why: "closes the log pipe before the command",
    },
    Place {
        path: "crates/nsexec-cli/src/main.rs",
        uses: &["std::fs"],
        why: "opens closed descriptors 0 to 2, reads the name of its own file",
    },
    Place { path: "crates/nsexec-cli/src/output.rs", uses: &[IO, "std::fs"], why: "writes the output" },
    Place {
        path: "crates/nsexec-cli/src/plan.rs",
        uses: &["terminal_size"],
        why: "queries the width of the terminal",
    },
    Place { path: "crates/nsexec-cli/src/config.rs", uses: &["std::fs"], why: "reads a configuration" },
    Place { path: "crates/nsexec-cli/src/show.rs", uses: &["std::fs", "std::io"], why: "reads a saved run" },
    Place {
        path: "crates/nsexec-cli/src/start.rs",
        uses: &["nix"],
        why: "the start of the process: limit of the stack, end without memory",
    },
    Place {
        path: "crates/nsexec-cli/src/target.rs",
        uses: &["nix", "std::fs", "std::process"],
        why: "opens the process to enter",
    },
    Place {
        path: "crates/nsexec-cli/src/trace.rs",
        uses: &["nix", "std::fs"],
        why: "writes the record to the process that compares it, and ends with strace",
    },
    Place {
        path: "crates/nsexec-cli/src/trace_witness.rs",
        uses: &[ENV, "nix", "std::fs", "std::thread"],
        why: "reads the lines of strace through pipes with a name",
    },
];

/// Returns every use of a way to the kernel outside the listed files, and every entry of the list without a
/// use.
pub(crate) fn violations(sources: &[Source], places: &[Place]) -> Vec<String> {
    let modules: Vec<String> = sources.iter().map(Source::module).collect();
    let mut found = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for source in sources {
        let place = places.iter().find(|place| contains(place, &source.path));
        for (line, way) in ways(source, &modules) {
            match place.filter(|place| place.uses.contains(&way)) {
                Some(place) => seen.push((place.path, way)),
                None => found.push(format!(
                    "{}:{line}: `{way}`, outside of `Sys` and of PLACES in tests/house/effects.rs",
                    source.path
                )),
            }
        }
    }
    for place in places {
        if place.why.is_empty() {
            found.push(format!("{}: PLACES has no reason", place.path));
        }
        let unused = place.uses.iter().filter(|way| !seen.contains(&(place.path, **way)));
        found.extend(unused.map(|way| format!("{}: PLACES allows `{way}`, which is not used", place.path)));
    }
    found
}

/// Checks that the core is not in the list, and that docs/design.md names the files of the launcher.
pub(crate) fn documented(places: &[Place], design: &str) -> Vec<String> {
    let root = places.iter().filter(|place| place.path.starts_with("src/"));
    let mut found = Vec::new();
    for place in root {
        let edge = ["src/sys/linux/", "src/entry.rs"].contains(&place.path);
        if !edge && !place.path.starts_with("src/launch/") {
            found.push(format!("{}: the core has effects through `Sys` only", place.path));
        }
        if !design.contains(&format!("`{}`", place.path)) {
            found.push(format!("{}: docs/design.md does not name it", place.path));
        }
    }
    found
}

fn contains(place: &Place, path: &str) -> bool {
    place.path == path || place.path.ends_with('/') && path.starts_with(place.path)
}

/// Returns the ways to the kernel that a file uses, with their lines.
fn ways(source: &Source, modules: &[String]) -> Vec<(usize, &'static str)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (line, path) in references(source, modules).into_iter().filter(|(_, path)| path_is_foreign(path)) {
        // `use std as other` and `use std::*` hide the part that is used. `extern crate std` does not.
        let declared = code.lines().nth(line - 1).is_some_and(|line| line.contains("extern crate std;"));
        found.extend((path == "std" && !declared).then_some((line, "std::fs")));
        let begins = |way: &&&str| {
            path.strip_prefix(**way).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if PURE.iter().any(|pure| begins(&pure)) {
            continue;
        }
        let way = WAYS.iter().find(begins).copied();
        let function = |way: &&str| {
            let names = FUNCTIONS.iter().find(|(module, _)| module == way).map(|(_, names)| *names);
            // The module alone is not a use; `env::current_dir` below is.
            names.is_none_or(|names| {
                names.iter().any(|name| path.strip_prefix(*way) == Some(&format!("::{name}")))
            })
        };
        found.extend(way.filter(function).map(|way| (line, way)));
    }
    for method in PATH_METHODS {
        // As a method, or as a function of the type.
        let calls = words(code, method).filter(|at| {
            code[..*at].ends_with('.') && code[at + method.len()..].starts_with("()")
                || code[..*at].ends_with("Path::") && code[at + method.len()..].starts_with('(')
        });
        found.extend(calls.map(|at| (line_of(code, at), "std::fs")));
    }
    // The crates under another name: an argument of a macro, or a name that other files import.
    for name in ["libc", "nix"] {
        let alone = words(code, name).filter(|at| !code[at + name.len()..].starts_with("::"));
        found.extend(alone.map(|at| (line_of(code, at), name)));
        let lines = code
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.trim_start().starts_with("pub") && line.contains(" use "));
        found.extend(
            lines.filter(|(line, _)| words(line, name).next().is_some()).map(|(_, line)| (line, INCLUDE)),
        );
    }
    for (name, way) in [
        ("include", INCLUDE),
        ("print", PRINT),
        ("println", PRINT),
        ("eprint", PRINT),
        ("eprintln", PRINT),
        ("dbg", PRINT),
    ] {
        let uses = words(code, name).filter(|at| code[at + name.len()..].starts_with('!'));
        found.extend(uses.map(|at| (line_of(code, at), way)));
    }
    for (module, names) in FUNCTIONS {
        let last = module.rsplit("::").next().unwrap_or_default();
        for name in *names {
            // The full path is found above.
            let text = format!("{last}::{name}");
            let uses = code.match_indices(&text).map(|(at, _)| at);
            let uses = uses.filter(|at| !code[..*at].ends_with("::"));
            found.extend(uses.map(|at| (line_of(code, at), *module)));
        }
    }
    // Unit tests may be in another file; they are not in `code`.
    found.extend(code.match_indices("#[path").map(|(at, _)| (line_of(code, at), INCLUDE)));
    // The text of a string is `_`: `extern "C" {` reads `extern ___ {`.
    let blocks = words(code, "extern")
        .filter(|at| code[at + "extern".len()..].trim_start_matches([' ', '\n', '_']).starts_with('{'));
    found.extend(blocks.map(|at| (line_of(code, at), EXTERN)));
    for name in ["asm", "global_asm", "naked_asm"] {
        let uses = words(code, name).filter(|at| code[at + name.len()..].starts_with('!'));
        found.extend(uses.map(|at| (line_of(code, at), ASM)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[Place] = &[Place { path: "src/launch/a.rs", uses: &["libc"], why: "queries" }];

    fn check(path: &str, code: &str) -> Vec<String> {
        let mut found = violations(&[Source::new(path, code)], LISTED);
        found.retain(|line| !line.contains("is not used"));
        found
    }

    #[test]
    fn effect_outside_the_list_is_found() {
        for code in [
            "use libc::close;",
            "use nix::{fcntl::open};",
            "fn f() { unsafe { libc::close(0) }; }",
            "fn f() { nix::unistd::close(0); }",
            "use std::fs;",
            "use std::{env, fs::File};",
            "use std::os::unix::net::UnixStream;",
            "fn f() { std::process::exit(1) }",
            "fn f() { std::net::TcpListener::bind(a); }",
            "use std::thread;",
            "use std as other;",
            "use std::*;",
            "fn f(a: &Path) -> bool { a.exists() }",
            "unsafe extern \"C\" { fn close(fd: i32) -> i32; }",
            "fn f() { core::arch::asm!(\"syscall\") }",
            "use std::os::unix::fs::chroot;",
            "use std::os::unix::process::parent_id;",
            "fn f() { std::env::set_current_dir(a); }",
            "use std::env;\nfn f() { env::current_exe(); }",
            "use std::io::{self, Write};\nfn f() { io::stdout(); }",
            "use std::io::stdin;",
            "use std::time::Instant;\nfn f() { Instant::now(); }",
            "fn f(p: &Path) -> bool { std::path::Path::exists(p) }",
            "fn f() { call!(libc) }",
            "include!(\"more.inc\");",
            "#[path = \"../more.rs\"]\nmod more;",
            "fn f() { eprintln!(\"a\"); }",
        ] {
            for path in ["src/scripts/sync.rs", "src/launch/b.rs", "crates/nsexec-cli/src/run.rs"] {
                assert_eq!(check(path, code).len(), 1, "{path}: {code}");
            }
        }
        assert_eq!(
            check("src/scripts/sync.rs", "\nuse std::fs;"),
            ["src/scripts/sync.rs:2: `std::fs`, outside of `Sys` and of PLACES in tests/house/effects.rs"]
        );
    }

    #[test]
    fn other_code_is_not_an_effect() {
        for code in [
            "use std::{env, ffi::CString}; use core::fmt; extern crate std;",
            "// libc::close\nconst A: &str = \"std::fs\";",
            "use super::process::Task; fn f(fs: &Fs) { fs.exists; sys.close(fd); }",
            "pub extern \"C\" fn f() {}",
            "#[cfg(test)]\nmod tests { use std::fs; }",
        ] {
            assert!(check("crates/nsexec-audit/src/sim/files.rs", code).is_empty(), "{code}");
        }
    }

    #[test]
    fn listed_file_has_the_listed_effects_only() {
        assert!(check("src/launch/a.rs", "use libc::close;").is_empty());
        assert_eq!(check("src/launch/a.rs", "pub(crate) use libc as door;").len(), 1);
        assert_eq!(check("src/launch/a.rs", "use nix::unistd::close;").len(), 1);
        assert_eq!(
            violations(&[Source::new("src/launch/a.rs", "")], LISTED),
            ["src/launch/a.rs: PLACES allows `libc`, which is not used"]
        );
    }

    #[test]
    fn core_file_and_undocumented_file_in_the_list_are_found() {
        assert!(documented(LISTED, "| `src/launch/a.rs` | queries |").is_empty());
        assert_eq!(documented(LISTED, ""), ["src/launch/a.rs: docs/design.md does not name it"]);
        let core = [Place { path: "src/scripts/sync.rs", uses: &["libc"], why: "none" }];
        assert_eq!(documented(&core, "`src/scripts/sync.rs`").len(), 1);
    }
}
