//! Renders one or two documents as a self-contained HTML page, with a light and a dark colour scheme.
//!
//! The page loads nothing. It has a column for each process, and a row for each call in time. A call opens to
//! its whole text, its reason, its rules and its manual pages. A small script filters the calls; without the
//! script the page shows all of them. Two documents stand side by side, with their differences above.
//!
//! The page is well-formed XML, so a test can parse it.

mod about;
#[cfg(test)]
mod tests;

use core::fmt::{self, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::order::{Step, in_time};
use super::paint::call_spans;
use super::svg::escaped;
use super::text::comment;
use super::walk::{AnnotatedLine, walk};
use super::{COLUMNS, Document, Fact, Fate};
use crate::record::Reply;
use crate::rules::RULES;
use crate::transcript::Role;

/// Returns one document as a page, with a newline at the end.
#[must_use]
pub fn html(document: &Document<'_>) -> String {
    page(document.title, &[document], "")
}

/// Returns two documents as one page, side by side. `differences` is a text above them.
#[must_use]
pub fn side_by_side(left: &Document<'_>, right: &Document<'_>, differences: &str) -> String {
    page(&format!("{} and {}", left.title, right.title), &[left, right], differences)
}

fn page(title: &str, documents: &[&Document<'_>], differences: &str) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut out, title, documents, differences);
    out
}

/// The policy of the page: no request to any host.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

fn write_page(out: &mut String, title: &str, documents: &[&Document<'_>], differences: &str) -> fmt::Result {
    let title = if title.is_empty() { "A start" } else { title };
    let title = escaped(title);
    writeln!(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>")?;
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>")?;
    writeln!(out, "<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>", include_str!("style.css"))?;
    writeln!(out, "<h1>{title}</h1>")?;
    let mut used = Used::default();
    let mut body = String::new();
    for document in documents {
        side(&mut body, document, documents.len() > 1, &mut used)?;
    }
    if !differences.is_empty() {
        writeln!(out, "<h2>Differences</h2>\n<pre>{}</pre>", escaped(differences))?;
    }
    filter(out, &used)?;
    let pair = if documents.len() > 1 { " pair" } else { "" };
    writeln!(out, "<div class=\"sides{pair}\">\n{body}</div>")?;
    rules(out, &used)?;
    writeln!(out, "<script>\n{}</script>\n</body>\n</html>", include_str!("script.js"))
}

/// The names that occur in the page.
#[derive(Default)]
struct Used {
    stages: BTreeSet<Role>,
    classes: BTreeSet<&'static str>,
    rules: BTreeSet<&'static str>,
}

/// Writes the form of the filter. The script shows it.
fn filter(out: &mut String, used: &Used) -> fmt::Result {
    writeln!(out, "<form id=\"filter\" hidden=\"hidden\">\n<fieldset><legend>Stages</legend>")?;
    for role in &used.stages {
        let name = role.name();
        writeln!(
            out,
            "<label><input type=\"checkbox\" name=\"stage\" value=\"{name}\" checked=\"checked\"/> {name}</label>"
        )?;
    }
    writeln!(out, "</fieldset>\n<fieldset><legend>Calls</legend>")?;
    for class in about::CLASSES.into_iter().filter(|class| used.classes.contains(class)) {
        writeln!(
            out,
            "<label class=\"kind {class}\"><input type=\"checkbox\" name=\"kind\" value=\"{class}\" checked=\"checked\"/> \
             {class}</label>"
        )?;
    }
    writeln!(out, "</fieldset>")?;
    writeln!(out, "<input type=\"search\" name=\"text\" placeholder=\"search\" aria-label=\"search\"/>")?;
    writeln!(out, "<button type=\"button\" id=\"open\">open all</button>")?;
    writeln!(out, "<button type=\"button\" id=\"close\">close all</button>")?;
    writeln!(out, "<output id=\"count\"></output>\n</form>")
}

/// Writes one document: its head, and its calls in time.
fn side(out: &mut String, document: &Document<'_>, pair: bool, used: &mut Used) -> fmt::Result {
    writeln!(out, "<section class=\"side\">")?;
    writeln!(out, "<div class=\"head\">")?;
    if pair {
        writeln!(out, "<h2>{}</h2>", escaped(document.title))?;
    }
    head(out, document)?;
    writeln!(out, "</div>")?;
    let lanes = lanes(document);
    let steps = in_time(document);
    let walked = walk(document);
    writeln!(out, "<div class=\"time\" style=\"--lanes:{}\">", lanes.len().max(1))?;
    for (role, lane) in &lanes {
        used.stages.insert(*role);
        let rows = steps.len() + 1;
        writeln!(out, "<div class=\"lane\" style=\"grid-column:{lane};grid-row:1/span {rows}\"></div>")?;
        write!(out, "<div class=\"name\" style=\"grid-column:{lane};grid-row:1\">{}", role.name())?;
        writeln!(out, "<small>{}</small></div>", role.caption())?;
    }
    for (row, step) in (2..).zip(&steps) {
        let (Step::Line(section, _) | Step::End(section)) = *step;
        let Some(view) = document.sections.get(section) else { continue };
        let role = lane_of(view.section.role);
        let lane = lanes.get(&role).copied().unwrap_or(1);
        let place = format!("grid-column:{lane};grid-row:{row}");
        match *step {
            Step::Line(section, line) => {
                if let Some(seen) = walked.get(section).and_then(|seen| seen.get(line)) {
                    call(out, seen, role, &place, used)?;
                }
            }
            Step::End(_) if view.outcome.is_empty() => {}
            Step::End(_) => {
                let failed = if view.fate == Fate::Failed { " failed" } else { "" };
                writeln!(
                    out,
                    "<div class=\"end{failed}\" style=\"{place}\">{}</div>",
                    escaped(view.outcome)
                )?;
            }
        }
    }
    writeln!(out, "</div>\n</section>")
}

/// Returns the column of each process, from 1.
fn lanes(document: &Document<'_>) -> BTreeMap<Role, usize> {
    let mut roles: Vec<Role> = document
        .sections
        .iter()
        .map(|view| lane_of(view.section.role))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    roles.sort_by_key(|role| COLUMNS.iter().position(|column| column == role).unwrap_or(usize::MAX));
    roles.into_iter().zip(1..).collect()
}

/// All processes that the protocol does not have share a column.
fn lane_of(role: Role) -> Role {
    role.column().unwrap_or(Role::Other(0))
}

/// Writes the summary, the verdict and the assumptions.
fn head(out: &mut String, document: &Document<'_>) -> fmt::Result {
    let pairs = |out: &mut String, facts: &[Fact<'_>]| {
        facts.iter().try_for_each(|fact| {
            writeln!(out, "<dt>{}</dt><dd>{}</dd>", escaped(fact.key), escaped(fact.value))
        })
    };
    writeln!(out, "<dl>")?;
    pairs(out, document.summary)?;
    if let Some(verdict) = document.verdict {
        let failed = document
            .sections
            .iter()
            .any(|view| view.section.role == Role::Launcher && view.fate == Fate::Failed);
        let class = if failed { "bad" } else { "good" };
        writeln!(out, "<dt>verdict</dt><dd class=\"verdict {class}\">{}</dd>", escaped(verdict))?;
    }
    let more = [("shape", document.shape), ("plan", document.hash), ("pid line", document.pid_line)];
    let more: Vec<Fact<'_>> =
        more.into_iter().filter_map(|(key, value)| Some(Fact { key, value: value? })).collect();
    pairs(out, &more)?;
    writeln!(out, "</dl>")?;
    if !document.assumptions.is_empty() {
        writeln!(out, "<details><summary>Assumptions</summary>\n<dl>")?;
        pairs(out, document.assumptions)?;
        writeln!(out, "</dl></details>")?;
    }
    for (title, lines) in [("Findings of the rules", document.findings), ("Log", document.log)] {
        if !lines.is_empty() {
            writeln!(out, "<h2>{title}</h2>\n<pre>{}</pre>", escaped(&lines.join("\n")))?;
        }
    }
    Ok(())
}

fn call(out: &mut String, seen: &AnnotatedLine<'_>, role: Role, place: &str, used: &mut Used) -> fmt::Result {
    let class = about::class(seen);
    used.classes.insert(class);
    let failed = if matches!(seen.line.reply, Reply::Errno(_)) { " failed" } else { "" };
    let whole = seen.line.to_string();
    let short: String = call_spans(seen.line).iter().map(|span| span.text.replace('\u{a0}', " ")).collect();
    write!(
        out,
        "<details class=\"call {class}{failed}\" data-stage=\"{}\" data-kind=\"{class}\" style=\"{place}\">",
        role.name()
    )?;
    write!(out, "<summary><span class=\"who\">{} </span><code>{}</code>", role.name(), escaped(&short))?;
    let reason = comment(seen);
    if let Some(reason) = &reason {
        write!(out, "<span class=\"why\">{}</span>", escaped(reason))?;
    }
    write!(out, "</summary><dl>")?;
    if whole != short {
        write!(out, "<dt>Call</dt><dd><code>{}</code></dd>", escaped(&whole))?;
    }
    let reason = reason.as_deref().unwrap_or("an ordinary step, without a reason of its own");
    write!(out, "<dt>Reason</dt><dd>{}</dd>", escaped(reason))?;
    let rules = about::rules(seen);
    if !rules.is_empty() {
        used.rules.extend(rules);
        let links: Vec<String> =
            rules.iter().map(|rule| format!("<a href=\"#rule-{rule}\">{rule}</a>")).collect();
        write!(out, "<dt>Rules</dt><dd>{}</dd>", links.join(", "))?;
    }
    let manual = about::manual(seen);
    writeln!(out, "<dt>Manual</dt><dd>{}</dd></dl></details>", escaped(&manual))
}

/// Writes the reasons of the rules that calls refer to.
fn rules(out: &mut String, used: &Used) -> fmt::Result {
    if used.rules.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>Rules</h2>\n<dl class=\"rules\">")?;
    for rule in RULES.iter().filter(|rule| used.rules.contains(rule.name)) {
        let reference = escaped(rule.reference);
        writeln!(
            out,
            "<dt id=\"rule-{0}\">{0}</dt><dd>{1} ({reference})</dd>",
            rule.name,
            escaped(rule.reason)
        )?;
    }
    writeln!(out, "</dl>")
}
