extern crate std;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::*;

/// Returns an attribute with its padding.
pub(crate) fn attr(number: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_le_bytes().to_vec();
    bytes.extend(number.to_le_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Returns kind, offset and attribute of the error for a payload that begins with CLONE_FLAGS, in the latest
/// dialect.
fn refused(attributes: &[Vec<u8>]) -> (&'static str, usize, Option<u16>) {
    let payload = [attr(27281, &[0; 4]), attributes.concat()].concat();
    let error = Bootstrap::parse(&payload, &Dialect::V1_2).unwrap_err();
    assert!(!error.to_string().is_empty());
    (error.kind.name(), error.offset, error.attribute)
}

#[test]
fn header_type_is_checked_before_its_length() {
    let header = |length: u32, number: u16| {
        let mut bytes = [length.to_le_bytes(), [0; 4], [0xff; 4], [0xff; 4]].concat();
        bytes[4..6].copy_from_slice(&number.to_le_bytes());
        Header::parse(&bytes).map_err(|error| (error.kind, error.offset))
    };
    assert_eq!(header(16, 62000).unwrap().payload_len(), 0);
    assert_eq!(header(1 << 20, 62000).unwrap().message_len(), MESSAGE_MAX);
    assert_eq!(header(4, 2), Err((ParseErrorKind::NetlinkError, 4)));
    assert_eq!(header(4, 3), Err((ParseErrorKind::UnexpectedMessageType { found: 3 }, 4)));
    assert_eq!(header(15, 62000), Err((ParseErrorKind::BadMessageLength { length: 15 }, 0)));
    assert_eq!(header(u32::MAX, 62000), Err((ParseErrorKind::MessageTooLarge { length: u32::MAX }, 0)));
    assert_eq!(header((1 << 20) + 1, 62000).unwrap_err().0.name(), "message_too_large");
    assert_eq!(
        Header::parse(&[0; 15]).unwrap_err().to_string(),
        "failed to read netlink header (got 15 of 16 bytes)"
    );
}

#[test]
fn format_errors_precede_value_errors_from_left_to_right() {
    let bad_map = attr(27283, b"x\0");
    let bad_oom = attr(27286, b"x\0");
    assert_eq!(refused(&[bad_map.clone(), bad_oom.clone()]), ("bad_id_map", 24, Some(27283)));
    assert_eq!(refused(&[bad_oom.clone(), bad_map.clone()]), ("bad_oom_score_adj", 24, Some(27286)));
    assert_eq!(refused(&[bad_map.clone(), attr(27286, b"x")]), ("missing_nul", 32, Some(27286)));
    assert_eq!(refused(&[bad_map.clone(), attr(27287, &[2])]), ("bad_bool", 32, Some(27287)));
    assert_eq!(refused(&[bad_map.clone(), bad_map.clone()]), ("duplicate_attribute", 32, Some(27283)));
    assert_eq!(refused(&[bad_map, vec![0]]), ("truncated_attr_header", 32, None));
    let payload = bad_oom;
    let error = Bootstrap::parse(&payload, &Dialect::V1_2).unwrap_err();
    assert_eq!((error.kind, error.offset), (ParseErrorKind::MissingAttribute, 24));
}

#[test]
fn malformed_or_unknown_attribute_is_refused() {
    assert_eq!(refused(&[attr(27280, b"\0")]), ("unknown_attribute", 24, Some(27280)));
    assert_eq!(refused(&[attr(27283 | 0x8000, b"\0")]).0, "unknown_attribute");
    assert_eq!(refused(&[vec![3, 0, 0x93, 0x6a]]), ("attr_too_short", 24, Some(27283)));
    assert_eq!(refused(&[vec![5, 0, 0x93, 0x6a]]), ("attr_overrun", 24, Some(27283)));
    assert_eq!(refused(&[attr(27283, b"")]).0, "missing_nul");
    assert_eq!(refused(&[attr(27283, b"0 0 1\0\0")]).0, "embedded_nul");
    assert_eq!(refused(&[attr(27287, b"")]).0, "attr_bad_size");
    // The padding of the last attribute may be missing, in part or completely.
    for end in [0, 1, 2, 3] {
        let mut payload = [attr(27281, &[0; 4]), attr(27286, b"0000\0")].concat();
        payload.truncate(payload.len() - end);
        let error = Bootstrap::parse(&payload, &Dialect::V1_2).unwrap_err();
        assert_eq!(error.kind.name(), "bad_oom_score_adj");
    }
}

#[test]
fn own_errors_name_attribute_offset_found_and_wanted() {
    let text = |attribute: Vec<u8>| {
        let payload = [attr(27281, &[0; 4]), attribute].concat();
        Bootstrap::parse(&payload, &Dialect::V1_2).unwrap_err().to_string()
    };
    assert_eq!(
        text(attr(27283, b"0 0 1\n5 5 0\n\0")),
        "attribute UIDMAP (27283) at offset 24: line 2: found '5 5 0', wanted a size above 0"
    );
    assert_eq!(
        text(attr(27286, b"1001\0")),
        "attribute OOM_SCORE_ADJ (27286) at offset 24: found '1001', wanted a decimal number from -1000 to 1000"
    );
    assert_eq!(text(attr(27291, b"\0")), "unknown netlink message type 27291");
    assert_eq!(
        text(vec![0]),
        "bootstrap message at offset 24: found 1 bytes after the last attribute, wanted none or a header of 4"
    );
}

#[test]
fn error_names_attribute_27290_as_the_dialect_does() {
    // A text without its NUL, which is malformed with either meaning.
    let payload = attr(27290, b"x");
    let cases: &[(&Dialect, &str)] = &[
        #[cfg(feature = "legacy")]
        (&Dialect::V1_0, "unknown netlink message type 27290"),
        #[cfg(feature = "legacy")]
        (&Dialect::V1_1, "attribute MOUNT_SOURCES (27290) at offset 16: "),
        (&Dialect::V1_2, "attribute TIMENSOFFSET (27290) at offset 16: "),
    ];
    for &(dialect, name) in cases {
        let text = Bootstrap::parse(&payload, dialect).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    }
}

/// Returns the maximum number of steps for a payload: a constant for the sort of the two maps, and a number
/// for each byte. The lines of a map that is not in ascending order are read twice.
fn limit(length: usize) -> usize {
    5_000 + 9 * length
}

#[test]
fn parser_steps_grow_linearly_with_the_length() {
    let lines = |count: u32, line: &dyn Fn(u32) -> String| -> Vec<u8> {
        (0..count).map(line).chain(["\0".to_string()]).collect::<String>().into_bytes()
    };
    let check = |attributes: Vec<u8>| {
        let payload = [attr(27281, &[0; 4]), attributes].concat();
        let _ = text::steps::take();
        let _ = Bootstrap::parse(&payload, &Dialect::V1_2);
        let (count, most) = (text::steps::take(), limit(payload.len()));
        assert!(count > 0, "no step is counted");
        assert!(count <= most, "{count} steps for {} bytes, at most {most}", payload.len());
    };
    for count in [1, 10, 100, 340, 341, 600] {
        let up = lines(count, &|n| format!("{n} {n} 1\n"));
        let down = lines(count, &|n| format!("{} {} 1\n", 999 - n, n));
        let same = lines(count, &|_| "0 0 1\n".to_string());
        let mixed = lines(count, &|n| format!("{} {} 1\n", n * 211 % 997, n * 307 % 997));
        for map in [&up, &down, &same, &mixed] {
            check([attr(27283, map), attr(27284, map)].concat());
        }
    }
    for count in [1, 100, 4_000] {
        check(attr(27283, &lines(count, &|_| "0 1 1\n".to_string())));
        check(attr(27282, &lines(count, &|n| format!("net{n}:/x,"))));
        check(attr(27282, &lines(count, &|_| ",".to_string())));
        check(attr(27282, &lines(count, &|_| "net:".to_string())));
        check(attr(27290, &lines(count, &|_| "boottime 1 1\n".to_string())));
        check(attr(27290, &lines(count, &|_| "\t ".to_string())));
        check(attr(27286, &lines(count, &|_| "9".to_string())));
        check(attr(27283, &lines(count, &|_| "9".to_string())));
        check(attr(27283, &lines(count, &|_| " ".to_string())));
        // Attributes without a value; and all the longest ones at once.
        check((0..count).flat_map(|_| attr(27283, b"")).collect());
        let long = vec![b'x'; 16 * usize::try_from(count).unwrap()];
        let texts = [27282, 27283, 27284, 27286, 27288, 27289, 27290];
        check(texts.map(|number| attr(number, &[&long[..], b"\0"].concat())).concat());
    }
}
