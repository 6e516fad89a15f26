//! The announcement: a RARP request that asks for nothing, from the guest to everybody, as QEMU's (`net/announce.c`).
//!
//! It carries no IP address, which nobody here knows; what counts is the sender's address in the Ethernet header.

/// Bytes of an announcement: Ethernet's least, without the checksum.
pub const FRAME_BYTES: usize = 60;

const ETHERTYPE_RARP: [u8; 2] = [0x80, 0x35];
/// Ethernet, IPv4, the lengths of their addresses, "request reverse".
const RARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 3];

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Reads `52:54:00:d4:00:01`, as libvirt and sysfs write it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut bytes {
            *byte = parts.next().filter(|part| part.len() == 2).and_then(|part| u8::from_str_radix(part, 16).ok())?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// The address that libvirt gives to the tap of a guest's interface (`virNetDevTapCreateInBridgePort`): the guest's own with
    /// another first byte.
    #[must_use]
    pub const fn of_tap(self) -> Self {
        let mut bytes = self.0;
        bytes[0] = if bytes[0] == 0xfe { 0xfa } else { 0xfe };
        Self(bytes)
    }
}

/// The announcement of one address.
pub fn rarp(MacAddress(address): MacAddress) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    let parts: [&[u8]; 8] = [&[0xff; 6], &address, &ETHERTYPE_RARP, &RARP_REQUEST, &address, &[0; 4], &address, &[0; 4]];
    let mut rest = frame.as_mut_slice();
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_qemus() {
        let frame = rarp(MacAddress([0x52, 0x54, 0, 1, 2, 3]));
        let (header, rest) = frame.split_at(14);
        assert_eq!(header, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x80, 0x35]);
        let (request, padding) = rest.split_at(28);
        let expected = [0, 1, 8, 0, 6, 4, 0, 3, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0];
        assert_eq!(request, expected);
        assert!(padding.len() == 18 && padding.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn addresses_are_read_and_nothing_else() {
        assert_eq!(MacAddress::parse("52:54:00:D4:00:01\n"), Some(MacAddress([0x52, 0x54, 0, 0xd4, 0, 1])));
        for bad in ["", "52:54:00:d4:00", "52:54:00:d4:00:01:02", "52:54:00:d4:0:01", "52-54-00-d4-00-01", "+5:54:00:d4:00:01x"] {
            assert_eq!(MacAddress::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tap_has_the_guests_address_with_another_first_byte() {
        assert_eq!(MacAddress([0x52, 1, 2, 3, 4, 5]).of_tap(), MacAddress([0xfe, 1, 2, 3, 4, 5]));
        assert_eq!(MacAddress([0xfe, 1, 2, 3, 4, 5]).of_tap(), MacAddress([0xfa, 1, 2, 3, 4, 5]));
    }
}
