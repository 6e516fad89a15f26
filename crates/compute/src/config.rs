//! The agent's options, checked: what the types of `drover_common::config` cannot say is refused here, at the start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use drover_common::config::{Compression, Config, ConfigError, LibvirtSection};
use drover_common::ids::HostName;
use tracing::warn;

use crate::announce::AnnounceOptions;
use crate::flags::MigrationFlags;
use crate::migration::policy::PolicyOptions;
use crate::migration::uri::UriTemplate;
use crate::stream::StreamOptions;

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
    /// MiB/s of the host's link, 0 for no limit. It is shared out by the conductor, which knows all migrations.
    pub link_bandwidth_mib: u32,
    /// How the memory travels.
    pub stream: StreamOptions,
    /// How guests that arrive are announced.
    pub announce: AnnounceOptions,
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
    /// Where serial consoles of arriving guests listen.
    pub serial_server_listen: Option<String>,
    /// Ports for serial consoles whose own is taken.
    pub serial_ports: std::ops::RangeInclusive<u16>,
    /// This host's bridges by the physical network that they lead to.
    pub bridge_mappings: BTreeMap<String, String>,
    /// The largest read-only image that is carried over, in bytes.
    pub read_only_disk_copy_limit_bytes: u64,
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
        let stream = StreamOptions::new(libvirt);
        let mut also = stream.flags();
        if libvirt.live_migration_with_native_tls {
            also = also.with(MigrationFlags::TLS);
        }
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
        check_stream(libvirt, live, block)?;
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
            link_bandwidth_mib: libvirt.live_migration_link_bandwidth,
            stream,
            announce: AnnounceOptions {
                count: libvirt.live_migration_announce_count,
                interval: Duration::from_millis(libvirt.live_migration_announce_interval),
            },
            policy: PolicyOptions::new(libvirt),
            monitor_interval: Duration::from_secs(libvirt.live_migration_monitor_interval),
            report_interval: Duration::from_secs(default.report_interval),
            shutdown_timeout: Duration::from_secs(default.shutdown_timeout),
            vnc_server_listen: text(&libvirt.vnc_server_listen),
            spice_server_listen: text(&libvirt.spice_server_listen),
            serial_server_listen: text(&libvirt.serial_server_listen),
            serial_ports: ports("[libvirt] serial_port_range", &libvirt.serial_port_range)?,
            bridge_mappings: mappings("[libvirt] bridge_mappings", &libvirt.bridge_mappings)?,
            read_only_disk_copy_limit_bytes: u64::from(libvirt.read_only_disk_copy_limit_mb) << 20,
            migration_ports: libvirt.migration_port_min..=libvirt.migration_port_max,
            connect_probe_timeout: Duration::from_secs(libvirt.connect_probe_timeout),
            instances_path: libvirt.instances_path.clone(),
            reserved_host_disk_bytes: u64::from(default.reserved_host_disk_mb) << 20,
            skip_cpu_compare_on_dest: config.workarounds.skip_cpu_compare_on_dest,
            certificates: config.oslo_messaging_rabbit.ssl_cert_file.iter().cloned().collect(),
        })
    }

    /// The limit for one migration with this share of the links, MiB/s; 0 for libvirt's default.
    pub fn bandwidth(&self, share_mib: Option<u64>) -> u64 {
        match (share_mib, self.bandwidth_mib) {
            (None, own) => own,
            (Some(share), 0) => share,
            (Some(share), own) => share.min(own),
        }
    }

    /// The physical network that a bridge of this host leads to.
    pub fn physical_network(&self, bridge: &str) -> Option<&str> {
        self.bridge_mappings.iter().find(|(_, own)| *own == bridge).map(|(network, _)| network.as_str())
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

/// What the options about the stream and the two lists of flags must not say together.
fn check_stream(libvirt: &LibvirtSection, live: MigrationFlags, block: MigrationFlags) -> Result<(), ConfigError> {
    let both = |flags| live.intersects(flags) && block.intersects(flags);
    if libvirt.live_migration_require_tls {
        if !both(MigrationFlags::TLS) {
            return Err(ConfigError::not_allowed(
                "[libvirt] live_migration_require_tls",
                true,
                "it takes live_migration_with_native_tls = true, or VIR_MIGRATE_TLS in live_migration_flag and block_migration_flag",
            ));
        }
        if !is_protected(&libvirt.live_migration_uri) {
            warn!(
                uri = libvirt.live_migration_uri,
                "live_migration_require_tls is about memory and disks: the guest's definition travels in the clear (live_migration_uri)"
            );
        }
    }
    // Without a method libvirt takes XBZRLE, which goes with one stream only.
    let listed = [&libvirt.live_migration_flag, &libvirt.block_migration_flag];
    let compressed = listed.iter().any(|names| names.iter().any(|name| name == "VIR_MIGRATE_COMPRESSED"));
    let parallel = live.with(block).intersects(MigrationFlags::PARALLEL);
    match libvirt.live_migration_compression {
        Compression::None if compressed && parallel => Err(ConfigError::not_allowed(
            "[libvirt] live_migration_compression",
            "none",
            "VIR_MIGRATE_COMPRESSED is XBZRLE then, which libvirt refuses for parallel connections: \"zstd\"",
        )),
        Compression::Auto if compressed => Err(ConfigError::not_allowed(
            "[libvirt] live_migration_compression",
            "auto",
            "without VIR_MIGRATE_COMPRESSED in live_migration_flag and block_migration_flag, which leaves nothing to choose",
        )),
        _ => Ok(()),
    }
}

/// Whether libvirt's own connection is encrypted, or never leaves the host.
fn is_protected(uri: &str) -> bool {
    let scheme = uri.split("://").next().unwrap_or_default();
    !matches!(scheme.split_once('+'), Some((_, "tcp")))
}

/// `FIRST:LAST`.
fn ports(option: &str, text: &str) -> Result<std::ops::RangeInclusive<u16>, ConfigError> {
    let range = text.split_once(':').and_then(|(first, last)| Some(first.trim().parse().ok()?..=last.trim().parse().ok()?));
    let range = range.filter(|range: &std::ops::RangeInclusive<u16>| *range.start() > 0 && !range.is_empty());
    range.ok_or_else(|| ConfigError::not_allowed(option, text, "FIRST:LAST, two ports of which the second is not the smaller"))
}

/// `PHYSICAL_NETWORK:BRIDGE`, each name once on either side: both directions are looked up.
fn mappings(option: &str, pairs: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut known = BTreeMap::new();
    for pair in pairs {
        let refuse = |why: &str| Err(ConfigError::not_allowed(option, pair, why));
        let Some((network, bridge)) = pair.split_once(':').map(|(network, bridge)| (network.trim(), bridge.trim())) else {
            return refuse("PHYSICAL_NETWORK:BRIDGE");
        };
        if network.is_empty() || bridge.is_empty() {
            return refuse("PHYSICAL_NETWORK:BRIDGE");
        }
        if known.values().any(|known| known == bridge) {
            return refuse("a bridge leads to one physical network only");
        }
        if known.insert(network.to_owned(), bridge.to_owned()).is_some() {
            return refuse("a physical network has one bridge only");
        }
    }
    Ok(known)
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
    fn a_share_of_the_links_counts_unless_the_hosts_own_limit_is_lower() {
        let limited = options("[libvirt]\nlive_migration_bandwidth = 50").unwrap();
        assert_eq!([None, Some(20), Some(80)].map(|share| limited.bandwidth(share)), [50, 20, 50]);
        assert_eq!([None, Some(20)].map(|share| options("").unwrap().bandwidth(share)), [0, 20]);
    }

    #[test]
    fn options_about_the_stream_become_flags() {
        let flags = |text: &str| options(&format!("[libvirt]\n{text}")).unwrap().live_migration_flags;
        assert!(flags("live_migration_with_native_tls = true").intersects(MigrationFlags::TLS));
        assert!(!flags("").intersects(MigrationFlags::TLS.with(MigrationFlags::PARALLEL)));
        assert!(flags("live_migration_parallel_connections = 2").intersects(MigrationFlags::PARALLEL));
        let zstd = flags("live_migration_compression = \"zstd\"");
        assert!(zstd.intersects(MigrationFlags::PARALLEL) && zstd.intersects(MigrationFlags::COMPRESSED));
        assert!(!flags("live_migration_compression = \"auto\"").intersects(MigrationFlags::COMPRESSED));
    }

    #[test]
    fn a_stream_that_cannot_be_is_refused_by_option() {
        let flags = |more: &str| {
            let list = format!("[\"VIR_MIGRATE_LIVE\", \"VIR_MIGRATE_PEER2PEER\"{more}]");
            format!(
                "live_migration_flag = {list}\nblock_migration_flag = {}\n",
                list.replace(']', ", \"VIR_MIGRATE_NON_SHARED_INC\"]")
            )
        };
        let (tunnel, compressed) = (flags(", \"VIR_MIGRATE_TUNNELLED\""), flags(", \"VIR_MIGRATE_COMPRESSED\""));
        for (text, part) in [
            ("live_migration_require_tls = true".to_owned(), "live_migration_require_tls = true is not allowed"),
            (format!("{tunnel}live_migration_parallel_connections = 2"), "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_PARALLEL exclude"),
            (format!("{tunnel}live_migration_with_native_tls = true"), "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_TLS exclude"),
            (
                format!("{compressed}live_migration_parallel_connections = 2"),
                "live_migration_compression = \"none\" is not allowed",
            ),
            (format!("{compressed}live_migration_compression = \"auto\""), "live_migration_compression = \"auto\" is not allowed"),
        ] {
            let error = options(&format!("[libvirt]\n{text}")).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        options(&format!("[libvirt]\n{compressed}live_migration_compression = \"zstd\"")).unwrap();
        options("[libvirt]\nlive_migration_require_tls = true\nlive_migration_with_native_tls = true").unwrap();
    }

    #[test]
    fn bridges_have_one_physical_network_each_and_port_ranges_two_ends() {
        let good = options("[libvirt]\nbridge_mappings = [\"physnet1:br-ex\", \"physnet2: br-2\"]").unwrap();
        assert_eq!((good.physical_network("br-2"), good.physical_network("br-3")), (Some("physnet2"), None));
        for (text, part) in [
            ("bridge_mappings = [\"br-ex\"]", "PHYSICAL_NETWORK:BRIDGE"),
            ("bridge_mappings = [\"a:\"]", "PHYSICAL_NETWORK:BRIDGE"),
            ("bridge_mappings = [\"a:br\", \"b:br\"]", "one physical network only"),
            ("bridge_mappings = [\"a:br\", \"a:br2\"]", "one bridge only"),
            ("serial_port_range = \"10000\"", "FIRST:LAST"),
            ("serial_port_range = \"20000:10000\"", "FIRST:LAST"),
        ] {
            let error = options(&format!("[libvirt]\n{text}")).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_connect_address_is_the_inbound_address_or_the_name() {
        assert_eq!(options("[DEFAULT]\nhost = \"h1\"").unwrap().connect_address(), "h1");
        let set = "[DEFAULT]\nhost = \"h1\"\n[libvirt]\nlive_migration_inbound_addr = \"192.0.2.1\"";
        assert_eq!(options(set).unwrap().connect_address(), "192.0.2.1");
    }
}
