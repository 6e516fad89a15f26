//! The bench's plan: every name, address, port and path, all derived from one number.
//!
//! Two checkouts (or two people) on one machine pick different numbers and never meet. Nothing else in this crate invents a name or
//! a port; a newcomer who wonders where something listens looks here.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use crate::error::{BenchError, Result};

/// Environment variable with the bench's number.
pub const NUMBER_VARIABLE: &str = "DROVER_BENCH";
/// Highest number of a bench.
pub const NUMBER_MAX: u8 = 15;
/// Hosts `h1` to `h99`; addresses from 100 on belong to guests.
pub const HOSTS_MAX: u8 = 99;
/// Guests have the last address bytes 100 to 253; 254 is the root namespace.
pub const GUEST_FIRST: u8 = 100;
/// Last address byte of a guest.
pub const GUEST_LAST: u8 = 253;

const ROOT: &str = "/var/lib/drover-dev";
const ROOT_ADDRESS_BYTE: u8 = 254;

/// Names, addresses, ports and paths of one bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    number: u8,
}

impl Plan {
    /// The plan of bench `number`.
    pub fn new(number: u8) -> Result<Self> {
        if number > NUMBER_MAX {
            return Err(BenchError::Refused(format!("{NUMBER_VARIABLE} is {number}; it must be 0 to {NUMBER_MAX}")));
        }
        Ok(Self { number })
    }

    /// The plan that `DROVER_BENCH` asks for; bench 0 when it is not set.
    pub fn from_env() -> Result<Self> {
        match std::env::var(NUMBER_VARIABLE) {
            Err(_) => Self::new(0),
            Ok(text) => {
                let number = text.trim().parse().map_err(|_| {
                    BenchError::Refused(format!("{NUMBER_VARIABLE} is {text:?}; it must be a number from 0 to {NUMBER_MAX}"))
                })?;
                Self::new(number)
            }
        }
    }

    /// The bench's number.
    pub fn number(self) -> u8 {
        self.number
    }

    /// `drover0`: the prefix of every name; also the root namespace's network interface.
    pub fn name(self) -> String {
        format!("drover{}", self.number)
    }

    /// Network namespace of a host.
    pub fn netns(self, host: &str) -> String {
        format!("drover{}-{host}", self.number)
    }

    /// Network namespace that holds nothing but the bridge joining all hosts.
    pub fn fabric_netns(self) -> String {
        self.netns("net")
    }

    /// The subnet, e.g. `10.213.0.0/24`.
    pub fn subnet(self) -> String {
        format!("10.213.{}.0/24", self.number)
    }

    /// The address with the given last byte.
    pub fn address(self, last_byte: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, last_byte)
    }

    /// The root namespace's address: broker, database and the receiver of the guests' datagrams.
    pub fn root_address(self) -> Ipv4Addr {
        self.address(ROOT_ADDRESS_BYTE)
    }

    /// Name of the host with this index (1 to [`HOSTS_MAX`]).
    pub fn host_name(index: u8) -> String {
        format!("h{index}")
    }

    /// A guest's MAC address, from the last byte of its IP address.
    pub fn guest_mac(self, last_byte: u8) -> String {
        format!("52:54:00:d5:{:02x}:{last_byte:02x}", self.number)
    }

    /// The host's UUID as libvirt reports it: fixed per bench and host, so that it survives restarts.
    pub fn host_uuid(self, index: u8) -> String {
        format!("d70e6000-0000-4000-8000-0000000{:01x}00{index:02x}", self.number)
    }

    /// Where the REST API listens.
    pub fn api(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port(8774))
    }

    /// AMQP port, on loopback and on the root address.
    pub fn amqp_port(self) -> u16 {
        self.port(5772)
    }

    /// PostgreSQL's port, on loopback and on the root address.
    pub fn postgres_port(self) -> u16 {
        self.port(5532)
    }

    /// Port of the broker's own Erlang port mapper.
    pub fn epmd_port(self) -> u16 {
        self.port(4469)
    }

    /// Erlang distribution port of the broker (for `rabbitmqctl`).
    pub fn erlang_port(self) -> u16 {
        self.port(25772)
    }

    /// Where guests send their datagrams.
    pub fn watch(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.root_address(), self.port(4985))
    }

    fn port(self, base: u16) -> u16 {
        base + 100 * u16::from(self.number)
    }

    /// The bench's state: data of PostgreSQL and RabbitMQ, hosts' directories, sockets, logs. Short, because Unix socket paths
    /// must stay under 108 bytes; outside the checkout, because PostgreSQL's data may not belong to root.
    pub fn state_dir(self) -> PathBuf {
        PathBuf::from(ROOT).join(self.name())
    }

    /// The lock that a command holds while it changes the bench. Beside the state, so that `down` can remove the latter.
    pub fn lock_file(self) -> PathBuf {
        PathBuf::from(ROOT).join(format!("{}.lock", self.name()))
    }

    /// Downloads that outlive `down`: the guest's kernel, packages of the older host. Shared by all benches of the machine.
    pub fn cache_dir() -> PathBuf {
        PathBuf::from(ROOT).join("cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn benches_share_no_port_and_no_subnet() {
        let mut seen = HashSet::new();
        for number in 0..=NUMBER_MAX {
            let plan = Plan { number };
            let ports = [
                plan.api().port(),
                plan.amqp_port(),
                plan.postgres_port(),
                plan.epmd_port(),
                plan.erlang_port(),
                plan.watch().port(),
            ];
            for port in ports {
                assert!(seen.insert(port), "port {port} of bench {number} is taken");
            }
        }
        assert_eq!(Plan { number: 3 }.subnet(), "10.213.3.0/24");
    }

    #[test]
    fn bench_zero_has_the_documented_addresses() {
        let plan = Plan { number: 0 };
        assert_eq!(plan.api().to_string(), "127.0.0.1:8774");
        assert_eq!(plan.root_address().to_string(), "10.213.0.254");
        assert_eq!(plan.address(2).to_string(), "10.213.0.2");
        assert_eq!(plan.netns("h1"), "drover0-h1");
    }

    #[test]
    fn names_fit_where_the_kernel_is_short() {
        for number in 0..=NUMBER_MAX {
            assert!(Plan { number }.name().len() < 15, "interface names have at most 15 bytes");
        }
    }

    #[test]
    fn host_uuids_are_uuids_and_differ() {
        let mut seen = HashSet::new();
        for number in 0..=NUMBER_MAX {
            for index in 1..=HOSTS_MAX {
                let text = Plan { number }.host_uuid(index);
                let parsed = uuid::Uuid::parse_str(&text);
                assert!(parsed.is_ok(), "{text} is no UUID");
                assert!(seen.insert(parsed.ok()), "{text} twice");
            }
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        assert!(Plan::new(NUMBER_MAX + 1).is_err());
        assert!(Plan::new(NUMBER_MAX).is_ok());
    }
}
