//! `nsexec encode`: writes the bootstrap message for the given flags.

use nsexec::launch::encode;

use super::args::EncodeArgs;
use super::config::{self, Merged};
use super::failure::Failure;
use super::output;
use super::request;

/// Writes the message to standard output.
///
/// # Errors
/// Flags that contradict each other, or that have no equivalent in a message; standard output is a terminal.
pub(crate) fn encode(args: &EncodeArgs) -> Result<(), Failure> {
    let merged = config::merged(&args.namespaces, &[])?;
    merged.print_note();
    let Merged { flags, command, .. } = merged;
    if !command.is_empty() {
        output::print_to_stderr(format_args!(
            "nsexec: process.args is not applied: a message has no attribute for the command\n"
        ));
    }
    request::refuse_flags_without_attribute(&flags, &args.command)?;
    let facts = request::facts_of(&flags, false);
    let request = request::decide(&flags, &facts, args.dialect)?;
    request::refuse_other_ids_than_root(&request)?;
    let bootstrap = request.bootstrap()?;
    let mut message = vec![0; encode::encoded_len(&bootstrap)];
    let length = encode::encode(&bootstrap, args.dialect, &mut message)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    message.truncate(length);
    if output::is_terminal() {
        return Err(Failure::ours(
            "standard output is a terminal, and a bootstrap message is binary: redirect it, or use \
             `nsexec encode … | nsexec decode`",
        ));
    }
    output::write(&message)
}
