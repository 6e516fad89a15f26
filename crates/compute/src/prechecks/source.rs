//! Whether a guest can be sent to a candidate, seen by its source with what the candidate found: Nova's `migrate_data`.

use std::collections::HashMap;

use drover_common::config::Compression;
use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{
    AboutGuest, CheckSource, DestinationAddresses, DestinationCheck, DiskSource, FileFacts, GuestDisk, GuestState, ImageCheck,
    MigrateData, MigrateDisk, Sharing, StorageProbe, Stream, StreamEnd,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::debug;

use super::{describe, reach};
use crate::context::Context;
use crate::flags::MigrationFlags;
use crate::storage::decision::{self, Allowed, Hosts, Judged};
use crate::storage::image::{self, Content};
use crate::storage::probe;
use crate::storage::sharing::{self, Views};
use crate::stream::{self, Ends, link};

/// Answers `check_can_live_migrate_source`.
pub async fn check(ctx: &Context, question: &CheckSource) -> Result<MigrateData, Fault> {
    ctx.driver.prepare_migration(question.server);
    // The tries take as long as the network takes; what else can refuse does not wait for them.
    let tries = tokio::spawn(connect_tries(ctx, question)?);
    let about = AboutGuest { migration: question.migration, server: question.server };
    let (guest, source_sees, digests, end, link) = tokio::join!(
        describe::look_again(ctx, &about, &question.guest.disks),
        look_for_probes(&question.found),
        digests(ctx, &question.found),
        stream::own_end(ctx),
        look_at_link(ctx, &question.found)
    );
    let decided = guest.and_then(|(guest, disks)| {
        let disks = decide(ctx, question, disks, &source_sees, &digests)?;
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
            networks: found.networks.clone(),
            consoles: found.consoles.clone(),
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

/// Our own digests of the files whose digests the destination has told.
async fn digests(ctx: &Context, found: &DestinationCheck) -> OwnDigests {
    let told = found.images.iter().flatten().filter(|image| matches!(image.digest, Some(Ok(_))));
    let own = told.map(|image| async { (image.path.clone(), ctx.digests.get(image.path.clone()).await) });
    futures::future::join_all(own).await.into_iter().collect()
}

type OwnDigests = HashMap<String, Result<String, String>>;

fn decide(
    ctx: &Context,
    question: &CheckSource,
    disks: Vec<GuestDisk>,
    source_sees: &[(String, Result<bool, String>)],
    digests: &OwnDigests,
) -> Result<Vec<MigrateDisk>, Fault> {
    let found = &question.found;
    let views = Views { source_probes: &question.guest.probes, destination: found, source_sees };
    let hosts = Hosts { source: &ctx.options.host, destination: &question.destination_host };
    let judge = Judge { views, images: found.images.as_deref(), digests, destination: hosts.destination };
    let allowed = Allowed {
        top_only: ctx.options.block_migration_flags.intersects(MigrationFlags::NON_SHARED_INC),
        carried_bytes_max: ctx.options.read_only_disk_copy_limit_bytes,
        carrying: found.images.is_some(),
    };
    let judged = disks.into_iter().map(|disk| judge.judge(disk)).collect();
    let disks = decision::decide(judged, question.block_migration, allowed, hosts)?;
    decision::check_space(&disks, &found.directories, question.disk_over_commit, hosts)?;
    for disk in &disks {
        debug!(disk = disk.disk.target, sharing = %disk.sharing, treatment = disk.treatment(), why = disk.why, "disk decided on");
    }
    Ok(disks)
}

/// All that was found out, put together for each disk. Pure.
struct Judge<'a> {
    views: Views<'a>,
    images: Option<&'a [ImageCheck]>,
    digests: &'a OwnDigests,
    destination: &'a HostName,
}

impl Judge<'_> {
    fn judge(&self, disk: GuestDisk) -> Judged {
        let verdict = sharing::verdict(&disk.source, disk.resolves_to.as_deref(), &self.views);
        let there = self.content(&disk.source, disk.file.as_ref());
        let below = self.below(&disk);
        Judged { disk, verdict, there, below }
    }

    /// Whether the destination has all that lies below a disk: the same files, or others of the same content.
    fn below(&self, disk: &GuestDisk) -> Result<String, String> {
        let mut ways = Vec::new();
        for image in &disk.chain {
            let verdict = sharing::verdict(&image.source, image.resolves_to.as_deref(), &self.views);
            if verdict.sharing == Sharing::Shared {
                ways.push(format!("{}: {}", image.source.shown(), verdict.why));
                continue;
            }
            match self.content(&image.source, image.file.as_ref()) {
                Content::Same => ways.push(format!("{}: the destination has the same content", image.source.shown())),
                Content::Absent(why) | Content::Other(why) => return Err(why),
            }
        }
        Ok(ways.join("; "))
    }

    fn content(&self, source: &DiskSource, file: Option<&FileFacts>) -> Content {
        let digest = source.data_file(None).and_then(|path| self.digests.get(path));
        image::content_there(source, file, self.images, digest, self.destination)
    }
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

#[cfg(test)]
mod tests {
    use drover_common::rpc::latest::{DirectoryCheck, Image};

    use super::*;

    fn image(path: &str) -> Image {
        let file = Some(FileFacts { bytes: 10, allocated_bytes: 10, inode: 1, made_ns: None });
        Image { source: DiskSource::File { path: path.to_owned() }, format: "raw".to_owned(), resolves_to: None, file }
    }

    fn overlay(chain: &[&str]) -> GuestDisk {
        GuestDisk {
            target: "vda".to_owned(),
            source: DiskSource::File { path: "/local/disk".to_owned() },
            read_only: false,
            shareable: false,
            format: "qcow2".to_owned(),
            capacity_bytes: 10,
            allocation_bytes: 1,
            backing_file: chain.first().map(|path| (*path).to_owned()),
            resolves_to: None,
            chain: chain.iter().map(|path| image(path)).collect(),
            not_copyable: None,
            file: None,
        }
    }

    #[test]
    fn a_chain_is_there_if_each_image_is_shared_or_has_the_same_content() {
        let probe = |directory: &str| StorageProbe { directory: directory.to_owned(), written: Ok("p".to_owned()) };
        let directory = |directory: &str, sees| DirectoryCheck {
            directory: directory.to_owned(),
            sees_source: Ok(sees),
            probe: probe(directory),
            free_bytes: Some(1),
            device: None,
        };
        let there =
            |path: &str, digest: &str| ImageCheck { path: path.to_owned(), bytes: Some(10), digest: Some(Ok(digest.to_owned())) };
        let images = [there("/local/same", "d1"), there("/local/other", "d2")];
        let found = DestinationCheck {
            connect_address: "h2".to_owned(),
            inbound_address_set: false,
            migration_port_probe: None,
            directories: vec![directory("/shared", true), directory("/local", false)],
            block_devices: Vec::new(),
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
            links: Vec::new(),
            no_post_copy: None,
            stream: None,
            images: None,
            networks: Vec::new(),
            consoles: Vec::new(),
        };
        let probes = [probe("/shared"), probe("/local")];
        let source_sees = [("/shared".to_owned(), Ok(true)), ("/local".to_owned(), Ok(false))];
        let digests: OwnDigests = images.iter().map(|image| (image.path.clone(), Ok("d1".to_owned()))).collect();
        let host = HostName::new("h2").unwrap();
        let views = Views { source_probes: &probes, destination: &found, source_sees: &source_sees };
        let judge = |images| Judge { views, images, digests: &digests, destination: &host };
        let below = |chain: &[&str]| judge(Some(images.as_slice())).judge(overlay(chain)).below;
        assert_eq!(below(&["/shared/base"]).unwrap(), "/shared/base: both see each other's files in /shared");
        let both = below(&["/local/same", "/shared/base"]).unwrap();
        assert!(both.starts_with("/local/same: the destination has the same content; /shared/base: both see"), "{both}");
        assert_eq!(below(&["/shared/base", "/local/other"]).unwrap_err(), "/local/other on h2 has another content");
        assert_eq!(below(&["/local/unknown"]).unwrap_err(), "h2 did not look for /local/unknown");
        let old = judge(None).judge(overlay(&["/local/same"])).below.unwrap_err();
        assert_eq!(old, "the agent of h2 is too old to look for /local/same");
        assert_eq!(judge(None).judge(overlay(&["/local/same"])).verdict.sharing, Sharing::NotShared);
    }
}
