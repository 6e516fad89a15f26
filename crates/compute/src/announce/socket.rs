//! A socket for whole Ethernet frames (packet(7)). It is bound to no protocol, so nothing is ever received on it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

/// The way out, with the addresses of the host's interfaces as they were when it was opened.
#[derive(Debug)]
pub struct AnnounceSocket {
    socket: OwnedFd,
    links: HashMap<String, LinkAddr>,
}

impl AnnounceSocket {
    /// Opens it; takes `CAP_NET_RAW`.
    pub fn open() -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let link = |address: nix::ifaddrs::InterfaceAddress| Some((address.interface_name, *address.address?.as_link_addr()?));
        Ok(Self { socket, links: getifaddrs()?.filter_map(link).collect() })
    }

    /// Sends a frame from an interface. What has no room in its queue is dropped, as on any wire.
    pub fn send(&self, interface: &str, frame: &[u8]) -> Result<(), Errno> {
        let link = self.links.get(interface).ok_or(Errno::ENODEV)?;
        sendto(self.socket.as_raw_fd(), frame, link, MsgFlags::empty()).map(drop)
    }
}
