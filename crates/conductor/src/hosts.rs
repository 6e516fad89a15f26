//! What agents say of their hosts: introductions, heartbeats, domains.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_common::bus::ReplyTo;
use drover_common::fault::Fault;
use drover_common::ids::{HostName, Incarnation, ServerId};
use drover_common::rpc::latest::{DomainsReport, HostUp, HostWelcome, OfAttempt, ToCompute, Watch};
use drover_common::telemetry;
use drover_store::findings::{self, FindingKind};
use drover_store::migrations::{self, lease};
use drover_store::servers::{self, Observer};
use drover_store::{StoreError, Transaction, commit, debts, hosts, services};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::adoption::{self, Decision};
use crate::consumer::Done;
use crate::{Conductor, metrics};

/// Heartbeats since the last write; one statement writes them all.
#[derive(Default)]
pub(crate) struct Heartbeats {
    since: Mutex<HashMap<HostName, Incarnation>>,
}

impl Heartbeats {
    /// Remembers one.
    pub(crate) fn note(&self, host: &HostName, incarnation: Incarnation) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), incarnation);
    }

    fn take(&self) -> (Vec<String>, Vec<Uuid>) {
        let since = std::mem::take(&mut *self.since.lock().unwrap_or_else(PoisonError::into_inner));
        since.into_iter().map(|(host, life)| (host.as_str().to_owned(), life.0)).unzip()
    }
}

impl Conductor {
    /// Writes the heartbeats since the last time.
    pub(crate) async fn write_heartbeats(&self) -> Result<(), StoreError> {
        let (hosts, lives) = self.heartbeats.take();
        if hosts.is_empty() {
            return Ok(());
        }
        services::heartbeats(&mut *self.store.unsynced().await?, &hosts, &lives).await.map(drop)
    }

    /// An agent introduces itself: its life becomes the host's present one; it is told which jobs to watch.
    pub(crate) async fn host_up(self: &Arc<Self>, host: &HostName, up: HostUp, reply_to: Option<&ReplyTo>) -> Done {
        match self.take_in_host(host, &up).await {
            Ok(Ok(welcome)) => {
                info!(host = %host, domains = up.domains.domains.len(), watch = welcome.watch.len(), "host is up");
                self.bus.reply(reply_to, Ok(welcome)).await;
                self.after_host_up(host.clone());
                self.links_changed(); // Its link, or what one migration may take, may be another now.
                Done::Yes
            }
            Ok(Err(not_this_host)) => {
                warn!(host = %host, error = %not_this_host, "host refused");
                self.bus.reply::<()>(reply_to, Err(Fault::unexpected(not_this_host))).await;
                Done::Yes
            }
            Err(error) => {
                // The agent asks again; an answer to an old question would find nobody.
                warn!(host = %host, error = telemetry::chain(&error), "host not taken in");
                self.bus.reply::<()>(reply_to, Err(Fault::unexpected(error))).await;
                Done::Yes
            }
        }
    }

    async fn take_in_host(&self, host: &HostName, up: &HostUp) -> Result<Result<HostWelcome, hosts::NotThisHost>, StoreError> {
        let mut tx = self.store.begin().await?;
        let service = services::seen(&mut tx, host, services::COMPUTE).await?;
        if let Err(refused) = hosts::host_up(&mut tx, host, service, up.incarnation, &up.inventory).await? {
            return Ok(Err(refused));
        }
        let ask = self.apply_domains(&mut tx, host, &up.inventory.hypervisor_hostname, &up.domains).await?;
        let open = migrations::watched_by_source(&mut tx, host).await?;
        commit(tx).await?;
        self.ask_for_domains(&ask).await;
        let watch = open
            .iter()
            .map(|row| Watch {
                of: OfAttempt { migration: row.id, attempt: row.attempt, server: row.server },
                revision: row.revision,
                abort_requested: row.abort_requested_by.is_some(),
                // A guest that its owner had paused stands already: nothing can be forced, and nothing is to be let go on.
                force_complete_requested: row.force_complete_requested_by.is_some()
                    && row.data.as_ref().is_some_and(|data| !data.paused),
                no_post_copy: row.data.as_ref().is_some_and(|data| data.no_post_copy.is_some()),
                bandwidth_mib: row.bandwidth_mib,
            })
            .collect();
        Ok(Ok(HostWelcome { watch }))
    }

    /// A host is back: migrations that wait for it go on, its debts are paid.
    fn after_host_up(self: &Arc<Self>, host: HostName) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            let touching = async {
                let mut conn = conductor.store.connection().await?;
                lease::touching_host(&mut conn, host.as_str()).await
            };
            match touching.await {
                Ok(ids) => {
                    for id in ids {
                        conductor.start_drive(id, None).await;
                    }
                }
                Err(error) => warn!(error = telemetry::chain(&error), "migrations of the host not woken; the sweep does it"),
            }
            conductor.pay_debts(Some(&host)).await;
        });
    }

    /// Domains of a host, as they are now.
    pub(crate) async fn domains(&self, host: &HostName, report: &DomainsReport) -> Done {
        let apply = async {
            let mut tx = self.store.begin().await?;
            match hosts::present_life(&mut tx, host).await? {
                Some((life, node)) if life == report.incarnation => {
                    let ask = self.apply_domains(&mut tx, host, &node, report).await?;
                    commit(tx).await?;
                    self.ask_for_domains(&ask).await;
                    Ok(())
                }
                _ => {
                    debug!(host = %host, "domains of an earlier life, or of a host that has not introduced itself");
                    Ok(())
                }
            }
        };
        match apply.await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Again(error),
        }
    }

    /// These hosts have the only copy of a guest that has just left another: their next report would come within a minute, this one
    /// comes now.
    async fn ask_for_domains(&self, hosts: &[HostName]) {
        for host in hosts {
            if let Err(fault) = self.agents.cast(host, ToCompute::ReportDomains, None).await {
                debug!(host = %host, error = %fault, "not asked for its domains; it reports them by itself");
            }
        }
    }

    /// Writes what a report means; returns the hosts that should be looked at again at once.
    async fn apply_domains(
        &self,
        tx: &mut Transaction,
        host: &HostName,
        node: &str,
        report: &DomainsReport,
    ) -> Result<Vec<HostName>, StoreError> {
        let observer = Observer { host, node, incarnation: report.incarnation, sequence: report.sequence };
        let reported: Vec<Uuid> = report.domains.iter().map(|d| d.server.0).collect();
        let mut missing: Vec<Uuid> = report.gone.iter().map(|s| s.0).collect();
        if report.complete {
            let on_host = servers::on_host(tx, host).await?.into_iter().map(|s| s.0);
            let found = findings::servers_on_host(tx, host).await?;
            let is_there = |uuid: &Uuid| reported.contains(uuid) || report.unreadable.contains(&ServerId(*uuid));
            missing.extend(on_host.chain(found).filter(|uuid| !is_there(uuid)));
            missing.sort_unstable();
            missing.dedup();
        }
        let all: Vec<Uuid> = reported.iter().chain(&missing).copied().collect();
        let known: HashMap<ServerId, _> = servers::lock_all(tx, &all).await?.into_iter().map(|s| (s.uuid, s)).collect();
        let open: HashMap<ServerId, _> = migrations::open_of_servers(tx, &all).await?.into_iter().map(|m| (m.server, m)).collect();
        let owed = debts::servers_on_host(tx, host).await?;
        for domain in &report.domains {
            let owed = owed.contains(&domain.server.0);
            let decision = adoption::reported(observer, known.get(&domain.server), open.get(&domain.server), owed, domain);
            match decision {
                Decision::Ignore => {}
                Decision::Adopt { vm_state } => {
                    let owner = match (&domain.owner, known.get(&domain.server)) {
                        (Some(owner), _) => (owner.project_id.as_str(), owner.user_id.as_str()),
                        (None, Some(server)) => (server.project_id.as_str(), server.user_id.as_str()),
                        (None, None) => (self.settings.default_owner.0.as_str(), self.settings.default_owner.1.as_str()),
                    };
                    servers::adopt(tx, observer, domain, vm_state, owner).await?;
                    if known.get(&domain.server).is_none_or(|s| s.deleted_at.is_some() || s.host != *host) {
                        info!(host = %host, server.id = %domain.server, name = domain.display_name, "domain adopted as a server");
                        findings::resolve(tx, &[FindingKind::OwnershipConflict], domain.server, None).await?;
                    }
                }
                Decision::Finding { kind, details } => {
                    if kind == FindingKind::Leftover {
                        findings::resolve(tx, &[FindingKind::OwnershipConflict], domain.server, Some(host)).await?;
                    }
                    if findings::raise(tx, kind, domain.server, host, &details).await? {
                        metrics::found(kind);
                        warn!(host = %host, server.id = %domain.server, kind = %kind, "{details}");
                    }
                }
            }
            if domain.job.is_none() {
                findings::resolve(tx, &[FindingKind::ForeignJob], domain.server, Some(host)).await?;
            }
        }
        let mut ask = Vec::new();
        for uuid in missing {
            let id = ServerId(uuid);
            if adoption::gone(observer, known.get(&id), open.get(&id)) {
                let elsewhere = findings::hosts_in_conflict(tx, id, host).await?;
                if elsewhere.is_empty() {
                    info!(host = %host, server.id = %id, "domain is gone");
                    servers::gone(tx, observer, id).await?;
                } else {
                    info!(host = %host, server.id = %id, "domain is gone, and another host has an active copy");
                    servers::left(tx, observer, id).await?;
                    ask.extend(elsewhere);
                }
            }
            if !open.contains_key(&id) {
                findings::resolve_all_on_host(tx, id, host).await?;
            }
        }
        Ok(ask)
    }
}
