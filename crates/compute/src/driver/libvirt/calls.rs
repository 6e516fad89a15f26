//! libvirt's calls, as they are: each blocks until libvirtd has answered. Called on threads of their own ([`super::link`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_common::ids::ServerId;
use drover_common::rpc::latest::JobKind;
use virt::connect::Connect;
use virt::domain::Domain as VirtDomain;
use virt::error::Error;
use virt::sys;

use super::{ffi, job, state};
use crate::domain_xml::{DROVER_NAMESPACE, Machine, read_marker};
use crate::driver::{Action, CpuComparison, DiskUsage, Domain, HostDescription, Inspection, JobSample, RunState, XmlKind};

/// `VIR_DOMAIN_METADATA_ELEMENT`, as `virt` wants it.
const METADATA_ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
/// Domains whose handles are kept; more than a host has guests.
const HANDLES_MAX: usize = 4096;

/// libvirtd, and handles of its domains.
pub(super) struct Peer {
    pub(super) connect: Connect,
    handles: Handles,
}

/// Handles of domains: to libvirt a handle is little more than a UUID, so it need not be looked up for each question.
#[derive(Clone, Default)]
pub(super) struct Handles(Arc<Mutex<HashMap<ServerId, VirtDomain>>>);

impl Handles {
    pub(super) fn forget(&self, server: ServerId) {
        self.lock().remove(&server);
    }

    fn get(&self, server: ServerId) -> Option<VirtDomain> {
        self.lock().get(&server).cloned()
    }

    fn keep(&self, server: ServerId, domain: VirtDomain) {
        let mut handles = self.lock();
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        handles.insert(server, domain);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerId, VirtDomain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    pub(super) fn new(connect: Connect) -> Self {
        Self { connect, handles: Handles::default() }
    }

    pub(super) fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// Asks about one domain. A handle that proves stale is forgotten.
    fn with<T>(&self, server: ServerId, question: impl FnOnce(&VirtDomain) -> Result<T, Error>) -> Result<T, Error> {
        let domain = self.handles.get(server).map_or_else(|| self.take_handle(server), Ok)?;
        let answer = question(&domain);
        if answer.as_ref().is_err_and(|error| error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN) {
            self.handles.forget(server);
        }
        answer
    }

    fn take_handle(&self, server: ServerId) -> Result<VirtDomain, Error> {
        let domain = lookup(&self.connect, server)?;
        self.handles.keep(server, domain.clone());
        Ok(domain)
    }
}

pub(super) fn host(peer: &Peer) -> Result<HostDescription, Error> {
    let node = peer.connect.node_info()?;
    let number = |version: u32| i32::try_from(version).unwrap_or(i32::MAX);
    Ok(HostDescription {
        hostname: peer.connect.hostname()?,
        hypervisor_type: peer.connect.driver_type()?,
        hypervisor_version: number(peer.connect.hyp_version()?),
        libvirt_version: number(peer.connect.lib_version()?),
        cpus: i32::try_from(node.cpus).unwrap_or(i32::MAX),
        memory_mb: i64::try_from(node.memory >> 10).unwrap_or(i64::MAX),
        capabilities: peer.connect.capabilities()?,
    })
}

/// Only the UUIDs, which come with the list: whatever is asked of a domain may have to wait for it.
pub(super) fn servers(peer: &Peer) -> Result<Vec<ServerId>, Error> {
    let mut servers = Vec::new();
    for domain in peer.connect.list_all_domains(0)? {
        let server = ServerId(domain.uuid()?);
        peer.handles.keep(server, domain);
        servers.push(server);
    }
    Ok(servers)
}

pub(super) fn lookup(connect: &Connect, server: ServerId) -> Result<VirtDomain, Error> {
    connect.lookup_domain_by_uuid(server.0)
}

pub(super) fn domain(peer: &Peer, server: ServerId) -> Result<Domain, Error> {
    peer.with(server, describe)
}

/// Only questions that libvirt answers at any time: while a guest arrives it keeps back everything that needs a lock on the
/// domain's job, its XML among them.
fn describe(domain: &VirtDomain) -> Result<Domain, Error> {
    let (state, reason) = ffi::state(domain)?;
    let state = state::run_state(state, reason);
    let is_active = !matches!(state, RunState::ShutOff | RunState::Crashed);
    let marker = domain.metadata(METADATA_ELEMENT, Some(DROVER_NAMESPACE), 0);
    Ok(Domain {
        server: ServerId(domain.uuid()?),
        name: domain.name()?,
        state,
        persistent: domain.is_persistent()?,
        job: if is_active { sample(domain)?.kind } else { None },
        marker: unless(marker, sys::VIR_ERR_NO_DOMAIN_METADATA)?.and_then(|element| read_marker(&element)),
    })
}

pub(super) fn xml(peer: &Peer, server: ServerId, kind: XmlKind) -> Result<String, Error> {
    let flags = match kind {
        XmlKind::Live => 0,
        XmlKind::Migratable => sys::VIR_DOMAIN_XML_MIGRATABLE | sys::VIR_DOMAIN_XML_SECURE,
        XmlKind::Persistent => sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE,
    };
    peer.with(server, |domain| domain.xml_desc(flags))
}

pub(super) fn named(peer: &Peer, name: &str) -> Result<Option<ServerId>, Error> {
    match peer.connect.lookup_domain_by_name(name) {
        Ok(domain) => Ok(Some(ServerId(domain.uuid()?))),
        Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn job(peer: &Peer, server: ServerId) -> Result<JobSample, Error> {
    peer.with(server, sample)
}

/// The job, read from `virDomainGetJobStats` and from the ways in which it refuses: statistics are the source's, so on a
/// destination it says "unsupported", and a domain that does not run has no job.
fn sample(domain: &VirtDomain) -> Result<JobSample, Error> {
    match ffi::job_stats(domain) {
        Ok((job_type, params)) if job_type.cast_unsigned() != sys::VIR_DOMAIN_JOB_NONE => {
            Ok(JobSample { kind: Some(job::kind(&params)), progress: job::progress(&params) })
        }
        Ok(_) => Ok(JobSample::default()),
        Err(error) => match error.code().to_raw() {
            sys::VIR_ERR_OPERATION_UNSUPPORTED => Ok(JobSample { kind: Some(JobKind::MigrationIn), ..JobSample::default() }),
            sys::VIR_ERR_OPERATION_INVALID | sys::VIR_ERR_NO_SUPPORT => Ok(JobSample::default()),
            _ => Err(error),
        },
    }
}

pub(super) fn inspect(peer: &Peer, server: ServerId) -> Result<Inspection, Error> {
    peer.with(server, |domain| {
        Ok(Inspection {
            snapshots: if_supported(domain.num_snapshots(0))?.unwrap_or(0),
            managed_save: if_supported(domain.has_managed_save(0))?.unwrap_or(false),
        })
    })
}

pub(super) fn disk_usage(peer: &Peer, server: ServerId, targets: &[String]) -> Result<Vec<DiskUsage>, Error> {
    let usage = |domain: &VirtDomain, target: &String| {
        let info = if_supported(domain.block_info(target, 0))?;
        Ok(DiskUsage {
            capacity: info.as_ref().map_or(0, |info| info.capacity),
            allocation: info.as_ref().map_or(0, |info| info.allocation),
            block_job: if_supported(ffi::has_block_job(domain, target))?.unwrap_or(false),
        })
    };
    peer.with(server, |domain| targets.iter().map(|target| usage(domain, target)).collect())
}

pub(super) fn set_disk_speed(peer: &Peer, server: ServerId, targets: &[String], mib: u64) -> Result<(), Error> {
    peer.with(server, |domain| targets.iter().try_for_each(|target| ffi::set_block_job_speed(domain, target, mib)))
}

/// libvirt's test driver has neither snapshots of this kind nor block jobs.
fn if_supported<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    unless(result, sys::VIR_ERR_NO_SUPPORT)
}

/// Takes one error for "there is none".
fn unless<T>(result: Result<T, Error>, none: sys::virErrorNumber) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code().to_raw() == none => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn capabilities(peer: &Peer, machine: &Machine) -> Result<String, Error> {
    peer.connect.domain_capabilities(
        machine.emulator.as_deref(),
        machine.arch.as_deref(),
        machine.machine.as_deref(),
        Some(&machine.virt_type),
        0,
    )
}

pub(super) fn compare_cpu(peer: &Peer, machine: &Machine, cpu: &str) -> Result<CpuComparison, Error> {
    comparison(peer, ffi::compare_hypervisor_cpu(&peer.connect, machine, cpu), "virConnectCompareHypervisorCPU")
}

/// Host with host. The hypervisor's CPU would not do: no guest gets all features of its host, so a host would not fit itself.
pub(super) fn compare_host_cpu(peer: &Peer, cpu: &str) -> Result<CpuComparison, Error> {
    let compared = peer.connect.compare_cpu(cpu, sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE);
    comparison(peer, compared, "virConnectCompareCPU")
}

fn comparison(peer: &Peer, compared: Result<sys::virCPUCompareResult, Error>, call: &str) -> Result<CpuComparison, Error> {
    match compared {
        Ok(sys::VIR_CPU_COMPARE_IDENTICAL | sys::VIR_CPU_COMPARE_SUPERSET) => Ok(CpuComparison::Fits),
        Ok(other) => Ok(CpuComparison::Incompatible(format!("{call} says {other}"))),
        Err(error) if !peer.connect.is_alive().unwrap_or(false) => Err(error),
        Err(error) => match error.code().to_raw() {
            sys::VIR_ERR_NO_SUPPORT | sys::VIR_ERR_CONFIG_UNSUPPORTED | sys::VIR_ERR_OPERATION_UNSUPPORTED => {
                Ok(CpuComparison::CannotTell(error.message().to_owned()))
            }
            // Also "Unknown CPU model", which libvirt takes for an internal error.
            sys::VIR_ERR_CPU_INCOMPATIBLE | sys::VIR_ERR_INTERNAL_ERROR | sys::VIR_ERR_XML_ERROR | sys::VIR_ERR_INVALID_ARG => {
                Ok(CpuComparison::Incompatible(error.message().to_owned()))
            }
            _ => Err(error),
        },
    }
}

pub(super) fn act(peer: &Peer, server: ServerId, action: Action) -> Result<(), Error> {
    peer.with(server, |domain| match action {
        Action::Suspend => domain.suspend(),
        Action::Resume => domain.resume(),
        Action::Destroy => domain.destroy(),
        Action::Undefine => domain.undefine_flags(
            sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
                | sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM,
        ),
        Action::Start => domain.create().map(drop),
        Action::Shutdown => domain.shutdown().map(drop),
        Action::UndefineAll => domain.undefine_flags(
            sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_NVRAM
                | sys::VIR_DOMAIN_UNDEFINE_TPM,
        ),
        Action::AbortJob => ffi::abort_job(domain),
        Action::StartPostCopy => ffi::start_post_copy(domain),
        Action::SetMaxSpeed { mib, post_copy } => {
            domain.migrate_set_max_speed(mib, 0)?;
            if post_copy { domain.migrate_set_max_speed(mib, sys::VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY) } else { Ok(()) }
        }
        Action::SetMaxDowntime { milliseconds } => domain.migrate_set_max_downtime(milliseconds, 0),
    })
}

pub(super) fn define(peer: &Peer, xml: &str) -> Result<(), Error> {
    peer.connect.define_domain_xml(xml).map(drop)
}
