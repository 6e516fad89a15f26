//! What a guest is connected to, asked of its destination.

use drover_common::ids::HostName;
use drover_common::rpc::latest::{
    CheckDestination, ConsoleAddress, DestinationCheck, GuestDescription, GuestState, HostNetwork, MovedConsole, Renamed, ToCompute,
};

use super::clean_up::fault;
use super::fake::Stage;

/// A host without guests whose bridge of physnet1 is the one device that every host has.
fn destination() -> Stage {
    let options = "bridge_mappings = [\"physnet1:lo\"]\nserial_server_listen = \"127.0.0.1\"";
    Stage::with_options(options, |_, driver, _| driver.state().domain = None)
}

/// The question about a guest on this bridge of its host, which leads to this network, with a console that listens there.
fn question(stage: &Stage, bridge: &str, physical_network: Option<&str>) -> ToCompute {
    let xml = format!(
        "<domain type='kvm'><name>g2</name><memory>1</memory><devices><interface type='bridge'><source bridge='{bridge}'/></interface>\
         <serial type='tcp'><source mode='bind' host='192.0.2.1' service='console'/></serial></devices></domain>"
    );
    let network = HostNetwork { name: bridge.to_owned(), physical_network: physical_network.map(str::to_owned) };
    let guest = GuestDescription {
        name: "g2".to_owned(),
        state: GuestState::Running,
        persistent: true,
        xml,
        memory_mb: 1,
        disks: Vec::new(),
        probes: Vec::new(),
        host_cpu: None,
        networks: vec![network],
    };
    let source_host = HostName::new("h2").unwrap();
    ToCompute::CheckCanLiveMigrateDestination(CheckDestination {
        migration: stage.of.migration,
        server: stage.of.server,
        guest,
        source_host,
    })
}

#[tokio::test]
async fn a_destination_says_what_it_calls_the_guests_network_and_where_its_console_will_listen() {
    let stage = destination();
    let found: DestinationCheck = stage.call(question(&stage, "br-ex", Some("physnet1"))).await.unwrap();
    assert_eq!(found.networks, [Renamed { from: "br-ex".to_owned(), to: "lo".to_owned() }]);
    let at = |host: &str| ConsoleAddress { host: host.to_owned(), service: "console".to_owned() };
    assert_eq!(found.consoles, [MovedConsole { from: at("192.0.2.1"), to: at("127.0.0.1") }]);
}

#[tokio::test]
async fn a_guest_whose_network_the_destination_does_not_have_is_refused_with_what_to_set() {
    let stage = destination();
    let unmapped = fault(&stage, question(&stage, "nowhere0", Some("physnet2"))).await;
    let expected =
        "h1 has no bridge or device nowhere0 for physical network physnet2: name its own in [libvirt] bridge_mappings there";
    assert!(unmapped.message.contains(expected), "{unmapped}");
    let unknown = fault(&stage, question(&stage, "nowhere0", None)).await;
    assert!(
        unknown.message.contains("h1 has no bridge or device nowhere0, which a network interface of the guest is on"),
        "{unknown}"
    );
}
