//! The id maps of a user namespace, and the permission to write them (user_namespaces(7),
//! docs/protocol.md#id-maps).

use std::string::String;
use std::vec::Vec;

use super::creds::{Creds, cap};
use super::kernel::Kernel;
use super::namespaces::NsId;
use nsexec::sys::types::{Errno, SysResult};

/// `UID_GID_MAP_MAX_EXTENTS`, since Linux 4.15.
const EXTENTS_MAX: usize = 340;
/// The size of a page: a map is written in one write of less than a page.
pub(super) const PAGE: usize = 4096;

/// One line of a map: `count` ids from `inside` on correspond to those from `outside` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

/// A map, whose outside ids are the kernel's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Map(Vec<Extent>);

/// The two maps of a user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ids {
    Users,
    Groups,
}

impl Map {
    /// Returns the map of the first user namespace, in which every id is mapped to itself.
    pub(super) fn identity() -> Self {
        Self(std::vec![Extent { inside: 0, outside: 0, count: u32::MAX }])
    }

    /// Returns a map with these lines: the first id inside, the first id of the kernel, and their number.
    pub(super) fn of(lines: &[(u32, u32, u32)]) -> Self {
        Self(lines.iter().map(|&(inside, outside, count)| Extent { inside, outside, count }).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the kernel's id for `id` of the namespace.
    pub(super) fn to_kernel(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|e| id.checked_sub(e.inside).filter(|n| *n < e.count).map(|n| e.outside + n))
    }

    /// Returns the namespace's id for the kernel's `id`.
    pub(super) fn shown_as(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|e| id.checked_sub(e.outside).filter(|n| *n < e.count).map(|n| e.inside + n))
    }

    /// Returns the kernel's first id of this range, if one extent contains the whole range.
    fn range_to_kernel(&self, first: u32, count: u32) -> Option<u32> {
        let last = first.checked_add(count - 1)?;
        let extent = self.0.iter().find(|e| e.inside <= first && last - e.inside < e.count)?;
        Some(extent.outside + (first - extent.inside))
    }

    /// Returns the text of the file for a reader whose user namespace has the map `reader`. The kernel sorts
    /// more than five extents by the inside id (`sort_idmaps`).
    pub(super) fn text(&self, reader: &Self) -> String {
        let mut extents = self.0.clone();
        if extents.len() > 5 {
            extents.sort_by_key(|extent| extent.inside);
        }
        let shown = |e: &Extent| {
            let outside = reader.shown_as(e.outside).unwrap_or(u32::MAX);
            std::format!("{:10} {:10} {:10}\n", e.inside, outside, e.count)
        };
        extents.iter().map(shown).collect()
    }
}

/// Parses a map's text as map_write does. Numbers are decimal and separated by blanks, empty lines are
/// invalid, and all bytes after a NUL are ignored.
fn parse(data: &[u8]) -> SysResult<Vec<Extent>> {
    let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut extents: Vec<Extent> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let extent = parse_line(line).ok_or(Errno::EINVAL)?;
        if extents.len() == EXTENTS_MAX || extents.iter().any(|old| overlap(old, &extent)) {
            return Err(Errno::EINVAL);
        }
        extents.push(extent);
    }
    Ok(extents)
}

fn parse_line(line: &[u8]) -> Option<Extent> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let mut words = line.split(blank).filter(|word| !word.is_empty());
    let mut number = || {
        let word = words.next()?;
        word.iter().all(u8::is_ascii_digit).then_some(())?;
        // simple_strtoul to a u32: a number that is too long wraps around.
        Some(word.iter().fold(0u64, |n, digit| n.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
            as u32)
    };
    let extent = Extent { inside: number()?, outside: number()?, count: number()? };
    let fits =
        |first: u32| first != u32::MAX && first.checked_add(extent.count).is_some_and(|end| end > first);
    (words.next().is_none() && fits(extent.inside) && fits(extent.outside)).then_some(extent)
}

fn overlap(one: &Extent, other: &Extent) -> bool {
    let meet = |a: u32, b: u32| a < b.saturating_add(other.count) && b < a.saturating_add(one.count);
    meet(one.inside, other.inside) || meet(one.outside, other.outside)
}

impl Kernel {
    /// Handles a write to uid_map or gid_map of the namespace `over`. `opener` are the credentials that
    /// opened the file, `writer` those of the writing process (proc_uid_map_write, map_write).
    pub(super) fn write_map(
        &mut self,
        (opener, writer): (&Creds, &Creds),
        over: NsId,
        ids: Ids,
        (offset, data): (usize, &[u8]),
    ) -> SysResult<usize> {
        let user = self.user(over);
        let parent = user.parent.ok_or(Errno::EPERM)?;
        if opener.user != over && opener.user != parent {
            return Err(Errno::EPERM);
        }
        if offset > 0 || data.len() >= PAGE {
            return Err(Errno::EINVAL);
        }
        // A map can be written only once.
        if !user.map(ids).is_empty() || !self.capable(opener, over, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let mut extents = parse(data)?;
        if !self.map_allowed((opener, writer), over, parent, ids, &extents) {
            return Err(Errno::EPERM);
        }
        for extent in &mut extents {
            let above = self.user(parent).map(ids);
            extent.outside = above.range_to_kernel(extent.outside, extent.count).ok_or(Errno::EPERM)?;
        }
        *self.user_mut(over).map_mut(ids) = Map(extents);
        Ok(data.len())
    }

    /// Returns whether the map is permitted (`new_idmap_permitted`). Either it consists of one id, which is
    /// the writer's own, or the writer has CAP_SETUID or CAP_SETGID in the parent namespace.
    fn map_allowed(
        &self,
        (opener, writer): (&Creds, &Creds),
        over: NsId,
        parent: NsId,
        ids: Ids,
        extents: &[Extent],
    ) -> bool {
        let user = self.user(over);
        // Since Linux 5.12, mapping the parent's root needs CAP_SETFCAP: file capabilities could be forged
        // through it (verify_root_map).
        if ids == Ids::Users && extents.iter().any(|extent| extent.outside == 0) {
            let may = match opener.user == over {
                true => user.parent_could_setfcap,
                false => self.capable(opener, parent, cap::SETFCAP),
            };
            if !may {
                return false;
            }
        }
        if let [Extent { outside, count: 1, .. }] = *extents {
            let own = match ids {
                Ids::Users => opener.euid(),
                // Without "deny" in setgroups, a process could drop a group that denies it access
                // (CVE-2014-8989).
                Ids::Groups => opener.egid(),
            };
            let denied = ids == Ids::Users || !user.setgroups;
            let kernel = self.user(parent).map(ids).to_kernel(outside);
            if user.owner_uid == opener.euid() && denied && kernel == Some(own) {
                return true;
            }
        }
        let capability = match ids {
            Ids::Users => cap::SETUID,
            Ids::Groups => cap::SETGID,
        };
        self.capable(writer, parent, capability) && self.capable(opener, parent, capability)
    }

    /// Handles a write to setgroups. "deny" is possible only before the group map is written, and "allow"
    /// only if setgroups was not denied (proc_setgroups_write).
    pub(super) fn write_setgroups(&mut self, over: NsId, data: &[u8]) -> SysResult<usize> {
        if data.len() >= 8 {
            return Err(Errno::EINVAL);
        }
        let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
        let user = self.user_mut(over);
        match text.trim_ascii_end() {
            b"allow" if !user.setgroups => Err(Errno::EPERM),
            b"allow" => Ok(data.len()),
            b"deny" if !user.gid_map.is_empty() => Err(Errno::EPERM),
            b"deny" => {
                user.setgroups = false;
                Ok(data.len())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
