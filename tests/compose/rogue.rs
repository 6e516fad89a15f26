//! Certificates that nobody in the cluster should believe.

use std::process::Command;

use crate::cluster::{Cluster, succeed};

/// Puts a CA of our own and a certificate of it with this common name into a directory of a container: as `current` has them
/// (`ca.pem`, `cert.pem`, `key.pem`), and as libvirt looks for them (`cacert.pem`, `clientcert.pem`, `clientkey.pem`).
pub(crate) fn install(cluster: &Cluster, container: &str, directory: &str, common_name: &str) {
    let at = |name: &str| cluster.scratch(&format!("rogue-{name}.pem")).display().to_string();
    let (ca, ca_key, certificate, key) = (at("ca"), at("ca-key"), at("cert"), at("key"));
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
    openssl(&[&new[..], &["-subj", "/O=Drover dev cluster/CN=CA", "-keyout", &ca_key, "-out", &ca]].concat());
    let subject = format!("/O=Drover dev cluster/CN={common_name}");
    let usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth"];
    let signed = ["-subj", &subject, "-CA", &ca, "-CAkey", &ca_key, "-keyout", &key, "-out", &certificate];
    openssl(&[&new[..], &usage[..], &signed[..]].concat());
    for (file, names) in [(&ca, ["ca", "cacert"]), (&certificate, ["cert", "clientcert"]), (&key, ["key", "clientkey"])] {
        let text = std::fs::read_to_string(file).expect("openssl wrote it");
        put(cluster, container, directory, &names, &text);
    }
}

/// Puts another container's own certificate into a directory of `container`, as libvirt looks for it.
pub(crate) fn lend(cluster: &Cluster, from: &str, container: &str, directory: &str) {
    for (file, name) in [("ca", "cacert"), ("cert", "clientcert"), ("key", "clientkey")] {
        let text = cluster.exec(from, ["cat", &format!("/credentials/current/{file}.pem")]);
        put(cluster, container, directory, &[name], &text);
    }
}

fn put(cluster: &Cluster, container: &str, directory: &str, names: &[&str], text: &str) {
    for name in names {
        let script = format!("mkdir -p {directory} && printf '%s' \"$0\" >{directory}/{name}.pem");
        cluster.exec(container, ["sh", "-c", &script, text]);
    }
}

fn openssl(arguments: &[&str]) {
    succeed(Command::new("openssl").args(arguments));
}
