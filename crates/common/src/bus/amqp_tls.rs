//! TLS to the broker: whom we trust, and who we are.

use std::io;
use std::path::{Path, PathBuf};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};

use crate::config::{ConfigError, RabbitSection};

/// The files. They are read for each connection, so a renewed certificate counts from the next one on.
#[derive(Debug)]
pub(super) struct Credentials {
    ca: Option<PathBuf>,
    /// Certificate and key.
    own: Option<(PathBuf, PathBuf)>,
}

impl Credentials {
    /// Refuses what could not protect the connection to `uri`, or not log in there.
    pub(super) fn new(section: &RabbitSection, uri: &AMQPUri) -> Result<Self, ConfigError> {
        let own = section.ssl_cert_file.clone().zip(section.ssl_key_file.clone());
        let given = own.is_some() || section.ssl_ca_file.is_some();
        if given && uri.scheme != AMQPScheme::AMQPS {
            let allowed = "amqps://, since [oslo_messaging_rabbit] has files for TLS";
            return Err(ConfigError::not_allowed(
                "[DEFAULT] transport_url",
                format_args!("amqp://{}", uri.authority.host),
                allowed,
            ));
        }
        if own.is_none() && uri.query.auth_mechanism == Some(SASLMechanism::External) {
            let allowed = "with auth_mechanism=external in transport_url the broker knows us by our certificate";
            return Err(ConfigError::not_allowed("[oslo_messaging_rabbit] ssl_cert_file", &section.ssl_cert_file, allowed));
        }
        Ok(Self { ca: section.ssl_ca_file.clone(), own })
    }

    /// What they hold now.
    pub(super) async fn read(&self) -> io::Result<OwnedTLSConfig> {
        let mut config = OwnedTLSConfig::default();
        if let Some(path) = &self.ca {
            config.cert_chain = Some(String::from_utf8_lossy(&read(path).await?).into_owned());
        }
        if let Some((certificate, key)) = &self.own {
            config.identity = Some(OwnedIdentity::PKCS8 { pem: read(certificate).await?, key: read(key).await? });
        }
        Ok(config)
    }
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    tokio::fs::read(path).await.map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, files: &[&str]) -> Result<(), String> {
        let file = |name: &str| files.contains(&name).then(|| PathBuf::from(name));
        let section = RabbitSection { ssl_ca_file: file("ca"), ssl_cert_file: file("cert"), ssl_key_file: file("key") };
        Credentials::new(&section, &uri.parse().unwrap()).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn files_for_tls_do_not_go_with_a_plain_connection() {
        let error = check("amqp://u:hunter2@b/v", &["ca"]).unwrap_err();
        assert!(error.contains("amqps://") && !error.contains("hunter2"), "{error}");
        check("amqps://u:p@b/v", &["ca"]).unwrap();
        check("amqp://u:p@b/v", &[]).unwrap();
    }

    #[test]
    fn who_logs_in_by_certificate_needs_one() {
        let uri = "amqps://u@b/v?auth_mechanism=external";
        assert!(check(uri, &["ca"]).unwrap_err().contains("ssl_cert_file"));
        check(uri, &["ca", "cert", "key"]).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_named() {
        let files = Credentials { ca: Some("/nowhere/ca.pem".into()), own: None };
        assert!(files.read().await.unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }
}
