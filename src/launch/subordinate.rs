//! The map of ids of a new user namespace: which lines it has, and which program may write it. Reads the
//! caller's ids and subordinate ids: not part of the bootstrap, and in no record.

use std::borrow::ToOwned;
use std::env;
use std::ffi::{CString, OsStr};
use std::format;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

use nix::unistd::{User, getegid, geteuid, getuid};

use super::causes::{Distribution, Facts};
use super::getsubids;
use super::query::lacks_capability;
pub(super) use super::ranges::Side;
pub use super::ranges::{Range, in_order};
use super::setting::SettingError;
use crate::deciders::idmap::{EXTENTS_MAX, Extent, IdMap, MAP_TEXT_MAX};
use crate::sys::types::Errno;

/// The ids that a new user namespace maps.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mapping {
    /// The caller's own id becomes id 0. Nothing else is mapped. No privileges are needed.
    Root,
    /// The caller's own id stays the same. Nothing else is mapped. No privileges are needed.
    CurrentUser,
    /// The caller's own id becomes id 0, and its subordinate ids (subuid(5)) follow from id 1 on. A caller
    /// that is not root needs newuidmap(1) and newgidmap(1).
    Auto,
    /// These ranges. A caller that is not root needs newuidmap(1) and newgidmap(1), unless one range maps its
    /// own id alone.
    Ranges(Vec<Extent>),
}

/// A map that is ready for the bootstrap message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Map {
    pub(super) text: CString,
    pub(super) extents: Vec<Extent>,
    /// Whether the caller's own id is mapped.
    pub(super) maps_own: bool,
    /// The tool that writes it, if the caller may not.
    pub(super) tool: Option<CString>,
    /// Whether the caller lacks the capability to write any map (CAP_SETUID, CAP_SETGID).
    pub(super) lacks_capability: bool,
    /// Whether the caller's own user namespace denies setgroups(2).
    pub(super) setgroups_denied: bool,
}

impl Map {
    /// Returns whether an id inside is mapped.
    pub(super) fn maps(&self, id: u32) -> bool {
        self.extents
            .iter()
            .any(|extent| id.checked_sub(extent.inside).is_some_and(|above| above < extent.count))
    }
}

/// The user that launches a command, as far as the maps of ids depend on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The facts of a caller that is not this process. `None` for this process: they are read when a map
    /// needs them.
    pub stated: Option<StatedCaller>,
}

/// The facts of a caller that is not this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatedCaller {
    /// The subordinate user ids.
    pub subuids: Vec<Range>,
    /// The subordinate group ids.
    pub subgids: Vec<Range>,
    /// The user id map of the caller's own user namespace. Empty: the kernel decides.
    pub users: Vec<Extent>,
    /// Its group id map.
    pub groups: Vec<Extent>,
    /// Whether that user namespace denies setgroups(2).
    pub setgroups_denied: bool,
}

impl Caller {
    /// Returns this process.
    #[must_use]
    pub fn here() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), stated: None }
    }

    /// Returns whether the effective user id is not 0: then the kernel accepts only a map of the own id.
    pub(super) const fn is_rootless(&self) -> bool {
        self.uid != 0
    }

    /// Returns whether the caller lacks the capability for maps of this side. A stated caller has root's.
    pub(super) fn lacks_capability(&self, side: Side) -> bool {
        self.is_rootless() || self.stated.is_none() && lacks_capability(side.capability().0)
    }

    /// Returns whether the caller's own user namespace denies setgroups(2). Then every one below it does
    /// (user_namespaces(7)).
    fn setgroups_denied(&self) -> bool {
        match &self.stated {
            None => fs::read("/proc/self/setgroups").is_ok_and(|word| word.starts_with(b"deny")),
            Some(stated) => stated.setgroups_denied,
        }
    }

    fn own_id(&self, side: Side) -> u32 {
        match side {
            Side::Users => self.uid,
            Side::Groups => self.gid,
        }
    }

    fn ranges(&self, side: Side) -> Result<Vec<Range>, SettingError> {
        match (&self.stated, side) {
            (None, side) => subordinate_ranges(side),
            (Some(stated), Side::Users) => Ok(stated.subuids.clone()),
            (Some(stated), Side::Groups) => Ok(stated.subgids.clone()),
        }
    }

    /// Returns the map of the caller's own user namespace.
    fn parents(&self, side: Side) -> Vec<Extent> {
        let (.., parent) = side.names();
        match (&self.stated, side) {
            // Without a /proc the kernel decides.
            (None, _) => fs::read_to_string(parent).map(|text| extents_of(&text)).unwrap_or_default(),
            (Some(stated), Side::Users) => stated.users.clone(),
            (Some(stated), Side::Groups) => stated.groups.clone(),
        }
    }

    /// Returns the facts that explain why the caller cannot map its ids.
    fn facts(&self) -> Facts {
        if self.stated.is_none() {
            return Facts::read();
        }
        let mut facts = Facts::default();
        (facts.vantage.uid, facts.vantage.gid) = (self.uid, self.gid);
        facts
    }

    /// Returns the path of a mapping tool. On another machine it is the usual one.
    fn tool(&self, side: Side) -> Result<CString, SettingError> {
        match (&self.stated, side) {
            (None, side) => find_tool(side.names().1, side),
            (Some(_), Side::Users) => Ok(c"/usr/bin/newuidmap".into()),
            (Some(_), Side::Groups) => Ok(c"/usr/bin/newgidmap".into()),
        }
    }
}

/// Builds the map of one side.
///
/// # Errors
/// [`SettingError::Map`], with the reason and what to do.
pub(super) fn map(mapping: &Mapping, side: Side, caller: &Caller) -> Result<Map, SettingError> {
    let own = caller.own_id(side);
    let extents = match mapping {
        Mapping::Root => [Extent { inside: 0, outside: own, count: 1 }].into(),
        Mapping::CurrentUser => [Extent { inside: own, outside: own, count: 1 }].into(),
        Mapping::Auto => {
            let first = Extent { inside: 0, outside: own, count: 1 };
            let ranges = caller.ranges(side)?;
            let lines: Vec<_> = core::iter::once(first).chain(in_order(&ranges, own)).collect();
            if lines.len() == 1 {
                let why = caller.facts().no_range(side == Side::Groups).to_string();
                return Err(SettingError::Map { why });
            }
            split(&lines, &caller.parents(side), side)?
        }
        Mapping::Ranges(ranges) => split(ranges, &caller.parents(side), side)?,
    };
    let text = text_of(&extents, side)?;
    let alone = matches!(extents.as_slice(), [one] if one.count == 1 && one.outside == own);
    let lacks_capability = caller.lacks_capability(side);
    let tool = match lacks_capability && !alone {
        true => Some(caller.tool(side)?),
        false => None,
    };
    let is_own = |extent: &Extent| own.checked_sub(extent.outside).is_some_and(|above| above < extent.count);
    let maps_own = extents.iter().any(is_own);
    let setgroups_denied = side == Side::Groups && caller.setgroups_denied();
    Ok(Map { text, extents, maps_own, tool, lacks_capability, setgroups_denied })
}

/// Returns the text of a map that the kernel accepts.
fn text_of(extents: &[Extent], side: Side) -> Result<CString, SettingError> {
    let refused = |why: String| SettingError::Map { why: format!("the map of {} ids: {why}", side.noun()) };
    let text: String = extents.iter().map(|extent| format!("{extent}\n")).collect();
    if extents.len() > EXTENTS_MAX || text.len() > MAP_TEXT_MAX {
        return Err(refused(format!(
            "{} lines of {} bytes in all, the kernel accepts at most {EXTENTS_MAX} lines and {MAP_TEXT_MAX} bytes",
            extents.len(),
            text.len()
        )));
    }
    let text = CString::new(text).map_err(|error| refused(error.to_string()))?;
    match IdMap::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Returns the caller's subordinate ids: as getsubids(1) reports them, which asks the name services as
/// newuidmap does, otherwise from the file. Like the mapping tools, it is searched in the absolute
/// directories of PATH alone.
pub(super) fn subordinate_ranges(side: Side) -> Result<Vec<Range>, SettingError> {
    let uid = getuid();
    let (name, unknown) = match account(uid) {
        Ok(user) => (user.map(|user| user.name), None),
        Err(errno) => (None, Some(errno)),
    };
    let (file, ..) = side.names();
    let asked = name.as_ref().zip(find_program("getsubids"));
    let listed = asked.and_then(|(name, program)| getsubids::output(&program, name, side == Side::Groups));
    if let Some(listed) = listed {
        return Ok(ranges_of_tool(&listed));
    }
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let why = format!("failed to read {file}, which lists the subordinate ids: {error}");
            return Err(SettingError::Map { why });
        }
    };
    let ranges = ranges_of_file(&String::from_utf8_lossy(&text), name.as_deref(), uid.as_raw())
        .map_err(|(line, what)| SettingError::Map { why: format!("{file}, line {line}: {what}") })?;
    match unknown {
        // The file may have a range for the name, which is unknown.
        Some(errno) if ranges.is_empty() => {
            let errno = Errno(errno as i32);
            let why = format!("failed to look up the account of the user id {uid} (getpwuid(3)): {errno}");
            Err(SettingError::Map { why })
        }
        _ => Ok(ranges),
    }
}

/// Returns the account of a user id; `None` if it has none.
fn account(uid: nix::unistd::Uid) -> nix::Result<Option<User>> {
    loop {
        match User::from_uid(uid) {
            Err(nix::errno::Errno::EINTR) => {}
            found => return found,
        }
    }
}

/// Returns the caller's subordinate user ids, or with `groups` the group ids. Empty if the user has none.
///
/// # Errors
/// The file, the line and what is wrong with it; or why the file cannot be read.
#[doc(hidden)]
pub fn ranges_of_caller(groups: bool) -> Result<Vec<Range>, String> {
    subordinate_ranges(Side::of(groups)).map_err(|error| error.to_string())
}

/// Returns the map of the caller's own user namespace: of user ids, or with `groups` of group ids. It is
/// empty without a /proc.
#[doc(hidden)]
#[must_use]
pub fn map_of_caller(groups: bool) -> Vec<Extent> {
    Caller::here().parents(Side::of(groups))
}

/// Splits a line at the borders of the caller's own map: see `split`.
///
/// # Errors
/// An id outside is not mapped in the caller's own user namespace.
#[doc(hidden)]
pub fn split_at_borders(line: Extent, own_map: &[Extent], groups: bool) -> Result<Vec<Extent>, String> {
    let side = Side::of(groups);
    split(&[line], own_map, side).map_err(|error| error.to_string())
}

/// Returns the ranges in the output of getsubids(1): `0: ann 100000 65536`.
fn ranges_of_tool(text: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        Some(Range { first: words.next()?.parse().ok()?, count: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(range).collect()
}

/// Returns the ranges in the lines `name:first:count` of a user, given by name or by number, in the order of
/// the file (subuid(5)).
///
/// # Errors
/// The number of a line of this user that is malformed, and what is wrong with it. Lines of others do not
/// matter.
#[doc(hidden)]
pub fn ranges_of_file(text: &str, name: Option<&str>, uid: u32) -> Result<Vec<Range>, (usize, &'static str)> {
    let uid = uid.to_string();
    let mut ranges = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let mut words = line.split(':');
        let owner = words.next().unwrap_or_default();
        if owner.is_empty() || (Some(owner) != name && owner != uid) {
            continue;
        }
        if line.ends_with('\r') {
            return Err((number, "the line ends with a carriage return (Windows line endings)"));
        }
        let mut next = || words.next().and_then(|word| word.trim_end().parse::<u32>().ok());
        let (Some(first), Some(count)) = (next(), next()) else {
            return Err((number, "expected name:first:count, with two numbers below 4294967296"));
        };
        if words.next().is_some() {
            return Err((number, "expected three fields: name:first:count"));
        }
        if count > 0 {
            ranges.push(Range { first, count });
        }
    }
    Ok(ranges)
}

/// Returns the lines of an id map of /proc.
pub(super) fn extents_of(text: &str) -> Vec<Extent> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some(Extent { inside: words.next()??, outside: words.next()??, count: words.next()?? })
    };
    text.lines().filter_map(line).collect()
}

/// Splits the lines so that each is within one line of the caller's own map, as the kernel requires. Without
/// a line of the caller's map they stay as they are.
///
/// # Errors
/// [`SettingError::Map`]: an id outside is not mapped in the caller's own user namespace.
fn split(ranges: &[Extent], parents: &[Extent], side: Side) -> Result<Vec<Extent>, SettingError> {
    if parents.is_empty() {
        return Ok(ranges.to_owned());
    }
    let mut lines = Vec::new();
    for range in ranges {
        if range.inside.checked_add(range.count).is_none() || range.outside.checked_add(range.count).is_none()
        {
            return Err(SettingError::Map {
                why: format!("the map of {} ids: the range '{range}' ends after the last id", side.noun()),
            });
        }
        let mut done: u32 = 0;
        while done < range.count {
            let outside = range.outside + done;
            let room = parents.iter().find_map(|parent| {
                outside
                    .checked_sub(parent.inside)
                    .and_then(|above| parent.count.checked_sub(above))
                    .filter(|room| *room > 0)
            });
            let Some(room) = room else {
                return Err(SettingError::Map {
                    why: format!(
                        "the map of {noun} ids: the {noun} id {outside} outside is not mapped in the caller's own user \
                         namespace",
                        noun = side.noun()
                    ),
                });
            };
            let count = room.min(range.count - done);
            lines.push(Extent { inside: range.inside + done, outside, count });
            done += count;
        }
    }
    Ok(lines)
}

/// Returns the path of a mapping tool.
fn find_tool(tool: &str, side: Side) -> Result<CString, SettingError> {
    let missing = || {
        // The cause names the package of the distribution, and nothing else of the machine.
        let facts = Facts { distribution: Distribution::read(), ..Facts::default() };
        let why = facts.no_tool(side == Side::Groups);
        SettingError::Map { why: format!("the map of {} ids: {why}", side.noun()) }
    };
    let found = find_program(tool).ok_or_else(missing)?;
    CString::new(found.as_os_str().as_bytes()).map_err(|_| missing())
}

/// Returns the path of a program in an absolute directory of this process's PATH. Without a PATH it is the
/// default path, as for the command itself.
#[doc(hidden)]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    find_in_path(name, Some(&path), is_executable)
}

/// Returns the first executable file of this name in an absolute directory of `path`. A message can carry
/// absolute paths only, and a setuid tool from the working directory would be a security risk.
pub fn find_in_path(
    tool: &str,
    path: Option<&OsStr>,
    is_executable: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let folders = env::split_paths(path?).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(tool)).find(|file| is_executable(file))
}

/// Returns whether the file is an executable one, for somebody.
#[must_use]
fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> Range {
        Range { first, count }
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nann:100000:65536\nbob:165536:65536\n1000:300000:10\nann:400000:5\n";
        let of_ann = [range(100_000, 65_536), range(300_000, 10), range(400_000, 5)];
        assert_eq!(ranges_of_file(text, Some("ann"), 1000).unwrap(), of_ann);
        assert_eq!(ranges_of_file(text, None, 1000).unwrap(), [range(300_000, 10)]);
        assert_eq!(ranges_of_file(text, Some("carl"), 7).unwrap(), []);
        assert_eq!(
            ranges_of_tool("0: ann 100000 65536\n1: ann 7 1\n"),
            [range(100_000, 65_536), range(7, 1)]
        );
    }

    #[test]
    fn a_malformed_line_of_the_caller_is_an_error_with_its_number() {
        for text in ["ann", "ann:1", "ann:x:1", "ann:1:1:1", "ann:1:4294967296", "ann:-1:1", "ann:1:1\r"] {
            let text = format!("bob:x\n{text}\n");
            assert_eq!(ranges_of_file(&text, Some("ann"), 1000).unwrap_err().0, 2, "{text}");
            assert_eq!(ranges_of_file(&text, Some("carl"), 7), Ok(Vec::new()), "{text}");
        }
    }

    #[test]
    fn lines_are_split_at_the_borders_of_the_callers_own_map() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let parents = [extent(0, 1000, 1), extent(1, 100_000, 10)];
        let lines = split(&[extent(0, 0, 5)], &parents, Side::Users).unwrap();
        assert_eq!(lines, [extent(0, 0, 1), extent(1, 1, 4)]);
        let error = split(&[extent(0, 5, 10)], &parents, Side::Groups).unwrap_err().to_string();
        assert_eq!(
            error,
            "the map of group ids: the group id 11 outside is not mapped in the caller's own user namespace"
        );
        // A split range must not begin again at id 0.
        let parents = [extent(0, 0, 5), extent(5, 90, 5)];
        for range in [extent(u32::MAX - 6, 0, 10), extent(0, u32::MAX - 6, 10)] {
            let error = split(&[range], &parents, Side::Users).unwrap_err().to_string();
            assert!(error.contains("ends after the last id"), "{error}");
        }
        assert_eq!(split(&[extent(0, 5, 10)], &[], Side::Users).unwrap(), [extent(0, 5, 10)]);
    }

    #[test]
    fn the_own_id_needs_no_tool() {
        for mapping in [Mapping::Root, Mapping::CurrentUser] {
            assert_eq!(map(&mapping, Side::Users, &Caller::here()).unwrap().tool, None);
        }
    }
}
