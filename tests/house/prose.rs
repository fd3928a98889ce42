//! Rules for the prose of the repository: its references, its idioms, and the width of its comments.
//!
//! Each rule is a function from text to violations, so that a test can break it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Columns of a comment line in Rust, as `max_width` in rustfmt.toml.
const COLUMNS_MAX: usize = 110;

/// Of this many comment lines one may have an idiom.
const LINES_PER_IDIOM: usize = 100;

/// A file may have this many idioms, or one in [`LINES_PER_IDIOM_OF_FILE`] of its lines, if that is more.
const IDIOMS_OF_FILE: usize = 2;
const LINES_PER_IDIOM_OF_FILE: usize = 40;

/// Folders without text of the project.
const SKIPPED_FOLDERS: &[&str] = &[".git", "target", "__pycache__"];

/// A text file of the repository.
#[derive(Clone)]
pub(crate) struct Page {
    /// The path, relative to the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Returns every text file below `root`, ordered by path. Files that are not UTF-8 are skipped. They are read
/// once.
pub(crate) fn pages(root: &Path) -> &'static [Page] {
    static PAGES: OnceLock<Vec<Page>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let mut found = Vec::new();
        add_pages(root, root, &mut found);
        found
    })
}

fn add_pages(root: &Path, folder: &Path, into: &mut Vec<Page>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        let skipped = SKIPPED_FOLDERS.iter().any(|name| path.ends_with(name));
        if path.is_symlink() || skipped {
            continue;
        }
        if path.is_dir() {
            add_pages(root, &path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            into.push(Page { path, text });
        }
    }
}

/// Checks that a page does not refer to a chapter or an item of a page outside the repository.
///
/// Such pages are the specification, the evidence and the design that the project was written from. Comment
/// markers between two words are skipped, since a reference may be wrapped.
pub(crate) fn references(page: &Page) -> Vec<String> {
    const OUTSIDE: &[&str] = &["spec", "specification", "evidence", "design", "roadmap"];
    let words: Vec<(usize, &str)> = page
        .text
        .lines()
        .enumerate()
        .flat_map(|(at, line)| line.split_whitespace().map(move |word| (at + 1, word)))
        .filter(|(_, word)| !matches!(*word, "//" | "///" | "//!" | "#" | "*"))
        .collect();
    let outside = |word: &str| {
        let name =
            word.rsplit('/').next().unwrap_or_default().trim_start_matches(|c: char| !c.is_alphanumeric());
        let name = name.trim_end_matches(['`', ':']);
        let name = name.strip_suffix(".md").unwrap_or(name).to_lowercase();
        OUTSIDE.contains(&name.as_str())
    };
    let number = |word: &str| {
        let word = word.trim_start_matches(['(', '`']);
        word.strip_prefix(['E', '§']).unwrap_or(word).starts_with(|c: char| c.is_ascii_digit())
    };
    // The page and a number, or a section with its number and the page.
    let refers = |at: usize| {
        let word = |ahead: usize| words.get(at + ahead).map_or("", |(_, word)| *word);
        let chapter = ["section", "chapter", "item", "page", "§"].contains(&word(0).to_lowercase().as_str());
        outside(word(0)) && number(word(1))
            || chapter
                && number(word(1))
                && ["of", "in"].contains(&word(2))
                && [3, 4].iter().any(|at| outside(word(*at).trim_end_matches(['.', ',', ';', ')'])))
    };
    let numbered = (0..words.len()).filter(|at| refers(*at));
    let numbered = numbered.map(|at| (words[at].0, format!("{} {}", words[at].1, words[at + 1].1)));
    // Parts of paths, written apart, since this file is checked too.
    let shared = ["shared", ""].join("/");
    let pages = ["spec", "evidence", "english", "roadmap", "performance", "style"]
        .map(|name| format!("{shared}{name}.md"));
    let parent = ["..", "shared"].join("/");
    let outside_path = |word: &str| {
        word.contains(&parent)
            || word.contains(&format!("/work/{shared}"))
            || pages.iter().any(|page| word.contains(page))
    };
    let paths = words.iter().filter(|(_, word)| outside_path(word));
    let paths = paths.map(|(line, word)| (*line, (*word).to_owned()));
    let message = |(line, text)| format!("{}:{line}: a page outside the repository: {text}", page.path);
    numbered.chain(paths).map(message).collect()
}

/// Checks that at most one of 100 comment lines has an idiom, and that no file has many of them.
///
/// Returns the idioms that are too many. These idioms make comments hard to read for newcomers; a low count
/// alone does not make them easy.
pub(crate) fn idioms(pages: &[Page]) -> Vec<String> {
    let mut lines = 0;
    let mut found = Vec::new();
    let mut crowded = Vec::new();
    for page in pages {
        let comments = comment_lines(page);
        lines += comments.len();
        let of_line = |(at, line): &(usize, &str)| {
            idiom(line).map(|idiom| format!("{}:{at}: {idiom}: {}", page.path, line.trim()))
        };
        let of_page: Vec<String> = comments.iter().filter_map(of_line).collect();
        if of_page.len() > IDIOMS_OF_FILE.max(comments.len() / LINES_PER_IDIOM_OF_FILE) {
            crowded.extend(of_page.clone());
        }
        found.extend(of_page);
    }
    if found.len() * LINES_PER_IDIOM <= lines {
        return crowded;
    }
    found
        .push(format!("{} idioms in {lines} comment lines, more than one in {LINES_PER_IDIOM}", found.len()));
    found
}

/// Returns the comment lines of a page, or their comments, with their numbers.
///
/// In Markdown all lines are comments. In a file of another kind, such as a shell script or TOML, lines that
/// begin with `#` are comments.
fn comment_lines(page: &Page) -> Vec<(usize, &str)> {
    let mut in_docstring = false;
    let mut comment = |line: &'_ str| -> Option<usize> {
        match page.path.rsplit('.').next() {
            Some("rs" | "go" | "c") => line.starts_with("//").then_some(0),
            Some("h") => {
                (line.starts_with("//") || line.starts_with("/*") || line.starts_with("* ")).then_some(0)
            }
            Some("md") => (!line.is_empty()).then_some(0),
            Some("py") => {
                let quotes = line.matches("\"\"\"").count();
                let inside = in_docstring || line.starts_with("\"\"\"") || line.starts_with("r\"\"\"");
                in_docstring = inside && in_docstring == (quotes % 2 == 0);
                if inside || line.starts_with('#') { Some(0) } else { line.find("  # ") }
            }
            Some("snap" | "jsonl" | "json" | "svg" | "lock" | "txt") => None,
            _ => line.starts_with("# ").then_some(0),
        }
    };
    let lines = page.text.lines().map(str::trim).enumerate();
    lines.filter_map(|(at, line)| comment(line).map(|from| (at + 1, &line[from..]))).collect()
}

/// Returns the first idiom in a comment line. Code between backticks is ignored.
fn idiom(line: &str) -> Option<&'static str> {
    const PHRASES: &[(&str, &[&str])] = &[
        ("an inverted negative", &["is none", "are none", "was none", "were none"]),
        ("`who` for a process", &["whoever", "whom", "for who", "of who"]),
        ("a missing noun", &["nobody", "somebody", "anybody"]),
        ("`shall`", &["shall"]),
        ("`in the place of`", &["in the place of"]),
        ("a figure of speech for an interface", &["word", "says so", "has said", "is told"]),
        ("`stands` for a place", &["what stands"]),
    ];
    const AFTER_WHO: &[&str] = &[
        "has", "asks", "shows", "made", "runs", "wants", "takes", "gets", "watches", "looks", "starts",
        "maps", "is left", "we are",
    ];
    const AFTER_STANDS: &[&str] = &["in", "at", "there", "behind", "before", "here", "on", "between"];
    const AFTER_ALSO: &[&str] = &["a", "where", "in", "if", "the", "after", "one", "without", "those"];
    const AFTER_WHAT: &[&str] = &[
        "is", "was", "has", "comes", "came", "stands", "follows", "cannot", "does", "the", "a", "an", "we",
        "it", "can", "may", "must",
    ];
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
    let heading = prose.starts_with("##");
    let prose = prose.trim_start_matches(['/', '!', '#', '"', ' ']);
    let lower = prose.to_lowercase();
    let after =
        |first: &str, list: &[&str]| list.iter().any(|second| has(&lower, &format!("{first} {second}")));
    let phrase = PHRASES.iter().find(|(_, phrases)| phrases.iter().any(|phrase| has(&lower, phrase)));
    let negative = ["is no", "are no", "was no", "were no"].iter().any(|phrase| {
        let places = lower.match_indices(phrase).filter(|(at, _)| lower[..*at].ends_with(' '));
        let places = places.filter(|(at, _)| !lower[..*at].ends_with("there "));
        let mut nouns = places.filter_map(|(at, _)| lower[at + phrase.len()..].strip_prefix(' '));
        let noun = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
        nouns.any(|rest| noun(rest) && !rest.starts_with("longer") && !rest.starts_with("more"))
    });
    let clause = |what: &str| AFTER_WHAT.iter().any(|second| has_prefix(what, &format!("what {second}")));
    let starts = [". ", ": ", "; "].iter().flat_map(|stop| lower.match_indices(stop));
    let subject = !heading && prose.starts_with("What ") && clause(&lower)
        || starts.map(|(at, _)| &lower[at + 2..]).any(clause);
    match phrase {
        Some((name, _)) => Some(name),
        _ if negative => Some("an inverted negative"),
        _ if after("who", AFTER_WHO) => Some("`who` for a process"),
        _ if subject => Some("a clause with `what` as the subject"),
        _ if after("stand", AFTER_STANDS) || after("stands", AFTER_STANDS) => Some("`stands` for a place"),
        _ if after("also", AFTER_ALSO) => Some("`also` before its object"),
        _ => None,
    }
}

/// Returns true if `text` has `phrase` as whole words.
fn has(text: &str, phrase: &str) -> bool {
    let boundary = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(phrase).any(|(at, _)| boundary(&text[..at]) && has_prefix(&text[at..], phrase))
}

/// Returns true if `text` begins with `phrase` as whole words.
fn has_prefix(text: &str, phrase: &str) -> bool {
    let rest = text.strip_prefix(phrase);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Checks that comment lines in Rust are as narrow as code. Lines with a URL and rows of a table are exempt.
pub(crate) fn widths(page: &Page) -> Vec<String> {
    if !page.path.ends_with(".rs") {
        return Vec::new();
    }
    let exempt = |line: &str| {
        let prose = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        line.contains("://") || prose.starts_with('|')
    };
    let lines = page.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
    lines
        .map(|(at, line)| (at, line, line.chars().count()))
        .filter(|(_, line, columns)| *columns > COLUMNS_MAX && !exempt(line))
        .map(|(at, _, columns)| format!("{}:{}: a comment of {columns} columns", page.path, at + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.to_owned(), text: text.to_owned() }
    }

    /// The words are separate here, since this file is checked too.
    #[test]
    fn a_reference_outside_the_repository_is_found() {
        for (name, number) in [
            ("spec", "3.5"),
            ("(spec", "6.2)"),
            ("evidence", "E7"),
            ("Evidence", "1.3"),
            ("docs/design.md", "10"),
        ] {
            let text = format!("//! A text.\n//! See {name} {number}.");
            let found = references(&page("src/a.rs", &text));
            let name = format!("src/a.rs:2: a page outside the repository: {name} {number}.");
            assert_eq!(found, [name]);
        }
        let section = format!("// See section 3.5 of the {}, which has all.\n", "spec");
        assert_eq!(references(&page("src/a.rs", &section)).len(), 1);
        let absolute = format!("# As /work/{}/notes.md says\n", "shared");
        assert_eq!(references(&page("tests/a.py", &absolute)).len(), 1);
        let wrapped = format!("/// The rule of {}\n    /// {}.\n", "spec", "4.1");
        assert_eq!(references(&page("src/a.rs", &wrapped)).len(), 1);
        let path = format!("# See {}/shared/notes.md\n", "..");
        assert_eq!(references(&page("tests/a.py", &path)).len(), 1);
        let inside =
            "See docs/protocol.md#groups, docs/design.md, CVE-2019-5736 and the specification. 3 tests.";
        assert!(references(&page("README.md", inside)).is_empty());
    }

    #[test]
    fn every_idiom_is_found() {
        let lines = [
            "// The number is no descriptor.",
            "// There are none of them.",
            "// Whoever reads it ends.",
            "// The process who runs it.",
            "// Nobody reads it.",
            "// It shall end.",
            "// Opened in the place of the other.",
            "// Ends without a word.",
            "/// What is left is closed.",
            "// It ends: what has no reader is lost.",
            "// The file that stands there.",
            "// It is closed also in the child.",
        ];
        for line in lines {
            assert!(idiom(line).is_some(), "{line}");
        }
        let plain = [
            "// The number is no longer open, and there is no more data.",
            "// Returns the keywords, what they mean, and the understanding of it.",
            "// Reads `what is nobody's` as a string. Also closes it.",
            "## What is compared",
            "// There is no limit.",
            "/// Whatever is left is closed.",
        ];
        for line in plain {
            assert_eq!(idiom(line), None, "{line}");
        }
    }

    #[test]
    fn idioms_count_in_comments_only() {
        let code = "let nobody = \"nobody\";\n";
        assert!(idioms(&[page("src/a.rs", code), page("tests/a.py", "nobody = 1\n")]).is_empty());
        let python =
            "def a():\n    \"\"\"Says\n    nobody.\n    \"\"\"\n    nobody = 1  # a number\n# nobody\n";
        let found = idioms(&[page("tests/a.py", python)]);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(
            found[0].starts_with("tests/a.py:3: ") && found[1].starts_with("tests/a.py:6: "),
            "{found:#?}"
        );
        assert_eq!(idioms(&[page("README.md", "Nobody reads it.\n")]).len(), 2);
        assert_eq!(idioms(&[page("tests/run", "# nobody\n")]).len(), 2);
        assert_eq!(idioms(&[page("a.go", "// nobody\n")]).len(), 2);
        assert!(idioms(&[page("snapshots/a.snap", "# nobody\n")]).is_empty());
    }

    #[test]
    fn more_than_one_idiom_in_a_hundred_lines_is_too_much() {
        let lines = |plain: usize| format!("// Nobody.\n{}", "// The launcher.\n".repeat(plain));
        assert!(idioms(&[page("src/a.rs", &lines(99))]).is_empty());
        assert_eq!(idioms(&[page("src/a.rs", &lines(98))]).len(), 2);
    }

    #[test]
    fn three_idioms_in_a_short_file_are_too_many() {
        let other = page("README.md", &"The launcher.\n".repeat(1_000));
        let file = |idioms: usize| {
            page("src/a.rs", &format!("{}{}", "// Nobody.\n".repeat(idioms), "// The launcher.\n".repeat(50)))
        };
        assert!(idioms(&[file(2), other.clone()]).is_empty());
        assert_eq!(idioms(&[file(3), other]).len(), 3);
    }

    #[test]
    fn a_wide_comment_is_found() {
        let fits = format!("    // {}\n", "ä".repeat(103));
        assert!(widths(&page("src/a.rs", &fits)).is_empty());
        let wide = format!("fn a() {{}}\n    // {}\n", "ä".repeat(104));
        assert_eq!(widths(&page("src/a.rs", &wide)), ["src/a.rs:2: a comment of 111 columns"]);
        for exempt in [format!("/// https://{}\n", "a".repeat(110)), format!("//! | {} |\n", "a".repeat(110))]
        {
            assert!(widths(&page("src/a.rs", &exempt)).is_empty(), "{exempt}");
        }
        assert!(widths(&page("a.py", &wide)).is_empty());
    }
}
