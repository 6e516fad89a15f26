//! Who may do what: Nova's rules with Nova's defaults (`nova/policies/`), in one table.
//!
//! A rule has a name, by which a policy file ([`file`]) may override it, and an expression ([`expression`]) over the caller's roles
//! and project. "Same project" compares the token's project with that of the server in question. The defaults of the table are
//! themselves rules with names ([`BASE_RULES`]), as in Nova: who overrides one of these moves all that follow it.
//!
//! Everything is read, checked and resolved at start; to ask a rule is to walk one small tree.

mod expression;
mod file;
mod resolver;

use std::collections::{BTreeMap, HashMap};

use drover_common::config::{ConfigError, PolicySection};
use drover_common::names;

use crate::context::Caller;
use crate::error::ApiError;
use expression::Expression;
use resolver::{BadRule, Resolver};

/// Nova's base rules (`nova/policies/base.py`): what those of the endpoints refer to.
pub(crate) const BASE_RULES: [(&str, &str); 9] = [
    (CONTEXT_IS_ADMIN, "role:admin"),
    ("admin_api", "is_admin:True"),
    ("project_manager_api", "role:manager and project_id:%(project_id)s"),
    ("project_member_api", "role:member and project_id:%(project_id)s"),
    ("project_reader_api", "role:reader and project_id:%(project_id)s"),
    ("project_manager_or_admin", "rule:project_manager_api or rule:context_is_admin"),
    ("project_member_or_admin", "rule:project_member_api or rule:context_is_admin"),
    ("project_reader_or_admin", "rule:project_reader_api or rule:context_is_admin"),
    ("service_or_admin", "role:service or rule:context_is_admin"),
];
/// The one that also says who may see servers of other projects and pass by locks.
const CONTEXT_IS_ADMIN: &str = "context_is_admin";

/// What a rule demands of the caller by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The role `admin`.
    Admin,
    /// The role `manager` in the same project, or admin.
    ManagerOrAdmin,
    /// The role `reader` in the same project, or admin.
    ReaderOrAdmin,
}

impl Check {
    /// The expression that it stands for.
    const fn expression(self) -> &'static str {
        match self {
            Self::Admin => "rule:context_is_admin",
            Self::ManagerOrAdmin => "rule:project_manager_or_admin",
            Self::ReaderOrAdmin => "rule:project_reader_or_admin",
        }
    }
}

/// What can be asked of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// Live-migrate a server; the scheduler chooses.
    MigrateLive,
    /// The same to a named host (asked instead).
    MigrateLiveHost,
    /// List servers.
    ServersIndex,
    /// List servers with all fields.
    ServersDetail,
    /// Show a server.
    ServersShow,
    /// List servers of all projects.
    ServersIndexAllTenants,
    /// The same with all fields.
    ServersDetailAllTenants,
    /// Use every filter on servers.
    ServersAllFilters,
    /// See `host_status`.
    ServersHostStatus,
    /// See where a server is.
    ExtendedServerAttributes,
    /// List a server's live migrations.
    ServerMigrationsIndex,
    /// See between which hosts.
    ServerMigrationsIndexHost,
    /// Show one.
    ServerMigrationsShow,
    /// Force its completion.
    ServerMigrationsForceComplete,
    /// Abort it.
    ServerMigrationsDelete,
    /// List migrations.
    MigrationsIndex,
    /// Those of all projects.
    MigrationsIndexAllProjects,
    /// See between which hosts.
    MigrationsIndexHost,
    /// List services.
    ServicesList,
    /// Disable, enable, force down.
    ServicesUpdate,
    /// List hypervisors.
    HypervisorsList,
    /// The same with all fields.
    HypervisorsListDetail,
    /// Show one.
    HypervisorsShow,
    /// List what was done to a server.
    InstanceActionsList,
    /// Show one of these.
    InstanceActionsShow,
    /// See its steps, with host and traceback.
    InstanceActionsEvents,
    /// See why a step failed.
    InstanceActionsEventsDetails,
    /// Everything known of a migration (`/drover/v1/migrations/{id}`).
    DroverMigrationsShow,
    /// What an operator should look at (`/drover/v1/findings`).
    DroverFindingsIndex,
    /// Choose whose copy a guest is (`/drover/v1/servers/{id}/keep`).
    DroverServersKeep,
}
names!("policy rule", Rule {
    MigrateLive = "os_compute_api:os-migrate-server:migrate_live",
    MigrateLiveHost = "os_compute_api:os-migrate-server:migrate_live:host",
    ServersIndex = "os_compute_api:servers:index",
    ServersDetail = "os_compute_api:servers:detail",
    ServersShow = "os_compute_api:servers:show",
    ServersIndexAllTenants = "os_compute_api:servers:index:get_all_tenants",
    ServersDetailAllTenants = "os_compute_api:servers:detail:get_all_tenants",
    ServersAllFilters = "os_compute_api:servers:allow_all_filters",
    ServersHostStatus = "os_compute_api:servers:show:host_status",
    ExtendedServerAttributes = "os_compute_api:os-extended-server-attributes",
    ServerMigrationsIndex = "os_compute_api:servers:migrations:index",
    ServerMigrationsIndexHost = "os_compute_api:servers:migrations:index:host",
    ServerMigrationsShow = "os_compute_api:servers:migrations:show",
    ServerMigrationsForceComplete = "os_compute_api:servers:migrations:force_complete",
    ServerMigrationsDelete = "os_compute_api:servers:migrations:delete",
    MigrationsIndex = "os_compute_api:os-migrations:index",
    MigrationsIndexAllProjects = "os_compute_api:os-migrations:index:all_projects",
    MigrationsIndexHost = "os_compute_api:os-migrations:index:host",
    ServicesList = "os_compute_api:os-services:list",
    ServicesUpdate = "os_compute_api:os-services:update",
    HypervisorsList = "os_compute_api:os-hypervisors:list",
    HypervisorsListDetail = "os_compute_api:os-hypervisors:list-detail",
    HypervisorsShow = "os_compute_api:os-hypervisors:show",
    InstanceActionsList = "os_compute_api:os-instance-actions:list",
    InstanceActionsShow = "os_compute_api:os-instance-actions:show",
    InstanceActionsEvents = "os_compute_api:os-instance-actions:events",
    InstanceActionsEventsDetails = "os_compute_api:os-instance-actions:events:details",
    DroverMigrationsShow = "drover:migrations:show",
    DroverFindingsIndex = "drover:findings:index",
    DroverServersKeep = "drover:servers:keep",
});

impl Rule {
    /// Nova's default.
    const fn default_check(self) -> Check {
        match self {
            Self::MigrateLive
            | Self::ServerMigrationsIndex
            | Self::ServerMigrationsForceComplete
            | Self::ServerMigrationsDelete
            | Self::MigrationsIndex => Check::ManagerOrAdmin,
            Self::ServersIndex
            | Self::ServersDetail
            | Self::ServersShow
            | Self::InstanceActionsList
            | Self::InstanceActionsShow => Check::ReaderOrAdmin,
            Self::MigrateLiveHost
            | Self::ServersIndexAllTenants
            | Self::ServersDetailAllTenants
            | Self::ServersAllFilters
            | Self::ServersHostStatus
            | Self::ExtendedServerAttributes
            | Self::ServerMigrationsIndexHost
            | Self::ServerMigrationsShow
            | Self::MigrationsIndexAllProjects
            | Self::MigrationsIndexHost
            | Self::ServicesList
            | Self::ServicesUpdate
            | Self::HypervisorsList
            | Self::HypervisorsListDetail
            | Self::HypervisorsShow
            | Self::InstanceActionsEvents
            | Self::InstanceActionsEventsDetails
            | Self::DroverMigrationsShow
            | Self::DroverFindingsIndex
            | Self::DroverServersKeep => Check::Admin,
        }
    }
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: HashMap<Rule, Expression>,
    context_is_admin: Expression,
}

impl Policy {
    /// The defaults, and what the file makes of them.
    pub(crate) fn load(config: &PolicySection) -> Result<Self, ConfigError> {
        let Some(path) = &config.policy_file else {
            return Self::new(&BTreeMap::new()).map_err(|bad| ConfigError::not_allowed("[oslo_policy] policy_file", "", bad));
        };
        let refused = |why: String| ConfigError::not_allowed("[oslo_policy] policy_file", path, why);
        let overrides = file::read(path).map_err(|error| refused(drover_common::telemetry::chain(&error)))?;
        Self::new(&overrides).map_err(|bad| refused(bad.to_string()))
    }

    /// The defaults with these overrides.
    fn new(overrides: &BTreeMap<String, String>) -> Result<Self, BadRule> {
        let resolver = Resolver::new(overrides)?;
        let rules = Rule::ALL.iter().map(|&rule| Ok((rule, resolver.resolve(rule.as_str())?))).collect::<Result<_, BadRule>>()?;
        Ok(Self { rules, context_is_admin: resolver.resolve(CONTEXT_IS_ADMIN)? })
    }

    /// The caller, who is admin or is not by the rule for it.
    pub(crate) fn judge(&self, caller: Caller) -> Caller {
        // That one may not ask whether somebody is admin before it has said so.
        let caller = caller.with_admin(false);
        let is_admin = self.context_is_admin.allows(&caller, &caller.project_id);
        caller.with_admin(is_admin)
    }

    /// Whether the caller may, on something of `project`.
    pub(crate) fn allows(&self, rule: Rule, caller: &Caller, project: &str) -> bool {
        self.rules.get(&rule).is_some_and(|expression| expression.allows(caller, project))
    }

    /// Refuses unless the caller may, on something of `project`.
    pub(crate) fn enforce(&self, rule: Rule, caller: &Caller, project: &str) -> Result<(), ApiError> {
        if self.allows(rule, caller, project) { Ok(()) } else { Err(ApiError::Forbidden(rule)) }
    }

    /// The same for what belongs to no project: the caller's own counts.
    pub(crate) fn enforce_own(&self, rule: Rule, caller: &Caller) -> Result<(), ApiError> {
        self.enforce(rule, caller, &caller.project_id)
    }
}

#[cfg(test)]
mod tests;
