//! Until when a certificate is good. It is not verified here: whoever uses it does that.

use std::path::Path;

use chrono::{DateTime, Utc};
use x509_parser::pem::parse_x509_pem;

use crate::rpc::latest::Certificate;

/// Looks at the first certificate of a PEM file.
pub fn look_at(path: &Path) -> Certificate {
    let found = std::fs::read(path).map_err(|error| error.to_string()).and_then(|pem| not_after(&pem));
    let path = path.display().to_string();
    match found {
        Ok(not_after) => Certificate { path, not_after: Some(not_after), problem: None },
        Err(problem) => Certificate { path, not_after: None, problem: Some(problem) },
    }
}

fn not_after(pem: &[u8]) -> Result<DateTime<Utc>, String> {
    let no_certificate = |error: &dyn std::fmt::Display| format!("no certificate in PEM ({error})");
    let (_, pem) = parse_x509_pem(pem).map_err(|error| no_certificate(&error))?;
    let certificate = pem.parse_x509().map_err(|error| no_certificate(&error))?;
    let seconds = certificate.validity().not_after.timestamp();
    DateTime::from_timestamp(seconds, 0).ok_or_else(|| format!("its end is {seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named_with_the_reason() {
        let missing = look_at(Path::new("/nowhere/cert.pem"));
        assert_eq!((missing.path.as_str(), missing.not_after), ("/nowhere/cert.pem", None));
        assert!(missing.problem.unwrap().starts_with("No such file"));
        assert!(look_at(Path::new("/proc/self/status")).problem.unwrap().starts_with("no certificate in PEM"));
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["h1".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        assert_eq!(not_after(pem.as_bytes()).unwrap().to_rfc3339(), "2031-02-03T00:00:00+00:00");
    }
}
