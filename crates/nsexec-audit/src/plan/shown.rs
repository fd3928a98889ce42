//! A plan as a text, as a picture, and as JSON.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::{Plan, Verdict};
use crate::render::document::with_sections;
use crate::render::saved::{FINDINGS, HASH, SHAPE, SUMMARY, VERDICT};
use crate::render::summary::summary;
use crate::render::{Document, Fact, html, mermaid, svg, text};
use crate::rules::Severity;
use crate::transcript::{End, Run};

impl Plan {
    /// Returns the plan as text: each call of each process with its reason.
    #[must_use]
    pub fn to_text(&self, look: text::Look) -> String {
        self.show(|document| text::text(document, look))
    }

    /// Returns the plan as a sequence diagram in mermaid's language.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        self.show(mermaid::mermaid)
    }

    /// Returns the plan as a self-contained HTML page.
    #[must_use]
    pub fn to_html(&self) -> String {
        self.show(html::html)
    }

    /// Returns the plan as an SVG picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        self.show(svg::svg)
    }

    /// Returns the calls as JSON lines: those of [`to_run`](Self::to_run).
    ///
    /// # Errors
    /// Never in practice: each value can be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        self.to_run().to_json_lines()
    }

    /// Returns the plan as a run. The summary, the verdict, the hash, the shape, the policy, the assumptions
    /// and the findings are notes. The values of the command's environment are left out.
    #[must_use]
    pub fn to_run(&self) -> Run {
        let mut run = self.run.clone().without_values();
        let summary = self.summary().into_iter().map(|(key, value)| format!("{key}: {value}"));
        run.notes.insert(SUMMARY.into(), summary.collect::<Vec<_>>().join("\n"));
        run.notes.insert(VERDICT.into(), self.verdict_in_words());
        run.notes.insert(HASH.into(), self.hash.clone());
        run.notes.insert(SHAPE.into(), self.shape.clone());
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        run.notes.insert(FINDINGS.into(), findings.join("\n"));
        for (key, value) in self.policy.iter().chain(&self.assumptions) {
            run.notes.insert(key.clone(), value.clone());
        }
        run
    }

    /// Returns the summary of the plan as subject and value: the command, its namespaces, its ids, its
    /// rights.
    #[must_use]
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        summary(&self.run, self.asked.as_ref(), self.command.as_deref())
    }

    /// Returns the [`verdict`](Self::verdict) in words, with the number of broken rules.
    #[must_use]
    pub fn verdict_in_words(&self) -> String {
        let handed_over = self.run.sections.iter().any(|section| section.end == End::HandedOver);
        let words = match self.verdict() {
            Verdict::Runs if handed_over => "the init of the runtime takes over".to_string(),
            Verdict::Runs if self.run.pins_namespaces() => "the namespaces stay on their files".to_string(),
            verdict => verdict.to_string(),
        };
        let breaches = self.findings.iter().filter(|finding| finding.severity == Severity::Breach).count();
        match breaches {
            0 => words,
            1 => format!("{words}; it breaks 1 rule, see rules"),
            _ => format!("{words}; it breaks {breaches} rules, see rules"),
        }
    }

    /// Calls `show` with the document that the renderers need.
    fn show<T>(&self, show: impl FnOnce(&Document<'_>) -> T) -> T {
        let (summary, verdict) = (self.summary(), self.verdict_in_words());
        let summary: Vec<Fact<'_>> = summary.iter().map(|(key, value)| Fact { key, value }).collect();
        let taken_for_granted = self.assumptions.iter().chain(&self.policy);
        let facts: Vec<Fact<'_>> = taken_for_granted.map(|(key, value)| Fact { key, value }).collect();
        let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
        let base = Document {
            title: if self.succeeds { "Plan of a start" } else { "Plan of a start that will fail" },
            summary: &summary,
            verdict: Some(&verdict),
            hash: Some(&self.hash),
            shape: Some(&self.shape),
            assumptions: &facts,
            sections: &[],
            pid_line: self.pid_line.as_deref(),
            log: &log,
            findings: &findings,
        };
        with_sections(&self.run, &base, show)
    }
}
