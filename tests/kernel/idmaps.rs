//! Id maps: every number of lines that the kernel accepts, written by nsexec or by newuidmap and newgidmap;
//! and maps that are refused.

use std::collections::BTreeSet;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::kit::{Ctx, ids, subordinate};

pub(crate) const TESTS: &[Test] = &[
    test!(one_line_is_the_caller_as_root, BOTH),
    test!(map_of_2_lines, BOTH),
    test!(map_of_6_lines, BOTH),
    test!(map_of_7_lines, BOTH),
    test!(map_of_20_lines, BOTH),
    test!(map_of_340_lines, BOTH),
    test!(root_inside_is_a_subordinate_id, BOTH),
    test!(the_callers_id_in_the_middle, USER),
    test!(auto_takes_the_ranges_of_the_files, USER),
    test!(map_root_and_lines_together, BOTH),
    test!(setgroups_is_denied_allowed_or_left, BOTH),
    test!(identity_map_of_all_ids, ROOT),
    test!(files_belong_to_mapped_ids, ROOT),
    test!(more_than_340_lines_are_refused, BOTH),
    test!(more_than_4095_bytes_of_map_are_refused, BOTH),
    test!(overlapping_lines_are_refused, BOTH),
    test!(malformed_numbers_are_refused, BOTH),
    test!(map_without_id_0_is_refused, BOTH),
    test!(an_id_that_is_not_ours_to_map, BOTH),
    test!(no_tool_in_the_path, USER),
    test!(a_root_without_the_capabilities_to_map, ROOT),
];

type Line = (u32, u32, u32);

fn read_map(text: &str) -> Vec<Line> {
    let line = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2])
    };
    text.lines().map(line).collect()
}

fn set(lines: &[Line]) -> BTreeSet<Line> {
    lines.iter().copied().collect()
}

fn args_of(users: &[Line], groups: &[Line]) -> Vec<String> {
    let word = |flag: &str, line: &Line| [flag.to_owned(), format!("{}:{}:{}", line.0, line.1, line.2)];
    let users = users.iter().flat_map(|line| word("--map-users", line));
    users.chain(groups.iter().flat_map(|line| word("--map-groups", line))).collect()
}

/// Runs a command with these maps. Compares the maps with those in its /proc, as sets.
#[track_caller]
fn check(ctx: &Ctx, users: &[Line], groups: &[Line]) {
    for (file, lines) in [("uid_map", users), ("gid_map", groups)] {
        let mut args = vec!["run".to_owned()];
        args.extend(args_of(users, groups));
        args.extend(["--", "cat", &format!("/proc/self/{file}")].map(str::to_owned));
        let text = ctx.nsexec(args).ok();
        assert_eq!(set(&read_map(&text)), set(lines), "{file}");
        assert_eq!(read_map(&text).len(), lines.len(), "{file}");
    }
}

/// Returns `count` lines of one id each: the caller as 0, then every other subordinate id, so that no two
/// lines can be merged.
fn short_lines(ctx: &Ctx, count: u32) -> (Vec<Line>, Vec<Line>) {
    let (first, _) = subordinate(ctx);
    let (uid, gid) = ids();
    let lines = |own| (0..count).map(|i| (i, if i == 0 { own } else { first + 2 * i }, 1)).collect();
    (lines(uid), lines(gid))
}

/// Checks maps in ascending, descending and mixed order.
#[track_caller]
fn orders(ctx: &Ctx, count: u32) {
    if !ctx.root() {
        ctx.needs("newuidmap");
    }
    let (mut users, mut groups) = short_lines(ctx, count);
    check(ctx, &users, &groups);
    users.reverse();
    check(ctx, &users, &groups);
    // The step has no common divisor with the number of lines, so every line appears once.
    let step = if count % 3 == 0 { 5 } else { 3 };
    groups = (0..groups.len()).map(|i| groups[i * step % groups.len()]).collect();
    users.rotate_left(1);
    check(ctx, &users, &groups);
}

fn one_line_is_the_caller_as_root(ctx: &Ctx) {
    let (uid, gid) = ids();
    check(ctx, &[(0, uid, 1)], &[(0, gid, 1)]);
    let text = ctx.nsexec(["run", "-r", "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"]).ok();
    assert_eq!(read_map(&text), [(0, uid, 1), (0, gid, 1)]);
}

fn map_of_2_lines(ctx: &Ctx) {
    orders(ctx, 2);
}

fn map_of_6_lines(ctx: &Ctx) {
    orders(ctx, 6);
}

fn map_of_7_lines(ctx: &Ctx) {
    orders(ctx, 7);
}

fn map_of_20_lines(ctx: &Ctx) {
    orders(ctx, 20);
}

fn map_of_340_lines(ctx: &Ctx) {
    orders(ctx, 340);
}

fn root_inside_is_a_subordinate_id(ctx: &Ctx) {
    let (first, count) = subordinate(ctx);
    let map = [(0, first, 1), (1, first + 1000, count - 1000)];
    check(ctx, &map, &map);
    check(ctx, &map[..1], &map[..1]);
}

fn the_callers_id_in_the_middle(ctx: &Ctx) {
    let ((first, _), (uid, gid)) = (subordinate(ctx), ids());
    let map = |own| [(0, first, 500), (500, own, 1), (501, first + 500, 1000)];
    check(ctx, &map(uid), &map(gid));
}

fn auto_takes_the_ranges_of_the_files(ctx: &Ctx) {
    subordinate(ctx);
    // All lines of the user, in their order; another suite may have added one.
    let map = |own: u32, file: &str| {
        let (mut map, mut inside) = (vec![(0, own, 1)], 1);
        let text = std::fs::read_to_string(file).unwrap();
        for range in text.lines().filter_map(|line| line.strip_prefix("nsexec-test:")?.split_once(':')) {
            let (first, count): (u32, u32) = (range.0.parse().unwrap(), range.1.parse().unwrap());
            map.push((inside, first, count));
            inside += count;
        }
        map
    };
    let args = ["run", "--map-users", "auto", "--map-groups", "auto", "--", "cat"];
    let read = |file: &str| read_map(&ctx.nsexec(args.iter().chain(&[file])).ok());
    assert_eq!(read("/proc/self/uid_map"), map(ids().0, "/etc/subuid"));
    assert_eq!(read("/proc/self/gid_map"), map(ids().1, "/etc/subgid"));
}

fn map_root_and_lines_together(ctx: &Ctx) {
    let ((first, _), (uid, gid)) = (subordinate(ctx), ids());
    let one = format!("1:{first}:10");
    let args = ["run", "-r", "--map-users", &one, "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"];
    let map = read_map(&ctx.nsexec(args).ok());
    assert_eq!(map, [(0, uid, 1), (1, first, 10), (0, gid, 1)]);
}

fn setgroups_is_denied_allowed_or_left(ctx: &Ctx) {
    let (first, _) = subordinate(ctx);
    let (_, gid) = ids();
    let read = |flags: &[&str]| {
        let args = ["run", "-r"].iter().chain(flags).chain(&["--", "cat", "/proc/self/setgroups"]);
        ctx.nsexec(args).ok().trim().to_owned()
    };
    let groups = [format!("0:{gid}:1"), format!("1:{first}:10")];
    let groups = ["--map-groups", &groups[0], "--map-groups", &groups[1]];
    assert_eq!(read(&["--setgroups", "deny"]), "deny");
    assert_eq!(read(&groups[2..]), "allow");
    assert_eq!(read(&[&groups[2..], &["--setgroups", "allow"]].concat()), "allow");
    if ctx.root() {
        assert_eq!(read(&["--setgroups", "allow"]), "allow");
    } else {
        assert_eq!(read(&[]), "deny");
        let args = ["run", "-r", "--setgroups", "allow", "--", "true"];
        ctx.nsexec(args).misused(&["--setgroups", "--map-groups"]);
    }
}

fn identity_map_of_all_ids(ctx: &Ctx) {
    let all = [(0, 0, u32::MAX)];
    check(ctx, &all, &all);
}

fn files_belong_to_mapped_ids(ctx: &Ctx) {
    let file = ctx.file("made");
    let script = format!("touch {0}; chown 7:8 {0}", file.display());
    let maps = [
        "run",
        "--map-users",
        "0:0:1",
        "--map-users",
        "7:30007:1",
        "--map-groups",
        "0:0:1",
        "--map-groups",
        "8:30008:1",
    ];
    ctx.nsexec(maps.iter().chain(&["--", "sh", "-c", &script])).ok();
    let data = std::fs::metadata(file).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((data.uid(), data.gid()), (30_007, 30_008));
}

/// Runs `nsexec run MAPS -- echo`, which must be refused as wrong usage.
#[track_caller]
fn misused(ctx: &Ctx, users: &[Line], words: &[&str]) {
    let mut args = vec!["run".to_owned()];
    args.extend(args_of(users, &[]));
    args.extend(["--", "echo", "it ran"].map(str::to_owned));
    ctx.nsexec(args).misused(words);
}

fn more_than_340_lines_are_refused(ctx: &Ctx) {
    misused(ctx, &short_lines(ctx, 341).0, &["--map-users", "341", "340"]);
}

fn more_than_4095_bytes_of_map_are_refused(ctx: &Ctx) {
    let lines: Vec<Line> = (0..340).map(|i| (100_000 * u32::from(i > 0) + i, 30_000 + 2 * i, 1)).collect();
    misused(ctx, &lines, &["--map-users", "4095"]);
}

fn overlapping_lines_are_refused(ctx: &Ctx) {
    let (uid, _) = ids();
    misused(
        ctx,
        &[(0, uid, 1), (1, 30_000, 10), (10, 40_000, 5)],
        &["1:30000:10", "10:40000:5", "overlap", "inside"],
    );
    misused(
        ctx,
        &[(0, uid, 1), (1, 30_000, 10), (20, 30_009, 5)],
        &["1:30000:10", "20:30009:5", "overlap", "outside"],
    );
}

fn malformed_numbers_are_refused(ctx: &Ctx) {
    for value in [
        "0:0:0",
        "0:0",
        "0:x:1",
        "4294967295:0:1",
        "0:4294967295:1",
        "1:0:4294967295",
        "-1:0:1",
        "",
        "0:0:4294967296",
    ] {
        let flag = format!("--map-users={value}");
        ctx.nsexec(["run", &flag, "--", "echo", "it ran"]).misused(&["--map-users", value]);
    }
}

fn map_without_id_0_is_refused(ctx: &Ctx) {
    let (uid, _) = ids();
    // The command keeps its own id.
    let line = format!("1:{uid}:1");
    assert_eq!(ctx.nsexec(["run", "--map-users", &line, "--", "id", "-u"]).ok(), "1\n");
    misused(ctx, &[(1, 30_000, 1)], &["id 0", "your own", "-r"]);
}

fn an_id_that_is_not_ours_to_map(ctx: &Ctx) {
    if !ctx.root() {
        let (first, count) = subordinate(ctx);
        let end = first + count;
        let refused = |map: &[&str]| {
            let said = ctx.nsexec([&["run"], map, &["--", "echo", "it ran"]].concat()).done();
            said.exits(1);
            // First the tool writes its own error, then nsexec one line.
            let ours: Vec<_> = said.err.lines().filter(|line| line.contains("nsexec: ")).collect();
            assert_eq!((ours.len(), said.text().as_str()), (1, ""), "{}", said.err);
            assert!(ours[0].contains("newuidmap") && ours[0].contains("/etc/subuid"), "{}", ours[0]);
            ours[0].to_owned()
        };
        refused(&["-r", "--map-users", &format!("1:{end}:10")]);
        // One id that is not the caller's own needs the tool too.
        let said = refused(&["--map-users", &format!("0:{end}:1")]);
        assert!(said.contains(&format!("/etc/subuid does not give you the user id {end}")), "{said}");
    }
    // In a user namespace with one id even its root cannot map another id.
    let bin = ctx.bin.to_str().unwrap();
    let args =
        ["run", "-r", bin, "run", "--map-users", "0:0:1", "--map-users", "1:5:1", "--", "echo", "it ran"];
    ctx.nsexec(args)
        .refused(1, &["uid_map", "Operation not permitted", "does not exist in this user namespace"]);
}

fn no_tool_in_the_path(ctx: &Ctx) {
    let (first, _) = subordinate(ctx);
    let line = format!("1:{first}:1");
    let cmd = ctx.nsexec(["run", "-r", "--map-users", &line, "--", "/bin/true"]);
    cmd.env("PATH", "/nonexistent").refused(1, &["newuidmap", "PATH"]);
}

fn a_root_without_the_capabilities_to_map(ctx: &Ctx) {
    ctx.needs("setpriv");
    let bin = ctx.bin.to_str().expect("UTF-8");
    let without = |caps: &str, args: &[&str]| {
        ctx.cmd("setpriv", [&["--bounding-set", caps, bin, "run"], args].concat())
    };
    let script = ["--", "sh", "-c", "id -u; id -g; cat /proc/self/setgroups"];
    assert_eq!(without("-setgid", &script).ok(), "0\n0\ndeny\n");
    assert_eq!(without("-setgid,-setuid", &script).ok(), "0\n0\ndeny\n");
    without("-setgid", &["--map-groups", "0:5:5", "--", "true"])
        .refused(1, &["gid_map", "lacks CAP_SETGID:"]);
    without("-setgid", &["-r", "--setgroups", "allow", "--", "true"]).refused(1, &["lacks CAP_SETGID:"]);
    without("-setuid", &["--map-users", "0:5:5", "--", "true"]).refused(1, &["uid_map", "lacks CAP_SETUID:"]);
    // Needed since Linux 5.12; older kernels allow the map.
    let done = without("-setfcap", &["-r", "--", "true"]).done();
    if !done.status.success() {
        done.refused(1, &["uid_map", "lacks CAP_SETFCAP"]);
    }
}
