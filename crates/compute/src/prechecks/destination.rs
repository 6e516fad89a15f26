//! Whether this host can take a guest, seen by a candidate.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{
    BlockDeviceCheck, CheckDestination, DestinationCheck, DirectoryCheck, DiskSource, GuestDescription, LinkCheck, StorageProbe,
};

use super::{cpu, post_copy, reach};
use crate::context::Context;
use crate::domain_xml::{DomainXml, cpu_element};
use crate::driver::DriverError;
use crate::facts;
use crate::storage::{block_device, directories, free_bytes, probe, resolve_link};
use crate::stream;

/// Answers `check_can_live_migrate_destination`.
pub async fn check(ctx: &Context, question: &CheckDestination) -> Result<DestinationCheck, Fault> {
    let guest = &question.guest;
    let unreadable = |error| Fault::precheck(format_args!("XML of the guest: {}", drover_common::telemetry::chain(&error)));
    let xml = DomainXml::parse(&guest.xml).map_err(unreadable)?;
    let cpu = cpu_element(&guest.xml).map_err(unreadable)?;
    let (can_run, is_free, directories, block_devices, links, port, stream) = tokio::join!(
        cpu::check(ctx, &xml.machine, cpu, guest.host_cpu.as_deref()),
        name_and_uuid_are_free(ctx, question),
        check_directories(ctx, question),
        check_block_devices(guest),
        check_links(guest),
        reach::offer_port(ctx.options.migration_ports.clone()),
        stream::own_end(ctx),
    );
    let found = can_run.and(is_free).and_then(|()| {
        port.ok_or_else(|| {
            let ports = &ctx.options.migration_ports;
            Fault::precheck(format_args!(
                "no port from {} to {} is free on {} for the memory stream",
                ports.start(),
                ports.end(),
                ctx.options.host
            ))
        })
    });
    if found.is_err() {
        ctx.probes.remove(question.migration).await;
    }
    Ok(DestinationCheck {
        connect_address: ctx.options.connect_address().to_owned(),
        inbound_address_set: ctx.options.live_migration_inbound_addr.is_some(),
        migration_port_probe: Some(found?.keep()),
        directories,
        block_devices,
        graphics_listen_addr_vnc: ctx.options.vnc_server_listen.clone(),
        graphics_listen_addr_spice: ctx.options.spice_server_listen.clone(),
        links,
        no_post_copy: ctx.qemu().and_then(post_copy::look),
        stream: Some(stream),
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
    let looks = looks.unwrap_or_default();
    let both = looks.into_iter().zip(own);
    both.map(|((directory, sees_source, free_bytes), probe)| DirectoryCheck { directory, sees_source, probe, free_bytes }).collect()
}

type Look = (String, Result<bool, String>, Option<u64>);

fn look(directory: String, source_probes: &[StorageProbe], reserved: u64) -> Look {
    let free = free_bytes(&directory).map(|free| free.saturating_sub(reserved));
    let sees = match source_probes.iter().find(|probe| probe.directory == directory) {
        Some(probe) => probe::sees(probe),
        None => Err("the source wrote no probe there".to_owned()),
    };
    (directory, sees, free)
}

/// Which of the guest's files are symbolic links here.
async fn check_links(guest: &GuestDescription) -> Vec<LinkCheck> {
    let paths: Vec<String> = guest
        .disks
        .iter()
        .filter_map(|disk| match &disk.source {
            DiskSource::File { path } => Some(path.clone()),
            _ => None,
        })
        .collect();
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
    let paths: Vec<String> = guest
        .disks
        .iter()
        .filter_map(|disk| match &disk.source {
            DiskSource::Block { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let check = |path: String| BlockDeviceCheck { identity: block_device::identity(&path), path };
        paths.into_iter().map(check).collect()
    });
    looked.await.unwrap_or_default()
}
