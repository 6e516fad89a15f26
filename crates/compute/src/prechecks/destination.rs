//! Whether this host can take a guest, seen by a candidate.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{
    BlockDeviceCheck, CheckDestination, DestinationCheck, DirectoryCheck, DiskSource, FileFacts, GuestDescription, GuestDisk,
    ImageCheck, LinkCheck, StorageProbe,
};
use futures::future::join_all;

use super::{connections, cpu, post_copy, reach};
use crate::context::Context;
use crate::domain_xml::{DomainXml, cpu_element};
use crate::driver::DriverError;
use crate::facts;
use crate::storage::{block_device, device, directories, directory_of, free_bytes, image, probe, resolve_link};
use crate::stream;

/// Answers `check_can_live_migrate_destination`.
pub async fn check(ctx: &Context, question: &CheckDestination) -> Result<DestinationCheck, Fault> {
    let guest = &question.guest;
    let unreadable = |error| Fault::precheck(format_args!("XML of the guest: {}", drover_common::telemetry::chain(&error)));
    let xml = DomainXml::parse(&guest.xml).map_err(unreadable)?;
    let cpu = cpu_element(&guest.xml).map_err(unreadable)?;
    let (can_run, is_free, (directories, images), block_devices, links, port, stream) = tokio::join!(
        cpu::check(ctx, &xml.machine, cpu, guest.host_cpu.as_deref()),
        name_and_uuid_are_free(ctx, question),
        check_files(ctx, question),
        check_block_devices(guest),
        check_links(guest),
        reach::offer_port(ctx.options.migration_ports.clone()),
        stream::own_end(ctx),
    );
    let networks = connections::networks(&ctx.options, guest, &xml);
    let consoles = connections::consoles(&ctx.options, question.migration, &xml);
    let found = can_run.and(is_free).and(networks).and_then(|networks| Ok((networks, consoles?))).and_then(|connected| {
        let port = port.ok_or_else(|| {
            let ports = &ctx.options.migration_ports;
            Fault::precheck(format_args!(
                "no port from {} to {} is free on {} for the memory stream",
                ports.start(),
                ports.end(),
                ctx.options.host
            ))
        });
        Ok((port?, connected))
    });
    if found.is_err() {
        ctx.probes.remove(question.migration).await;
    }
    let (port, (networks, consoles)) = found?;
    Ok(DestinationCheck {
        connect_address: ctx.options.connect_address().to_owned(),
        inbound_address_set: ctx.options.live_migration_inbound_addr.is_some(),
        migration_port_probe: Some(port.keep()),
        directories,
        block_devices,
        graphics_listen_addr_vnc: ctx.options.vnc_server_listen.clone(),
        graphics_listen_addr_spice: ctx.options.spice_server_listen.clone(),
        links,
        no_post_copy: ctx.qemu().and_then(post_copy::look),
        stream: Some(stream),
        images: Some(images),
        networks,
        consoles,
    })
}

/// libvirt takes an incoming guest only if its UUID does not run here and its name is not another's.
async fn name_and_uuid_are_free(ctx: &Context, question: &CheckDestination) -> Result<(), Fault> {
    let host = &ctx.options.host;
    let failed = |error: DriverError| error.into_fault(host, question.server, Fault::precheck);
    let (here, named) = tokio::join!(facts::see(ctx, question.server), ctx.driver.named(question.guest.name.clone()));
    if let Some(here) = here.map_err(failed)? {
        if here.facts.state.is_active() {
            return Err(Fault::precheck(format_args!(
                "{host} has a domain with the UUID of the instance already: {} is {}",
                here.domain.name, here.facts.state
            )));
        }
        if here.domain.name != question.guest.name {
            return Err(Fault::precheck(format_args!(
                "{host} has the instance's UUID defined under another name: {}",
                here.domain.name
            )));
        }
    }
    match named.map_err(failed)? {
        Some(other) if other != question.server => Err(Fault::precheck(format_args!(
            "{host} has another domain with the name {}: its UUID is {other}",
            question.guest.name
        ))),
        _ => Ok(()),
    }
}

/// The directories of the guest's images, and those of its files that this host may have of its own.
async fn check_files(ctx: &Context, question: &CheckDestination) -> (Vec<DirectoryCheck>, Vec<ImageCheck>) {
    let directories = check_directories(ctx, question).await;
    let mut files: Vec<(&str, Option<&FileFacts>)> = Vec::new();
    for (path, file) in of_its_own(&question.guest) {
        if !files.iter().any(|(known, _)| *known == path) {
            files.push((path, file));
        }
    }
    let looks_shared = |path: &str| {
        let check = directories.iter().find(|check| check.directory == directory_of(path));
        check.is_some_and(|check| check.sees_source == Ok(true))
    };
    // All at once: each waits only so long for its digest.
    let images = join_all(files.into_iter().map(|(path, file)| check_image(ctx, path, file, looks_shared(path)))).await;
    (directories, images)
}

async fn check_image(ctx: &Context, path: &str, source: Option<&FileFacts>, looks_shared: bool) -> ImageCheck {
    let asked = path.to_owned();
    let here = tokio::task::spawn_blocking(move || image::facts(&asked)).await.unwrap_or_default();
    let is_same_length = here.as_ref().zip(source).is_some_and(|(here, source)| here.bytes == source.bytes);
    let compares = is_same_length && !looks_shared;
    let digest = if compares { Some(ctx.digests.get(path.to_owned()).await) } else { None };
    ImageCheck { path: path.to_owned(), bytes: here.map(|here| here.bytes), digest }
}

/// Files that may have the same content on both hosts without being shared: nobody writes to them.
fn of_its_own(guest: &GuestDescription) -> impl Iterator<Item = (&str, Option<&FileFacts>)> {
    guest.disks.iter().flat_map(|disk| {
        let skipped = usize::from(!disk.read_only || disk.shareable); // The disk itself, if it is written to.
        let images = disk.images().skip(skipped);
        images.filter_map(|(source, _, file)| Some((source.data_file(None)?, file)))
    })
}

/// Looks for the source's probes and writes our own beside them.
async fn check_directories(ctx: &Context, question: &CheckDestination) -> Vec<DirectoryCheck> {
    let wanted = directories(&question.guest.disks);
    if wanted.is_empty() {
        return Vec::new();
    }
    let (source_probes, reserved) = (question.guest.probes.clone(), ctx.options.reserved_host_disk_bytes);
    let (asked, own) = (wanted.clone(), ctx.probes.write(question.migration, wanted, probe::DESTINATION_KEEP));
    let looks = tokio::task::spawn_blocking(move || {
        asked.into_iter().map(|directory| look(directory, &source_probes, reserved)).collect::<Vec<_>>()
    });
    let (own, looks) = tokio::join!(own, looks);
    let both = looks.unwrap_or_default().into_iter().zip(own);
    both.map(|(look, probe)| DirectoryCheck {
        directory: look.directory,
        sees_source: look.sees_source,
        probe,
        free_bytes: look.free_bytes,
        device: look.device,
    })
    .collect()
}

struct Look {
    directory: String,
    sees_source: Result<bool, String>,
    free_bytes: Option<u64>,
    device: Option<u64>,
}

fn look(directory: String, source_probes: &[StorageProbe], reserved: u64) -> Look {
    let free_bytes = free_bytes(&directory).map(|free| free.saturating_sub(reserved));
    let sees_source = match source_probes.iter().find(|probe| probe.directory == directory) {
        Some(probe) => probe::sees(probe),
        None => Err("the source wrote no probe there".to_owned()),
    };
    Look { device: device(&directory), directory, sees_source, free_bytes }
}

/// Which of the guest's files are symbolic links here.
async fn check_links(guest: &GuestDescription) -> Vec<LinkCheck> {
    let paths = paths(guest, |source| source.data_file(None));
    if paths.is_empty() {
        return Vec::new();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let check = |path: String| Some(LinkCheck { resolves_to: resolve_link(&path)?, path });
        paths.into_iter().filter_map(check).collect()
    });
    looked.await.unwrap_or_default()
}

async fn check_block_devices(guest: &GuestDescription) -> Vec<BlockDeviceCheck> {
    let paths = paths(guest, |source| match source {
        DiskSource::Block { path, .. } => Some(path),
        _ => None,
    });
    if paths.is_empty() {
        return Vec::new();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let check = |path: String| BlockDeviceCheck { identity: block_device::identity(&path), path };
        paths.into_iter().map(check).collect()
    });
    looked.await.unwrap_or_default()
}

/// Paths of the guest's images, those below its disks included, each once.
fn paths(guest: &GuestDescription, which: impl Fn(&DiskSource) -> Option<&str>) -> Vec<String> {
    let images = guest.disks.iter().flat_map(GuestDisk::images);
    let mut paths: Vec<String> = images.filter_map(|(source, _, _)| which(source).map(str::to_owned)).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}
