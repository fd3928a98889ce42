//! One id map out of its flags: whose ids, which lines, and who may write it.

use std::ffi::CString;
use std::fmt::Write;

use nsexec::idmap::{EXTENTS_MAX, Extent, IdMap, IdMapReason, MAP_TEXT_MAX, Side};

use super::facts::SubRange;
use super::request::UsageError;
use super::values::MapValue;

/// What differs between the map of users and that of groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids<'f> {
    /// The flag that gives lines.
    pub(crate) flag: &'static str,
    /// user or group.
    pub(crate) noun: &'static str,
    /// The caller's own id.
    pub(crate) own: u32,
    /// The caller's subordinate ids.
    pub(crate) ranges: &'f [SubRange],
    /// Where those stand.
    pub(crate) file: &'static str,
    /// What writes a map that the caller may not write.
    pub(crate) tool: &'static str,
    /// Whether it is in PATH.
    pub(crate) tool_found: bool,
}

/// A map that the kernel can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Map {
    lines: Vec<Extent>,
    text: CString,
}

impl Map {
    /// The lines, in the order of the flags.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.lines
    }

    /// As the message carries it.
    pub(crate) fn text(&self) -> &CString {
        &self.text
    }
}

/// A line and the argument that asks for it.
struct Line {
    extent: Extent,
    source: String,
}

/// The map of one side.
///
/// # Errors
/// Lines that overlap, are too many, leave out id 0, or that nobody can write for this caller.
pub(crate) fn decide(
    ids: Ids<'_>,
    values: &[MapValue],
    root: bool,
    rootless: bool,
    who: &str,
) -> Result<Map, UsageError> {
    let lines = lines(ids, values, root, who)?;
    let mut text = String::new();
    for Line { extent, .. } in &lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{extent}");
    }
    if lines.len() > EXTENTS_MAX || text.len() > MAP_TEXT_MAX {
        return Err(UsageError(format!(
            "{}: {} lines of {} bytes in all, the kernel takes at most {EXTENTS_MAX} lines and {MAP_TEXT_MAX} bytes",
            ids.flag,
            lines.len(),
            text.len()
        )));
    }
    let text = CString::new(text).map_err(|error| UsageError(error.to_string()))?;
    let map = IdMap::parse(&text).map_err(|error| match error.reason {
        IdMapReason::Overlap { other_line, side } => {
            overlap(ids.noun, &lines, [other_line, error.line], side)
        }
        _ => UsageError(format!("{}: {error}", ids.flag)),
    })?;
    if !map.maps_inside(0) {
        return Err(UsageError(format!(
            "{}: {} id 0 is not mapped, and the command starts as id 0: add -r, which maps the caller to it, or a \
             line that contains 0",
            ids.flag, ids.noun
        )));
    }
    let extents: Vec<Extent> = lines.into_iter().map(|line| line.extent).collect();
    let own = matches!(extents.as_slice(), [Extent { outside, count: 1, .. }] if *outside == ids.own);
    if rootless && !own && !ids.tool_found {
        return Err(UsageError(format!(
            "{}: more than the own id needs {}, which is not in PATH (packages: uidmap, shadow-utils)",
            ids.flag, ids.tool
        )));
    }
    Ok(Map { lines: extents, text })
}

/// The lines that are asked for. A side that says nothing maps the caller's own id to 0.
fn lines(ids: Ids<'_>, values: &[MapValue], root: bool, who: &str) -> Result<Vec<Line>, UsageError> {
    let own = |source: &str| Line {
        extent: Extent { inside: 0, outside: ids.own, count: 1 },
        source: source.to_owned(),
    };
    if values.is_empty() {
        return Ok(vec![own("--map-root-user")]);
    }
    let mut lines = Vec::new();
    let own_line = own("--map-root-user");
    // "auto" has this line itself, and somebody may have spelled it out.
    if root
        && !values
            .iter()
            .any(|value| matches!(value, MapValue::Auto) || *value == MapValue::Line(own_line.extent))
    {
        lines.push(own_line);
    }
    for value in values {
        match value {
            MapValue::Line(extent) => {
                let Extent { inside, outside, count } = extent;
                lines.push(Line {
                    extent: *extent,
                    source: format!("{} {inside}:{outside}:{count}", ids.flag),
                });
            }
            MapValue::Auto => {
                let source = format!("{} auto", ids.flag);
                lines.push(own(&source));
                let before = lines.len();
                lines.extend(above(ids.ranges).map(|extent| Line { extent, source: source.clone() }));
                if lines.len() == before {
                    return Err(UsageError(format!(
                        "{} auto: {} has no range for {who}; one is added with, for example, \
                         `usermod --add-sub{}s 100000-165535 USER`",
                        ids.flag,
                        ids.file,
                        if ids.noun == "user" { "uid" } else { "gid" }
                    )));
                }
            }
        }
    }
    Ok(lines)
}

/// The ranges one after the other, from id 1 on. What would go past the last id is cut.
fn above(ranges: &[SubRange]) -> impl Iterator<Item = Extent> {
    let mut inside: u32 = 1;
    ranges.iter().filter_map(move |range| {
        let count = range.count.min(u32::MAX - inside).min(u32::MAX - range.first);
        let extent = Extent { inside, outside: range.first, count };
        inside += count;
        (count > 0).then_some(extent)
    })
}

fn overlap(noun: &str, lines: &[Line], numbers: [usize; 2], side: Side) -> UsageError {
    let [first, second] = numbers.map(|number| lines.get(number - 1).map_or("", |line| line.source.as_str()));
    let side = match side {
        Side::Inside => "inside",
        Side::Outside => "outside",
    };
    UsageError(format!("{first} and {second} overlap: each {noun} id {side} can be mapped only once"))
}
