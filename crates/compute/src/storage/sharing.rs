//! Whether both hosts see the same data behind a disk or an image below it.
//!
//! Pure. For files the two probes of a directory must agree: each host sees the other's, or neither does. Everything else is
//! *unknown* (so is a path that is a symbolic link to different files), and a guest with such a disk is not moved: a disk wrongly taken for shared would be lost, one wrongly taken for local
//! would be overwritten.

use drover_common::rpc::latest::{DestinationCheck, DiskSource, Sharing, StorageProbe};

use super::directory_of;

/// Who saw what.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// The source's probes.
    pub source_probes: &'a [StorageProbe],
    /// What the destination found.
    pub destination: &'a DestinationCheck,
    /// For each of the destination's probes: whether the source sees it.
    pub source_sees: &'a [(String, Result<bool, String>)],
}

/// The verdict on one disk, and what it rests on, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The verdict.
    pub sharing: Sharing,
    /// Why.
    pub why: String,
}

impl Verdict {
    fn new(sharing: Sharing, why: impl Into<String>) -> Self {
        Self { sharing, why: why.into() }
    }
}

/// Whether both hosts see the same data behind a disk, or behind an image below one. `resolves_to` is where its path leads to on the
/// source, if it is a symbolic link.
pub fn verdict(source: &DiskSource, resolves_to: Option<&str>, views: &Views<'_>) -> Verdict {
    match source {
        DiskSource::Empty => Verdict::new(Sharing::Shared, "nothing is in it"),
        DiskSource::Network { protocol } => Verdict::new(Sharing::Shared, format!("{protocol} is on the network")),
        DiskSource::Block { path, identity } => block(path, identity.as_deref(), views.destination),
        DiskSource::File { path } => {
            let there = views.destination.links.iter().find(|link| link.path == *path).map(|link| link.resolves_to.as_str());
            let (here, there) = (resolves_to.unwrap_or(path), there.unwrap_or(path));
            if here != there {
                let why = format!("{path} leads to {here} on the source and to {there} on the destination");
                return Verdict::new(Sharing::Unknown, why);
            }
            file(directory_of(here), views)
        }
    }
}

fn block(path: &str, here: Option<&str>, destination: &DestinationCheck) -> Verdict {
    let there = destination.block_devices.iter().find(|device| device.path == path);
    match (here, there.map(|device| device.identity.as_deref())) {
        (None, _) => Verdict::new(Sharing::Unknown, "the device has neither WWID nor device-mapper UUID on the source"),
        (_, None) => Verdict::new(Sharing::Unknown, "the destination did not look for the device"),
        (Some(_), Some(None)) => Verdict::new(Sharing::NotShared, "the destination has no such device"),
        (Some(here), Some(Some(there))) if here == there => Verdict::new(Sharing::Shared, format!("both see {here}")),
        (Some(here), Some(Some(there))) => {
            Verdict::new(Sharing::NotShared, format!("it is {here} on the source and {there} on the destination"))
        }
    }
}

fn file(directory: &str, views: &Views<'_>) -> Verdict {
    let unknown = |why: String| Verdict::new(Sharing::Unknown, why);
    let Some(source_probe) = views.source_probes.iter().find(|probe| probe.directory == directory) else {
        return unknown(format!("the source wrote no probe in {directory}"));
    };
    if let Err(why) = &source_probe.written {
        return unknown(format!("the source cannot write in {directory}: {why}"));
    }
    let Some(there) = views.destination.directories.iter().find(|check| check.directory == directory) else {
        return unknown(format!("the destination did not look into {directory}"));
    };
    if there.free_bytes.is_none() {
        return Verdict::new(Sharing::NotShared, format!("the destination has no directory {directory}"));
    }
    if let Err(why) = &there.probe.written {
        return unknown(format!("the destination cannot write in {directory}: {why}"));
    }
    let source_sees = views.source_sees.iter().find(|(seen, _)| seen == directory).map(|(_, sees)| sees);
    match (source_sees, &there.sees_source) {
        (Some(Ok(true)), Ok(true)) => Verdict::new(Sharing::Shared, format!("both see each other's files in {directory}")),
        (Some(Ok(false)), Ok(false)) => Verdict::new(Sharing::NotShared, format!("neither sees the other's files in {directory}")),
        (Some(Ok(source)), Ok(destination)) => {
            let (sees, does_not) = if *source { ("source", "destination") } else { ("destination", "source") };
            debug_assert_ne!(source, destination);
            unknown(format!("in {directory} the {sees} sees the other's file and the {does_not} does not"))
        }
        (_, Err(why)) => unknown(format!("the destination cannot look into {directory}: {why}")),
        (Some(Err(why)), _) => unknown(format!("the source cannot look into {directory}: {why}")),
        (None, _) => unknown(format!("the source did not look into {directory}")),
    }
}

#[cfg(test)]
mod tests {
    use drover_common::rpc::latest::{BlockDeviceCheck, DirectoryCheck, LinkCheck};

    use super::*;

    fn probe(written: Result<&str, &str>) -> StorageProbe {
        StorageProbe { directory: "/d".to_owned(), written: written.map(str::to_owned).map_err(str::to_owned) }
    }

    fn destination(directories: Vec<DirectoryCheck>, block_devices: Vec<BlockDeviceCheck>) -> DestinationCheck {
        DestinationCheck {
            connect_address: "h2".to_owned(),
            inbound_address_set: false,
            migration_port_probe: None,
            directories,
            block_devices,
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
            links: Vec::new(),
            no_post_copy: None,
            stream: None,
            images: None,
            networks: Vec::new(),
            consoles: Vec::new(),
        }
    }

    fn there(sees: Result<bool, &str>, written: Result<&str, &str>, free_bytes: Option<u64>) -> DirectoryCheck {
        DirectoryCheck {
            directory: "/d".to_owned(),
            sees_source: sees.map_err(str::to_owned),
            probe: probe(written),
            free_bytes,
            device: None,
        }
    }

    #[test]
    fn files_are_shared_only_when_both_directions_agree() {
        let ok: Result<&str, &str> = Ok("p");
        let no: Result<&str, &str> = Err("EROFS");
        let unreadable: Result<bool, &str> = Err("EACCES");
        for (source_writes, destination_sees, destination_writes, source_sees, free, expected) in [
            (ok, Ok(true), ok, Some(Ok(true)), Some(1), Sharing::Shared),
            (ok, Ok(false), ok, Some(Ok(false)), Some(1), Sharing::NotShared),
            (ok, Ok(true), ok, Some(Ok(false)), Some(1), Sharing::Unknown),
            (ok, Ok(false), ok, Some(Ok(true)), Some(1), Sharing::Unknown),
            (no, Ok(false), ok, Some(Ok(false)), Some(1), Sharing::Unknown),
            (ok, Ok(false), no, Some(Ok(false)), Some(1), Sharing::Unknown),
            (ok, unreadable, ok, Some(Ok(true)), Some(1), Sharing::Unknown),
            (ok, Ok(true), ok, Some(Err("EIO")), Some(1), Sharing::Unknown),
            (ok, Ok(true), ok, None, Some(1), Sharing::Unknown),
            (ok, Ok(false), no, Some(Err("ENOENT")), None, Sharing::NotShared),
        ] {
            let source_probes = [probe(source_writes)];
            let check = destination(vec![there(destination_sees, destination_writes, free)], Vec::new());
            let source_sees: Vec<_> =
                source_sees.map(|sees: Result<bool, &str>| ("/d".to_owned(), sees.map_err(str::to_owned))).into_iter().collect();
            let views = Views { source_probes: &source_probes, destination: &check, source_sees: &source_sees };
            let verdict = verdict(&DiskSource::File { path: "/d/disk".to_owned() }, None, &views);
            assert_eq!(verdict.sharing, expected, "{source_writes:?} {destination_sees:?} {destination_writes:?} {}", verdict.why);
        }
    }

    #[test]
    fn a_symbolic_link_is_judged_by_where_it_leads_and_only_if_it_leads_to_the_same_on_both() {
        let link = |resolves_to: &str| LinkCheck { path: "/links/disk".to_owned(), resolves_to: resolves_to.to_owned() };
        let source_sees = [("/d".to_owned(), Ok(true))];
        for (here, there, expected) in [
            (Some("/d/disk"), vec![link("/d/disk")], Sharing::Shared),
            (Some("/d/disk"), vec![link("/e/disk")], Sharing::Unknown),
            (Some("/d/disk"), vec![], Sharing::Unknown),
            (None, vec![link("/d/disk")], Sharing::Unknown),
        ] {
            let mut check = destination(vec![self::there(Ok(true), Ok("p"), Some(1))], Vec::new());
            check.links = there;
            let views = Views { source_probes: &[probe(Ok("p"))], destination: &check, source_sees: &source_sees };
            let file = DiskSource::File { path: "/links/disk".to_owned() };
            let verdict = verdict(&file, here, &views);
            assert_eq!(verdict.sharing, expected, "{here:?} {}", verdict.why);
            assert!(expected == Sharing::Shared || verdict.why.contains("/links/disk leads to "), "{}", verdict.why);
        }
    }

    #[test]
    fn a_directory_that_nobody_looked_at_is_unknown() {
        let check = destination(Vec::new(), Vec::new());
        let file = DiskSource::File { path: "/d/disk".to_owned() };
        for probes in [vec![], vec![probe(Ok("p"))]] {
            let views = Views { source_probes: &probes, destination: &check, source_sees: &[] };
            assert_eq!(verdict(&file, None, &views).sharing, Sharing::Unknown);
        }
    }

    #[test]
    fn block_devices_are_told_apart_by_their_identity() {
        for (here, there, expected) in [
            (Some("naa.1"), Some(Some("naa.1")), Sharing::Shared),
            (Some("naa.1"), Some(Some("naa.2")), Sharing::NotShared),
            (Some("naa.1"), Some(None), Sharing::NotShared),
            (None, Some(Some("naa.1")), Sharing::Unknown),
            (Some("naa.1"), None, Sharing::Unknown),
        ] {
            let device =
                |identity: Option<&str>| BlockDeviceCheck { path: "/dev/x".to_owned(), identity: identity.map(str::to_owned) };
            let check = destination(Vec::new(), there.map(device).into_iter().collect());
            let views = Views { source_probes: &[], destination: &check, source_sees: &[] };
            let block = DiskSource::Block { path: "/dev/x".to_owned(), identity: here.map(str::to_owned) };
            assert_eq!(verdict(&block, None, &views).sharing, expected, "{here:?} {there:?}");
        }
    }

    #[test]
    fn network_disks_and_empty_drives_need_no_probe() {
        let check = destination(Vec::new(), Vec::new());
        let views = Views { source_probes: &[], destination: &check, source_sees: &[] };
        for source in [DiskSource::Empty, DiskSource::Network { protocol: "rbd".to_owned() }] {
            assert_eq!(verdict(&source, None, &views).sharing, Sharing::Shared);
        }
    }
}
