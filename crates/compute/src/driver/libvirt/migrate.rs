//! `virDomainMigrateToURI3`: on a thread and a connection of its own.
//!
//! The call blocks as long as the guest travels, and libvirtd serves only a handful of calls of one client at a time. A few idle
//! connections are kept, so that opening them costs nothing between the leave to start and the start.

use std::sync::{Arc, Mutex, PoisonError};

use drover_common::ids::ServerId;
use tokio::sync::oneshot;
use tracing::{debug, info, info_span};
use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::sys;

use super::spares::Spares;
use super::{calls, error, ffi, link};
use crate::driver::{Answer, DriverError, MigrateCall};

/// The connections on which migrations are called.
pub(super) struct Migrator {
    uri: String,
    spares: Mutex<Spares<Spare>>,
}

/// An idle connection, and the domain that will probably be migrated on it.
struct Spare {
    connect: Connect,
    domain: Option<(ServerId, Domain)>,
}

impl Migrator {
    pub(super) fn new(uri: &str) -> Arc<Self> {
        Arc::new(Self { uri: uri.to_owned(), spares: Mutex::default() })
    }

    /// Makes an idle connection ready for a domain. Blocks.
    pub(super) fn warm(&self, server: ServerId) {
        match self.take(server) {
            Ok(Spare { connect, .. }) => {
                let domain = calls::lookup(&connect, server).ok().map(|domain| (server, domain));
                self.put(Spare { connect, domain });
            }
            Err(error) => debug!(error = %error, "no connection for a migration yet"),
        }
    }

    /// Starts the call at once; the answer comes when it returns.
    pub(super) fn start(self: Arc<Self>, call: MigrateCall) -> Answer<()> {
        let (sender, returned) = oneshot::channel();
        let span = info_span!("libvirt.migrate");
        let thread = std::thread::Builder::new().name("migrate".to_owned()).spawn(move || {
            let _entered = span.entered();
            sender.send(self.run(&call)).ok(); // Nobody waits any more: the process is about to end.
        });
        Box::pin(async move {
            thread.map_err(|error| DriverError::other(format!("no thread for the call: {error}")))?;
            returned.await.unwrap_or_else(|_| Err(DriverError::other("the thread of the call ended without a result")))
        })
    }

    fn run(&self, call: &MigrateCall) -> Result<(), DriverError> {
        let Spare { connect, domain } = self.take(call.server)?;
        let domain = match domain {
            Some((server, domain)) if server == call.server => domain,
            _ => calls::lookup(&connect, call.server).map_err(|error| error::on(&connect, &error))?,
        };
        let parameters = parameters(call);
        info!(migration.id = %call.migration, server.id = %call.server, "libvirt migrate call entered");
        let result = ffi::migrate_to_uri3(&domain, &call.destination_uri, &parameters, call.flags);
        info!(migration.id = %call.migration, server.id = %call.server, "libvirt migrate call returned");
        let result = result.map_err(|error| error::on(&connect, &error));
        drop(domain);
        self.put(Spare { connect, domain: None });
        result
    }

    /// An idle connection that still lives, else a new one.
    fn take(&self, server: ServerId) -> Result<Spare, DriverError> {
        loop {
            let spare = self.lock().take(server);
            match spare {
                Some(spare) if spare.connect.is_alive().unwrap_or(false) => return Ok(spare),
                Some(_) => {}
                None => return Ok(Spare { connect: link::connect(&self.uri)?, domain: None }),
            }
        }
    }

    fn put(&self, spare: Spare) {
        if spare.connect.is_alive().unwrap_or(false) {
            let ready_for = spare.domain.as_ref().map(|(server, _)| *server);
            // The lock is let go before a connection that is too many is closed.
            let surplus = self.lock().put(ready_for, spare);
            drop(surplus);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Spares<Spare>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parameters(call: &MigrateCall) -> MigrateParameters {
    MigrateParameters {
        bandwidth: Some(call.bandwidth_mib),
        // Pages that the guest waits for go past it; without it QEMU would push the others as fast as it can.
        bandwidth_postcopy: (call.bandwidth_mib > 0 && call.flags & sys::VIR_MIGRATE_POSTCOPY != 0).then_some(call.bandwidth_mib),
        dest_xml: Some(call.destination_xml.clone()),
        persist_xml: call.persistent_xml.clone(),
        uri: call.migrate_uri.clone(),
        migrate_disks: call.migrate_disks.clone(),
        parallel_connections: call.parallel_connections.map(i32::from),
        compression: call.zstd_level.map(|_| "zstd".to_owned()),
        compression_zstd_level: call.zstd_level.map(i32::from),
        ..MigrateParameters::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::flags::NAMES;
    use virt::sys;

    #[test]
    fn our_table_of_flags_is_libvirts() {
        let libvirts = [
            sys::VIR_MIGRATE_LIVE,
            sys::VIR_MIGRATE_PEER2PEER,
            sys::VIR_MIGRATE_TUNNELLED,
            sys::VIR_MIGRATE_PERSIST_DEST,
            sys::VIR_MIGRATE_UNDEFINE_SOURCE,
            sys::VIR_MIGRATE_PAUSED,
            sys::VIR_MIGRATE_NON_SHARED_DISK,
            sys::VIR_MIGRATE_NON_SHARED_INC,
            sys::VIR_MIGRATE_CHANGE_PROTECTION,
            sys::VIR_MIGRATE_UNSAFE,
            sys::VIR_MIGRATE_OFFLINE,
            sys::VIR_MIGRATE_COMPRESSED,
            sys::VIR_MIGRATE_ABORT_ON_ERROR,
            sys::VIR_MIGRATE_AUTO_CONVERGE,
            sys::VIR_MIGRATE_RDMA_PIN_ALL,
            sys::VIR_MIGRATE_POSTCOPY,
            sys::VIR_MIGRATE_TLS,
            sys::VIR_MIGRATE_PARALLEL,
            sys::VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES,
            sys::VIR_MIGRATE_POSTCOPY_RESUME,
            sys::VIR_MIGRATE_ZEROCOPY,
        ];
        assert_eq!(NAMES.iter().map(|(_, flag)| flag.bits()).collect::<Vec<_>>(), libvirts);
    }
}
