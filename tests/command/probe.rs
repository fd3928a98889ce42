//! The probe.
use nsexec::launch::probe::probe;
#[test]
fn show() {
    let r = probe();
    println!("{r}\n{r:#?}");
}
