//! What the agent reads in a domain's XML, and what it changes in it.
//!
//! Pure: libvirt's document in, our types out. [`DomainXml`] is the part of the document that matters to us, [`edit`] writes the
//! XML for the destination.

pub mod edit;
pub mod nova;
pub mod tree;

mod devices;
mod disks;
mod interfaces;

use drover_common::ids::{Attempt, MigrationId};
use drover_common::rpc::latest::{ConsoleAddress, Marker};
use drover_common::server::Flavor;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

pub use disks::{BackingStore, Disk, DiskLocation};
pub use interfaces::mac_addresses;
pub use nova::NovaMetadata;
pub use tree::{Element, XmlError};

/// The namespace of our marker. A name, not an address.
pub const DROVER_NAMESPACE: &str = "https://drover.example/xmlns/libvirt/1";

/// A domain's XML, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// The domain's name.
    pub name: String,
    /// Its title, if it has one.
    pub title: Option<String>,
    /// What it runs on.
    pub machine: Machine,
    /// Its memory in MiB.
    pub memory_mb: i32,
    /// Its virtual CPUs.
    pub vcpus: i32,
    /// Its disks, in the document's order.
    pub disks: Vec<Disk>,
    /// What ties it to its host, for people.
    pub bound_to_host: Vec<String>,
    /// Bridges and devices of the host that its network interfaces are on.
    pub host_networks: Vec<String>,
    /// Sockets that its network interfaces need on its host.
    pub vhost_user_sockets: Vec<String>,
    /// Where its serial consoles listen on TCP.
    pub consoles: Vec<ConsoleAddress>,
    /// What Nova wrote about it.
    pub nova: Option<NovaMetadata>,
}

/// What libvirt needs to know to say whether a host can run a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    /// The domain's type: `kvm`, `qemu`, `test`.
    pub virt_type: String,
    /// For instance `x86_64`.
    pub arch: Option<String>,
    /// For instance `pc-q35-8.2`.
    pub machine: Option<String>,
    /// The emulator's path.
    pub emulator: Option<String>,
}

impl DomainXml {
    /// Reads a `<domain>`.
    pub fn parse(xml: &str) -> Result<Self, XmlError> {
        let root = Element::parse(xml)?;
        let os_type = root.at(&["os", "type"]);
        let text = |path: &[&str]| root.text_at(path).map(str::to_owned);
        Ok(Self {
            name: text(&["name"]).ok_or(XmlError::Missing("name"))?,
            title: text(&["title"]),
            machine: Machine {
                virt_type: root.attribute("type").ok_or(XmlError::Missing("domain type"))?.to_owned(),
                arch: os_type.and_then(|t| t.attribute("arch")).map(str::to_owned),
                machine: os_type.and_then(|t| t.attribute("machine")).map(str::to_owned),
                emulator: text(&["devices", "emulator"]),
            },
            memory_mb: memory_mb(&root)?,
            vcpus: vcpus(&root)?,
            disks: root
                .child("devices")
                .map(|devices| devices.children_named("disk").filter_map(Disk::read).collect())
                .unwrap_or_default(),
            bound_to_host: devices::bound_to_host(&root),
            host_networks: devices::host_networks(&root),
            vhost_user_sockets: devices::vhost_user_sockets(&root),
            consoles: devices::listening_consoles(&root),
            nova: root.child("metadata").and_then(NovaMetadata::read),
        })
    }

    /// The name that people know the server by: Nova's, else the title, else the domain's name.
    pub fn display_name(&self) -> &str {
        let nova = self.nova.as_ref().and_then(|nova| nova.name.as_deref());
        nova.or(self.title.as_deref()).unwrap_or(&self.name)
    }

    /// The server's size: Nova's flavor, else what the domain has.
    pub fn flavor(&self) -> Flavor {
        let from_nova = self.nova.as_ref().and_then(|nova| nova.flavor.clone());
        from_nova.unwrap_or_else(|| Flavor {
            name: format!("{}vcpu-{}mb", self.vcpus, self.memory_mb),
            vcpus: self.vcpus,
            memory_mb: self.memory_mb,
            root_gb: 0,
            ephemeral_gb: 0,
            swap_mb: 0,
        })
    }
}

/// The text of the domain's own `<cpu>` element, for libvirt to compare.
pub fn cpu_element(xml: &str) -> Result<Option<&str>, XmlError> {
    element_text(xml, &["domain", "cpu"])
}

/// The text of the host's `<cpu>` in libvirt's `<capabilities>`, for another host's libvirt to compare.
pub fn host_cpu_element(capabilities: &str) -> Result<Option<&str>, XmlError> {
    element_text(capabilities, &["capabilities", "host", "cpu"])
}

/// The text of the first element at the end of a path that begins at the root.
fn element_text<'a>(xml: &'a str, path: &[&str]) -> Result<Option<&'a str>, XmlError> {
    let mut reader = Reader::from_str(xml);
    // How many elements are open, and how many of them, from the root on, are the path's.
    let (mut depth, mut on_path) = (0_usize, 0_usize);
    loop {
        let begin = position(&reader);
        let event = reader.read_event()?;
        let is_next = |start: &BytesStart<'_>| on_path == depth && path.get(depth) == Some(&start.name().as_ref());
        let is_last = depth + 1 == path.len();
        match event {
            Event::Start(start) if is_next(&start) && is_last => {
                reader.read_to_end(start.name())?;
                return Ok(xml.get(begin..position(&reader)));
            }
            Event::Empty(start) if is_next(&start) && is_last => return Ok(xml.get(begin..position(&reader))),
            Event::Start(start) => {
                on_path += usize::from(is_next(&start));
                depth += 1;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                on_path = on_path.min(depth);
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// `<memory unit='…'>` in MiB, rounded up: what the guest may have, not what the balloon leaves it.
fn memory_mb(root: &Element) -> Result<i32, XmlError> {
    let memory = root.child("memory").ok_or(XmlError::Missing("memory"))?;
    let not_a_number = || XmlError::NotANumber { element: "memory", value: memory.text.clone() };
    let amount: u64 = memory.text.parse().map_err(|_| not_a_number())?;
    let bytes = amount.saturating_mul(unit_bytes(memory.attribute("unit")));
    i32::try_from(bytes.div_ceil(1 << 20)).map_err(|_| not_a_number())
}

/// libvirt's units (docs/formatdomain: scaled integers); it writes KiB itself.
fn unit_bytes(unit: Option<&str>) -> u64 {
    match unit {
        Some("b" | "bytes") => 1,
        Some("KB") => 1000,
        Some("M" | "MiB") => 1 << 20,
        Some("MB") => 1_000_000,
        Some("G" | "GiB") => 1 << 30,
        Some("GB") => 1_000_000_000,
        Some("T" | "TiB") => 1 << 40,
        Some("TB") => 1_000_000_000_000,
        None | Some(_) => 1 << 10,
    }
}

/// The CPUs that are on: `<vcpu current='…'>`, else all.
fn vcpus(root: &Element) -> Result<i32, XmlError> {
    let Some(vcpu) = root.child("vcpu") else { return Ok(1) };
    let text = vcpu.attribute("current").unwrap_or(&vcpu.text);
    text.parse().map_err(|_| XmlError::NotANumber { element: "vcpu", value: text.to_owned() })
}

/// Our marker, from the element that libvirt gives out for our namespace (without the namespace).
pub fn read_marker(element: &str) -> Option<Marker> {
    let element = Element::parse(element).ok().filter(|element| element.name == "migration")?;
    Some(Marker {
        migration: MigrationId(element.attribute("id")?.parse().ok()?),
        attempt: Attempt(element.attribute("attempt")?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests;
