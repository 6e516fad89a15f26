//! What to do next with a power action, and what an answer means: pure.

use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::HostName;
use drover_common::power::PowerAction;
use drover_store::migrations::Migration;
use drover_store::power::Power;
use drover_store::servers::Server;

/// What the books say.
pub(super) struct Situation<'a> {
    pub(super) row: &'a Power,
    pub(super) server: &'a Server,
    /// The server's open migration.
    pub(super) migration: Option<&'a Migration>,
    /// Its power actions that are not over.
    pub(super) others: &'a [Power],
}

/// The next action.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Something else must end first.
    Wait(String),
    /// Ask the host to do it, or how far it is.
    Ask,
    /// The server is deleted already.
    Gone,
}

/// Decides.
pub(super) fn plan(situation: &Situation<'_>) -> Next {
    if situation.server.deleted_at.is_some() && situation.row.action == PowerAction::Delete {
        return Next::Gone;
    }
    match in_the_way(situation) {
        Some(why) => Next::Wait(why),
        None => Next::Ask,
    }
}

/// Whether the server's host may do it now; why not.
pub(super) fn may(situation: &Situation<'_>, host: &HostName) -> Result<(), String> {
    if situation.row.is_over {
        return Err("it is over".to_owned());
    }
    if situation.server.host != *host {
        return Err(format!("the server is on {}", situation.server.host));
    }
    in_the_way(situation).map_or(Ok(()), |why| Err(format!("it waits for {why}")))
}

/// What must end first: never two things at a time are done to a guest.
fn in_the_way(situation: &Situation<'_>) -> Option<String> {
    if let Some(migration) = situation.migration {
        return Some(format!("migration {}, which is {}", migration.id, migration.status));
    }
    let before = situation.others.iter().find(|other| other.id < situation.row.id)?;
    Some(format!("{} {}", before.action, before.id))
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is at it.
    UnderWay,
    /// This conductor could not ask: that says nothing of the host.
    NotAsked(String),
    /// The host, or its libvirt, does not answer.
    Silent(String),
    /// It will not be done.
    Refused(Fault),
}

/// What a failed question means. `is_gone`: an operator asserts that the host is fenced.
pub(super) fn judge(action: PowerAction, host: &HostName, fault: Fault, is_gone: bool) -> Answer {
    match fault.class {
        FaultClass::MessageDeliveryFailure => Answer::NotAsked(fault.message),
        FaultClass::ComputeServiceUnavailable if is_gone => {
            Answer::Refused(Fault::power_action(action, format_args!("{host} is forced down. {}", fault.message)))
        }
        FaultClass::ComputeServiceUnavailable | FaultClass::HypervisorUnavailable => Answer::Silent(fault.message),
        FaultClass::UnsupportedVersion => {
            Answer::Refused(Fault::power_action(action, format_args!("the agent of {host} is too old for it. {}", fault.message)))
        }
        _ => Answer::Refused(Fault::power_action(action, fault.message)),
    }
}

/// The fault of an action whose host fell silent.
pub(super) fn unknown_outcome(action: PowerAction, host: &HostName, why: &str) -> Fault {
    Fault::power_action(
        action,
        format_args!("{why} Whether {host} has done it is not known; the server shows what {host} reports once it is back."),
    )
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{PowerActionId, RequestId};
    use drover_common::migration::MigrationStatus;

    use super::*;
    use crate::testing::{migration, server};

    fn row(id: i64, action: PowerAction) -> Power {
        Power {
            id: PowerActionId(id),
            server: server("h1").uuid,
            action,
            instance_action: 1,
            user_id: "user".to_owned(),
            project_id: "project".to_owned(),
            request_id: RequestId::random(),
            is_silent: false,
            is_over: false,
        }
    }

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    #[test]
    fn a_delete_waits_for_the_migration_and_for_the_action_before_it() {
        let (stop, delete, here) = (row(1, PowerAction::Stop), row(2, PowerAction::Delete), server("h1"));
        let moving = migration(MigrationStatus::Running, "h1", Some("h2"));
        let both = [stop.clone(), delete.clone()];
        let situation = |row, migration, others| Situation { row, server: &here, migration, others };
        assert_eq!(plan(&situation(&delete, Some(&moving), &[])), Next::Wait("migration 1, which is running".to_owned()));
        assert_eq!(plan(&situation(&delete, None, &both)), Next::Wait("stop 1".to_owned()));
        assert_eq!(plan(&situation(&stop, None, &both)), Next::Ask, "not for the one after it");
        assert_eq!(plan(&situation(&delete, None, &both[1..])), Next::Ask);
        assert!(may(&situation(&delete, Some(&moving), &[]), &host("h1")).is_err());
        assert!(may(&situation(&delete, None, &both), &host("h1")).is_err());
        assert_eq!(may(&situation(&delete, None, &both[1..]), &host("h1")), Ok(()));
    }

    #[test]
    fn leave_is_given_to_the_servers_host_and_only_while_the_action_is_open() {
        let (stop, here) = (row(1, PowerAction::Stop), server("h1"));
        let over = Power { is_over: true, ..stop.clone() };
        let ask = |row, name| may(&Situation { row, server: &here, migration: None, others: &[] }, &host(name));
        assert_eq!(ask(&stop, "h1"), Ok(()));
        assert!(ask(&stop, "h2").is_err());
        assert!(ask(&over, "h1").is_err());
    }

    #[test]
    fn a_server_that_is_gone_already_is_deleted() {
        let (delete, stop, mut here) = (row(1, PowerAction::Delete), row(1, PowerAction::Stop), server("h1"));
        here.deleted_at = Some(here.created_at);
        let decide = |row| plan(&Situation { row, server: &here, migration: None, others: &[] });
        assert_eq!(decide(&delete), Next::Gone);
        assert_eq!(decide(&stop), Next::Ask, "its host says what it has");
    }

    #[test]
    fn silence_is_waited_for_and_a_refusal_is_an_end() {
        let (action, h1) = (PowerAction::Stop, host("h1"));
        let silent = Fault::compute_service_unavailable(&h1, "It is away.");
        assert!(matches!(judge(action, &h1, silent.clone(), false), Answer::Silent(_)));
        assert!(matches!(judge(action, &h1, silent, true), Answer::Refused(_)), "fenced");
        assert!(matches!(judge(action, &h1, Fault::hypervisor_unavailable(&h1, "no"), false), Answer::Silent(_)));
        assert!(matches!(judge(action, &h1, Fault::message_delivery_failure("no broker"), false), Answer::NotAsked(_)));
        let old = judge(action, &h1, Fault::unsupported_version("1.2", "1.1"), false);
        let Answer::Refused(fault) = old else { panic!("{old:?}") };
        assert!(fault.message.starts_with("Failed to power off instance: the agent of h1 is too old for it."), "{fault}");
        assert!(matches!(judge(action, &h1, Fault::instance_not_found("x"), false), Answer::Refused(_)));
    }
}
