//! The session of docs/session.md. `session.py` types it at a terminal and prints the page.

use std::fs;
use std::io::ErrorKind;

use crate::harness::{BOTH, Test, test};
use crate::kit::{Ctx, PYTHON};

pub(crate) const TESTS: &[Test] = &[test!(the_session_is_the_documented_one, BOTH)];

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/session.md");

/// The page at build time: the ordinary user may have no access to the source folder.
const DOCUMENTED: &str = include_str!("../../docs/session.md");

/// Compares the session with the page. With `INSTA_UPDATE=always` the test writes the page instead.
fn the_session_is_the_documented_one(ctx: &Ctx) {
    ctx.needs("bash");
    let script = concat!(include_str!("session.py"), include_str!("terminal.py"));
    let args = ["-I", "-S", "-c", script, ctx.bin.to_str().unwrap(), "session_page"];
    let page = ctx.cmd(PYTHON, args).ok();
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        match fs::write(PAGE, &page) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            written => written.expect("docs/session.md"),
        }
        return;
    }
    let pairs = page.lines().zip(DOCUMENTED.lines());
    let first = pairs.enumerate().find(|(_, (shown, documented))| shown != documented);
    assert!(page == DOCUMENTED, "docs/session.md differs, first at {first:?}. The session is now:\n{page}");
}
