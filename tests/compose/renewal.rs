//! Certificates are renewed while everything runs.

use std::process::Command;

use drover_testkit::wait_for;

use crate::cluster::{Cluster, SOON, succeed};

/// Slow enough that a renewal fits into one copy.
const MIB_S: &str = "2";
const SERVICES: [&str; 5] = ["api", "conductor", "database", "broker", "h1"];

#[test]
fn renewed_certificates_are_used_at_once_and_no_migration_is_lost() {
    let cluster = Cluster::new();
    cluster.recreate_hosts(&[("LIVE_MIGRATION_BANDWIDTH", MIB_S)]);
    let serial = || {
        let connect = "openssl s_client -connect api:8774 </dev/null 2>/dev/null | openssl x509 -noout -serial";
        cluster.exec("operator", ["sh", "-c", connect])
    };
    let lives = || SERVICES.map(|service| cluster.inspect(service, "{{.State.StartedAt}}"));
    let (before, started) = (serial(), lives());

    let destination = cluster.start_migration("alpha");
    wait_for("the copy", SOON, || cluster.migration("alpha")["status"] == "running").unwrap_or_else(|e| panic!("{e}"));
    let renew = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose/renew-certificates");
    succeed(&mut Command::new(renew));
    assert_eq!(cluster.migration("alpha")["status"], "running", "the renewal came too late to show anything");
    assert_ne!(serial(), before);
    cluster.wait_until_moved("alpha", destination);

    cluster.recreate_hosts(&[]);
    let destination = cluster.start_migration("beta");
    cluster.wait_until_moved("beta", destination);
    assert_eq!(lives()[..4], started[..4], "a service was restarted");
}
