//! Nobody gets in without the right certificate, under a wrong name, in the clear, or where it has no business.

use std::process::Command;

use crate::cluster::{Cluster, output, said};
use crate::rogue;

const AGENT: [&str; 5] = ["timeout", "5", "drover-compute", "--config-file", "/etc/drover/compute.toml"];
/// Where it tells its metrics: the host's own agent has the port.
const METRICS: (&str, &str) = ("DROVER_METRICS__LISTEN", "127.0.0.1:0");
const MIGRATE: [&str; 5] = ["drover", "db", "migrate", "--config-file", "/etc/drover/conductor.toml"];

/// What an agent in `h1` says that is called `host` and reaches for the broker at this URL, with these files.
fn agent(cluster: &Cluster, host: &str, url: &str, files: &str) -> String {
    let file = |name: &str| format!("{files}/{name}.pem");
    let options = [
        ("DROVER_DEFAULT__HOST", host.to_owned()),
        ("DROVER_DEFAULT__TRANSPORT_URL", url.to_owned()),
        ("DROVER_OSLO_MESSAGING_RABBIT__SSL_CA_FILE", file("ca")),
        ("DROVER_OSLO_MESSAGING_RABBIT__SSL_CERT_FILE", file("cert")),
        ("DROVER_OSLO_MESSAGING_RABBIT__SSL_KEY_FILE", file("key")),
        ("SSL_CERT_FILE", file("ca")),
    ];
    let options: Vec<(&str, &str)> = options.iter().map(|(name, value)| (*name, value.as_str())).chain([METRICS]).collect();
    let said = cluster.refused("h1", &options, AGENT);
    assert!(!said.contains("connected to the broker"), "{said}");
    said
}

#[test]
fn the_api_shows_a_certificate_for_its_names_only_and_wants_a_password() {
    let cluster = Cluster::new();
    let curl = |arguments: &[&str]| output(Command::new("curl").args(["--silent", "--show-error"]).args(arguments));
    let url = format!("{}/v2.1/servers", Cluster::url());
    let ca = cluster.scratch("ca.pem").display().to_string();

    let said_to = |arguments: &[&str]| said(&curl(arguments));
    assert!(said_to(&[&url]).contains("certificate"), "without the cluster's CA");
    let elsewhere = url.replace("127.0.0.1", "elsewhere");
    let port = elsewhere.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
    let resolve = format!("elsewhere:{port}:127.0.0.1");
    let refused = said_to(&["--cacert", &ca, "--resolve", &resolve, &elsewhere]);
    assert!(refused.contains("no alternative certificate subject name matches"), "{refused}");
    let refused = said_to(&[&url.replace("https", "http")]);
    assert!(!refused.contains("servers"), "plain HTTP: {refused}");
    assert!(said_to(&["--cacert", &ca, &url]).contains("Unauthorized"));
    assert!(said_to(&["--cacert", &ca, "--user", "admin:admin", &url]).contains("Unauthorized"));
}

#[test]
fn an_agent_cannot_use_another_hosts_queue() {
    let cluster = Cluster::new();
    let url = "amqps://compute-h2@broker:5671/drover?auth_mechanism=external";
    let said = agent(&cluster, "h2", url, "/credentials/current");
    assert!(said.contains("ACCESS_REFUSED") && said.contains("compute.h2"), "{said}");
}

#[test]
fn the_broker_and_its_clients_want_each_others_certificate() {
    let cluster = Cluster::new();
    let url = |host: &str| format!("amqps://compute-h9@{host}:5671/drover?auth_mechanism=external");
    rogue::install(&cluster, "h1", "/tmp/rogue", "compute-h9");
    let said = agent(&cluster, "h9", &url("broker"), "/tmp/rogue");
    assert!(said.contains("invalid peer certificate"), "a broker of another CA: {said}");

    cluster.exec("h1", ["cp", "/credentials/current/ca.pem", "/tmp/rogue/ca.pem"]);
    let said = agent(&cluster, "h9", &url("broker"), "/tmp/rogue");
    assert!(said.contains("received fatal alert"), "a certificate of another CA: {said}");

    let said = agent(&cluster, "h9", &url(&cluster.address("broker", "messages")), "/credentials/current");
    assert!(said.contains("not valid for name"), "a broker under another name: {said}");
    let url = "amqp://compute-h9@broker:5672/drover";
    let plain = [("DROVER_DEFAULT__HOST", "h9"), ("DROVER_DEFAULT__TRANSPORT_URL", url), METRICS];
    let said = cluster.refused("h1", &plain, AGENT);
    assert!(said.contains("amqps://"), "in the clear: {said}");
    cluster.refused("h1", &[], ["bash", "-c", "exec 3<>/dev/tcp/broker/5672"]);
}

#[test]
fn the_database_and_its_clients_want_each_others_certificate() {
    let cluster = Cluster::new();
    rogue::install(&cluster, "conductor", "/tmp/rogue", "conductor");
    let migrate = |host: &str, mode: &str, ca: &str, own: &str| {
        let files = format!("sslrootcert={ca}/ca.pem&sslcert={own}/cert.pem&sslkey={own}/key.pem");
        let url = format!("postgres://drover@{host}/drover?sslmode={mode}&{files}");
        cluster.refused("conductor", &[("DROVER_DATABASE__CONNECTION", url.as_str())], MIGRATE)
    };
    let ours = "/credentials/current";
    let said = migrate("database", "disable", ours, ours);
    assert!(said.contains("no encryption"), "in the clear: {said}");
    let said = migrate("database", "verify-full", ours, "/tmp/rogue");
    assert!(said.contains("alert") || said.contains("certificate"), "a certificate of another CA: {said}");
    let said = migrate(&cluster.address("database", "database"), "verify-full", ours, ours);
    assert!(said.contains("not valid for name"), "a database under another name: {said}");
}

#[test]
fn only_hosts_reach_another_hosts_libvirt_and_only_under_its_name() {
    let cluster = Cluster::new();
    let virsh = |uri: &str| cluster.refused("h1", &[], ["virsh", "--connect", uri, "list"]);
    assert!(cluster.exec("h1", ["virsh", "--connect", "qemu+tls://h2.migration/system", "list"]).contains("Name"));

    let address = cluster.address("h2", "migration");
    let said = virsh(&format!("qemu+tls://{address}/system"));
    assert!(said.contains("owner does not match"), "another name: {said}");
    let said = virsh("qemu+tcp://h2.migration/system");
    assert!(said.contains("Connection refused"), "in the clear: {said}");
    let said = virsh(&format!("qemu+tls://{}/system", cluster.address("h2", "messages")));
    assert!(said.contains("Connection refused"), "on another network: {said}");
    rogue::install(&cluster, "h1", "/tmp/rogue", "compute-h1");
    let said = virsh("qemu+tls://h2.migration/system?pkipath=/tmp/rogue");
    assert!(said.contains("certificate"), "another CA: {said}");
    rogue::lend(&cluster, "api", "h1", "/tmp/lent");
    let said = virsh("qemu+tls://h2.migration/system?pkipath=/tmp/lent");
    assert!(said.contains("TLS"), "the API's certificate: {said}");
}

#[test]
fn no_host_reaches_the_database_or_the_api() {
    let cluster = Cluster::new();
    for (container, network, port) in [("database", "database", 5432), ("api", "public", 8774)] {
        let address = cluster.address(container, network);
        let connect = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
        cluster.refused("h1", &[], ["sh", "-c", &connect]);
    }
}
