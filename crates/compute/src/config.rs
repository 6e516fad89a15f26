//! The agent's options, checked: what the types of `drover_common::config` cannot say is refused here, at the start.

use std::path::PathBuf;
use std::time::Duration;

use drover_common::config::{Config, ConfigError};
use drover_common::ids::HostName;
use tracing::warn;

use crate::flags::MigrationFlags;
use crate::migration::policy::PolicyOptions;
use crate::migration::uri::UriTemplate;

/// What the agent was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// This host's name.
    pub host: HostName,
    /// The local hypervisor.
    pub connection_uri: String,
    /// How libvirt reaches other hosts.
    pub live_migration_uri: UriTemplate,
    /// The address on which this host takes migrations, if one was configured.
    pub live_migration_inbound_addr: Option<HostName>,
    /// This host's address, if one was configured.
    pub my_ip: Option<String>,
    /// Flags when no disk is copied.
    pub live_migration_flags: MigrationFlags,
    /// Flags when disks are copied.
    pub block_migration_flags: MigrationFlags,
    /// Whether QEMU may slow down a guest that cannot become post-copy.
    pub permit_auto_converge: bool,
    /// MiB/s, 0 for libvirt's default.
    pub bandwidth_mib: u64,
    /// How a copy is made to converge.
    pub policy: PolicyOptions,
    /// Between two samples of progress.
    pub monitor_interval: Duration,
    /// Between two heartbeats.
    pub report_interval: Duration,
    /// How long a guest has to shut down by itself.
    pub shutdown_timeout: Duration,
    /// Where VNC of arriving guests listens.
    pub vnc_server_listen: Option<String>,
    /// Where SPICE of arriving guests listens.
    pub spice_server_listen: Option<String>,
    /// libvirt's migration ports.
    pub migration_ports: std::ops::RangeInclusive<u16>,
    /// For each try to reach the destination.
    pub connect_probe_timeout: Duration,
    /// What `local_gb` is about.
    pub instances_path: PathBuf,
    /// Disk space that stays free on this host, in bytes.
    pub reserved_host_disk_bytes: u64,
    /// Do not compare CPUs on the destination.
    pub skip_cpu_compare_on_dest: bool,
    /// The certificates that the agent itself uses.
    pub certificates: Vec<PathBuf>,
}

impl Options {
    /// Checks the configuration and keeps what concerns the agent.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let (default, libvirt) = (&config.default, &config.libvirt);
        let mut also = MigrationFlags::NONE;
        if libvirt.live_migration_permit_post_copy {
            also = also.with(MigrationFlags::POSTCOPY);
        } else if libvirt.live_migration_permit_auto_converge {
            also = also.with(MigrationFlags::AUTO_CONVERGE);
        }
        let live = flags("[libvirt] live_migration_flag", &libvirt.live_migration_flag, also)?;
        let block = flags("[libvirt] block_migration_flag", &libvirt.block_migration_flag, also)?;
        if !block.intersects(MigrationFlags::NON_SHARED) {
            return Err(ConfigError::not_allowed(
                "[libvirt] block_migration_flag",
                block.to_string(),
                "VIR_MIGRATE_NON_SHARED_INC or VIR_MIGRATE_NON_SHARED_DISK is required: without it the disks would stay behind",
            ));
        }
        let text = |address: &Option<std::net::IpAddr>| address.map(|a| a.to_string());
        Ok(Self {
            host: config.compute_host()?,
            connection_uri: libvirt.connection_uri.clone(),
            live_migration_uri: UriTemplate::new(&libvirt.live_migration_uri)?,
            live_migration_inbound_addr: libvirt.live_migration_inbound_addr.clone(),
            my_ip: text(&default.my_ip),
            live_migration_flags: live,
            block_migration_flags: block,
            permit_auto_converge: libvirt.live_migration_permit_auto_converge,
            bandwidth_mib: libvirt.live_migration_bandwidth.into(),
            policy: PolicyOptions::new(libvirt),
            monitor_interval: Duration::from_secs(libvirt.live_migration_monitor_interval),
            report_interval: Duration::from_secs(default.report_interval),
            shutdown_timeout: Duration::from_secs(default.shutdown_timeout),
            vnc_server_listen: text(&libvirt.vnc_server_listen),
            spice_server_listen: text(&libvirt.spice_server_listen),
            migration_ports: libvirt.migration_port_min..=libvirt.migration_port_max,
            connect_probe_timeout: Duration::from_secs(libvirt.connect_probe_timeout),
            instances_path: libvirt.instances_path.clone(),
            reserved_host_disk_bytes: u64::from(default.reserved_host_disk_mb) << 20,
            skip_cpu_compare_on_dest: config.workarounds.skip_cpu_compare_on_dest,
            certificates: config.oslo_messaging_rabbit.ssl_cert_file.iter().cloned().collect(),
        })
    }

    /// Where other hosts' libvirts connect to.
    pub fn connect_address(&self) -> &str {
        self.live_migration_inbound_addr.as_ref().unwrap_or(&self.host).as_str()
    }

    /// The flags for one guest. See [`MigrationFlags::for_guest`].
    pub fn flags_for(&self, persistent: bool, paused: bool, copies_disks: bool) -> MigrationFlags {
        let configured = if copies_disks { self.block_migration_flags } else { self.live_migration_flags };
        configured.for_guest(persistent, paused, copies_disks)
    }

    /// The flags for a guest that could become post-copy, if only its destination could: auto-converge takes its place, if permitted.
    pub fn without_post_copy(&self, flags: MigrationFlags) -> MigrationFlags {
        let flags = flags.without(MigrationFlags::POSTCOPY);
        if self.permit_auto_converge { flags.with(MigrationFlags::AUTO_CONVERGE) } else { flags }
    }
}

fn flags(option: &str, names: &[String], also: MigrationFlags) -> Result<MigrationFlags, ConfigError> {
    let flags = MigrationFlags::from_names(option, names, also)?;
    if !flags.intersects(MigrationFlags::LIVE) {
        warn!(option, "without VIR_MIGRATE_LIVE guests stand still for the whole copy");
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_common::config::from_toml;

    fn options(text: &str) -> Result<Options, String> {
        Options::new(&from_toml(text).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_allowed_and_are_novas() {
        let options = options("").unwrap();
        assert_eq!(options.flags_for(true, false, false).bits(), 27);
        assert_eq!(options.flags_for(true, false, true).bits(), 155);
        assert_eq!(options.flags_for(false, false, false).bits(), 3);
    }

    #[test]
    fn post_copy_takes_the_place_of_auto_converge() {
        let both = "[libvirt]\nlive_migration_permit_post_copy = true\nlive_migration_permit_auto_converge = true";
        let flags = options(both).unwrap().live_migration_flags;
        assert!(flags.intersects(MigrationFlags::POSTCOPY) && !flags.intersects(MigrationFlags::AUTO_CONVERGE));
        let converge = options("[libvirt]\nlive_migration_permit_auto_converge = true").unwrap().live_migration_flags;
        assert!(converge.intersects(MigrationFlags::AUTO_CONVERGE));
    }

    #[test]
    fn block_migration_without_a_flag_that_copies_disks_is_refused() {
        let error = options("[libvirt]\nblock_migration_flag = [\"VIR_MIGRATE_LIVE\", \"VIR_MIGRATE_PEER2PEER\"]").unwrap_err();
        assert!(error.contains("block_migration_flag") && error.contains("VIR_MIGRATE_NON_SHARED_INC"), "{error}");
    }

    #[test]
    fn the_connect_address_is_the_inbound_address_or_the_name() {
        assert_eq!(options("[DEFAULT]\nhost = \"h1\"").unwrap().connect_address(), "h1");
        let set = "[DEFAULT]\nhost = \"h1\"\n[libvirt]\nlive_migration_inbound_addr = \"192.0.2.1\"";
        assert_eq!(options(set).unwrap().connect_address(), "192.0.2.1");
    }
}
