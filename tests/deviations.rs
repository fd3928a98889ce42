//! The deviations from runc that can be tested without the kernel. The tables of docs/deviations.md name the
//! test of every deviation. Tests that need processes are in `tests/protocol` and `tests/kernel`. Tests that
//! need a mock are unit tests in `src`.

use nsexec::bootstrap::Bootstrap;
use nsexec::bootstrap::dialect::Dialect;
use nsexec::bootstrap::env::{Environment, RawEnv};
use nsexec::bootstrap::text::Lossy;
use nsexec::error::{Doing, Error, MapKind, ProcFile, Refusal, SyncStep, ToolFailure};
use nsexec::idmap::IdMap;
use nsexec::log::{Level, RECORD_MAX, Writer, layout};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{CloneFlags, Errno, Pid, WaitStatus};
use nsexec::unshare::refuse_impossible;

fn record(text: &str) -> String {
    let mut buffer = [0; RECORD_MAX];
    let len = layout(&mut buffer, Level::Debug, (Writer::Stage(1), Pid(7)), format_args!("{text}"), None);
    String::from_utf8(buffer[..len].to_vec()).expect("a record is UTF-8")
}

#[test]
fn clone_bits_that_name_no_namespace_are_refused() {
    let with = |bits| Bootstrap::new(CloneFlags(bits));
    // CLONE_FILES: unshare(2) would take it.
    for bits in [0x400, 0x2000_0400, 0x8000_0000] {
        let refused = refuse_impossible(&with(bits));
        assert_eq!(refused, Err(Refusal::UnknownCloneFlags(CloneFlags(bits & !0x2000_0000))));
    }
    assert_eq!(refuse_impossible(&with(0x7e02_0080)), Ok(()));
}

#[test]
fn a_map_that_no_write_can_carry_is_refused_before_any_call() {
    let small = IdMap::parse(c"0 1000 1\n").expect("a map");
    // As the map of users, of groups, and of both: which one is refused.
    let refused = |lines: &str| {
        let text = std::ffi::CString::new(lines).expect("no NUL");
        let map = IdMap::parse(&text).expect("every line is right");
        let of = |users, groups| {
            let boot = Bootstrap::new(CloneFlags::NEWUSER).with_uid_map(users).with_gid_map(groups);
            match refuse_impossible(&boot) {
                Err(Refusal::MapTooLarge(kind, _)) => Some(kind),
                Ok(()) => None,
                other => panic!("{other:?}"),
            }
        };
        let found = [of(map, small), of(small, map), of(map, map)];
        let alone = refuse_impossible(&Bootstrap::new(CloneFlags::NEWUSER).with_gid_map(map)).is_err();
        assert_eq!(alone, found[1].is_some(), "a map of groups alone");
        match found {
            [None, None, None] => false,
            [Some(MapKind::Uid), Some(MapKind::Gid), Some(MapKind::Uid)] => true,
            other => panic!("{other:?}"),
        }
    };
    let lines =
        |count: u32, first: u32| -> String { (0..count).map(|i| format!("{i} {} 1\n", first + i)).collect() };
    assert!(!refused(&lines(340, 1000)));
    assert!(refused(&lines(341, 1)), "one line too many");
    assert!(refused(&lines(340, 1_000_000_000)), "more bytes than a write may have");
}

#[test]
fn a_record_of_any_text_has_at_most_4096_bytes() {
    assert_eq!(record("short"), "{\"level\":\"debug\", \"msg\": \"nsexec-1[7]: short\"}\n");
    for text in ["x".repeat(5000), "\n".repeat(5000), "\u{fffd}".repeat(5000), "\u{7f}".repeat(5000)] {
        let cut = record(&text);
        assert!(cut.len() <= RECORD_MAX && cut.ends_with("...\"}\n"), "{} bytes", cut.len());
        assert!(serde_json::from_str::<serde_json::Value>(&cut).is_ok(), "no escape is cut in two");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_logged_in_hexadecimal() {
    assert_eq!(
        record(&Lossy(b"/a\xff\xfeb").to_string()).split("]: ").nth(1),
        Some("/a\\\\xff\\\\xfeb\"}\n")
    );
}

#[test]
fn a_refused_setns_names_the_path() {
    let error = Error::Os { doing: Doing::Join(NsKind::Net, b"/run/netns/blue"), errno: Errno::EINVAL };
    assert_eq!(
        error.to_string(),
        "failed to setns into net namespace: Invalid argument (with path /run/netns/blue)"
    );
}

#[test]
fn an_error_without_an_errno_does_not_end_in_success() {
    let unknown = [8, 0, 0, 0x6a, 0, 0, 0, 0];
    let parse = Bootstrap::parse(&unknown, &Dialect::V1_2).expect_err("no such attribute");
    let raw = RawEnv { init_pipe: Some(b"x"), ..RawEnv::default() };
    let environment = Environment::parse(raw, &Dialect::V1_2).expect_err("no number");
    let ended = ToolFailure::Ended(WaitStatus::Exited(3));
    for error in [
        Error::Parse(parse),
        Error::Environment(environment),
        Error::Refused(Refusal::Threads(Some(2))),
        Error::Short { doing: Doing::Update(Pid(7), ProcFile::TimensOffsets), got: 27, want: 41 },
        Error::UnexpectedSync { step: SyncStep::Stage1Next, value: 0 },
        Error::MappingTool { kind: MapKind::Uid, pid: Pid(7), why: ended },
    ] {
        assert!(!error.to_string().ends_with("Success"), "{error}");
    }
}

#[test]
fn texts_are_those_of_the_last_release_of_a_line() {
    // 1.0.3, 1.1.15, and main. Until 1.1.12 the request was logged a second time instead, until 1.1.4
    // `namespace` was a singular.
    let texts = |dialect: &Dialect| (dialect.awaiting_maps_text, dialect.unshare_remaining_text);
    #[cfg(feature = "legacy")]
    let request = "request stage-0 to map user namespace";
    let waiting = "waiting stage-0 to complete the mapping of user namespace";
    #[cfg(feature = "legacy")]
    assert_eq!(texts(&Dialect::V1_0), (request, "unshare remaining namespace (except cgroupns)"));
    #[cfg(feature = "legacy")]
    assert_eq!(texts(&Dialect::V1_1), (waiting, "unshare remaining namespaces (except cgroupns)"));
    assert_eq!(texts(&Dialect::V1_2), (waiting, "unshare remaining namespaces"));
}
