//! The sizes of the rings of the package `nsexec`, in lines of code without tests and comments. `tests/sizes`
//! prints the table.
//!
//! The core is what the package contains without any feature. A line of a core's file that only a feature
//! compiles belongs to the ring that the feature is for.

use std::fmt::Write as _;

use crate::imports::in_subtree;
use crate::source::Source;

/// A part of the package that an auditor reads as one.
struct Ring {
    /// The first cell of its row in docs/design.md.
    name: &'static str,
    /// Modules by path, or subtrees such as `stage::*`. The first ring that matches a module has it.
    modules: &'static [&'static str],
    /// The maximum of code lines, or `None` for a part that is not in the core of today's release line.
    most: Option<usize>,
}

const LAUNCHER: &str = "launcher";
const OLDER: &str = "older release lines";

/// The features, and the ring that has the lines of the core's files behind each.
const FEATURES: &[(&str, &str)] =
    &[("legacy", OLDER), ("std", LAUNCHER), ("sealed-copy", LAUNCHER), ("serde", LAUNCHER)];

const RINGS: &[Ring] = &[
    Ring {
        name: LAUNCHER,
        modules: &["launch::*", "cloned::*", "sys::surroundings", "sys::linux::surroundings"],
        most: None,
    },
    Ring { name: OLDER, modules: &["legacy::*", "sys::linux::message"], most: None },
    Ring { name: "errors and texts", modules: &["error::*", "bootstrap::error", "log::*"], most: Some(925) },
    Ring {
        name: "scripts",
        modules: &[
            "nsexec",
            "stage::*",
            "sync",
            "pipe",
            "procfs",
            "descriptors",
            "join",
            "unshare",
            "mapping_tool",
            "map_files",
        ],
        most: Some(1455),
    },
    Ring {
        name: "deciders",
        modules: &["bootstrap::*", "idmap::*", "namespace::*", "timens"],
        most: Some(1340),
    },
    Ring {
        name: "values",
        modules: &["sys::types", "sys::exec_args", "json", "log_level", "policy"],
        most: Some(510),
    },
    Ring { name: "door", modules: &["sys::*"], most: Some(695) },
    Ring { name: "edge", modules: &["entry", "", "deciders", "scripts", "words"], most: Some(175) },
];

/// The last cell of a ring's row.
fn maximum(ring: &Ring) -> String {
    ring.most.map_or("–".to_owned(), |most| most.to_string())
}

/// Returns the table of sizes, and the violations: a module without a ring, a ring over its maximum.
pub(crate) fn sizes(sources: &[Source]) -> (String, Vec<String>) {
    let (mut table, mut found) =
        (String::from("| ring | code lines | at most |\n|---|---|---|\n"), Vec::new());
    let mut lines = vec![0; RINGS.len()];
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let module = source.module();
        match RINGS.iter().position(|ring| ring.modules.iter().any(|pattern| in_subtree(pattern, &module))) {
            Some(ring) if RINGS[ring].most.is_none() => lines[ring] += source.code_lines(),
            Some(ring) => {
                lines[ring] += source.code_lines();
                let mut before = Vec::new();
                for (feature, name) in FEATURES {
                    let counted = source.code_lines_behind(&before);
                    before.push(*feature);
                    let gated = source.code_lines_behind(&before) - counted;
                    lines[ring] -= gated;
                    lines[RINGS.iter().position(|ring| ring.name == *name).expect("a ring")] += gated;
                }
            }
            None => found.push(format!("{}: belongs to no ring of tests/house/rings.rs", source.path)),
        }
    }
    let (mut core, mut core_most) = (0, 0);
    for (ring, lines) in RINGS.iter().zip(lines) {
        if let Some(most) = ring.most {
            (core, core_most) = (core + lines, core_most + most);
            if lines > most {
                found.push(format!("{}: {lines} lines of code, at most {most}", ring.name));
            }
        }
        let most = maximum(ring);
        let _ = writeln!(table, "| {} | {lines} | {most} |", ring.name);
    }
    let _ = writeln!(table, "| core of today's release line | {core} | {core_most} |");
    (table, found)
}

/// Returns the rings whose row in docs/design.md is missing or has another maximum.
pub(crate) fn documented(design: &str) -> Vec<String> {
    let row = |ring: &&Ring| {
        let most = maximum(ring);
        let (start, end) = (format!("| {} |", ring.name), format!("| {most} |"));
        !design.lines().any(|line| line.starts_with(&start) && line.ends_with(&end))
    };
    let missing = RINGS.iter().filter(row);
    missing.map(|ring| format!("docs/design.md: the sizes lack the ring '{}'", ring.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_over_its_maximum_and_module_without_ring_are_found() {
        let large = Source::new("src/deciders/timens.rs", &"fn a() {}\n".repeat(2_000));
        let tests =
            Source::new("src/deciders/policy.rs", "// a comment\nfn a() {}\n#[cfg(test)]\nmod tests { }\n");
        let other = Source::new("src/other.rs", "fn a() {}\n");
        let (table, found) = sizes(&[large, tests, other]);
        assert!(table.contains("| deciders | 2000 |") && table.contains("| values | 1 |"), "{table}");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("src/other.rs") && found[1].contains("deciders: 2000"), "{found:?}");
    }

    #[test]
    fn missing_row_in_the_documentation_is_found() {
        assert_eq!(documented("").len(), RINGS.len());
    }
}
