//! The public API of the package `nsexec` as a text, so that a review sees every change of it.
//!
//! The text is made from rustdoc's JSON, which a stable compiler writes with RUSTC_BOOTSTRAP=1. Items that
//! are hidden from the documentation are not part of it, unless a module that is not hidden exports them.
//! After a change on purpose: `INSTA_UPDATE=always cargo test --test public_api`, and an entry in
//! CHANGELOG.md.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The version of rustdoc's JSON that this test reads.
const FORMAT: u64 = 57;

#[test]
fn public_api_is_the_reviewed_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let mut rustdoc = Command::new(env!("CARGO"));
    rustdoc.args(["rustdoc", "-q", "--locked", "-p", "nsexec", "--lib", "--features", "legacy,tokio"]);
    rustdoc.arg("--target-dir").arg(&folder);
    rustdoc.args(["--", "-Z", "unstable-options", "--output-format", "json", "--document-hidden-items"]);
    let status = rustdoc.current_dir(root).env("RUSTC_BOOTSTRAP", "1").status().expect("cargo");
    assert!(status.success(), "{rustdoc:?}: {status}");
    let text = std::fs::read_to_string(folder.join("doc/nsexec.json")).expect("rustdoc's JSON");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    if json["format_version"] != FORMAT {
        println!(
            "skipped: public_api: this compiler writes format {} of rustdoc's JSON, and the test reads {FORMAT}",
            json["format_version"]
        );
        return;
    }
    let mut api = Api { index: &json["index"], lines: Vec::new() };
    let top = api.item(&json["root"]);
    api.module(top, "nsexec");
    // rustdoc writes the paths of the code. The root exports the modules of these folders.
    for line in &mut api.lines {
        for folder in ["deciders", "scripts", "words"] {
            *line = line.replace(&format!("crate::{folder}::"), "crate::");
        }
    }
    api.lines.sort();
    api.lines.dedup();
    // A list without these would pass: a method, and items that a hidden module defines and another one
    // exports.
    for start in [
        "fn nsexec::launch::Launcher::spawn(&mut self) -> ",
        "fn nsexec::init(",
        "struct nsexec::bootstrap::Dialect",
        "enum nsexec::bootstrap::ParseErrorKind",
        "struct nsexec::legacy::MountSources",
    ] {
        assert!(api.lines.iter().any(|line| line.starts_with(start)), "{start}");
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("public_api", api.lines.join("\n")));
}

/// Returns whether the item itself is hidden from the documentation.
fn is_hidden(item: &Value) -> bool {
    list(&item["attrs"]).iter().any(|attr| attr.to_string().contains("doc(hidden)"))
}

struct Api<'j> {
    index: &'j Value,
    lines: Vec<String>,
}

impl<'j> Api<'j> {
    /// Returns the item with this id; null if rustdoc left it out.
    fn item(&self, id: &Value) -> &'j Value {
        &self.index[id.to_string()]
    }

    fn module(&mut self, module: &'j Value, path: &str) {
        for id in list(&module["inner"]["module"]["items"]) {
            let item = self.item(id);
            if is_hidden(item) {
                continue;
            }
            match &item["inner"]["use"] {
                Value::Null => self.add(item, path, &text(&item["name"])),
                import => self.add(self.item(&import["id"]), path, &text(&import["name"])),
            }
        }
    }

    /// Adds an item and its parts. `name` is the name under which it is exported.
    fn add(&mut self, item: &'j Value, path: &str, name: &str) {
        let Some((kind, inner)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else {
            return;
        };
        let path = format!("{path}::{name}");
        let mark = match list(&item["attrs"]).iter().any(|attr| attr.to_string().contains("non_exhaustive")) {
            true => " (non-exhaustive)",
            false => "",
        };
        match kind.as_str() {
            "module" => self.module(item, &path),
            "function" => self.lines.push(format!("fn {path}{}", signature(inner))),
            "constant" | "assoc_const" => {
                self.lines.push(format!("const {path}: {}", a_type(&inner["type"])));
            }
            "struct" => {
                self.lines.push(format!("struct {path}{}{mark}", generics(&inner["generics"])));
                let kind = &inner["kind"];
                let fields = [&kind["plain"]["fields"], &kind["tuple"]];
                for id in fields.into_iter().flat_map(list) {
                    let field = self.item(id);
                    if !field.is_null() {
                        let ty = a_type(&field["inner"]["struct_field"]);
                        self.lines.push(format!("field {path}.{}: {ty}", text(&field["name"])));
                    }
                }
                self.impls(inner, &path);
            }
            "enum" => {
                self.lines.push(format!("enum {path}{}{mark}", generics(&inner["generics"])));
                for id in list(&inner["variants"]) {
                    let variant = self.item(id);
                    let kind = &variant["inner"]["variant"]["kind"];
                    let fields = [&kind["struct"]["fields"], &kind["tuple"]].into_iter().flat_map(list);
                    let fields: Vec<String> = fields.map(|id| self.field(id)).collect();
                    let fields = if fields.is_empty() {
                        String::new()
                    } else {
                        format!(" {{ {} }}", fields.join(", "))
                    };
                    self.lines.push(format!("variant {path}::{}{fields}", text(&variant["name"])));
                }
                self.impls(inner, &path);
            }
            "trait" => {
                self.lines.push(format!("trait {path}{}", generics(&inner["generics"])));
                for id in list(&inner["items"]) {
                    let part = self.item(id);
                    self.add(part, &path, &text(&part["name"]));
                }
            }
            "type_alias" => self.lines.push(format!("type {path} = {}", a_type(&inner["type"]))),
            other => self.lines.push(format!("{other} {path}")),
        }
    }

    fn field(&self, id: &Value) -> String {
        let field = self.item(id);
        format!("{}: {}", text(&field["name"]), a_type(&field["inner"]["struct_field"]))
    }

    /// Adds the methods of a type, and the traits that it implements by code of this package.
    fn impls(&mut self, inner: &'j Value, path: &str) {
        let mut traits = Vec::new();
        for id in list(&inner["impls"]) {
            let found = &self.item(id)["inner"]["impl"];
            // A trait of the compiler's own.
            if is_hidden(self.item(id)) {
                continue;
            }
            if found.is_null() || found["is_synthetic"] == true || !found["blanket_impl"].is_null() {
                continue;
            }
            if found["trait"].is_null() {
                for id in list(&found["items"]) {
                    let part = self.item(id);
                    self.add(part, path, &text(&part["name"]));
                }
            } else {
                traits.push(a_path(&found["trait"]));
            }
        }
        // Left out: what derives of equality say only to the compiler.
        traits.retain(|name| name != "StructuralPartialEq");
        traits.sort();
        if !traits.is_empty() {
            self.lines.push(format!("impl {path}: {}", traits.join(", ")));
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("_").to_owned()
}

fn joined(values: &[Value], each: impl Fn(&Value) -> String) -> String {
    values.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn signature(function: &Value) -> String {
    let inputs = joined(list(&function["sig"]["inputs"]), |input| {
        match (text(&input[0]).as_str(), a_type(&input[1]).as_str()) {
            ("self", "Self") => "self".to_owned(),
            ("self", "&Self") => "&self".to_owned(),
            ("self", "&mut Self") => "&mut self".to_owned(),
            (name, ty) => format!("{name}: {ty}"),
        }
    });
    let output = match &function["sig"]["output"] {
        Value::Null => String::new(),
        output => format!(" -> {}", a_type(output)),
    };
    let is = |what: &str| function["header"][what] == true;
    let marks = [(is("is_const"), " (const)"), (is("is_unsafe"), " (unsafe)")];
    let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    format!("{}({inputs}){output}{marks}", generics(&function["generics"]))
}

fn generics(generics: &Value) -> String {
    let shown = |param: &&Value| !text(&param["name"]).starts_with("impl ");
    let params: Vec<String> = list(&generics["params"])
        .iter()
        .filter(shown)
        .map(|param| {
            let bounds = bounds(&param["kind"]["type"]["bounds"]);
            format!("{}{}{bounds}", text(&param["name"]), if bounds.is_empty() { "" } else { ": " })
        })
        .collect();
    if params.is_empty() { String::new() } else { format!("<{}>", params.join(", ")) }
}

fn bounds(bounds: &Value) -> String {
    let bound = |bound: &Value| match &bound["trait_bound"] {
        Value::Null => text(&bound["outlives"]),
        found => {
            let optional = if found["modifier"] == "maybe" { "?" } else { "" };
            format!("{optional}{}", a_path(&found["trait"]))
        }
    };
    list(bounds).iter().map(bound).collect::<Vec<_>>().join(" + ")
}

fn a_path(path: &Value) -> String {
    format!("{}{}", text(&path["path"]), arguments(&path["args"]))
}

fn arguments(args: &Value) -> String {
    let parts = &args["parenthesized"];
    if !parts.is_null() {
        let output = if parts["output"].is_null() {
            String::new()
        } else {
            format!(" -> {}", a_type(&parts["output"]))
        };
        return format!("({}){output}", joined(list(&parts["inputs"]), a_type));
    }
    let angle = &args["angle_bracketed"];
    let mut shown: Vec<String> = list(&angle["args"])
        .iter()
        .map(|arg| match arg.as_object().and_then(|arg| arg.iter().next()) {
            Some((kind, ty)) if kind == "type" => a_type(ty),
            Some((kind, life)) if kind == "lifetime" => text(life),
            Some((_, constant)) => text(&constant["expr"]),
            None => "_".to_owned(),
        })
        .collect();
    shown.extend(list(&angle["constraints"]).iter().map(|found| {
        format!("{} = {}", text(&found["name"]), a_type(&found["binding"]["equality"]["type"]))
    }));
    if shown.is_empty() { String::new() } else { format!("<{}>", shown.join(", ")) }
}

fn a_type(ty: &Value) -> String {
    let Some((kind, inner)) = ty.as_object().and_then(|ty| ty.iter().next()) else { return "_".to_owned() };
    match kind.as_str() {
        "resolved_path" => a_path(inner),
        "generic" | "primitive" => text(inner),
        "tuple" => format!("({})", joined(list(inner), a_type)),
        "slice" => format!("[{}]", a_type(inner)),
        "array" => format!("[{}; {}]", a_type(&inner["type"]), text(&inner["len"])),
        "borrowed_ref" => {
            let life = inner["lifetime"].as_str().map_or(String::new(), |life| format!("{life} "));
            let mutable = if inner["is_mutable"] == true { "mut " } else { "" };
            format!("&{life}{mutable}{}", a_type(&inner["type"]))
        }
        "raw_pointer" => {
            let kind = if inner["is_mutable"] == true { "mut" } else { "const" };
            format!("*{kind} {}", a_type(&inner["type"]))
        }
        "impl_trait" => format!("impl {}", bounds(inner)),
        "dyn_trait" => {
            let traits = list(&inner["traits"]).iter().map(|found| a_path(&found["trait"]));
            format!("dyn {}", traits.collect::<Vec<_>>().join(" + "))
        }
        "qualified_path" => format!("{}::{}", a_type(&inner["self_type"]), text(&inner["name"])),
        "function_pointer" => {
            let output = &inner["sig"]["output"];
            let output = if output.is_null() { String::new() } else { format!(" -> {}", a_type(output)) };
            format!("fn({}){output}", joined(list(&inner["sig"]["inputs"]), |input| a_type(&input[1])))
        }
        other => format!("({other})"),
    }
}
