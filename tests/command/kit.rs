//! What the tests share.

use nsexec::launch::Command;
use nsexec::namespace::NsKind;

/// Returns a shell that runs this script.
pub(crate) fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Runs the command and returns its standard output, without the last newline.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the link of a namespace of this process, or of another one.
pub(crate) fn link(of: &str, kind: NsKind) -> String {
    std::fs::read_link(format!("/proc/{of}/ns/{kind}")).unwrap().to_str().unwrap().into()
}
