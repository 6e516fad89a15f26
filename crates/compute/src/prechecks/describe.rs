//! What a guest is, seen by its source: its XML, its disks, and everything that keeps it from being moved.

use drover_common::fault::Fault;
use drover_common::ids::ServerId;
use drover_common::rpc::latest::{
    AboutGuest, DiskSource, FileFacts, GuestDescription, GuestDisk, GuestState, HostNetwork, Image, JobKind,
};
use drover_common::telemetry;

use crate::context::Context;
use crate::domain_xml::{Disk, DiskLocation, DomainXml};
use crate::driver::{DiskUsage, DriverError, Inspection, XmlKind};
use crate::facts::{self, SeenGuest};
use crate::storage::{block_device, directories, image, probe, resolve_link};

/// Answers `describe_guest`.
pub async fn describe_guest(ctx: &Context, about: &AboutGuest) -> Result<GuestDescription, Fault> {
    let guest = look(ctx, about.server).await?;
    let disks = look_up_files(from_xml(&guest.xml.disks)).await?;
    let written = ctx.probes.write(about.migration, directories(&disks), probe::SOURCE_KEEP);
    let (usage, probes) = tokio::join!(usage(ctx, about.server, &disks), written);
    let disks = match examine(ctx, &guest, disks, usage).await {
        Ok(disks) => disks,
        Err(fault) => {
            ctx.probes.remove(about.migration).await;
            return Err(fault);
        }
    };
    ctx.described.keep(about.migration, guest.clone(), disks.clone());
    Ok(GuestDescription {
        name: guest.seen.domain.name,
        state: guest.seen.facts.state,
        persistent: guest.seen.domain.persistent,
        xml: guest.text,
        memory_mb: guest.xml.memory_mb.into(),
        disks,
        probes,
        host_cpu: ctx.host_cpu(),
        networks: guest
            .xml
            .host_networks
            .into_iter()
            .map(|name| HostNetwork { physical_network: ctx.options.physical_network(&name).map(str::to_owned), name })
            .collect(),
    })
}

/// The same guest again, with the disks that it had: as it was described a moment ago, else all questions at once.
pub async fn look_again(ctx: &Context, about: &AboutGuest, known: &[GuestDisk]) -> Result<(Guest, Vec<GuestDisk>), Fault> {
    if let Some(described) = ctx.described.take(about.migration) {
        return Ok(described);
    }
    let server = about.server;
    let (guest, usage) = tokio::join!(look(ctx, server), usage(ctx, server, known));
    let guest = guest?;
    let disks = look_up_files(from_xml(&guest.xml.disks)).await?;
    if !disks.iter().map(place).eq(known.iter().map(place)) {
        return Err(Fault::precheck(format_args!(
            "the disks of domain {} on {} changed during the checks: try again",
            guest.xml.name, ctx.options.host
        )));
    }
    let disks = examine(ctx, &guest, disks, usage).await?;
    Ok((guest, disks))
}

/// A guest that may be moved, as far as its state tells.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The domain.
    pub seen: SeenGuest,
    /// Its live XML.
    pub text: String,
    /// The same, read.
    pub xml: DomainXml,
    inspection: Inspection,
}

/// Which disk it is and where; a block device's identity is looked up later.
fn place(disk: &GuestDisk) -> (&str, &str) {
    (&disk.target, disk.data_file().unwrap_or_else(|| disk.source.shown()))
}

/// The guest, if its state is one that can be moved at all.
async fn look(ctx: &Context, server: ServerId) -> Result<Guest, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, server, Fault::precheck);
    // First of all: should the guest be arriving, libvirt keeps its XML back until it is here.
    let seen = facts::see(ctx, server).await;
    let seen = seen.map_err(failed)?.ok_or_else(|| Fault::instance_not_found(server))?;
    if !matches!(seen.facts.state, GuestState::Running | GuestState::Paused | GuestState::Suspended) {
        return Err(Fault::precheck(format_args!(
            "domain {} on {} is {}: only a guest that runs or was paused by its owner can be moved",
            seen.domain.name, ctx.options.host, seen.facts.state
        )));
    }
    let (text, inspection) = tokio::join!(ctx.driver.xml(server, XmlKind::Live), ctx.driver.inspect(server));
    let text = text.map_err(failed)?;
    let xml = DomainXml::parse(&text)
        .map_err(|error| Fault::precheck(format_args!("XML of domain {}: {}", seen.domain.name, telemetry::chain(&error))))?;
    Ok(Guest { seen, text, xml, inspection: inspection.map_err(failed)? })
}

/// The use of the disks that are on this host.
async fn usage(ctx: &Context, server: ServerId, disks: &[GuestDisk]) -> Result<Vec<DiskUsage>, DriverError> {
    let targets: Vec<String> = disks.iter().filter(|disk| is_here(disk)).map(|disk| disk.target.clone()).collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    ctx.driver.disk_usage(server, targets).await
}

fn is_here(disk: &GuestDisk) -> bool {
    matches!(disk.source, DiskSource::File { .. } | DiskSource::Block { .. })
}

/// The guest's disks with their sizes, or all that keeps the guest from being moved.
async fn examine(
    ctx: &Context,
    guest: &Guest,
    mut disks: Vec<GuestDisk>,
    usage: Result<Vec<DiskUsage>, DriverError>,
) -> Result<Vec<GuestDisk>, Fault> {
    let server = guest.seen.domain.server;
    let usage = usage.map_err(|error| error.into_fault(&ctx.options.host, server, Fault::precheck))?;
    let mut busy = Vec::new();
    for (disk, usage) in disks.iter_mut().filter(|disk| is_here(disk)).zip(usage) {
        disk.capacity_bytes = usage.capacity;
        disk.allocation_bytes = usage.allocation;
        if usage.block_job {
            busy.push(disk.target.clone());
        }
    }
    let hindrances = hindrances(&guest.seen, &guest.xml, guest.inspection, &busy);
    if !hindrances.is_empty() {
        return Err(Fault::precheck(format_args!(
            "domain {} on {} cannot be moved now: {}",
            guest.xml.name,
            ctx.options.host,
            hindrances.join("; ")
        )));
    }
    identify(&mut disks).await;
    Ok(disks)
}

/// Everything that libvirt would stumble over, by name.
fn hindrances(seen: &SeenGuest, xml: &DomainXml, inspection: Inspection, busy: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    match seen.domain.job {
        None => {}
        Some(JobKind::MigrationOut | JobKind::MigrationIn) => found.push("it is being migrated".to_owned()),
        Some(JobKind::Other) => found.push("libvirt has a job on it (backup, snapshot, dump or save)".to_owned()),
    }
    found.extend(busy.iter().map(|target| format!("a block job works on disk {target}")));
    let mirrored = xml.disks.iter().filter(|disk| disk.mirrored);
    found.extend(mirrored.map(|disk| format!("disk {} is being mirrored", disk.target)));
    found.extend(xml.disks.iter().filter_map(|disk| match &disk.location {
        DiskLocation::Other(kind) => Some(format!("disk {} is of type {kind}, which Drover cannot move yet", disk.target)),
        _ => None,
    }));
    found.extend(xml.disks.iter().filter_map(|disk| {
        let unknown = disk.chain.iter().find_map(|image| match &image.location {
            DiskLocation::Other(kind) => Some(kind),
            _ => None,
        })?;
        Some(format!("disk {} lies on an image of type {unknown}, which Drover cannot judge yet", disk.target))
    }));
    found.extend(xml.bound_to_host.iter().map(|device| format!("it uses {device}")));
    if inspection.snapshots > 0 {
        found.push(format!("libvirt has {} snapshots of it", inspection.snapshots));
    }
    if inspection.managed_save {
        found.push("a saved image of it waits (virsh managedsave-remove)".to_owned());
    }
    found.dedup();
    found
}

/// The disks as messages carry them, without what has to be asked for.
fn from_xml(disks: &[Disk]) -> Vec<GuestDisk> {
    let known = disks.iter().filter_map(|disk| {
        let images = disk.chain.iter().filter_map(|image| {
            let (source, format) = (source_of(&image.location)?, image.format.clone());
            Some(Image { source, format, resolves_to: None, file: None })
        });
        let chain: Vec<Image> = images.collect();
        Some(GuestDisk {
            target: disk.target.clone(),
            source: source_of(&disk.location)?,
            read_only: disk.read_only,
            shareable: disk.shareable,
            format: disk.format.clone(),
            capacity_bytes: 0,
            allocation_bytes: 0,
            backing_file: chain.first().map(|image| image.source.shown().to_owned()),
            resolves_to: None,
            chain,
            not_copyable: disk.not_copyable.clone(),
            file: None,
        })
    });
    known.collect()
}

/// None for what cannot be judged: such a guest is refused ([`hindrances`]).
fn source_of(location: &DiskLocation) -> Option<DiskSource> {
    Some(match location {
        DiskLocation::File(path) => DiskSource::File { path: path.clone() },
        DiskLocation::Block(path) => DiskSource::Block { path: path.clone(), identity: None },
        DiskLocation::Network(protocol) => DiskSource::Network { protocol: protocol.clone() },
        DiskLocation::Empty => DiskSource::Empty,
        DiskLocation::Other(_) => return None,
    })
}

/// Looks up which paths are symbolic links, and what the files are.
async fn look_up_files(mut disks: Vec<GuestDisk>) -> Result<Vec<GuestDisk>, Fault> {
    if disks.iter().flat_map(GuestDisk::images).all(|(source, _, _)| source.data_file(None).is_none()) {
        return Ok(disks);
    }
    let looking = tokio::task::spawn_blocking(move || {
        for disk in &mut disks {
            (disk.resolves_to, disk.file) = look_up(&disk.source);
            for image in &mut disk.chain {
                (image.resolves_to, image.file) = look_up(&image.source);
            }
        }
        disks
    });
    looking.await.map_err(Fault::unexpected)
}

fn look_up(source: &DiskSource) -> (Option<String>, Option<FileFacts>) {
    let Some(path) = source.data_file(None) else { return (None, None) };
    (resolve_link(path), image::facts(path))
}

/// Looks up what tells each block device apart.
async fn identify(disks: &mut [GuestDisk]) {
    for disk in disks {
        let below = disk.chain.iter_mut().map(|image| &mut image.source);
        for source in std::iter::once(&mut disk.source).chain(below) {
            if let DiskSource::Block { path, identity } = source {
                let path = path.clone();
                *identity = tokio::task::spawn_blocking(move || block_device::identity(&path)).await.unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Domain, RunState};

    #[test]
    fn everything_that_is_in_the_way_is_named_at_once() {
        let xml = "<domain type='kvm'><name>g</name><memory>1</memory><devices>\
            <disk type='file'><source file='/d/a'/><target dev='vda'/></disk>\
            <disk type='file'><source file='/d/b'/><mirror/><target dev='vdb'/></disk>\
            <disk type='nvme'><source/><target dev='vdc'/></disk>\
            <disk type='file'><source file='/d/d'/><backingStore type='vhostuser'><source/></backingStore><target dev='vdd'/></disk>\
            <hostdev type='pci'><alias name='hostdev0'/></hostdev></devices></domain>";
        let seen = SeenGuest::from(Domain {
            server: ServerId::random(),
            name: "g".to_owned(),
            state: RunState::Running,
            persistent: true,
            job: Some(JobKind::Other),
            marker: None,
        });
        let xml = DomainXml::parse(xml).unwrap();
        let inspection = Inspection { snapshots: 2, managed_save: true };
        insta::assert_snapshot!(hindrances(&seen, &xml, inspection, &["vda".to_owned()]).join("\n"));
        assert_eq!(from_xml(&xml.disks).len(), 3);
    }
}
