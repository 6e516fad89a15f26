//! XML as a small tree: enough to ask libvirt's documents questions by path.
//!
//! Reading only. Documents that are sent on are edited as a stream of events instead ([`super::edit`]), so that nothing that we do
//! not understand is lost.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

/// As deep as libvirt's own XML library reads (`xmlParserMaxDepth`): each image of a backing chain lies within the one above it, and
/// libvirt takes up to 200.
const DEPTH_MAX: usize = 256;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// It is not well formed.
    #[error("XML cannot be read")]
    Malformed(#[source] quick_xml::Error),
    /// An element that must be there is not.
    #[error("XML has no <{0}>")]
    Missing(&'static str),
    /// A number that is none.
    #[error("{value:?} in <{element}> is no number")]
    NotANumber {
        /// Where.
        element: &'static str,
        /// What stands there.
        value: String,
    },
    /// More nesting than libvirt's documents have.
    #[error("XML is more than {DEPTH_MAX} elements deep")]
    TooDeep,
    /// The event stream could not be written out again.
    #[error("XML cannot be written")]
    Unwritable(#[source] std::io::Error),
}

impl From<quick_xml::Error> for XmlError {
    fn from(error: quick_xml::Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<quick_xml::events::attributes::AttrError> for XmlError {
    fn from(error: quick_xml::events::attributes::AttrError) -> Self {
        Self::Malformed(error.into())
    }
}

/// One element with all that is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// The URI of its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name without prefix.
    pub name: String,
    /// The character data directly in it, trimmed.
    pub text: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
}

impl Element {
    /// Reads a document; the answer is its root element.
    pub fn parse(xml: &str) -> Result<Self, XmlError> {
        let mut reader = NsReader::from_str(xml);
        // The open elements, outermost first; below them all a stand-in that receives the root.
        let mut open = vec![Self::default()];
        loop {
            let (namespace, event) = reader.read_resolved_event()?;
            match event {
                Event::Start(start) => {
                    let element = Self::open(&namespace, &start)?;
                    if open.len() > DEPTH_MAX {
                        return Err(XmlError::TooDeep);
                    }
                    open.push(element);
                }
                Event::Empty(start) => {
                    let element = Self::open(&namespace, &start)?;
                    close(&mut open, element);
                }
                Event::End(_) => {
                    if let Some(element) = open.pop() {
                        close(&mut open, element);
                    }
                }
                Event::Text(text) => push_text(&mut open, &text.xml10_content()),
                Event::CData(text) => push_text(&mut open, &text.xml10_content()),
                Event::GeneralRef(reference) => push_text(&mut open, &resolve(&reference)?),
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        let root = open.pop().and_then(|mut stand_in| stand_in.children.pop());
        root.filter(|_| open.is_empty()).ok_or(XmlError::Missing("root element"))
    }

    fn open(namespace: &ResolveResult<'_>, start: &BytesStart<'_>) -> Result<Self, XmlError> {
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
            attributes.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
        }
        Ok(Self {
            namespace: match namespace {
                ResolveResult::Bound(Namespace(uri)) => Some((*uri).to_owned()),
                ResolveResult::Unbound | ResolveResult::Unknown(_) => None,
            },
            name: start.local_name().as_ref().to_owned(),
            text: String::new(),
            attributes,
            children: Vec::new(),
        })
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at the end of a path of names, each time the first.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// All children.
    pub fn children(&self) -> &[Self] {
        &self.children
    }

    /// All children of this name.
    pub fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of the element at the end of a path; none also if it is empty.
    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }

    /// An attribute of the element at the end of a path.
    pub fn attribute_at(&self, path: &[&str], name: &str) -> Option<&str> {
        self.at(path).and_then(|element| element.attribute(name))
    }
}

fn close(open: &mut [Element], mut element: Element) {
    let trimmed = element.text.trim();
    if trimmed.len() < element.text.len() {
        element.text = String::from(trimmed);
    }
    if let Some(parent) = open.last_mut() {
        parent.children.push(element);
    }
}

fn push_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// The five entities that XML has by itself, and characters by number. libvirt writes no others.
fn resolve(reference: &BytesRef<'_>) -> Result<String, XmlError> {
    if let Some(character) = reference.resolve_char_ref()? {
        return Ok(character.to_string());
    }
    let name: &str = reference;
    let text = quick_xml::escape::resolve_predefined_entity(name);
    text.map(str::to_owned).ok_or_else(|| {
        let unknown = quick_xml::escape::EscapeError::UnrecognizedEntity(0..name.len(), name.to_owned());
        XmlError::Malformed(unknown.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_attributes_text_and_namespaces_are_found() {
        let root = Element::parse(
            "<?xml version='1.0'?><!-- c --><a k='1 &amp; 2'><b>x &lt; <![CDATA[y & z]]>&#33;</b><b/>\n<n:c xmlns:n='urn:n' n:k='v'/></a>",
        )
        .unwrap();
        assert_eq!(root.attribute("k"), Some("1 & 2"));
        assert_eq!(root.text_at(&["b"]), Some("x < y & z!"));
        assert_eq!(root.children_named("b").count(), 2);
        let c = root.child("c").unwrap();
        assert_eq!((c.namespace.as_deref(), c.attribute("k")), (Some("urn:n"), Some("v")));
        assert_eq!(root.at(&["c", "d"]), None);
    }

    #[test]
    fn a_long_backing_chain_is_read() {
        let chain = "<backingStore type='file'><source file='/b'/>".repeat(200) + &"</backingStore>".repeat(200);
        let domain = format!("<domain><devices><disk><source file='/a'/>{chain}</disk></devices></domain>");
        let root = Element::parse(&domain).unwrap();
        assert!(root.at(&["devices", "disk", "backingStore", "backingStore", "source"]).is_some());
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        let deep = "<a>".repeat(300) + &"</a>".repeat(300);
        for bad in ["", "text", "<a>", "<a></b>", "<a>&unknown;</a>", "<a k='&nope;'/>", deep.as_str()] {
            assert!(Element::parse(bad).is_err(), "{bad:.20}");
        }
    }
}
