//! Decides on an id map: its lines, taken from the flags, and which program may write it.

use std::ffi::CString;
use std::fmt::Write;

use nsexec::idmap::{EXTENTS_MAX, Extent, IdMap, IdMapReason, MAP_TEXT_MAX, Side};
use nsexec::launch::causes::Facts;
use nsexec::launch::{in_order, split_at_borders};

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
    /// Why these ranges are not known.
    pub(crate) unread: Option<&'f str>,
    /// The map of the caller's own user namespace. Empty: all ids.
    pub(crate) own_map: &'f [Extent],
    /// The caller's effective user id is not 0, so the kernel accepts a map of the own id alone.
    pub(crate) rootless: bool,
    /// The tool is in PATH.
    pub(crate) tool_found: bool,
    /// The values leave out the caller's own id, if no flag maps it, as with unshare(1).
    pub(crate) plain: bool,
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

    /// Returns whether an id inside is mapped.
    pub(crate) fn maps(&self, id: u32) -> bool {
        self.lines.iter().any(|line| id.checked_sub(line.inside).is_some_and(|above| above < line.count))
    }

    /// Returns the id inside of an id outside.
    pub(crate) fn inside(&self, id: u32) -> Option<u32> {
        self.lines.iter().find_map(|line| {
            let above = id.checked_sub(line.outside).filter(|above| *above < line.count)?;
            line.inside.checked_add(above)
        })
    }

    /// Returns whether the map has the caller's own id alone. The caller may write such a map itself.
    pub(crate) fn is_single(&self, own: u32) -> bool {
        matches!(self.lines.as_slice(), [line] if line.count == 1 && line.outside == own)
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

/// Decides on the map of user or group ids. `own`: the id inside that the caller's own id gets, if a flag
/// asks for it.
///
/// # Errors
/// [`Failure::Usage`]: the lines overlap, or are too many. [`Failure::Other`]: the caller has no subordinate
/// ids, or the mapping tool is missing.
pub(crate) fn decide(ids: Ids<'_>, values: &[MapValue], own: Option<u32>) -> Result<Map, Failure> {
    let lines = lines(ids, values, own)?;
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
    IdMap::parse(&text).map_err(|error| match error.reason {
        IdMapReason::Overlap { other_line, side } => {
            overlap(ids.noun, &lines, [other_line, error.line], side)
        }
        _ => Failure::Usage(format!("{}: {error}", ids.flag)),
    })?;
    let map = Map { lines: lines.into_iter().map(|line| line.extent).collect(), text };
    if ids.rootless && !map.is_single(ids.own) && !ids.tool_found {
        return Err(Failure::ours(format!("{}: {}", ids.flag, ids.facts.no_tool(ids.noun == "group"))));
    }
    Ok(map)
}

/// Returns the requested lines: first that of the caller's own id, if there is one.
fn lines(ids: Ids<'_>, values: &[MapValue], own: Option<u32>) -> Result<Vec<Line>, Failure> {
    let own_by_value = || {
        values.iter().find_map(|value| match value {
            MapValue::Auto if is_pass_through(ids) => None,
            MapValue::Auto => Some((0, "auto")),
            MapValue::SubIds => Some((ids.own, "subids")),
            MapValue::All | MapValue::Line(_) => None,
        })
    };
    let extent = |inside| Extent { inside, outside: ids.own, count: 1 };
    let own_line = match own {
        Some(inside) => Some(Line { extent: extent(inside), source: "--map-root-user".to_owned() }),
        None if ids.plain => None,
        None => own_by_value()
            .map(|(inside, word)| Line { extent: extent(inside), source: format!("{} {word}", ids.flag) }),
    };
    // The lines of the flags leave out the caller's own id, if a flag maps it elsewhere (unshare(1)).
    let hole = own.map(extent);
    let of_caller = own_line.as_ref().map(|line| line.extent);
    let mut lines: Vec<Line> = own_line.into_iter().collect();
    for value in values {
        let (word, extents) = match value {
            MapValue::Line(line) => {
                let Extent { inside, outside, count } = line;
                (format!("{inside}:{outside}:{count}"), without(*line, hole))
            }
            MapValue::All => ("all".to_owned(), pass_through(ids, hole)),
            MapValue::Auto if is_pass_through(ids) => ("auto".to_owned(), pass_through(ids, hole)),
            MapValue::Auto => ("auto".to_owned(), one_after_the_other(&subordinate(ids, "auto")?, of_caller)),
            MapValue::SubIds => {
                let same = |line: Extent| Extent { inside: line.outside, ..line };
                let extents = subordinate(ids, "subids")?.into_iter().map(same);
                ("subids".to_owned(), extents.flat_map(|line| without(line, of_caller)).collect())
            }
        };
        for extent in extents {
            let source = format!("{} {word}", ids.flag);
            // A mapping tool of an ordinary user knows the ranges better.
            let parts = match ids.rootless || ids.own_map.is_empty() {
                true => vec![extent],
                false => split_at_borders(extent, ids.own_map, ids.noun == "group")
                    .map_err(|why| Failure::ours(format!("{source}: {why}")))?,
            };
            lines.extend(parts.into_iter().map(|extent| Line { extent, source: source.clone() }));
        }
    }
    Ok(lines)
}

/// Returns whether `auto` maps each id to itself: root may map all of its ids, and often has no subordinate
/// ids.
fn is_pass_through(ids: Ids<'_>) -> bool {
    !ids.rootless && ids.ranges.is_empty() && ids.unread.is_none()
}

/// Returns each line of the caller's own map, with its ids inside as the ids of both sides.
fn pass_through(ids: Ids<'_>, hole: Option<Extent>) -> Vec<Extent> {
    let whole = [Extent { inside: 0, outside: 0, count: u32::MAX }];
    let own_map = if ids.own_map.is_empty() { &whole[..] } else { ids.own_map };
    own_map.iter().flat_map(|line| without(Extent { outside: line.inside, ..*line }, hole)).collect()
}

/// Returns the caller's subordinate ids, each once and without its own id: lines from inside id 1 on.
fn subordinate(ids: Ids<'_>, word: &str) -> Result<Vec<Extent>, Failure> {
    if let Some(why) = ids.unread {
        return Err(Failure::ours(format!("{} {word}: {why}", ids.flag)));
    }
    let lines = in_order(ids.ranges, ids.own);
    if lines.is_empty() {
        return Err(Failure::ours(format!(
            "{} {word}: {}",
            ids.flag,
            ids.facts.no_range(ids.noun == "group")
        )));
    }
    Ok(lines)
}

/// Moves lines, which are from inside id 1 on, so that they begin at 0 and leave out the id that the caller
/// has inside.
fn one_after_the_other(lines: &[Extent], of_caller: Option<Extent>) -> Vec<Extent> {
    let Some(taken) = of_caller.map(|line| line.inside) else {
        return lines.iter().map(|line| Extent { inside: line.inside - 1, ..*line }).collect();
    };
    let mut moved = Vec::new();
    for line in lines {
        let before = (taken + 1).saturating_sub(line.inside).min(line.count);
        if before > 0 {
            moved.push(Extent { inside: line.inside - 1, outside: line.outside, count: before });
        }
        if before < line.count {
            let (inside, outside) = (line.inside + before, line.outside + before);
            moved.push(Extent { inside, outside, count: line.count - before });
        }
    }
    moved
}

/// Returns a line without the ids of another line, which has one id inside and one outside. The remaining ids
/// outside follow each other, as with unshare(1).
fn without(line: Extent, hole: Option<Extent>) -> Vec<Extent> {
    let Some(hole) = hole else { return vec![line] };
    let mut inner = parts(line.inside, line.count, hole.inside).into_iter();
    let mut outer = parts(line.outside, line.count, hole.outside).into_iter();
    let (mut a, mut b) = (inner.next(), outer.next());
    let mut lines = Vec::new();
    while let (Some((inside, room)), Some((outside, ids))) = (a, b) {
        let count = room.min(ids);
        lines.push(Extent { inside, outside, count });
        a = if room > count { Some((inside + count, room - count)) } else { inner.next() };
        b = if ids > count { Some((outside + count, ids - count)) } else { outer.next() };
    }
    lines
}

/// Returns the parts of a range before and after an id, each with its length.
fn parts(first: u32, count: u32, hole: u32) -> Vec<(u32, u32)> {
    match hole.checked_sub(first).filter(|before| *before < count) {
        None => vec![(first, count)],
        Some(before) => {
            // The id is below the end of the range, so the next one exists if any is left.
            let after = (hole.saturating_add(1), count - before - 1);
            [(first, before), after].into_iter().filter(|(_, count)| *count > 0).collect()
        }
    }
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

    fn extent(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    fn shown(lines: &[Extent]) -> String {
        lines.iter().map(Extent::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn line_leaves_out_the_own_id_on_both_sides() {
        let cut = |line, hole| shown(&without(line, Some(hole)));
        assert_eq!(cut(extent(0, 100_000, 10), extent(0, 1000, 1)), "1 100000 9");
        assert_eq!(cut(extent(0, 100_000, 10), extent(5, 1000, 1)), "0 100000 5; 6 100005 4");
        assert_eq!(cut(extent(0, 0, 10), extent(5, 5, 1)), "0 0 5; 6 6 4");
        assert_eq!(cut(extent(0, 0, 10), extent(2, 5, 1)), "0 0 2; 3 2 3; 6 6 4");
        assert_eq!(cut(extent(1, 100_000, 10), extent(0, 1000, 1)), "1 100000 10");
        assert_eq!(cut(extent(0, 1000, 1), extent(0, 1000, 1)), "");
        assert_eq!(cut(extent(0, 0, u32::MAX), extent(u32::MAX - 1, u32::MAX - 1, 1)), "0 0 4294967294");
        assert_eq!(shown(&without(extent(0, 5, 3), None)), "0 5 3");
    }

    #[test]
    fn ranges_follow_each_other_around_the_callers_id_inside() {
        let lines = [extent(1, 100_000, 10), extent(11, 300_000, 5)];
        let moved = |inside| shown(&one_after_the_other(&lines, Some(extent(inside, 1000, 1))));
        assert_eq!(moved(0), "1 100000 10; 11 300000 5");
        assert_eq!(moved(3), "0 100000 3; 4 100003 7; 11 300000 5");
        assert_eq!(moved(10), "0 100000 10; 11 300000 5");
        assert_eq!(moved(12), "0 100000 10; 10 300000 2; 13 300002 3");
        assert_eq!(moved(1000), "0 100000 10; 10 300000 5");
        assert_eq!(moved(u32::MAX - 1), "0 100000 10; 10 300000 5");
    }
}
