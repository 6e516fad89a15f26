//! What the agents cannot tell each other about disks, since they do not talk to each other: the content of small read-only images,
//! and whether storage is shared when the source is about to remove its own files.

use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::{HostName, RequestId};
use drover_common::rpc::latest::{
    AboutGuest, CleanUp, ImagePiece, OfAttempt, PieceOfImage, StorageProbe, ToCompute, WithData, WriteImage,
};
use drover_store::migrations::Migration;
use tracing::{debug, info};

use crate::Conductor;

impl Conductor {
    /// Carries read-only images (config drives) from the source to the files that the destination has made for them. Piece by piece, and
    /// as often as one likes: the same piece is the same.
    pub(super) async fn carry_images(&self, row: &Migration, with_data: &WithData, destination: &HostName) -> Result<(), Fault> {
        let (request, within) = (Some(&row.request_id), self.settings.rpc_response_timeout);
        for disk in with_data.data.carried_disks() {
            let target = &disk.disk.target;
            let mut next = Some(0);
            while let Some(offset) = next {
                let read = ToCompute::ReadImage(PieceOfImage { of: with_data.of, target: target.clone(), offset });
                let piece = self.agents.call::<ImagePiece>(&row.source, read, request, within).await?;
                next = piece.next;
                if next.is_some_and(|next| next <= offset) {
                    return Err(Fault::migration_error(format_args!(
                        "the agent of {} gives out disk {target} of instance {} in circles, at byte {offset}: half an image is none",
                        row.source, row.server
                    )));
                }
                if piece.extents.is_empty() {
                    continue;
                }
                let write = ToCompute::WriteImage(WriteImage { with: with_data.clone(), target: target.clone(), piece });
                self.agents.call::<()>(destination, write, request, within).await?;
            }
            info!(migration.id = %row.id, disk = target, destination = %destination, "read-only image carried over");
        }
        Ok(())
    }

    /// The source's clean-up. Where files were moved the destination is asked first to write something beside its own.
    pub(super) async fn clean_source(
        &self,
        source: &HostName,
        clean_up: CleanUp,
        request: Option<&RequestId>,
    ) -> Result<(), Fault> {
        let of = OfAttempt { migration: clean_up.migration, attempt: clean_up.left_by, server: clean_up.server };
        let destination = clean_up.data.destination.host.clone();
        let with_data = WithData { of, data: clean_up.data.clone() };
        let probes = self.fresh_probes(&with_data, &destination, request).await?;
        let asked = probes.is_some();
        let message = ToCompute::PostLiveMigration(CleanUp { probes, ..clean_up });
        let cleaned = self.agents.call::<()>(source, message, request, self.settings.rpc_response_timeout).await;
        if asked {
            self.forget_probes(of, &destination).await;
        }
        cleaned
    }

    /// What the destination writes beside its disks, for the source to look for before it removes its own: nothing if no file was
    /// moved, or if the destination's agent is too old to be asked.
    async fn fresh_probes(
        &self,
        with_data: &WithData,
        destination: &HostName,
        request: Option<&RequestId>,
    ) -> Result<Option<Vec<StorageProbe>>, Fault> {
        if with_data.data.moved_disks().next().is_none() {
            return Ok(None);
        }
        let question = ToCompute::ProbeStorage(with_data.clone());
        let probes = self.agents.call(destination, question, request, self.settings.rpc_response_timeout).await;
        match probes {
            Ok(probes) => Ok(Some(probes)),
            Err(fault) if fault.class == FaultClass::UnsupportedVersion => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// They were looked for.
    async fn forget_probes(&self, of: OfAttempt, destination: &HostName) {
        let message = ToCompute::ForgetProbes(AboutGuest { migration: of.migration, server: of.server });
        if let Err(fault) = self.agents.cast(destination, message, None).await {
            debug!(error = %fault, destination = %destination, "probe files are not removed at once; they are after a while");
        }
    }
}
