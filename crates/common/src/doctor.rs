//! What `GET /drover/v1/doctor` tells: facts about a deployment, as they are now. `drover doctor` judges them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::HostName;
use crate::rpc::latest::{Certificate, HostDiagnosis};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The API's release.
    pub release: String,
    /// The certificates that the API uses.
    pub certificates: Vec<Certificate>,
    /// The database.
    pub database: Database,
    /// What a conductor said, and why none did.
    pub conductor: Conductor,
    /// Conductors that are on record, and whether each is heard of.
    pub conductors: BTreeMap<HostName, bool>,
    /// Compute hosts, in the order of their names.
    pub hosts: Vec<Host>,
    /// Whether new migrations are held back.
    pub pause: Option<Pause>,
    /// Open findings, by kind.
    pub findings: BTreeMap<String, i64>,
    /// Clean-ups that hosts still owe.
    pub cleanup_debts: i64,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Its clock.
    pub clock: DateTime<Utc>,
    /// Steps of this release's schema that were not taken.
    pub steps_missing: Vec<String>,
    /// Promised messages that the broker does not have yet.
    pub outbox_unpublished: i64,
    /// Age of the oldest of them, seconds.
    pub outbox_lag_seconds: f64,
}

/// What a conductor said when it was asked through the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conductor {
    /// Its release.
    pub release: Option<String>,
    /// How far its clock is ahead of the database's, milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// Why none answered.
    pub problem: Option<String>,
}

/// A compute host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub host: HostName,
    /// Whether its agent is heard of.
    pub up: bool,
    /// Whether an operator asserts that it is down.
    pub forced_down: bool,
    /// For instance `QEMU`.
    pub hypervisor_type: String,
    /// major * 1,000,000 + minor * 1,000 + release.
    pub hypervisor_version: i32,
    /// The same form.
    pub libvirt_version: i32,
    /// How far its clock is ahead of the conductor's, milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// What its agent sees.
    pub diagnosis: Option<HostDiagnosis>,
    /// Why its agent did not say.
    pub problem: Option<String>,
}

/// An operator holds back new migrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Who.
    pub paused_by: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// This host's own clock, to be compared with others' and for nothing else.
#[expect(clippy::disallowed_methods, reason = "here the clock itself is what is looked at")]
pub fn own_clock() -> DateTime<Utc> {
    Utc::now()
}
