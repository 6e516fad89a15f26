//! What a guest is connected to on its host, and what that is here: bridges, vhost-user sockets, serial consoles.

use std::net::TcpListener;
use std::path::Path;

use drover_common::fault::Fault;
use drover_common::ids::MigrationId;
use drover_common::rpc::latest::{ConsoleAddress, GuestDescription, HostNetwork, MovedConsole, Renamed};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType};

use crate::config::Options;
use crate::domain_xml::DomainXml;

/// What the guest's bridges are called here, where it differs. Refused if one of them is not here.
pub fn networks(options: &Options, guest: &GuestDescription, xml: &DomainXml) -> Result<Vec<Renamed>, Fault> {
    let by_name = || xml.host_networks.iter().map(|name| HostNetwork { name: name.clone(), physical_network: None }).collect();
    // An agent before 1.3 does not tell them, nor what they lead to.
    let asked = if guest.networks.is_empty() { by_name() } else { guest.networks.clone() };
    let renamed = renamed(options, &asked);
    if let Some((network, own)) = asked.iter().zip(&renamed).find(|(_, own)| !has_interface(own)) {
        return Err(Fault::precheck(missing(options, network, own)));
    }
    if let Some(socket) = xml.vhost_user_sockets.iter().find(|socket| !Path::new(socket).exists()) {
        return Err(Fault::precheck(format_args!(
            "{} has no vhost-user socket {socket} for the guest's network interface",
            options.host
        )));
    }
    let both = asked.into_iter().zip(renamed).map(|(network, to)| Renamed { from: network.name, to });
    Ok(both.filter(|renamed| renamed.from != renamed.to).collect())
}

/// Whether this host has a network interface of this name; the kernel is asked, since sysfs may show another network namespace.
fn has_interface(name: &str) -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
    socket.and_then(|socket| name_to_index(socket, name)).is_ok()
}

/// This host's name for each: its own bridge of the same physical network, else the same name.
fn renamed(options: &Options, networks: &[HostNetwork]) -> Vec<String> {
    let own = |network: &HostNetwork| network.physical_network.as_ref().and_then(|physical| options.bridge_mappings.get(physical));
    networks.iter().map(|network| own(network).unwrap_or(&network.name).clone()).collect()
}

fn missing(options: &Options, network: &HostNetwork, own: &str) -> String {
    let host = &options.host;
    match &network.physical_network {
        Some(physical) => format!(
            "{host} has no bridge or device {own} for physical network {physical}: name its own in [libvirt] bridge_mappings there, for \
             instance \"{physical}:br-ex\""
        ),
        None => format!(
            "{host} has no bridge or device {own}, which a network interface of the guest is on: create it, or say what it leads to in \
             [libvirt] bridge_mappings of both hosts"
        ),
    }
}

/// Where the guest's serial consoles will listen, where it differs: on the address that was configured, and on another port if the
/// guest's own is taken.
pub fn consoles(options: &Options, migration: MigrationId, xml: &DomainXml) -> Result<Vec<MovedConsole>, Fault> {
    let mut moved: Vec<MovedConsole> = Vec::new();
    for from in &xml.consoles {
        let host = options.serial_server_listen.clone().unwrap_or_else(|| from.host.clone());
        let taken: Vec<u16> = moved.iter().filter_map(|other| other.to.service.parse().ok()).collect();
        // A service by its name is left to QEMU.
        let service = match from.service.parse() {
            Ok(port) => free_port(options, migration, &host, port, &taken)?.to_string(),
            Err(_) => from.service.clone(),
        };
        moved.push(MovedConsole { from: from.clone(), to: ConsoleAddress { host, service } });
    }
    moved.retain(|console| console.from != console.to);
    Ok(moved)
}

/// The port that the guest has, else one of the range; each migration begins to look elsewhere, so that several at once seldom want
/// the same.
fn free_port(options: &Options, migration: MigrationId, host: &str, own: u16, taken: &[u16]) -> Result<u16, Fault> {
    let is_free = |port: &u16| !taken.contains(port) && TcpListener::bind((host, *port)).is_ok();
    let range = &options.serial_ports;
    let count = usize::from(range.end() - range.start()) + 1;
    let begin = usize::try_from(migration.0.unsigned_abs()).unwrap_or(0) % count;
    let others = range.clone().skip(begin).chain(range.clone().take(begin));
    std::iter::once(own).chain(others).find(is_free).ok_or_else(|| {
        Fault::precheck(format_args!(
            "{} has no free port at {host} for a serial console of the guest, neither {own} nor one from {} to {}: set [libvirt] \
             serial_server_listen to an address of that host, and serial_port_range",
            options.host,
            range.start(),
            range.end()
        ))
    })
}

#[cfg(test)]
mod tests {
    use drover_common::config::from_toml;
    use drover_common::rpc::latest::GuestState;

    use super::*;

    fn options(libvirt: &str) -> Options {
        Options::new(&from_toml(&format!("[DEFAULT]\nhost = \"h2\"\n[libvirt]\n{libvirt}")).unwrap()).unwrap()
    }

    fn guest(networks: &[(&str, Option<&str>)]) -> GuestDescription {
        let network = |(name, physical): &(&str, Option<&str>)| HostNetwork {
            name: (*name).to_owned(),
            physical_network: physical.map(str::to_owned),
        };
        GuestDescription {
            name: "g".to_owned(),
            state: GuestState::Running,
            persistent: true,
            xml: String::new(),
            memory_mb: 1,
            disks: Vec::new(),
            probes: Vec::new(),
            host_cpu: None,
            networks: networks.iter().map(network).collect(),
        }
    }

    fn xml(devices: &str) -> DomainXml {
        DomainXml::parse(&format!("<domain type='kvm'><name>g</name><memory>1</memory><devices>{devices}</devices></domain>"))
            .unwrap()
    }

    #[test]
    fn a_guest_comes_to_this_hosts_bridge_of_the_same_physical_network() {
        // The loopback device is the one that every host has.
        let options = options("bridge_mappings = [\"physnet1:lo\"]");
        let found = networks(&options, &guest(&[("br-ex", Some("physnet1")), ("lo", None)]), &xml("")).unwrap();
        assert_eq!(found, [Renamed { from: "br-ex".to_owned(), to: "lo".to_owned() }]);
        assert_eq!(
            networks(&options, &guest(&[]), &xml("<interface type='bridge'><source bridge='lo'/></interface>")).unwrap(),
            []
        );
    }

    #[test]
    fn a_bridge_or_socket_that_is_not_here_is_named_with_what_to_do() {
        let mapped = options("bridge_mappings = [\"physnet1:nowhere0\"]");
        let refused = |guest: &GuestDescription, devices: &str| networks(&mapped, guest, &xml(devices)).unwrap_err().message;
        let socket = "<interface type='vhostuser'><source type='unix' path='/nowhere/s' mode='client'/></interface>";
        insta::assert_snapshot!(
            [
                refused(&guest(&[("br-ex", Some("physnet1"))]), ""),
                refused(&guest(&[("nowhere1", Some("physnet2"))]), ""),
                refused(&guest(&[("nowhere2", None)]), ""),
                refused(&guest(&[]), "<interface type='direct'><source dev='nowhere3' mode='bridge'/></interface>"),
                refused(&guest(&[]), socket),
            ]
            .join("\n")
        );
    }

    #[test]
    fn a_console_keeps_its_port_if_it_is_free_and_gets_another_one_if_not() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = taken.local_addr().unwrap().port();
        let console = |port: u16| format!("<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/></serial>");
        let options = options("serial_port_range = \"20000:20999\"");
        let found = consoles(&options, MigrationId(7), &xml(&console(own))).unwrap();
        assert_eq!((found.len(), found[0].from.service.parse()), (1, Ok(own)));
        let other: u16 = found[0].to.service.parse().unwrap();
        assert!((20000..=20999).contains(&other) && found[0].to.host == "127.0.0.1");
        drop(taken);
        assert_eq!(consoles(&options, MigrationId(7), &xml(&console(own))).unwrap(), []);
        let elsewhere = "<serial type='tcp'><source mode='bind' host='192.0.2.1' service='10000'/></serial>";
        let refused = consoles(&options, MigrationId(7), &xml(elsewhere)).unwrap_err().message;
        assert!(refused.contains("no free port at 192.0.2.1") && refused.contains("serial_server_listen"), "{refused}");
    }

    #[test]
    fn consoles_listen_on_the_configured_address() {
        let options = options("serial_server_listen = \"127.0.0.1\"");
        let elsewhere = xml("<serial type='tcp'><source mode='bind' host='192.0.2.1' service='telnet'/></serial>");
        let found = consoles(&options, MigrationId(7), &elsewhere).unwrap();
        assert_eq!((found[0].to.host.as_str(), found[0].to.service.as_str()), ("127.0.0.1", "telnet"));
    }
}
