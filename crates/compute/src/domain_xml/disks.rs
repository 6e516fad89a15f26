//! `<disk>` elements.

use super::tree::Element;

/// One disk as the XML shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The target device, for instance `vda`.
    pub target: String,
    /// Where its data is.
    pub location: DiskLocation,
    /// Whether the guest only reads it, or shares it with other guests.
    pub read_only: bool,
    /// The driver's format.
    pub format: String,
    /// The path of the image below it.
    pub backing_file: Option<String>,
    /// Whether a block copy mirrors it just now.
    pub mirrored: bool,
}

/// Where a disk's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskLocation {
    /// A file.
    File(String),
    /// A block device.
    Block(String),
    /// Storage on the network, by libvirt's protocol name.
    Network(String),
    /// An empty drive.
    Empty,
    /// A type of source that Drover cannot judge, by libvirt's name: `volume`, `nvme`, `vhostuser`, `dir`.
    Other(String),
}

impl Disk {
    /// Reads one; none without a target (libvirt always writes one).
    pub(super) fn read(element: &Element) -> Option<Self> {
        Some(Self {
            target: element.attribute_at(&["target"], "dev")?.to_owned(),
            location: location(element),
            read_only: element.child("readonly").is_some() || element.child("shareable").is_some(),
            format: element.attribute_at(&["driver"], "type").unwrap_or("raw").to_owned(),
            backing_file: backing_file(element),
            mirrored: element.child("mirror").is_some(),
        })
    }
}

fn location(element: &Element) -> DiskLocation {
    let Some(source) = element.child("source") else {
        return DiskLocation::Empty;
    };
    let attribute = |name: &str| source.attribute(name).map(str::to_owned);
    match element.attribute("type") {
        Some("file") => attribute("file").map_or(DiskLocation::Empty, DiskLocation::File),
        Some("block") => attribute("dev").map_or(DiskLocation::Empty, DiskLocation::Block),
        Some("network") => DiskLocation::Network(attribute("protocol").unwrap_or_default()),
        other => DiskLocation::Other(other.unwrap_or("unknown").to_owned()),
    }
}

/// The next image of the chain. `<backingStore/>` ends it; a chain in JSON or on the network shows what libvirt shows.
fn backing_file(element: &Element) -> Option<String> {
    let backing = element.child("backingStore")?;
    let source = backing.child("source")?;
    let shown = source.attribute("file").or_else(|| source.attribute("dev")).or_else(|| source.attribute("name"));
    Some(shown.unwrap_or("an image without a path").to_owned())
}
