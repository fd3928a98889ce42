extern crate std;
use std::ffi::CString;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;

fn text(map: &str) -> CString {
    CString::new(map).unwrap()
}

#[test]
fn lines_are_three_numbers_with_blanks_and_tabs() {
    let map = IdMap::parse(c" 0\t100000  00065536 \n65536 7 1").unwrap();
    let extents: Vec<_> = map.extents().collect();
    assert_eq!(
        extents,
        [
            Extent { inside: 0, outside: 100_000, count: 65_536 },
            Extent { inside: 65_536, outside: 7, count: 1 }
        ]
    );
    assert_eq!((map.len(), map.is_empty()), (2, false));
    assert!(map.maps_inside(0) && map.maps_inside(65_536) && !map.maps_inside(65_537));
    assert!(IdMap::parse(c"0 0 4294967295").unwrap().maps_inside(4_294_967_294));
    assert!(!IdMap::parse(c"0 0 4294967295").unwrap().maps_inside(u32::MAX));
}

#[test]
fn every_id_map_error_has_line_and_reason() {
    use IdMapReason::*;
    for (map, line, reason) in [
        (c"", 1, Empty),
        (c"\n", 1, BlankLine),
        (c"0 0 1\n\n", 2, BlankLine),
        (c"0 0 1\n \t\n1 1 1", 2, BlankLine),
        (c"0 0", 1, NotThreeNumbers),
        (c"0 0 1 1", 1, NotThreeNumbers),
        (c"0 0x1 1", 1, NotThreeNumbers),
        (c"-1 0 1", 1, NotThreeNumbers),
        (c"4294967296 x 1", 1, NotThreeNumbers),
        (c"0 0 1\r\n", 1, NotThreeNumbers),
        (c"0 4294967296 1", 1, NumberTooLarge),
        (c"0 0 99999999999999999999999", 1, NumberTooLarge),
        (c"0 0 1\n1 1 0", 2, ZeroSize),
        (c"4294967295 0 1", 1, RangeOverflows),
        (c"0 1 4294967295", 1, RangeOverflows),
        (c"5 5 1\n0 10 6", 2, Overlap { other_line: 1, side: Side::Inside }),
        (c"0 0 5\n10 10 5\n20 4 1", 3, Overlap { other_line: 1, side: Side::Outside }),
    ] {
        let error = IdMap::parse(map).unwrap_err();
        assert_eq!((error.line, error.reason), (line, reason), "{map:?}");
    }
    assert_eq!(
        IdMap::parse(c"5 5 1\n0 10 6").unwrap_err().to_string(),
        "line 2: found '0 10 6', wanted inside ids that line 1 does not map"
    );
}

#[test]
fn oversized_id_map_parses_but_does_not_fit() {
    let many: String = (0..341).map(|n| format!("{n} {n} 1\n")).collect();
    assert!(many.len() <= MAP_TEXT_MAX);
    let many = text(&many);
    let map = IdMap::parse(&many).unwrap();
    assert_eq!(map.fits_one_write(), Err(IdMapTooLarge { bytes: many.count_bytes(), lines: 341 }));
    let full: String = (0..340).map(|n| format!("{n} {n} 1\n")).collect();
    assert_eq!(IdMap::parse(&text(&full)).unwrap().fits_one_write(), Ok(()));

    let long = text(&format!("{}0 0 1", " ".repeat(4090)));
    let map = IdMap::parse(&long).unwrap();
    assert_eq!(map.fits_one_write(), Ok(()));
    assert_eq!(map.as_written().len(), 4095, "the NUL would be byte 4096");
    let longer = text(&format!("{}0 0 x", " ".repeat(4091)));
    let map = IdMap::parse(&longer).unwrap();
    assert_eq!(map.fits_one_write(), Err(IdMapTooLarge { bytes: 4096, lines: 1 }));
    assert_eq!(map.extents().count(), 0);
}

#[test]
fn read_back_map_is_compared_as_a_set_in_any_parts() {
    let lines: Vec<_> = (0..340).map(|n| Extent { inside: n, outside: n + 5, count: 1 }).collect();
    let wanted: String = lines.iter().map(|extent| format!("{extent}\n")).collect();
    let wanted = text(&wanted);
    let map = IdMap::parse(&wanted).unwrap();
    let shown: String =
        lines.iter().rev().map(|e| format!("{:>10} {:>10} {:>10}\n", e.inside, e.outside, e.count)).collect();
    for size in [1, 7, 33, 4096, 20_000] {
        let mut check = MapCheck::new(&map);
        for piece in shown.as_bytes().chunks(size) {
            check.feed(piece).unwrap();
        }
        assert_eq!(check.finish(), Ok(()));
    }
}

#[test]
fn every_difference_of_a_read_back_map_is_found() {
    let map = IdMap::parse(c"0 1000 1\n1 100000 65536\n").unwrap();
    let check = |shown: &[u8]| {
        let mut check = MapCheck::new(&map);
        check.feed(shown)?;
        check.finish()
    };
    let (first, second) = (
        Extent { inside: 0, outside: 1000, count: 1 },
        Extent { inside: 1, outside: 100_000, count: 65_536 },
    );
    assert_eq!(check(b"1 100000 65536\n0 1000 1\n"), Ok(()));
    assert_eq!(check(b""), Err(MapMismatch::Missing(first)));
    assert_eq!(check(b"0 1000 1\n"), Err(MapMismatch::Missing(second)));
    assert_eq!(check(b"0 1000 1\n0 1000 1\n"), Err(MapMismatch::Unexpected(first)));
    assert_eq!(check(b"0 0 1\n"), Err(MapMismatch::Unexpected(Extent { inside: 0, outside: 0, count: 1 })));
    assert_eq!(check(b"0 1000 1"), Err(MapMismatch::Unreadable));
    assert_eq!(check(b"0 1000\n"), Err(MapMismatch::Unreadable));
    assert_eq!(check(&[b' '; 41]), Err(MapMismatch::Unreadable));
}
