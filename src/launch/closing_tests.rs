//! Tests of the closing of descriptors.

use std::sync::{Arc, Mutex};
use std::vec::Vec;

use super::*;
use crate::sys::MockSys;
use proptest::prelude::*;
use std::format;
use std::string::String;

const PIPES: Pipes = Pipes { init: Fd(3), stage_init: Fd(4), log: Fd(5), stage_log: Fd(6) };

fn fds(numbers: &[i32]) -> Vec<Fd> {
    numbers.iter().copied().map(Fd).collect()
}

fn all_gaps(kept: &[i32], ends: &[i32]) -> Vec<(u32, u32)> {
    gaps(&fds(kept), &fds(ends)).collect()
}

#[test]
fn gaps_lie_between_the_kept_numbers() {
    assert_eq!(all_gaps(&[], &[]), [(3, u32::MAX)]);
    assert_eq!(all_gaps(&[], &[3, 4, 5, 6]), [(7, u32::MAX)]);
    assert_eq!(all_gaps(&[7, 9], &[3, 5, 4, 12]), [(6, 6), (8, 8), (10, 11), (13, u32::MAX)]);
    assert_eq!(all_gaps(&[0, 2, -1], &[-1]), [(3, u32::MAX)]);
    assert_eq!(all_gaps(&[i32::MAX], &[]), [(3, 0x7fff_fffe), (0x8000_0000, u32::MAX)]);
}

proptest! {
    // The default file of failures would be created beside the source.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_number_is_kept_or_in_one_gap(
        kept in proptest::collection::vec(0..40_i32, 0..12),
        ends in proptest::collection::vec(0..40_i32, 0..4),
    ) {
        let gaps = all_gaps(&kept, &ends);
        for number in 3..50 {
            let is_kept = kept.contains(&number) || ends.contains(&number);
            let number = u32::try_from(number).unwrap();
            let closed = gaps.iter().filter(|(first, last)| (*first..=*last).contains(&number)).count();
            prop_assert_eq!(closed, usize::from(!is_kept), "{} in {:?}", number, gaps);
        }
    }
}

/// Replies of a kernel that refuses close_range(2) with `refused`. The open descriptors are `listed`.
/// Returns the result and the calls.
fn closing(
    tail: &Tail<'_>,
    refused: Option<Errno>,
    listed: &'static [&'static str],
    not_open: Option<Fd>,
) -> (Result<(), Error<'static>>, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = || {
        let seen = Arc::clone(&seen);
        move |text: String| seen.lock().unwrap().push(text)
    };
    let mut sys = MockSys::new();
    let say = note();
    sys.expect_close_range().returning(move |first, last| {
        say(format!("close {first} to {last}"));
        refused.map_or(Ok(()), Err)
    });
    let say = note();
    sys.expect_close_range_cloexec().returning(move |first| {
        say(format!("mark from {}", first.0));
        Ok(())
    });
    let say = note();
    sys.expect_set_cloexec().returning(move |fd, on| {
        say(format!("{} {}", if on { "mark" } else { "pass" }, fd.0));
        if not_open == Some(fd) { Err(Errno::EBADF) } else { Ok(()) }
    });
    let say = note();
    sys.expect_close().returning(move |fd| {
        say(format!("close {}", fd.0));
        Ok(())
    });
    sys.expect_openat().returning(|_, _, _| Ok(Fd(50)));
    sys.expect_openat2().returning(|_, _, _| Ok(Fd(51)));
    let mut listings = [listed, &[]].into_iter();
    sys.expect_getdents64().returning(move |_, buffer| {
        let names = listings.next().unwrap();
        let listing: Vec<u8> =
            names.iter().flat_map(|name| crate::scripts::descriptors::tests::entry(name)).collect();
        buffer[..listing.len()].copy_from_slice(&listing);
        Ok(listing.len())
    });
    let result = close_unnamed(&mut sys, tail, &PIPES);
    let seen = seen.lock().unwrap().clone();
    (result, seen)
}

#[test]
fn unnamed_descriptors_are_closed_and_the_kept_ones_marked() {
    let (named, kept) = (fds(&[9]), fds(&[9, 20]));
    let tail = Tail { descriptors: Some(&named), kept: Some(&kept), ..Tail::BARE };
    let closed = ["close 7 to 8", "close 10 to 19", "close 21 to 4294967295"];
    let (result, seen) = closing(&tail, None, &[], None);
    assert_eq!(
        (result, seen),
        (
            Ok(()),
            [&closed[..], &["mark 20", "pass 9"]].concat().iter().map(|text| String::from(*text)).collect()
        )
    );
    // The number of a path need not be open; a named descriptor must be.
    assert_eq!(closing(&tail, None, &[], Some(Fd(20))).0, Ok(()));
    let refused = Err(StageStep::PassDescriptor(Fd(9)).failed(Errno::EBADF));
    assert_eq!(closing(&tail, None, &[], Some(Fd(9))).0, refused);
    let (result, seen) = closing(&tail, Some(Errno::ENOMEM), &[], None);
    assert_eq!(result, Err(StageStep::Descriptors.failed(Errno::ENOMEM)));
    assert_eq!(seen.len(), 1);
}

#[test]
fn unnamed_descriptors_are_closed_one_by_one_without_close_range() {
    let tail = Tail { descriptors: Some(&[Fd(9)]), kept: Some(&[Fd(9)]), ..Tail::BARE };
    let listed = &[".", "..", "0", "2", "4", "6", "8", "9", "17", "51"];
    for errno in [Errno::ENOSYS, Errno::EPERM] {
        let (result, seen) = closing(&tail, Some(errno), listed, None);
        assert_eq!(result, Ok(()));
        // 50 is the directory /proc, and 51 the list itself.
        assert_eq!(seen, ["close 7 to 8", "close 50", "close 8", "close 17", "close 51", "pass 9"]);
    }
}

#[test]
fn descriptors_stay_open_for_code_of_the_caller() {
    let tail = Tail { descriptors: Some(&[Fd(9)]), kept: None, ..Tail::BARE };
    let (result, seen) = closing(&tail, None, &[], None);
    assert_eq!((result, seen), (Ok(()), std::vec!["mark from 3".into(), "pass 9".into()]));
}

#[test]
fn nothing_is_closed_if_the_command_inherits_all() {
    assert_eq!(closing(&Tail::BARE, None, &[], None), (Ok(()), Vec::new()));
}

#[test]
fn named_descriptor_with_the_number_of_a_pipe_is_not_open() {
    let tail = Tail { descriptors: Some(&[Fd(6)]), kept: Some(&[Fd(6)]), ..Tail::BARE };
    let refused = Err(StageStep::PassDescriptor(Fd(6)).failed(Errno::EBADF));
    assert_eq!(closing(&tail, None, &[], None), (refused, Vec::new()));
}
