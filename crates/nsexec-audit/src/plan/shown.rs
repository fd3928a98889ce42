//! A plan as a text, as a picture, and as JSON.

use std::string::{String, ToString};
use std::vec::Vec;

use super::Plan;
use crate::render::document::with_sections;
use crate::render::saved::{FINDINGS, HASH, SHAPE};
use crate::render::{Document, Fact, mermaid, svg, text};

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

    /// Returns the plan as an SVG picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        self.show(svg::svg)
    }

    /// Returns the calls as JSON lines. The hash, the shape, the policy, the assumptions and the findings are
    /// notes. The values of the command's environment are left out.
    ///
    /// # Errors
    /// Never in practice: each value can be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut run = self.run.clone().without_values();
        run.notes.insert(HASH.into(), self.hash.clone());
        run.notes.insert(SHAPE.into(), self.shape.clone());
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        run.notes.insert(FINDINGS.into(), findings.join("\n"));
        for (key, value) in self.policy.iter().chain(&self.assumptions) {
            run.notes.insert(key.clone(), value.clone());
        }
        run.to_json_lines()
    }

    /// Calls `show` with the document that the renderers need.
    fn show<T>(&self, show: impl FnOnce(&Document<'_>) -> T) -> T {
        let taken_for_granted = self.assumptions.iter().chain(&self.policy);
        let facts: Vec<Fact<'_>> = taken_for_granted.map(|(key, value)| Fact { key, value }).collect();
        let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
        let base = Document {
            title: if self.succeeds { "Plan of a start" } else { "Plan of a start that will fail" },
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
