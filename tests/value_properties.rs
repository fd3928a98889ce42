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
use support::values;

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
        let right = values::namespaces(&text);
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
        let right = values::id_map(&text);
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
        let right = values::time_offsets(&text);
        prop_assert_eq!(parsed.as_ref().ok().map(|parsed| parsed.iter().count()), right, "{:?}", parsed);
    }

    #[test]
    fn oom_scores_agree_with_the_oracle(text in prop_oneof!["[+-]?[0-9]{0,5}", "[-+0-9 x\n]{0,6}"]) {
        let c_text = CString::new(text.clone()).unwrap();
        prop_assert_eq!(OomScoreAdj::parse(&c_text).ok().map(|oom| oom.value()), values::oom_score(&text));
    }
}
