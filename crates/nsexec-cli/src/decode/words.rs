//! A message as text: the header, then each attribute in the order of the message.

use std::fmt::{self, Write};

use nsexec::bootstrap::text::is_invisible;
use nsexec::bootstrap::{Attribute, Bootstrap, Dialect, HEADER_LEN};
use nsexec::idmap::IdMap;
use nsexec::namespace::NsSet;
use nsexec_audit::byte_order::ByteOrder;

/// Returns the whole text, with the final newline. `order` is the byte order that the message had before its
/// conversion.
pub(super) fn render(
    message: &[u8],
    bootstrap: &Bootstrap<'_>,
    dialect: &Dialect,
    order: ByteOrder,
) -> String {
    let mut out = String::new();
    let header = header(message, bootstrap, dialect, order);
    let attributes = attributes(message).iter().fold(String::new(), |mut text, place| {
        // Writing to a String cannot fail.
        let _ = attribute(&mut text, *place, bootstrap, dialect);
        text
    });
    out.push_str(&header);
    out.push_str(&attributes);
    out
}

fn header(message: &[u8], bootstrap: &Bootstrap<'_>, dialect: &Dialect, order: ByteOrder) -> String {
    let created = NsSet::from_flags(bootstrap.clone_flags());
    let joined = bootstrap.joined();
    let list = |set: NsSet| if set.is_empty() { "nothing".to_owned() } else { set.to_string() };
    format!(
        "bootstrap message: {} bytes, {}-endian, type 62000, sequence {}, dialect {}\ncreates {}; joins {}\n",
        message.len(),
        order.name(),
        number(message, 8),
        dialect.name(),
        list(created),
        list(joined),
    )
}

/// The offset and the number of an attribute.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    number: u16,
}

/// Returns the offsets of the attributes. The message has been decoded, so every length in it is valid.
fn attributes(message: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut offset = HEADER_LEN;
    while let Some(&[l0, l1, t0, t1]) = message.get(offset..).and_then(<[u8]>::first_chunk::<4>) {
        let (length, number) = (u16::from_ne_bytes([l0, l1]), u16::from_ne_bytes([t0, t1]));
        places.push(Place { offset, number });
        offset += usize::from(length.max(4)).next_multiple_of(4);
    }
    places
}

fn number(message: &[u8], offset: usize) -> u32 {
    let bytes = message.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    u32::from_ne_bytes(bytes)
}

/// Writes one attribute: its line, and for a list one more line for each entry.
fn attribute(out: &mut String, place: Place, bootstrap: &Bootstrap<'_>, dialect: &Dialect) -> fmt::Result {
    let Place { offset, number } = place;
    let Some(attribute) = Attribute::from_number(number, dialect) else { return Ok(()) };
    write!(out, "{offset:>6}  {number}  {:<14} ", attribute.name())?;
    match attribute {
        Attribute::CloneFlags => {
            let flags = bootstrap.clone_flags();
            writeln!(out, "{:#010x} = {flags}", flags.0)
        }
        Attribute::NsPaths => entries(
            out,
            "to join",
            bootstrap
                .namespaces()
                .iter()
                .flat_map(|paths| paths.iter())
                .map(|entry| (entry.kind, entry.path)),
        ),
        Attribute::UidMap => id_map(out, bootstrap.uid_map()),
        Attribute::GidMap => id_map(out, bootstrap.gid_map()),
        Attribute::SetGroup => writeln!(out, "{}", yes(bootstrap.setgroup())),
        Attribute::OomScoreAdj => {
            writeln!(out, "{}", bootstrap.oom_score_adj().map_or(0, |score| score.value()))
        }
        Attribute::RootlessEuid => {
            let who = if bootstrap.rootless_euid() { "an ordinary user" } else { "root" };
            writeln!(out, "{}: the launcher is {who}", yes(bootstrap.rootless_euid()))
        }
        Attribute::UidMapPath => path(out, bootstrap.uidmap_path()),
        Attribute::GidMapPath => path(out, bootstrap.gidmap_path()),
        Attribute::TimeOffsets => {
            let offsets: Vec<_> =
                bootstrap.timens_offsets().iter().flat_map(|offsets| offsets.iter()).collect();
            writeln!(out, "{}", counted(offsets.len(), "clock"))?;
            offsets.iter().try_for_each(|entry| {
                writeln!(out, "{INDENT}{} {:+} s {} ns", entry.clock, entry.secs, entry.nanos)
            })
        }
        Attribute::MountSources => entries(
            out,
            "mount",
            (1..).zip(bootstrap.mount_sources().iter().flat_map(|sources| sources.iter())),
        ),
    }
}

/// The indentation of an entry: the column in which values begin.
const INDENT: &str = "                              ";

/// Writes the number of entries, and each entry with its name and path.
fn entries<'m, N: fmt::Display>(
    out: &mut String,
    what: &str,
    entries: impl Iterator<Item = (N, &'m [u8])>,
) -> fmt::Result {
    let entries: Vec<_> = entries.collect();
    writeln!(
        out,
        "{} {what}{}",
        entries.len(),
        if what == "mount" && entries.len() != 1 { "s" } else { "" }
    )?;
    entries.iter().try_for_each(|(name, path)| match *path {
        b"" => writeln!(out, "{INDENT}{name}: no bind mount"),
        path => writeln!(out, "{INDENT}{name}: {}", shown(path)),
    })
}

fn id_map(out: &mut String, map: Option<IdMap<'_>>) -> fmt::Result {
    let Some(map) = map else { return Ok(()) };
    write!(out, "{}", counted(map.len(), "line"))?;
    match map.fits_one_write() {
        Ok(()) => writeln!(out)?,
        Err(too_large) => writeln!(out, ": {too_large}")?,
    }
    map.extents().try_for_each(|extent| {
        // The decoder has checked that the line does not end beyond the last id.
        let last = |first: u32| u64::from(first) + u64::from(extent.count) - 1;
        let (inside, outside) = (extent.inside, extent.outside);
        writeln!(
            out,
            "{INDENT}inside {inside}-{} = outside {outside}-{} ({})",
            last(inside),
            last(outside),
            counted(extent.count as usize, "id")
        )
    })
}

fn path(out: &mut String, path: Option<&std::ffi::CStr>) -> fmt::Result {
    writeln!(out, "{}", shown(path.unwrap_or_default().to_bytes()))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

const fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Escapes what is not printable, so that a message cannot send control sequences to the terminal or forge a
/// line.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_invisible(c) || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_paths_are_escaped() {
        assert_eq!(shown(b"/a\x1b[2J\n\xff\\b\xc3\xa9"), "/a\\u{1b}[2J\\n\\xff\\\\b\u{e9}");
    }
}
