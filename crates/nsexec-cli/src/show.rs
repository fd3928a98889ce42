//! `nsexec show`: prints a recorded or planned run that was stored in a file. Also reads such files.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use nsexec_audit::Run;
use nsexec_audit::record::shared::PROCESS_MAX;
use nsexec_audit::render::text;

use super::args::{Format, ShowArgs};
use super::failure::{Failure, words};
use super::output;
use super::plan::look;

/// The largest record that is read, in bytes: the limit for all processes of a run, and as much again for
/// their notes.
const RECORD_MAX: usize = 2 * 8 * PROCESS_MAX;

/// Prints the run in a file. Returns 0.
///
/// # Errors
/// The file cannot be read, or is not a run.
pub(crate) fn show(args: &ShowArgs) -> Result<u8, Failure> {
    let run = read(&args.file)?;
    output::print(&shown(&run, args.look.format, look(args.look.color, args.look.order))?)?;
    Ok(0)
}

/// Returns a run in a format.
///
/// # Errors
/// None is known: the content consists of numbers, strings and lists.
pub(crate) fn shown(run: &Run, format: Format, look: text::Look) -> Result<String, Failure> {
    Ok(match format {
        Format::Json => run.to_json_lines().map_err(|error| Failure::ours(error.to_string()))?,
        Format::Mermaid => run.to_mermaid(),
        Format::Svg => run.to_svg(),
        Format::Html => run.to_html(),
        Format::Text => run.to_text(look),
    })
}

/// Reads a run from a file; `-` is standard input.
///
/// # Errors
/// The file cannot be read, or is not a run. The text names the file, the line, and the fault.
pub(crate) fn read(file: &Path) -> Result<Run, Failure> {
    let text = text(file)?;
    Run::from_json_lines(&text).map_err(|error| {
        let hint = if error.line == 1 {
            " (a run is a file that trace --json or plan --format json wrote)"
        } else {
            ""
        };
        Failure::ours(format!("{}, line {}: {}{hint}", file.display(), error.line, error.reason))
    })
}

/// Reads the text of a run, but not more than the largest record has: the file may be a pipe that never ends.
///
/// # Errors
/// The file cannot be read, is longer than a record, or is not UTF-8 text.
pub(crate) fn text(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let bytes =
        bytes(file).map_err(|error| Failure::ours(format!("failed to read {name}: {}", words(&error))))?;
    if bytes.len() > RECORD_MAX {
        let why = format!("{name}: it has more than {RECORD_MAX} bytes, the limit of a record");
        return Err(Failure::ours(why));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::ours(format!("{name}, line {line}: it is not UTF-8 text"))
    })
}

/// Reads at most one byte more than the largest record.
fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = RECORD_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
