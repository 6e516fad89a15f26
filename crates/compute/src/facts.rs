//! What this host sees of one guest, in the conductor's words.

use drover_common::ids::ServerId;
use drover_common::rpc::latest::{CallState, GuestFacts, GuestState, HostFacts, JobKind, OfAttempt};
use drover_common::telemetry;

use crate::context::Context;
use crate::domain_xml::DomainXml;
use crate::driver::{Domain, DriverError, PauseReason, RunState, XmlKind, if_there};

/// The guest's state as the conductor's verdicts know it.
///
/// A QEMU that waits for an incoming guest shows as "paused, starting up" or "paused, migration"; only the job or our marker tells
/// the first from a guest that is just being booted. `ApiError` is a guest that libvirt stopped for its job and could not let go
/// on: the owner never wanted it paused.
pub fn guest_state(state: RunState, job: Option<JobKind>, marked: bool) -> GuestState {
    match state {
        RunState::Running => GuestState::Running,
        RunState::RunningPostCopy => GuestState::RunningPostCopy,
        RunState::RunningPostCopyFailed => GuestState::RunningPostCopyFailed,
        RunState::Paused(PauseReason::Migration | PauseReason::ApiError) => GuestState::PausedMigration,
        RunState::Paused(PauseReason::StartingUp) if marked || job == Some(JobKind::MigrationIn) => GuestState::PausedMigration,
        RunState::Paused(PauseReason::PostCopy) => GuestState::PausedPostCopy,
        RunState::Paused(PauseReason::PostCopyFailed) => GuestState::PausedPostCopyFailed,
        RunState::Paused(PauseReason::StartingUp | PauseReason::Other) => GuestState::Paused,
        RunState::ShutOff => GuestState::ShutOff,
        RunState::Crashed => GuestState::Crashed,
        RunState::Suspended => GuestState::Suspended,
    }
}

/// A domain, seen and understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGuest {
    /// The domain as libvirt shows it.
    pub domain: Domain,
    /// What the conductor is told.
    pub facts: GuestFacts,
}

impl From<Domain> for SeenGuest {
    fn from(domain: Domain) -> Self {
        let facts = GuestFacts {
            state: guest_state(domain.state, domain.job, domain.marker.is_some()),
            persistent: domain.persistent,
            marker: domain.marker,
        };
        Self { domain, facts }
    }
}

impl SeenGuest {
    /// The job on it, for a sentence about it.
    pub fn job_shown(&self) -> String {
        self.domain.job.map(|job| format!(" with a job ({job})")).unwrap_or_default()
    }
}

/// Looks at one guest; none if there is no such domain.
pub async fn see(ctx: &Context, server: ServerId) -> Result<Option<SeenGuest>, DriverError> {
    let domain = if_there(ctx.driver.domain(server).await)?;
    Ok(domain.map(|domain| understand(ctx, domain)))
}

/// A domain in the conductor's words. One that this agent stopped to bring its migration to an end is paused by a migration, also
/// where libvirt took it for the owner's wish: there the stop came just after the job had ended.
fn understand(ctx: &Context, domain: Domain) -> SeenGuest {
    let mut seen = SeenGuest::from(domain);
    if seen.facts.state == GuestState::Paused && ctx.ledger.was_stopped(seen.domain.server) {
        seen.facts.state = GuestState::PausedMigration;
    }
    seen
}

/// A guest's live XML, read.
pub async fn live_xml(ctx: &Context, server: ServerId) -> Result<(String, DomainXml), DriverError> {
    let text = ctx.driver.xml(server, XmlKind::Live).await?;
    let unreadable = |error| DriverError::other(format!("XML of domain {server}: {}", telemetry::chain(&error)));
    let xml = DomainXml::parse(&text).map_err(unreadable)?;
    Ok((text, xml))
}

/// Everything that the conductor's verdict rests on.
pub async fn host_facts(ctx: &Context, of: OfAttempt) -> Result<HostFacts, DriverError> {
    // The ledger is read first: "not called" before a look that shows no job is true, the other way round it might not be.
    let call = ctx.ledger.state(of.migration, of.attempt);
    let seen = see(ctx, of.server).await?;
    Ok(facts(ctx, seen.as_ref(), call))
}

/// The same from a guest that was just looked at.
pub fn facts(ctx: &Context, seen: Option<&SeenGuest>, call: CallState) -> HostFacts {
    HostFacts {
        incarnation: ctx.incarnation,
        guest: seen.map(|seen| seen.facts.clone()),
        job: seen.and_then(|seen| seen.domain.job),
        call,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_waits_for_its_guest_is_paused_by_migration() {
        let starting = RunState::Paused(PauseReason::StartingUp);
        let incoming = Some(JobKind::MigrationIn);
        for (state, job, marked, expected) in [
            (RunState::Paused(PauseReason::Migration), None, false, GuestState::PausedMigration),
            (RunState::Paused(PauseReason::ApiError), None, false, GuestState::PausedMigration),
            (starting, incoming, false, GuestState::PausedMigration),
            (starting, None, true, GuestState::PausedMigration),
            (starting, None, false, GuestState::Paused),
            (starting, Some(JobKind::Other), false, GuestState::Paused),
            (RunState::Paused(PauseReason::Other), None, true, GuestState::Paused),
            (RunState::Paused(PauseReason::PostCopy), Some(JobKind::MigrationOut), false, GuestState::PausedPostCopy),
            (RunState::Paused(PauseReason::PostCopyFailed), None, false, GuestState::PausedPostCopyFailed),
            (RunState::Running, incoming, true, GuestState::Running),
            (RunState::RunningPostCopy, incoming, true, GuestState::RunningPostCopy),
            (RunState::ShutOff, None, true, GuestState::ShutOff),
        ] {
            assert_eq!(guest_state(state, job, marked), expected, "{state:?} {job:?} {marked}");
        }
    }
}
