//! Functions that the unit tests share.

/// Runs `assert` with insta's settings for this crate: all snapshots are in `snapshots/`, under their own
/// names.
pub(crate) fn snapshot(assert: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(assert);
}
