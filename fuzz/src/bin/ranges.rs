//! Ranges of subordinate ids become lines of an id map: each id is mapped once, and the lines lie in the map
//! of the caller's own user namespace. A second computation looks at each id of a small range alone.
//!
//! The first byte of the input shifts all ids: to 0, or to the last ids that exist. The second is the
//! caller's own id. Each two of the next bytes are a range: its first id and its number of ids. After the
//! byte 255 they are lines of the caller's own map.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::idmap::Extent;
use nsexec::launch::{Range, in_order, split_at_borders};

/// Ids are below this number, or this near to the last one.
const SPAN: u32 = 64;

fuzz_target!(|data: &[u8]| {
    let [shift, own, rest @ ..] = data else { return };
    let base = if shift % 2 == 0 { 0 } else { u32::MAX - SPAN };
    let id = |byte: u8| base + u32::from(byte) % SPAN;
    let mut parts = rest.splitn(2, |byte| *byte == 255);
    let mut pairs = || parts.next().unwrap_or_default().chunks_exact(2).take(16);
    let ranges: Vec<_> =
        pairs().map(|pair| Range { first: id(pair[0]), count: u32::from(pair[1]) % SPAN }).collect();
    let lines = in_order(&ranges, id(*own));
    assert_eq!(pairs_of(&lines), naive(&ranges, id(*own)), "{ranges:?}");

    let mut inside = base;
    let own_map = pairs().map(|pair| {
        let line = Extent { inside, outside: u32::from(pair[0]), count: u32::from(pair[1]) % 16 };
        inside = inside.saturating_add(line.count + u32::from(pair[0]) % 3);
        line
    });
    let own_map: Vec<_> = own_map.collect();
    for line in lines {
        split(line, &own_map);
    }
});

/// Returns the pairs of ids, inside and outside, that lines map.
fn pairs_of(lines: &[Extent]) -> Vec<(u32, u32)> {
    lines.iter().flat_map(|line| (0..line.count).map(|nth| (line.inside + nth, line.outside + nth))).collect()
}

/// Id after id: each one that has not been mapped before gets the next id inside. u32::MAX is not an id.
fn naive(ranges: &[Range], own: u32) -> Vec<(u32, u32)> {
    let mut seen = vec![own];
    for range in ranges {
        for id in (0..range.count).filter_map(|nth| range.first.checked_add(nth)).filter(|id| *id < u32::MAX)
        {
            if !seen.contains(&id) {
                seen.push(id);
            }
        }
    }
    (1..).zip(seen.into_iter().skip(1)).collect()
}

fn split(line: Extent, own_map: &[Extent]) {
    let holder = |id: u32| own_map.iter().position(|own| id >= own.inside && id - own.inside < own.count);
    let ids = line.outside..line.outside + line.count;
    match split_at_borders(line, own_map, false) {
        Ok(parts) => {
            assert_eq!(pairs_of(&parts), pairs_of(&[line]));
            for part in parts {
                let holders = [part.outside, part.outside + (part.count - 1)].map(holder);
                assert!(
                    own_map.is_empty() || holders[0].is_some() && holders[0] == holders[1],
                    "{part} in {own_map:?}"
                );
            }
        }
        Err(error) => {
            assert!(!own_map.is_empty() && !error.is_empty());
            assert!(ids.into_iter().any(|id| holder(id).is_none()), "{line} in {own_map:?}: {error}");
        }
    }
}
