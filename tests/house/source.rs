//! Rust source as the rules see it: without comments, without the text of strings, without inline tests.
//!
//! This is not a parser. It recognises comments, strings, characters and lifetimes, and matches braces.
//! rustfmt and the compiler check the rest. Line numbers stay the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One file of `src/`.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The path, relative to the root of the repository.
    pub(crate) path: String,
    /// The text of the file.
    pub(crate) raw: String,
    /// The code alone: comments and inline tests are blanks, the text of strings is `_`.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, raw: &str) -> Self {
        Self { path: path.to_owned(), raw: raw.to_owned(), code: without_tests(&code_only(raw)) }
    }

    /// Returns the module's path below the crate's root, such as `stage::child`; empty for the root. The root
    /// exports the modules of the [`RINGS`], so the name of a ring is in no path.
    pub(crate) fn module(&self) -> String {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (package, inner) = match path.strip_prefix("crates/").and_then(|path| path.split_once("/src/")) {
            Some((package, inner)) => (package.replace('-', "_"), inner),
            None => (String::new(), without_ring(path.trim_start_matches("src/"), "/")),
        };
        let inner = if matches!(inner, "lib" | "main") { String::new() } else { inner.replace('/', "::") };
        let between = if package.is_empty() || inner.is_empty() { "" } else { "::" };
        format!("{package}{between}{inner}")
    }

    /// The folder of the package's sources: `src`, or `crates/nsexec-audit/src`.
    fn folder(&self) -> &str {
        match self.path.starts_with("crates/") {
            true => {
                self.path.split_once("/src/").map_or("src", |(package, _)| &self.path[..package.len() + 4])
            }
            false => "src",
        }
    }

    /// Returns the number of lines with code.
    pub(crate) fn code_lines(&self) -> usize {
        lines_with_code(&self.code)
    }

    /// Returns the number of lines with code that is compiled only with one of the features.
    pub(crate) fn code_lines_behind(&self, features: &[&str]) -> usize {
        let mut rest = self.code.clone().into_bytes();
        // In `code` the text of a string is blank, so the features' names are read from the raw text.
        for (at, _) in self.code.match_indices("#[cfg(") {
            let end = self.code[at..].find(']').map_or(self.code.len(), |len| at + len + 1);
            let attribute = self.raw.lines().nth(line_of(&self.code, at) - 1).unwrap_or_default();
            // A condition that is not only features may hold without any, so its code is the core's.
            let other = attribute.replace("feature", "").split(['(', ')', '[', ']', ',', '=', ' ', '#']).any(
                |word| !word.is_empty() && !word.starts_with('"') && !["cfg", "any", "all"].contains(&word),
            );
            if !other && features.iter().any(|name| attribute.contains(&format!("\"{name}\""))) {
                blank(&mut rest, at, gated_end(&self.code, end));
            }
        }
        self.code_lines() - lines_with_code(&String::from_utf8(rest).expect("whole characters are blanked"))
    }
}

/// The folders of the root package whose modules the root exports.
const RINGS: [&str; 3] = ["deciders", "scripts", "words"];

/// Returns the path of a module below one of the [`RINGS`] without the ring. `between` separates the path's
/// parts.
pub(crate) fn without_ring<'p>(path: &'p str, between: &str) -> &'p str {
    let inside = |ring: &&str| path.strip_prefix(ring).and_then(|rest| rest.strip_prefix(between));
    RINGS.iter().find_map(inside).unwrap_or(path)
}

/// Returns all files of `src/` that are not test code, ordered by path. They are read once.
pub(crate) fn sources(root: &Path) -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| read_sources(root))
}

fn read_sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root.join("src"), "rs", &mut files);
    collect(&root.join("crates"), "rs", &mut files);
    // Build scripts and examples are not part of a crate's modules.
    files.retain(|path| path.strip_prefix(root).is_ok_and(|path| path.iter().any(|part| part == "src")));
    let all: Vec<Source> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            Source::new(&name, &fs::read_to_string(path).expect("source is UTF-8"))
        })
        .collect();
    let tests: Vec<String> = all.iter().flat_map(test_files).collect();
    all.into_iter().filter(|source| !tests.contains(&source.path)).collect()
}

/// Adds every file below `folder` whose name ends in `.ext`, sorted.
pub(crate) fn collect(folder: &Path, ext: &str, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, ext, into);
        } else if path.extension().is_some_and(|found| found == ext) {
            into.push(path);
        }
    }
}

/// Returns the files that `#[cfg(test)] mod NAME;` in `source` includes.
fn test_files(source: &Source) -> Vec<String> {
    let code = code_only(&source.raw);
    let mut found = Vec::new();
    for at in test_marks(&code) {
        let rest = code[at..].split_once(")]").map_or("", |(_, rest)| rest).trim_start();
        let Some(name) =
            rest.trim_start_matches("pub(crate) ").strip_prefix("mod ").and_then(|rest| rest.split_once(';'))
        else {
            continue;
        };
        if !name.0.contains('{') {
            let folder = match source.path.strip_suffix("/mod.rs") {
                Some(folder) => folder,
                None if ["lib.rs", "main.rs"]
                    .contains(&source.path.rsplit('/').next().unwrap_or_default()) =>
                {
                    source.folder()
                }
                None => source.path.trim_end_matches(".rs"),
            };
            found.push(format!("{folder}/{}.rs", name.0.trim()));
        }
    }
    found
}

/// Replaces comments by blanks, and the text of strings and characters by `_`; line breaks stay.
pub(crate) fn code_only(raw: &str) -> String {
    let chars: Vec<char> = raw.chars().collect();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => fill(&mut out, &chars, at, line_end(&chars, at), ' '),
            ('/', Some('*')) => fill(&mut out, &chars, at, block_comment_end(&chars, at), ' '),
            ('"', _) => fill(&mut out, &chars, at, string_end(&chars, at), '_'),
            ('\'', _) => match character_end(&chars, at) {
                Some(end) => fill(&mut out, &chars, at, end, '_'),
                None => fill(&mut out, &chars, at, at + 1, '\''),
            },
            ('r', Some('"' | '#')) if !word_before(&chars, at) && raw_string_end(&chars, at).is_some() => {
                let end = raw_string_end(&chars, at).expect("just seen");
                fill(&mut out, &chars, at, end, '_')
            }
            (other, _) => {
                out.push(other);
                at + 1
            }
        };
        at = end;
    }
    out
}

fn fill(out: &mut String, chars: &[char], from: usize, to: usize, with: char) -> usize {
    let to = to.min(chars.len());
    out.extend(chars[from..to].iter().map(|found| if *found == '\n' { '\n' } else { with }));
    to
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|found| *found == '\n').map_or(chars.len(), |len| from + len)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Returns the end of a character literal, or `None` if the quote begins a lifetime.
fn character_end(chars: &[char], from: usize) -> Option<usize> {
    match chars.get(from + 1)? {
        '\\' => chars[from + 3..].iter().position(|found| *found == '\'').map(|len| from + 3 + len + 1),
        _ => (chars.get(from + 2) == Some(&'\'')).then_some(from + 3),
    }
}

fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from + 1..].iter().take_while(|found| **found == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let len = chars[open + 1..].windows(close.len()).position(|found| found == close)?;
    Some(open + 1 + len + close.len())
}

/// Returns true if the character before `at` belongs to the same word; `b` and `c` before a raw string do not
/// count.
fn word_before(chars: &[char], at: usize) -> bool {
    let word = |index: usize| chars.get(index).is_some_and(|found| found.is_alphanumeric() || *found == '_');
    at > 0 && word(at - 1) && !(matches!(chars[at - 1], 'b' | 'c') && (at < 2 || !word(at - 2)))
}

/// Returns the positions of the attributes that mark an item as test code.
fn test_marks(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("#[cfg(test)]").chain(code.match_indices("#[cfg(all(test,")).map(|(at, _)| at)
}

/// Blanks out every item that is test code, and every attribute `#[cfg_attr(test, …)]`.
fn without_tests(code: &str) -> String {
    let mut out: Vec<u8> = code.as_bytes().to_vec();
    for at in test_marks(code) {
        let end = item_end(code, at);
        blank(&mut out, at, end);
    }
    for (at, _) in code.match_indices("#[cfg_attr(test,") {
        let end = code[at..].find(")]").map_or(code.len(), |len| at + len + 2);
        blank(&mut out, at, end);
    }
    String::from_utf8(out).expect("whole characters are blanked")
}

fn blank(out: &mut [u8], from: usize, to: usize) {
    for byte in &mut out[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn lines_with_code(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Returns the end of what an attribute that ends at `from` applies to: an item, a statement, a field, a
/// variant, or an arm of a match.
fn gated_end(code: &str, from: usize) -> usize {
    const ITEMS: [&str; 12] = [
        "texts!", "pub ", "pub(", "fn ", "mod ", "impl", "struct ", "enum ", "extern", "unsafe ", "if ", "{",
    ];
    const STATEMENTS: [&str; 6] = ["use ", "pub use ", "pub(crate) use ", "let ", "static ", "const "];
    let start = from + code[from..].len() - code[from..].trim_start().len();
    if code[start..].starts_with("#[") {
        return gated_end(code, start + code[start..].find(']').map_or(0, |len| len + 1));
    }
    if STATEMENTS.iter().any(|word| code[start..].starts_with(word)) && !code[start..].starts_with("const fn")
    {
        return code[start..].find(';').map_or(code.len(), |len| start + len + 1);
    }
    // A field may begin with `pub` as an item does; but its comma comes before any brace.
    let item = ITEMS.iter().any(|word| code[start..].starts_with(word));
    let field = item && {
        let head = code[start..].split(['{', ';', '(', '=']).next().unwrap_or_default();
        head.contains(':') && head.contains(',') && !head.contains("fn ") && !head.contains("impl")
    };
    if item && !field {
        return item_end(code, start);
    }
    let (mut depth, mut arm) = (0_i32, false);
    for (len, byte) in code[start..].bytes().enumerate() {
        let at = start + len;
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b'}' if depth == 1 && arm => return at + 1,
            b')' | b']' | b'}' if depth == 0 => return at,
            b')' | b']' | b'}' => depth -= 1,
            b',' | b';' if depth == 0 => return at + 1,
            b'>' if depth == 0 && code[..at].ends_with('=') => {
                arm = code[at + 1..].trim_start().starts_with('{')
            }
            _ => {}
        }
    }
    code.len()
}

/// Returns the end of an item: its `;`, or the brace that closes its body.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let mut brackets = 0_i32;
    let mut braces = 0_i32;
    for (len, byte) in code[from..].bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' if braces == 1 => return from + len + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && brackets == 0 => return from + len + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns the number of the line with the byte at `at`.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Returns the positions of `word` in `code` as a whole word.
pub(crate) fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).is_some_and(|at| part(code.as_bytes()[at]));
        let after = code.as_bytes().get(at + word.len()).is_some_and(|byte| part(*byte));
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        let raw = "let a = \"unsafe // \\\" {\"; // unsafe\nlet b = '{'; /* { /* } */ unsafe */ let c: &'static u8;\n\
                   let d = br#\"unsafe \" }\"#; let e = '\\''; let r = 1;";
        let code = code_only(raw);
        assert!(!code.contains("unsafe") && !code.contains('{') && !code.contains('}'), "{code}");
        assert!(code.contains("let c: &'static u8;") && code.contains("let r = 1;"), "{code}");
        assert_eq!(code.matches('\n').count(), raw.matches('\n').count());
    }

    #[test]
    fn inline_tests_are_not_code() {
        let raw = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::io;\n    fn b() { {} }\n}\nfn c() {}\n";
        let source = Source::new("src/a.rs", raw);
        assert!(!source.code.contains("std") && source.code.contains("fn c"), "{}", source.code);
        assert_eq!(source.code_lines(), 2);
    }

    #[test]
    fn the_files_of_test_modules_are_found() {
        assert_eq!(
            test_files(&Source::new("src/a.rs", "#[cfg(test)]\npub(crate) mod tests;\n")),
            ["src/a/tests.rs"]
        );
        let raw = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod inline { }\n#[cfg(not(test))]\nmod real;\n";
        assert_eq!(test_files(&Source::new("src/scripts/stage/mod.rs", raw)), ["src/scripts/stage/tests.rs"]);
        let both = "#[cfg(all(test, feature = \"audit\"))]\nmod tests;\n";
        assert_eq!(
            test_files(&Source::new("src/scripts/stage/mod.rs", both)),
            ["src/scripts/stage/tests.rs"]
        );
        assert_eq!(
            test_files(&Source::new("src/deciders/idmap/mod.rs", raw)),
            ["src/deciders/idmap/tests.rs"]
        );
        assert_eq!(test_files(&Source::new("src/lib.rs", raw)), ["src/tests.rs"]);
    }

    #[test]
    fn an_array_type_does_not_end_an_item() {
        let code = "fn a() -> [u8; 4] { [0; 4] } fn b();";
        assert_eq!(&code[..item_end(code, 0)], "fn a() -> [u8; 4] { [0; 4] }");
    }

    #[test]
    fn code_behind_a_feature_is_counted() {
        let lines = |raw: &str| Source::new("src/a.rs", raw).code_lines_behind(&["std"]);
        assert_eq!(lines("#[cfg(feature = \"std\")]\nuse a::{b, c};\nuse d;\n"), 2);
        assert_eq!(
            lines("#[cfg(feature = \"std\")]\n#[must_use]\npub const fn a<B, C>() {\n}\nfn d() {}\n"),
            4
        );
        assert_eq!(lines("struct A {\n#[cfg(feature = \"std\")]\npub b: C<D>,\npub e: F,\n}\n"), 2);
        assert_eq!(lines("match a {\n#[cfg(feature = \"std\")]\nB { c, d } => {\ne(f);\n}\nG => h,\n}\n"), 4);
        assert_eq!(lines("match a {\n#[cfg(feature = \"std\")]\nB(c) => d(c, e),\nG => h,\n}\n"), 2);
        assert_eq!(lines("#[cfg(any(feature = \"std\", unix))]\nfn a();\n"), 0);
        assert_eq!(lines("enum A {\n#[cfg(feature = \"std\")]\nB\n}\n"), 2);
        assert_eq!(lines("#[cfg(any(feature = \"legacy\", feature = \"std\"))]\nfn a();\n"), 2);
        assert_eq!(
            lines("#[cfg(not(feature = \"std\"))]\nfn a();\n#[cfg(feature = \"legacy\")]\nfn b();\n"),
            0
        );
    }

    #[test]
    fn words_are_matched_whole() {
        assert_eq!(words("unsafe_op unsafe xunsafe unsafe", "unsafe").count(), 2);
    }
}
