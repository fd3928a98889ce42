//! The two readers of subordinate-id files agree with a second one, which looks at each line alone: the
//! launcher's, and the one of a machine's facts, which skips malformed lines. An error names the first
//! malformed line of the caller.
//!
//! The first byte of the input selects whether the caller's user id has a name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::launch::{Range, ranges_of_file};
use nsexec_audit::machine::sub_ranges;

const NAME: &str = "ann";
const UID: u32 = 1000;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    // As the launcher reads the file.
    let text = String::from_utf8_lossy(bytes);
    let name = (choice % 2 == 0).then_some(NAME);
    let lines: Vec<_> = text.split('\n').map(|line| range_of(line, name)).collect();
    let right: Vec<_> = lines.iter().flatten().flatten().copied().filter(|range| range.count > 0).collect();
    match ranges_of_file(&text, name, UID) {
        Ok(ranges) => {
            assert!(!lines.contains(&Some(Err(()))), "{text:?}: a malformed line");
            assert_eq!(ranges, right, "{text:?}");
        }
        Err((number, what)) => {
            let first = lines.iter().position(|line| matches!(line, Some(Err(()))));
            assert_eq!(Some(number), first.map(|index| index + 1), "{text:?}: {what}");
            let line = text.split('\n').nth(number - 1).expect("the line exists");
            assert_eq!(what.contains("carriage return"), line.ends_with('\r'), "{line:?}: {what}");
        }
    }
    let without_cr = text.replace("\r\n", "\n");
    if !without_cr.contains(is_blank) {
        assert_eq!(sub_ranges(&without_cr, name, UID), right_of(&without_cr, name), "{text:?}");
    }
});

/// Blanks around a number: both readers take those at the end of a line.
fn is_blank(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

fn right_of(text: &str, name: Option<&str>) -> Vec<Range> {
    let lines = text.split('\n').filter_map(|line| range_of(line, name)?.ok());
    lines.filter(|range| range.count > 0).collect()
}

/// Returns the range of a line: `None` for a line of another user, an error for a malformed one.
fn range_of(line: &str, name: Option<&str>) -> Option<Result<Range, ()>> {
    let (owner, numbers) = line.split_once(':').unwrap_or((line, ""));
    if owner != UID.to_string() && Some(owner) != name {
        return None;
    }
    let number = |word: &str| -> Option<u32> {
        let word = word.trim_end();
        let digits = word.strip_prefix('+').unwrap_or(word);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Each digit shifts the sum of those before it by one place.
        digits.bytes().try_fold(0_u32, |sum, byte| sum.checked_mul(10)?.checked_add(u32::from(byte - b'0')))
    };
    let Some((first, count)) = numbers.split_once(':').filter(|_| !line.ends_with('\r')) else {
        return Some(Err(()));
    };
    Some(number(first).zip(number(count)).map(|(first, count)| Range { first, count }).ok_or(()))
}
