//! The options that a conductor uses, checked.

use std::time::Duration;

use drover_common::config::{Config, ConfigError, NotificationDriver};
use drover_common::ids::HostName;
use drover_store::claims::Limits;

use crate::scheduler::weighers::Weights;
use crate::scheduler::{Allowance, Scheduler};

/// See `deploy/config/drover.toml` for what each means.
pub struct Settings {
    /// This conductor's name.
    pub host: HostName,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// What may be under way and how far hosts may be promised.
    pub limits: Limits,
    /// Further hosts to try; none: all.
    pub migrate_max_retries: Option<usize>,
    /// How long a host has for a check.
    pub rpc_response_timeout: Duration,
    /// When a silent service counts as down.
    pub service_down_time: Duration,
    /// Between two words of this service.
    pub report_interval: Duration,
    /// Between two sweeps.
    pub sweep_interval: Duration,
    /// Messages at a time.
    pub workers: usize,
    /// Whether notifications are sent.
    pub notifications: bool,
    /// The zone of hosts that no aggregate puts into one.
    pub default_availability_zone: String,
    /// (project, user) of servers whose domain names none.
    pub default_owner: (String, String),
}

impl Settings {
    /// Reads and checks them.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let (default, filter_scheduler) = (&config.default, &config.filter_scheduler);
        let allowance = Allowance {
            ram_allocation_ratio: default.ram_allocation_ratio,
            cpu_allocation_ratio: default.cpu_allocation_ratio,
            reserved_host_memory_mb: default.reserved_host_memory_mb.into(),
            skip_hypervisor_version_check: config.workarounds.skip_hypervisor_version_check_on_lm,
        };
        let weights = Weights {
            ram: filter_scheduler.ram_weight_multiplier,
            cpu: filter_scheduler.cpu_weight_multiplier,
            io_ops: filter_scheduler.io_ops_weight_multiplier,
            soft_affinity: filter_scheduler.soft_affinity_weight_multiplier,
            soft_anti_affinity: filter_scheduler.soft_anti_affinity_weight_multiplier,
        };
        Ok(Self {
            host: config.conductor_host()?,
            scheduler: Scheduler::new(&filter_scheduler.enabled_filters, weights, allowance)?,
            limits: Limits {
                outgoing: default.max_concurrent_live_migrations,
                incoming: default.max_concurrent_incoming_live_migrations,
                fleet: default.max_concurrent_fleet_live_migrations,
                ram_allocation_ratio: allowance.ram_allocation_ratio,
                cpu_allocation_ratio: allowance.cpu_allocation_ratio,
                reserved_host_memory_mb: allowance.reserved_host_memory_mb,
            },
            migrate_max_retries: usize::try_from(default.migrate_max_retries).ok(),
            rpc_response_timeout: config.rpc_response_timeout(),
            service_down_time: Duration::from_secs(default.service_down_time),
            report_interval: Duration::from_secs(default.report_interval),
            sweep_interval: Duration::from_secs(config.conductor.sweep_interval),
            workers: config.conductor.workers.into(),
            notifications: config.oslo_messaging_notifications.driver == NotificationDriver::Messagingv2,
            default_availability_zone: default.default_availability_zone.clone(),
            default_owner: (default.default_project_id.clone(), default.default_user_id.clone()),
        })
    }
}
