//! The mounts at and below /sys, from the text of mountinfo (proc_pid_mountinfo(5)): before a launch that
//! mounts a new /sys.

use std::ffi::CString;
use std::format;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::vec::Vec;

use super::surroundings::NewSysfs;
use super::sysfs::KEPT_MAX;

/// The directories of sysfs that are always empty. A mount there covers nothing (`sysfs_create_mount_point`
/// in the kernel).
const EMPTY: [&str; 12] = [
    "/firmware/efi/efivars",
    "/fs/bpf",
    "/fs/cgroup",
    "/fs/fuse/connections",
    "/fs/pstore",
    "/fs/resctrl",
    "/fs/selinux",
    "/fs/smackfs",
    "/kernel/config",
    "/kernel/debug",
    "/kernel/security",
    "/kernel/tracing",
];

/// Reads the mounts at and below /sys of this process. `None`: no sysfs is mounted there, its mounts cannot
/// be read, or they are too many. Then /sys stays as it is.
#[must_use]
pub fn new_sysfs() -> Option<NewSysfs> {
    // The mount that a path lookup finds: others may be below it.
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/sys").ok()?;
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd())).ok()?;
    let id = fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    of_mountinfo(&fs::read_to_string("/proc/self/mountinfo").ok()?, id)
}

/// One line of mountinfo.
struct Line<'t> {
    id: &'t str,
    parent: &'t str,
    /// The part of the file system that the mount shows.
    root: &'t str,
    point: &'t str,
    options: &'t str,
    kind: &'t str,
    /// The options of the file system.
    super_options: &'t str,
}

impl<'t> Line<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (mount, file_system) = text.split_once(" - ")?;
        let mut words = mount.split(' ');
        let (id, parent, _) = (words.next()?, words.next()?, words.next()?);
        let (root, point, options) = (words.next()?, words.next()?, words.next()?);
        let mut words = file_system.split(' ');
        let (kind, _, super_options) = (words.next()?, words.next()?, words.next()?);
        Some(Self { id, parent, root, point, options, kind, super_options })
    }

    fn is_whole_sysfs(&self) -> bool {
        self.kind == "sysfs" && self.root == "/"
    }

    fn is_read_only(&self) -> bool {
        [self.options, self.super_options].iter().any(|options| has(options, "ro"))
    }
}

/// Decides from the text of mountinfo. `id`: that of the mount at /sys.
#[must_use]
pub fn of_mountinfo(text: &str, id: &str) -> Option<NewSysfs> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(Line::parse).collect();
    let present = lines.iter().find(|line| line.id == id)?;
    if !present.is_whole_sysfs() || present.point != "/sys" {
        return None;
    }
    let below = |line: &&Line<'_>| line.parent == id && line.point.starts_with("/sys/");
    let kept = lines.iter().filter(below).map(|line| CString::new(unescaped(line.point)).ok());
    let kept = kept.collect::<Option<Vec<_>>>().filter(|kept| kept.len() <= KEPT_MAX)?;
    let read_only = present.is_read_only();
    let covered = !lines.iter().any(|line| is_visible(line, &lines, read_only));
    Some(NewSysfs { read_only, kept, covered })
}

/// Returns whether the kernel counts this mount as a sysfs that is visible as a whole
/// (`mnt_already_visible`). The access times of the new mount are those of MS_RELATIME.
fn is_visible(line: &Line<'_>, all: &[Line<'_>], read_only: bool) -> bool {
    let covers = |child: &&Line<'_>| {
        let place = child.point.strip_prefix(line.point);
        child.parent == line.id && !place.is_some_and(|place| EMPTY.contains(&place))
    };
    line.is_whole_sysfs()
        && (read_only || !line.is_read_only())
        && has(line.options, "relatime")
        && !has(line.options, "nodiratime")
        && !all.iter().any(|child| covers(&child))
}

fn has(options: &str, name: &str) -> bool {
    options.split(',').any(|option| option == name)
}

/// Replaces the octal escapes of a path: `\040` is a space.
fn unescaped(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        // `from_str_radix` would take a sign, too.
        let digits = after.get(..3).filter(|digits| !digits.starts_with('+'));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(b'\\'));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec;

    use super::*;

    const SYS: &str = "23 27 0:22 / /sys rw,nosuid,relatime shared:2 - sysfs sysfs rw\n";

    fn read(text: &str, id: &str) -> Option<(bool, Vec<String>, bool)> {
        let shown = |path: &CString| String::from_utf8_lossy(path.to_bytes()).into_owned();
        of_mountinfo(text, id).map(|new| (new.read_only, new.kept.iter().map(shown).collect(), new.covered))
    }

    #[test]
    fn mounts_on_directories_of_sys_are_kept_with_those_below_them() {
        let text = format!(
            "{SYS}31 23 0:28 / /sys/fs/cgroup rw - tmpfs x rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup x rw\n\
             33 27 0:30 / /system rw - tmpfs x rw\n34 23 0:31 / /sys/kernel/debug rw - debugfs x rw\n"
        );
        let kept = ["/sys/fs/cgroup", "/sys/kernel/debug"].map(String::from).to_vec();
        assert_eq!(read(&text, "23"), Some((false, kept, false)));
    }

    #[test]
    fn a_mount_over_a_part_of_sys_covers_it() {
        let text = format!("{SYS}31 23 0:28 / /sys/firmware ro - tmpfs x ro\n");
        assert_eq!(read(&text, "23"), Some((false, vec!["/sys/firmware".into()], true)));
        let elsewhere = format!("{text}40 27 0:22 / /mnt rw,relatime - sysfs sysfs rw\n");
        assert!(!read(&elsewhere, "23").unwrap().2, "another sysfs is visible");
    }

    #[test]
    fn read_only_mount_and_file_system_are_read_only() {
        for text in [SYS.replace("rw,nosuid", "ro,nosuid"), SYS.replace("sysfs rw", "sysfs ro")] {
            assert_eq!(read(&text, "23"), Some((true, Vec::new(), false)));
        }
        assert!(read(&SYS.replace("relatime", "noatime"), "23").unwrap().2);
    }

    #[test]
    fn the_topmost_sys_counts() {
        let text = format!(
            "{SYS}31 23 0:28 / /sys/fs/cgroup rw - tmpfs x rw\n50 23 0:40 / /sys rw,relatime - sysfs sysfs rw\n\
             51 50 0:28 / /sys/fs/bpf rw - bpf x rw\n"
        );
        assert_eq!(read(&text, "50"), Some((false, vec!["/sys/fs/bpf".into()], false)));
    }

    #[test]
    fn sys_without_a_whole_sysfs_stays() {
        assert_eq!(read(&SYS.replace("0:22 /", "0:22 /class"), "23"), None);
        assert_eq!(read(&SYS.replace("- sysfs", "- tmpfs"), "23"), None);
        assert_eq!(read(SYS, "27"), None, "/sys is a directory of the root");
        assert_eq!(read("", "23"), None);
    }

    #[test]
    fn escapes_of_a_path_are_replaced() {
        assert_eq!(unescaped("/sys/a\\040b\\134\\"), b"/sys/a b\\\\");
        assert_eq!(unescaped("/sys/a\\+40\\777"), b"/sys/a\\+40\\777");
    }
}
