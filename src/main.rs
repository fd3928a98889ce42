//! The program: so far a stage 0 for any launcher, which exits after the hand-over.
fn main() {
    let _ = nsexec::init();
}
