//! Letting a guest run again, and stopping one on the destination in an ownership conflict.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{GrantKind, GuestState, OfAttempt};
use tracing::info;

use crate::context::Context;
use crate::driver::Action;
use crate::facts;
use crate::grants::{self, NotGranted};

/// Answers `resume_guest`: only a guest that a migration stopped, and only when no job works on it any more. In a conflict that was
/// the destination's copy, stopped by us: an operator chose it.
pub async fn resume_guest(ctx: &Context, of: OfAttempt) -> Result<(), Fault> {
    change(ctx, of, GrantKind::Resume, Action::Resume).await
}

/// Answers `suspend_guest`.
pub async fn suspend_guest(ctx: &Context, of: OfAttempt) -> Result<(), Fault> {
    change(ctx, of, GrantKind::Suspend, Action::Suspend).await
}

async fn change(ctx: &Context, of: OfAttempt, kind: GrantKind, action: Action) -> Result<(), Fault> {
    if is_done(ctx, of, action).await? {
        return Ok(());
    }
    grants::ask(ctx, of, kind).await.map_err(NotGranted::into_fault)?;
    if is_done(ctx, of, action).await? {
        return Ok(()); // It changed while leave was asked for.
    }
    info!(migration.id = %of.migration, server.id = %of.server, ?action, "changing the guest's state");
    let acted = ctx.driver.act(of.server, action).await;
    acted.map_err(|error| error.into_fault(&ctx.options.host, of.server, Fault::migration_error))?;
    if action == Action::Resume {
        ctx.ledger.forget_stop(of.server);
    }
    Ok(())
}

/// Looks at the guest: whether nothing is to be done any more, or a fault if this is not for it.
async fn is_done(ctx: &Context, of: OfAttempt, action: Action) -> Result<bool, Fault> {
    let host = &ctx.options.host;
    let seen = facts::see(ctx, of.server).await;
    let seen = seen.map_err(|error| error.into_fault(host, of.server, Fault::migration_error))?;
    let seen = seen.ok_or_else(|| Fault::instance_not_found(of.server))?;
    let state = seen.facts.state;
    let brought_here = seen.facts.marker.is_some_and(|marker| marker.migration == of.migration);
    match judge(state, brought_here, seen.domain.job.is_some(), action) {
        Judgement::DoneAlready => Ok(true),
        Judgement::May => Ok(false),
        Judgement::MayNot => Err(Fault::migration_error(format_args!(
            "domain {} on {host} is {state}{}: {action:?} is not for it",
            seen.domain.name,
            seen.job_shown()
        ))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    DoneAlready,
    May,
    MayNot,
}

/// `brought_here`: by this very migration.
fn judge(state: GuestState, brought_here: bool, has_job: bool, action: Action) -> Judgement {
    match (action, state) {
        (Action::Resume, GuestState::Running) => Judgement::DoneAlready,
        (Action::Resume, GuestState::PausedMigration) if !has_job => Judgement::May,
        (Action::Resume, GuestState::Paused) if brought_here && !has_job => Judgement::May,
        (Action::Suspend, GuestState::Paused | GuestState::PausedMigration) => Judgement::DoneAlready,
        (Action::Suspend, GuestState::Running) => Judgement::May,
        _ => Judgement::MayNot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_migration_stopped_is_resumed_and_only_what_runs_is_stopped() {
        use GuestState::{Paused, PausedMigration, PausedPostCopy, Running, RunningPostCopy, ShutOff};
        for (action, state, has_job, expected) in [
            (Action::Resume, Running, false, Judgement::DoneAlready),
            (Action::Resume, PausedMigration, false, Judgement::May),
            (Action::Resume, PausedMigration, true, Judgement::MayNot),
            (Action::Resume, Paused, false, Judgement::MayNot),
            (Action::Resume, PausedPostCopy, false, Judgement::MayNot),
            (Action::Resume, ShutOff, false, Judgement::MayNot),
            (Action::Suspend, Running, false, Judgement::May),
            (Action::Suspend, Paused, false, Judgement::DoneAlready),
            (Action::Suspend, RunningPostCopy, true, Judgement::MayNot),
            (Action::Suspend, ShutOff, false, Judgement::MayNot),
        ] {
            assert_eq!(judge(state, false, has_job, action), expected, "{action:?} {state} {has_job}");
        }
        assert_eq!(judge(Paused, true, false, Action::Resume), Judgement::May, "the copy that was stopped in a conflict");
        assert_eq!(judge(ShutOff, true, false, Action::Resume), Judgement::MayNot);
    }
}
