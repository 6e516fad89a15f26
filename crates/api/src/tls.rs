//! HTTPS: TLS around the connections of the listener.
//!
//! - The files are looked at for each handshake and read again when they changed. While what is there cannot be used, the last
//!   certificate that could goes on: a renewal that is half written harms nobody.
//! - A handshake keeps neither the listener nor another handshake waiting; how many there are at a time and how long each may take is
//!   bounded.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use drover_common::config::{ConfigError, WsgiSection};
use drover_common::telemetry;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::stamp::Stamp;

/// Handshakes under way at a time. Whoever comes then waits in the listener's backlog.
const HANDSHAKES_MAX: usize = 256;
/// A handshake is two round trips; this is a caller behind a bad line, or nobody.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What we show to callers: `[wsgi] ssl_cert_file` with its key.
pub(crate) struct Certificate {
    /// The certificate with those that lead to its CA.
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    read: Mutex<Read>,
}

/// The files as they were read last.
struct Read {
    stamps: Stamps,
    /// Of the last pair that could be used.
    shown: Arc<CertifiedKey>,
}

/// Of the certificate and of its key.
type Stamps = (Stamp, Stamp);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be looked at")]
    Look(#[from] io::Error),
    #[error("cannot be read")]
    Pem(#[from] pem::Error),
    #[error("do not go together")]
    Pair(#[from] rustls::Error),
}

impl Certificate {
    /// The configured one; none if the API is to speak plain HTTP.
    pub(crate) fn configured(section: &WsgiSection) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some((certificate, key)) = section.ssl_cert_file.clone().zip(section.ssl_key_file.clone()) else {
            return Ok(None);
        };
        let provider = Arc::new(ring::default_provider());
        let read = stamps(&certificate, &key).map_err(FileError::from).and_then(|stamps| {
            let shown = Arc::new(load(&certificate, &key, &provider)?);
            Ok(Read { stamps, shown })
        });
        let read = read.map_err(|error| {
            let allowed = format!("certificate and key ({}) {}", key.display(), telemetry::chain(&error));
            ConfigError::not_allowed("[wsgi] ssl_cert_file", &certificate, allowed)
        })?;
        Ok(Some(Arc::new(Self { chain: certificate, key, provider, read: Mutex::new(read) })))
    }

    /// What to show now. (Looking at two files costs microseconds, less than the handshake: no thread is worth it.)
    fn shown(&self) -> Arc<CertifiedKey> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = || -> Result<Option<Read>, FileError> {
            let stamps = stamps(&self.chain, &self.key)?;
            if stamps == read.stamps {
                return Ok(None);
            }
            Ok(Some(Read { stamps, shown: Arc::new(load(&self.chain, &self.key, &self.provider)?) }))
        };
        match renewed() {
            Ok(None) => {}
            Ok(Some(renewed)) => {
                tracing::info!(path = %self.chain.display(), "the certificate changed and was read again");
                *read = renewed;
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(path = %self.chain.display(), error, "the last good certificate goes on: this one and its key");
            }
        }
        Arc::clone(&read.shown)
    }
}

fn stamps(certificate: &Path, key: &Path) -> io::Result<Stamps> {
    Ok((Stamp::of(certificate)?, Stamp::of(key)?))
}

fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, FileError> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    Ok(CertifiedKey::from_der(chain, PrivateKeyDer::from_pem_file(key)?, provider)?)
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("path", &self.chain).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

/// A listener whose connections speak TLS.
pub(crate) struct TlsListener<A> {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, A)>,
    address: io::Result<A>,
}

impl TlsListener<SocketAddr> {
    /// Around a listener for plain connections.
    pub(crate) fn new<L>(listener: L, certificate: Arc<Certificate>) -> Result<Self, ConfigError>
    where
        L: Listener<Io = TcpStream, Addr = SocketAddr>,
    {
        let path = certificate.chain.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&certificate.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::not_allowed("[wsgi] ssl_cert_file", path, format_args!("TLS cannot be set up: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = listener.local_addr();
        let (sender, ready) = mpsc::channel(1);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self { ready, address })
    }
}

/// Takes connections until nobody wants them any more.
async fn accept<L>(mut listener: L, acceptor: TlsAcceptor, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>)
where
    L: Listener<Io = TcpStream, Addr = SocketAddr>,
{
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (handshake, ready) = (acceptor.accept(stream), ready.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match timeout(HANDSHAKE_WITHIN, handshake).await {
                // Nobody takes it: the process ends.
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

impl Listener for TlsListener<SocketAddr> {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The task that accepts ends after this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.address.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A directory with a certificate for localhost and its key, which a client may trust.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn section(&self) -> WsgiSection {
            WsgiSection { ssl_cert_file: Some(self.0.path().join("cert.pem")), ssl_key_file: Some(self.0.path().join("key.pem")) }
        }

        /// Writes a new pair and returns what trusts it. With `mixed` the key is another's.
        fn renew(&self, mixed: bool) -> Trust {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let other = rcgen::KeyPair::generate().unwrap();
            let key = if mixed { other.serialize_pem() } else { pair.signing_key.serialize_pem() };
            fs::write(self.0.path().join("cert.pem"), pair.cert.pem()).unwrap();
            fs::write(self.0.path().join("key.pem"), key).unwrap();
            Trust(pair.cert.der().clone())
        }
    }

    struct Trust(CertificateDer<'static>);

    impl Trust {
        /// Whether a client that trusts this certificate, and no other, gets through to the server under this name.
        async fn reaches(&self, name: &'static str, address: SocketAddr) -> bool {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect(address).await.unwrap();
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await.is_ok()
        }
    }

    /// Takes connections, one after the other.
    async fn serve(files: &Files) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let certificate = Certificate::configured(&files.section()).unwrap().unwrap();
        let mut listener = TlsListener::new(listener, certificate).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                listener.accept().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn only_who_trusts_the_certificate_and_uses_its_name_gets_through() {
        let files = Files::new();
        let trusted = files.renew(false);
        let address = serve(&files).await;
        assert!(trusted.reaches("localhost", address).await);
        assert!(!trusted.reaches("example.org", address).await);
        assert!(!Files::new().renew(false).reaches("localhost", address).await);
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_at_once_and_half_a_renewal_harms_nobody() {
        let files = Files::new();
        files.renew(false);
        let address = serve(&files).await;
        let second = files.renew(false);
        assert!(second.reaches("localhost", address).await);
        let mixed = files.renew(true);
        assert!(!mixed.reaches("localhost", address).await);
        assert!(second.reaches("localhost", address).await);
        fs::remove_file(files.0.path().join("key.pem")).unwrap();
        assert!(second.reaches("localhost", address).await);
        assert!(files.renew(false).reaches("localhost", address).await);
    }

    #[tokio::test]
    async fn somebody_who_says_nothing_keeps_nobody_waiting() {
        let files = Files::new();
        let trusted = files.renew(false);
        let address = serve(&files).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(trusted.reaches("localhost", address).await);
    }

    #[test]
    fn without_a_usable_pair_there_is_no_start() {
        let files = Files::new();
        assert!(Certificate::configured(&WsgiSection::default()).unwrap().is_none());
        let error = Certificate::configured(&files.section()).unwrap_err().to_string();
        assert!(error.contains("[wsgi] ssl_cert_file") && error.contains("No such file"), "{error}");
        files.renew(true);
        let error = Certificate::configured(&files.section()).unwrap_err().to_string();
        assert!(error.contains("do not go together"), "{error}");
    }
}
