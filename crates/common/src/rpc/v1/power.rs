//! Power actions. Since 1.2.

use serde::{Deserialize, Serialize};

use super::conductor::DomainsReport;
use crate::fault::Fault;
use crate::ids::{Incarnation, PowerActionId, ServerId};
use crate::power::PowerAction;

/// What is to be done to one guest. Said again and again until the answer is an end: the id tells the agent that it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOrder {
    /// Its row; leave is asked for with it.
    pub id: PowerActionId,
    /// The guest.
    pub server: ServerId,
    /// What.
    pub action: PowerAction,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PowerProgress {
    /// At work, or waiting for something else that is done to the guest.
    UnderWay,
    /// Done.
    Done {
        /// The guest since; among the `gone` if there is none any more.
        report: DomainsReport,
    },
    /// It will not be done.
    Failed {
        /// Why.
        fault: Fault,
        /// The guest since, if it could be looked at.
        report: Option<DomainsReport>,
    },
}

/// A request for leave, before each deed. Who asks is told by the broker, as for migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerGrantRequest {
    /// The action.
    pub id: PowerActionId,
    /// The asking life of the agent.
    pub incarnation: Incarnation,
}
