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
    /// Whether other guests may write to it, too.
    pub shareable: bool,
    /// The driver's format.
    pub format: String,
    /// The images below it, the one right below first.
    pub chain: Vec<BackingStore>,
    /// What about it no copy can bring over.
    pub not_copyable: Option<String>,
    /// Whether a block copy mirrors it just now.
    pub mirrored: bool,
}

/// An image below a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingStore {
    /// Where it is.
    pub location: DiskLocation,
    /// Its format.
    pub format: String,
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
        let shareable = element.child("shareable").is_some();
        Some(Self {
            target: element.attribute_at(&["target"], "dev")?.to_owned(),
            location: location(element),
            read_only: shareable || element.child("readonly").is_some(),
            shareable,
            format: element.attribute_at(&["driver"], "type").unwrap_or("raw").to_owned(),
            chain: chain(element),
            not_copyable: not_copyable(element),
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

/// The images below. `<backingStore/>` ends the chain.
fn chain(disk: &Element) -> Vec<BackingStore> {
    let images = std::iter::successors(below(disk), |image| below(image));
    let read = |image: &Element| BackingStore {
        location: location(image),
        format: image.attribute_at(&["format"], "type").unwrap_or("raw").to_owned(),
    };
    images.map(read).collect()
}

fn below(element: &Element) -> Option<&Element> {
    element.child("backingStore").filter(|below| below.child("source").is_some())
}

/// What a copy made of capacity and format alone would lack.
fn not_copyable(disk: &Element) -> Option<String> {
    let source = disk.child("source")?;
    let has = |name: &str| source.child(name).or_else(|| disk.child(name)).is_some();
    let why = [
        ("encryption", "it is encrypted"),
        ("dataStore", "its data is in a file beside the image"),
        ("slices", "it is a part of a file"),
    ];
    why.iter().find(|(name, _)| has(name)).map(|(_, why)| (*why).to_owned())
}
