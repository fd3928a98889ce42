//! `nsexec pin`: namespaces without a process, and their release.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::harness::{BOTH, ROOT, Test, test};
use crate::kit::{Cmd, Ctx};

pub(crate) const TESTS: &[Test] = &[
    test!(pinned_namespaces_are_entered_and_released, BOTH),
    test!(directory_may_have_any_name, BOTH),
    test!(map_auto_is_kept, ROOT),
    test!(host_name_and_clocks_are_kept, BOTH),
    test!(veth_end_is_moved_to_a_pin, BOTH),
    test!(existing_directory_and_files_are_kept, BOTH),
    test!(release_leaves_foreign_files, BOTH),
    test!(failure_in_the_middle_leaves_nothing, BOTH),
    test!(mount_without_permission_is_explained, BOTH),
    test!(impossible_pins_are_wrong_usage, BOTH),
    test!(plan_of_a_pin_has_no_effects, BOTH),
];

/// Runs a shell script in a user and a mount namespace of its own, where the caller may mount. `$N` is the
/// program. The mounts end with the script.
fn script<'c>(ctx: &'c Ctx, text: &str) -> Cmd<'c> {
    ctx.nsexec(["run", "-r", "-m", "-n", "--", "sh", "-euc", text]).env("N", &ctx.bin)
}

fn pinned_namespaces_are_entered_and_released(ctx: &Ctx) {
    let text = "
        for round in 1 2; do
            $N pin -r -n -i -u -C pins
            ls pins
            grep -c nsfs /proc/self/mountinfo
            inside=$($N enter --user=pins/user --net=pins/net --uts=pins/uts --ipc=pins/ipc -- \\
                sh -c 'readlink /proc/self/ns/net; id -u; ip -br link show lo 2>/dev/null | grep -c UP || :')
            [ $(echo $inside | cut -d' ' -f1) = net:[$(stat -c %i pins/net)] ]
            echo $inside | cut -d' ' -f2
            $N pin --release pins
            ! test -e pins
            grep -c nsfs /proc/self/mountinfo || :
        done";
    let once = "cgroup\nipc\nnet\nuser\nuts\n5\n0\n0\n";
    assert_eq!(script(ctx, text).ok(), format!("{once}{once}"));
}

/// A message separates its paths by commas.
fn directory_may_have_any_name(ctx: &Ctx) {
    for name in ["a,b", "a b:c", "-x", "a\nb"] {
        let text = "
            $N pin -n -- \"$1\"
            inside=$($N enter --net=\"./$1/net\" -- readlink /proc/self/ns/net)
            [ $inside = net:[$(stat -c %i \"./$1/net\")] ]
            $N plan enter --net=\"./$1/net\" -- true > plan
            grep -q 'verdict  *the command runs' plan
            $N pin --release -- \"$1\"
            ! test -e \"./$1\"";
        let args = ["run", "-r", "-m", "-n", "--", "sh", "-euc", text, "sh", name];
        assert_eq!(ctx.nsexec(args).env("N", &ctx.bin).ok(), "", "{name}");
    }
}

fn map_auto_is_kept(ctx: &Ctx) {
    let pins = ctx.file("pins");
    let pins = pins.to_str().unwrap();
    assert_eq!(ctx.nsexec(["pin", "-n", "--map-auto", pins]).ok(), "");
    let user = format!("--user={pins}/user");
    let map = ctx.nsexec(["enter", &user, "--", "cat", "/proc/self/uid_map"]).done();
    let direct = ctx.nsexec(["run", "--map-auto", "--", "cat", "/proc/self/uid_map"]).done();
    assert_eq!(ctx.nsexec(["pin", "--release", pins]).ok(), "");
    assert_eq!(map.ok(), direct.ok());
    assert!(!ctx.file("pins").exists());
}

fn host_name_and_clocks_are_kept(ctx: &Ctx) {
    let text = "
        $N pin -r -u --boottime 86400 pins
        $N enter --user=pins/user --time=pins/time --uts=pins/uts -- hostname kept
        $N enter --user=pins/user --time=pins/time --uts=pins/uts -- sh -c 'hostname; grep boot /proc/self/timens_offsets'
        $N pin --release pins";
    let text = script(ctx, text).ok();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["kept", "boottime", "86400", "0"]);
}

fn veth_end_is_moved_to_a_pin(ctx: &Ctx) {
    ctx.needs("ip");
    let text = "
        $N pin -n pins
        ip link add outside type veth peer name inside || { $N pin --release pins; echo no veth; exit 0; }
        # ip(8) takes a name of /run/netns, or a path.
        ip link set inside netns $PWD/pins/net
        $N enter --net=pins/net -- ip -o link show dev inside
        $N pin --release pins";
    let done = script(ctx, text).done();
    if done.text().starts_with("no veth") {
        ctx.skip("needs veth devices");
    }
    assert!(done.ok().contains("inside@"));
}

fn existing_directory_and_files_are_kept(ctx: &Ctx) {
    fs::create_dir(ctx.file("pins")).unwrap();
    fs::write(ctx.file("pins").join("notes"), "mine").unwrap();
    let text = "$N pin -n pins; ls pins; ! $N pin -n pins 2>err; cat err; stat -f -c %T pins/net
        $N pin -u pins; $N pin --release pins 2>err; cat err; ls pins";
    let text = script(ctx, text).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["net", "notes"], "{text}");
    assert!(lines[2].contains("pins/net") && lines[2].contains("File exists"), "{text}");
    assert_eq!(lines[3], "nsfs", "{text}");
    assert!(lines[4].contains("stays"), "{text}");
    assert_eq!(lines[5..], ["notes"], "{text}");
    assert_eq!(fs::read_to_string(ctx.file("pins").join("notes")).unwrap(), "mine");
}

fn release_leaves_foreign_files(ctx: &Ctx) {
    let pins = ctx.file("pins");
    fs::create_dir(&pins).unwrap();
    fs::write(pins.join("net"), "text").unwrap();
    fs::write(pins.join("ipc"), "").unwrap();
    symlink("/etc/hostname", pins.join("uts")).unwrap();
    fs::create_dir(pins.join("user")).unwrap();
    let release = || ctx.nsexec(["pin", "--release", "pins"]).done();
    let done = release();
    done.exits(0);
    assert!(done.err.contains("no namespace is pinned there"), "{}", done.err);
    let mut names: Vec<_> = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ipc", "net", "user", "uts"]);
    // A mount of another file system stays.
    let text = "mount -t tmpfs none pins/user; $N pin --release pins 2>err; stat -f -c %T pins/user";
    assert_eq!(script(ctx, text).ok(), "tmpfs\n");
    // A namespace on a file that no pin has created stays too, and one above a pin does not.
    let text = "
        mkdir other; touch other/net; chmod 600 other/net
        $N run -f --net=other/net -- true; $N pin -n more; mount --bind /proc/self/ns/net more/net
        $N pin --release other 2>err; $N pin --release more
        stat -f -c %T other/net; cat err; ! test -e more";
    assert_eq!(script(ctx, text).ok(), "nsfs\nnsexec: other: no namespace is pinned there\n");
    for missing in ["missing", "missing/folder"] {
        let done = ctx.nsexec(["pin", "--release", missing]).done();
        done.exits(0);
        assert!(done.err.contains("no namespace is pinned there"), "{}", done.err);
    }
    ctx.nsexec(["pin", "--release", "pins/net"]).refused(1, &["pins/net", "Not a directory"]);
}

/// The second mount of three fails. A file of another kind exists already.
fn failure_in_the_middle_leaves_nothing(ctx: &Ctx) {
    ctx.needs("strace");
    let text = "
        mkdir old; touch old/mine
        for pins in new old; do
            ! strace -f -o /dev/null -e inject=move_mount:error=EIO:when=2 $N pin -u -n -C $pins 2>>err
            echo $(grep -c nsfs /proc/self/mountinfo) $(ls -d new old 2>/dev/null) $(ls old)
        done
        touch old/uts
        ! $N pin -u -n -C old 2>>err
        echo $(grep -c nsfs /proc/self/mountinfo) $(ls old)
        ! $N pin -n no/such 2>>err
        ! $N pin -n err 2>>err
        cat err >&2";
    let done = script(ctx, text).done();
    done.exits(0);
    assert_eq!(done.text(), "0 old mine\n0 old mine\n0 mine uts\n", "{}", done.err);
    let lines: Vec<_> = done.err.lines().collect();
    let words = [
        ["/new/net", "Input/output error"],
        ["/old/net", "Input/output error"],
        ["/old/uts", "File exists"],
        ["no/such", "No such file"],
        ["/err", "Not a directory"],
    ];
    assert_eq!(lines.len(), words.len(), "{}", done.err);
    for (line, words) in lines.iter().zip(words) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}

fn mount_without_permission_is_explained(ctx: &Ctx) {
    if ctx.root() {
        let args = ["run", "-f", "-U", "--map-users", "0:0:1", "--map-groups", "0:0:1", "--"];
        let bin = ctx.bin.to_str().unwrap();
        let args = args.into_iter().chain([bin, "pin", "-n", "pins"]);
        ctx.nsexec(args).refused(1, &["pins/net", "Operation not permitted", "run -r -m"]);
    } else {
        ctx.nsexec(["pin", "-r", "-n", "pins"])
            .refused(1, &["pins/", "Operation not permitted", "run -r -m"]);
        fs::create_dir(ctx.file("folder")).unwrap();
        fs::set_permissions(ctx.file("folder"), fs::Permissions::from_mode(0o555)).unwrap();
        ctx.nsexec(["pin", "-r", "-n", "folder/pins"]).refused(1, &["folder/pins", "Permission denied"]);
    }
    assert!(!ctx.file("pins").exists());
}

fn impossible_pins_are_wrong_usage(ctx: &Ctx) {
    ctx.nsexec(["pin", "pins"]).misused(&["name the namespaces"]);
    ctx.nsexec(["pin", "-p", "pins"]).misused(&["--pid", "process 1"]);
    ctx.nsexec(["pin", "--release", "-n", "pins"]).misused(&["--release", "leave out"]);
    assert!(!ctx.file("pins").exists());
}

fn plan_of_a_pin_has_no_effects(ctx: &Ctx) {
    let text = "$N plan pin -r -n -u pins; ! test -e pins";
    let plan = script(ctx, text).ok();
    assert!(plan.contains("the namespaces stay on their files"), "{plan}");
    assert!(plan.contains("/ns/net\"") && !plan.contains("execve("), "{plan}");
}
