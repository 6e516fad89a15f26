//! The source's part of the checks.

use std::time::Duration;

use drover_common::ids::HostName;
use drover_common::rpc::latest::{AboutGuest, CheckSource, DestinationCheck, GuestDescription, ToCompute};

use super::clean_up::fault;
use super::fake::Stage;

/// What a candidate found on which nothing listens: the check that gets so far says that it is not reached.
fn found() -> DestinationCheck {
    DestinationCheck {
        connect_address: "127.0.0.1".to_owned(),
        inbound_address_set: false,
        migration_port_probe: None,
        directories: Vec::new(),
        block_devices: Vec::new(),
        graphics_listen_addr_vnc: None,
        graphics_listen_addr_spice: None,
        links: Vec::new(),
        no_post_copy: None,
        stream: None,
        images: None,
        networks: Vec::new(),
        consoles: Vec::new(),
    }
}

/// A described guest, and the source's check that follows.
async fn described() -> (Stage, ToCompute) {
    let stage = Stage::with_options("live_migration_uri = \"qemu+tcp://%s:1/system\"", |_, _, _| {});
    let about = AboutGuest { migration: stage.of.migration, server: stage.of.server };
    let guest: GuestDescription = stage.call(ToCompute::DescribeGuest(about)).await.unwrap();
    let check = ToCompute::CheckCanLiveMigrateSource(CheckSource {
        migration: stage.of.migration,
        server: stage.of.server,
        guest,
        destination_host: HostName::new("h2").unwrap(),
        found: found(),
        block_migration: None,
        disk_over_commit: Some(false),
    });
    // Whoever asks for the XML from now on hears so.
    stage.driver.state().xml_failures = 1;
    (stage, check)
}

const ASKED: &str = "cannot acquire state change lock";

#[tokio::test]
async fn what_was_described_a_moment_ago_is_not_asked_again_for_the_first_candidate_only() {
    let (stage, check) = described().await;
    let first = fault(&stage, check.clone()).await;
    assert!(first.message.contains("h1 does not reach h2"), "{first}");
    let second = fault(&stage, check).await;
    assert!(second.message.contains(ASKED), "{second}");
}

#[tokio::test(start_paused = true)]
async fn what_was_described_longer_ago_is_asked_again() {
    let (stage, check) = described().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = fault(&stage, check).await;
    assert!(answer.message.contains(ASKED), "{answer}");
}
