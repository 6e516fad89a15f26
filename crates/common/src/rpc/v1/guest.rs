//! What travels about a guest before it does: its XML, its disks, what both hosts found out.

use serde::{Deserialize, Serialize};

use super::facts::GuestState;
use crate::ids::HostName;
use crate::names;

/// A guest as its source sees it, asked once for each migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDescription {
    /// The domain's name on its host.
    pub name: String,
    /// Its state.
    pub state: GuestState,
    /// Whether it is defined and so outlives its QEMU.
    pub persistent: bool,
    /// libvirt's live XML, with the CPU as the guest really has it (the migratable XML has it as it was asked for), and without
    /// secrets: what is sent to the other libvirt is read again by the source at the start.
    pub xml: String,
    /// Memory in MiB.
    pub memory_mb: i64,
    /// Its disks, in the order of the XML.
    pub disks: Vec<GuestDisk>,
    /// Files that the source wrote beside file disks, for the destination to look for.
    pub probes: Vec<StorageProbe>,
    /// The source host's own `<cpu>` (libvirt's capabilities), for guests that have it passed through. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpu: Option<String>,
    /// The bridges and devices of the host that its network interfaces are on, each once. Since 1.3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<HostNetwork>,
}

/// What a network interface of a guest is on: a bridge, or a device below a macvtap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// Its name on this host, for instance `br-ex`.
    pub name: String,
    /// The physical network that it leads to by `bridge_mappings`: the same on every host.
    pub physical_network: Option<String>,
}

/// One disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDisk {
    /// The target device, for instance `vda`; how libvirt names it in `migrate_disks`.
    pub target: String,
    /// Where its data is.
    pub source: DiskSource,
    /// Whether the guest only reads it (or several guests share it): never copied by libvirt.
    pub read_only: bool,
    /// Whether several guests may write to it. Since 1.3.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shareable: bool,
    /// The driver's format, `raw` or `qcow2`.
    pub format: String,
    /// What the guest sees, in bytes.
    pub capacity_bytes: u64,
    /// What it takes on the source, in bytes.
    pub allocation_bytes: u64,
    /// The path of the image below it, if there is one.
    pub backing_file: Option<String>,
    /// Where a file's path leads to on the source, if it is a symbolic link. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolves_to: Option<String>,
    /// The images below it, the one right below first. Since 1.3; before, only `backing_file` tells that there are some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Image>,
    /// What about it no copy can bring over, for instance "it is encrypted". Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_copyable: Option<String>,
    /// The file with the data on the source, if it is a file. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
}

impl GuestDisk {
    /// The path of the file with the data, if it is a file: not of a symbolic link to it.
    pub fn data_file(&self) -> Option<&str> {
        self.source.data_file(self.resolves_to.as_deref())
    }

    /// The disk's own image and those below it, with the facts of their files.
    pub fn images(&self) -> impl Iterator<Item = (&DiskSource, Option<&str>, Option<&FileFacts>)> {
        let own = (&self.source, self.resolves_to.as_deref(), self.file.as_ref());
        let below = self.chain.iter().map(|image| (&image.source, image.resolves_to.as_deref(), image.file.as_ref()));
        std::iter::once(own).chain(below)
    }
}

/// An image below a disk: the disk holds only what differs from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it is.
    pub source: DiskSource,
    /// Its format.
    pub format: String,
    /// Where a file's path leads to on the source, if it is a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolves_to: Option<String>,
    /// The file on the source, if it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
}

/// A file as its own host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its length in bytes.
    pub bytes: u64,
    /// What it takes, in bytes.
    pub allocated_bytes: u64,
    /// Its inode, and when it was made (nanoseconds since 1970) where the file system tells: another file under this name has others.
    pub inode: u64,
    /// See `inode`.
    pub made_ns: Option<i64>,
}

/// Where a disk's data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DiskSource {
    /// A file.
    File {
        /// Its path.
        path: String,
    },
    /// A block device.
    Block {
        /// Its path.
        path: String,
        /// What tells it apart on every host (WWID or device-mapper UUID), if it has such a thing.
        identity: Option<String>,
    },
    /// Storage on the network, which every host reaches the same way.
    Network {
        /// libvirt's protocol name, for instance `rbd`.
        protocol: String,
    },
    /// Nothing: an empty drive.
    Empty,
}

impl DiskSource {
    /// The path of the file with the data, if it is a file; `resolves_to` is where the path leads to if it is a symbolic link.
    pub fn data_file<'a>(&'a self, resolves_to: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::File { path } => Some(resolves_to.unwrap_or(path)),
            Self::Block { .. } | Self::Network { .. } | Self::Empty => None,
        }
    }

    /// Where it is, for people.
    pub fn shown(&self) -> &str {
        match self {
            Self::File { path } | Self::Block { path, .. } => path,
            Self::Network { protocol } => protocol,
            Self::Empty => "empty",
        }
    }
}

/// A file written by one host for the other to look for, in one directory that holds disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageProbe {
    /// The directory.
    pub directory: String,
    /// The file's name and content, or why it could not be written.
    pub written: Result<String, String>,
}

/// Whether both hosts see the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// They do.
    Shared,
    /// They do not.
    NotShared,
    /// Nobody can tell; such a guest is not moved.
    Unknown,
}
names!("sharing", Sharing { Shared = "shared", NotShared = "not shared", Unknown = "unknown" });

/// What the destination's agent found (`check_can_live_migrate_destination`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationCheck {
    /// Where the source's libvirt connects to: `live_migration_inbound_addr`, or the host's name.
    pub connect_address: String,
    /// Whether `connect_address` was configured (then the memory stream is led there too: Nova's `migrate_uri`).
    pub inbound_address_set: bool,
    /// A port of the migration range that the destination listens on just now, for the source to try.
    pub migration_port_probe: Option<u16>,
    /// What the destination saw of each directory.
    pub directories: Vec<DirectoryCheck>,
    /// For each block device of the guest: its identity on the destination, none if it is not there.
    pub block_devices: Vec<BlockDeviceCheck>,
    /// Address for VNC to listen on.
    pub graphics_listen_addr_vnc: Option<String>,
    /// Address for SPICE to listen on.
    pub graphics_listen_addr_spice: Option<String>,
    /// The guest's file disks whose paths are symbolic links on the destination. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkCheck>,
    /// Why no guest can arrive by post-copy, if that is so. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_post_copy: Option<String>,
    /// What its end of the stream can do. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamEnd>,
    /// Files of the guest that the destination may have of its own: images below disks, read-only images. Since 1.3; none from an
    /// agent that does not look for them, and cannot take images that are carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ImageCheck>>,
    /// What the guest's bridges and devices are called there, where it differs. Since 1.3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Renamed>,
    /// Where the guest's serial consoles will listen, where it differs. Since 1.3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<MovedConsole>,
}

/// What one host's end of a migration's stream can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// QEMU's version as libvirt writes it, if it is QEMU.
    pub qemu_version: Option<i32>,
    /// libvirt's.
    pub libvirt_version: Option<i32>,
    /// Whether it takes part in no migration without TLS (`live_migration_require_tls`, or libvirt's `migrate_tls_force`).
    pub requires_tls: bool,
    /// The certificates of its QEMU.
    pub tls: TlsEnd,
}

/// The certificates that one host's QEMU has for migrations. A CA is known by the SHA-256 of its name and key, in hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsEnd {
    /// The CAs whose certificates it takes.
    pub trusts: Vec<String>,
    /// The CA of the certificate that it shows to what arrives, or why it has none that is good.
    pub server: Option<Result<String, String>>,
    /// The same for what leaves.
    pub client: Option<Result<String, String>>,
}

/// A file that the destination was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCheck {
    /// Its path.
    pub path: String,
    /// Its length there in bytes; none if it is not there.
    pub bytes: Option<u64>,
    /// SHA-256 of its content, if it might be the same as the source's and the directory did not look shared; or why there is none.
    pub digest: Option<Result<String, String>>,
}

/// A name of the source and what it is called on the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// On the source.
    pub from: String,
    /// On the destination.
    pub to: String,
}

/// A serial console that listens on TCP, and where it will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedConsole {
    /// On the source.
    pub from: ConsoleAddress,
    /// On the destination.
    pub to: ConsoleAddress,
}

/// Where a serial console listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleAddress {
    /// libvirt's `host`.
    pub host: String,
    /// libvirt's `service`: a port.
    pub service: String,
}

/// The path of a file disk that is a symbolic link on the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCheck {
    /// The disk's path.
    pub path: String,
    /// Where it leads to there.
    pub resolves_to: String,
}

/// One directory, seen from the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryCheck {
    /// The directory.
    pub directory: String,
    /// Whether it saw the source's probe, or why it could not look.
    pub sees_source: Result<bool, String>,
    /// Its own probe for the source to look for.
    pub probe: StorageProbe,
    /// Free space there in bytes, if the directory is there.
    pub free_bytes: Option<u64>,
    /// The device number of its file system there: directories that have it in common share the free space. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

/// One block device, seen from the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDeviceCheck {
    /// Its path.
    pub path: String,
    /// Its identity there.
    pub identity: Option<String>,
}

/// Everything that both hosts agreed on; kept on the migration's row and sent with `live_migration` (Nova's `migrate_data`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateData {
    /// The domain's name.
    pub name: String,
    /// The domain's live XML without secrets, as the source had it when it was checked.
    pub xml: String,
    /// Whether it is persistent.
    pub persistent: bool,
    /// Whether its CPUs stand (then post-copy makes no sense).
    pub paused: bool,
    /// The resolved choice: true if any disk is copied.
    pub block_migration: bool,
    /// Each disk, with what was found out.
    pub disks: Vec<MigrateDisk>,
    /// What the destination said of itself.
    pub destination: DestinationAddresses,
    /// Why this migration cannot become post-copy although that is permitted. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_post_copy: Option<String>,
    /// After how many seconds the source's kernel gives up a connection that nobody answers: so long libvirt may connect. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_s: Option<u32>,
    /// How the memory travels. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// Why the guest could not come back the same way, if that is so. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_way_back: Option<String>,
}

/// How a guest's memory travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Parallel connections; none is QEMU's single stream.
    pub parallel_connections: Option<u8>,
    /// The level of zstd; none sends the memory as it is.
    pub zstd_level: Option<u8>,
    /// All of it, and why, for people.
    pub why: String,
}

impl MigrateData {
    /// The disks that libvirt copies.
    pub fn copied_disks(&self) -> impl Iterator<Item = &MigrateDisk> {
        self.disks.iter().filter(|disk| disk.copied)
    }

    /// The disks that are carried over before the start.
    pub fn carried_disks(&self) -> impl Iterator<Item = &MigrateDisk> {
        self.disks.iter().filter(|disk| disk.carried)
    }

    /// The disks whose files are made on the destination, and removed on the source in the end.
    pub fn moved_disks(&self) -> impl Iterator<Item = &MigrateDisk> {
        self.disks.iter().filter(|disk| disk.copied || disk.carried)
    }

    /// Whether any disk loses the images below it: then libvirt copies all of them whole.
    pub fn flattens(&self) -> bool {
        self.flattened_files().next().is_some()
    }

    /// The paths of the disks that stand alone on the destination, while they lie on others on the source.
    pub fn flattened_files(&self) -> impl Iterator<Item = &str> {
        let flattened = self.disks.iter().filter(|disk| disk.below == Some(Below::Flattened));
        flattened.map(|disk| disk.disk.source.shown())
    }
}

/// A disk and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateDisk {
    /// The disk.
    #[serde(flatten)]
    pub disk: GuestDisk,
    /// Whether both hosts see the same data.
    pub sharing: Sharing,
    /// Whether libvirt copies it.
    pub copied: bool,
    /// Whether it is a small read-only image that is carried over by message before the start. Since 1.3.
    #[serde(default, skip_serializing_if = "is_false")]
    pub carried: bool,
    /// What becomes of the images below a copied disk; none if there are none. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Below>,
    /// Why so, for people. Since 1.3.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl MigrateDisk {
    /// What is done with it, in a word: `stays`, `copied`, `kept` or `flattened` (copied, and what becomes of the images below it),
    /// `carried`.
    pub const fn treatment(&self) -> &'static str {
        match (self.copied, self.carried, self.below) {
            (true, _, Some(below)) => below.as_str(),
            (true, _, None) => "copied",
            (false, true, _) => "carried",
            (false, false, _) => "stays",
        }
    }
}

/// What becomes of the images below a disk that is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Below {
    /// The destination has them: only what the disk itself holds is copied.
    Kept,
    /// Their content becomes part of the copy, which stands alone.
    Flattened,
}
names!("below", Below { Kept = "kept", Flattened = "flattened" });

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Where things on the destination listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationAddresses {
    /// The destination's name.
    pub host: HostName,
    /// See [`DestinationCheck::connect_address`].
    pub connect_address: String,
    /// See [`DestinationCheck::inbound_address_set`].
    pub inbound_address_set: bool,
    /// Address for VNC to listen on.
    pub graphics_listen_addr_vnc: Option<String>,
    /// Address for SPICE to listen on.
    pub graphics_listen_addr_spice: Option<String>,
    /// See [`DestinationCheck::networks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Renamed>,
    /// See [`DestinationCheck::consoles`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<MovedConsole>,
}
