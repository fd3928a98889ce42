//! The root directory and the mounts of a command.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nsexec::launch::{Command, LaunchError};
use nsexec::namespace::NsKind;
use nsexec::sys::types::Propagation;

use crate::kit::{sh, stdout};

const KINDS: [NsKind; 5] = [NsKind::User, NsKind::Mnt, NsKind::Pid, NsKind::Net, NsKind::Ipc];

/// A directory that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("nsexec-command-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A shell with the caller's programs in an empty root directory.
fn boxed(script: &str) -> Command {
    let mut command = sh(script);
    command.unshare(KINDS).root_empty();
    for path in ["/usr", "/bin", "/lib", "/lib64", "/sbin"] {
        let path = Path::new(path);
        if let Ok(target) = fs::read_link(path) {
            command.symlink(target, path);
        } else if path.exists() {
            command.bind_read_only(path, path);
        }
    }
    command
}

#[test]
fn an_empty_root_has_what_was_mounted() {
    let folder = Folder::new();
    folder.file("given", "text\n");
    let mut command = boxed(
        "ls /; cat /work/given; echo new > /work/made; echo no > /usr/x || echo read-only; ls /proc | head -n 1; pwd",
    );
    command.bind(&folder.0, "/work").proc("/proc").dev("/dev").tmpfs("/tmp").current_dir("/work");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = ["dev", "proc", "tmp", "usr", "work", "text", "read-only", "1", "/work"];
    for name in names {
        assert!(
            text.lines().any(|line| line == name),
            "{name}: {text} {:?}",
            String::from_utf8(output.stderr)
        );
    }
    assert!(!text.lines().any(|line| line == "etc" || line == "root"), "{text}");
    assert_eq!(fs::read_to_string(folder.path("made")).unwrap(), "new\n");
    // The host sees no mount.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("nsexec-command"), "{mounts}");
}

#[test]
fn a_minimal_dev_works() {
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && test -c /dev/tty && test -c /dev/urandom \
                  && readlink /dev/stdin && readlink /dev/ptmx && touch /dev/shm/a && ls /dev";
    let mut command = boxed(script);
    command.proc("/proc").dev("/dev");
    let text = stdout(&mut command);
    for line in ["3", "/proc/self/fd/0", "pts/ptmx", "full", "random"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

/// The lab runs this test on a kernel without POSIX message queues.
#[test]
fn message_queues_are_mounted_or_the_kernel_is_named() {
    let mut command = boxed("stat -f -c %t /queues");
    command.mqueue("/queues");
    if fs::read_to_string("/proc/filesystems").unwrap().lines().any(|line| line.ends_with("\tmqueue")) {
        // MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
        assert_eq!(stdout(&mut command), "19800202");
        return;
    }
    let text = command.output().unwrap_err().to_string();
    assert!(text.contains("failed to mount on /queues: No such device"), "{text}");
    assert!(text.contains("this kernel does not have the file system"), "{text}");
}

#[test]
fn the_callers_root_is_read_only_with_a_writable_folder() {
    let folder = Folder::new();
    let script =
        format!("echo no > /etc/x 2>/dev/null || echo refused; echo yes > {}/made", folder.0.display());
    let mut command = sh(&script);
    command.unshare(KINDS).root_read_only("/").bind(&folder.0, &folder.0).proc("/proc");
    assert_eq!(stdout(&mut command), "refused");
    assert_eq!(fs::read_to_string(folder.path("made")).unwrap(), "yes\n");
}

#[test]
fn a_directory_is_the_root() {
    let folder = Folder::new();
    folder.directory("usr");
    folder.file("marker", "");
    symlink("usr/bin", folder.path("bin")).unwrap();
    symlink("usr/lib", folder.path("lib")).unwrap();
    symlink("usr/lib64", folder.path("lib64")).unwrap();
    for by_chroot in [false, true] {
        let mut command = sh("test -e /marker && echo /*");
        command.unshare(KINDS).root(&folder.0).bind_read_only("/usr", "/usr");
        if by_chroot {
            command.chroot_in_place_of_pivot();
        }
        assert_eq!(stdout(&mut command), "/bin /lib /lib64 /marker /usr");
    }
}

#[test]
fn files_are_mounted_and_mount_points_are_created() {
    let folder = Folder::new();
    let file = folder.file("file", "content");
    let mut command = boxed("cat /a/b/c; test -d /d/e && readlink /d/link; stat -c %a /d/e");
    command.bind(&file, "/a/b/c").create_dir("/d/e", 0o700).symlink("/to", "/d/link");
    assert_eq!(stdout(&mut command), "content/to\n700");
}

/// A symbolic link below the root directory leads to a place below it.
#[test]
fn links_of_the_root_do_not_lead_out_of_it() {
    let folder = Folder::new();
    let outside = Folder::new();
    let root = folder.directory("root");
    for name in ["usr", "inside"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    symlink(&outside.0, root.join("absolute")).unwrap();
    symlink("../../../../../../inside", root.join("upwards")).unwrap();
    let given = folder.file("given", "given\n");
    let mut command = sh("cat /inside/new");
    command.unshare(KINDS).root(&root).bind_read_only("/usr", "/usr").bind(&given, "/upwards/new");
    assert_eq!(stdout(&mut command), "given");
    // The kernel answers EAGAIN for `..` while any process renames a file.
    while_files_are_renamed(&folder, || {
        for _ in 0..20 {
            assert_eq!(stdout(&mut command), "given");
        }
    });
    let mut command = sh("");
    command.unshare(KINDS).root(&root).bind_read_only("/usr", "/usr").bind(&given, "/absolute/new");
    // The link is followed below the root directory, where it leads to nothing.
    let error = command.spawn().unwrap_err().to_string();
    assert!(error.contains("the mount point /absolute/new"), "{error}");
    assert_eq!(fs::read_dir(&outside.0).unwrap().count(), 0);
}

/// Calls a function while a thread renames a file, again and again.
fn while_files_are_renamed(folder: &Folder, run: impl FnOnce()) {
    let [one, other] = [folder.file("renamed", ""), folder.0.join("again")];
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                fs::rename(&one, &other).unwrap();
                fs::rename(&other, &one).unwrap();
            }
        });
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
        ran.unwrap();
    });
}

/// In the root directory, and in a directory that is mounted below it: nothing is created, removed or mounted
/// outside of the root directory. CVE-2025-54867 (youki): /proc is a link. CVE-2026-41579 (runc),
/// CVE-2026-47766 (crun): /dev is a link to the host. CVE-2026-87766 (bubblewrap): a mounted directory has a
/// link to the host.
#[test]
fn nothing_is_created_outside_of_the_root_through_its_links() {
    let folder = Folder::new();
    let outside = Folder::new();
    outside.file("ptmx", "kept\n");
    let root = folder.directory("root");
    for name in ["usr", "proc", "mounted"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    symlink(&outside.0, root.join("dev")).unwrap();
    symlink("../../../../../../../../proc/1/root", root.join("upwards")).unwrap();
    let given = folder.directory("given");
    symlink(&outside.0, given.join("absolute")).unwrap();
    symlink("/oldroot", given.join("old")).unwrap();
    let prepared = || {
        let mut command = sh("true");
        command.unshare(KINDS).root(&root).bind_read_only("/usr", "/usr").proc("/proc");
        command.bind(&given, "/mounted");
        command
    };
    assert_eq!(stdout(&mut prepared()), "");
    type Attempt<'a> = (&'a str, &'a dyn Fn(&mut Command));
    let attempts: [Attempt<'_>; 8] = [
        ("proc", &|command| _ = command.proc("/dev")),
        ("dev", &|command| _ = command.dev("/dev")),
        ("tmpfs", &|command| _ = command.tmpfs("/dev/shm")),
        ("link", &|command| _ = command.symlink("x", "/dev/stdin")),
        ("directory", &|command| _ = command.create_dir("/mounted/absolute/new", 0o755)),
        ("old root", &|command| _ = command.create_dir("/mounted/old/new", 0o755)),
        ("mount point", &|command| _ = command.bind(&given, "/mounted/absolute/new/deep")),
        ("magic link", &|command| _ = command.create_dir("/upwards/tmp/nsexec-escaped", 0o755)),
    ];
    for (name, add) in attempts {
        let mut command = prepared();
        add(&mut command);
        let error = command.spawn().map(|_| ()).expect_err(name).to_string();
        println!("{name}: {error}");
        let names: Vec<_> =
            fs::read_dir(&outside.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["ptmx"], "{name}: {error}");
        assert_eq!(fs::read_to_string(outside.path("ptmx")).unwrap(), "kept\n", "{name}");
        assert!(!Path::new("/tmp/nsexec-escaped").exists(), "{name}: {error}");
    }
}

#[test]
fn the_old_root_is_gone() {
    let mut command = boxed("cd /..; ls -d /etc /root 2>/dev/null; cat /proc/self/mounts | wc -l");
    command.proc("/proc");
    let text = stdout(&mut command);
    assert!(text.trim().parse::<u32>().unwrap() < 20, "{text}");
}

#[test]
fn the_working_directory_stays_below_the_root() {
    let outside = fs::File::open("/etc").unwrap();
    let mut command = boxed("");
    command.proc("/proc").fd(9, outside).current_dir("/proc/self/fd/9");
    let error = command.spawn().unwrap_err().to_string();
    assert!(error.contains("failed to change to the directory /proc/self/fd/"), "{error}");
    let error = boxed("").current_dir("usr").spawn().unwrap_err().to_string();
    assert!(error.contains("must be absolute"), "{error}");
}

#[test]
fn mounts_without_a_root_are_over_the_callers_tree() {
    let folder = Folder::new();
    folder.file("file", "");
    let mut command = sh("ls /mnt; pwd");
    command.unshare(KINDS).bind(&folder.0, "/mnt").current_dir("/usr");
    assert_eq!(stdout(&mut command), "file\n/usr");
    let mut command = sh("ls /mnt | wc -l");
    assert_eq!(stdout(command.unshare(KINDS).tmpfs("/mnt")), "0");
}

#[test]
fn settings_that_cannot_work_are_found_before_any_process() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    let refused = |command: &mut Command| match command.spawn().unwrap_err() {
        LaunchError::Setting(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let text = refused(sh("").unshare(KINDS).root("/no/such/root"));
    assert!(text.contains("/no/such/root: No such file or directory"), "{text}");
    let text = refused(sh("").unshare(KINDS).root(&file));
    assert!(text.contains("Not a directory"), "{text}");
    let text = refused(sh("").unshare(KINDS).bind("/no/such/source", "/mnt"));
    assert!(text.contains("failed to bind /no/such/source"), "{text}");
    for path in ["relative", "/a/../b", "/"] {
        let text = refused(sh("").unshare(KINDS).bind("/usr", path));
        assert!(text.contains("must be absolute"), "{text}");
    }
    let text = refused(sh("").tmpfs("/mnt"));
    assert!(text.contains("needs a new mnt namespace"), "{text}");
    let text = refused(sh("").propagation(Some(Propagation::Private)));
    assert!(text.contains("propagation needs a new mnt namespace"), "{text}");
    let text = refused(sh("").unshare(KINDS).root("/").propagation(Some(Propagation::Shared)));
    assert!(text.contains("pivot_root(2)"), "{text}");
    let mut chroot = sh("");
    chroot.unshare(KINDS).root_empty().chroot_in_place_of_pivot();
    assert!(refused(chroot.propagation(None)).contains("would reach the host"));
    assert!(
        refused(sh("").unshare(KINDS).chroot_in_place_of_pivot()).contains("no root directory of its own")
    );
    let long = format!("mode=755,{}", "size=1m,".repeat(600));
    assert!(refused(sh("").unshare(KINDS).tmpfs_with("/mnt", long)).contains("more than 4094 bytes"));
    let mut joining = sh("");
    joining.join(NsKind::Mnt, "/proc/self/ns/mnt").bind("/usr", "/mnt");
    assert!(refused(&mut joining).contains("would be looked up in that namespace"));
    let mut command = sh("");
    command.unshare(KINDS);
    for number in 0..300 {
        command.bind("/usr", format!("/mnt/{number}"));
    }
    assert!(refused(&mut command).contains("more than 256 mounts"));
}

#[test]
fn a_file_over_a_directory_names_both() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    let error = sh("").unshare(KINDS).bind(&file, "/usr").spawn().unwrap_err().to_string();
    assert!(error.contains("failed to mount on /usr"), "{error}");
    let error = boxed("").bind(&file, "/usr/made").spawn().unwrap_err().to_string();
    assert!(error.contains("the mount point /usr/made: Read-only file system"), "{error}");
}

/// The mounts belong to the command's mount namespace, so only capabilities there could undo them.
#[test]
fn command_without_capabilities_cannot_make_its_tree_writable() {
    let script = "mount -o remount,bind,rw / 2>/dev/null; umount /tmp 2>/dev/null; touch /usr/made 2>&1 | grep -c Read-only; \
                  ls /tmp | wc -l";
    let mut command = sh(script);
    command.unshare(KINDS).root_read_only("/").tmpfs("/tmp").capabilities([]).no_new_privs();
    assert_eq!(stdout(&mut command), "1\n0");
}

#[test]
fn device_files_of_the_root_directory_cannot_be_opened() {
    let output = sh("cat < /dev/null").unshare(KINDS).root_read_only("/").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    assert!(sh("cat < /dev/null").unshare(KINDS).root_read_only("/").dev("/dev").status().unwrap().success());
}
