//! The bench's own CA, and the certificates of its hosts' QEMUs for migrations with TLS.
//!
//! Each host has them in [`DIRECTORY`]; they are used only by migrations that ask for TLS.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::error::{BenchError, Result};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::state::HostRecord;

/// Where a host has its certificates: `migrate_tls_x509_cert_dir` of its qemu.conf.
pub(crate) const DIRECTORY: &str = "/etc/libvirt/pki";

/// Makes the CA if there is none yet.
pub(crate) fn prepare(plan: Plan) -> Result<()> {
    let directory = Layout::new(plan).pki();
    let key = directory.join("key.pem");
    if key.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate().map_err(failed)?;
    let certificate = authority(plan).self_signed(&pair).map_err(failed)?;
    write(&directory.join("ca.pem"), &certificate.pem())?;
    write(&key, &pair.serialize_pem())
}

/// Makes a host's certificates, one for both directions.
pub(crate) fn write_certificates(plan: Plan, host: &HostRecord, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
    let of_ca = Layout::new(plan).pki();
    let read = |path: &Path| fs::read_to_string(path).map_err(BenchError::file("read", path));
    let issuer = Issuer::new(authority(plan), KeyPair::from_pem(&read(&of_ca.join("key.pem"))?).map_err(failed)?);
    let pair = KeyPair::generate().map_err(failed)?;
    let certificate = host_certificate(plan, host)?.signed_by(&pair, &issuer).map_err(failed)?;
    write(&directory.join("ca-cert.pem"), &read(&of_ca.join("ca.pem"))?)?;
    for role in ["server", "client"] {
        write(&directory.join(format!("{role}-cert.pem")), &certificate.pem())?;
        write(&directory.join(format!("{role}-key.pem")), &pair.serialize_pem())?;
    }
    Ok(())
}

fn authority(plan: Plan) -> CertificateParams {
    let mut params = lasting(CertificateParams::default());
    params.distinguished_name.push(DnType::CommonName, format!("CA of {}", plan.name()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Under the name and the address of the host: migrations are led to the address.
fn host_certificate(plan: Plan, host: &HostRecord) -> Result<CertificateParams> {
    let names = vec![host.name(), plan.address(host.index).to_string()];
    let mut params = lasting(CertificateParams::new(names).map_err(failed)?);
    params.distinguished_name.push(DnType::CommonName, host.name());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A bench lives shorter than any of these.
fn lasting(mut params: CertificateParams) -> CertificateParams {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    params
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(BenchError::file("write", path))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn failed(error: rcgen::Error) -> BenchError {
    BenchError::Refused(format!("certificates of the bench: {error}"))
}
