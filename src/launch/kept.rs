//! The descriptors of the launcher that the processes of a launch keep.

use std::vec::Vec;

use super::surroundings::{Base, MountStep, Move, Surroundings};
use crate::scripts::descriptors::FIRST;
use crate::sys::types::Fd;

/// Returns the descriptors above 2 that the processes of a launch use besides its pipes:
/// - the descriptors of the command, the Landlock rule set, and the `cgroup.procs` files;
/// - each NUMBER after `/fd/` in `texts` or `around`, as in the path `/proc/self/fd/NUMBER`.
///
/// Returns `None` if code of the caller runs in the command's process: the code may use any descriptor.
///
/// `texts` are two texts: the message, with the paths of namespaces and mapping tools, and the paths at which
/// the command's program is searched. A symbolic link to such a path is not followed. Called before the first
/// process of the launch exists, because it allocates memory.
#[must_use]
pub fn kept(
    texts: [&[u8]; 2],
    named: &[Fd],
    moves: &[Move],
    around: Option<&Surroundings>,
) -> Option<Vec<Fd>> {
    let mut kept: Vec<Fd> = named.iter().copied().chain(moves.iter().map(|one| one.fd)).collect();
    texts.into_iter().for_each(|text| add_paths(&mut kept, text));
    if let Some(around) = around {
        if around.hooks() > 0 {
            return None;
        }
        kept.extend(around.landlock);
        kept.extend(around.cgroups.iter().map(|cgroup| cgroup.fd));
        add_surroundings(&mut kept, around);
    }
    kept.retain(|fd| *fd >= FIRST);
    kept.sort_unstable();
    kept.dedup();
    Some(kept)
}

/// Adds the descriptors in the paths of the surroundings.
fn add_surroundings(kept: &mut Vec<Fd>, around: &Surroundings) {
    if let Some(directory) = &around.directory {
        add_paths(kept, directory.path.to_bytes());
    }
    let Some(root) = &around.root else { return };
    match &root.base {
        Base::Present | Base::Memory => {}
        Base::Opened { fd, .. } => kept.push(*fd),
        Base::Directory { path: text, .. }
        | Base::Chroot { path: text }
        | Base::Overlay { options: text } => {
            add_paths(kept, text.to_bytes());
        }
    }
    for step in &root.mounts {
        match step {
            MountStep::Bind { source: text, .. } | MountStep::New { options: text, .. } => {
                add_paths(kept, text.to_bytes());
            }
            MountStep::Devices { .. } | MountStep::MakeDirectory { .. } | MountStep::Link { .. } => {}
        }
    }
}

/// Adds each number that follows `/fd/` in the text.
fn add_paths(kept: &mut Vec<Fd>, mut text: &[u8]) {
    const BEFORE: &[u8] = b"/fd/";
    while let Some(at) = text.windows(BEFORE.len()).position(|part| part == BEFORE) {
        text = text.get(at..).and_then(|rest| rest.strip_prefix(BEFORE)).unwrap_or_default();
        // Other spellings of the same path.
        while let Some(rest) = text.strip_prefix(b"/").or_else(|| text.strip_prefix(b"./")) {
            text = rest;
        }
        let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let number = text.get(..end).and_then(|digits| core::str::from_utf8(digits).ok());
        kept.extend(number.and_then(|number| number.parse().ok()).map(Fd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::surroundings::{CgroupFile, Directory, Place, Root};
    use crate::sys::types::MountAttributes;

    fn fds(numbers: &[i32]) -> Vec<Fd> {
        numbers.iter().copied().map(Fd).collect()
    }

    #[test]
    fn descriptors_of_the_command_and_of_paths_are_kept() {
        let bind = |source: &core::ffi::CStr| MountStep::Bind {
            source: source.into(),
            point: Place::new(b"/mnt").unwrap(),
            attributes: MountAttributes::default(),
            recursive: false,
        };
        let around = Surroundings {
            landlock: Some(Fd(30)),
            cgroups: std::vec![CgroupFile { path: c"/sys/fs/cgroup/a".into(), fd: Fd(41) }],
            directory: Some(Directory { path: c"/proc/self/fd/.//31/a".into(), confined: false }),
            root: Some(Root {
                base: Base::Overlay { options: c"lowerdir=/proc/self/fd/32:/dev/fd/33".into() },
                mounts: std::vec![bind(c"/proc/self/fd/34"), bind(c"/srv/fd/x"), bind(c"/fd/99999999999")],
                by_chroot: false,
            }),
            ..Surroundings::default()
        };
        let texts = [&b"net:/proc/self/fd/20,user:/proc/self/fd/21\0/proc/7/fd/22"[..], b"/dev/fd/23\0/fd/"];
        let moves = [Move { fd: Fd(40), number: Fd(1) }];
        assert_eq!(
            kept(texts, &fds(&[9, 7, 1]), &moves, Some(&around)),
            Some(fds(&[7, 9, 20, 21, 22, 23, 30, 31, 32, 33, 34, 40, 41]))
        );
        assert_eq!(kept([b"", b""], &[], &[], None), Some(Vec::new()));
    }

    #[test]
    fn an_open_root_directory_is_kept() {
        let base = Base::Opened { path: c"/srv".into(), fd: Fd(35) };
        let around = Surroundings { root: Some(Root { base, ..Root::default() }), ..Surroundings::default() };
        assert_eq!(kept([b"", b""], &[], &[], Some(&around)), Some(fds(&[35])));
    }

    #[test]
    fn code_of_the_caller_keeps_all() {
        let around = Surroundings::default().with_idle_hooks(1);
        assert_eq!(kept([b"", b""], &[], &[], Some(&around)), None);
    }
}
