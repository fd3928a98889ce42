use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::args::{Cli, Command};
use nsexec::idmap::Extent;
use nsexec::launch::causes::CAP_SETGID;
use nsexec::launch::{Base, NewSysfs};
use nsexec::policy::Setgroups;
use nsexec_audit::machine::caller::{ALL_CAPABILITIES, SubRange};

/// Returns the facts of an ordinary user with subordinate ids and mapping tools.
fn ann() -> Facts {
    Facts {
        euid: 1000,
        egid: 100,
        user: Some("ann".to_owned()),
        subuids: vec![SubRange { first: 100_000, count: 65_536 }, SubRange { first: 300_000, count: 10 }],
        subgids: vec![SubRange { first: 200_000, count: 65_536 }],
        unread: [None, None],
        users: vec![],
        groups: vec![],
        newuidmap: Some(PathBuf::from("/usr/bin/newuidmap")),
        newgidmap: Some(PathBuf::from("/usr/bin/newgidmap")),
        kinds: NsSet::ALL,
        free: (Some(365_536), Some(265_536)),
        distribution: nsexec::launch::causes::Distribution::Debian,
        capabilities: None,
        known_capabilities: ALL_CAPABILITIES,
        sysfs: None,
    }
}

/// Returns the facts of an ordinary user without subordinate ids and mapping tools.
fn bob() -> Facts {
    Facts { user: None, subuids: vec![], subgids: vec![], newuidmap: None, newgidmap: None, ..ann() }
}

fn root() -> Facts {
    Facts { euid: 0, egid: 0, user: Some("root".to_owned()), ..bob() }
}

fn flags(words: &str) -> NamespaceFlags {
    let words = ["nsexec", "run"].into_iter().chain(words.split_whitespace()).chain(["--", "true"]);
    let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!("not run") };
    run.0.namespaces
}

fn request(words: &str, facts: &Facts) -> Request {
    decide(&flags(words), facts, &Dialect::V1_2).unwrap()
}

fn kinds(words: &str) -> String {
    let request = request(words, &ann());
    format!("{} | {}", request.created, request.joined)
}

fn map(map: &Option<Map>) -> String {
    map.as_ref().map_or(String::new(), |map| map.text().to_str().unwrap().replace('\n', ";"))
}

#[test]
fn maps_of_other_ids_than_the_own_need_a_tool() {
    let needs = |words: &str, facts: &Facts| request(words, facts).needs_tools((facts.euid, facts.egid));
    for own in ["-r", "--map-users 0:1000:1", "--map-users 0:1000:1 --map-groups 0:100:1", "-n"] {
        assert!(!needs(own, &ann()), "{own}");
    }
    for other in
        ["--map-users 0:100000:1", "--map-groups 0:200000:1", "--map-users auto", "-r --map-groups 1:5:1"]
    {
        assert!(needs(other, &ann()), "{other}");
        assert!(!needs(&other.replace("auto", "0:5:2"), &root()), "{other}");
    }
}

#[test]
fn named_and_implied_kinds_are_created() {
    assert_eq!(kinds("-n"), "net | ");
    assert_eq!(kinds("-UmpniuCT -r"), "cgroup, ipc, mnt, net, pid, time, user, uts | ");
    assert_eq!(kinds("-r"), "user | ");
    assert_eq!(kinds("--map-users 0:1000:1"), "user | ");
    assert_eq!(kinds("--map-groups 0:100:1"), "user | ");
    assert_eq!(kinds("--mount-proc"), "mnt | ");
    assert_eq!(kinds("--monotonic 1"), "time | ");
    assert_eq!(kinds("--boottime -1"), "time | ");
    assert_eq!(kinds("-f -i"), "ipc | ");
    assert_eq!(kinds("-n --join user=/u --join mnt=/m"), "net | mnt, user");
    assert_eq!(kinds("--join net=/n"), " | net");
}

#[test]
fn all_kinds_are_created_without_a_namespace_flag() {
    for words in ["", "-f", "--kill-child", "--oom-score-adj 5", "--setgroups deny", "--init", "-w /"] {
        for facts in [root(), ann(), bob()] {
            let request = request(words, &facts);
            assert_eq!(request.created, NsSet::ALL, "{words}");
            assert!(request.policy.launch.mount_proc, "{words}");
            assert_eq!(map(&request.users), format!("0 {} 1;", facts.euid));
            assert_eq!(map(&request.groups), format!("0 {} 1;", facts.egid));
        }
    }
}

#[test]
fn flag_all_creates_supported_kinds_that_are_not_joined() {
    assert_eq!(kinds("--all --join net=/n"), "cgroup, ipc, mnt, pid, time, user, uts | net");
    let request = request("--all", &Facts { kinds: NsSet::ALL.without(NsKind::Time), ..ann() });
    assert!(!request.created.contains(NsKind::Time));
    assert!(!request.policy.launch.mount_proc);
    assert_eq!(map(&request.users), "0 1000 1;");
}

#[test]
fn missing_map_maps_the_caller_to_id_0() {
    let both = |words| {
        let request = request(words, &ann());
        (map(&request.users), map(&request.groups))
    };
    let pair = |users: &str, groups: &str| (users.to_owned(), groups.to_owned());
    assert_eq!(both("-r"), pair("0 1000 1;", "0 100 1;"));
    assert_eq!(both("--map-users 0:100000:10"), pair("0 100000 10;", "0 100 1;"));
    assert_eq!(both("--map-groups 0:200000:10"), pair("0 1000 1;", "0 200000 10;"));
    // `auto` and `subids` of one side count for the other: su and chown change both ids.
    let auto = pair("0 1000 1;1 100000 65536;65537 300000 10;", "0 100 1;1 200000 65536;");
    for words in ["--map-users auto", "--map-groups auto", "--map-auto", "--map-users auto --map-groups auto"]
    {
        assert_eq!(both(words), auto, "{words}");
    }
    assert_eq!(both("--map-users auto --map-groups 0:100:1"), pair(&auto.0, "0 100 1;"));
    let subids = pair("1000 1000 1;100000 100000 65536;300000 300000 10;", "100 100 1;200000 200000 65536;");
    assert_eq!(both("--map-subids"), subids);
    assert_eq!(both("--map-users subids"), subids);
    assert_eq!(both("-r --map-users 1:100000:5"), pair("0 1000 1;1 100000 5;", "0 100 1;"));
    // The given lines contain the caller's line already.
    assert_eq!(both("-r --map-users 0:1000:1").0, "0 1000 1;");
    assert_eq!(both("-r --map-users auto").0, both("--map-users auto").0);
    // As with unshare(1), a line leaves out the caller's id.
    assert_eq!(both("-r --map-users 0:100000:10").0, "0 1000 1;1 100000 9;");
    assert_eq!(both("-c --map-auto").0, "1000 1000 1;0 100000 1000;1001 101000 64536;65537 300000 10;");
}

/// The caller remains who it is with a map of its own id, whatever the flag is.
#[test]
fn own_ids_are_kept_unless_they_are_0_inside() {
    let both = |words| {
        let request = request(words, &ann());
        let launch = request.policy.launch;
        (map(&request.users), map(&request.groups), request.policy.credentials, launch.uid, launch.gid)
    };
    let own = |user: &str, group: &str| (user.to_owned(), group.to_owned(), Credentials::Keep, None, None);
    assert_eq!(both("-c"), own("1000 1000 1;", "100 100 1;"));
    assert_eq!(both("-r -c"), both("-c"));
    assert_eq!(both("-c -r").2, Credentials::Root);
    assert_eq!(both("--all --map-users 1000:1000:1"), both("-c"));
    assert_eq!(both("--map-user 7"), own("7 1000 1;", "100 100 1;"));
    assert_eq!(both("--map-user 7 --map-group root"), own("7 1000 1;", "0 100 1;"));
    assert_eq!(both("--map-groups 5:100:1"), own("1000 1000 1;", "5 100 1;"));
    assert_eq!(both("--map-users 0:100000:5 --map-users 1000:1000:1").2, Credentials::Keep);
    // Without its own id the command becomes root.
    assert_eq!(both("--map-users 0:100000:5").2, Credentials::Root);
    assert_eq!(both("--map-users 0:100000:5 --map-groups 100:100:1").2, Credentials::Keep);
    assert_eq!(both("--map-users 0:100000:5 --map-groups 100:100:1").3, Some(0));
    assert_eq!(both("-U"), own("", ""));
    assert_eq!(request("-U", &ann()).policy.setgroups, Setgroups::Allow);
}

#[test]
fn ids_of_the_command_are_set_and_groups_dropped_where_that_is_allowed() {
    let ids = |words, facts: &Facts| {
        let request = request(words, facts);
        let launch = request.policy.launch;
        (launch.uid, launch.gid, request.around.groups, request.policy.credentials)
    };
    let dropped = Some(Vec::new());
    assert_eq!(ids("-n -S 5 -G 6", &root()), (Some(5), Some(6), dropped.clone(), Credentials::Keep));
    assert_eq!(ids("--map-auto -S 0 -G 0", &ann()), (Some(0), Some(0), dropped, Credentials::Keep));
    // setgroups is denied.
    assert_eq!(ids("-r -S 0", &ann()), (Some(0), None, None, Credentials::Keep));
    assert_eq!(ids("-n -S 5", &ann()), (Some(5), None, None, Credentials::Keep));
}

#[test]
fn root_without_subordinate_ids_maps_each_id_to_itself() {
    let both = |words, facts: &Facts| {
        let request = request(words, facts);
        (map(&request.users), map(&request.groups), request.policy.credentials)
    };
    let whole = "0 0 4294967295;".to_owned();
    assert_eq!(both("--map-users auto", &root()), (whole.clone(), whole.clone(), Credentials::Root));
    assert_eq!(both("--map-users all", &root()), (whole.clone(), whole, Credentials::Root));
    // In a user namespace: the ids that are mapped there.
    let line = |inside, outside, count| Extent { inside, outside, count };
    let nested = Facts { users: vec![line(0, 1000, 1), line(1, 100_000, 9)], ..root() };
    assert_eq!(both("--map-auto", &nested).0, "0 0 1;1 1 9;");
    assert_eq!(both("--map-users 0:0:5", &nested).0, "0 0 1;1 1 4;");
}

#[test]
fn surroundings_follow_from_the_flags() {
    let around = |words| request(words, &ann()).around;
    for words in ["", "--all", "-n", "-r -n"] {
        assert!(around(words).loopback, "{words}");
    }
    assert!(!around("-r").loopback && !around("-n --no-loopback").loopback);
    let without = Facts { capabilities: Some(!(1 << 12)), ..root() };
    assert!(!request("-n", &without).around.loopback && request("-r -n", &without).around.loopback);
    let propagation = |words| request(words, &ann()).policy.launch.propagation;
    let read = Facts { sysfs: Some(NewSysfs::default()), ..root() };
    let mounts_sys = |words| request(words, &read).around.sysfs.is_some();
    for words in ["", "--all", "-n -m", "-r -n -m --propagation shared", "-n --mount-proc=/mnt"] {
        assert!(mounts_sys(words), "{words}");
    }
    for words in ["--no-mount-sys", "-n", "-m", "-n -m --propagation unchanged", "-n -m -R /srv"] {
        assert!(!mounts_sys(words), "{words}");
    }
    assert_eq!((propagation(""), propagation("--all")), (Some(Propagation::Slave), Some(Propagation::Slave)));
    assert_eq!(propagation("-m --propagation shared"), Some(Propagation::Shared));
    assert_eq!(
        (propagation("-m --propagation unchanged"), propagation("-n --propagation slave")),
        (None, None)
    );
    let root = around("-R /srv").root.unwrap();
    assert_eq!(root.base, Base::Chroot { path: c"/srv".into() });
    // With a root directory, /proc is mounted below it.
    assert_eq!(around("-m -p -R /srv --mount-proc").root.unwrap().mounts.len(), 1);
    assert!(!request("-R /srv --mount-proc", &ann()).policy.launch.mount_proc);
    assert_eq!(around("--mount-proc=/srv/proc").root.unwrap().mounts.len(), 1);
    assert!(request("--mount-proc=/proc", &ann()).policy.launch.mount_proc);
    assert_eq!(around("-w x").directory.map(|directory| directory.confined), Some(false));
    assert_eq!(around("-R / -w /x").directory.map(|directory| directory.confined), Some(true));
    assert_eq!(around("-c --keep-caps").capabilities, Some(ALL_CAPABILITIES));
    let ends =
        |words| (request(words, &ann()).signal_at_end, request(words, &ann()).policy.launch.kill_child);
    assert_eq!(ends("-n --kill-child"), (Some(Signal::KILL), true));
    assert_eq!(ends("-n --kill-child=TERM"), (Some(Signal::TERM), false));
    assert_eq!(ends("-n"), (None, false));
}

#[test]
fn ranges_beyond_the_last_id_are_cut() {
    let subuids = vec![SubRange { first: 100, count: u32::MAX }, SubRange { first: 2, count: 98 }];
    let facts = Facts { euid: 1, subuids, ..ann() };
    let users = request("--map-users auto", &facts).users;
    assert_eq!(map(&users), "0 1 1;1 100 4294967195;4294967196 2 98;");
}

#[test]
fn setgroup_is_sent_as_runcs_go_code_sends_it() {
    for (words, facts, sent) in [
        ("-r", root(), false),
        ("-r", ann(), false),
        ("--map-groups 0:200000:5", ann(), true),
        ("--map-groups 0:5:5", root(), true),
        ("--map-users auto", ann(), true),
        ("-c", ann(), false),
        ("-n", root(), false),
    ] {
        assert_eq!(request(words, &facts).setgroup, sent, "{words}");
    }
}

#[test]
fn message_of_an_ordinary_user_names_the_mapping_tools() {
    let tools = |words, facts: &Facts| {
        let request = request(words, facts);
        (request.rootless, request.newuidmap.is_some(), request.newgidmap.is_some())
    };
    assert_eq!(tools("-r", &ann()), (true, true, true));
    assert_eq!(tools("-n", &ann()), (true, false, false));
    assert_eq!(tools("-r", &bob()), (true, false, false));
    assert_eq!(tools("-r", &Facts { euid: 0, ..ann() }), (false, false, false));
}

#[test]
fn flags_set_the_policy() {
    let policy = |words| request(words, &ann()).policy;
    assert_eq!(policy("-r").session, Session::Keep);
    assert_eq!(policy("-r").credentials, Credentials::Root);
    assert_eq!(policy("--join user=/u").credentials, Credentials::RootLast);
    assert_eq!(policy("--join user=/u -n").credentials, Credentials::Root);
    assert_eq!(policy("-n").credentials, Credentials::Keep);
    assert_eq!(policy("-m").launch.propagation, Some(Propagation::Private));
    assert_eq!(policy("--join mnt=/m").launch.propagation, None);
    assert_eq!(policy("-r").setgroups, Setgroups::FromMessage);
    assert_eq!(policy("--join user=/u").setgroups, Setgroups::DropIfAllowed);
    assert_eq!(policy("--join net=/n").setgroups, Setgroups::FromMessage);
    assert_eq!(policy("-r --setgroups deny").setgroups, Setgroups::Deny);
    assert_eq!(policy("--map-groups 0:200000:5 --setgroups allow").setgroups, Setgroups::Allow);
    assert_eq!(request("-r --setgroups allow", &root()).policy.setgroups, Setgroups::Allow);
    assert!(policy("--mount-proc").launch.mount_proc && !policy("-mp").launch.mount_proc);
    assert!(policy("-n --kill-child").launch.kill_child);
}

#[test]
fn root_without_cap_setgid_denies_setgroups() {
    let setgroups =
        |words, facts: Facts, caps| request(words, &Facts { capabilities: caps, ..facts }).policy.setgroups;
    const WITHOUT: Option<u64> = Some(!(1 << CAP_SETGID));
    assert_eq!(setgroups("", root(), WITHOUT), Setgroups::Deny);
    assert_eq!(setgroups("-r", root(), WITHOUT), Setgroups::Deny);
    assert_eq!(setgroups("-r", root(), Some(u64::MAX)), Setgroups::FromMessage);
    assert_eq!(setgroups("-r", root(), None), Setgroups::FromMessage);
    assert_eq!(setgroups("-n", root(), WITHOUT), Setgroups::FromMessage);
    assert_eq!(setgroups("-r --setgroups allow", root(), WITHOUT), Setgroups::Allow);
    assert_eq!(setgroups("--map-groups 0:5:5", root(), WITHOUT), Setgroups::FromMessage);
    // For an ordinary user, the message alone has this effect.
    assert_eq!(setgroups("-r", ann(), Some(0)), Setgroups::FromMessage);
}

#[test]
fn message_contains_all_requested_values() {
    let words = "-r --join net=/a:b --join ipc=/c --monotonic -3 --boottime 4 --oom-score-adj -10";
    let request = request(words, &ann());
    let message = request.bootstrap().unwrap();
    assert_eq!(message.namespaces().unwrap().text(), b"net:/a:b,ipc:/c");
    assert_eq!(message.timens_offsets().unwrap().text(), b"monotonic -3 0\nboottime 4 0\n");
    assert_eq!(message.oom_score_adj().unwrap().value(), -10);
    assert!(message.rootless_euid());
    assert_eq!(message.setgroup_present(), None);
}

/// The snapshot contains the error for each wrong use of the flags, as the user reads it.
#[test]
fn contradicting_flags_are_usage_errors() {
    let many: String = (0..341).map(|i| format!("--map-users {}:{}:1 ", i * 2, i * 2)).collect();
    let long: String = (0..200).map(|i| format!("--map-users {0}:{0}:1 ", 1_000_000_000 + i * 2)).collect();
    let mut out = String::new();
    for (who, facts, words) in [
        ("ann", ann(), "-n --join net=/n"),
        ("ann", ann(), "--mount-proc --join mount=/m"),
        ("ann", ann(), "--boottime 1 --join time=/t"),
        ("ann", ann(), "-r --join user=/u"),
        ("ann", ann(), "--join net=/a --join net=/b"),
        ("ann", ann(), "-n --setgroups deny"),
        ("ann", ann(), "-r --setgroups allow"),
        ("ann", ann(), "--join user=/u --setgroups deny"),
        ("ann", ann(), "--map-users 1:100000:1"),
        ("ann", ann(), "--map-groups 5:200000:1"),
        ("ann", ann(), "-c -S 5"),
        ("ann", ann(), "-r --map-users auto -G 70000"),
        ("ann", ann(), "--init --join pid=/p"),
        ("ann", ann(), "-R /srv -w x"),
        ("ann", ann(), "-R /srv --join mount=/m"),
        ("ann", ann(), "--mount-proc=/"),
        ("root", root(), "--map-users 0:0:10 --map-users 5:100:10"),
        ("root", root(), "--map-groups 0:0:10 --map-groups 10:5:1"),
        ("ann", ann(), "--map-users auto --map-users auto"),
        ("ann", ann(), "--map-users auto --map-users 7:5000:1"),
        ("bob", bob(), "--map-users auto"),
        ("bob", bob(), "--map-users subids"),
        (
            "bob",
            Facts { unread: [Some("/etc/subuid, line 3: why".to_owned()), None], ..bob() },
            "--map-users auto",
        ),
        ("bob", bob(), "--map-users 0:1000:1 --map-groups 0:0:10"),
        ("root", root(), "--map-users subids"),
        ("root", root(), &many),
        ("root", root(), &format!("-r {long}")),
    ] {
        let error = decide(&flags(words), &facts, &Dialect::V1_2).unwrap_err();
        let shown = if words.len() > 80 { "(very many --map-users)" } else { words };
        out += &format!("{who}: {shown}\n  {error}\n");
    }
    let refused = [
        "--mount-proc",
        "-r --kill-child",
        "-r --copy-memory",
        "-r --setgroups deny",
        "-r -S 0",
        "-r -G 0",
        "-c --keep-caps",
        "-m --propagation slave",
        "-n --no-loopback",
        "--init",
        "-R /",
        "-w /",
        "--net=/run/n",
    ];
    for words in refused {
        out += &format!(
            "encode {words}\n  {}\n",
            refuse_flags_without_attribute(&flags(words), &[]).unwrap_err()
        );
    }
    let kept = refuse_other_ids_than_root(&request("-c", &ann())).unwrap_err();
    out += &format!("encode -c\n  {kept}\n");
    out += &format!(
        "encode -r -- sh -c x\n  {}\n",
        refuse_flags_without_attribute(&flags("-r"), &["sh".into(), "-c".into()]).unwrap_err()
    );
    crate::testing::snapshot(|| insta::assert_snapshot!("cli_usage_errors", out));
}

#[test]
fn encode_accepts_implied_settings() {
    assert_eq!(refuse_flags_without_attribute(&flags(""), &[]), Ok(()));
    assert_eq!(refuse_flags_without_attribute(&flags("-UmpniuCT -r -f --boottime 1"), &[]), Ok(()));
}

#[test]
fn old_dialects_refuse_time_namespaces() {
    let decided = decide(&flags("--all"), &root(), &Dialect::V1_0).unwrap();
    assert!(!decided.created.contains(NsKind::Time));
    let refused = |words, dialect| decide(&flags(words), &root(), dialect).unwrap_err();
    for (words, flag) in
        [("--join time=/t", "--join time=…"), ("-T", "--time"), ("-r --boottime 1", "--boottime")]
    {
        for dialect in [&Dialect::SEED, &Dialect::V1_0, &Dialect::V1_1] {
            let text = format!("{flag}: dialect {dialect} does not support time namespaces; v1_2 does");
            assert_eq!(refused(words, dialect), Failure::Usage(text));
        }
    }
}

#[test]
fn missing_ids_and_tools_exit_1_and_not_2() {
    let status = |words, facts| match decide(&flags(words), &facts, &Dialect::V1_2).unwrap_err() {
        Failure::Usage(_) => 2,
        Failure::Other { status, .. } => status,
        Failure::Limited(_) => 1,
    };
    assert_eq!(status("--map-users auto", bob()), 1);
    assert_eq!(status("--map-users 0:5000:10", bob()), 1);
    assert_eq!(status("--map-users 5:5:5", ann()), 2);
}
