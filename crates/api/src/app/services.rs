//! What operators wish of compute services.

use std::fmt::Write;

use drover_common::ids::{HostName, MigrationId};
use drover_common::rpc::latest::ToConductor;
use drover_store::migrations::lease;
use drover_store::services::{Deletion, Service};
use drover_store::{audit, commit, services};

use super::migrations::entry;
use super::outbox;
use crate::context::Asked;
use crate::error::ApiError;
use crate::state::AppState;

/// A change; `None` leaves things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceWish {
    /// Whether the scheduler passes the host by.
    pub(crate) disabled: Option<bool>,
    /// Why; goes with being disabled.
    pub(crate) disabled_reason: Option<String>,
    /// The assertion that the host is fenced.
    pub(crate) forced_down: Option<bool>,
}

impl ServiceWish {
    fn shown(&self) -> String {
        let mut text = String::new();
        for (name, value) in [("disabled", self.disabled), ("forced_down", self.forced_down)] {
            if let Some(value) = value {
                let _ = write!(text, "{name}={value} "); // Writing to a String cannot fail.
            }
        }
        if let Some(reason) = &self.disabled_reason {
            let _ = write!(text, "reason={reason}");
        }
        text.trim_end().to_owned()
    }
}

/// Writes the wish. Migrations that wait for the host's word are looked at again at once when it is said to be down, or up.
pub(crate) async fn update(app: &AppState, asked: &Asked, host: &HostName, wish: &ServiceWish) -> Result<bool, ApiError> {
    let mut tx = app.store().begin().await?;
    let known = services::set(&mut tx, host, wish.disabled, wish.disabled_reason.as_deref(), wish.forced_down).await?;
    if !known {
        return Ok(false);
    }
    let (target, details) = (format!("host {host}"), wish.shown());
    audit::write(&mut tx, entry(asked, "os-services", &target, Some(&details))).await?;
    let touched: Vec<MigrationId> = match wish.forced_down {
        Some(_) => lease::touching_host(&mut tx, host.as_str()).await?,
        None => Vec::new(),
    };
    let mut promised = Vec::with_capacity(touched.len());
    for migration in touched {
        promised.push(outbox::promise(&mut tx, asked.envelope(ToConductor::Wake { migration })).await?);
    }
    commit(tx).await?;
    for message in promised {
        outbox::publish(app, message);
    }
    tracing::info!(host = %host, wish = details, "service changed");
    Ok(true)
}

/// Forgets a service, if nothing depends on it.
pub(crate) async fn delete(app: &AppState, asked: &Asked, service: &Service) -> Result<Deletion, ApiError> {
    let mut tx = app.store().begin().await?;
    let done = services::delete(&mut tx, service.id).await?;
    if done == Deletion::Done {
        let target = format!("host {}", service.host);
        audit::write(&mut tx, entry(asked, "os-services:delete", &target, Some(&service.binary))).await?;
        commit(tx).await?;
        tracing::info!(host = %service.host, binary = service.binary, "service deleted");
    }
    Ok(done)
}
