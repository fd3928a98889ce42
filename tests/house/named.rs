//! The tests that pages name: each exists, and each row of certain tables names one.

/// Every row of the tables in docs/deviations.md names at least one test, and every named test exists.
pub(crate) fn deviations(page: &str, tests: &str) -> Vec<String> {
    table("docs/deviations.md", page, None, tests)
}

/// Every row of the table of known vulnerabilities in SECURITY.md names a test or gives a reason, and every
/// test that is named anywhere on the page exists. A test's name has at least three words there.
pub(crate) fn security(page: &str, tests: &str) -> Vec<String> {
    let section = page.split("\n## ").find(|text| text.starts_with("Known vulnerabilities"));
    let mut found = table("SECURITY.md", section.unwrap_or_default(), Some("not this layer: "), tests);
    let is_name = |name: &&str| {
        let word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        name.split('_').count() > 2 && name.split('_').all(word)
    };
    found.extend(
        quoted(page)
            .filter(is_name)
            .filter(|name| !is_test(name, tests))
            .map(|name| format!("SECURITY.md: no test is called `{name}`")),
    );
    let is_file =
        |name: &&str| name.starts_with("tests/") || name.starts_with("src/") || name.starts_with("crates/");
    let missing = |name: &&str| !crate::root().join(name).exists();
    found.extend(
        quoted(page)
            .filter(is_file)
            .filter(missing)
            .map(|name| format!("SECURITY.md: `{name}` does not exist")),
    );
    found.sort();
    found.dedup();
    found
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Checks the last cell of each row: it names tests that exist, or begins with `reason` and goes on.
fn table(file: &str, page: &str, reason: Option<&str>, tests: &str) -> Vec<String> {
    let lines: Vec<&str> = page.lines().collect();
    let separator = |line: &str| line.starts_with("|---");
    // The line above a separator is the table's header.
    let header = |at: usize| lines.get(at + 1).is_some_and(|next| separator(next));
    let row = |(at, line): (usize, &&str)| line.starts_with('|') && !separator(line) && !header(at);
    let rows: Vec<&str> = lines.iter().enumerate().filter(|part| row(*part)).map(|(_, line)| *line).collect();
    let mut found = Vec::new();
    if rows.is_empty() {
        found.push(format!("{file}: no row in the tables"));
    }
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        if reason.and_then(|start| last.strip_prefix(start)).is_some_and(|text| text.split(' ').count() > 3) {
            continue;
        }
        if quoted(last).next().is_none() {
            found.push(format!("{file}: a row without a test: {row}"));
        }
        found.extend(
            quoted(last)
                .filter(|name| !is_test(name, tests))
                .map(|name| format!("{file}: no test is called `{name}`")),
        );
    }
    found
}

/// A test is a function with the attribute `test`, a case of the suites with a runner of their own (`test!` a
/// pair of a name and a function, or a field `name` of a table), or a method of Python's unittest. Another
/// function of this name does not count.
fn is_test(name: &str, tests: &str) -> bool {
    let contains = |text: String| tests.contains(&text);
    let attribute =
        |at: usize| tests[..at].rsplit("\n\n").next().is_some_and(|text| text.contains("#[test]"));
    contains(format!("def {name}(self"))
        || contains(format!("def test_{name}(self"))
        || contains(format!("test!({name},"))
        || contains(format!("test!({name})"))
        || contains(format!("(\"{name}\", "))
        || contains(format!("name: \"{name}\","))
        || tests.match_indices(&format!("fn {name}(")).any(|(at, _)| attribute(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_without_its_test_is_found() {
        let page = |name| format!("# N\n## A\n| a | b | test |\n|---|---|---|\n| x | y | {name} |\n## Z\n");
        let test = "#[test]\nfn sigpipe() {}";
        assert!(deviations(&page("`sigpipe`"), test).is_empty());
        assert!(deviations(&page("`sigpipe`"), "def test_sigpipe(self):").is_empty());
        assert!(deviations(&page("`sigpipe`"), "test!(sigpipe, BOTH)").is_empty());
        assert!(deviations(&page("`sigpipe`"), "(\"sigpipe\", sigpipe),").is_empty());
        assert_eq!(deviations(&page("`sigpipe`"), "#[test]\nfn sigpipes() {}").len(), 1);
        // Functions that no suite runs.
        assert_eq!(deviations(&page("`sigpipe`"), "fn sigpipe() {}").len(), 1);
        assert_eq!(deviations(&page("`sigpipe`"), "#[test]\nfn a() {}\n\nfn sigpipe() {}").len(), 1);
        assert_eq!(deviations(&page("none"), "").len(), 1);
        let two = page("`sigpipe` |\n## More\n| a | b | test |\n|---|---|---|\n| x | y | `sigchld`");
        assert_eq!(deviations(&two, test), ["docs/deviations.md: no test is called `sigchld`"]);
        assert_eq!(deviations("# N\n## A\n| a | b | test |\n|---|---|---|\n", "").len(), 1);
        assert_eq!(deviations("# N\n", "").len(), 1);
    }

    #[test]
    fn a_vulnerability_without_test_or_reason_is_found() {
        let page = |cell| {
            format!("Test: `a_b_c`.\n\n## Known vulnerabilities\n| a | t |\n|---|---|\n| x | {cell} |\n")
        };
        let test = "#[test]\nfn a_b_c() {}\n\n#[test]\nfn it_is_so() {}";
        assert!(security(&page("`it_is_so`"), test).is_empty());
        assert!(security(&page("not this layer: nsexec mounts no console"), test).is_empty());
        for cell in ["*none yet*", "–", "not this layer: no", "a sentence"] {
            assert_eq!(security(&page(cell), test).len(), 1, "{cell}");
        }
        assert_eq!(security(&page("`it_is_not`"), test), ["SECURITY.md: no test is called `it_is_not`"]);
        assert_eq!(
            security(&page("`it_is_so`, `sigchld`"), test),
            ["SECURITY.md: no test is called `sigchld`"]
        );
        assert_eq!(
            security(&page("`it_is_so`"), "#[test]\nfn it_is_so() {}"),
            ["SECURITY.md: no test is called `a_b_c`"]
        );
        let folder = page("`it_is_so`") + "See `tests/nowhere`, `tests/house`.";
        assert_eq!(security(&folder, test), ["SECURITY.md: `tests/nowhere` does not exist"]);
        assert_eq!(security("Test: `a_b_c`", test), ["SECURITY.md: no row in the tables"]);
    }
}
