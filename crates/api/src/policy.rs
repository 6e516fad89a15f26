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
use expression::{Expression, Owner};
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
    /// A token, whatever is on it.
    Everybody,
    /// The user whose it is, or the role `admin`.
    AdminOrUser,
    /// The role `manager` in the same project, or admin.
    ManagerOrAdmin,
    /// The role `member` in the same project, or admin.
    MemberOrAdmin,
    /// The role `reader` in the same project, or admin.
    ReaderOrAdmin,
}

impl Check {
    /// The expression that it stands for.
    const fn expression(self) -> &'static str {
        match self {
            Self::Admin => "rule:context_is_admin",
            Self::Everybody => "@",
            Self::AdminOrUser => "rule:context_is_admin or user_id:%(user_id)s",
            Self::ManagerOrAdmin => "rule:project_manager_or_admin",
            Self::MemberOrAdmin => "rule:project_member_or_admin",
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
    /// Stop a server's CPUs.
    ServersPause,
    /// Let them go on.
    ServersUnpause,
    /// Start a server.
    ServersStart,
    /// Shut it down.
    ServersStop,
    /// Start it anew.
    ServersReboot,
    /// Remove it.
    ServersDelete,
    /// Say what state a server is in.
    ServersResetState,
    /// Lock a server.
    ServersLock,
    /// Unlock a server.
    ServersUnlock,
    /// Also when somebody else locked it.
    ServersUnlockOverride,
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
    /// Forget one.
    ServicesDelete,
    /// List hypervisors.
    HypervisorsList,
    /// The same with all fields.
    HypervisorsListDetail,
    /// Show one.
    HypervisorsShow,
    /// Find some by name.
    HypervisorsSearch,
    /// The same, with their servers.
    HypervisorsServers,
    /// The sum of all.
    HypervisorsStatistics,
    /// For how long one has been up.
    HypervisorsUptime,
    /// List aggregates.
    AggregatesIndex,
    /// Make an aggregate.
    AggregatesCreate,
    /// Show an aggregate.
    AggregatesShow,
    /// Change an aggregate's name or zone.
    AggregatesUpdate,
    /// Remove an aggregate.
    AggregatesDelete,
    /// Put a host into an aggregate.
    AggregatesAddHost,
    /// Take a host out of an aggregate.
    AggregatesRemoveHost,
    /// Change an aggregate's key-value pairs.
    AggregatesSetMetadata,
    /// List availability zones.
    AvailabilityZonesList,
    /// The same with their hosts.
    AvailabilityZonesDetail,
    /// List server groups.
    ServerGroupsIndex,
    /// Those of all projects.
    ServerGroupsIndexAllProjects,
    /// Show a server group.
    ServerGroupsShow,
    /// Make a server group.
    ServerGroupsCreate,
    /// Remove a server group.
    ServerGroupsDelete,
    /// List a server's key-value pairs.
    ServerMetadataIndex,
    /// Show one of them.
    ServerMetadataShow,
    /// Add some.
    ServerMetadataCreate,
    /// Replace them.
    ServerMetadataUpdateAll,
    /// Change one.
    ServerMetadataUpdate,
    /// Remove one.
    ServerMetadataDelete,
    /// List a server's tags.
    ServerTagsIndex,
    /// Look whether it has one.
    ServerTagsShow,
    /// Replace them.
    ServerTagsUpdateAll,
    /// Add one.
    ServerTagsUpdate,
    /// Remove one.
    ServerTagsDelete,
    /// Remove all.
    ServerTagsDeleteAll,
    /// List a user's key pairs.
    KeyPairsIndex,
    /// Show one of them.
    KeyPairsShow,
    /// Store one.
    KeyPairsCreate,
    /// Remove one.
    KeyPairsDelete,
    /// See what one's project may have, and has.
    Limits,
    /// The same of another project.
    LimitsOtherProject,
    /// See what is served.
    Extensions,
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
    /// Say how soon a migration leaves the queue (the same).
    DroverMigrationsUpdate,
    /// Migrations that wait for a slot (`/drover/v1/queue`).
    DroverQueueIndex,
    /// Where a server may be (`/drover/v1/servers/{id}/placement`).
    DroverPlacement,
    /// What an operator should look at (`/drover/v1/findings`).
    DroverFindingsIndex,
    /// Choose whose copy a guest is (`/drover/v1/servers/{id}/keep`).
    DroverServersKeep,
    /// Hold back new migrations (`/drover/v1/pause`).
    DroverPause,
    /// How it stands with the deployment (`/drover/v1/doctor`).
    DroverDoctor,
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
    ServersPause = "os_compute_api:os-pause-server:pause",
    ServersUnpause = "os_compute_api:os-pause-server:unpause",
    ServersStart = "os_compute_api:servers:start",
    ServersStop = "os_compute_api:servers:stop",
    ServersReboot = "os_compute_api:servers:reboot",
    ServersDelete = "os_compute_api:servers:delete",
    ServersResetState = "os_compute_api:os-admin-actions:reset_state",
    ServersLock = "os_compute_api:os-lock-server:lock",
    ServersUnlock = "os_compute_api:os-lock-server:unlock",
    ServersUnlockOverride = "os_compute_api:os-lock-server:unlock:unlock_override",
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
    ServicesDelete = "os_compute_api:os-services:delete",
    HypervisorsList = "os_compute_api:os-hypervisors:list",
    HypervisorsListDetail = "os_compute_api:os-hypervisors:list-detail",
    HypervisorsShow = "os_compute_api:os-hypervisors:show",
    HypervisorsSearch = "os_compute_api:os-hypervisors:search",
    HypervisorsServers = "os_compute_api:os-hypervisors:servers",
    HypervisorsStatistics = "os_compute_api:os-hypervisors:statistics",
    HypervisorsUptime = "os_compute_api:os-hypervisors:uptime",
    AggregatesIndex = "os_compute_api:os-aggregates:index",
    AggregatesCreate = "os_compute_api:os-aggregates:create",
    AggregatesShow = "os_compute_api:os-aggregates:show",
    AggregatesUpdate = "os_compute_api:os-aggregates:update",
    AggregatesDelete = "os_compute_api:os-aggregates:delete",
    AggregatesAddHost = "os_compute_api:os-aggregates:add_host",
    AggregatesRemoveHost = "os_compute_api:os-aggregates:remove_host",
    AggregatesSetMetadata = "os_compute_api:os-aggregates:set_metadata",
    AvailabilityZonesList = "os_compute_api:os-availability-zone:list",
    AvailabilityZonesDetail = "os_compute_api:os-availability-zone:detail",
    ServerGroupsIndex = "os_compute_api:os-server-groups:index",
    ServerGroupsIndexAllProjects = "os_compute_api:os-server-groups:index:all_projects",
    ServerGroupsShow = "os_compute_api:os-server-groups:show",
    ServerGroupsCreate = "os_compute_api:os-server-groups:create",
    ServerGroupsDelete = "os_compute_api:os-server-groups:delete",
    ServerMetadataIndex = "os_compute_api:server-metadata:index",
    ServerMetadataShow = "os_compute_api:server-metadata:show",
    ServerMetadataCreate = "os_compute_api:server-metadata:create",
    ServerMetadataUpdateAll = "os_compute_api:server-metadata:update_all",
    ServerMetadataUpdate = "os_compute_api:server-metadata:update",
    ServerMetadataDelete = "os_compute_api:server-metadata:delete",
    ServerTagsIndex = "os_compute_api:os-server-tags:index",
    ServerTagsShow = "os_compute_api:os-server-tags:show",
    ServerTagsUpdateAll = "os_compute_api:os-server-tags:update_all",
    ServerTagsUpdate = "os_compute_api:os-server-tags:update",
    ServerTagsDelete = "os_compute_api:os-server-tags:delete",
    ServerTagsDeleteAll = "os_compute_api:os-server-tags:delete_all",
    KeyPairsIndex = "os_compute_api:os-keypairs:index",
    KeyPairsShow = "os_compute_api:os-keypairs:show",
    KeyPairsCreate = "os_compute_api:os-keypairs:create",
    KeyPairsDelete = "os_compute_api:os-keypairs:delete",
    Limits = "os_compute_api:limits",
    LimitsOtherProject = "os_compute_api:limits:other_project",
    Extensions = "os_compute_api:extensions",
    InstanceActionsList = "os_compute_api:os-instance-actions:list",
    InstanceActionsShow = "os_compute_api:os-instance-actions:show",
    InstanceActionsEvents = "os_compute_api:os-instance-actions:events",
    InstanceActionsEventsDetails = "os_compute_api:os-instance-actions:events:details",
    DroverMigrationsShow = "drover:migrations:show",
    DroverMigrationsUpdate = "drover:migrations:update",
    DroverQueueIndex = "drover:queue:index",
    DroverPlacement = "drover:servers:placement",
    DroverFindingsIndex = "drover:findings:index",
    DroverServersKeep = "drover:servers:keep",
    DroverPause = "drover:pause",
    DroverDoctor = "drover:doctor",
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
            Self::KeyPairsIndex | Self::KeyPairsShow | Self::KeyPairsCreate | Self::KeyPairsDelete => Check::AdminOrUser,
            Self::AvailabilityZonesList | Self::Limits | Self::Extensions => Check::Everybody,
            Self::ServersPause
            | Self::ServersUnpause
            | Self::ServersStart
            | Self::ServersStop
            | Self::ServersReboot
            | Self::ServersDelete
            | Self::ServersLock
            | Self::ServersUnlock
            | Self::ServerGroupsCreate
            | Self::ServerGroupsDelete
            | Self::ServerMetadataCreate
            | Self::ServerMetadataUpdateAll
            | Self::ServerMetadataUpdate
            | Self::ServerMetadataDelete
            | Self::ServerTagsUpdateAll
            | Self::ServerTagsUpdate
            | Self::ServerTagsDelete
            | Self::ServerTagsDeleteAll => Check::MemberOrAdmin,
            Self::ServersIndex
            | Self::ServerGroupsIndex
            | Self::ServerGroupsShow
            | Self::ServerMetadataIndex
            | Self::ServerMetadataShow
            | Self::ServerTagsIndex
            | Self::ServerTagsShow
            | Self::ServersDetail
            | Self::ServersShow
            | Self::InstanceActionsList
            | Self::InstanceActionsShow => Check::ReaderOrAdmin,
            Self::MigrateLiveHost
            | Self::ServersIndexAllTenants
            | Self::ServersDetailAllTenants
            | Self::ServersAllFilters
            | Self::ServersHostStatus
            | Self::ServersResetState
            | Self::ServersUnlockOverride
            | Self::ExtendedServerAttributes
            | Self::ServerMigrationsIndexHost
            | Self::ServerMigrationsShow
            | Self::MigrationsIndexAllProjects
            | Self::MigrationsIndexHost
            | Self::ServicesList
            | Self::ServicesUpdate
            | Self::ServicesDelete
            | Self::AggregatesIndex
            | Self::AggregatesCreate
            | Self::AggregatesShow
            | Self::AggregatesUpdate
            | Self::AggregatesDelete
            | Self::AggregatesAddHost
            | Self::AggregatesRemoveHost
            | Self::AggregatesSetMetadata
            | Self::AvailabilityZonesDetail
            | Self::ServerGroupsIndexAllProjects
            | Self::DroverPlacement
            | Self::LimitsOtherProject
            | Self::HypervisorsList
            | Self::HypervisorsListDetail
            | Self::HypervisorsShow
            | Self::HypervisorsSearch
            | Self::HypervisorsServers
            | Self::HypervisorsStatistics
            | Self::HypervisorsUptime
            | Self::InstanceActionsEvents
            | Self::InstanceActionsEventsDetails
            | Self::DroverMigrationsShow
            | Self::DroverMigrationsUpdate
            | Self::DroverQueueIndex
            | Self::DroverFindingsIndex
            | Self::DroverServersKeep
            | Self::DroverPause
            | Self::DroverDoctor => Check::Admin,
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
        let is_admin = self.context_is_admin.allows(&caller, Owner::Project(&caller.project_id));
        caller.with_admin(is_admin)
    }

    /// Whether the caller may, on something of `project`.
    pub(crate) fn allows(&self, rule: Rule, caller: &Caller, project: &str) -> bool {
        self.rules.get(&rule).is_some_and(|expression| expression.allows(caller, Owner::Project(project)))
    }

    /// Refuses unless the caller may, on something of `project`.
    pub(crate) fn enforce(&self, rule: Rule, caller: &Caller, project: &str) -> Result<(), ApiError> {
        if self.allows(rule, caller, project) { Ok(()) } else { Err(ApiError::Forbidden(rule)) }
    }

    /// The same for what belongs to a user.
    pub(crate) fn enforce_of_user(&self, rule: Rule, caller: &Caller, user: &str) -> Result<(), ApiError> {
        let allowed = self.rules.get(&rule).is_some_and(|expression| expression.allows(caller, Owner::User(user)));
        if allowed { Ok(()) } else { Err(ApiError::Forbidden(rule)) }
    }

    /// The same for what belongs to no project: the caller's own counts.
    pub(crate) fn enforce_own(&self, rule: Rule, caller: &Caller) -> Result<(), ApiError> {
        self.enforce(rule, caller, &caller.project_id)
    }
}

#[cfg(test)]
mod tests;
