//! The XML for the destination: libvirt's own, with the marker of the migration and with what is called otherwise there: addresses
//! where graphics and serial consoles listen, bridges, and disks that lose the images below them.
//!
//! The document passes through as a stream of events; what is not changed comes out as it went in.

use drover_common::rpc::latest::{Marker, MovedConsole, Renamed};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesEnd, BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;
use quick_xml::writer::Writer;

use super::devices::{CONSOLES, network_attribute};
use super::{DROVER_NAMESPACE, XmlError};

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit<'a> {
    /// The migration and attempt that the domain will show.
    pub marker: Marker,
    /// Where VNC listens on the destination.
    pub vnc_listen: Option<&'a str>,
    /// Where SPICE listens on the destination.
    pub spice_listen: Option<&'a str>,
    /// Bridges, and devices below macvtaps.
    pub networks: &'a [Renamed],
    /// Serial consoles on TCP.
    pub consoles: &'a [MovedConsole],
    /// Files of disks that stand alone on the destination.
    pub flattened: Vec<&'a str>,
}

impl Edit<'_> {
    /// Writes the document anew.
    pub fn apply(&self, xml: &str) -> Result<String, XmlError> {
        let mut editor = Editor {
            edit: self,
            reader: NsReader::from_str(xml),
            writer: Writer::new(Vec::with_capacity(xml.len() + 256)),
            open: Vec::new(),
            marked: false,
        };
        editor.run()?;
        String::from_utf8(editor.writer.into_inner())
            .map_err(|error| XmlError::Unwritable(std::io::Error::other(error.utf8_error())))
    }

    fn listen(&self, graphics_type: &str) -> Option<&str> {
        match graphics_type {
            "vnc" => self.vnc_listen,
            "spice" => self.spice_listen,
            _ => None,
        }
    }

    fn network(&self, name: &str) -> Option<&str> {
        self.networks.iter().find(|renamed| renamed.from == name).map(|renamed| renamed.to.as_str())
    }

    fn console(&self, host: &str, service: &str) -> Option<&MovedConsole> {
        self.consoles.iter().find(|moved| moved.from.host == host && moved.from.service == service)
    }
}

struct Editor<'i, 'e> {
    edit: &'e Edit<'e>,
    reader: NsReader<&'i [u8]>,
    writer: Writer<Vec<u8>>,
    /// The open elements, outermost first.
    open: Vec<Open>,
    marked: bool,
}

/// An open element.
struct Open {
    name: String,
    /// Its `type`, empty if it has none.
    kind: String,
    /// It is a disk that loses the images below it.
    flattened: bool,
}

impl Editor<'_, '_> {
    fn run(&mut self) -> Result<(), XmlError> {
        loop {
            let (namespace, event) = self.reader.read_resolved_event()?;
            let ours = namespace == ResolveResult::Bound(Namespace(DROVER_NAMESPACE));
            match event {
                Event::Start(start) if ours && self.is_marker(&start) => {
                    self.reader.read_to_end(start.name())?; // An earlier migration's.
                }
                Event::Empty(start) if ours && self.is_marker(&start) => {}
                Event::Start(start) if self.is_lost_chain(&start) => {
                    self.reader.read_to_end(start.name())?;
                    self.write(Event::Empty(BytesStart::new("backingStore")))?;
                }
                Event::Start(start) => self.start(&start)?,
                Event::Empty(start) => self.empty(&start)?,
                Event::End(end) => self.end(end)?,
                Event::Eof => return Ok(()),
                other => self.write(other)?,
            }
        }
    }

    fn path(&self) -> Vec<&str> {
        self.open.iter().map(|open| open.name.as_str()).collect()
    }

    fn is_marker(&self, start: &BytesStart<'_>) -> bool {
        self.path() == ["domain", "metadata"] && start.local_name().as_ref() == "migration"
    }

    /// `<backingStore>` of a disk that stands alone on the destination. libvirt writes it after the disk's `<source>`.
    fn is_lost_chain(&self, start: &BytesStart<'_>) -> bool {
        start.name().as_ref() == "backingStore" && self.open.last().is_some_and(|open| open.flattened)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        let kind = attribute(start, "type")?.unwrap_or_default();
        self.note_source(start)?;
        let start = self.changed(start)?;
        let name = start.name().as_ref().to_owned();
        self.write(Event::Start(start))?;
        self.open.push(Open { name, kind, flattened: false });
        if self.path() == ["domain", "metadata"] {
            self.write_marker()?;
        }
        Ok(())
    }

    fn empty(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        if self.path() == ["domain"] && start.name().as_ref() == "metadata" {
            self.write(Event::Start(start.borrow()))?;
            self.write_marker()?;
            return self.write(Event::End(BytesEnd::new("metadata")));
        }
        self.note_source(start)?;
        let start = self.changed(start)?;
        self.write(Event::Empty(start))
    }

    fn end(&mut self, end: BytesEnd<'_>) -> Result<(), XmlError> {
        if self.path() == ["domain"] && !self.marked {
            self.write(Event::Start(BytesStart::new("metadata")))?;
            self.write_marker()?;
            self.write(Event::End(BytesEnd::new("metadata")))?;
        }
        self.open.pop();
        self.write(Event::End(end))
    }

    /// Notes by a disk's `<source>` whether it is one that loses the images below it.
    fn note_source(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        if start.name().as_ref() == "source" && self.path() == ["domain", "devices", "disk"] {
            let file = attribute(start, "file")?;
            let flattened = file.is_some_and(|file| self.edit.flattened.contains(&file.as_str()));
            if let Some(disk) = self.open.last_mut() {
                disk.flattened = flattened;
            }
        }
        Ok(())
    }

    /// The element as the destination is to have it.
    fn changed(&self, start: &BytesStart<'_>) -> Result<BytesStart<'static>, XmlError> {
        let edit = self.edit;
        let name = start.name();
        let name = name.as_ref();
        match self.path().as_slice() {
            ["domain", "devices"] if name == "graphics" => {
                let kind = attribute(start, "type")?.unwrap_or_default();
                with_attribute(start, "listen", edit.listen(&kind))
            }
            // Graphics that listen on a socket have no address.
            ["domain", "devices", "graphics"] if name == "listen" && attribute(start, "type")?.as_deref() == Some("address") => {
                with_attribute(start, "address", edit.listen(self.parents_kind()))
            }
            ["domain", "devices", "interface"] if name == "source" => match network_attribute(self.parents_kind()) {
                Some(key) => {
                    let own = attribute(start, key)?;
                    with_attribute(start, key, own.as_deref().and_then(|own| edit.network(own)))
                }
                None => Ok(start.to_owned()),
            },
            ["domain", "devices", device] if name == "source" && CONSOLES.contains(device) && self.parents_kind() == "tcp" => {
                let (host, service) =
                    (attribute(start, "host")?.unwrap_or_default(), attribute(start, "service")?.unwrap_or_default());
                let listens = attribute(start, "mode")?.as_deref() == Some("bind");
                let to = edit.console(&host, &service).filter(|_| listens).map(|moved| &moved.to);
                let start = with_attribute(start, "host", to.map(|to| to.host.as_str()))?;
                with_attribute(&start, "service", to.map(|to| to.service.as_str()))
            }
            _ => Ok(start.to_owned()),
        }
    }

    /// The type of the innermost open element.
    fn parents_kind(&self) -> &str {
        self.open.last().map_or("", |open| open.kind.as_str())
    }

    fn write_marker(&mut self) -> Result<(), XmlError> {
        self.marked = true;
        let Marker { migration, attempt } = self.edit.marker;
        let mut marker = BytesStart::new("drover:migration");
        marker.push_attribute(("xmlns:drover", DROVER_NAMESPACE));
        marker.push_attribute(("id", migration.to_string().as_str()));
        marker.push_attribute(("attempt", attempt.to_string().as_str()));
        self.write(Event::Empty(marker))
    }

    fn write(&mut self, event: Event<'_>) -> Result<(), XmlError> {
        self.writer.write_event(event).map_err(XmlError::Unwritable)
    }
}

/// An attribute's value, as it reads.
fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, XmlError> {
    let Some(attribute) = start.try_get_attribute(name)? else { return Ok(None) };
    Ok(Some(attribute.normalized_value(XmlVersion::Implicit1_0)?.into_owned()))
}

/// The element with the value of an attribute that it has replaced.
fn with_attribute(start: &BytesStart<'_>, key: &str, value: Option<&str>) -> Result<BytesStart<'static>, XmlError> {
    let mut changed = start.to_owned();
    let (Some(value), Some(_)) = (value, start.try_get_attribute(key)?) else {
        return Ok(changed);
    };
    changed.clear_attributes();
    for attribute in start.attributes() {
        let attribute = attribute?;
        if attribute.key.as_ref() == key {
            changed.push_attribute((key, value));
        } else {
            changed.push_attribute(attribute);
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{Attempt, MigrationId};
    use drover_common::rpc::latest::ConsoleAddress;

    use super::*;

    const EDIT: Edit<'_> = Edit {
        marker: Marker { migration: MigrationId(7), attempt: Attempt(2) },
        vnc_listen: Some("192.0.2.9"),
        spice_listen: None,
        networks: &[],
        consoles: &[],
        flattened: Vec::new(),
    };

    #[test]
    fn a_domain_without_metadata_gets_the_marker_and_nothing_else_changes() {
        insta::assert_snapshot!(EDIT.apply("<domain type='kvm'>\n  <name>a &amp; b</name>\n  <os/>\n</domain>\n").unwrap());
    }

    #[test]
    fn an_older_marker_is_replaced_and_other_metadata_stays() {
        let xml = "<domain type='kvm'><metadata>\
            <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>x</nova:name></nova:instance>\
            <d:migration xmlns:d='https://drover.example/xmlns/libvirt/1' id='6' attempt='1'><d:more/></d:migration>\
            <app:migration xmlns:app='urn:other' id='1'/></metadata><name>g</name></domain>";
        insta::assert_snapshot!(EDIT.apply(xml).unwrap());
        insta::assert_snapshot!("empty_metadata", EDIT.apply("<domain><metadata/><name>g</name></domain>").unwrap());
    }

    #[test]
    fn graphics_listen_where_the_destination_says_and_keep_their_password() {
        let xml = "<domain><metadata/><devices>\
            <graphics type='vnc' port='5900' autoport='yes' listen='127.0.0.1' passwd='s&lt;cret'>\
            <listen type='address' address='127.0.0.1'/></graphics>\
            <graphics type='spice' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>\
            <graphics type='vnc' socket='/run/x'><listen type='socket' socket='/run/x'/></graphics>\
            </devices></domain>";
        insta::assert_snapshot!(EDIT.apply(xml).unwrap());
    }

    #[test]
    fn interfaces_come_to_the_destinations_bridges_and_keep_everything_else() {
        let renamed = |from: &str, to: &str| Renamed { from: from.to_owned(), to: to.to_owned() };
        let networks = [renamed("br-ex", "br0"), renamed("eth1", "bond0")];
        let xml = "<domain><metadata/><devices>\
            <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br-ex'/>\
            <virtualport type='openvswitch'><parameters interfaceid='b9d9e8f0'/></virtualport><target dev='vnet0'/>\
            <model type='virtio'/><mtu size='1450'/><address type='pci' slot='0x03'/></interface>\
            <interface type='direct'><source dev='eth1' mode='bridge'/></interface>\
            <interface type='bridge'><source bridge='br-int'/></interface>\
            <interface type='network'><source network='br-ex' bridge='br-ex'/></interface>\
            <hostdev><source dev='eth1'/></hostdev></devices></domain>";
        insta::assert_snapshot!(Edit { networks: &networks, ..EDIT }.apply(xml).unwrap());
    }

    #[test]
    fn serial_consoles_listen_where_the_destination_says() {
        let address = |host: &str, service: &str| ConsoleAddress { host: host.to_owned(), service: service.to_owned() };
        let consoles = [
            MovedConsole { from: address("127.0.0.1", "10000"), to: address("192.0.2.9", "10003") },
            MovedConsole { from: address("127.0.0.1", "10001"), to: address("192.0.2.9", "10001") },
        ];
        let xml = "<domain><metadata/><devices>\
            <serial type='tcp'><source mode='bind' host='127.0.0.1' service='10000' tls='no'/><protocol type='raw'/></serial>\
            <serial type='tcp'><source mode='bind' host='127.0.0.1' service='10001'/></serial>\
            <serial type='tcp'><source mode='connect' host='127.0.0.1' service='10000'/></serial>\
            <console type='tcp'><source mode='bind' host='127.0.0.1' service='10000'/><target type='serial' port='0'/></console>\
            <serial type='file'><source path='/x' append='on'/></serial></devices></domain>";
        insta::assert_snapshot!(Edit { consoles: &consoles, ..EDIT }.apply(xml).unwrap());
    }

    #[test]
    fn a_disk_that_is_copied_whole_stands_alone_and_others_keep_their_chains() {
        let disk = |file: &str| {
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{file}' index='1'/>\
                <backingStore type='file' index='2'><format type='qcow2'/><source file='/base/b'/><backingStore type='file'>\
                <format type='raw'/><source file='/base/a &amp; b'/><backingStore/></backingStore></backingStore>\
                <target dev='vda' bus='virtio'/></disk>"
            )
        };
        let alone = "<disk type='file'><source file='/d/c'/><backingStore/><target dev='vdc'/></disk>";
        let xml = format!("<domain><metadata/><devices>{}{}{alone}</devices></domain>", disk("/d/a &amp; b"), disk("/d/b"));
        insta::assert_snapshot!(Edit { flattened: vec!["/d/a & b", "/d/c"], ..EDIT }.apply(&xml).unwrap());
    }

    #[test]
    fn editing_twice_is_editing_once() {
        let once = EDIT.apply("<domain><name>g</name></domain>").unwrap();
        assert_eq!(EDIT.apply(&once).unwrap(), once);
    }

    #[test]
    fn what_is_no_xml_is_an_error() {
        assert!(EDIT.apply("<domain><name></domain>").is_err());
    }
}
