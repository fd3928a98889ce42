use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::policy::Policy;
use nsexec::sys::types::CloneFlags;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One line of a map: first id inside, first id outside, how many.
    let map = IdMap::parse(c"0 1000 1\n")?;
    let bootstrap = Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWUTS))
        .with_uid_map(map)
        .with_gid_map(map)
        .with_rootless_euid(true);
    let mut child = Launcher::new(&bootstrap, Policy::runc(&Dialect::V1_2))?.command("id", ["-u"]).spawn()?;
    assert!(child.wait()?.success());
    Ok(())
}
