//! Decides on the ids of a new user namespace, and on those of the command.

use nsexec::launch::causes::{self, CAP_SETGID};
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Setgroups};
use nsexec_audit::machine::caller::{Facts, SubRange};

use super::super::args::{NamespaceFlags, SetgroupsFlag};
use super::super::defaults::Defaults;
use super::super::failure::Failure;
use super::super::maps::{self, Ids, Map};
use super::super::values::MapValue;
use super::{Kinds, UsageError};

/// The maps of a new user namespace: of user ids and of group ids.
pub(super) struct Maps {
    pub(super) users: Option<Map>,
    pub(super) groups: Option<Map>,
}

/// The ids of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandIds {
    pub(super) credentials: Credentials,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Returns whether a flag asks for a map.
pub(super) fn asks_for_map(flags: &NamespaceFlags) -> bool {
    flags.map_root_user
        || flags.map_current_user
        || flags.map_user.is_some()
        || flags.map_group.is_some()
        || !flags.users().is_empty()
        || !flags.groups().is_empty()
}

/// Returns the maps of user and group ids for a new user namespace. Without a flag for a map no id is mapped,
/// as with unshare(1).
pub(super) fn maps_of(flags: &NamespaceFlags, facts: &Facts, kinds: &Kinds) -> Result<Maps, Failure> {
    let none = Maps { users: None, groups: None };
    if !kinds.created.contains(NsKind::User) || !asks_for_map(flags) && !kinds.root_by_default {
        return Ok(none);
    }
    let causes = facts.causes();
    let (users, groups) = both(facts, &causes, flags.defaults);
    let inside = |id: Option<u32>, own| {
        let of_both = match (flags.map_root_user, flags.map_current_user) {
            (true, _) => Some(0),
            (_, true) => Some(own),
            _ => None,
        };
        id.or(of_both)
    };
    if flags.defaults.are_util_linux() {
        let map = |ids, own: Option<u32>, values: Vec<MapValue>| {
            (own.is_some() || !values.is_empty()).then(|| maps::decide(ids, &values, own)).transpose()
        };
        return Ok(Maps {
            users: map(users, flags.map_user, flags.users())?,
            groups: map(groups, flags.map_group, flags.groups())?,
        });
    }
    let user = (inside(flags.map_user, facts.euid), values_of(flags.users(), flags.groups(), users));
    let group = (inside(flags.map_group, facts.egid), values_of(flags.groups(), flags.users(), groups));
    let is_given = |(own, values): &(Option<u32>, Vec<MapValue>)| own.is_some() || !values.is_empty();
    let map = |ids, (own, values): &(Option<u32>, Vec<MapValue>)| maps::decide(ids, values, *own);
    // A side without a flag maps the caller's own id: to 0 if the command is root, otherwise to itself.
    let like = |other: &Map, own| Some(if other.maps(0) { 0 } else { own });
    let (users, groups) = match (is_given(&user), is_given(&group)) {
        (true, true) => (map(users, &user)?, map(groups, &group)?),
        (true, false) => {
            let users = map(users, &user)?;
            let own = like(&users, facts.egid);
            (users, map(groups, &(own, Vec::new()))?)
        }
        (false, true) => {
            let groups = map(groups, &group)?;
            (map(users, &(like(&groups, facts.euid), Vec::new()))?, groups)
        }
        (false, false) => (map(users, &(Some(0), Vec::new()))?, map(groups, &(Some(0), Vec::new()))?),
    };
    Ok(Maps { users: Some(users), groups: Some(groups) })
}

/// Returns the facts for each of both maps.
fn both<'f>(facts: &'f Facts, causes: &'f causes::Facts, defaults: Defaults) -> (Ids<'f>, Ids<'f>) {
    let [no_users, no_groups] = &facts.unread;
    let rootless = facts.euid != 0;
    let plain = defaults.are_util_linux();
    // As for unshare(1): the first range alone.
    let first = |ranges: &'f [SubRange]| if plain { ranges.get(..1).unwrap_or_default() } else { ranges };
    let users = Ids {
        flag: "--map-users",
        noun: "user",
        own: facts.euid,
        ranges: first(&facts.subuids),
        unread: no_users.as_deref(),
        own_map: &facts.users,
        rootless,
        facts: causes,
        tool_found: facts.newuidmap.is_some(),
        plain,
    };
    let groups = Ids {
        flag: "--map-groups",
        noun: "group",
        own: facts.egid,
        ranges: first(&facts.subgids),
        unread: no_groups.as_deref(),
        own_map: &facts.groups,
        rootless,
        facts: causes,
        tool_found: facts.newgidmap.is_some(),
        plain,
    };
    (users, groups)
}

/// Returns the values of one side. Without its own, `auto`, `subids` and `all` of the other side count for it
/// too, if the caller has such ids: su and chown change both ids.
fn values_of(own: Vec<MapValue>, other: Vec<MapValue>, ids: Ids<'_>) -> Vec<MapValue> {
    if !own.is_empty() {
        return own;
    }
    let has_ids = !ids.ranges.is_empty() && ids.tool_found || !ids.rootless && ids.unread.is_none();
    let counts = |value: &MapValue| match value {
        MapValue::Auto => has_ids,
        MapValue::SubIds => has_ids && !ids.ranges.is_empty(),
        MapValue::All => true,
        MapValue::Line(_) => false,
    };
    other.into_iter().filter(counts).collect()
}

/// Decides on the ids of the command.
///
/// As for unshare(1) it keeps its ids under that name. Otherwise it becomes root in a user namespace, unless
/// its own id is mapped to another one, or to none while id 0 is not mapped: then it keeps its ids, as with
/// unshare(1).
///
/// # Errors
/// An id that is asked for is not mapped; or neither the own id nor id 0 is.
pub(super) fn ids_of_command(
    flags: &NamespaceFlags,
    facts: &Facts,
    kinds: &Kinds,
    maps: &Maps,
) -> Result<CommandIds, UsageError> {
    let mut ids = CommandIds { credentials: Credentials::Keep, uid: flags.setuid, gid: flags.setgid };
    if flags.defaults.are_util_linux() {
        return Ok(ids);
    }
    let (Some(users), Some(groups)) = (&maps.users, &maps.groups) else {
        let becomes_root = kinds.joined.contains(NsKind::User) && ids.uid.is_none() && ids.gid.is_none();
        if becomes_root {
            // Both are equivalent if a namespace is created too; a plan shows this one.
            let late = kinds.created.is_empty();
            ids.credentials = if late { Credentials::RootLast } else { Credentials::Root };
        }
        return Ok(ids);
    };
    for (id, map, flag, noun) in
        [(ids.uid, users, "--setuid", "user"), (ids.gid, groups, "--setgid", "group")]
    {
        if let Some(id) = id.filter(|id| !map.maps(*id)) {
            return Err(UsageError(format!(
                "{flag} {id}: the {noun} id {id} is not mapped: add a map with it"
            )));
        }
    }
    let user = start(users, facts.euid, ids.uid, ("user", "--map-users", "--setuid"))?;
    let group = start(groups, facts.egid, ids.gid, ("group", "--map-groups", "--setgid"))?;
    match (user, group) {
        (Start::Root | Start::Zero, Start::Root | Start::Zero) => ids.credentials = Credentials::Root,
        // The other id is kept or set, so the ids are set one by one.
        (user, group) => {
            ids.uid = ids.uid.or((user == Start::Zero).then_some(0));
            ids.gid = ids.gid.or((group == Start::Zero).then_some(0));
        }
    }
    Ok(ids)
}

/// The id with which the command starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// The caller's own id, which is 0 inside.
    Root,
    /// Id 0, which is another id than the caller's outside.
    Zero,
    /// The caller's own id, which is another one inside.
    Own,
    /// The id that a flag names.
    Set,
}

fn start(
    map: &Map,
    own: u32,
    set: Option<u32>,
    (noun, maps, sets): (&str, &str, &str),
) -> Result<Start, UsageError> {
    Ok(match map.inside(own) {
        _ if set.is_some() => Start::Set,
        Some(0) => Start::Root,
        Some(_) => Start::Own,
        None if map.maps(0) => Start::Zero,
        None => {
            return Err(UsageError(format!(
                "{maps}: neither {noun} id 0 nor your own {noun} id {own} is mapped, and the command needs one: add -c, \
                 which maps the own id to itself, -r, which maps it to 0, or {sets}"
            )));
        }
    })
}

/// Decides on setgroups(2). `setgroup` is the value in the message.
pub(super) fn setgroups_of(
    flags: &NamespaceFlags,
    facts: &Facts,
    kinds: &Kinds,
    maps: &Maps,
    setgroup: bool,
) -> Result<Setgroups, UsageError> {
    let (user, rootless) = (kinds.created.contains(NsKind::User), facts.euid != 0);
    if flags.defaults.are_util_linux() {
        return setgroups_of_unshare(flags, rootless && maps.groups.is_some() && !setgroup);
    }
    Ok(match flags.setgroups {
        // The command becomes root in an existing user namespace. It must not keep the host's supplementary
        // groups. As in `enter`.
        None if kinds.joined.contains(NsKind::User) => Setgroups::DropIfAllowed,
        // Without a map nothing needs to be denied: unshare(1) leaves it, too.
        None if user && maps.groups.is_none() => Setgroups::Allow,
        // Like an ordinary user, root without CAP_SETGID may map its own group only after it has denied
        // setgroups.
        None if user && !rootless && !setgroup && lacks_setgid(facts) => Setgroups::Deny,
        None => Setgroups::FromMessage,
        Some(SetgroupsFlag::Deny) => Setgroups::Deny,
        Some(SetgroupsFlag::Allow) if rootless && !setgroup && maps.groups.is_some() => {
            return Err(allow_without_tool());
        }
        Some(SetgroupsFlag::Allow) => Setgroups::Allow,
    })
}

/// As unshare(1): denied for a map of the own group by `-r`, `-c` or `--map-group`, and otherwise untouched.
/// `must_deny`: the kernel demands it for the map.
fn setgroups_of_unshare(flags: &NamespaceFlags, must_deny: bool) -> Result<Setgroups, UsageError> {
    let own_group = flags.map_group.is_some() && flags.groups().is_empty();
    match flags.setgroups {
        Some(SetgroupsFlag::Allow) if own_group => Err(UsageError(
            "--setgroups allow excludes -r, -c and --map-group, which deny it: add --map-groups auto"
                .to_owned(),
        )),
        None | Some(SetgroupsFlag::Allow) if !own_group && !must_deny => Ok(Setgroups::Allow),
        _ => Ok(Setgroups::Deny),
    }
}

/// Returns whether the command may drop its supplementary groups, so that setgroups(2) is not denied.
pub(super) fn may_drop_groups(
    facts: &Facts,
    kinds: &Kinds,
    maps: &Maps,
    setgroups: Setgroups,
    setgroup: bool,
) -> bool {
    let rootless = facts.euid != 0;
    match maps.groups {
        Some(_) => match setgroups {
            Setgroups::Deny => false,
            Setgroups::Allow => true,
            Setgroups::FromMessage | Setgroups::DropIfAllowed => !rootless || setgroup,
        },
        None => !rootless && !lacks_setgid(facts) && !kinds.created.contains(NsKind::User),
    }
}

fn lacks_setgid(facts: &Facts) -> bool {
    facts.capabilities.is_some_and(|set| set & 1 << CAP_SETGID == 0)
}

fn allow_without_tool() -> UsageError {
    UsageError(
        "--setgroups allow: the kernel lets an ordinary user map their own group only after setgroups is denied \
         (user_namespaces(7)); add --map-groups auto, which goes through newgidmap"
            .to_owned(),
    )
}
