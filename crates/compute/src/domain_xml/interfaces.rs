//! A domain's network interfaces, as far as they matter here.

use super::{Element, XmlError};
use crate::announce::frame::MacAddress;

/// The addresses of all interfaces, in the document's order.
pub fn mac_addresses(xml: &str) -> Result<Vec<MacAddress>, XmlError> {
    let root = Element::parse(xml)?;
    let interfaces = root.child("devices").into_iter().flat_map(|devices| devices.children_named("interface"));
    Ok(interfaces.filter_map(|interface| MacAddress::parse(interface.attribute_at(&["mac"], "address")?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_with_an_address_counts() {
        let xml = "<domain><devices><interface type='bridge'><mac address='52:54:00:00:00:01'/></interface>\
            <disk/><interface type='user'/><interface type='network'><mac address='52:54:00:00:00:02'/></interface></devices></domain>";
        let expected = [1, 2].map(|last| MacAddress([0x52, 0x54, 0, 0, 0, last]));
        assert_eq!(mac_addresses(xml).unwrap(), expected);
        assert_eq!(mac_addresses("<domain/>").unwrap(), []);
    }
}
