//! `nsexec decode`: a bootstrap message in words.

mod json;
mod words;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use nsexec::bootstrap::{Bootstrap, ByteOrder, Dialect, HEADER_LEN, Header, ParseError};

use super::args::DecodeArgs;
use super::failure::Failure;

/// Reads one message and shows it.
///
/// # Errors
/// A file that cannot be read, a message that is malformed.
pub(crate) fn decode(args: &DecodeArgs) -> Result<(), Failure> {
    let name = if args.file == Path::new("-") { "standard input" } else { &*args.file.to_string_lossy() };
    let failed =
        |error: io::Error| Failure::ours(format!("failed to read {name}: {}", super::failure::words(&error)));
    let mut input: Box<dyn Read> = if args.file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(Failure::ours(
                "standard input is a terminal, and a bootstrap message is binary: name a file, or use a pipe, \
                 as in `nsexec encode -r | nsexec decode`",
            ));
        }
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).map_err(failed)?)
    };
    let message = read_message(&mut input).map_err(failed)?;
    let order = order_of(&message);
    let shown = show(&message, args.dialect, order, args.json);
    let text = match &shown {
        Ok(text) => text,
        Err(refused) => &refused.json,
    };
    print(text)?;
    if let Err(refused) = shown {
        return Err(Failure::ours(format!("{name}: {}", refused.text)));
    }
    // What follows belongs to the next reader, and is told only so that nobody takes it for a part of the message.
    let surplus = io::copy(&mut input, &mut io::sink()).map_err(failed)?;
    if surplus > 0 {
        let _ = writeln!(io::stderr(), "nsexec: note: {surplus} bytes follow the message in {name}");
    }
    Ok(())
}

/// Why a message was refused, for people and for programs.
struct Refused {
    text: String,
    /// Empty unless JSON is wanted.
    json: String,
}

/// The message as text or as JSON.
fn show(message: &[u8], dialect: &Dialect, order: ByteOrder, as_json: bool) -> Result<String, Refused> {
    let json_or =
        |json: Result<String, serde_json::Error>| json.unwrap_or_else(|error| format!("\"{error}\"\n"));
    let parsed: Result<(Bootstrap<'_>, usize), ParseError<'_>> =
        nsexec::bootstrap::decode(message, dialect, order);
    match parsed {
        Ok((bootstrap, length)) if as_json => Ok(json_or(json::message(&bootstrap, length, dialect, order))),
        Ok((bootstrap, length)) => {
            Ok(words::render(message.get(..length).unwrap_or(message), &bootstrap, dialect, order))
        }
        Err(error) => Err(Refused {
            text: format!(
                "malformed message at offset {} ({}): {}",
                error.offset,
                error.kind.name(),
                words::shown(error.to_string().as_bytes())
            ),
            json: if as_json { json_or(json::refused(&error, dialect, order)) } else { String::new() },
        }),
    }
}

/// Header and payload, and not a byte more; less where the input ends, or where the header is wrong: then the decoder
/// says what is missing.
fn read_message(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    input.take(HEADER_LEN as u64).read_to_end(&mut message)?;
    if let Ok(header) = Header::parse(&message, order_of(&message)) {
        input.take(header.payload_len() as u64).read_to_end(&mut message)?;
    }
    Ok(message)
}

/// The byte order in which the message has its type: a file may come from another machine.
fn order_of(message: &[u8]) -> ByteOrder {
    let other = match ByteOrder::NATIVE {
        ByteOrder::Little => ByteOrder::Big,
        ByteOrder::Big => ByteOrder::Little,
    };
    let field = message.get(4..6).unwrap_or_default();
    let is_in = |order| match order {
        ByteOrder::Little => field == 62000_u16.to_le_bytes(),
        ByteOrder::Big => field == 62000_u16.to_be_bytes(),
    };
    if is_in(other) { other } else { ByteOrder::NATIVE }
}

const fn order_name(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Little => "little",
        ByteOrder::Big => "big",
    }
}

/// Standard output may be a pipe whose reader has had enough; that is no failure of ours to talk about.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::ours(format!("failed to write standard output: {}", super::failure::words(&error))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
