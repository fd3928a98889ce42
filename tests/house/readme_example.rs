use nsexec::launch::Command;
use nsexec::namespace::NsKind;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output =
        Command::new("id").arg("-u").unshare([NsKind::User, NsKind::Net, NsKind::Uts]).map_root().output()?;
    assert_eq!(output.stdout, b"0\n");
    Ok(())
}
