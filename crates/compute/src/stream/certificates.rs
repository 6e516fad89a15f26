//! The certificates that QEMU has for migrations (`tls-creds-x509`): whether they are there, readable for it, in force, and of whom.
//!
//! QEMU reads them when a migration begins, and fails then. Here the same is asked before, on both hosts: each says what it has and
//! whom it takes ([`TlsEnd`]), and the source compares. Private keys are not read, only whether QEMU may.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use drover_common::rpc::latest::TlsEnd;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;

/// Certificates between one of ours and its CA.
const CHAIN_MAX: usize = 8;

/// QEMU's end on this host (server: what arrives).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// What is in `directory`. `user` is QEMU's, `name` what others call this host's end, if they are led to it by name or address.
pub fn look(directory: &Path, user: Option<(u32, u32)>, name: Option<&str>) -> TlsEnd {
    let authorities = match read(&directory.join("ca-cert.pem"), user) {
        Ok(authorities) => authorities,
        Err(why) => return TlsEnd { trusts: Vec::new(), server: Some(Err(why.clone())), client: Some(Err(why)) },
    };
    let authorities: Vec<X509Certificate<'_>> = authorities.iter().filter_map(|pem| pem.parse_x509().ok()).collect();
    let own = |role, name| Some(own(directory, role, user, &authorities, name));
    TlsEnd {
        trusts: authorities.iter().filter(|authority| authority.validity().is_valid()).map(identity).collect(),
        server: own(Role::Server, name),
        client: own(Role::Client, None),
    }
}

/// The CA of our own certificate, or what is wrong with it.
fn own(
    directory: &Path,
    role: Role,
    user: Option<(u32, u32)>,
    authorities: &[X509Certificate<'_>],
    name: Option<&str>,
) -> Result<String, String> {
    let path = directory.join(format!("{}-cert.pem", role.name()));
    let shown = path.display();
    may_read(&directory.join(format!("{}-key.pem", role.name())), user)?;
    let chain = read(&path, user)?;
    let chain: Vec<X509Certificate<'_>> = chain.iter().filter_map(|pem| pem.parse_x509().ok()).collect();
    let Some((certificate, between)) = chain.split_first() else {
        return Err(format!("{shown} holds no certificate that can be read"));
    };
    let validity = certificate.validity();
    if !validity.is_valid() {
        let (from, to) = (validity.not_before, validity.not_after);
        return Err(format!("{shown} is not in force: it holds from {from} to {to}"));
    }
    if !is_for(certificate, role) {
        return Err(format!("{shown} is not for {}s (extended key usage)", role.name()));
    }
    if let Some(name) = name.filter(|name| !bears(certificate, name)) {
        return Err(format!("{shown} is not for {name}, where migrations are led to (live_migration_inbound_addr)"));
    }
    let authority = authority(certificate, between, authorities);
    authority.ok_or_else(|| format!("{shown} is signed by no CA in {}", directory.join("ca-cert.pem").display()))
}

/// All certificates in a file.
fn read(path: &Path, user: Option<(u32, u32)>) -> Result<Vec<Pem>, String> {
    may_read(path, user)?;
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found: Vec<Pem> = Pem::iter_from_buffer(&bytes).filter_map(Result::ok).filter(|pem| pem.label == "CERTIFICATE").collect();
    if found.is_empty() { Err(format!("{} holds no certificate", path.display())) } else { Ok(found) }
}

/// Whether a file is there, and QEMU's user may read it. A file that is its group's is taken for readable: which groups libvirt gives
/// to QEMU besides its own is not ours to know.
fn may_read(path: &Path, user: Option<(u32, u32)>) -> Result<(), String> {
    let data = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{} is missing", path.display()),
        _ => format!("{}: {error}", path.display()),
    })?;
    match user {
        Some((uid, _)) if uid != 0 && uid != data.uid() && data.mode() & 0o044 == 0 => {
            Err(format!("QEMU's user {uid} may not read {}", path.display()))
        }
        Some((uid, _)) if uid != 0 && uid == data.uid() && data.mode() & 0o400 == 0 => {
            Err(format!("QEMU's user {uid} may not read {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// As `GnuTLS` and QEMU take it: only a critical list of uses excludes what is not on it.
fn is_for(certificate: &X509Certificate<'_>, role: Role) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) if usage.critical => {
            usage.value.any || if role == Role::Server { usage.value.server_auth } else { usage.value.client_auth }
        }
        _ => true,
    }
}

/// Whether a certificate is for a host of this name or address (RFC 6125; without any name in the extension the common name counts).
fn bears(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let address: Option<IpAddr> = name.parse().ok();
    let names: Vec<&GeneralName<'_>> = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    let common_names = || certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    match address {
        Some(address) => {
            let octets = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            names.iter().any(|known| matches!(known, GeneralName::IPAddress(bytes) if *bytes == octets))
        }
        None if names.iter().any(|known| matches!(known, GeneralName::DNSName(_))) => {
            names.iter().any(|known| matches!(known, GeneralName::DNSName(pattern) if covers(pattern, name)))
        }
        None => common_names().any(|pattern| covers(pattern, name)),
    }
}

/// A name, or `*.` in the place of one label.
fn covers(pattern: &str, name: &str) -> bool {
    let after_first = || name.split_once('.').map(|(_, rest)| rest);
    match pattern.strip_prefix("*.") {
        Some(rest) => after_first().is_some_and(|after| after.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

/// The CA at the end of a certificate's chain.
fn authority(
    certificate: &X509Certificate<'_>,
    between: &[X509Certificate<'_>],
    authorities: &[X509Certificate<'_>],
) -> Option<String> {
    let mut signed = certificate;
    for _ in 0..CHAIN_MAX {
        let signs = |issuer: &&X509Certificate<'_>| {
            issuer.subject() == signed.issuer() && signed.verify_signature(Some(issuer.public_key())).is_ok()
        };
        if let Some(authority) = authorities.iter().find(signs) {
            return authority.validity().is_valid().then(|| identity(authority));
        }
        signed = between.iter().find(signs)?;
    }
    None
}

/// What a CA is known by: its name and key, which stay when its certificate is renewed.
fn identity(authority: &X509Certificate<'_>) -> String {
    let digest = Sha256::new().chain_update(authority.subject().as_raw()).chain_update(authority.public_key().raw).finalize();
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn ca(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn write(directory: &Path, role: &str, ca: &Ca, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(vec!["h1".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        fs::write(directory.join(format!("{role}-cert.pem")), params.signed_by(&key, ca).unwrap().pem()).unwrap();
        fs::write(directory.join(format!("{role}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// A directory with all that is needed.
    fn complete(ca: &Ca) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca-cert.pem"), ca.pem()).unwrap();
        write(directory.path(), "server", ca, |_| {});
        write(directory.path(), "client", ca, |_| {});
        directory
    }

    fn refused(found: Option<Result<String, String>>, part: &str) {
        let why = found.unwrap().unwrap_err();
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn a_complete_set_is_good_and_names_its_ca_the_same_on_every_host() {
        let ours = ca("CA");
        let (one, other) = (complete(&ours), complete(&ours));
        let found = look(one.path(), None, Some("192.0.2.1"));
        assert_eq!(found.trusts.len(), 1);
        assert_eq!((found.server, found.client), (Some(Ok(found.trusts[0].clone())), Some(Ok(found.trusts[0].clone()))));
        assert_eq!(look(other.path(), None, Some("h1")).trusts, found.trusts);
        assert_ne!(look(complete(&ca("CA")).path(), None, None).trusts, found.trusts, "another key is another CA");
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = tempfile::tempdir().unwrap();
        let found = look(none.path(), None, None);
        refused(found.server, "ca-cert.pem is missing");
        refused(found.client, "ca-cert.pem is missing");
        let ours = complete(&ca("CA"));
        fs::remove_file(ours.path().join("client-key.pem")).unwrap();
        fs::write(ours.path().join("server-cert.pem"), "nothing").unwrap();
        let found = look(ours.path(), None, None);
        refused(found.client, "client-key.pem is missing");
        refused(found.server, "server-cert.pem holds no certificate");
    }

    #[test]
    fn what_is_not_in_force_or_of_a_foreign_ca_or_for_another_name_is_refused() {
        let ours = ca("CA");
        let directory = complete(&ours);
        write(directory.path(), "client", &ours, |params| params.not_after = date_time_ymd(2001, 1, 1));
        write(directory.path(), "server", &ca("CA"), |_| {});
        let found = look(directory.path(), None, Some("h1"));
        refused(found.client, "client-cert.pem is not in force: it holds from");
        refused(found.server, "is signed by no CA in");
        let directory = complete(&ours);
        refused(look(directory.path(), None, Some("h2")).server, "is not for h2, where migrations are led to");
        refused(look(directory.path(), None, Some("192.0.2.2")).server, "is not for 192.0.2.2");
    }

    #[test]
    fn keys_that_qemus_user_may_not_read_are_refused() {
        let directory = complete(&ca("CA"));
        for entry in fs::read_dir(directory.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let key = directory.path().join("server-key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(&key).unwrap().uid();
        refused(look(directory.path(), Some((owner + 1, 1)), None).server, "may not read");
        assert!(look(directory.path(), Some((owner, 1)), None).server.unwrap().is_ok());
        assert!(look(directory.path(), Some((0, 0)), None).server.unwrap().is_ok());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(look(directory.path(), Some((owner + 1, 1)), None).server.unwrap().is_ok());
    }

    #[test]
    fn a_chain_leads_to_its_ca_and_wildcards_stand_for_one_label() {
        let ours = ca("CA");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "between");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &ours).unwrap();
        let directory = complete(&ours);
        write(directory.path(), "server", &between, |_| {});
        refused(look(directory.path(), None, None).server, "is signed by no CA");
        let path = directory.path().join("server-cert.pem");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &between.pem()).unwrap();
        let found = look(directory.path(), None, None);
        assert_eq!(found.server, Some(Ok(found.trusts[0].clone())));
        assert!(covers("*.example.org", "h1.example.org") && !covers("*.example.org", "a.h1.example.org") && covers("H1", "h1"));
    }
}
