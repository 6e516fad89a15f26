//! Listing servers: any filters, any order, pages after a marker.
//!
//! The one statement here that is put together while the program runs, because which conditions and columns it has is the caller's
//! choice: fixed SQL with `($1 IS NULL OR …)` for each would be planned without knowing which of them count, and no index would
//! serve it (`docs/adr/0009-listings-are-built.md`). Only texts of this file go into the SQL; values are always bound. The compiler
//! cannot check it, so a test runs each filter and each key.

use chrono::{DateTime, Utc};
use drover_common::names;
use drover_common::server::{TaskState, VmState};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{LockedBy, Record, Server};
use crate::error::StoreError;

/// What a listing asks for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this project's.
    pub project_id: Option<String>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only on this host.
    pub host: Option<String>,
    /// Only in this availability zone; the second is that of hosts which no aggregate puts into one.
    pub zone: Option<(String, String)>,
    /// Unanchored regular expression on libvirt's name of the host.
    pub node: Option<String>,
    /// Unanchored regular expression on the name (PostgreSQL's).
    pub name: Option<String>,
    /// The same on the guest's host name.
    pub hostname: Option<String>,
    /// Only with this flavor.
    pub flavor: Option<String>,
    /// Only these `vm_state`s.
    pub vm_states: Option<Vec<VmState>>,
    /// Only with one of these `task_state`s.
    pub task_states: Option<Vec<TaskState>>,
    /// Only with this `power_state` (Nova's number).
    pub power_state: Option<i16>,
    /// Only so far.
    pub progress: Option<i16>,
    /// Only locked ones, or only others.
    pub locked: Option<bool>,
    /// Only those whose lock this one holds.
    pub locked_by: Option<LockedBy>,
    /// Only those with all of these tags.
    pub tags: Vec<String>,
    /// Only those with one of these, if there are any.
    pub tags_any: Vec<String>,
    /// Not those with all of these.
    pub not_tags: Vec<String>,
    /// Not those with one of these.
    pub not_tags_any: Vec<String>,
    /// Only this server.
    pub uuid: Option<Uuid>,
    /// Created at this very time.
    pub created_at: Option<DateTime<Utc>>,
    /// Launched at this very time.
    pub launched_at: Option<DateTime<Utc>>,
    /// Gone at this very time.
    pub terminated_at: Option<DateTime<Utc>>,
    /// Whether deleted servers are meant too, or only they.
    pub deleted: Deleted,
    /// Changed at this time or after it.
    pub changes_since: Option<DateTime<Utc>>,
    /// Changed at this time or before it.
    pub changes_before: Option<DateTime<Utc>>,
    /// The order; what it leaves open is decided by age. Empty: newest first.
    pub sort: Vec<(SortKey, Direction)>,
    /// After this server in the order of the listing.
    pub marker: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// Whether a listing has deleted servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deleted {
    /// Only those that are not.
    #[default]
    No,
    /// Only them.
    Yes,
    /// All.
    Both,
}

/// Which way an order goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}
names!("sort direction", Direction { Ascending = "asc", Descending = "desc" });

/// What servers can be ordered by, under Nova's names. (Nova's other keys are the same for all servers here and order nothing.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Zone of its host; the default one comes first.
    AvailabilityZone,
    /// First seen.
    CreatedAt,
    /// Name.
    DisplayName,
    /// Host.
    Host,
    /// The guest's host name.
    Hostname,
    /// Flavor.
    InstanceTypeId,
    /// First seen.
    LaunchedAt,
    /// Whether locked.
    Locked,
    /// Who holds the lock; nobody comes first.
    LockedBy,
    /// libvirt's name of the host.
    Node,
    /// Nova's number.
    PowerState,
    /// Of a migration.
    Progress,
    /// Project.
    ProjectId,
    /// What is being done; nothing comes first.
    TaskState,
    /// When it was gone; those that are not come first.
    TerminatedAt,
    /// Last change.
    UpdatedAt,
    /// User.
    UserId,
    /// Id.
    Uuid,
    /// Stable state.
    VmState,
}
names!("sort key", SortKey {
    AvailabilityZone = "availability_zone",
    CreatedAt = "created_at",
    DisplayName = "display_name",
    Host = "host",
    Hostname = "hostname",
    InstanceTypeId = "instance_type_id",
    LaunchedAt = "launched_at",
    Locked = "locked",
    LockedBy = "locked_by",
    Node = "node",
    PowerState = "power_state",
    Progress = "progress",
    ProjectId = "project_id",
    TaskState = "task_state",
    TerminatedAt = "terminated_at",
    UpdatedAt = "updated_at",
    UserId = "user_id",
    Uuid = "uuid",
    VmState = "vm_state",
});

impl SortKey {
    /// The expression; never NULL, so that a marker can be compared with.
    const fn sql(self) -> &'static str {
        match self {
            Self::AvailabilityZone => "coalesce((SELECT zone FROM host_zones WHERE zone_host = host), '')",
            Self::CreatedAt => "created_at",
            Self::DisplayName => "display_name",
            Self::Host => "host",
            Self::Hostname => "hostname",
            Self::InstanceTypeId => "flavor_name",
            Self::LaunchedAt => "launched_at",
            Self::Locked => "locked",
            Self::LockedBy => "coalesce(locked_by, '')",
            Self::Node => "node",
            Self::PowerState => "power_state",
            Self::Progress => "progress",
            Self::ProjectId => "project_id",
            Self::TaskState => "coalesce(task_state, '')",
            Self::TerminatedAt => "coalesce(deleted_at, '-infinity')",
            Self::UpdatedAt => "updated_at",
            Self::UserId => "user_id",
            Self::Uuid => "uuid",
            Self::VmState => "vm_state",
        }
    }
}

/// The columns of the order: those that were asked for, then age, so that no two servers are equal (Nova appends the same, in the
/// direction of the first key).
fn order(sort: &[(SortKey, Direction)]) -> Vec<(&'static str, Direction)> {
    let mut columns: Vec<(&'static str, Direction)> = sort.iter().map(|&(key, direction)| (key.sql(), direction)).collect();
    let last = columns.first().map_or(Direction::Descending, |&(_, direction)| direction);
    for column in ["created_at", "id"] {
        if columns.iter().all(|&(known, _)| known != column) {
            columns.push((column, last));
        }
    }
    columns
}

/// Servers, in the order and from the place asked for.
pub async fn list(conn: &mut PgConnection, filter: &Filter) -> Result<Vec<Server>, StoreError> {
    let columns = order(&filter.sort);
    let mut sql = QueryBuilder::new("SELECT * FROM servers s WHERE ");
    sql.push(match filter.deleted {
        Deleted::No => "deleted_at IS NULL",
        Deleted::Yes => "deleted_at IS NOT NULL",
        Deleted::Both => "true",
    });
    conditions(&mut sql, filter);
    if let Some(marker) = filter.marker {
        after(&mut sql, &columns, marker);
    }
    for (place, (column, direction)) in columns.iter().enumerate() {
        sql.push(if place == 0 { " ORDER BY " } else { ", " }).push(column).push(" ").push(direction);
    }
    sql.push(" LIMIT ").push_bind(filter.limit);
    // Not kept: PostgreSQL would soon plan it for any values, and which index is right depends on these.
    let rows: Result<Vec<Record>, _> = sql.build_query_as().persistent(false).fetch_all(conn).await;
    rows.map_err(StoreError::query("servers.list"))?.into_iter().map(Record::read).collect()
}

fn conditions(sql: &mut QueryBuilder<Postgres>, filter: &Filter) {
    macro_rules! when {
        ($value:expr, $before:literal, $after:literal) => {
            if let Some(value) = $value {
                sql.push(concat!(" AND ", $before)).push_bind(value).push($after);
            }
        };
        ($value:expr, $before:literal) => {
            when!($value, $before, "")
        };
    }
    when!(filter.project_id.clone(), "project_id = ");
    when!(filter.user_id.clone(), "user_id = ");
    when!(filter.host.clone(), "host = ");
    if let Some((zone, default)) = &filter.zone {
        // An array is made once and looked at row by row: of the usual zone, with nearly all hosts, a page is found at once. As a join all
        // its servers would be sorted.
        sql.push(" AND host = ANY (ARRAY(SELECT n.host FROM compute_nodes n LEFT JOIN host_zones ON zone_host = n.host");
        sql.push(" WHERE coalesce(zone, ").push_bind(default.clone()).push(") = ").push_bind(zone.clone()).push("))");
    }
    // Through the few hosts, so that the index on servers' hosts serves it.
    when!(filter.node.clone(), "host IN (SELECT host FROM compute_nodes WHERE hypervisor_hostname ~ ", ")");
    when!(filter.name.clone(), "display_name ~ ");
    when!(filter.hostname.clone(), "hostname ~ ");
    when!(filter.flavor.clone(), "flavor_name = ");
    when!(
        filter.vm_states.as_ref().map(|states| states.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "vm_state = ANY (",
        ")"
    );
    when!(
        filter.task_states.as_ref().map(|states| states.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "task_state = ANY (",
        ")"
    );
    when!(filter.power_state, "power_state = ");
    match filter.progress {
        // The condition of the partial index, for all but the value that most servers have.
        Some(0) => drop(sql.push(" AND progress = 0")),
        Some(progress) => drop(sql.push(" AND progress <> 0 AND progress = ").push_bind(progress)),
        None => {}
    }
    match filter.locked {
        Some(true) => drop(sql.push(" AND locked")),
        Some(false) => drop(sql.push(" AND NOT locked")),
        None => {}
    }
    let some = |tags: &Vec<String>| Some(tags.clone()).filter(|tags| !tags.is_empty());
    when!(some(&filter.tags), "tags @> ");
    when!(some(&filter.tags_any), "tags && ");
    when!(some(&filter.not_tags), "NOT tags @> ");
    when!(some(&filter.not_tags_any), "NOT tags && ");
    when!(filter.locked_by.map(LockedBy::as_str), "locked AND locked_by = ");
    when!(filter.uuid, "uuid = ");
    when!(filter.created_at, "created_at = ");
    when!(filter.launched_at, "launched_at = ");
    when!(filter.terminated_at, "deleted_at = ");
    when!(filter.changes_since, "updated_at >= ");
    when!(filter.changes_before, "updated_at <= ");
    when!(filter.changes_before, "created_at <= "); // Follows from the other, and the index of the order can begin there.
}

/// Only what comes after the marker. Columns that all go one way are compared as one row, which an index can begin at.
fn after(sql: &mut QueryBuilder<Postgres>, columns: &[(&'static str, Direction)], marker: Uuid) {
    let passes = |direction| if direction == Direction::Ascending { " > " } else { " < " };
    let of_marker = |sql: &mut QueryBuilder<Postgres>, columns: &str| {
        sql.push("(SELECT ").push(columns).push(" FROM servers m WHERE m.uuid = ").push_bind(marker).push(")");
    };
    let first = columns[0].1;
    if columns.iter().all(|&(_, direction)| direction == first) {
        let names = columns.iter().map(|&(column, _)| column).collect::<Vec<_>>().join(", ");
        sql.push(" AND (").push(&names).push(")").push(passes(first));
        return of_marker(sql, &names);
    }
    for (place, &(column, direction)) in columns.iter().enumerate() {
        sql.push(if place == 0 { " AND (" } else { " OR " });
        for &(before, _) in &columns[..place] {
            sql.push(before).push(" = ");
            of_marker(sql, before);
            sql.push(" AND ");
        }
        sql.push(column).push(passes(direction));
        of_marker(sql, column);
    }
    sql.push(")");
}
