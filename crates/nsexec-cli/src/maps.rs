//! Decides on an id map: its lines, taken from the flags, and which program may write it.

use std::ffi::CString;
use std::fmt::Write;

use nsexec::idmap::{EXTENTS_MAX, Extent, IdMap, IdMapReason, MAP_TEXT_MAX, Side};
use nsexec::launch::causes::Facts;
use nsexec::launch::in_order;

use super::failure::Failure;
use super::values::MapValue;
use nsexec_audit::machine::caller::SubRange;

/// The differences between the map of user ids and the map of group ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids<'f> {
    /// The flag for the lines of this map.
    pub(crate) flag: &'static str,
    /// "user" or "group".
    pub(crate) noun: &'static str,
    /// The caller's own id.
    pub(crate) own: u32,
    /// The ranges of the caller's subordinate ids.
    pub(crate) ranges: &'f [SubRange],
    /// The facts that explain why the map cannot be written.
    pub(crate) facts: &'f Facts,
    /// The tool is in PATH.
    pub(crate) tool_found: bool,
}

/// A map that the kernel accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Map {
    lines: Vec<Extent>,
    text: CString,
}

impl Map {
    /// Returns the lines, in the order of the flags.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.lines
    }

    /// Returns the map in the format of the message.
    pub(crate) fn text(&self) -> &CString {
        &self.text
    }
}

/// A line, and the argument that it comes from.
struct Line {
    extent: Extent,
    source: String,
}

/// Decides on the map of user or group ids.
///
/// # Errors
/// [`Failure::Usage`]: the lines overlap, are too many, or do not map id 0. [`Failure::Other`]: the caller
/// has no subordinate ids, or the mapping tool is missing.
pub(crate) fn decide(ids: Ids<'_>, values: &[MapValue], root: bool, rootless: bool) -> Result<Map, Failure> {
    let lines = lines(ids, values, root)?;
    let mut text = String::new();
    for Line { extent, .. } in &lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{extent}");
    }
    if lines.len() > EXTENTS_MAX || text.len() > MAP_TEXT_MAX {
        let why = format!(
            "{}: {} lines of {} bytes in all, the kernel accepts at most {EXTENTS_MAX} lines and {MAP_TEXT_MAX} bytes",
            ids.flag,
            lines.len(),
            text.len()
        );
        // The flag is right: the user has too many ranges.
        return Err(match values.contains(&MapValue::Auto) {
            true => Failure::ours(format!("{why}: map some of your ranges by {} I:O:N", ids.flag)),
            false => Failure::Usage(why),
        });
    }
    let text = CString::new(text).map_err(|error| Failure::Usage(error.to_string()))?;
    let map = IdMap::parse(&text).map_err(|error| match error.reason {
        IdMapReason::Overlap { other_line, side } => {
            overlap(ids.noun, &lines, [other_line, error.line], side)
        }
        _ => Failure::Usage(format!("{}: {error}", ids.flag)),
    })?;
    if !map.maps_inside(0) {
        return Err(Failure::Usage(format!(
            "{}: {} id 0 is not mapped, and the command starts as id 0: add -r, which maps the caller to it, or a \
             line that contains 0",
            ids.flag, ids.noun
        )));
    }
    let extents: Vec<Extent> = lines.into_iter().map(|line| line.extent).collect();
    let own = matches!(extents.as_slice(), [Extent { outside, count: 1, .. }] if *outside == ids.own);
    if rootless && !own && !ids.tool_found {
        return Err(Failure::ours(format!("{}: {}", ids.flag, ids.facts.no_tool(ids.noun == "group"))));
    }
    Ok(Map { lines: extents, text })
}

/// Returns the requested lines. Without any value the map has one line: the caller's own id as id 0.
fn lines(ids: Ids<'_>, values: &[MapValue], root: bool) -> Result<Vec<Line>, Failure> {
    let own = |source: &str| Line {
        extent: Extent { inside: 0, outside: ids.own, count: 1 },
        source: source.to_owned(),
    };
    if values.is_empty() {
        return Ok(vec![own("--map-root-user")]);
    }
    let mut lines = Vec::new();
    let own_line = own("--map-root-user");
    // `auto` contains this line already, and so may the given lines.
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
                lines.extend(
                    in_order(ids.ranges, ids.own)
                        .into_iter()
                        .map(|extent| Line { extent, source: source.clone() }),
                );
                if lines.len() == before {
                    let why = ids.facts.no_range(ids.noun == "group");
                    return Err(Failure::ours(format!("{} auto: {why}", ids.flag)));
                }
            }
        }
    }
    Ok(lines)
}

fn overlap(noun: &str, lines: &[Line], numbers: [usize; 2], side: Side) -> Failure {
    let [first, second] = numbers.map(|number| lines.get(number - 1).map_or("", |line| line.source.as_str()));
    let side = match side {
        Side::Inside => "inside",
        Side::Outside => "outside",
    };
    Failure::Usage(format!("{first} and {second} overlap: each {noun} id {side} can be mapped only once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(own: u32, ranges: &[(u32, u32)]) -> String {
        let ranges: Vec<_> = ranges.iter().map(|&(first, count)| SubRange { first, count }).collect();
        let lines: Vec<String> = in_order(&ranges, own).iter().map(Extent::to_string).collect();
        lines.join("; ")
    }

    #[test]
    fn ids_listed_twice_in_the_file_are_mapped_once() {
        assert_eq!(auto(1000, &[(5000, 10), (5000, 10)]), "1 5000 10");
        assert_eq!(auto(1000, &[(5000, 10), (5005, 10)]), "1 5000 10; 11 5010 5");
        assert_eq!(auto(1000, &[(5005, 10), (5000, 20)]), "1 5005 10; 11 5000 5; 16 5015 5");
        assert_eq!(auto(1000, &[(5000, 20), (5005, 5)]), "1 5000 20");
        assert_eq!(auto(1000, &[(5000, 10), (5010, 10)]), "1 5000 10; 11 5010 10");
    }

    #[test]
    fn the_own_id_is_not_mapped_again() {
        assert_eq!(auto(1000, &[(1000, 1)]), "");
        assert_eq!(auto(1000, &[(1000, 3)]), "1 1001 2");
        assert_eq!(auto(1000, &[(998, 3)]), "1 998 2");
        assert_eq!(auto(1000, &[(0, 2000)]), "1 0 1000; 1001 1001 999");
    }
}
