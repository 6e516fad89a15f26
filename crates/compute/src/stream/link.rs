//! How fast the link to another host is, by the kernel's word for the interface that leads there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Any port: nothing is sent.
const DISCARD: u16 = 9;

/// The way to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// This host's interface.
    pub interface: String,
    /// What it carries.
    pub mib_s: u64,
}

impl Link {
    /// A link of so many megabits (powers of ten, as networks count) per second.
    pub fn new(interface: &str, mbit_s: u64) -> Self {
        Self { interface: interface.to_owned(), mib_s: mbit_s * 1_000_000 / 8 / (1 << 20) }
    }
}

/// The link to `address`; none if the kernel does not know its speed. Blocks while a name is resolved.
pub fn to(address: &str) -> Option<Link> {
    let source = source_address((address, DISCARD).to_socket_addrs().ok()?.next()?)?;
    let has_it = |address: &SockaddrStorage| ip(address) == Some(source);
    let interface = getifaddrs().ok()?.find(|known| known.address.as_ref().is_some_and(has_it))?.interface_name;
    let speed = fs::read_to_string(Path::new("/sys/class/net").join(&interface).join("speed")).ok()?;
    Some(Link::new(&interface, speed.trim().parse().ok().filter(|speed| *speed > 0)?))
}

/// The address of ours that would be the source of a packet to `there`.
fn source_address(there: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if there.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ours_is_the_source_and_no_speed_is_none() {
        assert_eq!(source_address(SocketAddr::from(([127, 0, 0, 1], DISCARD))), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(to("127.0.0.1"), None, "loopback has no speed");
        assert_eq!(to("no.such.host.invalid"), None);
    }
}
