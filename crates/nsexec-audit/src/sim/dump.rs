//! A text dump of the machine's state, like ps(1) and /proc, for failing tests.

use core::fmt::Write as _;
use std::string::String;
use std::vec::Vec;

use super::kernel::Kernel;
use super::namespaces::{CREATION_ORDER, NsId, State};
use super::process::{Life, Task};

impl Kernel {
    /// Returns the processes, their descriptors, and the namespaces with their maps.
    pub(super) fn dump(&self) -> String {
        let mut text = String::new();
        for task in self.tasks() {
            // Writing to a String does not fail.
            let _ = self.dump_process(&mut text, task);
        }
        for index in 0..self.namespaces.len() {
            let _ = self.dump_namespace(&mut text, NsId(index));
        }
        text
    }

    fn dump_process(&self, text: &mut String, task: Task) -> core::fmt::Result {
        let process = self.process(task);
        let numbers: Vec<String> =
            process.numbers.iter().map(|(ns, pid)| std::format!("{pid} in {}", ns.0)).collect();
        let parent =
            process.parent.map_or("init".into(), |parent| std::format!("{}", self.process(parent).role));
        writeln!(
            text,
            "{} \"{}\": pid {}, child of {parent}",
            process.role,
            process.name,
            numbers.join(", ")
        )?;
        let creds = &process.creds;
        writeln!(
            text,
            "    uid {:?} gid {:?} groups {:?} caps {:x} user namespace {}, {}",
            creds.uid,
            creds.gid,
            creds.groups,
            creds.effective,
            creds.user.0,
            if process.dumpable { "dumpable" } else { "not dumpable" },
        )?;
        match (process.life, &process.blocked, process.rest) {
            (Life::Alive, ..) if process.stopped => writeln!(text, "    is stopped")?,
            (Life::Alive, Some(call), _) => writeln!(text, "    waits in {call}")?,
            (Life::Alive, None, Some(rest)) => writeln!(text, "    {rest:?}")?,
            (Life::Alive, None, None) => writeln!(text, "    can run")?,
            (life, ..) => writeln!(text, "    {life:?}")?,
        }
        if !process.is_alive() {
            return Ok(());
        }
        let spaces: Vec<String> = CREATION_ORDER
            .iter()
            .map(|kind| std::format!("{} {}", kind.name(), process.ns.get(*kind).0))
            .collect();
        writeln!(text, "    namespaces: {}", spaces.join(", "))?;
        for (fd, slot) in &process.fds {
            let cloexec = if slot.cloexec { ", close-on-exec" } else { "" };
            writeln!(text, "    {fd:3} {}{cloexec}", self.describe(*slot))?;
        }
        Ok(())
    }

    fn dump_namespace(&self, text: &mut String, id: NsId) -> core::fmt::Result {
        let namespace = &self.namespaces[id.0];
        let (kind, owner) = (namespace.kind.name(), namespace.owner.0);
        match &namespace.state {
            State::User(user) => {
                let above = user.parent.map_or(user, |parent| self.user(parent));
                let groups = if user.setgroups { "allow" } else { "deny" };
                writeln!(text, "{kind} namespace {}: made by {}, setgroups {groups}", id.0, user.owner_uid)?;
                write!(text, "  uid_map\n{}", user.uid_map.text(&above.uid_map))?;
                write!(text, "  gid_map\n{}", user.gid_map.text(&above.gid_map))
            }
            State::Time(time) => {
                writeln!(text, "{kind} namespace {}: owned by {owner}, offsets {:?}", id.0, time.offsets)
            }
            _ => writeln!(text, "{kind} namespace {}: owned by {owner}", id.0),
        }
    }

    /// Returns the unread bytes of pipes and sockets, each with the name of its queue.
    pub(super) fn unread(&self) -> Vec<(String, Vec<u8>)> {
        let pipes = self.pipes.iter().enumerate().map(|(n, pipe)| (std::format!("pipe {n}"), &pipe.bytes));
        let pairs = self.pairs.iter().enumerate().flat_map(|(n, pair)| {
            pair.bytes
                .iter()
                .enumerate()
                .map(move |(side, bytes)| (std::format!("socket pair {n} side {side}"), bytes))
        });
        pipes
            .chain(pairs)
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(name, bytes)| (name, bytes.iter().copied().collect()))
            .collect()
    }
}
