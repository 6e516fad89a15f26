//! `GET /drover/v1/doctor`: facts about the whole deployment, for `drover doctor` to judge. What is on hosts is asked of their agents
//! now, through a conductor; so this is the one resource that takes seconds.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use drover_common::bus::{Address, CallError};
use drover_common::certificate;
use drover_common::doctor::{Conductor, Database, Facts, Host, Pause};
use drover_common::rpc::latest::{Certificate, Diagnosed, FleetDiagnosis, ToConductor};
use drover_store::fleet::Fleet;
use drover_store::hosts::Versions;
use drover_store::services::{self, Service};
use drover_store::{StoreError, fleet, hosts, now, pause};
use serde_json::{Value, json};

use crate::context::Asked;
use crate::error::ApiError;
use crate::policy::Rule;
use crate::state::AppState;

/// A conductor asks all agents twice; each of its rounds has 8 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Everything, as it is now. What does not answer is told as that.
pub(crate) async fn show(State(app): State<AppState>, asked: Asked) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverDoctor, &asked.caller)?;
    let question = asked.envelope(ToConductor::Diagnose);
    let (books, said, certificates) = tokio::join!(
        read_books(&app),
        app.bus().call::<_, FleetDiagnosis>(&Address::Conductor, &question, ANSWER_WITHIN),
        look_at_certificates(&app),
    );
    Ok(Json(json!({"doctor": assemble(books?, said, certificates)})))
}

/// What the database knows.
struct Books {
    clock: chrono::DateTime<chrono::Utc>,
    steps_missing: Vec<String>,
    services: Vec<Service>,
    versions: Vec<Versions>,
    fleet: Fleet,
    pause: Option<pause::Pause>,
}

async fn read_books(app: &AppState) -> Result<Books, StoreError> {
    let steps_missing = app.store().steps_missing().await?;
    let mut conn = app.store().connection().await?;
    Ok(Books {
        clock: now(&mut conn).await?,
        steps_missing,
        services: services::list(&mut conn, None, None, app.service_down_time()).await?,
        versions: hosts::versions(&mut conn).await?,
        fleet: fleet::read(&mut conn, app.service_down_time()).await?,
        pause: pause::get(&mut conn).await?,
    })
}

async fn look_at_certificates(app: &AppState) -> Vec<Certificate> {
    let paths = app.certificates().to_vec();
    let look = tokio::task::spawn_blocking(move || paths.iter().map(|path| certificate::look_at(path)).collect());
    look.await.unwrap_or_default()
}

fn assemble(books: Books, said: Result<FleetDiagnosis, CallError>, certificates: Vec<Certificate>) -> Facts {
    let Books { clock, steps_missing, services, versions, fleet, pause } = books;
    let (conductor, mut diagnosed) = match said {
        Ok(said) => {
            let clock_ahead_ms = Some((said.clock - clock).num_milliseconds());
            (Conductor { release: Some(said.release), clock_ahead_ms, problem: None }, said.hosts)
        }
        Err(error) => (Conductor { release: None, clock_ahead_ms: None, problem: Some(error.to_string()) }, Vec::new()),
    };
    let (agents, conductors): (Vec<Service>, Vec<Service>) =
        services.into_iter().partition(|service| service.binary == services::COMPUTE);
    let hosts = versions.into_iter().map(|versions| {
        let at = diagnosed.iter().position(|one| one.host == versions.host);
        let said = at.map(|at| diagnosed.swap_remove(at));
        let agent = agents.iter().find(|agent| agent.host == versions.host);
        host(versions, agent, said)
    });
    Facts {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        certificates,
        database: Database {
            clock,
            steps_missing,
            outbox_unpublished: fleet.counts.outbox,
            outbox_lag_seconds: fleet.counts.outbox_lag,
        },
        hosts: hosts.collect(),
        conductor,
        conductors: conductors.into_iter().map(|service| (service.host, service.up)).collect(),
        pause: pause.map(|pause| Pause { reason: pause.reason, paused_by: pause.paused_by, since: pause.since }),
        findings: fleet.findings.into_iter().collect(),
        cleanup_debts: fleet.counts.debts,
    }
}

fn host(versions: Versions, agent: Option<&Service>, said: Option<Diagnosed>) -> Host {
    let (clock_ahead_ms, diagnosis, problem) =
        said.map_or((None, None, None), |said| (said.clock_ahead_ms, said.diagnosis, said.problem));
    Host {
        host: versions.host,
        up: agent.is_some_and(|agent| agent.up),
        forced_down: agent.is_some_and(|agent| agent.forced_down),
        hypervisor_type: versions.hypervisor_type,
        hypervisor_version: versions.hypervisor_version,
        libvirt_version: versions.libvirt_version,
        clock_ahead_ms,
        diagnosis,
        problem,
    }
}
