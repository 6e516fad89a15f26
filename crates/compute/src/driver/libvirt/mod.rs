//! libvirt. The only module that imports `virt`.
//!
//! - [`link`]: the connection that questions and orders use, its events, its threads.
//! - [`migrate`]: the long call, on a thread and a connection of its own; [`spares`]: which idle one.
//! - [`calls`]: what is asked, one function a question; [`ffi`]: what `virt` does not wrap.

mod calls;
mod error;
mod ffi;
mod job;
mod link;
mod migrate;
mod spares;
mod state;
mod turns;

use std::sync::Arc;

use drover_common::ids::ServerId;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use self::link::Link;
use self::migrate::Migrator;
use super::{
    Action, Answer, Connection, CpuComparison, DiskUsage, Domain, DomainEvent, Driver, DriverError, HostDescription, Inspection,
    JobSample, MigrateCall, XmlKind,
};
use crate::domain_xml::Machine;

/// A libvirtd.
pub struct Libvirt {
    link: Arc<Link>,
    migrator: Arc<Migrator>,
}

impl Libvirt {
    /// Begins to keep a connection to the libvirt at `uri`, until `stop`. It need not be there yet.
    pub fn start(uri: &str, stop: CancellationToken) -> Result<Self, DriverError> {
        Ok(Self { link: Link::start(uri, stop)?, migrator: Migrator::new(uri) })
    }

    fn ask<T, F>(&self, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&calls::Peer) -> Result<T, virt::error::Error> + Send + 'static,
    {
        Box::pin(Arc::clone(&self.link).call(None, question))
    }

    /// About one domain.
    fn ask_about<T, F>(&self, server: ServerId, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&calls::Peer) -> Result<T, virt::error::Error> + Send + 'static,
    {
        Box::pin(Arc::clone(&self.link).call(Some(server), question))
    }
}

impl Driver for Libvirt {
    fn connection(&self) -> watch::Receiver<Connection> {
        self.link.connection()
    }

    fn events(&self) -> broadcast::Receiver<DomainEvent> {
        self.link.events()
    }

    fn host(&self) -> Answer<HostDescription> {
        self.ask(calls::host)
    }

    fn servers(&self) -> Answer<Vec<ServerId>> {
        self.ask(calls::servers)
    }

    fn domain(&self, server: ServerId) -> Answer<Domain> {
        self.ask_about(server, move |peer| calls::domain(peer, server))
    }

    fn xml(&self, server: ServerId, kind: XmlKind) -> Answer<String> {
        self.ask_about(server, move |peer| calls::xml(peer, server, kind))
    }

    fn named(&self, name: String) -> Answer<Option<ServerId>> {
        self.ask(move |peer| calls::named(peer, &name))
    }

    fn inspect(&self, server: ServerId) -> Answer<Inspection> {
        self.ask_about(server, move |peer| calls::inspect(peer, server))
    }

    fn disk_usage(&self, server: ServerId, targets: Vec<String>) -> Answer<Vec<DiskUsage>> {
        self.ask_about(server, move |peer| calls::disk_usage(peer, server, &targets))
    }

    fn set_disk_speed(&self, server: ServerId, targets: Vec<String>, mib: u64) -> Answer<()> {
        self.ask_about(server, move |peer| calls::set_disk_speed(peer, server, &targets, mib))
    }

    fn job(&self, server: ServerId) -> Answer<JobSample> {
        self.ask_about(server, move |peer| calls::job(peer, server))
    }

    fn capabilities(&self, machine: Machine) -> Answer<String> {
        self.ask(move |peer| calls::capabilities(peer, &machine))
    }

    fn compare_cpu(&self, machine: Machine, cpu: String) -> Answer<CpuComparison> {
        self.ask(move |peer| calls::compare_cpu(peer, &machine, &cpu))
    }

    fn compare_host_cpu(&self, cpu: String) -> Answer<CpuComparison> {
        self.ask(move |peer| calls::compare_host_cpu(peer, &cpu))
    }

    fn prepare_migration(&self, server: ServerId) {
        let migrator = Arc::clone(&self.migrator);
        tokio::task::spawn_blocking(move || migrator.warm(server));
    }

    fn migrate(&self, call: MigrateCall) -> Answer<()> {
        Arc::clone(&self.migrator).start(call)
    }

    fn act(&self, server: ServerId, action: Action) -> Answer<()> {
        let act = move |peer: &calls::Peer| calls::act(peer, server, action);
        // libvirt ends a guest also while another call about it hangs in its QEMU, so that is not waited for.
        if action == Action::Destroy { self.ask(act) } else { self.ask_about(server, act) }
    }

    fn define(&self, xml: String) -> Answer<()> {
        self.ask(move |peer| calls::define(peer, &xml))
    }
}
