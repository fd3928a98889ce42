//! Tests of the page: it is well-formed, whole and closed to the outside.

use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::super::tests::samples;
use super::super::{Document, Fact, Fate, SectionView};
use super::{html, side_by_side};
use crate::record::{Call, Line, Reply};
use crate::rules::RULES;
use crate::transcript::{Role, Section};
use nsexec::sys::types::{Errno, Fd, OpenFlags};

/// Calls `test` with the page as XML.
fn parsed(page: &str, test: impl FnOnce(&roxmltree::Document<'_>)) {
    let page = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    test(&roxmltree::Document::parse(page).unwrap());
}

fn texts(page: &roxmltree::Document<'_>, class: &str) -> Vec<String> {
    let has = |node: &roxmltree::Node<'_, '_>| {
        node.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
    };
    let text = |node: roxmltree::Node<'_, '_>| {
        node.descendants().filter_map(|part| part.text().filter(|_| part.is_text())).collect::<String>()
    };
    page.descendants().filter(has).map(text).collect()
}

/// Asserts that the page refers to nothing outside of itself.
fn assert_closed(page: &roxmltree::Document<'_>) {
    let ids: BTreeSet<&str> = page.descendants().filter_map(|node| node.attribute("id")).collect();
    for node in page.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["img", "link", "iframe", "object", "embed", "base"].contains(&name), "{name}");
        for attribute in node.attributes() {
            match attribute.name() {
                "href" => assert!(ids.contains(attribute.value().strip_prefix('#').unwrap())),
                "src" | "srcset" | "action" => panic!("{name} {}", attribute.value()),
                other => assert!(!other.starts_with("on"), "{name} {other}"),
            }
        }
        if ["style", "script"].contains(&name) {
            let text = node.text().unwrap();
            for part in ["http:", "https:", "url(", "@import", "fetch", "XMLHttp"] {
                assert!(!text.contains(part), "{part}");
            }
        }
    }
}

#[test]
fn page_has_every_call_once_and_no_other_host() {
    let known: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    for sample in samples() {
        sample.with(|document| {
            let count: usize = document.sections.iter().map(|view| view.section.lines.len()).sum();
            parsed(&html(document), |page| {
                assert_eq!(texts(page, "call").len(), count, "{}", sample.name);
                assert_closed(page);
                let links = page.descendants().filter_map(|node| node.attribute("href"));
                assert!(links.map(|link| &link[6..]).all(|rule| known.contains(rule)));
                let mut whole: Vec<String> = document
                    .sections
                    .iter()
                    .flat_map(|view| &view.section.lines)
                    .map(|line| line.to_string().chars().take(20).collect())
                    .collect();
                let mut shown: Vec<String> = page
                    .descendants()
                    .filter(|node| node.has_tag_name("summary"))
                    .filter_map(|node| node.children().find(|part| part.has_tag_name("code")))
                    .map(|node| node.text().unwrap().chars().take(20).collect())
                    .collect();
                whole.sort();
                shown.sort();
                assert_eq!(shown.len(), whole.len());
                assert!(shown.iter().zip(&whole).all(|(one, other)| one[..4] == other[..4]));
            });
        });
    }
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</script><img src=x onerror=alert(1)>\"'&\u{202e}]]>";
    let mut section = Section::new(Role::Stage(1));
    section.name = hostile.into();
    let open = |path: &str| Line {
        call: Call::Openat { dir: Fd::CWD, path: path.as_bytes().into(), flags: OpenFlags::ReadOnly },
        reply: Reply::Errno(Errno::ENOENT),
    };
    section.lines = vec![open(hostile), open("/proc/self/ns/net")];
    let view = SectionView { section: &section, outcome: hostile, fate: Fate::Failed };
    let document = Document {
        title: hostile,
        summary: &[Fact { key: hostile, value: hostile }],
        verdict: Some(hostile),
        hash: Some(hostile),
        shape: Some(hostile),
        assumptions: &[Fact { key: hostile, value: hostile }],
        sections: &[view],
        pid_line: Some(hostile),
        log: &[hostile],
        findings: &[hostile],
    };
    for page in [html(&document), side_by_side(&document, &document, hostile)] {
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("<img") && !page.contains('\u{202e}'));
        parsed(&page, |page| {
            assert_closed(page);
            assert!(texts(page, "call")[0].contains("</script><img src=x onerror=alert(1)>"));
        });
    }
}

#[test]
fn two_documents_stand_side_by_side() {
    let samples = samples();
    samples[0].with(|left| {
        samples[1].with(|right| {
            let count = |document: &Document<'_>| -> usize {
                document.sections.iter().map(|view| view.section.lines.len()).sum()
            };
            parsed(&side_by_side(left, right, "launcher: line 4 differs"), |page| {
                assert_eq!(texts(page, "side").len(), 2);
                assert_eq!(texts(page, "call").len(), count(left) + count(right));
                assert_closed(page);
            });
        });
    });
}

#[test]
fn page_matches_its_snapshot() {
    let samples = samples();
    let sample = samples.iter().find(|sample| sample.name == "direct").unwrap();
    let page = sample.with(html);
    // The style and the script are files of their own.
    let (head, body) = page.split_once("<style>").unwrap();
    let body = body.split_once("</style>").unwrap().1.split_once("<script>").unwrap().0;
    super::super::tests::assert_snapshot("render_html_direct", &format!("{head}{body}"));
}
