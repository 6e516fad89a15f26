//! Whether a guest can be sent to a candidate, seen by its source with what the candidate found: Nova's `migrate_data`.

use drover_common::config::Compression;
use drover_common::fault::Fault;
use drover_common::rpc::latest::{
    CheckSource, DestinationAddresses, DestinationCheck, GuestDisk, GuestState, MigrateData, MigrateDisk, StorageProbe, Stream,
    StreamEnd,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{describe, reach};
use crate::context::Context;
use crate::flags::MigrationFlags;
use crate::storage::decision::{self, Hosts};
use crate::storage::probe;
use crate::storage::sharing::{self, Views};
use crate::stream::{self, Ends, link};

/// Answers `check_can_live_migrate_source`.
pub async fn check(ctx: &Context, question: &CheckSource) -> Result<MigrateData, Fault> {
    ctx.driver.prepare_migration(question.server);
    // The tries take as long as the network takes; what else can refuse does not wait for them.
    let tries = tokio::spawn(connect_tries(ctx, question)?);
    let (guest, source_sees, end, link) = tokio::join!(
        describe::look_again(ctx, question.server, &question.guest.disks),
        look_for_probes(&question.found),
        stream::own_end(ctx),
        look_at_link(ctx, &question.found)
    );
    let decided = guest.and_then(|(guest, disks)| {
        let disks = decide(question, disks, &source_sees, &ctx.options.host)?;
        let travel = agree_on_stream(ctx, question, &guest, &disks, &end, link.as_ref())?;
        Ok((guest, disks, travel))
    });
    let (guest, disks, travel) = match decided {
        Ok(decided) => decided,
        Err(fault) => {
            tries.abort();
            return Err(fault);
        }
    };
    tries.await.map_err(|error| Fault::unexpected(format_args!("the tries to connect ended: {error}")))??;
    let found = &question.found;
    Ok(MigrateData {
        name: guest.xml.name,
        persistent: guest.seen.domain.persistent,
        paused: guest.seen.facts.state != GuestState::Running,
        xml: guest.text,
        block_migration: disks.iter().any(|disk| disk.copied),
        disks,
        destination: DestinationAddresses {
            host: question.destination_host.clone(),
            connect_address: found.connect_address.clone(),
            inbound_address_set: found.inbound_address_set,
            graphics_listen_addr_vnc: found.graphics_listen_addr_vnc.clone(),
            graphics_listen_addr_spice: found.graphics_listen_addr_spice.clone(),
        },
        connect_timeout_s: reach::connect_timeout(),
        no_post_copy: travel.no_post_copy,
        stream: Some(travel.stream),
        no_way_back: travel.no_way_back,
    })
}

/// How the guest will travel.
struct Travel {
    stream: Stream,
    no_post_copy: Option<String>,
    no_way_back: Option<String>,
}

fn agree_on_stream(
    ctx: &Context,
    question: &CheckSource,
    guest: &describe::Guest,
    disks: &[MigrateDisk],
    here: &StreamEnd,
    link: Option<&link::Link>,
) -> Result<Travel, Fault> {
    let (options, destination) = (&ctx.options, &question.destination_host);
    let permits_post_copy = options.live_migration_flags.intersects(MigrationFlags::POSTCOPY);
    let no_post_copy = question.found.no_post_copy.as_ref().filter(|_| permits_post_copy);
    let no_post_copy = no_post_copy.map(|why| format!("no guest can arrive by it on {destination}: {why}"));
    let paused = guest.seen.facts.state != GuestState::Running;
    let mut flags = options.flags_for(guest.seen.domain.persistent, paused, disks.iter().any(|disk| disk.copied));
    if no_post_copy.is_some() {
        flags = options.without_post_copy(flags);
    }
    let ends = Ends { source: &options.host, here, destination, there: question.found.stream.as_ref() };
    let stream = stream::agree(&options.stream, flags, ends, link).map_err(Fault::precheck)?;
    Ok(Travel { stream, no_post_copy, no_way_back: stream::no_way_back(flags, ends) })
}

/// How fast the link to the destination is, if anything depends on it.
async fn look_at_link(ctx: &Context, found: &DestinationCheck) -> Option<link::Link> {
    if ctx.options.stream.compression != Compression::Auto {
        return None;
    }
    let address = found.connect_address.clone();
    tokio::task::spawn_blocking(move || link::to(&address)).await.ok().flatten()
}

/// Whether this host sees each of the destination's probes.
async fn look_for_probes(found: &DestinationCheck) -> Vec<(String, Result<bool, String>)> {
    let probes: Vec<StorageProbe> = found.directories.iter().map(|check| check.probe.clone()).collect();
    if probes.is_empty() {
        return Vec::new();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let look = |probe: StorageProbe| (probe.directory.clone(), probe::sees(&probe));
        probes.into_iter().map(look).collect()
    });
    looked.await.unwrap_or_default()
}

fn decide(
    question: &CheckSource,
    disks: Vec<GuestDisk>,
    source_sees: &[(String, Result<bool, String>)],
    source: &drover_common::ids::HostName,
) -> Result<Vec<MigrateDisk>, Fault> {
    let views = Views { source_probes: &question.guest.probes, destination: &question.found, source_sees };
    let hosts = Hosts { source, destination: &question.destination_host };
    let judged = disks.into_iter().map(|disk| {
        let verdict = sharing::verdict(&disk, &views);
        (disk, verdict)
    });
    let disks = decision::decide(judged.collect(), question.block_migration, hosts)?;
    decision::check_space(&disks, &question.found.directories, question.disk_over_commit, hosts)?;
    Ok(disks)
}

/// Tries the destination's libvirt and one of its migration ports, both at once.
fn connect_tries(ctx: &Context, question: &CheckSource) -> Result<BoxFuture<'static, Result<(), Fault>>, Fault> {
    let found = &question.found;
    let (address, within) = (found.connect_address.clone(), ctx.options.connect_probe_timeout);
    let libvirt = ctx.options.live_migration_uri.tcp_target(&address)?;
    // Through a tunnel the memory takes libvirt's connection.
    let tunnelled = ctx.options.live_migration_flags.intersects(MigrationFlags::TUNNELLED);
    let stream = found.migration_port_probe.filter(|_| !tunnelled);
    let (source, destination) = (ctx.options.host.clone(), question.destination_host.clone());
    Ok(async move {
        let libvirt = async {
            match libvirt {
                Some((host, port)) => reach::reach(&host, port, within).await.map_err(|why| format!("libvirt at {why}")),
                None => Ok(()),
            }
        };
        let stream = async {
            match stream {
                Some(port) => reach::reach(&address, port, within).await.map_err(|why| format!("migration port at {why}")),
                None => Ok(()),
            }
        };
        let (libvirt, stream) = tokio::join!(libvirt, stream);
        let failures: Vec<String> = [libvirt, stream].into_iter().filter_map(Result::err).collect();
        if failures.is_empty() {
            return Ok(());
        }
        Err(Fault::precheck(format_args!("{source} does not reach {destination}: {}", failures.join("; "))))
    }
    .boxed())
}
