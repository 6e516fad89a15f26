//! The filters of `/servers`: from a query to what the database is asked.
//!
//! A filter that the caller may not use is dropped silently, as in Nova; one whose value nothing can have finds nothing.

use drover_common::server::{ServerStatus, TaskState, VmState};
use drover_store::servers::{Deleted, Filter};

use super::{lookup, schema};
use crate::context::Call;
use crate::error::ApiError;
use crate::microversion::{Microversion, v2};
use crate::policy::Rule;
use crate::state::AppState;
use crate::time;
use crate::validation::Query;
use crate::validation::python::quoted;

/// The filter, or `None` when nothing can pass it.
pub(super) fn from_query(app: &AppState, call: &Call, query: &Query, all_tenants: Rule) -> Result<Option<Filter>, ApiError> {
    refuse_what_is_no_filter(query)?;
    let everything = app.policy().allows(Rule::ServersAllFilters, call.caller(), &call.caller().project_id);
    let given = Given { query, everything, version: call.version };
    let changes = query.changes()?;
    let mut filter = Filter {
        project_id: project(app, call, query, all_tenants)?,
        user_id: given.to_most("user_id"),
        name: given.to_all("name").or_else(|| given.to_all("display_name")),
        hostname: given.since(90, "hostname"),
        flavor: given.to_all("flavor"),
        host: given.to_admins("host"),
        zone: given.to_most("availability_zone").map(|zone| (zone, app.default_availability_zone().to_owned())),
        node: given.to_admins("node"),
        changes_since: changes.since,
        changes_before: changes.before,
        sort: super::sort::from_query(query, everything)?,
        ..Filter::default()
    };
    // Whoever follows changes must learn of those that are gone, too.
    filter.deleted = match given.to_admins("deleted").as_deref().map(is_true) {
        Some(true) => Deleted::Yes,
        None if changes.since.is_some() || changes.before.is_some() => Deleted::Both,
        None | Some(false) => Deleted::No,
    };
    let tags = |name: &str| given.to_all(name).map_or_else(Vec::new, |text| text.split(',').map(str::to_owned).collect());
    (filter.tags, filter.tags_any) = (tags("tags"), tags("tags-any"));
    (filter.not_tags, filter.not_tags_any) = (tags("not-tags"), tags("not-tags-any"));
    if let Some(text) = given.to_all("locked") {
        filter.locked = Some(strict_bool(&text)?);
    }
    if asks_for_what_no_server_has(&given) || given.parsed(&mut filter).is_none() {
        return Ok(None);
    }
    let statuses: Vec<&str> = query.all("status").collect();
    if statuses.is_empty() { Ok(Some(filter)) } else { with_status(call, filter, &statuses, everything) }
}

/// The parameters, each as far as the caller may use it: others are dropped silently, as in Nova.
struct Given<'a> {
    query: &'a Query,
    /// The caller may use them all.
    everything: bool,
    version: Microversion,
}

impl Given<'_> {
    fn to_all(&self, name: &str) -> Option<String> {
        self.query.get(name).map(str::to_owned)
    }

    fn to_admins(&self, name: &str) -> Option<String> {
        self.to_all(name).filter(|_| self.everything)
    }

    /// For everybody from this version on.
    fn since(&self, minor: u16, name: &str) -> Option<String> {
        self.to_all(name).filter(|_| self.everything || self.version >= v2(minor))
    }

    /// Those that 2.83 gave to everybody.
    fn to_most(&self, name: &str) -> Option<String> {
        self.since(83, name)
    }

    /// Filters whose texts must mean something; `None`: one means nothing, and so nothing passes.
    fn parsed(&self, filter: &mut Filter) -> Option<()> {
        fn read<T>(into: &mut Option<T>, text: Option<String>, parse: impl FnOnce(&str) -> Option<T>) -> Option<()> {
            if let Some(text) = text {
                *into = Some(parse(&text)?);
            }
            Some(())
        }
        read(&mut filter.uuid, self.to_admins("uuid"), |text| lookup::uuid(text).map(|id| id.0))?;
        read(&mut filter.task_states, self.to_most("task_state"), |text| text.parse().ok().map(|state| vec![state]))?;
        read(&mut filter.vm_states, self.to_most("vm_state"), |text| text.parse().ok().map(|state| vec![state]))?;
        read(&mut filter.locked_by, self.to_admins("locked_by"), |text| text.parse().ok())?;
        read(&mut filter.power_state, self.to_most("power_state"), |text| text.parse().ok())?;
        read(&mut filter.progress, self.to_most("progress"), |text| text.parse().ok())?;
        read(&mut filter.created_at, self.to_most("created_at"), time::parse)?;
        read(&mut filter.launched_at, self.to_most("launched_at"), time::parse)?;
        read(&mut filter.terminated_at, self.to_most("terminated_at"), time::parse)?;
        Some(())
    }
}

/// Filters by what a server that came from a host's libvirt does not have (an image, an address, a key), or has like all others:
/// only that one value finds anything.
fn asks_for_what_no_server_has(given: &Given<'_>) -> bool {
    /// No value is the right one.
    const NONE: Option<&str> = None;
    let admins = [
        ("access_ip_v4", NONE),
        ("access_ip_v6", NONE),
        ("description", NONE),
        ("kernel_id", Some("")),
        ("launch_index", Some("0")),
        ("ramdisk_id", Some("")),
        ("root_device_name", NONE),
    ];
    let differs = |value: Option<String>, constant: Option<&str>| value.is_some_and(|value| Some(value.as_str()) != constant);
    [("image", Some("")), ("ip", NONE), ("reservation_id", Some(""))]
        .into_iter()
        .any(|(name, constant)| differs(given.to_all(name), constant))
        || differs(given.since(5, "ip6"), NONE)
        || differs(given.to_most("key_name"), NONE)
        || given.to_most("config_drive").is_some_and(|text| is_true(&text))
        || given.to_admins("auto_disk_config").is_some_and(|text| is_true(&text))
        || given.to_admins("soft_deleted").is_some_and(|text| is_true(&text))
        || admins.into_iter().any(|(name, constant)| differs(given.to_admins(name), constant))
}

fn refuse_what_is_no_filter(query: &Query) -> Result<(), ApiError> {
    let bad = query.names().find(|name| name.starts_with('_') || schema::JOINED_TABLES.contains(name));
    bad.map_or(Ok(()), |name| Err(ApiError::bad_request(format!("Invalid filter field: {name}."))))
}

/// Whose servers: the caller's project's, unless all were asked for and may be had.
fn project(app: &AppState, call: &Call, query: &Query, all_tenants: Rule) -> Result<Option<String>, ApiError> {
    let all = match query.get("all_tenants") {
        None => false,
        Some("") => true,
        Some(text) => strict_bool(text)?,
    };
    if !all {
        return Ok(Some(call.caller().project_id.clone()));
    }
    app.policy().enforce_own(all_tenants, call.caller())?;
    Ok(query.get("project_id").or_else(|| query.get("tenant_id")).map(str::to_owned))
}

/// The spellings of `oslo.utils`, in its order of listing them.
const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
const FALSE: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

/// A boolean in one of the spellings of `oslo.utils` (`bool_from_string`, strict), or Nova's refusal.
pub(super) fn strict_bool(text: &str) -> Result<bool, ApiError> {
    let folded = text.trim().to_lowercase();
    if TRUE.contains(&folded.as_str()) {
        Ok(true)
    } else if FALSE.contains(&folded.as_str()) {
        Ok(false)
    } else {
        let mut all: Vec<&str> = TRUE.into_iter().chain(FALSE).collect();
        all.sort_unstable();
        let all: Vec<String> = all.into_iter().map(quoted).collect();
        Err(ApiError::bad_request(format!("Unrecognized value '{text}', acceptable values are: {}", all.join(", "))))
    }
}

/// The same, not strict: whatever it does not know is false.
fn is_true(text: &str) -> bool {
    TRUE.contains(&text.trim().to_lowercase().as_str())
}

/// Nova's statuses that no server here can be in.
const NEVER_HERE: [&str; 12] = [
    "BUILD",
    "PASSWORD",
    "REBUILD",
    "RESCUE",
    "RESIZE",
    "REVERT_RESIZE",
    "SHELVED",
    "SHELVED_OFFLOADED",
    "SOFT_DELETED",
    "SUSPENDED",
    "UNKNOWN",
    "VERIFY_RESIZE",
];

/// Nova translates a status into its states: those of `vm_state`, and those of `task_state` unless the status is one that a state
/// shows when nothing is being done.
fn with_status(call: &Call, mut filter: Filter, statuses: &[&str], everything: bool) -> Result<Option<Filter>, ApiError> {
    let wanted: Vec<String> = statuses.iter().map(|text| text.to_uppercase()).collect();
    let known: Vec<ServerStatus> = wanted.iter().filter_map(|text| text.parse().ok()).collect();
    if known.contains(&ServerStatus::Deleted) {
        if !everything {
            return Err(ApiError::ForbiddenBecause("Only administrators may list deleted instances"));
        }
        filter.deleted = Deleted::Yes;
    }
    if known.is_empty() {
        let exists = wanted.iter().any(|text| NEVER_HERE.contains(&text.as_str()));
        return if exists || call.version < v2(38) { Ok(None) } else { Err(ApiError::bad_request("Invalid status value")) };
    }
    let of = |vm_state: VmState, task_state: Option<TaskState>| known.contains(&ServerStatus::of(vm_state, task_state));
    let when_busy = |vm_state: VmState| TaskState::ALL.iter().any(|&task_state| of(vm_state, Some(task_state)));
    filter.vm_states = Some(VmState::ALL.iter().copied().filter(|&state| of(state, None) || when_busy(state)).collect());
    if !VmState::ALL.iter().any(|&vm_state| of(vm_state, None)) {
        let shows = |task_state: TaskState| VmState::ALL.iter().any(|&vm_state| of(vm_state, Some(task_state)));
        filter.task_states = Some(TaskState::ALL.iter().copied().filter(|&task_state| shows(task_state)).collect());
    }
    Ok(Some(filter))
}

/// The refusal of a regular expression that our validator took and PostgreSQL did not.
pub(super) fn bad_regular_expression(query: &Query) -> ApiError {
    let given = ["name", "display_name", "hostname", "node"].into_iter().find_map(|name| Some((name, query.get(name)?)));
    let (name, value) = given.unwrap_or_default();
    ApiError::bad_request(format!("Invalid input for query parameters {name}. Value: {value}. {} is not a 'regex'", quoted(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_have_many_spellings_and_no_others() {
        for text in ["1", "T", "true", "ON", "y", " Yes "] {
            assert!(strict_bool(text).unwrap(), "{text}");
        }
        for text in ["0", "F", "false", "Off", "n", "NO"] {
            assert!(!strict_bool(text).unwrap(), "{text}");
        }
        assert_eq!(
            strict_bool("xx").unwrap_err().to_string(),
            "Unrecognized value 'xx', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
        );
    }
}
