//! What every handler of the agent works with.

use std::sync::{Arc, Mutex, PoisonError};

use drover_common::bus::Bus;
use drover_common::host::HostInventory;
use drover_common::ids::{Incarnation, ServerId};
use drover_common::lifecycle::Life;

use crate::actor::Actors;
use crate::announce::Expected;
use crate::announce::announced::Announced;
use crate::arrivals::Arrivals;
use crate::config::Options;
use crate::doctor::OfferedPort;
use crate::domains::Domains;
use crate::driver::Driver;
use crate::inventory;
use crate::ledger::Ledger;
use crate::power::Powers;
use crate::prechecks::cpu::CapabilityCache;
use crate::prechecks::described::Described;
use crate::prechecks::post_copy::Qemu;
use crate::resume::Resumption;
use crate::storage::image::Digests;
use crate::storage::probe::Probes;

/// The agent's parts. One for the life of the process; everything in it is safe to share.
pub struct Context {
    /// What the agent was told.
    pub options: Options,
    /// This life.
    pub incarnation: Incarnation,
    /// The hypervisor.
    pub driver: Arc<dyn Driver>,
    /// The way to the conductors.
    pub bus: Bus,
    /// The process.
    pub life: Life,
    /// What was done with each attempt.
    pub ledger: Ledger,
    /// Migrations under way.
    pub actors: Actors,
    /// Power actions.
    pub powers: Powers,
    /// Migrations that arrive.
    pub arrivals: Arrivals,
    /// Guests that will be announced when they are here.
    pub expected: Expected,
    /// How soon guests were announced when they were here.
    pub announced: Announced,
    /// What the conductor said is to be watched.
    pub resumption: Resumption,
    /// Guests that are being checked.
    pub described: Described,
    /// Probe files.
    pub probes: Probes,
    /// Digests of images.
    pub digests: Digests,
    /// What guests can be here.
    pub capabilities: CapabilityCache,
    /// Reports about domains.
    pub domains: Domains,
    /// For other hosts' tries to reach this one.
    pub offered_port: OfferedPort,
    inventory: Mutex<Option<HostInventory>>,
    host_cpu: Mutex<Option<String>>,
    qemu: Mutex<Option<Qemu>>,
}

impl Context {
    /// Puts an agent together.
    pub fn new(options: Options, driver: Arc<dyn Driver>, bus: Bus, life: Life) -> Arc<Self> {
        Arc::new(Self {
            probes: Probes::new(options.host.clone()),
            options,
            incarnation: Incarnation::random(),
            driver,
            bus,
            life,
            ledger: Ledger::default(),
            actors: Actors::default(),
            powers: Powers::default(),
            arrivals: Arrivals::default(),
            expected: Expected::default(),
            announced: Announced::default(),
            resumption: Resumption::default(),
            described: Described::default(),
            digests: Digests::default(),
            capabilities: CapabilityCache::default(),
            domains: Domains::default(),
            offered_port: OfferedPort::default(),
            inventory: Mutex::default(),
            host_cpu: Mutex::default(),
            qemu: Mutex::default(),
        })
    }

    /// Notes what the host is and has; true if that is new.
    pub fn set_inventory(&self, inventory: &HostInventory) -> bool {
        let mut known = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.as_ref() != Some(inventory);
        let same_versions = known.as_ref().is_some_and(|known| inventory::versions(known) == inventory::versions(inventory));
        if !same_versions {
            self.capabilities.clear();
        }
        *known = Some(inventory.clone());
        is_new
    }

    /// Whether a migration of ours moves this guest away from here or to here just now.
    pub fn moves(&self, server: ServerId) -> bool {
        self.actors.is_under_way(server) || self.arrivals.is_coming(server)
    }

    /// Notes libvirt's `<cpu>` of the host.
    pub fn set_host_cpu(&self, cpu: Option<&str>) {
        *self.host_cpu.lock().unwrap_or_else(PoisonError::into_inner) = cpu.map(str::to_owned);
    }

    /// libvirt's `<cpu>` of the host, as it was when the inventory was read.
    pub fn host_cpu(&self) -> Option<String> {
        self.host_cpu.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how libvirt starts QEMU.
    pub fn set_qemu(&self, qemu: Option<Qemu>) {
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = qemu;
    }

    /// How libvirt starts QEMU, as it was when the inventory was read; none if it is another hypervisor.
    pub fn qemu(&self) -> Option<Qemu> {
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// libvirt's version, as it was when the inventory was read.
    pub fn libvirt_version(&self) -> Option<i32> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|known| known.libvirt_version)
    }

    /// The hypervisor and its version, for people.
    pub fn hypervisor_shown(&self) -> String {
        let known = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map_or_else(|| "hypervisor not known yet".to_owned(), inventory::shown)
    }
}
