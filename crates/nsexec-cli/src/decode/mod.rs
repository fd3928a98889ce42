//! `nsexec decode`: prints a bootstrap message as text or JSON.

mod json;
mod words;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use nsexec::bootstrap::{Dialect, HEADER_LEN, Header, ParseError};
use nsexec_audit::byte_order::ByteOrder;

use super::args::DecodeArgs;
use super::failure::Failure;
use super::output;

/// Reads one message and prints it. A refused message is printed too if JSON is requested.
///
/// # Errors
/// The file cannot be read, or the message is malformed.
pub(crate) fn decode(args: &DecodeArgs) -> Result<(), Failure> {
    let Opened { name, input, message } = open(&args.file)?;
    let shown = show(&message, args.dialect, args.json);
    let text = match &shown {
        Ok(text) => text,
        Err(refused) => &refused.json,
    };
    output::print(text)?;
    if let Err(refused) = shown {
        return Err(Failure::ours(format!("{name}: {}", refused.text)));
    }
    if let Some(surplus) = surplus(&input).filter(|surplus| *surplus > 0) {
        output::print_to_stderr(format_args!("nsexec: note: {surplus} bytes follow the message in {name}\n"));
    }
    Ok(())
}

/// A message, and the input that it was read from.
pub(crate) struct Opened {
    /// The input's name in error messages.
    pub(crate) name: String,
    pub(crate) input: File,
    pub(crate) message: Vec<u8>,
}

impl Opened {
    /// Checks that stage 0 accepts the message in this dialect. The error text is that of `decode`.
    ///
    /// # Errors
    /// The message is malformed.
    pub(crate) fn check(&self, dialect: &Dialect) -> Result<(), Failure> {
        match nsexec::bootstrap::decode(&self.message, dialect) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::ours(format!("{}: {}", self.name, malformed(&error)))),
        }
    }
}

/// Reads one message from a file, or from standard input if the path is `-`. Reads no byte beyond the
/// message: the input may be a pipe that never ends.
///
/// # Errors
/// The file cannot be read, or standard input is a terminal.
pub(crate) fn open(file: &Path) -> Result<Opened, Failure> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".into() } else { file.to_string_lossy().into_owned() };
    let failed =
        |error: io::Error| Failure::ours(format!("failed to read {name}: {}", super::failure::words(&error)));
    let mut input = if is_stdin {
        if io::stdin().is_terminal() {
            return Err(Failure::ours(
                "standard input is a terminal, and a bootstrap message is binary: name a file, or use a pipe, \
                 as in `nsexec encode -r | nsexec decode`",
            ));
        }
        // The standard library's handle would read ahead. The bytes after the message belong to the input's
        // next reader.
        File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
    } else {
        File::open(file).map_err(failed)?
    };
    let message = read_message(&mut input).map_err(failed)?;
    Ok(Opened { name, input, message })
}

/// Returns the number of bytes after the message if the input is a regular file. A pipe is not read: it may
/// never end, and the bytes belong to its next reader.
fn surplus(mut input: &File) -> Option<u64> {
    let data = input.metadata().ok().filter(fs::Metadata::is_file)?;
    data.len().checked_sub(input.stream_position().ok()?)
}

/// A refused message: the reason as text and as JSON.
struct Refused {
    text: String,
    /// Empty if JSON is not requested.
    json: String,
}

/// Returns the message as text or as JSON.
fn show(message: &[u8], dialect: &Dialect, as_json: bool) -> Result<String, Refused> {
    let order = ByteOrder::of(message);
    let message = order.to_native(message, dialect);
    let json_or =
        |json: Result<String, serde_json::Error>| json.unwrap_or_else(|error| format!("\"{error}\"\n"));
    match nsexec::bootstrap::decode(&message, dialect) {
        Ok((bootstrap, length)) if as_json => Ok(json_or(json::message(&bootstrap, length, dialect, order))),
        Ok((bootstrap, length)) => {
            Ok(words::render(message.get(..length).unwrap_or(&message), &bootstrap, dialect, order))
        }
        Err(error) => Err(Refused {
            text: malformed(&error),
            json: if as_json { json_or(json::refused(&error, dialect, order)) } else { String::new() },
        }),
    }
}

/// Returns the error in one line: the offset, the kind and the reason.
fn malformed(error: &ParseError<'_>) -> String {
    // The library's text may contain the offset already.
    let text = error.to_string().replacen(&format!(" at offset {}: ", error.offset), ": ", 1);
    format!(
        "malformed message at offset {} ({}): {}",
        error.offset,
        error.kind.name(),
        words::shown(text.as_bytes())
    )
}

/// Reads the header and the payload, and nothing after them. If the input ends early or the header is
/// malformed, returns the bytes read so far; the decoder then reports the error.
fn read_message(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    input.take(HEADER_LEN as u64).read_to_end(&mut message)?;
    // The header has the same fields in every dialect.
    let header = ByteOrder::of(&message).to_native(&message, &Dialect::V1_2);
    if let Ok(header) = Header::parse(&header) {
        input.take(header.payload_len() as u64).read_to_end(&mut message)?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests;
