//! What is done with each disk: Nova's decision table, disk by disk (`nova/virt/libvirt/driver.py`,
//! `check_can_live_migrate_source`), and whether what is copied fits.
//!
//! Pure.

use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{DirectoryCheck, DiskSource, GuestDisk, MigrateDisk, Sharing};

use super::directory_of;
use super::sharing::Verdict;

/// Between which hosts.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The source.
    pub source: &'a HostName,
    /// The destination.
    pub destination: &'a HostName,
}

/// Which disks are copied. `block_migration` is what was asked for: none lets each disk decide for itself.
pub fn decide(
    disks: Vec<(GuestDisk, Verdict)>,
    block_migration: Option<bool>,
    hosts: Hosts<'_>,
) -> Result<Vec<MigrateDisk>, Fault> {
    for (disk, verdict) in &disks {
        if verdict.sharing == Sharing::Unknown {
            return Err(Fault::precheck(format_args!(
                "it cannot be told whether {} share disk {} ({}): {}",
                pair(hosts),
                disk.target,
                disk.source.shown(),
                verdict.why
            )));
        }
    }
    let not_shared = |(_, verdict): &&(GuestDisk, Verdict)| verdict.sharing == Sharing::NotShared;
    if block_migration == Some(true) && !disks.iter().any(|disk| not_shared(&disk)) {
        let shared = list(disks.iter().map(|(disk, verdict)| shown(disk, verdict)));
        return Err(Fault::invalid_local_storage(hosts.source, shared));
    }
    let writable = disks.iter().filter(|(disk, _)| !disk.read_only);
    let local = list(writable.filter(not_shared).map(|(disk, verdict)| shown(disk, verdict)));
    if block_migration == Some(false) && !local.is_empty() {
        return Err(Fault::invalid_shared_storage(hosts.source, local));
    }
    disks
        .into_iter()
        .map(|(disk, verdict)| {
            let copied = verdict.sharing == Sharing::NotShared;
            if copied {
                can_be_copied(&disk, &verdict, hosts)?;
            }
            Ok(MigrateDisk { disk, sharing: verdict.sharing, copied })
        })
        .collect()
}

/// What libvirt and Drover can copy: a writable file with nothing below it.
fn can_be_copied(disk: &GuestDisk, verdict: &Verdict, hosts: Hosts<'_>) -> Result<(), Fault> {
    let (target, path, why) = (&disk.target, disk.source.shown(), &verdict.why);
    let refuse = |reason: String| Err(Fault::precheck(reason));
    if disk.read_only {
        return refuse(format!(
            "disk {target} ({path}) is read-only or shareable and not shared by {}: {why}. Such a disk is never copied; eject it or put \
             it on shared storage",
            pair(hosts)
        ));
    }
    if let Some(file) = &disk.resolves_to {
        return refuse(format!(
            "disk {target} ({path}) is a symbolic link to {file}, which is not shared by {}: {why}. Only files under their own path \
             can be copied yet",
            pair(hosts)
        ));
    }
    if !matches!(disk.source, DiskSource::File { .. }) {
        return refuse(format!(
            "block device {path} of disk {target} is not shared by {}: {why}. Only files can be copied yet",
            pair(hosts)
        ));
    }
    if let Some(backing) = &disk.backing_file {
        return refuse(format!(
            "disk {target} ({path}) is not shared and lies on {backing}: a disk with a backing file cannot be copied yet"
        ));
    }
    if !["raw", "qcow2"].contains(&disk.format.as_str()) {
        return refuse(format!(
            "disk {target} ({path}) is not shared and of format {}: only raw and qcow2 can be copied yet",
            disk.format
        ));
    }
    Ok(())
}

/// Whether the copied disks fit: with over-commit what they take now, without what they can grow to. What the destination keeps for
/// itself is already subtracted from `free_bytes`. Equal is enough, as in Nova.
pub fn check_space(
    disks: &[MigrateDisk],
    directories: &[DirectoryCheck],
    disk_over_commit: Option<bool>,
    hosts: Hosts<'_>,
) -> Result<(), Fault> {
    for check in directories {
        let here = disks.iter().filter(|disk| disk.copied && directory_of(disk.disk.source.shown()) == check.directory);
        let needed: u64 = here
            .map(|disk| match disk_over_commit {
                Some(false) => disk.disk.capacity_bytes,
                Some(true) | None => disk.disk.allocation_bytes,
            })
            .sum();
        if needed == 0 && !disks.iter().any(|disk| disk.copied && directory_of(disk.disk.source.shown()) == check.directory) {
            continue;
        }
        let Some(free) = check.free_bytes else {
            return Err(Fault::precheck(format_args!(
                "disks are to be copied to {}, which has no directory {}: create it there",
                hosts.destination, check.directory
            )));
        };
        if free < needed {
            return Err(Fault::precheck(format_args!(
                "Disk of instance is too large(available on destination host:{free} < need:{needed}) in {} on {}",
                check.directory, hosts.destination
            )));
        }
    }
    Ok(())
}

fn pair(hosts: Hosts<'_>) -> String {
    format!("{} and {}", hosts.source, hosts.destination)
}

fn shown(disk: &GuestDisk, verdict: &Verdict) -> String {
    format!("{} ({}): {}.", disk.target, disk.source.shown(), verdict.why)
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use drover_common::fault::FaultClass;
    use drover_common::rpc::latest::StorageProbe;

    use super::*;

    fn hosts() -> (HostName, HostName) {
        (HostName::new("h1").unwrap(), HostName::new("h2").unwrap())
    }

    fn disk(target: &str, read_only: bool) -> GuestDisk {
        GuestDisk {
            target: target.to_owned(),
            source: DiskSource::File { path: format!("/d/{target}") },
            read_only,
            format: "qcow2".to_owned(),
            capacity_bytes: 1000,
            allocation_bytes: 100,
            backing_file: None,
            resolves_to: None,
        }
    }

    fn outcome(disks: &[(GuestDisk, Sharing)], asked: Option<bool>) -> Result<Vec<(String, bool)>, FaultClass> {
        let (source, destination) = hosts();
        let hosts = Hosts { source: &source, destination: &destination };
        let disks = disks.iter().cloned().map(|(disk, sharing)| {
            let why = "because".to_owned();
            (disk, Verdict { sharing, why })
        });
        let decided = decide(disks.collect(), asked, hosts).map_err(|fault| fault.class)?;
        Ok(decided.into_iter().map(|disk| (disk.disk.target, disk.copied)).collect())
    }

    #[test]
    fn the_table_is_novas_disk_by_disk() {
        use FaultClass::{InvalidLocalStorage, InvalidSharedStorage, MigrationPreCheckError};
        let (shared, local, unknown) = (Sharing::Shared, Sharing::NotShared, Sharing::Unknown);
        let copied = |items: &[(&str, bool)]| Ok(items.iter().map(|(t, c)| ((*t).to_owned(), *c)).collect());
        let vda = |sharing| (disk("vda", false), sharing);
        let vdb = |sharing| (disk("vdb", false), sharing);
        let iso = |sharing| (disk("sda", true), sharing);
        for (disks, asked, expected) in [
            (vec![vda(shared)], None, copied(&[("vda", false)])),
            (vec![vda(local)], None, copied(&[("vda", true)])),
            (vec![vda(shared), vdb(local)], None, copied(&[("vda", false), ("vdb", true)])),
            (vec![], None, copied(&[])),
            (vec![vda(shared)], Some(true), Err(InvalidLocalStorage)),
            (vec![], Some(true), Err(InvalidLocalStorage)),
            (vec![vda(shared), vdb(local)], Some(true), copied(&[("vda", false), ("vdb", true)])),
            (vec![vda(shared)], Some(false), copied(&[("vda", false)])),
            (vec![vda(shared), vdb(local)], Some(false), Err(InvalidSharedStorage)),
            (vec![], Some(false), copied(&[])),
            (vec![iso(local)], None, Err(MigrationPreCheckError)),
            (vec![iso(local)], Some(false), Err(MigrationPreCheckError)),
            (vec![vda(local), iso(local)], Some(true), Err(MigrationPreCheckError)),
            (vec![vda(local), iso(shared)], Some(true), copied(&[("vda", true), ("sda", false)])),
            (vec![vda(unknown)], None, Err(MigrationPreCheckError)),
            (vec![vda(shared), iso(unknown)], Some(false), Err(MigrationPreCheckError)),
            (vec![vda(unknown)], Some(true), Err(MigrationPreCheckError)),
        ] {
            assert_eq!(outcome(&disks, asked), expected, "{disks:?} {asked:?}");
        }
    }

    #[test]
    fn what_cannot_be_copied_yet_is_refused_by_name() {
        let (source, destination) = hosts();
        let hosts = Hosts { source: &source, destination: &destination };
        let refused = |change: fn(&mut GuestDisk)| {
            let mut disk = disk("vda", false);
            change(&mut disk);
            let verdict = Verdict { sharing: Sharing::NotShared, why: "neither sees it".to_owned() };
            decide(vec![(disk, verdict)], None, hosts).unwrap_err().message
        };
        insta::assert_snapshot!(
            [
                refused(|disk| disk.read_only = true),
                refused(|disk| disk.backing_file = Some("/base/x".to_owned())),
                refused(|disk| disk.format = "vmdk".to_owned()),
                refused(|disk| {
                    disk.source = DiskSource::Block { path: "/dev/vg/x".to_owned(), identity: None };
                }),
            ]
            .join("\n")
        );
    }

    #[test]
    fn space_is_counted_per_directory_by_allocation_or_capacity() {
        let (source, destination) = hosts();
        let hosts = Hosts { source: &source, destination: &destination };
        let copied = |target: &str| MigrateDisk { disk: disk(target, false), sharing: Sharing::NotShared, copied: true };
        let directory = |free_bytes| DirectoryCheck {
            directory: "/d".to_owned(),
            sees_source: Ok(false),
            probe: StorageProbe { directory: "/d".to_owned(), written: Ok(String::new()) },
            free_bytes,
        };
        let two = [copied("vda"), copied("vdb")];
        for (over_commit, free, fits) in [
            (Some(true), Some(200), true),
            (None, Some(200), true),
            (None, Some(199), false),
            (Some(false), Some(2000), true),
            (Some(false), Some(1999), false),
            (None, None, false),
        ] {
            let checked = check_space(&two, &[directory(free)], over_commit, hosts);
            assert_eq!(checked.is_ok(), fits, "{over_commit:?} {free:?} {checked:?}");
        }
        let shared = MigrateDisk { copied: false, ..copied("vda") };
        assert!(check_space(&[shared], &[directory(None)], None, hosts).is_ok());
    }
}
