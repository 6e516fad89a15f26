//! Giving out read-only images that are carried to the destination.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{ImagePiece, PieceOfImage};
use drover_common::telemetry;

use crate::context::Context;
use crate::domain_xml::{DiskLocation, DomainXml};
use crate::driver::XmlKind;
use crate::storage::carry;

/// Answers `read_image`. Which file it is says the guest, not the message: nothing but its read-only disks is given out.
pub async fn read_image(ctx: &Context, asked: &PieceOfImage) -> Result<ImagePiece, Fault> {
    let (host, target) = (&ctx.options.host, &asked.target);
    let xml = ctx.driver.xml(asked.of.server, XmlKind::Live).await;
    let xml = xml.map_err(|error| error.into_fault(host, asked.of.server, Fault::migration_error))?;
    let guest = DomainXml::parse(&xml).map_err(|error| {
        Fault::migration_error(format_args!("XML of instance {}: {}", asked.of.server, telemetry::chain(&error)))
    })?;
    let disk = guest.disks.into_iter().find(|disk| disk.target == *target && disk.read_only && !disk.shareable);
    let Some(DiskLocation::File(path)) = disk.map(|disk| disk.location) else {
        return Err(Fault::migration_error(format_args!("{} on {host} has no read-only file disk {target}", guest.name)));
    };
    let (file, offset) = (path.clone(), asked.offset);
    let read = tokio::task::spawn_blocking(move || carry::read(file.as_ref(), offset)).await.map_err(Fault::unexpected)?;
    read.map_err(|error| Fault::migration_error(format_args!("disk {target} ({path}) on {host}: {error}")))
}
