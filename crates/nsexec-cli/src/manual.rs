//! `nsexec completions` and `nsexec man`: the completion scripts and man pages, made from the definition of
//! the flags.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::failure::Failure;
use super::output;

/// The section of the manual for programs (man(1)).
const SECTION: &str = "1";

/// The exit status, for the pages of the commands. The page of the program has it in its text.
const STATUS: &str = r".SH EXIT STATUS
That of the command that is run; 128+n if signal n ended it or interrupted the launch; 127 if it was not found; 126
if it cannot be executed; 2 for wrong usage; 1 for any other failure of nsexec. A status that differs is described
above.
";

/// The sections after the flags that clap does not know: roff text.
const FURTHER: &str = r".SH LINKED NAMES
Under the name
.B unshare
or
.BR nsenter ,
for example through a symbolic link, the program has the flags and the defaults of util-linux:
.B unshare \-\-help
lists them.
.SH FILES
.TP
.I /etc/subuid, /etc/subgid
The ranges of subordinate ids for \-\-map\-users auto and \-\-map\-groups auto, if
.BR getsubids (1)
does not answer.
.SH ENVIRONMENT
.TP
.B PATH
The command is searched in the command's own PATH, in its own root directory.
.TP
.BR NO_COLOR ,\ CLICOLOR ,\ CLICOLOR_FORCE
No colours if NO_COLOR is not empty or CLICOLOR is 0. Colours also without a terminal if CLICOLOR_FORCE is
neither empty nor 0, and NO_COLOR is empty.
.SH SEE ALSO
.BR unshare (1),
.BR nsenter (1),
.BR namespaces (7),
.BR user_namespaces (7),
.BR newuidmap (1),
.BR subuid (5)
";

/// Prints the completion script of a shell.
///
/// # Errors
/// The error of write(2).
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut listed(), "nsexec", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Returns the definition of the program with the commands that its help lists. A script cannot complete the
/// others, whose names have two words (`plan enter`).
fn listed() -> clap::Command {
    let all = Cli::command();
    let mut listed = clap::Command::new("nsexec").version(super::args::VERSION);
    if let Some(about) = all.get_about() {
        listed = listed.about(about.clone());
    }
    listed.subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

/// Prints a man page, or writes all pages.
///
/// # Errors
/// The command is unknown, or a page cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    match &args.dir {
        Some(dir) => write_all(dir),
        None => {
            let wanted = args
                .command
                .as_deref()
                .map_or("nsexec".to_owned(), |name| format!("nsexec-{}", name.replace(' ', "-")));
            let mut pages = pages()?;
            match pages.iter().position(|(name, _)| *name == wanted) {
                Some(at) => output::print(&pages.swap_remove(at).1),
                None => {
                    let known: Vec<&str> =
                        pages.iter().filter_map(|(name, _)| name.strip_prefix("nsexec-")).collect();
                    Err(Failure::Usage(format!(
                        "no command '{}'; the commands are {}",
                        args.command.as_deref().unwrap_or_default(),
                        known.join(", ")
                    )))
                }
            }
        }
    }
}

fn write_all(dir: &Path) -> Result<(), Failure> {
    output::create_folder(dir)?;
    for (name, page) in pages()? {
        output::save(&dir.join(format!("{name}.{SECTION}")), &page)?;
    }
    Ok(())
}

/// Returns the name and the text of each page: that of the program, then those of its commands.
fn pages() -> Result<Vec<(String, String)>, Failure> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let commands: Vec<clap::Command> = cli.get_subcommands().cloned().collect();
    let mut pages = vec![("nsexec".to_owned(), page(cli)? + FURTHER)];
    for command in commands {
        let name = format!("nsexec-{}", command.get_name().replace(' ', "-"));
        let command = command.name(leak(&name)).display_name(leak(&name)).version(super::args::VERSION);
        pages.push((name, page(command)? + STATUS + FURTHER));
    }
    Ok(pages)
}

/// Returns a text that lives as long as the program: clap's names do.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// Returns the man page of a command.
fn page(command: clap::Command) -> Result<String, Failure> {
    let man = Man::new(command).section(SECTION).manual("User Commands").source("nsexec");
    let mut text = Vec::new();
    let rendered: io::Result<()> = man.render(&mut text);
    rendered.map_err(|error| Failure::ours(format!("failed to make a man page: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
