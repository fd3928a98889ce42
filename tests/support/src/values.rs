//! A second, small parser for each kind of value in the message.

use std::collections::BTreeSet;

/// Returns the names and paths of a list of namespaces without time.
#[must_use]
pub fn namespaces(text: &str) -> Option<Vec<(&str, &str)>> {
    let pairs: Option<Vec<_>> = text.split(',').map(|entry| entry.split_once(':')).collect();
    pairs.filter(|pairs| {
        let names: BTreeSet<_> = pairs.iter().map(|(name, _)| *name).collect();
        names.len() == pairs.len()
            && pairs.iter().all(|(_, path)| !path.is_empty())
            && names.is_subset(&["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].into())
    })
}

/// Returns the number of clocks with an offset.
#[must_use]
pub fn time_offsets(text: &str) -> Option<usize> {
    let mut clocks = Vec::new();
    let right = text.strip_suffix('\n').unwrap_or(text).split('\n').all(|line| {
        let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let [clock, secs, nanos] = words[..] else { return false };
        let new = !clocks.contains(&clock);
        clocks.push(clock);
        new && matches!(clock, "monotonic" | "boottime")
            && !secs.starts_with('+')
            && secs.parse::<i64>().is_ok()
            && nanos.bytes().all(|byte| byte.is_ascii_digit())
            && nanos.parse::<u64>().is_ok_and(|nanos| nanos < 1_000_000_000)
    });
    right.then_some(clocks.len())
}

/// Returns the OOM score. The text must be the number's own form; `-0` is also accepted.
#[must_use]
pub fn oom_score(text: &str) -> Option<i16> {
    let number = text.parse::<i16>().ok();
    number.filter(|oom| (-1000..=1000).contains(oom) && (oom.to_string() == text || text == "-0"))
}

/// Returns the extents of an id map, each as the first id inside, the first id outside and the number. The
/// kernel's rules in their simplest form: every pair of lines.
#[must_use]
pub fn id_map(text: &str) -> Option<Vec<[u64; 3]>> {
    let mut lines: Vec<[u64; 3]> = Vec::new();
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        if words.len() != 3 || words.concat().bytes().any(|byte| !byte.is_ascii_digit()) {
            return None;
        }
        let numbers: Vec<u64> = words.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [inside, outside, count] = numbers[..] else { return None };
        let last_allowed = u64::from(u32::MAX) - 1;
        let last = |first: u64| first.saturating_add(count - 1);
        if count == 0 || last(inside) > last_allowed || last(outside) > last_allowed {
            return None;
        }
        let apart = |a: u64, b: u64, other: u64| a + count <= b || b + other <= a;
        if lines.iter().any(|l| !apart(inside, l[0], l[2]) || !apart(outside, l[1], l[2])) {
            return None;
        }
        lines.push([inside, outside, count]);
    }
    Some(lines)
}
