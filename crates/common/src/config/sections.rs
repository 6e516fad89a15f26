//! The options in types. Their meanings and units stand in `deploy/config/drover.toml`, once.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, system_host_name};
use crate::ids::HostName;

/// QEMU's own limit (`MAX_MIGRATE_DOWNTIME`).
const DOWNTIME_MS_MAX: u64 = 2_000_000;
/// Far more steps than anybody can tell apart; each is kept for the length of a migration.
const DOWNTIME_STEPS_MAX: u64 = 1000;

/// QEMU's own limit (`multifd-zstd-level`; its 0 would be no compression).
const ZSTD_LEVEL_MAX: u64 = 20;
/// An announcement is broadcast: it is for the moment of the arrival, and no replacement for a switch that never learns.
const ANNOUNCE_COUNT_MAX: u64 = 1000;
const ANNOUNCE_INTERVAL_MS_MAX: u64 = 10_000;

/// All of it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[DEFAULT]`
    #[serde(rename = "DEFAULT")]
    pub default: DefaultSection,
    /// `[oslo_messaging_rabbit]`
    pub oslo_messaging_rabbit: RabbitSection,
    /// `[database]`
    pub database: DatabaseSection,
    /// `[api]`
    pub api: ApiSection,
    /// `[wsgi]`
    pub wsgi: WsgiSection,
    /// `[keystone_authtoken]`
    pub keystone_authtoken: KeystoneSection,
    /// `[oslo_policy]`
    pub oslo_policy: PolicySection,
    /// `[conductor]`
    pub conductor: ConductorSection,
    /// `[filter_scheduler]`
    pub filter_scheduler: SchedulerSection,
    /// `[oslo_messaging_notifications]`
    pub oslo_messaging_notifications: NotificationsSection,
    /// `[libvirt]`
    pub libvirt: LibvirtSection,
    /// `[workarounds]`
    pub workarounds: WorkaroundsSection,
    /// `[log]`
    pub log: LogSection,
    /// `[metrics]`
    pub metrics: MetricsSection,
    /// `[tracing]`
    pub tracing: TracingSection,
}

/// `[DEFAULT]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultSection {
    pub host: Option<HostName>,
    pub transport_url: Secret,
    pub my_ip: Option<IpAddr>,
    pub report_interval: u64,
    pub service_down_time: u64,
    pub max_concurrent_live_migrations: u32,
    pub max_concurrent_incoming_live_migrations: u32,
    pub max_concurrent_fleet_live_migrations: u32,
    pub migrate_max_retries: i32,
    pub shutdown_timeout: u64,
    pub rpc_response_timeout: u64,
    pub reserved_host_memory_mb: u32,
    pub reserved_host_disk_mb: u32,
    pub ram_allocation_ratio: f64,
    pub cpu_allocation_ratio: f64,
    pub default_project_id: String,
    pub default_user_id: String,
    pub default_availability_zone: String,
}

/// `[oslo_messaging_rabbit]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitSection {
    pub ssl_ca_file: Option<PathBuf>,
    pub ssl_cert_file: Option<PathBuf>,
    pub ssl_key_file: Option<PathBuf>,
}

/// `[database]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    pub connection: Secret,
    pub max_pool_size: u32,
}

/// `[api]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    pub osapi_compute_listen: IpAddr,
    pub osapi_compute_listen_port: u16,
    pub auth_strategy: AuthStrategy,
    pub noauth_listen_anywhere: bool,
    pub http_basic_auth_user_file: PathBuf,
    pub max_request_body_size: usize,
    pub max_limit: u32,
    pub compute_link_prefix: Option<String>,
}

/// How callers prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthStrategy {
    /// They need not.
    Noauth,
    /// With a password that a file of ours has the hash of.
    HttpBasic,
    /// With a token of Keystone's.
    Keystone,
}

/// `[wsgi]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WsgiSection {
    pub ssl_cert_file: Option<PathBuf>,
    pub ssl_key_file: Option<PathBuf>,
}

/// `[keystone_authtoken]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoneSection {
    pub auth_url: Option<String>,
    pub www_authenticate_uri: Option<String>,
    pub cafile: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub user_domain_name: String,
    pub project_name: Option<String>,
    pub project_domain_name: String,
    pub token_cache_time: u64,
    pub http_connect_timeout: u64,
}

/// `[oslo_policy]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    pub policy_file: Option<PathBuf>,
}

/// `[conductor]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConductorSection {
    pub host: Option<HostName>,
    pub workers: u16,
    pub sweep_interval: u64,
}

/// `[filter_scheduler]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerSection {
    pub enabled_filters: Vec<String>,
    pub ram_weight_multiplier: f64,
    pub cpu_weight_multiplier: f64,
    pub io_ops_weight_multiplier: f64,
    pub soft_affinity_weight_multiplier: f64,
    pub soft_anti_affinity_weight_multiplier: f64,
}

/// `[oslo_messaging_notifications]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationsSection {
    pub driver: NotificationDriver,
}

/// What becomes of notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationDriver {
    /// Nothing.
    Noop,
    /// They are published, in oslo.messaging's envelope 2.0.
    Messagingv2,
}

/// `[libvirt]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[expect(clippy::struct_excessive_bools, reason = "options are what nova.conf has them as")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtSection {
    pub connection_uri: String,
    pub live_migration_uri: String,
    pub live_migration_inbound_addr: Option<HostName>,
    pub live_migration_flag: Vec<String>,
    pub block_migration_flag: Vec<String>,
    pub live_migration_bandwidth: u32,
    pub live_migration_link_bandwidth: u32,
    pub live_migration_with_native_tls: bool,
    pub live_migration_require_tls: bool,
    pub live_migration_parallel_connections: u8,
    pub live_migration_compression: Compression,
    pub live_migration_compression_level: u8,
    pub live_migration_downtime: u64,
    pub live_migration_downtime_steps: u64,
    pub live_migration_downtime_delay: u64,
    pub live_migration_completion_timeout: u64,
    pub live_migration_timeout_action: TimeoutAction,
    pub live_migration_stall_action: StallAction,
    pub live_migration_permit_post_copy: bool,
    pub live_migration_permit_auto_converge: bool,
    pub live_migration_monitor_interval: u64,
    pub live_migration_announce_count: u32,
    pub live_migration_announce_interval: u64,
    pub vnc_server_listen: Option<IpAddr>,
    pub spice_server_listen: Option<IpAddr>,
    pub serial_server_listen: Option<IpAddr>,
    pub serial_port_range: String,
    pub bridge_mappings: Vec<String>,
    pub read_only_disk_copy_limit_mb: u32,
    pub migration_port_min: u16,
    pub migration_port_max: u16,
    pub connect_probe_timeout: u64,
    pub instances_path: PathBuf,
}

/// Whether memory is compressed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Never.
    None,
    /// Always, with zstd.
    Zstd,
    /// With zstd where the link is slower than what can be compressed for it.
    Auto,
}

/// What to do with a migration that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutAction {
    /// Give up; the guest stays.
    Abort,
    /// Post-copy where it is permitted, else pause the guest.
    ForceComplete,
}

/// What to do with a migration that gets nowhere, when nothing else can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StallAction {
    /// Say so, and leave it to the completion timeout, as Nova does.
    None,
    /// Give up; the guest stays.
    Abort,
    /// Pause the guest until it has arrived.
    ForceComplete,
}

/// `[workarounds]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkaroundsSection {
    pub skip_cpu_compare_on_dest: bool,
    pub skip_hypervisor_version_check_on_lm: bool,
}

/// `[log]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    pub format: LogFormat,
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSection {
    pub listen: Option<SocketAddr>,
}

/// `[tracing]`
#[expect(missing_docs, reason = "documented once, in deploy/config/drover.toml")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TracingSection {
    pub otlp_endpoint: Option<String>,
    pub sampling_ratio: f64,
}

impl Config {
    /// What types cannot say. Flags are checked by the compute agent, filters by the conductor, which know their names.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (default, api, libvirt) = (&self.default, &self.api, &self.libvirt);
        if api.auth_strategy == AuthStrategy::Noauth && !api.osapi_compute_listen.is_loopback() && !api.noauth_listen_anywhere {
            return Err(ConfigError::not_allowed(
                "[api] osapi_compute_listen",
                api.osapi_compute_listen,
                "auth_strategy = \"noauth\" lets everybody be admin, so it listens on loopback only, unless noauth_listen_anywhere = true",
            ));
        }
        if libvirt.live_migration_uri.matches("%s").count() != 1 || libvirt.live_migration_uri.matches('%').count() != 1 {
            return Err(ConfigError::not_allowed(
                "[libvirt] live_migration_uri",
                &libvirt.live_migration_uri,
                "a URI with one %s in the place of the destination, for instance qemu+tcp://%s/system",
            ));
        }
        let (rabbit, wsgi) = (&self.oslo_messaging_rabbit, &self.wsgi);
        together("[oslo_messaging_rabbit]", rabbit.ssl_cert_file.as_ref(), rabbit.ssl_key_file.as_ref())?;
        together("[wsgi]", wsgi.ssl_cert_file.as_ref(), wsgi.ssl_key_file.as_ref())?;
        within("[libvirt] live_migration_downtime", libvirt.live_migration_downtime, 100, DOWNTIME_MS_MAX)?;
        within("[libvirt] live_migration_downtime_steps", libvirt.live_migration_downtime_steps, 3, DOWNTIME_STEPS_MAX)?;
        at_least("[libvirt] live_migration_downtime_delay", libvirt.live_migration_downtime_delay, 3)?;
        at_least("[libvirt] live_migration_parallel_connections", libvirt.live_migration_parallel_connections.into(), 1)?;
        within("[libvirt] live_migration_compression_level", libvirt.live_migration_compression_level.into(), 1, ZSTD_LEVEL_MAX)?;
        within("[libvirt] live_migration_announce_count", libvirt.live_migration_announce_count.into(), 0, ANNOUNCE_COUNT_MAX)?;
        within(
            "[libvirt] live_migration_announce_interval",
            libvirt.live_migration_announce_interval,
            1,
            ANNOUNCE_INTERVAL_MS_MAX,
        )?;
        at_least("[libvirt] live_migration_monitor_interval", libvirt.live_migration_monitor_interval, 1)?;
        at_least("[libvirt] connect_probe_timeout", libvirt.connect_probe_timeout, 1)?;
        at_least("[libvirt] migration_port_max", libvirt.migration_port_max.into(), libvirt.migration_port_min.into())?;
        at_least("[DEFAULT] report_interval", default.report_interval, 1)?;
        at_least("[DEFAULT] service_down_time", default.service_down_time, default.report_interval + 1)?;
        at_least("[DEFAULT] rpc_response_timeout", default.rpc_response_timeout, 1)?;
        at_least("[keystone_authtoken] http_connect_timeout", self.keystone_authtoken.http_connect_timeout, 1)?;
        at_least("[database] max_pool_size", self.database.max_pool_size.into(), 2)?;
        at_least("[conductor] workers", self.conductor.workers.into(), 1)?;
        at_least("[conductor] sweep_interval", self.conductor.sweep_interval, 1)?;
        if default.migrate_max_retries < -1 {
            return Err(ConfigError::not_allowed("[DEFAULT] migrate_max_retries", default.migrate_max_retries, "-1 or more"));
        }
        for (option, ratio) in [
            ("[DEFAULT] ram_allocation_ratio", default.ram_allocation_ratio),
            ("[DEFAULT] cpu_allocation_ratio", default.cpu_allocation_ratio),
        ] {
            if !(ratio.is_finite() && ratio > 0.0) {
                return Err(ConfigError::not_allowed(option, ratio, "a number above 0"));
            }
        }
        self.tracing.check()?;
        Ok(())
    }

    /// This compute host's name.
    pub fn compute_host(&self) -> Result<HostName, ConfigError> {
        host_or_system(self.default.host.as_ref(), "[DEFAULT] host")
    }

    /// This conductor's name.
    pub fn conductor_host(&self) -> Result<HostName, ConfigError> {
        host_or_system(self.conductor.host.as_ref(), "[conductor] host")
    }

    /// How long a host may take to answer.
    pub fn rpc_response_timeout(&self) -> Duration {
        Duration::from_secs(self.default.rpc_response_timeout)
    }
}

impl TracingSection {
    fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.sampling_ratio) {
            return Err(ConfigError::not_allowed("[tracing] sampling_ratio", self.sampling_ratio, "0.0 to 1.0"));
        }
        match &self.otlp_endpoint {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                Err(ConfigError::not_allowed("[tracing] otlp_endpoint", url, "a URL, for instance http://127.0.0.1:4318/v1/traces"))
            }
            _ => Ok(()),
        }
    }
}

fn host_or_system(given: Option<&HostName>, option: &str) -> Result<HostName, ConfigError> {
    if let Some(host) = given {
        return Ok(host.clone());
    }
    let name = system_host_name()?;
    HostName::new(name.clone()).map_err(|e| ConfigError::not_allowed(option, name, e))
}

/// A certificate without its key is of no use, and the other way round.
fn together(section: &str, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<(), ConfigError> {
    if certificate.is_some() == key.is_some() {
        return Ok(());
    }
    Err(ConfigError::not_allowed(
        &format!("{section} ssl_cert_file"),
        certificate,
        "ssl_cert_file and ssl_key_file are given together",
    ))
}

fn within(option: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    let allowed = (least..=most).contains(&value);
    if allowed { Ok(()) } else { Err(ConfigError::not_allowed(option, value, format_args!("{least} to {most}"))) }
}

fn at_least(option: &str, value: u64, least: u64) -> Result<(), ConfigError> {
    if value < least { Err(ConfigError::not_allowed(option, value, format_args!("{least} or more"))) } else { Ok(()) }
}
