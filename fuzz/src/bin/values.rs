//! Each parser of a value in the message agrees with a second, small one. The first byte of the input selects
//! the parser.

#![no_main]

use std::ffi::CString;

use libfuzzer_sys::fuzz_target;
use nsexec::bootstrap::OomScoreAdj;
use nsexec::idmap::{IdMap, MAP_TEXT_MAX};
use nsexec::namespace::paths::NsPaths;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::timens::TimeOffsets;
use support::values;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let (Ok(text), Ok(with_nul)) = (std::str::from_utf8(bytes), CString::new(bytes)) else { return };
    match choice % 4 {
        0 => {
            let parsed = NsPaths::parse(bytes, NsSet::ALL.without(NsKind::Time)).ok();
            let parsed = parsed
                .map(|list| list.iter().map(|entry| (entry.kind.name(), entry.path)).collect::<Vec<_>>());
            let right = values::namespaces(text);
            let right =
                right.map(|list| list.into_iter().map(|(name, path)| (name, path.as_bytes())).collect());
            assert_eq!(parsed, right);
        }
        1 => {
            let parsed = IdMap::parse(&with_nul).ok();
            // The parser leaves the lines of such a text to the check that refuses it.
            if bytes.len() > MAP_TEXT_MAX {
                assert!(parsed.is_some_and(|map| map.fits_one_write().is_err()));
                return;
            }
            let parsed = parsed
                .map(|map| map.extents().map(|e| [e.inside, e.outside, e.count].map(u64::from)).collect());
            assert_eq!(parsed, values::id_map(text));
        }
        2 => {
            let parsed = TimeOffsets::parse(&with_nul).ok();
            assert_eq!(parsed.map(|offsets| offsets.iter().count()), values::time_offsets(text));
        }
        _ => {
            let parsed = OomScoreAdj::parse(&with_nul).ok();
            assert_eq!(parsed.map(|oom| oom.value()), values::oom_score(text));
        }
    }
});
