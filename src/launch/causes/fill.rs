//! Fills the placeholders of a text.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::cause::Explanation;
use super::facts::{Account, COUNT};
use super::texts::Text;
use super::{Circumstances, HIGHEST_LIMIT, Remedies};
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::ranges::Side;
use crate::sys::types::Errno;

/// The circumstances of a text.
#[derive(Clone, Copy)]
pub(super) struct Filling<'k> {
    pub(super) known: &'k Circumstances,
    pub(super) remedies: &'k Remedies,
    pub(super) errno: Option<Errno>,
    /// Whether the failed step creates the user namespace, and not the others.
    pub(super) creates_user: bool,
    /// The side of the maps. `None`: the text finds it.
    pub(super) side: Option<Side>,
}

impl Filling<'_> {
    /// Returns the text with the values of the circumstances.
    pub(super) fn explain(&self, text: &Text) -> Explanation {
        let side = self.side.or_else(|| text.side.and_then(|find| find(self.known)));
        let values = self.values(side.unwrap_or(Side::Users));
        let fill = |text: &str| {
            let replace = |text: String, (key, value): &(&str, String)| text.replace(key, value);
            values.iter().fold(text.to_string(), replace)
        };
        // A fact without its value proves nothing.
        let is_known =
            |fact: &&&str| !values.iter().any(|(key, value)| value.is_empty() && fact.contains(key));
        let evidence: Vec<String> = text.evidence.iter().filter(is_known).map(|fact| fill(fact)).collect();
        let mut explained = Explanation::new(text.cause, fill(text.why), fill(text.remedy));
        explained.evidence = evidence;
        explained
    }

    /// Returns the value of each placeholder. Empty: unknown.
    fn values(&self, side: Side) -> Vec<(&'static str, String)> {
        let (known, facts) = (self.known, &self.known.facts);
        let remedies = self.remedies;
        let no_new_proc = match known.asked.mount_proc_flag {
            true => remedies.without_proc,
            false => remedies.without_default_proc,
        };
        let errno = self.errno.map(|errno| errno.name().map_or_else(|| errno.0.to_string(), String::from));
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let read_only = match (facts.proc.read_only, self.errno) {
            (true, _) => "statvfs(3) of /proc: ST_RDONLY",
            (false, Some(Errno::EROFS)) => "the write to a file of /proc failed with EROFS",
            (false, _) => "",
        };
        let mut values = Vec::from([
            ("{user_namespace}", remedies.user_namespace.to_string()),
            ("{pid_namespace}", remedies.pid_namespace.to_string()),
            ("{keep_ids}", remedies.keep_ids.to_string()),
            ("{no_new_proc}", no_new_proc.to_string()),
            ("{path_of_process}", remedies.path_of_process.to_string()),
            ("{errno}", errno.unwrap_or_default()),
            ("{apparmor}", number(facts.apparmor_restricts)),
            ("{label}", facts.vantage.profile.clone().unwrap_or_default()),
            ("{profile}", facts.vantage.apparmor_profile().unwrap_or_default().to_string()),
            ("{audit_log}", facts.distribution.audit_log().to_string()),
            ("{covered}", facts.proc.covered.first().cloned().unwrap_or_default()),
            ("{read_only}", read_only.to_string()),
            ("{lacking}", known.lacking().join(" and ")),
            ("{uncovered}", known.asked.uncovered.map(|ids| ids.to_string()).unwrap_or_default()),
        ]);
        values.extend(self.kinds());
        values.extend(self.ids(side));
        values
    }

    /// Returns the values that depend on the kinds to create.
    fn kinds(&self) -> [(&'static str, String); 7] {
        let (known, facts) = (self.known, &self.known.facts);
        let created = known.created_by(self.creates_user);
        let names = |kinds: NsSet, show: &dyn Fn(NsKind) -> String| {
            kinds.iter().map(show).collect::<Vec<_>>().join(" and ")
        };
        let name = |kind: NsKind| format!("user.max_{}_namespaces", kind.name());
        let zero = created.intersection(known.zero_limits());
        let is_reachable = |kind: &NsKind| facts.limit(*kind).is_none_or(|value| value < HIGHEST_LIMIT);
        let reachable: NsSet = created.iter().filter(is_reachable).collect();
        let limited = match (zero.is_empty(), reachable.is_empty()) {
            (false, _) => zero,
            (true, false) => reachable,
            (true, true) => created,
        };
        let value = |kind: NsKind| facts.limit(kind).map(|value| value.to_string()).unwrap_or_default();
        let raise: Vec<String> =
            limited.iter().map(|kind| format!("{}={}", name(kind), raised(facts.limit(kind)))).collect();
        let has_values = !limited.is_empty() && limited.iter().all(|kind| facts.limit(kind).is_some());
        let files = names(limited, &|kind| {
            format!("/proc/sys/user/max_{}_namespaces = {}", kind.name(), value(kind))
        });
        let missing = known.missing();
        [
            ("{zero}", names(zero, &name)),
            ("{limits}", names(limited, &|kind| format!("{} = {}", name(kind), value(kind)))),
            ("{limit_names}", names(limited, &name)),
            ("{limit_files}", if has_values { files } else { String::new() }),
            ("{raise}", raise.join(" ")),
            ("{missing}", names(missing, &|kind| kind.to_string())),
            ("{missing_files}", names(missing, &|kind| format!("/proc/self/ns/{}", kind.proc_name()))),
        ]
    }

    /// Returns the values of one side of the maps.
    fn ids(&self, side: Side) -> [(&'static str, String); 14] {
        let facts = &self.known.facts;
        let (ids, (file, tool_name, map)) = (facts.side(side), side.names());
        let path = ids.tool.as_ref().map(|tool| tool.path.clone()).filter(|path| !path.is_empty());
        let account_gid = match facts.account {
            Account::Group(gid) => gid.to_string(),
            Account::Missing | Account::Unknown => String::new(),
        };
        let capability = match side {
            Side::Users => "cap_setuid",
            Side::Groups => "cap_setgid",
        };
        [
            ("{noun}", side.noun().to_string()),
            ("{own}", ids.own.to_string()),
            ("{file}", file.to_string()),
            ("{map}", map.to_string()),
            ("{map_lines}", ids.map.as_ref().map_or(0, Vec::len).to_string()),
            ("{tool_name}", tool_name.to_string()),
            ("{tool}", path.unwrap_or_else(|| tool_name.to_string())),
            ("{capability}", capability.to_string()),
            ("{install}", facts.distribution.install_tools().to_string()),
            ("{owner}", facts.owner()),
            ("{who}", facts.vantage.user.clone().unwrap_or_else(|| format!("user id {}", facts.vantage.uid))),
            ("{gid}", facts.real_gid.to_string()),
            ("{account_gid}", account_gid),
            ("{give_range}", self.give_range(side)),
        ]
    }

    /// Returns the remedy that gives the caller a free range of subordinate ids.
    fn give_range(&self, side: Side) -> String {
        let facts = &self.known.facts;
        let (owner, (file, ..)) = (facts.owner(), side.names());
        let flag = match side {
            Side::Users => "--add-subuids",
            Side::Groups => "--add-subgids",
        };
        match (facts.side(side).free, &facts.vantage.user) {
            (Some(first), Some(name)) => {
                format!("as root: usermod {flag} {first}-{} {name}", first.saturating_add(COUNT - 1))
            }
            // usermod(8) needs an account.
            (Some(first), None) => format!("as root, add the line `{owner}:{first}:{COUNT}` to {file}"),
            (None, _) => format!("as root, add a line `{owner}:FIRST:COUNT` to {file}"),
        }
    }
}

/// Returns a limit above this one.
fn raised(limit: Option<u64>) -> u64 {
    const USUAL: u64 = 16_384;
    limit.map_or(USUAL, |value| value.saturating_mul(2).clamp(USUAL, HIGHEST_LIMIT))
}
