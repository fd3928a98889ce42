//! Finds import circles between modules: groups in which imports lead from each module to every other.
//!
//! A module and the modules below it may import each other: the files of a folder are one unit. All other
//! circles are violations: between modules of a folder, and between a folder and modules outside of it.
//!
//! Behind features the core imports a step, an error or a setting of `legacy`, `launch` or `cloned`, and
//! these three import the core. The check ignores such imports of the core. So the core without any feature
//! must have no circle, and each of the three must have no circle inside.

use std::collections::BTreeMap;

use crate::imports::{declarations, in_subtree, owner, path_is_foreign, references};
use crate::source::Source;

/// The imports of each module: the imported module, with a line of code that imports it.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Modules and folders that may form a circle, and the reason.
pub(crate) struct Exception {
    pub(crate) folders: &'static [&'static str],
    pub(crate) why: &'static str,
}

pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        folders: &["nsexec_audit::sim", "nsexec_audit::record"],
        why: "the simulated kernel is one value, whose methods are in several files, and `record::answer` implements \
              `Sys` for it and for the replay",
    },
    Exception {
        folders: &["bootstrap::attribute", "bootstrap::dialect", "bootstrap::error", "bootstrap::message"],
        why: "an error of the parser names its attribute, and to read an attribute can fail with such an error; a \
              dialect says which attribute has the number 27290",
    },
];

/// The folders behind features. An import of one by the core, or by a folder before it, is left out.
const BEHIND_A_FEATURE: [&str; 3] = ["cloned", "launch", "legacy"];

/// Returns the import circles, each with all imports between its modules, and the exceptions without a
/// circle.
pub(crate) fn circles(sources: &[Source], exceptions: &[Exception]) -> Vec<String> {
    let all = graph(sources);
    let mut unrelated = all.clone();
    for (from, imports) in &mut unrelated {
        imports.retain(|to, _| !related(from, to));
    }
    let mut found = groups(&unrelated);
    for group in groups(&all) {
        let one_folder = group.iter().any(|top| group.iter().all(|module| is_below(module, top)));
        if !one_folder && !found.contains(&group) {
            found.push(group);
        }
    }
    let excepted = |group: &Vec<String>, exception: &Exception| {
        !exception.why.is_empty()
            && group.iter().all(|module| exception.folders.iter().any(|folder| is_below(module, folder)))
    };
    let unused = exceptions.iter().filter(|exception| !found.iter().any(|group| excepted(group, exception)));
    let unused: Vec<String> = unused
        .map(|exception| format!("{}: an exception without a circle", exception.folders.join(", ")))
        .collect();
    found.retain(|group| !exceptions.iter().any(|exception| excepted(group, exception)));
    found.iter().map(|group| described(group, &all)).chain(unused).collect()
}

fn described(group: &[String], graph: &Graph) -> String {
    let mut text = format!("an import circle of {} modules: {}", group.len(), group.join(", "));
    for from in group {
        for (to, place) in graph[from].iter().filter(|(to, _)| group.contains(to)) {
            text.push_str(&format!("\n    {place}: `{from}` imports `{to}`"));
        }
    }
    text
}

fn is_below(module: &str, folder: &str) -> bool {
    in_subtree(&format!("{folder}::*"), module)
}

/// Returns whether one of the modules is below the other. The root of a crate is above all its modules.
fn related(one: &str, other: &str) -> bool {
    one.is_empty() || other.is_empty() || is_below(one, other) || is_below(other, one)
}

fn graph(sources: &[Source]) -> Graph {
    let modules: Vec<String> = sources.iter().map(Source::module).collect();
    let names: BTreeMap<String, Vec<String>> = sources
        .iter()
        .map(|source| {
            let paths = declarations(source, &modules).into_iter().map(|(_, path)| path);
            (source.module(), paths.filter(|path| !path_is_foreign(path)).collect())
        })
        .collect();
    let mut graph = Graph::new();
    for source in sources {
        let from = source.module();
        let imports = graph.entry(from.clone()).or_default();
        // A name that a module only passes on is not a use of it.
        let passed_on = passed_on(source);
        for (line, path) in references(source, &modules) {
            if path_is_foreign(&path) || passed_on.contains(&line) {
                continue;
            }
            let to = definition(&path, &names, &modules);
            let left_out =
                BEHIND_A_FEATURE.iter().position(|folder| is_below(&to, folder)).is_some_and(|at| {
                    !BEHIND_A_FEATURE[at..].iter().any(|folder| is_below(&from, folder))
                        && !from.starts_with("nsexec_")
                });
            if to != from && !left_out {
                imports.entry(to).or_insert_with(|| format!("{}:{line}", source.path));
            }
        }
    }
    graph
}

/// Returns the lines with a declaration `pub use`.
fn passed_on(source: &Source) -> Vec<usize> {
    let lines = source.code.lines().zip(1..);
    let public = lines.filter(|(line, _)| {
        let rest = line.trim_start().strip_prefix("pub");
        rest.is_some_and(|rest| rest.split_whitespace().find(|word| !word.starts_with('(')) == Some("use"))
    });
    public.map(|(_, number)| number).collect()
}

/// Returns the module that defines the item at `path`. A module that imports the item under the same name
/// leads on to the module that defines it.
fn definition(path: &str, names: &BTreeMap<String, Vec<String>>, modules: &[String]) -> String {
    let mut path = path.to_owned();
    loop {
        let module = owner(&path, modules);
        let rest = path[module.len()..].trim_start_matches("::").to_owned();
        let Some(name) = rest.split("::").next().filter(|name| !name.is_empty()) else { return module };
        let target = names
            .get(&module)
            .into_iter()
            .flatten()
            .find(|target| target.rsplit("::").next() == Some(name) && owner(target, modules) != module);
        match target {
            Some(target) => path = format!("{target}{}", &rest[name.len()..]),
            None => return module,
        }
    }
}

/// Returns the strongly connected groups of more than one module, sorted (Tarjan's algorithm).
fn groups(graph: &Graph) -> Vec<Vec<String>> {
    let mut search = Search { graph, numbers: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for module in graph.keys() {
        if !search.numbers.contains_key(module.as_str()) {
            search.visit(module);
        }
    }
    search.found
}

struct Search<'g> {
    graph: &'g Graph,
    /// The order of the first visits. A module whose group is complete has `usize::MAX`.
    numbers: BTreeMap<&'g str, usize>,
    /// The visited modules whose group is not complete.
    stack: Vec<&'g str>,
    found: Vec<Vec<String>>,
}

impl<'g> Search<'g> {
    /// Returns the lowest number that the module reaches.
    fn visit(&mut self, module: &'g str) -> usize {
        let number = self.numbers.len();
        self.numbers.insert(module, number);
        let height = self.stack.len();
        self.stack.push(module);
        let mut lowest = number;
        for to in self.graph.get(module).into_iter().flat_map(|imports| imports.keys()) {
            let reached = match self.numbers.get(to.as_str()) {
                Some(number) => *number,
                None => self.visit(to),
            };
            lowest = lowest.min(reached);
        }
        if lowest == number {
            let mut group: Vec<String> = Vec::new();
            for module in self.stack.split_off(height) {
                self.numbers.insert(module, usize::MAX);
                group.push(module.to_owned());
            }
            group.sort();
            if group.len() > 1 {
                self.found.push(group);
            }
            // The group is complete, so the caller's own number stays the lowest.
            return usize::MAX;
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, code)| Source::new(path, code)).collect();
        circles(&sources, &[])
    }

    #[test]
    fn a_circle_of_two_and_a_circle_of_three_are_found() {
        let two = [("src/a.rs", "use crate::b::B;"), ("src/b.rs", "\nfn f() { crate::a::g() }")];
        assert_eq!(
            check(&two),
            [
                "an import circle of 2 modules: a, b\n    src/a.rs:1: `a` imports `b`\n    src/b.rs:2: `b` imports `a`"
            ]
        );
        let three = [
            ("src/a.rs", "use super::b::B;"),
            ("src/b.rs", "use crate::c::C;"),
            ("src/c.rs", "use crate::a;"),
            ("src/d.rs", "use crate::a::A;"),
        ];
        assert!(check(&three)[0].starts_with("an import circle of 3 modules: a, b, c\n"));
        assert_eq!(
            check(&[two, [("src/c.rs", "use crate::d::D;"), ("src/d.rs", "use super::c::C;")]].concat())
                .len(),
            2
        );
    }

    #[test]
    fn imports_in_one_direction_are_no_circle() {
        let files = [
            ("src/a.rs", "use crate::b::B; use crate::c::C; use std::b;"),
            ("src/b.rs", "use crate::c::C; #[cfg(test)] mod tests { use crate::a::A; }"),
            ("src/c.rs", "// use crate::a::A;"),
        ];
        assert!(check(&files).is_empty());
    }

    #[test]
    fn a_module_and_those_below_it_may_import_each_other() {
        let folder = ("src/a/mod.rs", "mod b; use b::B;");
        assert!(check(&[folder, ("src/a/b.rs", "use super::A;")]).is_empty());
        let siblings = [folder, ("src/a/b.rs", "use super::c::C;"), ("src/a/c.rs", "use super::b::B;")];
        assert_eq!(check(&siblings).len(), 1);
        // The circle leaves the folder: outside, a, a::b, outside.
        let outside =
            [folder, ("src/a/b.rs", "use crate::outside::O;"), ("src/outside.rs", "use crate::a::A;")];
        assert!(check(&outside)[0].starts_with("an import circle of 3 modules: a, a::b, outside\n"));
    }

    #[test]
    fn calls_of_the_folder_behind_a_feature_are_left_out() {
        let core = ("src/a.rs", "use crate::legacy::b::B;");
        assert!(check(&[core, ("src/legacy/b.rs", "use crate::a::A;")]).is_empty());
        // A circle within the folder, and one of the core beside it.
        let own = [
            core,
            ("src/legacy/b.rs", "use crate::legacy::c::C; use crate::a::A;"),
            ("src/legacy/c.rs", "use super::b::B;"),
        ];
        assert!(check(&own)[0].starts_with("an import circle of 2 modules: legacy::b, legacy::c\n"));
        let beside = [
            ("src/a.rs", "use crate::legacy::b::B; use crate::c::C;"),
            ("src/c.rs", "use crate::a::A;"),
            ("src/legacy/b.rs", "use crate::c::C;"),
        ];
        assert!(check(&beside)[0].starts_with("an import circle of 2 modules: a, c\n"));
    }

    #[test]
    fn an_item_counts_where_it_is_defined() {
        let files = [
            ("src/a/mod.rs", "mod b; pub mod c; pub use b::B; pub(crate) use c::C;"),
            ("src/a/b.rs", ""),
            ("src/a/c.rs", "use crate::outside::O;"),
        ];
        let with = |line: &'static str| check(&[&files[..], &[("src/outside.rs", line)]].concat()).len();
        assert_eq!(with("use crate::a::B;"), 0);
        assert_eq!(with("use crate::a::C;"), 1);
    }

    #[test]
    fn an_exception_needs_a_circle_and_a_reason() {
        let sim = [("src/a/b.rs", "use super::c::C;"), ("src/a/c.rs", "use super::b::B;"), ("src/a.rs", "")];
        let sources = sim.map(|(path, code)| Source::new(path, code));
        let with = |folders, why| circles(&sources, &[Exception { folders, why }]).len();
        assert_eq!([with(&["a"], "one value"), with(&["a"], ""), with(&["d"], "one value")], [0, 2, 2]);
    }
}
