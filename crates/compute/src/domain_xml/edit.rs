//! The XML for the destination: libvirt's own, with the marker of the migration and the addresses where graphics listen there.
//!
//! The document passes through as a stream of events; what is not changed comes out as it went in.

use drover_common::rpc::latest::Marker;
use quick_xml::events::{BytesEnd, BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;
use quick_xml::writer::Writer;

use super::{DROVER_NAMESPACE, XmlError};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit<'a> {
    /// The migration and attempt that the domain will show.
    pub marker: Marker,
    /// Where VNC listens on the destination.
    pub vnc_listen: Option<&'a str>,
    /// Where SPICE listens on the destination.
    pub spice_listen: Option<&'a str>,
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

    fn listen(&self, graphics_type: Option<&str>) -> Option<&str> {
        match graphics_type {
            Some("vnc") => self.vnc_listen,
            Some("spice") => self.spice_listen,
            _ => None,
        }
    }
}

struct Editor<'i, 'e> {
    edit: &'e Edit<'e>,
    reader: NsReader<&'i [u8]>,
    writer: Writer<Vec<u8>>,
    /// Names of the open elements, outermost first, with the listen address that applies inside.
    open: Vec<(String, Option<&'e str>)>,
    marked: bool,
}

impl<'e> Editor<'_, 'e> {
    fn run(&mut self) -> Result<(), XmlError> {
        loop {
            let (namespace, event) = self.reader.read_resolved_event()?;
            let ours = namespace == ResolveResult::Bound(Namespace(DROVER_NAMESPACE));
            match event {
                Event::Start(start) if ours && self.is_marker(&start) => {
                    self.reader.read_to_end(start.name())?; // An earlier migration's.
                }
                Event::Empty(start) if ours && self.is_marker(&start) => {}
                Event::Start(start) => self.start(&start)?,
                Event::Empty(start) => self.empty(&start)?,
                Event::End(end) => self.end(end)?,
                Event::Eof => return Ok(()),
                other => self.write(other)?,
            }
        }
    }

    fn path(&self) -> Vec<&str> {
        self.open.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn is_marker(&self, start: &BytesStart<'_>) -> bool {
        self.path() == ["domain", "metadata"] && start.local_name().as_ref() == "migration"
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        let (start, listen) = self.with_listen(start)?;
        let name = start.name().as_ref().to_owned();
        self.write(Event::Start(start))?;
        self.open.push((name, listen));
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
        let (start, _) = self.with_listen(start)?;
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

    /// `<graphics listen=…>` and the `<listen type='address'>` in it get the destination's address. Graphics that listen on a socket
    /// have neither.
    fn with_listen(&self, start: &BytesStart<'_>) -> Result<(BytesStart<'static>, Option<&'e str>), XmlError> {
        let edit: &'e Edit<'e> = self.edit;
        let name = start.name();
        match (self.path().as_slice(), name.as_ref()) {
            (["domain", "devices"], "graphics") => {
                let listen = edit.listen(attribute(start, "type")?.as_deref());
                Ok((with_attribute(start, "listen", listen)?, listen))
            }
            (["domain", "devices", "graphics"], "listen") if attribute(start, "type")?.as_deref() == Some("address") => {
                let listen = self.open.last().and_then(|(_, listen)| *listen);
                Ok((with_attribute(start, "address", listen)?, None))
            }
            _ => Ok((start.to_owned(), None)),
        }
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

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, XmlError> {
    Ok(start.try_get_attribute(name)?.map(|attribute| attribute.value.into_owned()))
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

    use super::*;

    const EDIT: Edit<'_> = Edit {
        marker: Marker { migration: MigrationId(7), attempt: Attempt(2) },
        vnc_listen: Some("192.0.2.9"),
        spice_listen: None,
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
    fn editing_twice_is_editing_once() {
        let once = EDIT.apply("<domain><name>g</name></domain>").unwrap();
        assert_eq!(EDIT.apply(&once).unwrap(), once);
    }

    #[test]
    fn what_is_no_xml_is_an_error() {
        assert!(EDIT.apply("<domain><name></domain>").is_err());
    }
}
