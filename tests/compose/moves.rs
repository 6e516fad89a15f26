//! Guests move through HTTPS, and nobody can read them on their way.

use crate::capture::{Capture, occurrences};
use crate::cluster::{Cluster, HOSTS, IN_MEMORY, ON_DISK, SOON};
use drover_testkit::wait_for;

/// What crosses the network of the guest's host while it moves away.
fn moved(cluster: &Cluster, guest: &str) -> Vec<u8> {
    let source = cluster.host_of(guest);
    let capture = Capture::on(cluster, &source);
    let (_, boots) = HOSTS.iter().fold((0, 0), |(_, all), host| (0, all + cluster.console(guest, host).1));
    let destination = cluster.start_migration(guest);
    cluster.wait_until_moved(guest, destination);
    let bytes = capture.bytes();

    let (left_at, _) = cluster.console(guest, &source);
    wait_for("the workload goes on", SOON, || cluster.console(guest, destination).0 > left_at).unwrap_or_else(|e| panic!("{e}"));
    let boots_now: usize = HOSTS.iter().map(|host| cluster.console(guest, host).1).sum();
    assert_eq!(boots_now, boots, "{guest} was started anew");
    bytes
}

#[test]
fn a_guests_memory_and_disk_cannot_be_read_on_their_way() {
    let cluster = Cluster::new();
    for guest in ["alpha", "beta"] {
        let bytes = moved(&cluster, guest);
        assert!(bytes.len() > 16 << 20, "{} bytes are no guest", bytes.len());
        assert_eq!((occurrences(&bytes, IN_MEMORY), occurrences(&bytes, ON_DISK)), (0, 0), "{guest}");
    }
}

#[test]
fn the_same_capture_shows_a_guest_that_was_forced_to_move_in_the_clear() {
    let cluster = Cluster::new();
    cluster.recreate_hosts(&[("MIGRATION_TLS", "off")]);
    let memory = moved(&cluster, "alpha");
    let both = moved(&cluster, "beta");
    cluster.recreate_hosts(&[]);
    assert!(occurrences(&memory, IN_MEMORY) > 0);
    assert!(occurrences(&both, IN_MEMORY) > 0 && occurrences(&both, ON_DISK) > 1000);
}

#[test]
fn operators_ask_with_drovers_own_command() {
    let cluster = Cluster::new();
    assert!(cluster.exec("operator", ["migrate", "alpha"]).contains("moved from"));
    assert!(cluster.exec("operator", ["drover", "migration", "list"]).contains("completed"));
}

#[test]
fn the_cluster_survives_a_restart() {
    let cluster = Cluster::new();
    cluster.compose(&[], ["restart", "-t", "5"]);
    drop(cluster);
    let cluster = Cluster::new();
    let destination = cluster.start_migration("alpha");
    cluster.wait_until_moved("alpha", destination);
}

#[test]
fn no_container_is_privileged_and_only_hosts_have_dockers_own_capabilities() {
    let cluster = Cluster::new();
    for container in ["api", "conductor", "database", "broker", "operator", "prometheus"] {
        let rights = cluster.inspect(container, "{{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}");
        assert_eq!(rights, "false [ALL] [no-new-privileges:true]", "{container}");
        assert_ne!(cluster.exec(container, ["id", "-u"]).trim(), "0", "{container} runs as root");
    }
    for host in HOSTS {
        assert_eq!(cluster.inspect(host, "{{.HostConfig.Privileged}} {{len .HostConfig.CapAdd}}"), "false 0", "{host}");
    }
}
