//! The facts about the machine that explain a failed request.

use nsexec::idmap::Extent;

use super::request::Request;
use nsexec::launch::causes::Machine;
use nsexec_audit::machine::caller::{Facts, SubRange};

/// Reads the facts that explain a failure. Called only after a failure, to keep a successful launch short.
pub(crate) fn machine_after_failure(request: &Request) -> Machine {
    // Only the mapping tools read these files, and only ordinary users need the tools.
    let uncovered = request.rootless.then(|| {
        let facts = Facts::gather(true, false);
        let users = (&request.users, facts.subuids.as_slice(), facts.euid, "/etc/subuid", "user");
        let groups = (&request.groups, facts.subgids.as_slice(), facts.egid, "/etc/subgid", "group");
        [users, groups].into_iter().find_map(|(map, ranges, own, file, noun)| {
            let line = map.as_ref()?.extents().iter().find(|line| !covered(line, ranges, own))?;
            let (first, last) = (line.outside, u64::from(line.outside) + u64::from(line.count) - 1);
            Some(match line.count {
                1 => format!("{file} does not give you the {noun} id {first}"),
                _ => format!("{file} does not give you all of the {noun} ids {first} to {last}"),
            })
        })
    });
    let mut machine = nsexec_audit::machine::Machine::read().causes();
    machine.uncovered = uncovered.flatten();
    machine
}

/// Returns whether the mapping tools accept this line: all its ids are in one range, or it is the caller's
/// own id alone.
fn covered(line: &Extent, ranges: &[SubRange], own: u32) -> bool {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let within = |range: &SubRange| {
        range.first <= line.outside && end(line.outside, line.count) <= end(range.first, range.count)
    };
    (line.outside == own && line.count == 1) || ranges.iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_covered_by_one_range_or_is_the_own_id() {
        let ranges = [SubRange { first: 100, count: 10 }, SubRange { first: 110, count: 5 }];
        let covered = |outside, count| covered(&Extent { inside: 0, outside, count }, &ranges, 7);
        assert!(covered(100, 10) && covered(109, 1) && covered(110, 5) && covered(7, 1));
        assert!(!covered(7, 2) && !covered(99, 2) && !covered(109, 2) && !covered(114, u32::MAX));
    }
}
