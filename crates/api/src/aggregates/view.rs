//! Aggregates as the API shows them.

use drover_store::aggregates::Aggregate;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::context::Call;
use crate::microversion::v2;
use crate::time::ts;

#[derive(Serialize)]
pub(super) struct View<'a> {
    id: i64,
    /// Since 2.41.
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    name: &'a str,
    availability_zone: Option<&'a str>,
    #[serde(flatten)]
    contents: Option<Contents<'a>>,
    created_at: String,
    updated_at: Option<String>,
    /// Deleted ones are gone.
    deleted_at: Option<String>,
    deleted: bool,
}

#[derive(Serialize)]
struct Contents<'a> {
    hosts: &'a [String],
    metadata: &'a Value,
}

impl<'a> View<'a> {
    pub(super) fn of(aggregate: &'a Aggregate, call: &Call) -> Self {
        let contents = Contents { hosts: &aggregate.hosts, metadata: &aggregate.metadata };
        Self { contents: Some(contents), ..Self::new(aggregate, call) }
    }

    /// One that was just made: without what it contains, as in Nova.
    pub(super) fn new(aggregate: &'a Aggregate, call: &Call) -> Self {
        Self {
            id: aggregate.id,
            uuid: (call.version >= v2(41)).then_some(aggregate.uuid),
            name: &aggregate.name,
            availability_zone: aggregate.availability_zone(),
            contents: None,
            created_at: ts(aggregate.created_at),
            updated_at: aggregate.updated_at.map(ts),
            deleted_at: None,
            deleted: false,
        }
    }
}
