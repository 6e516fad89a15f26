//! What libvirt's own configuration of QEMU says of TLS for migrations, so that nobody has to say it twice.

use std::path::{Path, PathBuf};

/// libvirt's configuration of QEMU.
pub const PATH: &str = "/etc/libvirt/qemu.conf";

/// The directory for migrations, as libvirt finds it (`virQEMUDriverConfigSetDefaults`).
pub fn certificate_directory(conf: &str, exists: impl Fn(&Path) -> bool) -> PathBuf {
    let own = "/etc/pki/libvirt-migrate";
    let configured = setting(conf, "migrate_tls_x509_cert_dir").or_else(|| exists(Path::new(own)).then_some(own));
    PathBuf::from(configured.or_else(|| setting(conf, "default_tls_x509_cert_dir")).unwrap_or("/etc/pki/qemu"))
}

/// Whether libvirt refuses migrations without TLS.
pub fn forces_tls(conf: &str) -> bool {
    setting(conf, "migrate_tls_force").is_some_and(|value| value != "0")
}

/// `name = value`; the last one counts.
fn setting<'a>(conf: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (key.trim() == name && !value.is_empty()).then_some(value)
    };
    conf.lines().rev().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libvirt_takes_is_taken() {
        let of = |conf: &str, own_exists: bool| certificate_directory(conf, |_| own_exists).display().to_string();
        let both = "default_tls_x509_cert_dir = \"/d\"\n  migrate_tls_x509_cert_dir='/m'\n";
        assert_eq!(of(both, true), "/m");
        assert_eq!(of("default_tls_x509_cert_dir = \"/d\"", true), "/etc/pki/libvirt-migrate");
        assert_eq!(of("default_tls_x509_cert_dir = \"/d\"", false), "/d");
        assert!(
            forces_tls("migrate_tls_force = 1") && !forces_tls("migrate_tls_force = 0") && !forces_tls("#migrate_tls_force = 1")
        );
        assert_eq!(of("#migrate_tls_x509_cert_dir = \"/m\"", false), "/etc/pki/qemu");
    }
}
