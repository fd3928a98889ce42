//! The house rules of docs/design.md as ordinary tests: imports, sizes, places of `unsafe`, prose.
//!
//! Every rule is a function of text, and is tested with text that breaks it.

mod circles;
mod effects;
mod imports;
mod named;
mod prose;
#[cfg(feature = "std")]
#[allow(dead_code, reason = "compiled only: it runs as root or as user 1000")]
mod readme_example;
mod rings;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::{Source, collect, sources};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with every violation, not only with the first.
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn each(rule: impl Fn(&Source) -> Vec<String>) {
    none(sources(root()).iter().flat_map(rule).collect());
}

/// Returns all text in which a test may be defined or a snapshot named.
fn test_text() -> String {
    let mut files: Vec<PathBuf> = Vec::new();
    for (folder, ext) in [("src", "rs"), ("crates", "rs"), ("tests", "rs"), ("tests", "py"), ("tests", "sh")]
    {
        collect(&root().join(folder), ext, &mut files);
    }
    // Without this test: its examples name tests and snapshots that do not exist.
    let own = root().join("tests/house");
    files.retain(|path| !path.starts_with(&own));
    files.iter().map(|path| fs::read_to_string(path).expect("UTF-8")).collect()
}

#[test]
fn modules_import_what_the_table_allows() {
    none(imports::violations(sources(root())));
}

#[test]
fn modules_have_no_import_circles() {
    none(circles::circles(sources(root()), circles::EXCEPTIONS));
}

#[test]
fn files_and_functions_are_within_limits() {
    each(rules::sizes);
}

/// Prints the table of sizes with `--nocapture`.
#[test]
fn rings_are_within_their_sizes() {
    let (table, found) = rings::sizes(sources(root()));
    print!("{table}");
    none(found);
    none(rings::documented(&page("docs/design.md")));
}

#[test]
fn module_names_are_specific() {
    each(rules::names);
}

#[test]
fn unsafe_and_statics_are_listed_in_security_md() {
    let security = page("SECURITY.md");
    each(|source| rules::unsafety(source, &security));
}

#[test]
fn scripts_document_their_process() {
    each(rules::documented_process);
}

#[test]
fn the_core_is_under_its_lints() {
    none(rules::lints(sources(root()), &page("src/lib.rs")));
}

#[test]
fn modules_without_sys_have_no_effects() {
    each(rules::effects);
}

#[test]
fn effects_outside_sys_are_in_listed_files() {
    none(effects::violations(sources(root()), effects::PLACES));
    none(effects::documented(effects::PLACES, &page("docs/design.md")));
}

#[test]
fn libc_syscall_is_called_in_one_place() {
    each(rules::variadic);
    let mut files = Vec::new();
    for folder in ["tests", "examples"] {
        collect(&root().join(folder), "rs", &mut files);
    }
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Source::new(&name, &fs::read_to_string(path).expect("UTF-8"))
    };
    none(files.iter().map(read).flat_map(|source| rules::variadic(&source)).collect());
}

#[test]
fn the_program_writes_in_one_place() {
    each(rules::outputs);
}

/// A script that runs no test would succeed.
#[test]
fn test_scripts_reject_unknown_names() {
    for (script, names) in [("tests/run", "the core alone, without std"), (".ci/run", "first-command")] {
        let output = Command::new(root().join(script)).arg("no-such-thing").output().expect("a script");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {text}");
        assert!(text.contains("no-such-thing") && text.contains(names), "{script}: {text}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{script}");
    }
}

/// With the attribute `path`, shared code would be compiled once for each suite. It belongs into
/// tests/support.
#[test]
fn suites_share_code_through_the_crate() {
    let mut files = Vec::new();
    collect(&root().join("tests"), "rs", &mut files);
    let attribute = concat!("#[", "path");
    // An attribute begins its line.
    let begins = |line: &str| line.trim_start().starts_with(attribute);
    let uses = |path: &&PathBuf| fs::read_to_string(path).expect("UTF-8").lines().any(begins);
    none(files.iter().filter(uses).map(|path| format!("{}: {attribute}", path.display())).collect());
}

#[test]
fn references_resolve_inside_the_repository() {
    none(prose::pages(root()).iter().flat_map(prose::references).collect());
}

#[test]
fn comments_are_plain_english() {
    none(prose::idioms(prose::pages(root())));
}

#[test]
fn rust_comments_are_as_narrow_as_code() {
    none(prose::pages(root()).iter().flat_map(prose::widths).collect());
}

#[test]
fn every_snapshot_has_a_test() {
    let mut files = Vec::new();
    collect(&root().join("snapshots"), "snap", &mut files);
    let stems: Vec<String> =
        files.iter().map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    none(rules::snapshots(&stems, &test_text()));
}

#[test]
fn every_deviation_has_a_test() {
    none(named::deviations(&page("docs/deviations.md"), &test_text()));
}

#[test]
fn every_vulnerability_has_a_test_or_a_reason() {
    // The page also names tests of this file.
    none(named::security(&page("SECURITY.md"), &(test_text() + &page("tests/house/main.rs"))));
}

/// The program is compiled as the module `readme_example`.
#[test]
fn readme_shows_the_compiled_rust_program() {
    let readme = page("README.md");
    let blocks: Vec<&str> =
        readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks, [include_str!("readme_example.rs")]);
}

#[test]
fn relative_links_have_targets() {
    let read = |file: &str| match root().join(file) {
        path if path.is_dir() => Some(String::new()),
        path => fs::read_to_string(path).ok(),
    };
    // These files have broken links as examples.
    let own = |page: &&prose::Page| !page.path.starts_with("tests/house/");
    let pages = prose::pages(root());
    none(pages.iter().filter(own).flat_map(|page| rules::links(&page.path, &page.text, read)).collect());
}

#[test]
fn no_host_of_a_package_archive_is_named() {
    // The locks of Cargo have the registry's address by their format.
    let by_hand = |page: &&prose::Page| !page.path.ends_with("Cargo.lock");
    let pages = prose::pages(root());
    none(pages.iter().filter(by_hand).flat_map(|page| rules::hosts(&page.path, &page.text)).collect());
}

#[test]
fn each_system_call_has_its_cases() {
    let sys = page("src/sys/mod.rs");
    let methods: Vec<&str> =
        sys.split("    fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).collect();
    assert!(methods.len() > 40, "{methods:?}");
    let suite = |folder: &'static str| {
        let mut files = Vec::new();
        collect(&root().join(folder), "rs", &mut files);
        (folder, files.iter().map(|path| fs::read_to_string(path).expect("UTF-8")).collect())
    };
    let suites = [
        ("tests/linux_sys.rs", page("tests/linux_sys.rs")),
        suite("tests/lies"),
        suite("tests/parity_rules"),
        ("src/sys/linux/mod.rs", page("src/sys/linux/mod.rs")),
    ];
    none(rules::covered_calls(&methods, &suites));
}
