//! Grants: leave for what cannot be taken back. The agent asks immediately before; the row answers.
//!
//! An order that comes late, twice or after a roll-back finds the row elsewhere, or at another attempt, and is refused: so nothing
//! happens. A granted start moves the row to `running` and remembers which life of the agent got it.

use std::sync::Arc;

use drover_common::bus::ReplyTo;
use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::migration::{Event, MigrationStatus};
use drover_common::rpc::latest::{Authority, GrantKind, GrantRequest, Granted};
use drover_store::debts::{Debt, Side};
use drover_store::migrations::{self, Migration, advance};
use drover_store::{StoreError, debts, servers};
use tracing::{debug, info};

use crate::Conductor;
use crate::consumer::Done;

/// What the row says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Yes, and the row goes along this edge first.
    After(Event),
    /// Yes.
    Yes,
    /// No.
    No(&'static str),
}

/// Decides by the row, for a migration that is open.
fn by_row(row: &Migration, host: &HostName, request: &GrantRequest) -> Answer {
    let Authority::Migration { attempt } = request.authority else {
        return Answer::No("the request names a debt");
    };
    if attempt != row.attempt {
        return Answer::No("another attempt is under way");
    }
    let (source, destination) = (row.source == *host, row.destination.as_ref() == Some(host));
    match (request.kind, row.status) {
        (GrantKind::Start, MigrationStatus::Preparing) if source && row.abort_requested_by.is_some() => {
            Answer::No("it was aborted")
        }
        (GrantKind::Start, MigrationStatus::Preparing) if source && row.pre_done => Answer::After(Event::StartGranted),
        // Its first answer was lost on the way: the same life may have it again, another may not.
        (GrantKind::Start, MigrationStatus::Running) if source && row.start_incarnation == Some(request.incarnation) => Answer::Yes,
        // From post-copy there is no way back.
        (GrantKind::PostCopy, MigrationStatus::Running) if source && row.abort_requested_by.is_some() => {
            Answer::No("it was aborted")
        }
        (GrantKind::PostCopy, MigrationStatus::Running) if source => Answer::After(Event::PostCopyStarted),
        (GrantKind::PostCopy, MigrationStatus::RunningPostCopy) if source => Answer::Yes,
        // The guest runs on the destination and waits: there is no other way than forward.
        (GrantKind::RecoverPostCopy, MigrationStatus::RunningPostCopy) if source => Answer::Yes,
        (GrantKind::Resume, MigrationStatus::RollingBack) if source => Answer::Yes,
        (GrantKind::CleanSource, MigrationStatus::PostMigrating) if source => Answer::Yes,
        (GrantKind::RollbackDestination, MigrationStatus::RollingBack) if destination => Answer::Yes,
        // An operator keeps the destination's copy, which was stopped while nobody knew.
        (GrantKind::Resume, MigrationStatus::PostMigrating) if destination && row.keep.as_ref() == Some(host) => Answer::Yes,
        (GrantKind::Discard, MigrationStatus::Running | MigrationStatus::RunningPostCopy | MigrationStatus::RollingBack)
            if (source || destination) && row.keep.as_ref().is_some_and(|keep| keep != host) =>
        {
            Answer::Yes
        }
        // Both run: a lost Finish shows in any of these.
        (GrantKind::Suspend, MigrationStatus::Running | MigrationStatus::RunningPostCopy | MigrationStatus::RollingBack)
            if destination =>
        {
            Answer::Yes
        }
        _ => Answer::No("the migration is not where this may be done"),
    }
}

/// Decides by a debt, for a migration that is closed. A copy may be stopped where the guest is not (`recorded_on`): it runs beside the
/// guest, because its finish was never confirmed. If the books have followed it there meanwhile, it is the guest.
fn by_debt(debt: Option<&Debt>, recorded_on: Option<&HostName>, host: &HostName, request: &GrantRequest) -> Answer {
    match (debt, request.kind) {
        (Some(debt), GrantKind::Suspend) if debt.host == *host && debt.side == Side::Destination => match recorded_on {
            Some(recorded) if recorded != host => Answer::Yes,
            _ => Answer::No("the guest is not recorded on another host"),
        },
        (Some(debt), GrantKind::RollbackDestination) if debt.host == *host && debt.side == Side::Destination => Answer::Yes,
        (Some(debt), GrantKind::CleanSource) if debt.host == *host && debt.side == Side::Source => Answer::Yes,
        _ => Answer::No("there is no such debt"),
    }
}

impl Conductor {
    /// Answers an agent that is about to do what cannot be taken back.
    pub(crate) async fn grant(self: &Arc<Self>, host: &HostName, request: GrantRequest, reply_to: Option<&ReplyTo>) -> Done {
        match self.decide_grant(host, &request).await {
            Ok(answer) => {
                match &answer {
                    Ok(_) => info!(migration.id = %request.migration, host = %host, kind = ?request.kind, "granted"),
                    Err(fault) => {
                        info!(migration.id = %request.migration, host = %host, kind = ?request.kind, error = %fault, "not granted");
                    }
                }
                self.bus.reply(reply_to, answer).await;
                Done::Yes
            }
            Err(error) => {
                // Not put back: the agent asks again, and an answer to an old question would find nobody.
                debug!(error = %error, "grant not decided");
                self.bus.reply::<()>(reply_to, Err(Fault::unexpected(error))).await;
                Done::Yes
            }
        }
    }

    async fn decide_grant(&self, host: &HostName, request: &GrantRequest) -> Result<Result<Granted, Fault>, StoreError> {
        let mut conn = self.store.connection().await?;
        let no = |why: &str| {
            Fault::migration_error(format_args!(
                "{:?} not granted to {host} for migration {}: {why}",
                request.kind, request.migration
            ))
        };
        if let Authority::Debt { id } = request.authority {
            let debt = debts::get_open(&mut conn, id).await?.filter(|debt| debt.migration == request.migration);
            let server = match &debt {
                Some(debt) => servers::get(&mut conn, debt.server).await?.filter(|server| server.deleted_at.is_none()),
                None => None,
            };
            return Ok(match by_debt(debt.as_ref(), server.as_ref().map(|server| &server.host), host, request) {
                Answer::Yes | Answer::After(_) => {
                    Ok(Granted { revision: drover_common::ids::Revision(0), abort_requested: false, bandwidth_mib: None })
                }
                Answer::No(why) => Err(no(why)),
            });
        }
        // A drive may write the row between our reading and our edge; then it is read once more.
        for _ in 0..3 {
            let Some(row) = migrations::get(&mut conn, request.migration).await? else {
                return Ok(Err(no("there is no such migration")));
            };
            let granted = match by_row(&row, host, request) {
                Answer::No(why) => return Ok(Err(no(why))),
                Answer::Yes => Some(row),
                Answer::After(event) => {
                    advance(&mut conn, &row, event, |after| {
                        if event == Event::StartGranted {
                            after.start_incarnation = Some(request.incarnation);
                            after.look_again_in = std::time::Duration::from_secs(15);
                        }
                    })
                    .await?
                }
            };
            if let Some(row) = granted {
                return Ok(Ok(Granted {
                    revision: row.revision,
                    abort_requested: row.abort_requested_by.is_some(),
                    bandwidth_mib: row.bandwidth_mib,
                }));
            }
        }
        Ok(Err(no("the row changes too often just now; ask again")))
    }
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{Attempt, Incarnation, MigrationId, ServerId};

    use super::*;
    use crate::testing::migration;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn debt(side: Side) -> Debt {
        let data = serde_json::json!({
            "name": "instance-1", "xml": "<domain/>", "persistent": true, "paused": false, "block_migration": false, "disks": [],
            "destination": {"host": "h2", "connect_address": "h2", "inbound_address_set": false},
        });
        Debt {
            id: 3,
            migration: MigrationId(1),
            server: ServerId::random(),
            host: host("h2"),
            side,
            left_by: Attempt(1),
            data: serde_json::from_value(data).unwrap(),
        }
    }

    fn request(kind: GrantKind, attempt: i32, life: Incarnation) -> GrantRequest {
        let authority = Authority::Migration { attempt: Attempt(attempt) };
        GrantRequest { migration: MigrationId(1), authority, kind, incarnation: life }
    }

    /// For each status: which host is granted what.
    #[test]
    fn a_grant_is_given_where_it_belongs_and_to_one_host_only() {
        use GrantKind::{CleanSource, Discard, PostCopy, RecoverPostCopy, Resume, RollbackDestination, Start, Suspend};
        use MigrationStatus::{PostMigrating, Preparing, RollingBack, Running, RunningPostCopy};
        let given = [
            (Start, Preparing, "h1"),
            (PostCopy, Running, "h1"),
            (PostCopy, RunningPostCopy, "h1"),
            (RecoverPostCopy, RunningPostCopy, "h1"),
            (Resume, RollingBack, "h1"),
            (CleanSource, PostMigrating, "h1"),
            (RollbackDestination, RollingBack, "h2"),
            (Suspend, Running, "h2"),
            (Suspend, RunningPostCopy, "h2"),
            (Suspend, RollingBack, "h2"),
        ];
        for kind in [Start, PostCopy, RecoverPostCopy, Resume, RollbackDestination, Suspend, CleanSource, Discard] {
            for &status in MigrationStatus::ALL {
                for name in ["h1", "h2", "h3"] {
                    let row = migration(status, "h1", Some("h2"));
                    let answer = by_row(&row, &host(name), &request(kind, row.attempt.0, Incarnation::random()));
                    let expected = given.contains(&(kind, status, name));
                    assert_eq!(!matches!(answer, Answer::No(_)), expected, "{kind:?} {status} {name}: {answer:?}");
                }
            }
        }
    }

    #[test]
    fn a_copy_is_discarded_only_where_an_operator_did_not_keep_it() {
        let life = Incarnation::random();
        let mut row = migration(MigrationStatus::Running, "h1", Some("h2"));
        let discard = |row: &Migration, name| by_row(row, &host(name), &request(GrantKind::Discard, row.attempt.0, life));
        assert!(matches!(discard(&row, "h2"), Answer::No(_)), "nobody chose");
        row.keep = Some(host("h1"));
        assert_eq!(discard(&row, "h2"), Answer::Yes);
        assert!(matches!(discard(&row, "h1"), Answer::No(_)), "it is the one that was kept");
        assert!(matches!(discard(&row, "h3"), Answer::No(_)));
        row.status = MigrationStatus::PostMigrating;
        assert!(matches!(discard(&row, "h2"), Answer::No(_)));
        let resume = |row: &Migration, name| by_row(row, &host(name), &request(GrantKind::Resume, row.attempt.0, life));
        assert!(matches!(resume(&row, "h2"), Answer::No(_)), "the source's was kept");
        row.keep = Some(host("h2"));
        assert_eq!(resume(&row, "h2"), Answer::Yes);
    }

    #[test]
    fn a_debt_lets_its_host_clean_up_and_stop_a_copy_that_is_not_the_guest() {
        use GrantKind::{CleanSource, PostCopy, Resume, RollbackDestination, Start, Suspend};
        for side in [Side::Source, Side::Destination] {
            let debt = debt(side);
            for kind in [Start, PostCopy, Resume, RollbackDestination, Suspend, CleanSource] {
                for (name, recorded_on) in [("h2", Some("h1")), ("h2", Some("h2")), ("h2", None), ("h3", Some("h1"))] {
                    let request = GrantRequest { authority: Authority::Debt { id: 3 }, ..request(kind, 1, Incarnation::random()) };
                    let recorded = recorded_on.map(host);
                    let answer = by_debt(Some(&debt), recorded.as_ref(), &host(name), &request);
                    let expected = name == "h2"
                        && match (side, kind) {
                            (Side::Source, CleanSource) | (Side::Destination, RollbackDestination) => true,
                            (Side::Destination, Suspend) => recorded_on == Some("h1"),
                            _ => false,
                        };
                    assert_eq!(answer == Answer::Yes, expected, "{side} {kind:?} {name} {recorded_on:?}: {answer:?}");
                    assert!(matches!(by_debt(None, recorded.as_ref(), &host(name), &request), Answer::No(_)));
                }
            }
        }
    }

    #[test]
    fn an_order_of_another_attempt_or_after_an_abort_starts_nothing() {
        let life = Incarnation::random();
        let mut row = migration(MigrationStatus::Preparing, "h1", Some("h2"));
        let start = |row: &Migration, attempt| by_row(row, &host("h1"), &request(GrantKind::Start, attempt, life));
        assert_eq!(start(&row, row.attempt.0), Answer::After(Event::StartGranted));
        assert!(matches!(start(&row, row.attempt.0 - 1), Answer::No(_)));
        assert!(matches!(start(&row, row.attempt.0 + 1), Answer::No(_)));
        row.abort_requested_by = Some("admin".to_owned());
        assert!(matches!(start(&row, row.attempt.0), Answer::No(_)));
    }

    #[test]
    fn a_migration_that_is_to_be_taken_back_does_not_become_post_copy() {
        let mut row = migration(MigrationStatus::Running, "h1", Some("h2"));
        let post_copy =
            |row: &Migration| by_row(row, &host("h1"), &request(GrantKind::PostCopy, row.attempt.0, Incarnation::random()));
        assert_eq!(post_copy(&row), Answer::After(Event::PostCopyStarted));
        row.abort_requested_by = Some("admin".to_owned());
        assert!(matches!(post_copy(&row), Answer::No(_)));
    }

    #[test]
    fn a_lost_answer_is_given_again_to_the_same_life_and_to_no_other() {
        let life = Incarnation::random();
        let mut row = migration(MigrationStatus::Running, "h1", Some("h2"));
        row.start_incarnation = Some(life);
        let start = |life| by_row(&row, &host("h1"), &request(GrantKind::Start, row.attempt.0, life));
        assert_eq!(start(life), Answer::Yes);
        assert!(matches!(start(Incarnation::random()), Answer::No(_)));
    }
}
