//! The parsers of the environment agree with a second, small one in each dialect: `_LIBCONTAINER_INITPIPE`,
//! `_LIBCONTAINER_LOGPIPE`, `_LIBCONTAINER_LOGLEVEL` and `_LIBCONTAINER_MOUNT_FDS`.
//!
//! The first byte of the input selects the dialect. The values follow in that order, each after a zero byte.
//! A missing one is an unset variable.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::bootstrap::{Dialect, Environment, RawEnv};
use nsexec::legacy::{MountFds, MountSources};

fuzz_target!(|data: &[u8]| {
    let Some((choice, values)) = data.split_first() else { return };
    let dialect = Dialect::ALL[usize::from(*choice) % Dialect::ALL.len()];
    let mut values = values.split(|byte| *byte == 0).skip(1);
    let mut raw = RawEnv::default();
    (raw.init_pipe, raw.log_pipe, raw.log_level) = (values.next(), values.next(), values.next());
    raw.mount_fds = values.next();
    variables(raw, dialect);
    if let Some(list) = raw.mount_fds {
        mount_fds(list);
    }
});

/// The levels of logrus.
const LEVELS: [&str; 7] = ["panic", "fatal", "error", "warning", "info", "debug", "trace"];

/// The reason why a value is refused: it is not a number, or this number is out of range.
type Refused = Option<i64>;

fn variables(raw: RawEnv<'_>, dialect: &Dialect) {
    let has_log = dialect.name() != "seed";
    let has_level = matches!(dialect.name(), "v1_1" | "v1_2");
    let expected = (|| {
        let named = |name: &'static str| move |reason: Refused| (name, reason);
        let log = if has_log { number(raw.log_pipe).map_err(named("_LIBCONTAINER_LOGPIPE"))? } else { None };
        let level = if has_level && log.is_some() {
            number(raw.log_level).map_err(named("_LIBCONTAINER_LOGLEVEL"))?
        } else {
            None
        };
        let init = match number(raw.init_pipe) {
            Err(Some(-1)) if !has_level => None,
            init => init.map_err(named("_LIBCONTAINER_INITPIPE"))?,
        };
        Ok((init, log, level))
    })();
    match (Environment::parse(raw, dialect), expected) {
        (Ok(parsed), Ok((init, log, level))) => {
            assert_eq!((parsed.init.map(|fd| fd.0), parsed.log.map(|fd| fd.0)), (init, log));
            let level = level.map_or(5, |number| usize::try_from(number).expect("not negative"));
            assert_eq!(parsed.level.name(), *LEVELS.get(level).unwrap_or(&"trace"));
            assert_eq!(parsed.mount_fds, raw.mount_fds);
        }
        (Err(error), Err((name, reason))) => {
            assert_eq!(error.name, name);
            let text = error.to_string();
            // The text of a number that is out of range ends with the number, as in runc.
            assert_eq!(text.starts_with("bad value for "), reason.is_some(), "{text}");
            assert!(reason.is_none_or(|number| text.ends_with(&format!(" ({number})"))), "{text}");
        }
        (parsed, expected) => panic!("parsed {parsed:?}, expected {expected:?}"),
    }
}

/// As strtol(3), without trailing characters, and then the range of a descriptor.
fn number(value: Option<&[u8]>) -> Result<Option<i32>, Refused> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = std::str::from_utf8(value)
        .map_err(|_| None)?
        .trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(None);
    }
    // More digits than a 64-bit number has mean its limit.
    let significant = digits.trim_start_matches('0');
    let magnitude = if significant.len() > 20 {
        i128::MAX
    } else {
        format!("0{significant}").parse().expect("20 digits")
    };
    let signed = if text.starts_with('-') { -magnitude } else { magnitude };
    let limited = i64::try_from(signed.clamp(i64::MIN.into(), i64::MAX.into())).expect("limited to 64 bits");
    i32::try_from(limited).ok().filter(|number| *number >= 0).map(Some).ok_or(Some(limited))
}

/// Returns the numbers of a JSON array: −1 for a mount without a source.
fn numbers(list: &str) -> Option<Vec<Option<i32>>> {
    let blanks = |c: char| c.is_ascii_whitespace();
    let inner = list.trim_matches(blanks).strip_prefix('[')?.strip_suffix(']')?;
    if inner.trim_matches(blanks).is_empty() {
        return Some(Vec::new());
    }
    let number = |entry: &str| {
        let entry = entry.trim_matches(blanks);
        let number: i32 = entry.parse().ok().filter(|_| !entry.starts_with('+'))?;
        // "-0" is 0.
        (number >= -1).then_some((number >= 0).then_some(number))
    };
    inner.split(',').map(number).collect()
}

fn mount_fds(list: &[u8]) {
    let parsed = MountFds::parse(list);
    let expected = std::str::from_utf8(list).ok().and_then(numbers);
    match (parsed, expected) {
        (Ok(parsed), Some(expected)) => {
            let found: Vec<_> = parsed.iter().map(|fd| fd.map(|fd| fd.0)).collect();
            assert_eq!(found, expected);
            // A source for each number, and none for −1, is the one list that the check accepts.
            let source = |number: &Option<i32>| if number.is_some() { &b"/\0"[..] } else { b"\0" };
            let mut value = expected.iter().map(source).collect::<Vec<_>>().concat();
            value.push(0);
            parsed.check(MountSources::parse(&value).expect("sources")).expect("each number has a source");
            value.insert(0, 0);
            let other = MountSources::parse(&value).expect("sources");
            assert!(!parsed.check(other).expect_err("one mount more").to_string().is_empty());
        }
        (Err(error), None) => assert!(!error.to_string().is_empty()),
        (parsed, expected) => panic!("parsed {parsed:?}, expected {expected:?}"),
    }
}
