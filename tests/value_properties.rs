//! Properties of the values in the message: each parser agrees with a few simple lines that implement the
//! same rules.

use std::ffi::CString;

use nsexec::bootstrap::OomScoreAdj;
use nsexec::idmap::IdMap;
use nsexec::namespace::paths::{NsEntry, NsPaths};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::timens::TimeOffsets;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/value_properties.txt");

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lists_of_namespaces_agree_with_the_oracle(text in prop_oneof![
        "(net|user|mnt|time|x|):?[a:/]{0,3}(,(net|user|mnt|time|x|):?[a:/]{0,3}){0,3}",
        "[a-z:,/]{0,20}",
    ]) {
        let parsed = NsPaths::parse(text.as_bytes(), NsSet::ALL.without(NsKind::Time));
        let pairs: Option<Vec<_>> = text.split(',').map(|entry| entry.split_once(':')).collect();
        let right = pairs.filter(|pairs| {
            let names: std::collections::BTreeSet<_> = pairs.iter().map(|(name, _)| *name).collect();
            names.len() == pairs.len()
                && pairs.iter().all(|(_, path)| !path.is_empty())
                && names.is_subset(&["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].into())
        });
        prop_assert_eq!(parsed.is_ok(), right.is_some());
        if let (Ok(parsed), Some(right)) = (parsed, right) {
            let entry = |entry: NsEntry<'_>| (entry.kind.name().to_string(), entry.path.to_vec());
            let entries: Vec<_> = parsed.iter().map(entry).collect();
            let pair = |(name, path): &(&str, &str)| (name.to_string(), path.as_bytes().to_vec());
            let right: Vec<_> = right.iter().map(pair).collect();
            prop_assert_eq!(entries, right);
        }
    }

    #[test]
    fn id_maps_agree_with_the_oracle(text in prop_oneof![
        "( ?[0-9] [0-9] [0-4]\t?\n){1,4}",
        "([0-9]{1,2} [0-9]{1,2} [0-4]\n){1,5}\n?",
        "(0|4294967294|4294967295|4294967296|7) (0|4294967295|1) (1|0|4294967295)\n?",
        "[0-9 \t\n+x-]{0,20}",
    ]) {
        let c_text = CString::new(text.clone()).unwrap();
        let parsed = IdMap::parse(&c_text);
        let right = id_map_oracle(&text);
        prop_assert_eq!(parsed.is_ok(), right.is_some(), "{:?}", parsed);
        if let (Ok(parsed), Some(right)) = (parsed, right) {
            let extents: Vec<_> =
                parsed.extents().map(|e| [e.inside, e.outside, e.count].map(u64::from)).collect();
            prop_assert_eq!(parsed.len(), extents.len());
            prop_assert_eq!(extents, right);
        }
    }

    #[test]
    fn time_offsets_agree_with_the_oracle(text in prop_oneof![
        "((monotonic|boottime|realtime|7) -?[0-9]{1,3} [0-9]{1,2}\n?){0,3}",
        "boottime (-9223372036854775808|-9223372036854775809|9223372036854775808|\\+1) (0|1000000000)",
        "[monticbe0-9 \n-]{0,30}",
    ]) {
        let c_text = CString::new(text.clone()).unwrap();
        let parsed = TimeOffsets::parse(&c_text);
        let mut clocks = Vec::new();
        let right = text.strip_suffix('\n').unwrap_or(&text).split('\n').all(|line| {
            let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            let [clock, secs, nanos] = words[..] else { return false };
            let new = !clocks.contains(&clock);
            clocks.push(clock);
            new && matches!(clock, "monotonic" | "boottime")
                && !secs.starts_with('+') && secs.parse::<i64>().is_ok()
                && nanos.bytes().all(|byte| byte.is_ascii_digit())
                && nanos.parse::<u64>().is_ok_and(|nanos| nanos < 1_000_000_000)
        });
        prop_assert_eq!(parsed.is_ok(), right, "{:?}", parsed);
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.iter().count(), clocks.len());
        }
    }

    #[test]
    fn oom_scores_agree_with_the_oracle(text in prop_oneof!["[+-]?[0-9]{0,5}", "[-+0-9 x\n]{0,6}"]) {
        let c_text = CString::new(text.clone()).unwrap();
        let right = text.parse::<i16>().ok().filter(|oom| {
            // The text must be the number's own form; `-0` is also accepted.
            (-1000..=1000).contains(oom) && (oom.to_string() == text || text == "-0")
        });
        prop_assert_eq!(OomScoreAdj::parse(&c_text).ok().map(|oom| oom.value()), right);
    }
}

/// The kernel's rules in their simplest form: every id of small ranges, every pair of lines.
fn id_map_oracle(text: &str) -> Option<Vec<[u64; 3]>> {
    let mut lines: Vec<[u64; 3]> = Vec::new();
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        if words.len() != 3 || words.concat().bytes().any(|byte| !byte.is_ascii_digit()) {
            return None;
        }
        let numbers: Vec<u64> = words.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [inside, outside, count] = numbers[..] else { return None };
        let last_allowed = u64::from(u32::MAX) - 1;
        if count == 0 || inside + count - 1 > last_allowed || outside + count - 1 > last_allowed {
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
