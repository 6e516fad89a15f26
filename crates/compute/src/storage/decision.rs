//! What is done with each disk: Nova's decision table, disk by disk (`nova/virt/libvirt/driver.py`,
//! `check_can_live_migrate_source`), and whether what is moved fits.
//!
//! Pure.
//!
//! | disk | what is done |
//! | --- | --- |
//! | both hosts see it | nothing; the images below it must be there, too |
//! | local, writable, stands alone | libvirt copies it |
//! | local, writable, the destination has the images below it | libvirt copies what the disk itself holds: *kept* |
//! | local, writable, lies on images that the destination lacks | libvirt copies all of it into a disk that stands alone: *flattened* |
//! | local, read-only, the destination has the same content under its path | nothing |
//! | local, read-only, small | it is carried over before the start |
//! | anything else | refused, by name and with what to do |
//!
//! libvirt copies all disks of a guest either whole or without what lies below them, so one disk that has to be flattened takes the
//! others with it.

use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{Below, DirectoryCheck, DiskSource, FileFacts, GuestDisk, MigrateDisk, Sharing};

use super::directory_of;
use super::image::Content;
use super::sharing::Verdict;

/// Between which hosts.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The source.
    pub source: &'a HostName,
    /// The destination.
    pub destination: &'a HostName,
}

/// What the source's options and the destination's agent allow.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Copying what a disk itself holds, without what lies below it (`VIR_MIGRATE_NON_SHARED_INC`).
    pub top_only: bool,
    /// The largest read-only file that is carried over, in bytes.
    pub carried_bytes_max: u64,
    /// Whether the destination's agent takes files that are carried over.
    pub carrying: bool,
}

/// A disk and what was found out about it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The disk.
    pub disk: GuestDisk,
    /// Whether both hosts see the same data.
    pub verdict: Verdict,
    /// What the destination has under its path; asked of read-only disks only.
    pub there: Content,
    /// Whether the destination has all images below it, and how; or what it lacks.
    pub below: Result<String, String>,
}

/// Which disks are moved, and how. `block_migration` is what was asked for: none lets each disk decide for itself.
pub fn decide(
    disks: Vec<Judged>,
    block_migration: Option<bool>,
    allowed: Allowed,
    hosts: Hosts<'_>,
) -> Result<Vec<MigrateDisk>, Fault> {
    for Judged { disk, verdict, .. } in &disks {
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
    let not_shared = |judged: &&Judged| judged.verdict.sharing == Sharing::NotShared;
    if block_migration == Some(true) && !disks.iter().any(|disk| not_shared(&disk)) {
        return Err(Fault::invalid_local_storage(hosts.source, list(disks.iter().map(shown))));
    }
    // As in Nova a config drive counts as local; what the destination has of its own need not be moved.
    let to_be_moved = |judged: &&Judged| !judged.disk.read_only || judged.there != Content::Same;
    let local = list(disks.iter().filter(not_shared).filter(to_be_moved).map(shown));
    if block_migration == Some(false) && !local.is_empty() {
        return Err(Fault::invalid_shared_storage(hosts.source, local));
    }
    let decided = disks.into_iter().map(|judged| treatment(judged, allowed, hosts));
    let mut decided = decided.collect::<Result<Vec<MigrateDisk>, Fault>>()?;
    flatten_all_or_none(&mut decided);
    Ok(decided)
}

fn treatment(judged: Judged, allowed: Allowed, hosts: Hosts<'_>) -> Result<MigrateDisk, Fault> {
    let Judged { disk, verdict, there, below } = judged;
    let stays = |disk, why| MigrateDisk { disk, sharing: verdict.sharing, copied: false, carried: false, below: None, why };
    if verdict.sharing == Sharing::Shared {
        needs_chain(&disk, &below, hosts)?;
        return Ok(stays(disk, verdict.why));
    }
    if disk.read_only && !disk.shareable {
        needs_chain(&disk, &below, hosts)?;
        if there == Content::Same {
            let why = format!("{} has the same content under this path", hosts.destination);
            return Ok(stays(disk, why));
        }
        can_be_carried(&disk, &verdict, &there, allowed, hosts)?;
        let why = format!("read-only, and {there}");
        return Ok(MigrateDisk { carried: true, ..stays(disk, why) });
    }
    can_be_copied(&disk, &verdict, hosts)?;
    let (chain, why) = if disk.chain.is_empty() { (None, verdict.why) } else { what_becomes_of_chain(&disk, below, allowed) };
    Ok(MigrateDisk { disk, sharing: verdict.sharing, copied: true, carried: false, below: chain, why })
}

fn what_becomes_of_chain(disk: &GuestDisk, below: Result<String, String>, allowed: Allowed) -> (Option<Below>, String) {
    let base = disk.chain.first().map(|image| &image.source);
    match below {
        Err(why) => (Some(Below::Flattened), why),
        Ok(_) if !allowed.top_only => {
            (Some(Below::Flattened), "block_migration_flag has VIR_MIGRATE_NON_SHARED_DISK: disks are copied whole".to_owned())
        }
        Ok(_) if !matches!(base, Some(DiskSource::File { .. } | DiskSource::Block { .. })) => {
            (Some(Below::Flattened), "no disk can be made on an image that is neither a file nor a block device".to_owned())
        }
        Ok(why) => (Some(Below::Kept), why),
    }
}

/// Copied whole, a disk is right also on the images below it, but they were of no use.
fn flatten_all_or_none(disks: &mut [MigrateDisk]) {
    let first = disks.iter().find(|disk| disk.below == Some(Below::Flattened)).map(|disk| disk.disk.target.clone());
    let Some(first) = first else { return };
    for disk in disks.iter_mut().filter(|disk| disk.below == Some(Below::Kept)) {
        disk.below = Some(Below::Flattened);
        disk.why = format!("{first} has to be copied whole, and libvirt copies all disks of a guest the same way");
    }
}

/// What stays where it is needs the images below it on the destination.
fn needs_chain(disk: &GuestDisk, below: &Result<String, String>, hosts: Hosts<'_>) -> Result<(), Fault> {
    let Err(why) = below else { return Ok(()) };
    Err(Fault::precheck(format_args!(
        "disk {} ({}) lies on images that {} does not have: {why}. Put the same image there, or let both hosts share it",
        disk.target,
        disk.source.shown(),
        hosts.destination
    )))
}

/// What the agents can carry over: a file of modest size that the destination has not.
fn can_be_carried(disk: &GuestDisk, verdict: &Verdict, there: &Content, allowed: Allowed, hosts: Hosts<'_>) -> Result<(), Fault> {
    let refuse = |reason: String| {
        Err(Fault::precheck(format_args!(
            "disk {} ({}) is read-only and not shared by {}: {}. libvirt copies no such disk, and {reason}; eject it, put it on shared \
             storage, or put the same file under this path on {}",
            disk.target,
            disk.source.shown(),
            pair(hosts),
            verdict.why,
            hosts.destination
        )))
    };
    if !matches!(disk.source, DiskSource::File { .. }) {
        return refuse("only files can be carried over".to_owned());
    }
    if let Some(file) = &disk.resolves_to {
        return refuse(format!("it is a symbolic link to {file}"));
    }
    if !allowed.carrying {
        return refuse(format!("the agent of {} is too old to have it carried over", hosts.destination));
    }
    let Some(file) = &disk.file else {
        return refuse("its size is not known".to_owned());
    };
    if file.bytes > allowed.carried_bytes_max {
        let (bytes, most) = (file.bytes, allowed.carried_bytes_max);
        return refuse(format!("it is too large to be carried over ({bytes} bytes; read_only_disk_copy_limit_mb allows {most})"));
    }
    if let Content::Other(why) = there {
        return refuse(format!("what is there under its name is in the way: {why}"));
    }
    Ok(())
}

/// What libvirt and Drover can copy: a file in raw or qcow2 that one guest writes to.
fn can_be_copied(disk: &GuestDisk, verdict: &Verdict, hosts: Hosts<'_>) -> Result<(), Fault> {
    let (target, path, why) = (&disk.target, disk.source.shown(), &verdict.why);
    let refuse = |reason: String| Err(Fault::precheck(reason));
    if disk.shareable {
        return refuse(format!(
            "disk {target} ({path}) is shareable and not shared by {}: {why}. Other guests may write to it, so it is never copied; put it \
             on shared storage",
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
    if !["raw", "qcow2"].contains(&disk.format.as_str()) {
        return refuse(format!(
            "disk {target} ({path}) is not shared and of format {}: only raw and qcow2 can be copied yet",
            disk.format
        ));
    }
    if let Some(why) = &disk.not_copyable {
        return refuse(format!("disk {target} ({path}) is not shared, and {why}: such a disk cannot be copied yet"));
    }
    Ok(())
}

/// Whether what is moved fits: with over-commit what it takes now, without what it can grow to (Nova's `disk_size` and
/// `virt_disk_size`). A disk that loses the images below it takes what they hold, too. What the destination keeps for itself is already
/// subtracted from `free_bytes`. Equal is enough, as in Nova.
pub fn check_space(
    disks: &[MigrateDisk],
    directories: &[DirectoryCheck],
    disk_over_commit: Option<bool>,
    hosts: Hosts<'_>,
) -> Result<(), Fault> {
    let moved = || disks.iter().filter(|disk| disk.copied || disk.carried);
    let is_in = |disk: &MigrateDisk, check: &DirectoryCheck| directory_of(disk.disk.source.shown()) == check.directory;
    for check in directories.iter().filter(|check| moved().any(|disk| is_in(disk, check))) {
        let Some(free) = check.free_bytes else {
            return Err(Fault::precheck(format_args!(
                "disks are to be copied to {}, which has no directory {}: create it there",
                hosts.destination, check.directory
            )));
        };
        // Directories of one file system have its free space together.
        let shares = |other: &&DirectoryCheck| {
            other.directory == check.directory || (other.device.is_some() && other.device == check.device)
        };
        let together = moved().filter(|disk| directories.iter().filter(shares).any(|other| is_in(disk, other)));
        let needed: u64 = together.map(|disk| needed_bytes(disk, disk_over_commit)).sum();
        if free < needed {
            return Err(Fault::precheck(format_args!(
                "Disk of instance is too large(available on destination host:{free} < need:{needed}) in {} on {}",
                check.directory, hosts.destination
            )));
        }
    }
    Ok(())
}

fn needed_bytes(moved: &MigrateDisk, disk_over_commit: Option<bool>) -> u64 {
    let disk = &moved.disk;
    if moved.carried {
        return disk.file.as_ref().map_or(disk.capacity_bytes, |file| file.bytes);
    }
    if disk_over_commit == Some(false) {
        return disk.capacity_bytes;
    }
    if moved.below != Some(Below::Flattened) {
        return disk.allocation_bytes;
    }
    // Of an image below that is no file nobody knows how much is in use: all of it may be.
    let allocated = |file: Option<&FileFacts>| file.map(|file| file.allocated_bytes);
    let below = disk.chain.iter().map(|image| allocated(image.file.as_ref())).sum::<Option<u64>>();
    below.map_or(disk.capacity_bytes, |below| disk.allocation_bytes.saturating_add(below).min(disk.capacity_bytes))
}

fn pair(hosts: Hosts<'_>) -> String {
    format!("{} and {}", hosts.source, hosts.destination)
}

fn shown(Judged { disk, verdict, .. }: &Judged) -> String {
    format!("{} ({}): {}.", disk.target, disk.source.shown(), verdict.why)
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use drover_common::fault::FaultClass;
    use drover_common::rpc::latest::{Image, StorageProbe};

    use super::*;

    const ALLOWED: Allowed = Allowed { top_only: true, carried_bytes_max: 1000, carrying: true };

    fn names() -> (HostName, HostName) {
        (HostName::new("h1").unwrap(), HostName::new("h2").unwrap())
    }

    fn file(bytes: u64) -> FileFacts {
        FileFacts { bytes, allocated_bytes: bytes, inode: 1, made_ns: None }
    }

    fn disk(target: &str, sharing: Sharing) -> Judged {
        let disk = GuestDisk {
            target: target.to_owned(),
            source: DiskSource::File { path: format!("/d/{target}") },
            read_only: false,
            shareable: false,
            format: "qcow2".to_owned(),
            capacity_bytes: 1000,
            allocation_bytes: 100,
            backing_file: None,
            resolves_to: None,
            chain: Vec::new(),
            not_copyable: None,
            file: Some(file(500)),
        };
        let verdict = Verdict { sharing, why: "because".to_owned() };
        Judged { disk, verdict, there: Content::Other("it was not asked".to_owned()), below: Ok("nothing is below it".to_owned()) }
    }

    fn read_only(target: &str, sharing: Sharing, there: Content) -> Judged {
        let mut judged = disk(target, sharing);
        (judged.disk.read_only, judged.there) = (true, there);
        judged
    }

    fn overlay(target: &str, sharing: Sharing, below: Result<&str, &str>) -> Judged {
        let mut judged = disk(target, sharing);
        let source = DiskSource::File { path: "/base/x".to_owned() };
        judged.disk.chain = vec![Image { source, format: "raw".to_owned(), resolves_to: None, file: Some(file(700)) }];
        judged.below = below.map(str::to_owned).map_err(str::to_owned);
        judged
    }

    fn absent() -> Content {
        Content::Absent("h2 has no such file".to_owned())
    }

    fn decided(disks: Vec<Judged>, asked: Option<bool>, allowed: Allowed) -> Result<Vec<MigrateDisk>, Fault> {
        let (source, destination) = names();
        decide(disks, asked, allowed, Hosts { source: &source, destination: &destination })
    }

    /// What is done with each disk, in a word.
    fn outcome(disks: Vec<Judged>, asked: Option<bool>) -> Result<Vec<&'static str>, FaultClass> {
        let decided = decided(disks, asked, ALLOWED).map_err(|fault| fault.class)?;
        Ok(decided.iter().map(MigrateDisk::treatment).collect())
    }

    #[test]
    fn the_table_is_novas_disk_by_disk() {
        use FaultClass::{InvalidLocalStorage, InvalidSharedStorage, MigrationPreCheckError};
        let (shared, local, unknown) = (Sharing::Shared, Sharing::NotShared, Sharing::Unknown);
        let vda = |sharing| disk("vda", sharing);
        let vdb = |sharing| disk("vdb", sharing);
        let iso = |sharing| read_only("sda", sharing, absent());
        let library = |sharing| read_only("sda", sharing, Content::Same);
        for (disks, asked, expected) in [
            (vec![vda(shared)], None, Ok(vec!["stays"])),
            (vec![vda(local)], None, Ok(vec!["copied"])),
            (vec![vda(shared), vdb(local)], None, Ok(vec!["stays", "copied"])),
            (vec![], None, Ok(vec![])),
            (vec![vda(shared)], Some(true), Err(InvalidLocalStorage)),
            (vec![], Some(true), Err(InvalidLocalStorage)),
            (vec![vda(shared), vdb(local)], Some(true), Ok(vec!["stays", "copied"])),
            (vec![vda(shared)], Some(false), Ok(vec!["stays"])),
            (vec![vda(shared), vdb(local)], Some(false), Err(InvalidSharedStorage)),
            (vec![], Some(false), Ok(vec![])),
            (vec![iso(local)], None, Ok(vec!["carried"])),
            (vec![iso(local)], Some(false), Err(InvalidSharedStorage)),
            (vec![vda(local), iso(local)], Some(true), Ok(vec!["copied", "carried"])),
            (vec![vda(local), iso(shared)], Some(true), Ok(vec!["copied", "stays"])),
            (vec![vda(shared), library(local)], Some(false), Ok(vec!["stays", "stays"])),
            (vec![vda(shared), library(local)], None, Ok(vec!["stays", "stays"])),
            (vec![vda(unknown)], None, Err(MigrationPreCheckError)),
            (vec![vda(shared), iso(unknown)], Some(false), Err(MigrationPreCheckError)),
            (vec![vda(unknown)], Some(true), Err(MigrationPreCheckError)),
        ] {
            let shown = format!("{disks:?} {asked:?}");
            assert_eq!(outcome(disks, asked), expected, "{shown}");
        }
    }

    #[test]
    fn an_overlay_keeps_what_the_destination_has_below_it_and_is_flattened_otherwise() {
        let (shared, local) = (Sharing::Shared, Sharing::NotShared);
        let (has, lacks) = (Ok("both see /base"), Err("h2 has no /base/x"));
        let vda = |below| overlay("vda", local, below);
        let vdb = |below| overlay("vdb", local, below);
        for (disks, expected) in [
            (vec![vda(has)], Ok(vec!["kept"])),
            (vec![vda(lacks)], Ok(vec!["flattened"])),
            (vec![vda(has), disk("vdb", local)], Ok(vec!["kept", "copied"])),
            (vec![vda(lacks), disk("vdb", local)], Ok(vec!["flattened", "copied"])),
            (vec![vda(has), vdb(lacks)], Ok(vec!["flattened", "flattened"])),
            (vec![overlay("vda", shared, has)], Ok(vec!["stays"])),
            (vec![overlay("vda", shared, lacks)], Err(FaultClass::MigrationPreCheckError)),
        ] {
            let shown = format!("{disks:?}");
            assert_eq!(outcome(disks, None), expected, "{shown}");
        }
        let whole = Allowed { top_only: false, ..ALLOWED };
        let flattened = decided(vec![vda(has)], None, whole).unwrap();
        assert!(flattened[0].why.contains("VIR_MIGRATE_NON_SHARED_DISK"), "{}", flattened[0].why);
        let mut on_rbd = vda(has);
        on_rbd.disk.chain[0].source = DiskSource::Network { protocol: "rbd".to_owned() };
        assert_eq!(outcome(vec![on_rbd], None), Ok(vec!["flattened"]));
        let together = decided(vec![vda(has), vdb(lacks)], None, ALLOWED).unwrap();
        assert_eq!(together[0].why, "vdb has to be copied whole, and libvirt copies all disks of a guest the same way");
        assert_eq!(together[1].why, "h2 has no /base/x");
    }

    #[test]
    fn what_cannot_be_moved_is_refused_by_name() {
        let refused = |change: fn(&mut Judged)| {
            let mut judged = disk("vda", Sharing::NotShared);
            judged.there = absent();
            change(&mut judged);
            decided(vec![judged], None, ALLOWED).unwrap_err().message
        };
        let old = Allowed { carrying: false, ..ALLOWED };
        let told = [
            refused(|judged| (judged.disk.read_only, judged.disk.shareable) = (true, true)),
            refused(|judged| (judged.disk.read_only, judged.disk.file) = (true, Some(file(1001)))),
            refused(|judged| {
                (judged.disk.read_only, judged.there) = (true, Content::Other("/d/vda on h2 has another content".to_owned()));
            }),
            refused(|judged| (judged.disk.read_only, judged.disk.resolves_to) = (true, Some("/e/iso".to_owned()))),
            decided(vec![read_only("sda", Sharing::NotShared, absent())], None, old).unwrap_err().message,
            decided(vec![overlay("vda", Sharing::Shared, Err("h2 has no /base/x"))], None, ALLOWED).unwrap_err().message,
            refused(|judged| judged.disk.format = "vmdk".to_owned()),
            refused(|judged| judged.disk.not_copyable = Some("it is encrypted".to_owned())),
            refused(|judged| judged.disk.source = DiskSource::Block { path: "/dev/vg/x".to_owned(), identity: None }),
        ];
        insta::assert_snapshot!(told.join("\n"));
    }

    fn directory(directory: &str, free_bytes: Option<u64>, device: Option<u64>) -> DirectoryCheck {
        let probe = StorageProbe { directory: directory.to_owned(), written: Ok(String::new()) };
        DirectoryCheck { directory: directory.to_owned(), sees_source: Ok(false), probe, free_bytes, device }
    }

    fn fits(disks: &[MigrateDisk], directories: &[DirectoryCheck], over_commit: Option<bool>) -> bool {
        let (source, destination) = names();
        check_space(disks, directories, over_commit, Hosts { source: &source, destination: &destination }).is_ok()
    }

    #[test]
    fn space_is_counted_per_directory_by_allocation_or_capacity() {
        let local = Sharing::NotShared;
        let two = decided(vec![disk("vda", local), disk("vdb", local)], None, ALLOWED).unwrap();
        for (over_commit, free, expected) in [
            (Some(true), Some(200), true),
            (None, Some(200), true),
            (None, Some(199), false),
            (Some(false), Some(2000), true),
            (Some(false), Some(1999), false),
            (None, None, false),
        ] {
            assert_eq!(fits(&two, &[directory("/d", free, None)], over_commit), expected, "{over_commit:?} {free:?}");
        }
        let shared = decided(vec![disk("vda", Sharing::Shared)], None, ALLOWED).unwrap();
        assert!(fits(&shared, &[directory("/d", None, None)], None));
    }

    #[test]
    fn a_chain_counts_when_it_is_flattened_and_a_carried_file_by_its_length() {
        let local = Sharing::NotShared;
        let needs = |judged, over_commit| {
            let disks = decided(vec![judged], None, ALLOWED).unwrap();
            (0..2000).find(|free| fits(&disks, &[directory("/d", Some(*free), None)], over_commit)).unwrap()
        };
        assert_eq!(needs(overlay("vda", local, Ok("shared")), None), 100);
        assert_eq!(needs(overlay("vda", local, Err("absent")), None), 800);
        assert_eq!(needs(overlay("vda", local, Err("absent")), Some(false)), 1000);
        assert_eq!(needs(read_only("sda", local, absent()), None), 500);
        let mut larger_below = overlay("vda", local, Err("absent"));
        larger_below.disk.chain[0].file = Some(file(5000));
        assert_eq!(needs(larger_below, None), 1000, "a copy is never larger than the disk");
        let mut no_file_below = overlay("vda", local, Err("absent"));
        no_file_below.disk.chain[0].file = None;
        assert_eq!(needs(no_file_below, None), 1000, "nobody knows what is in it");
    }

    #[test]
    fn directories_on_one_file_system_share_its_space() {
        let mut other = disk("vdb", Sharing::NotShared);
        other.disk.source = DiskSource::File { path: "/e/vdb".to_owned() };
        let two = decided(vec![disk("vda", Sharing::NotShared), other], None, ALLOWED).unwrap();
        let on = |first, second, free| [directory("/d", Some(free), first), directory("/e", Some(free), second)];
        assert!(fits(&two, &on(Some(1), Some(2), 100), None));
        assert!(!fits(&two, &on(Some(1), Some(1), 199), None));
        assert!(fits(&two, &on(Some(1), Some(1), 200), None));
        assert!(fits(&two, &on(None, None, 100), None), "an older agent does not say");
    }
}
