//! The first line of a request's maps that the caller's subordinate ids do not cover.

use nsexec::idmap::Extent;
use nsexec::launch::causes::{Facts, IdFacts, Uncovered};

use super::request::Request;

/// Returns the first line that the mapping tools refuse. `None` if root writes the maps itself.
pub(crate) fn uncovered(request: &Request, facts: &Facts) -> Option<Uncovered> {
    if !request.rootless {
        return None;
    }
    let sides = [(&request.users, &facts.users, false), (&request.groups, &facts.groups, true)];
    sides.into_iter().find_map(|(map, ids, groups)| {
        let line = map.as_ref()?.extents().iter().find(|line| !covered(line, ids))?;
        let last = u64::from(line.outside) + u64::from(line.count) - 1;
        Some(Uncovered { groups, first: line.outside, last: u32::try_from(last).unwrap_or(u32::MAX) })
    })
}

/// Returns whether the mapping tools accept this line: all its ids are in one range, or it is the caller's
/// own id alone. True if the ranges are unknown.
fn covered(line: &Extent, ids: &IdFacts) -> bool {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let within = |(first, count): &(u32, u32)| {
        *first <= line.outside && end(line.outside, line.count) <= end(*first, *count)
    };
    let ranges = ids.ranges.as_deref();
    (line.outside == ids.own && line.count == 1) || ranges.is_none_or(|ranges| ranges.iter().any(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_covered_by_one_range_or_is_the_own_id() {
        let mut ids = IdFacts::default();
        (ids.own, ids.ranges) = (7, Some(vec![(100, 10), (110, 5)]));
        let covered = |outside, count| covered(&Extent { inside: 0, outside, count }, &ids);
        assert!(covered(100, 10) && covered(109, 1) && covered(110, 5) && covered(7, 1));
        assert!(!covered(7, 2) && !covered(99, 2) && !covered(109, 2) && !covered(114, u32::MAX));
    }
}
