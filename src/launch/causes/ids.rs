//! The causes why a map of several ids cannot be written: the mapping tool, and the subordinate ids.

use super::cause::{Cause, Explanation};
use super::facts::{Account, Facts};
use super::fill::Filling;
use super::texts::{
    GROUP_OF_ACCOUNT, LACKS_MAPPING_CAPS, LACKS_SETFCAP, NO_ACCOUNT, NO_RANGE, NO_TOOL, ONE_ID,
    TOOL_NO_NEW_PRIVS, TOOL_NOSUID, TOOL_POWERLESS, Text, UNMAPPED,
};
use super::{Asked, Circumstances, Remedies};
use crate::launch::ranges::Side;

impl Facts {
    /// Returns why the mapping tool of this side has no privileges. `None` if the tool has them or does not
    /// exist, or if the caller needs no tool.
    pub(in crate::launch) fn powerless(&self, side: Side) -> Option<Cause> {
        self.powerless_text(side).map(|text| text.cause)
    }

    fn powerless_text(&self, side: Side) -> Option<&'static Text> {
        if self.vantage.uid == 0 || self.has_capability(side.capability()) {
            return None;
        }
        match self.side(side).tool.as_ref().filter(|tool| !tool.path.is_empty())? {
            _ if self.vantage.no_new_privs => Some(&TOOL_NO_NEW_PRIVS),
            tool if tool.nosuid => Some(&TOOL_NOSUID),
            tool if !tool.set_user_id && !tool.file_capabilities => Some(&TOOL_POWERLESS),
            _ => None,
        }
    }

    /// Returns whether the mapping tools refuse this caller because of its group.
    pub(super) fn has_other_group(&self) -> bool {
        matches!(self.account, Account::Group(gid) if gid != self.real_gid)
    }

    fn explain(&self, text: &Text, side: Side) -> Explanation {
        let known = Circumstances::new(Asked::default(), self.clone());
        let filling = Filling {
            known: &known,
            remedies: &Remedies::LIBRARY,
            errno: None,
            creates_user: false,
            side: Some(side),
        };
        filling.explain(text)
    }

    /// Returns the cause why the mapping tool of one side cannot write a map, if the facts show one.
    fn cause_of_tool(&self, side: Side) -> Option<Explanation> {
        if self.vantage.uid == 0 {
            return None;
        }
        let is_missing = self.side(side).tool.as_ref().is_some_and(|tool| tool.path.is_empty());
        let text = match self.powerless_text(side) {
            _ if is_missing => &NO_TOOL,
            Some(text) => text,
            None if self.account == Account::Missing => &NO_ACCOUNT,
            None if self.has_other_group() => &GROUP_OF_ACCOUNT,
            None => return None,
        };
        Some(self.explain(text, side))
    }

    /// Returns the cause why root may not map ids, if it lacks a capability.
    fn cause_of_root(&self) -> Option<Explanation> {
        let known = Circumstances::new(Asked::default(), self.clone());
        let lacking = known.lacking();
        let text = if lacking == ["CAP_SETFCAP"] { &LACKS_SETFCAP } else { &LACKS_MAPPING_CAPS };
        (self.vantage.uid == 0 && !lacking.is_empty()).then(|| self.explain(text, Side::Users))
    }

    /// Returns the cause that the user has no subordinate ids. The remedy proposes a free range.
    #[must_use]
    pub fn no_range(&self, groups: bool) -> Explanation {
        self.explain(&NO_RANGE, Side::of(groups))
    }

    /// Returns the cause that the mapping tool does not exist. The remedy is that of the distribution.
    #[must_use]
    pub fn no_tool(&self, groups: bool) -> Explanation {
        self.explain(&NO_TOOL, Side::of(groups))
    }

    /// Returns the cause why a range of ids cannot be mapped, if the facts show one. Two causes at the same
    /// time are named together.
    pub(in crate::launch) fn cause_of_ranges(&self, side: Side) -> Option<Explanation> {
        let ids = self.side(side);
        if ids.is_unmapped() {
            return Some(self.explain(&UNMAPPED, side));
        }
        if let Some(found) = self.cause_of_root() {
            return Some(found);
        }
        if ids.others().is_none() {
            return Some(self.explain(&ONE_ID, side));
        }
        let has_none = self.vantage.uid != 0 && ids.ranges.as_ref().is_some_and(|ranges| ranges.is_empty());
        let no_range = has_none.then(|| self.explain(&NO_RANGE, side));
        match (self.cause_of_tool(side), no_range) {
            (Some(first), Some(second)) => Some(first.and(second)),
            (found, None) | (None, found) => found,
        }
    }
}

impl Circumstances {
    /// Returns the first side whose mapping tool has no privileges for this reason.
    pub(super) fn powerless_side(&self, cause: Cause) -> Option<Side> {
        [Side::Users, Side::Groups].into_iter().find(|side| self.facts.powerless(*side) == Some(cause))
    }

    /// Returns the first side on which the caller's own id is not mapped.
    pub(super) fn unmapped_side(&self) -> Option<Side> {
        [Side::Users, Side::Groups].into_iter().find(|side| self.facts.side(*side).is_unmapped())
    }
}
