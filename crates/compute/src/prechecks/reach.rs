//! Whether the source reaches the destination's ports.
//!
//! libvirt itself hangs for more than two minutes in `connect` when packets are dropped ([`connect_timeout`]), and cannot be aborted
//! there; so the ports are tried before.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::debug;

/// How long the destination listens for the source's try.
const LISTEN_FOR: Duration = Duration::from_secs(10);

/// Tries a TCP connection to `host`:`port`.
pub async fn reach(host: &str, port: u16, within: Duration) -> Result<(), String> {
    let tried = tokio::time::timeout(within, TcpStream::connect((host, port))).await;
    let why = match tried {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s; a firewall there or on the way probably drops the packets", within.as_secs()),
    };
    Err(format!("{host} port {port}: {why}"))
}

/// After how many seconds this host's kernel gives up a connection that nobody answers; none if it does not tell.
pub fn connect_timeout() -> Option<u32> {
    let sysctl =
        |name: &str| -> Option<u32> { std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?.trim().parse().ok() };
    Some(gives_up_after(sysctl("tcp_syn_retries")?, sysctl("tcp_syn_linear_timeouts").unwrap_or(0)))
}

/// The first SYN waits a second, each retry twice as long as the one before, at most two minutes (Linux: `TCP_RTO_MAX`); newer kernels
/// begin with some retries a second apart.
fn gives_up_after(retries: u32, linear: u32) -> u32 {
    linear + (0..=retries.min(255)).map(|retry| 1_u32.checked_shl(retry).unwrap_or(u32::MAX).min(120)).sum::<u32>()
}

/// A port that is listened on until somebody connects, for a short while, or until this is dropped without [`Self::keep`].
#[derive(Debug)]
pub struct OfferedPort {
    /// The port.
    pub port: u16,
    listening: Option<AbortHandle>,
}

impl OfferedPort {
    /// The offer is made: it stays when this is dropped.
    pub fn keep(mut self) -> u16 {
        self.listening = None;
        self.port
    }
}

impl Drop for OfferedPort {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// Listens on one port of libvirt's migration range until somebody connects, for a short while. None if no port is free.
pub async fn offer_port(ports: RangeInclusive<u16>) -> Option<OfferedPort> {
    let (port, listener) = listen(ports).await?;
    let listening = tokio::spawn(async move {
        match tokio::time::timeout(LISTEN_FOR, listener.accept()).await {
            Ok(Ok((_, peer))) => debug!(port, peer = %peer, "migration port was tried"),
            Ok(Err(error)) => debug!(port, error = %error, "migration port could not be listened on"),
            Err(_) => debug!(port, "nobody tried the migration port"),
        }
    });
    Some(OfferedPort { port, listening: Some(listening.abort_handle()) })
}

/// Takes a free port of libvirt's migration range. From the top down: libvirt takes its ports from the bottom up.
pub async fn listen(ports: RangeInclusive<u16>) -> Option<(u16, TcpListener)> {
    for port in ports.rev() {
        if let Ok(listener) = bind(port).await {
            return Some((port, listener));
        }
    }
    None
}

/// As QEMU does: on all addresses of both families, where the host has both.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await,
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_offered_port_is_reached_once_and_taken_ports_are_passed_over() {
        let taken = bind(0).await.unwrap();
        let top = taken.local_addr().unwrap().port();
        let port = offer_port(top - 50..=top).await.unwrap().keep();
        assert_ne!(port, top);
        reach("127.0.0.1", port, Duration::from_secs(5)).await.unwrap();
        assert!(offer_port(top..=top).await.is_none());
    }

    #[test]
    fn the_kernel_gives_up_a_connection_after_its_retries() {
        assert_eq!((gives_up_after(0, 0), gives_up_after(2, 0), gives_up_after(6, 0)), (1, 7, 127));
        assert_eq!(gives_up_after(8, 0), 127 + 240, "no retry waits longer than two minutes");
        assert_eq!(gives_up_after(6, 4), 131);
        assert!(connect_timeout().is_some_and(|seconds| seconds > 0));
    }

    #[tokio::test]
    async fn a_closed_port_is_named_with_the_reason() {
        let listener = bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = reach("127.0.0.1", port, Duration::from_secs(5)).await.unwrap_err();
        assert!(error.starts_with(&format!("127.0.0.1 port {port}: Connection refused")), "{error}");
    }
}
