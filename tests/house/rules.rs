//! The other rules: sizes, names, unsafe, statics, documented processes, lints, snapshots, deviations.
//!
//! Each rule is a function from text to violations, one line each, so that a test can break it.

use std::collections::HashSet;

use crate::imports;
use crate::source::{Source, item_end, line_of, words};

/// The maximum of code lines in a file (docs/design.md).
pub(crate) const FILE_LINES_MAX: usize = 400;

/// The maximum of code lines in a function: one screen.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// Module names that mean nothing, and names that shadow a crate.
const BANNED_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "misc", "core", "std", "alloc"];

/// The files that may contain `unsafe`: the backend, and the modules that construct it.
const UNSAFE_FILES: &[&str] = &[
    "src/sys/linux/",
    "src/entry.rs",
    "crates/nsexec-capi/src/lib.rs",
    "src/sys/types.rs",
    "src/launch/direct.rs",
    "src/launch/direct_process_tests.rs",
    "src/launch/shared.rs",
    "src/launch/spawn.rs",
    "src/launch/getsubids.rs",
    "src/launch/handle.rs",
    "src/launch/settings.rs",
    "src/launch/stdio.rs",
    "src/launch/supervise.rs",
    "src/launch/query.rs",
    "src/launch/sealed.rs",
    "crates/nsexec-cli/src/before_start.rs",
    "crates/nsexec-cli/src/start.rs",
    "crates/nsexec-audit/src/attest/mod.rs",
    "crates/nsexec-audit/src/record/shared.rs",
];

/// The files with scripts, whose documentation names the process that runs them.
const SCRIPT_FILES: &[&str] = &[
    "src/scripts/stage/",
    "src/legacy/",
    "src/cloned/mod.rs",
    "src/scripts/nsexec.rs",
    "src/launch/script.rs",
    "src/launch/tail.rs",
    "src/scripts/join.rs",
    "src/scripts/map_files.rs",
    "src/scripts/mapping_tool.rs",
];

/// A file with a limit of its own: the implementation of one trait cannot be divided among files. Each of its
/// methods is one system call.
const LONG_FILES: &[(&str, usize)] = &[("src/sys/linux/mod.rs", 600)];

/// Checks that no file and no function is longer than its limit.
pub(crate) fn sizes(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.code_lines();
    let own = LONG_FILES.iter().find(|(path, _)| *path == source.path);
    let most = own.map_or(FILE_LINES_MAX, |(_, most)| *most);
    if lines > most {
        found.push(format!("{}: {lines} lines of code, more than {most}", source.path));
    }
    for (at, name) in functions(&source.code) {
        let body = &source.code[at..item_end(&source.code, at)];
        let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(&source.code, at);
            let path = &source.path;
            found.push(format!("{path}:{line}: `{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}"));
        }
    }
    found
}

/// Returns every `fn NAME` with its position.
fn functions(code: &str) -> impl Iterator<Item = (usize, &str)> {
    words(code, "fn").filter_map(|at| {
        let name = code[at + 2..].trim_start();
        let len = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        (len > 0).then(|| (at, &name[..len]))
    })
}

/// Checks that no module name is meaningless or shadows a crate.
pub(crate) fn names(source: &Source) -> Vec<String> {
    let inside = source.path.split_once("src/").map_or(source.path.as_str(), |(_, inside)| inside);
    let files = inside.trim_end_matches(".rs").split('/');
    let inline = words(&source.code, "mod").filter_map(|at| source.code[at + 3..].split_whitespace().next());
    let inline = inline.map(|name| name.trim_end_matches(';'));
    let banned = |name: &&str| BANNED_NAMES.contains(name);
    files
        .chain(inline)
        .filter(banned)
        .map(|name| format!("{}: a module named `{name}`", source.path))
        .collect()
}

/// Checks that `unsafe` is in the allowed files only. SECURITY.md must list each of these files, and all
/// statics.
pub(crate) fn unsafety(source: &Source, security: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(at) = words(&source.code, "unsafe").next() {
        let line = line_of(&source.code, at);
        if !UNSAFE_FILES.iter().any(|allowed| source.path.starts_with(allowed)) {
            found.push(format!("{}:{line}: unsafe", source.path));
        } else if !security.contains(&format!("`{}`", source.path)) {
            found.push(format!("{}:{line}: unsafe, and not on the list in SECURITY.md", source.path));
        }
    }
    for at in words(&source.code, "static") {
        // `&'static` is a lifetime.
        let mut words = source.code[at..].split_whitespace().skip(1).skip_while(|word| *word == "mut");
        let name = words.next().unwrap_or_default().trim_end_matches(':');
        if !source.code[..at].ends_with('\'') && !security.contains(&format!("`{name}`")) {
            let line = line_of(&source.code, at);
            found.push(format!("{}:{line}: static `{name}` is not on the list in SECURITY.md", source.path));
        }
    }
    found
}

/// Checks that the documentation of every script has a sentence that begins with "Runs in" or "Runs as".
pub(crate) fn documented_process(source: &Source) -> Vec<String> {
    if !SCRIPT_FILES.iter().any(|file| source.path.starts_with(file)) {
        return Vec::new();
    }
    let raw: Vec<&str> = source.raw.lines().collect();
    let scripts = functions(&source.code).filter(|(at, _)| {
        let head = &source.code[*at..];
        let head = &head[..head.find('{').unwrap_or(head.len())];
        // Only free public functions: the caller of a method documents its process.
        source.code[..*at].ends_with("\npub ") && (head.contains(": Sys") || head.contains("impl Sys"))
    });
    scripts
        .filter(|(at, _)| {
            let above = raw[..line_of(&source.code, *at) - 1].iter().rev();
            let doc = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
            let mut lines: Vec<&str> = doc.filter_map(|line| line.strip_prefix("///")).collect();
            lines.reverse();
            !names_its_process(&lines)
        })
        .map(|(at, name)| {
            let line = line_of(&source.code, at);
            let path = &source.path;
            format!("{path}:{line}: the documentation of script `{name}` has no sentence `Runs in …` or `Runs as …`")
        })
        .collect()
}

/// Returns true if a sentence begins with "Runs in" or "Runs as".
///
/// A sentence begins at the start of a paragraph, or after a full stop.
fn names_its_process(doc: &[&str]) -> bool {
    let mut before = "";
    let words = doc.iter().flat_map(|line| match line.trim() {
        "" => vec!["."],
        line => line.split_whitespace().collect(),
    });
    let words: Vec<&str> = words.collect();
    words.windows(2).any(|pair| {
        let begins = before.is_empty() || before.ends_with(['.', '!', '?']);
        before = pair[0];
        begins && matches!(pair, ["Runs", "in" | "as"])
    })
}

/// The lints of the core: no panic, no silent truncation, no arithmetic that wraps.
const CORE_LINTS: &[&str] = &[
    "unwrap_used",
    "expect_used",
    "indexing_slicing",
    "as_conversions",
    "arithmetic_side_effects",
    "panic",
    "unreachable",
    "todo",
];

/// Checks that `lib.rs` denies the lints of the core, and that no module of the core has an exception.
pub(crate) fn lints(sources: &[Source], lib: &str) -> Vec<String> {
    let denied =
        lib.split_once("deny(").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(list, _)| list);
    let missing = CORE_LINTS.iter().filter(|lint| !denied.contains(&format!("clippy::{lint}")));
    let mut found: Vec<String> =
        missing.map(|lint| format!("src/lib.rs: clippy::{lint} is not denied")).collect();
    let core = sources.iter().filter(|source| imports::row(&source.module()).is_some_and(|row| row.core));
    for source in core {
        let module = source.module();
        // The text between the previous item and the module's declaration.
        let before =
            lib.split(';').find(|item| item.ends_with(&format!("pub mod {module}"))).unwrap_or_default();
        if before.contains("allow(") {
            found.push(format!("src/lib.rs: an exception for `{module}`"));
        }
        for lint in CORE_LINTS.iter().filter(|lint| source.code.contains(&format!("clippy::{lint}"))) {
            found.push(format!("{}: an exception from clippy::{lint}", source.path));
        }
    }
    found
}

/// Checks that modules without `Sys` in the table have no effects.
pub(crate) fn effects(source: &Source) -> Vec<String> {
    if imports::may_use_sys(&source.module()) {
        return Vec::new();
    }
    let calls = words(&source.code, "sys").filter(|at| source.code[at + 3..].starts_with('.'));
    calls.map(|at| format!("{}:{}: a call on `sys`", source.path, line_of(&source.code, at))).collect()
}

/// The files that may each call the C library's variadic `syscall` once: the backend, the test of the
/// argument widths, and the test that makes a Landlock rule set, for which the libc has no function.
const VARIADIC_FILES: &[&str] = &[
    "src/sys/linux/raw.rs",
    "tests/linux_sys.rs",
    "tests/chaos/family.rs",
    "tests/command/attributes.rs",
    "tests/command/session.rs",
    "tests/fallbacks/main.rs",
];

/// Checks that only `syscall!` calls libc's variadic `syscall`, which leaves the upper half of an `int`
/// undefined.
pub(crate) fn variadic(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut calls: Vec<usize> = code.match_indices("libc::syscall").map(|(at, _)| at).collect();
    calls.extend(words(code, "use").filter(|at| {
        let list = code[at + 3..].split(';').next().unwrap_or_default().trim_start();
        list.strip_prefix("libc::{").is_some_and(|list| words(list, "syscall").next().is_some())
    }));
    let allowed = usize::from(VARIADIC_FILES.contains(&source.path.as_str()));
    calls
        .iter()
        .skip(allowed)
        .map(|at| format!("{}:{}: the variadic libc::syscall", source.path, line_of(code, *at)))
        .collect()
}

/// Checks that the program writes only through its module that guards writes against SIGXFSZ.
pub(crate) fn outputs(source: &Source) -> Vec<String> {
    const WRITERS: &[&str] =
        &["io::stdout()", "io::stderr()", "fs::write(", "File::create(", "println!", "print!"];
    if !source.path.starts_with("crates/nsexec-cli/src/") || source.path.ends_with("/output.rs") {
        return Vec::new();
    }
    let places = WRITERS.iter().filter_map(|writer| Some((writer, source.code.find(writer)?)));
    places
        .map(|(writer, at)| {
            let line = line_of(&source.code, at);
            format!("{}:{line}: `{writer}`, and not in output.rs", source.path)
        })
        .collect()
}

/// Checks that a test names every snapshot, whole or by the text before the first value of a `format!`.
pub(crate) fn snapshots(stems: &[String], tests: &str) -> Vec<String> {
    // Each text that follows a quote, to the next quote or to the first brace of a format.
    let follows: Vec<&str> = tests.split('"').skip(1).collect();
    let names: HashSet<&str> = follows.iter().copied().collect();
    let starts: HashSet<&str> =
        follows.iter().filter_map(|text| text.split_once('{')).map(|(start, _)| start).collect();
    // A prefix of one letter would match everything.
    let named = |stem: &str| {
        names.contains(stem) || stem.char_indices().skip(3).any(|(at, _)| starts.contains(&stem[..at]))
    };
    stems
        .iter()
        .filter(|stem| !named(stem))
        .map(|stem| format!("snapshots/{stem}.snap: no test names it"))
        .collect()
}

/// Every relative link of a page has a target, and its anchor is a heading of the target. Rust and Python
/// also name pages in comments and texts, as `docs/NAME.md#anchor`.
///
/// `read` returns the text of a file by its path from the root, and `""` for a folder.
pub(crate) fn links(path: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_markdown = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
    let in_markdown = in_markdown.filter(|_| path.ends_with(".md")).map(|target| resolve(folder, target));
    let end = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '#' | '/' | '.'));
    let in_text = ["docs/", "SECURITY.md#", "README.md#"].into_iter().flat_map(|start| {
        let targets = words_from(text, start).map(move |at| text[at..].split(end).next().unwrap_or_default());
        targets.filter(|target| target.contains(".md#")).map(|target| target.trim_end_matches('.').to_owned())
    });
    let in_text = in_text.filter(|_| !path.ends_with(".md"));
    let mut found = Vec::new();
    for target in in_markdown.chain(in_text) {
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        // A URL, or a variable in code.
        if file.contains(':') || file.contains('$') {
            continue;
        }
        let page = if file.is_empty() { Some(text.to_owned()) } else { read(file) };
        match page {
            None => found.push(format!("{path}: {file} does not exist")),
            Some(page) if !anchor.is_empty() && !anchors(&page).any(|found| found == anchor) => {
                found.push(format!("{path}: {target}: no heading has this anchor"));
            }
            Some(_) => {}
        }
    }
    found
}

/// Returns the places where a path begins with `start`.
fn words_from<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = usize> + 't {
    let inside =
        |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '.'));
    text.match_indices(start).map(|(at, _)| at).filter(move |at| !inside(&text[..*at]))
}

/// Returns the path of a link from the root, with its anchor.
fn resolve(folder: &str, target: &str) -> String {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    if file.is_empty() || file.contains(':') {
        return target.to_owned();
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    let hash = if anchor.is_empty() { "" } else { "#" };
    format!("{}{hash}{anchor}", parts.join("/"))
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    page.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Each method of `Sys` is mentioned in the suites that have a case for each call.
pub(crate) fn covered_calls(methods: &[&str], suites: &[(&str, String)]) -> Vec<String> {
    let missing = |method: &&str, text: &str| words(text, method).next().is_none();
    let lines = methods.iter().flat_map(|method| {
        let without = suites.iter().filter(|(_, text)| missing(method, text));
        without.map(move |(suite, _)| format!("{suite}: no case for the call `{method}` of Sys"))
    });
    lines.collect()
}

/// The names of package archives and registries. The machine's own configuration has them.
pub(crate) fn hosts(path: &str, text: &str) -> Vec<String> {
    // Written in two parts, since this file is checked too.
    const HOSTS: &[(&str, &str)] = &[
        ("debian", ".org"),
        ("debian", ".net"),
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("static.rust-lang", ".org"),
        ("index.crates", ".io"),
        ("static.crates", ".io"),
        ("proxy.golang", ".org"),
        ("registry.npmjs", ".org"),
        ("ubuntu", ".com"),
    ];
    let found =
        HOSTS.iter().map(|(name, end)| format!("{name}{end}")).filter(|host| text.contains(host.as_str()));
    found.map(|host| format!("{path}: the host name {host}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let body = "    let a = 1;\n".repeat(FUNCTION_LINES_MAX - 2);
        let fits = format!("/// A\n\n\nfn f() {{\n{body}}}\n");
        assert!(sizes(&Source::new("src/a.rs", &fits)).is_empty());
        let long = format!("fn f() {{\n{body}    let b = 1;\n}}\n");
        assert_eq!(sizes(&Source::new("src/a.rs", &long)), ["src/a.rs:1: `f` has 71 lines, more than 70"]);
        assert_eq!(sizes(&Source::new("src/a.rs", &"const A: u8 = 1;\n".repeat(401))).len(), 1);
        let comments = "// A\n\n".repeat(500);
        assert!(sizes(&Source::new("src/a.rs", &comments)).is_empty());
    }

    #[test]
    fn a_banned_name_is_found() {
        assert!(names(&Source::new("src/launch/spawn.rs", "mod tests {}")).is_empty());
        assert_eq!(names(&Source::new("src/utils.rs", "")).len(), 1);
        assert_eq!(names(&Source::new("src/core/mod.rs", "")).len(), 1);
        assert_eq!(names(&Source::new("src/a.rs", "pub mod helpers;")).len(), 1);
    }

    #[test]
    fn unsafe_is_found_where_it_may_not_be() {
        let code = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nfn f() { unsafe { g() } }";
        assert_eq!(
            unsafety(&Source::new("src/scripts/sync.rs", code), ""),
            ["src/scripts/sync.rs:3: unsafe"]
        );
        assert_eq!(unsafety(&Source::new("src/entry.rs", code), "").len(), 1);
        assert!(unsafety(&Source::new("src/entry.rs", code), "| `src/entry.rs` |").is_empty());
        assert!(
            unsafety(&Source::new("src/scripts/sync.rs", "// unsafe\nconst A: &str = \"unsafe\";"), "")
                .is_empty()
        );
    }

    #[test]
    fn a_static_is_found() {
        let code = "fn f() -> &'static str { X }\nstatic MEMORY: u8 = 0;";
        assert_eq!(unsafety(&Source::new("src/a.rs", code), "").len(), 1);
        assert!(unsafety(&Source::new("src/a.rs", code), "`MEMORY`").is_empty());
    }

    #[test]
    fn a_script_without_a_documented_process_is_found() {
        let child = |doc: &str| {
            let code = format!("\n{doc}#[must_use]\npub fn run<'m, S: Sys>(sys: &mut S) {{}}\n");
            documented_process(&Source::new("src/scripts/stage/child.rs", &code))
        };
        assert!(child("/// Joins.\n///\n/// Runs in stage 1.\n").is_empty());
        assert!(child("/// Joins. Runs\n/// as stage 1.\n").is_empty());
        assert!(child("/// Runs in stage 1.\n").is_empty());
        for silent in
            ["/// Runs.\n", "/// Runs.\n/// It Runs in stage 1.\n", "/// Runs in stage 1.\nfn a() {}\n", ""]
        {
            assert_eq!(child(silent).len(), 1, "{silent}");
        }
        let silent = "\npub fn run<S: Sys>(sys: &mut S) {}\n";
        assert!(documented_process(&Source::new("src/scripts/pipe.rs", silent)).is_empty());
        assert!(
            documented_process(&Source::new("src/scripts/stage/init.rs", "\npub fn decide(a: u8) {}\n"))
                .is_empty()
        );
    }

    #[test]
    fn an_exception_from_the_lints_is_found() {
        let deny = CORE_LINTS.iter().map(|lint| format!("clippy::{lint},\n")).collect::<String>();
        let lib = |rest: &str| format!("#![cfg_attr(not(test), deny({deny}))]\nuse a;\n{rest}");
        let sync = |code| [Source::new("src/scripts/sync.rs", code)];
        assert!(lints(&sync(""), &lib("pub mod sync;")).is_empty());
        assert_eq!(lints(&sync(""), "pub mod sync;").len(), CORE_LINTS.len());
        assert_eq!(lints(&sync(""), &lib("#[allow(clippy::panic)]\npub mod sync;")).len(), 1);
        assert_eq!(lints(&sync("#[allow(clippy::panic)]\nfn f() {}"), &lib("pub mod sync;")).len(), 1);
    }

    #[test]
    fn effect_in_a_pure_module_is_found() {
        let code = "fn f(sys: &mut S) { sys.close(fd) }";
        assert_eq!(
            effects(&Source::new("src/words/json.rs", code)),
            ["src/words/json.rs:1: a call on `sys`"]
        );
        assert!(effects(&Source::new("src/scripts/sync.rs", code)).is_empty());
    }

    #[test]
    fn a_variadic_system_call_is_found() {
        let call = "fn f() { libc::syscall(libc::SYS_close, 3) }";
        assert_eq!(variadic(&Source::new("src/a.rs", call)), ["src/a.rs:1: the variadic libc::syscall"]);
        for import in ["use libc::syscall;", "use libc::{c_int, syscall};"] {
            assert_eq!(variadic(&Source::new("tests/a.rs", import)).len(), 1, "{import}");
        }
        let backend = |code: &str| variadic(&Source::new("src/sys/linux/raw.rs", code)).len();
        assert_eq!([backend(call), backend(&format!("{call}{call}"))], [0, 1]);
        let other =
            "use libc::{c_int}; use raw::syscall; fn f() { syscall!(libc::SYS_close, 3) } // libc::syscall";
        assert!(variadic(&Source::new("src/a.rs", other)).is_empty());
    }

    #[test]
    fn write_outside_output_rs_is_found() {
        let code = "fn f() { let _ = writeln!(io::stderr(), \"x\"); }";
        assert_eq!(outputs(&Source::new("crates/nsexec-cli/src/run.rs", code)).len(), 1);
        assert!(outputs(&Source::new("crates/nsexec-cli/src/output.rs", code)).is_empty());
        let fine = "fn f() { output::complain(format_args!(\"x\")); }";
        assert!(outputs(&Source::new("crates/nsexec-cli/src/run.rs", fine)).is_empty());
    }

    #[test]
    fn a_dead_snapshot_is_found() {
        let tests = "assert_snapshot!(\"plan\", x); format!(\"vector_{name}\")";
        let stems = ["plan", "vector_01", "plans", "vect"].map(str::to_owned);
        assert_eq!(snapshots(&stems, tests).len(), 2);
    }

    #[test]
    fn a_dead_link_is_found() {
        let text =
            "[a](docs/a.md#the-top) [b](https://example.org/) [c](docs/c.md) [d](docs/a.md#end) [e](#no)";
        let read = |file: &str| (file == "docs/a.md").then(|| "# A\n## The `top`\n".to_owned());
        assert_eq!(
            links("README.md", text, read),
            [
                "README.md: docs/c.md does not exist",
                "README.md: docs/a.md#end: no heading has this anchor",
                "README.md: #no: no heading has this anchor",
            ]
        );
        assert!(links("tests/README.md", "[a](../docs/a.md)", read).is_empty());
        assert!(links("src/a.rs", "// See docs/a.md#the-top.", read).is_empty());
        assert_eq!(links("src/a.rs", "// See `docs/a.md#end`", read).len(), 1);
    }

    #[test]
    fn a_call_without_a_case_is_found() {
        let suites = [("tests/a.rs", "sys.close(fd)".to_owned())];
        assert!(covered_calls(&["close"], &suites).is_empty());
        assert_eq!(covered_calls(&["clos"], &suites), ["tests/a.rs: no case for the call `clos` of Sys"]);
    }

    #[test]
    fn a_host_of_an_archive_is_found() {
        let line = ["http://deb.debian", ".org/debian"].concat();
        assert_eq!(hosts("tests/a.py", &line).len(), 1);
        assert!(hosts("tests/a.py", "apt-get indextargets").is_empty());
    }
}
