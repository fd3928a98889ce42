//! Which module may import which: the table of docs/design.md as data, and its check.
//!
//! A module without a row fails, so that every new module gets a place in the table.

use crate::source::{Source, line_of, without_ring, words};

/// The imports allowed to a group of modules, besides the modules themselves and the language's core library.
pub(crate) struct Row {
    /// Modules by path, or subtrees such as `stage::*`, which includes `stage`. The first row that matches
    /// applies.
    pub(crate) modules: &'static [&'static str],
    /// Modules, subtrees, items of a module, and other crates.
    pub(crate) may: &'static [&'static [&'static str]],
    /// True for the core, whose modules may not turn off a lint of [`crate::rules::CORE_LINTS`].
    pub(crate) core: bool,
}

/// Value types without effects.
const VALUES: &[&str] = &["sys::types", "sys::errno", "sys::signal", "sys::exec_args", "sys::surroundings"];

/// Values and pure functions. They do not use `Sys`.
const PURE: &[&str] = &[
    "bootstrap::*",
    "error::*",
    "idmap",
    "idmap::readback",
    "json",
    "legacy",
    "legacy::dialects",
    "legacy::environment",
    "legacy::errors",
    "legacy::mount_fds",
    "legacy::mount_sources",
    "log::Level",
    "log_level",
    "namespace",
    "namespace::paths",
    "policy",
    "timens",
    // What the core names of the folders behind features: plain values.
    "launch::Descriptors",
    "launch::LaunchPolicy",
    "launch::StageStep",
    "launch::policy",
    "launch::shared::First",
    "launch::shared::Stack",
    "launch::steps",
];

/// Modules whose functions use `Sys`, and are called by the stages.
const ACTING: &[&str] = &[
    "descriptors",
    "join",
    "log",
    "map_files",
    "mapping_tool",
    "pipe",
    "procfs",
    "sync",
    "sys",
    "unshare",
    "cloned",
];

const SCRIPTS: &[&str] = &[
    "launch::conclude",
    "launch::child",
    "launch::direct",
    "launch::fork",
    "launch::in_place",
    "launch::init",
    "launch::job",
    "launch::closing",
    "launch::last",
    "launch::number",
    "launch::offsets",
    "launch::outcome",
    "launch::persist",
    "launch::pipes",
    "launch::root",
    "launch::script",
    "launch::shape",
    "launch::stages",
    // The values of the last steps.
    "launch::surroundings",
    "launch::sysfs",
    "launch::tail",
    "launch::watch",
    "legacy::cgroup",
    "legacy::first_steps",
    "legacy::launcher",
    "legacy::rights",
    "legacy::seed",
    "legacy::sources",
    "nsexec",
    "stage::*",
];

/// The values and pure functions of the scripts' modules that the audit rules compare a run with.
const AUDITED: &[&str] = &[
    "descriptors::FIRST",
    "map_files::writes_deny",
    "launch::leaves_old_sys",
    "launch::pid_of_fdinfo",
    "launch::script::GO",
    "log::RECORD_MAX",
    "procfs::is_exiting",
    "sync::SyncMessage",
    "unshare::UNSHARE_TRIES",
];

const STD: &[&str] = &["std"];

/// The launcher's code outside of its scripts. The libc crate for its numbers: nix lacks some of them.
const LAUNCHER: &[&str] = &["launch::*", "sys::linux", "nix", "libc", "serde", "tokio"];

pub(crate) const TABLE: &[Row] = &[
    // serde: by derives alone, behind the feature of that name.
    Row { modules: VALUES, may: &[VALUES, &["serde"]], core: false },
    Row { modules: &["sys"], may: &[VALUES], core: false },
    Row { modules: &["sys::linux::*"], may: &[VALUES, &["sys", "sys::linux::*", "libc"]], core: false },
    Row { modules: &["policy", "launch::policy"], may: &[VALUES, PURE, STD, &["serde"]], core: true },
    Row { modules: PURE_MODULES, may: &[VALUES, PURE], core: true },
    Row { modules: &["log_level"], may: &[VALUES, &["serde"]], core: true },
    Row { modules: &["log"], may: &[VALUES, PURE, ACTING], core: true },
    Row { modules: ACTING_MODULES, may: &[VALUES, PURE, ACTING], core: true },
    Row { modules: &["nsexec", "stage::*"], may: &[VALUES, PURE, ACTING, SCRIPTS], core: true },
    // Its deciders are in `PURE_MODULES`.
    Row { modules: &["legacy::*"], may: &[VALUES, PURE, ACTING, SCRIPTS], core: true },
    // A decider: pure.
    Row { modules: &["launch::shape"], may: &[VALUES, PURE, &["serde"]], core: true },
    // Only scripts over `Sys`: they run between a fork and an exec.
    Row {
        modules: &[
            "launch::conclude",
            "launch::child",
            "launch::direct",
            "launch::fork",
            "launch::in_place",
            "launch::init",
            "launch::job",
            "launch::closing",
            "launch::last",
            "launch::number",
            "launch::offsets",
            "launch::outcome",
            "launch::persist",
            "launch::pipes",
            "launch::root",
            "launch::script",
            "launch::stages",
            "launch::sysfs",
            "launch::tail",
            "launch::watch",
        ],
        may: &[VALUES, PURE, ACTING, SCRIPTS, &["serde"]],
        core: true,
    },
    Row { modules: &["launch::*"], may: &[VALUES, PURE, ACTING, SCRIPTS, STD, LAUNCHER], core: false },
    Row { modules: &["entry"], may: &[VALUES, PURE, ACTING, SCRIPTS, &["sys::linux", "libc"]], core: false },
    // The root and the folders of the rings: declarations only.
    Row { modules: &["", "deciders", "scripts", "words"], may: &[STD, &["*"]], core: false },
    // The archive.
    Row {
        modules: &["nsexec_capi"],
        may: &[VALUES, PURE, ACTING, SCRIPTS, &["entry", "sys::linux", "libc"]],
        core: false,
    },
    // A plan runs the launch itself on the simulated kernel, with a model of a Go runtime.
    Row {
        modules: &["nsexec_audit::record::*"],
        // nix for the shared sink's memory, in the process that records. The simulated kernel for an
        // implementation of `Sys`.
        may: &[
            VALUES,
            STD,
            &["sys", "nsexec_audit::record::*", "nsexec_audit::sim::SimSys", "serde", "serde_json", "nix"],
        ],
        core: false,
    },
    Row {
        modules: &["nsexec_audit::sim::*"],
        may: &[
            VALUES,
            STD,
            &[
                "sys",
                "namespace::NsKind",
                "namespace::NsSet",
                "nsexec_audit::record::*",
                "nsexec_audit::sim::*",
                "nsexec_audit::state",
                "serde",
            ],
            // The role of a process, which names it in a plan, in a record and in a fault.
            &["nsexec_audit::transcript::Role"],
        ],
        core: false,
    },
    Row {
        modules: &["nsexec_audit::note"],
        may: &[
            VALUES,
            PURE,
            STD,
            SCRIPTS,
            &[
                "launch::*",
                "log",
                "nsexec_audit::normalise",
                "nsexec_audit::record::*",
                "serde",
                "serde_json",
            ],
        ],
        core: false,
    },
    // A plan runs the launch itself on the simulated kernel, and simulates a Go runtime.
    Row {
        modules: &["nsexec_audit::plan::*"],
        may: &[
            VALUES,
            PURE,
            ACTING,
            SCRIPTS,
            STD,
            LAUNCHER,
            &["nsexec_audit::*", "serde", "serde_json", "sha2"],
        ],
        core: false,
    },
    // The facts of a machine, for a plan of a command, and the record of one. The facts are read outside of
    // `Sys`.
    Row {
        modules: &["nsexec_audit::attest::*", "nsexec_audit::machine::*", "nsexec_audit::recording"],
        may: &[VALUES, PURE, STD, LAUNCHER, &["nsexec_audit::*", "serde", "serde_json", "nix"]],
        core: false,
    },
    // So does a replay, on recorded replies.
    Row {
        modules: &["nsexec_audit::replay::*"],
        may: &[VALUES, PURE, STD, LAUNCHER, &["nsexec_audit::*"]],
        core: false,
    },
    // A saved run shows the launch in its note: a value.
    Row {
        modules: &["nsexec_audit::render::saved"],
        may: &[VALUES, PURE, STD, AUDITED, &["nsexec_audit::*", "launch::Prepared"]],
        core: false,
    },
    Row {
        modules: &["nsexec_audit::*"],
        may: &[VALUES, PURE, STD, AUDITED, &["nsexec_audit::*", "serde", "serde_json", "anstyle"]],
        core: false,
    },
    // The program is a package of its own, so the compiler limits it to the public items of the libraries.
    Row { modules: &["nsexec_cli::*"], may: &[STD, PROGRAM, &["nsexec_cli::*"]], core: false },
];

const PURE_MODULES: &[&str] = &[
    "bootstrap::*",
    "error::*",
    "idmap",
    "idmap::readback",
    "json",
    "launch::steps",
    "legacy",
    "legacy::dialects",
    "legacy::environment",
    "legacy::errors",
    "legacy::mount_fds",
    "legacy::mount_sources",
    "namespace",
    "namespace::paths",
    "timens",
];

const ACTING_MODULES: &[&str] =
    &["descriptors", "join", "map_files", "mapping_tool", "pipe", "procfs", "sync", "unshare", "cloned"];

const PROGRAM: &[&str] =
    &["::nsexec", "::nsexec_audit", "clap", "nix", "serde", "serde_json", "terminal_size"];

/// The crates that the table covers. Every module may use `core`.
const CRATES: &[&str] = &[
    "std",
    "alloc",
    "libc",
    "nix",
    "serde",
    "serde_json",
    "clap",
    "anstyle",
    "sha2",
    "terminal_size",
    "tokio",
];

/// The workspace's own libraries, as another of its crates names them.
const LIBRARIES: &[&str] = &["nsexec", "nsexec_audit"];

/// The crate of a module: empty for the root package.
fn crate_of(module: &str) -> &str {
    let first = module.split("::").next().unwrap_or_default();
    if first.starts_with("nsexec_") { first } else { "" }
}

/// The row of a module.
pub(crate) fn row(module: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.modules.iter().any(|pattern| in_subtree(pattern, module)))
}

/// Returns true if the module may use `Sys`, and so have effects.
pub(crate) fn may_use_sys(module: &str) -> bool {
    row(module).is_some_and(|row| row.may.iter().any(|list| list.contains(&"sys")))
}

/// Returns true if the module matches a pattern of [`Row::modules`].
pub(crate) fn in_subtree(pattern: &str, module: &str) -> bool {
    match pattern.strip_suffix("::*") {
        Some(top) => module == top || module.strip_prefix(top).is_some_and(|rest| rest.starts_with("::")),
        None => module == pattern,
    }
}

/// Returns the violations of the table, one line each.
pub(crate) fn violations(sources: &[Source]) -> Vec<String> {
    let modules: Vec<String> = sources.iter().map(Source::module).collect();
    let mut found = Vec::new();
    for source in sources {
        let module = source.module();
        let Some(row) = row(&module) else {
            found.push(format!("{}: no row for `{module}` in TABLE of tests/house/imports.rs", source.path));
            continue;
        };
        for (line, path) in references(source, &modules) {
            let target = owner(&path, &modules);
            let own = target == module && !path_is_foreign(&path);
            let allowed = row.may.iter().copied().flatten().any(|entry| permits(entry, &path, &target));
            if !own && !allowed {
                found.push(format!("{}:{line}: `{module}` may not import `{path}`", source.path));
            }
        }
    }
    found
}

pub(crate) fn path_is_foreign(path: &str) -> bool {
    path.starts_with("::") || CRATES.contains(&path.split("::").next().unwrap_or_default())
}

/// Returns true if a table entry permits a path: the entry is its crate, its module, a subtree around it, the
/// item, or `*` for every module of the package.
fn permits(entry: &str, path: &str, target: &str) -> bool {
    let item = path == entry || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"));
    if path_is_foreign(path) {
        return item;
    }
    if entry == "*" || in_subtree(entry, target) {
        return true;
    }
    // An item: the entry must be longer than the path of the module that owns the item.
    item && entry.len() > target.len() && entry.starts_with(target)
}

/// Returns the module that a path leads to: the longest prefix that is a module.
pub(crate) fn owner(path: &str, modules: &[String]) -> String {
    let mut head = path;
    loop {
        if modules.iter().any(|module| module == head) {
            return head.to_owned();
        }
        match head.rsplit_once("::") {
            Some((shorter, _)) => head = shorter,
            None => return String::new(),
        }
    }
}

/// Returns the paths of the `use` declarations, with their lines.
pub(crate) fn declarations(source: &Source, modules: &[String]) -> Vec<(usize, String)> {
    let (module, code) = (source.module(), &source.code);
    let mut found = Vec::new();
    for at in words(code, "use") {
        let end = code[at..].find(';').map_or(code.len(), |len| at + len);
        for path in expand(&code[at + "use".len()..end]) {
            found.extend(resolve(&path, &module, modules).map(|path| (line_of(code, at), path)));
        }
    }
    found
}

/// Returns all paths to other modules and crates, from `use` declarations and from the code, with their
/// lines.
pub(crate) fn references(source: &Source, modules: &[String]) -> Vec<(usize, String)> {
    let module = source.module();
    let code = &source.code;
    let mut found = declarations(source, modules);
    let mut rest = code.clone();
    for at in words(code, "use") {
        let end = code[at..].find(';').map_or(code.len(), |len| at + len);
        rest.replace_range(at..end, &" ".repeat(end - at));
    }
    for start in ["crate", "super"].iter().chain(CRATES).chain(LIBRARIES) {
        for at in words(&rest, start) {
            // `name::crate::…` does not exist, and `std` in `other::std::…` is not the crate.
            if !rest[at..].starts_with(&format!("{start}::")) || rest[..at].ends_with("::") {
                continue;
            }
            let path: String =
                rest[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            found.extend(
                resolve(path.trim_end_matches(':'), &module, modules).map(|path| (line_of(code, at), path)),
            );
        }
    }
    for at in words(&rest, "extern") {
        if let Some(name) = rest[at..].strip_prefix("extern crate ").and_then(|rest| rest.split(';').next()) {
            found.push((line_of(code, at), name.trim().to_owned()));
        }
    }
    found
}

/// Returns the paths of a `use` tree.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim().trim_end_matches(',');
    let Some((head, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let body = body.trim().strip_suffix('}').unwrap_or(body);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for found in body.chars() {
        match found {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(found == '{') - i32::from(found == '}');
                parts.last_mut().expect("never empty").push(found);
            }
        }
    }
    let whole = |part: String| format!("{}{part}", head.trim());
    parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expand(part)).map(whole).collect()
}

/// Returns a path from the crate's root without `crate::`, or a path that begins with another crate's name.
fn resolve(path: &str, module: &str, modules: &[String]) -> Option<String> {
    let mut segments: Vec<&str> = path.split("::").map(str::trim).filter(|part| !part.is_empty()).collect();
    if matches!(segments.last(), Some(&("self" | "*"))) && segments.len() > 1 {
        segments.pop();
    }
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let rest = match *segments.first()? {
        "crate" => {
            let root = crate_of(module);
            let path = [&[root][..usize::from(!root.is_empty())], &segments[1..]].concat();
            return Some(without_ring(&path.join("::"), "::").to_owned());
        }
        // The program sees the libraries from outside. In the others a path into a library leads to its
        // module.
        name if LIBRARIES.contains(&name) && crate_of(module) == "nsexec_cli" => {
            return Some(format!("::{}", segments.join("::")));
        }
        "nsexec" if !crate_of(module).is_empty() => &segments[1..],
        "self" | "super" => {
            let ups = segments.iter().take_while(|part| **part == "super").count();
            base.truncate(base.len().saturating_sub(ups));
            let rest = &segments[ups.max(usize::from(segments[0] == "self"))..];
            base.extend(rest);
            return Some(base.join("::"));
        }
        name if CRATES.contains(&name) => return Some(segments.join("::")),
        name => {
            base.push(name);
            let child = base.join("::");
            base.extend(&segments[1..]);
            // Otherwise it is a path of core, an enum's variant or a macro's crate, which this table does not
            // cover.
            return modules.contains(&child).then(|| base.join("::"));
        }
    };
    Some(rest.join("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let tree = [
            "src/sys/mod.rs",
            "src/sys/types.rs",
            "src/sys/linux/mod.rs",
            "src/entry.rs",
            "src/scripts/stage/mod.rs",
            "crates/nsexec-audit/src/lib.rs",
            "crates/nsexec-audit/src/record/mod.rs",
            "crates/nsexec-audit/src/rules/mod.rs",
            "crates/nsexec-cli/src/main.rs",
        ];
        let with = |path: &&str| Source::new(path, "");
        let mut sources: Vec<Source> = tree.iter().map(with).collect();
        sources.retain(|source| files.iter().all(|(path, _)| *path != source.path));
        sources.extend(files.iter().map(|(path, raw)| Source::new(path, raw)));
        violations(&sources)
    }

    #[test]
    fn pure_module_may_not_import_sys() {
        assert!(check(&[("src/words/json.rs", "use crate::sys::types::Fd;")]).is_empty());
        let seen = check(&[("src/words/json.rs", "use crate::sys::{types::Fd, Sys};")]);
        assert_eq!(seen, ["src/words/json.rs:1: `json` may not import `sys::Sys`"]);
        assert_eq!(check(&[("src/words/json.rs", "fn f(s: &mut impl crate::sys::Sys) {}")]).len(), 1);
    }

    #[test]
    fn core_may_not_import_std_libc_or_backend() {
        for line in
            ["use std::io;", "fn f() { std::process::exit(1) }", "extern crate alloc;", "use libc::pid_t;"]
        {
            assert_eq!(check(&[("src/scripts/stage/mod.rs", line)]).len(), 1, "{line}");
        }
        assert_eq!(
            check(&[("src/scripts/sync.rs", "\nuse crate::sys::linux::LinuxSys;")])[0].split(':').nth(1),
            Some("2")
        );
        assert!(check(&[("src/scripts/sync.rs", "use crate::sys::Sys;\nuse core::fmt;")]).is_empty());
    }

    #[test]
    fn script_may_not_import_its_caller() {
        assert_eq!(check(&[("src/scripts/sync.rs", "use crate::stage::Outcome;")]).len(), 1);
        assert_eq!(check(&[("src/scripts/stage/mod.rs", "use crate::entry::run;")]).len(), 1);
        assert_eq!(
            check(&[("src/scripts/stage/child.rs", "use super::Context; use super::super::entry::run;")])
                .len(),
            1
        );
    }

    #[test]
    fn backend_may_not_import_core() {
        assert!(
            check(&[("src/sys/linux/raw.rs", "use libc::c_int; use super::super::types::Fd;")]).is_empty()
        );
        assert_eq!(check(&[("src/sys/linux/raw.rs", "use std::io; use crate::log::Level;")]).len(), 2);
    }

    #[test]
    fn reexport_counts_as_import() {
        assert_eq!(check(&[("src/sys/mod.rs", "pub use linux::LinuxSys;")]).len(), 1);
        assert!(check(&[("src/sys/mod.rs", "pub use types::Fd;")]).is_empty());
    }

    #[test]
    fn an_item_is_not_its_module() {
        let log = ("src/words/log.rs", "");
        assert!(check(&[log, ("src/words/error/mod.rs", "use crate::log::Level;")]).is_empty());
        assert_eq!(check(&[log, ("src/words/error/mod.rs", "use crate::log::{Level, Log};")]).len(), 1);
    }

    #[test]
    fn a_module_needs_a_row() {
        assert!(check(&[("src/novelty.rs", "")])[0].contains("no row"));
    }

    #[test]
    fn a_path_into_another_crate_leads_to_its_module() {
        let from = |path: &str, line: &str| check(&[(path, line)]).len();
        let rules = "crates/nsexec-audit/src/rules/maps.rs";
        assert_eq!(from(rules, "use nsexec::sys::types::Fd; use crate::record::Call;"), 0);
        assert_eq!(from(rules, "use nsexec::stage::enter;"), 1);
        assert_eq!(from("crates/nsexec-audit/src/sim/kernel.rs", "use crate::rules::Rule;"), 1);
        assert_eq!(from("crates/nsexec-capi/src/lib.rs", "use nsexec::entry; use std::io;"), 1);
        assert_eq!(from("crates/nsexec-cli/src/run.rs", "use nsexec::stage::enter; use crate::args;"), 0);
        assert_eq!(from("crates/nsexec-cli/src/run.rs", "use sha2::Sha256;"), 1);
    }

    #[test]
    fn a_use_tree_is_expanded() {
        assert_eq!(expand(" a::{b, c::{d, self}, e as f}"), ["a::b", "a::c::d", "a::c::self", "a::e"]);
    }
}
