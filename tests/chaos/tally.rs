//! The counts of a worker, and of all.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) starts: u64,
    /// By shape and outcome.
    pub(crate) shapes: BTreeMap<String, u64>,
    /// By disturbance and outcome.
    pub(crate) disturbances: BTreeMap<String, u64>,
    /// By the text of the error, without its numbers.
    pub(crate) texts: BTreeMap<String, u64>,
    /// The longest time from the last disturbance of a start until its end, in milliseconds.
    pub(crate) longest: u64,
    /// The start with that time.
    pub(crate) longest_of: u64,
    pub(crate) complaints: Vec<String>,
}

fn count(counts: &mut BTreeMap<String, u64>, key: String, more: u64) {
    *counts.entry(key).or_default() += more;
}

impl Tally {
    pub(crate) fn add(&mut self, shape: &str, disturbances: &[String], outcome: &str) {
        self.starts += 1;
        count(&mut self.shapes, format!("{shape} {outcome}"), 1);
        for name in disturbances {
            count(&mut self.disturbances, format!("{name} {outcome}"), 1);
        }
    }

    pub(crate) fn text(&mut self, text: String) {
        count(&mut self.texts, text, 1);
    }

    pub(crate) fn waited(&mut self, milliseconds: u64, number: u64) {
        if milliseconds > self.longest {
            (self.longest, self.longest_of) = (milliseconds, number);
        }
    }

    pub(crate) fn write(&self, file: &Path) {
        let value = json!({
            "starts": self.starts, "shapes": self.shapes, "disturbances": self.disturbances,
            "texts": self.texts, "longest": self.longest, "longest_of": self.longest_of,
            "complaints": self.complaints,
        });
        std::fs::write(file, value.to_string()).expect("a report");
    }

    /// Adds the counts of a worker.
    pub(crate) fn read(&mut self, file: &Path) {
        let text = std::fs::read_to_string(file).expect("a report");
        let value: Value = serde_json::from_str(&text).expect("a report");
        self.starts += value["starts"].as_u64().expect("a count");
        for (name, counts) in [
            ("shapes", &mut self.shapes),
            ("disturbances", &mut self.disturbances),
            ("texts", &mut self.texts),
        ] {
            for (key, more) in value[name].as_object().expect("counts") {
                count(counts, key.clone(), more.as_u64().expect("a count"));
            }
        }
        self.waited(
            value["longest"].as_u64().expect("a time"),
            value["longest_of"].as_u64().expect("a number"),
        );
        let complaints = value["complaints"].as_array().expect("complaints");
        self.complaints.extend(complaints.iter().filter_map(|text| text.as_str().map(str::to_owned)));
    }

    /// Prints one line for each shape and disturbance, with its outcomes.
    pub(crate) fn print(&self) {
        for counts in [&self.shapes, &self.disturbances] {
            let mut lines: BTreeMap<&str, String> = BTreeMap::new();
            for (key, count) in counts {
                let (name, outcome) = key.split_once(' ').expect("a name and an outcome");
                lines.entry(name).or_default().push_str(&format!(" {outcome} {count},"));
            }
            for (name, outcomes) in lines {
                println!("    {name}:{}", outcomes.trim_end_matches(','));
            }
        }
        if std::env::var_os("NSEXEC_CHAOS_TEXTS").is_some() {
            self.texts.iter().for_each(|(text, count)| println!("    {count} {text}"));
        }
    }
}
