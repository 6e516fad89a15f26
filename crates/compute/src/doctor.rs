//! How it stands with this host, for `drover doctor`: looked at when asked, judged by whoever asks.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drover_common::certificate;
use drover_common::doctor::own_clock;
use drover_common::fault::Fault;
use drover_common::rpc::latest::{Certificate, Diagnose, HostDiagnosis, Mount, Peer, Reach};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::Options;
use crate::context::Context;
use crate::prechecks::reach::{listen, reach};

/// How long a migration port is listened on for the others' tries.
const LISTEN_FOR: Duration = Duration::from_secs(20);
const SYN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_syn_retries";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Where libvirt and QEMU look for certificates unless they are told otherwise.
const USUAL_CERTIFICATES: [&str; 6] = [
    "/etc/pki/CA/cacert.pem",
    "/etc/pki/libvirt/clientcert.pem",
    "/etc/pki/libvirt/servercert.pem",
    "/etc/pki/qemu/ca-cert.pem",
    "/etc/pki/qemu/client-cert.pem",
    "/etc/pki/qemu/server-cert.pem",
];

/// Looks at the host, and tries the others.
pub async fn diagnose(ctx: &Arc<Context>, question: &Diagnose) -> Result<HostDiagnosis, Fault> {
    let (reach, on_disk) = tokio::join!(join_all(question.peers.iter().map(|peer| try_peer(&ctx.options, peer))), read(ctx));
    let (tcp_syn_retries, certificates, instances) = on_disk;
    let libvirt_up = ctx.driver.connection().borrow().up;
    Ok(HostDiagnosis {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        libvirt_up,
        tcp_syn_retries,
        certificates,
        instances,
        here: here(ctx).await,
        reach,
        clock: own_clock(), // Last: the answer leaves now.
    })
}

/// How others reach this host; a port is listened on for their tries.
async fn here(ctx: &Context) -> Peer {
    let options = &ctx.options;
    let migration_port = ctx.offered_port.offer(options.migration_ports.clone()).await;
    Peer { host: options.host.clone(), address: options.connect_address().to_owned(), migration_port }
}

/// The migration port that is listened on for others' tries: one, however often it is asked for, until nobody did for a while.
#[derive(Debug, Default)]
pub struct OfferedPort {
    offered: Mutex<Option<Offered>>,
}

#[derive(Debug)]
struct Offered {
    port: u16,
    asked: Arc<Notify>,
    listening: AbortHandle,
}

impl OfferedPort {
    async fn offer(&self, ports: RangeInclusive<u16>) -> Option<u16> {
        let mut offered = self.offered.lock().await;
        if let Some(there) = offered.as_ref().filter(|there| !there.listening.is_finished()) {
            there.asked.notify_one();
            return Some(there.port);
        }
        let (port, listener) = listen(ports).await?;
        let asked = Arc::new(Notify::new());
        let listening = tokio::spawn(accept(listener, Arc::clone(&asked))).abort_handle();
        *offered = Some(Offered { port, asked, listening });
        Some(port)
    }
}

async fn accept(listener: TcpListener, asked: Arc<Notify>) {
    let mut until = Instant::now() + LISTEN_FOR;
    loop {
        tokio::select! {
            biased;
            () = asked.notified() => until = Instant::now() + LISTEN_FOR,
            _ = listener.accept() => {}
            () = tokio::time::sleep_until(until) => return,
        }
    }
}

async fn try_peer(options: &Options, peer: &Peer) -> Reach {
    let within = options.connect_probe_timeout;
    let libvirt = async {
        match options.live_migration_uri.tcp_target(&peer.address) {
            Ok(Some((host, port))) => reach(&host, port, within).await.map_err(|why| format!("libvirt at {why}")),
            Ok(None) => Ok(()),
            Err(fault) => Err(fault.message),
        }
    };
    let stream = async {
        match peer.migration_port {
            Some(port) => reach(&peer.address, port, within).await.map_err(|why| format!("migration port at {why}")),
            None => Err(format!("{} has no free migration port", peer.host)),
        }
    };
    let (libvirt, stream) = tokio::join!(libvirt, stream);
    let problems: Vec<String> = [libvirt, stream].into_iter().filter_map(Result::err).collect();
    Reach { host: peer.host.clone(), problem: (!problems.is_empty()).then(|| problems.join("; ")) }
}

/// What is in files: a directory may hang, so on a thread of its own.
async fn read(ctx: &Context) -> (Option<u32>, Vec<Certificate>, Option<Mount>) {
    let (own, instances_path) = (ctx.options.certificates.clone(), ctx.options.instances_path.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let retries = std::fs::read_to_string(SYN_RETRIES).ok().and_then(|text| text.trim().parse().ok());
        let usual = USUAL_CERTIFICATES.iter().map(PathBuf::from).filter(|path| path.exists());
        let certificates = own.into_iter().chain(usual).map(|path| certificate::look_at(&path)).collect();
        let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
        (retries, certificates, mount_of(&mounts, &instances_path))
    });
    reading.await.unwrap_or_default()
}

/// The mount that `path` lies on, out of `mountinfo` (proc(5)); of several at one place the last counts.
fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let mounted = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let place = before.split(' ').nth(4)?.replace("\\040", " ");
        let mut after = after.split(' ');
        Some((place, after.next()?, after.next()?))
    });
    let (_, file_system, source) =
        mounted.filter(|(place, ..)| path.starts_with(place)).max_by_key(|(place, ..)| Path::new(place).components().count())?;
    Some(Mount { path: path.display().to_string(), file_system: file_system.to_owned(), source: source.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/my\\040guests rw shared:9 - nfs4 nas:/guests rw
31 22 0:41 / /srv rw - xfs /dev/sdb rw";

    #[tokio::test]
    async fn one_port_is_offered_however_often_it_is_asked_for() {
        let free = std::net::TcpListener::bind(("::", 0)).unwrap().local_addr().unwrap().port();
        let (offer, ports) = (OfferedPort::default(), free - 20..=free);
        let port = offer.offer(ports.clone()).await.unwrap();
        assert_eq!(offer.offer(ports).await, Some(port));
        for _ in 0..3 {
            reach("127.0.0.1", port, Duration::from_secs(5)).await.unwrap();
        }
    }

    #[test]
    fn the_deepest_mount_above_a_directory_is_its() {
        let of = |path: &str| mount_of(MOUNTS, Path::new(path)).map(|mount| (mount.file_system, mount.source));
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(of("/var/lib/libvirt/images"), pair("ext4", "/dev/sda1"));
        assert_eq!(of("/srv/my guests/pool"), pair("nfs4", "nas:/guests"));
        assert_eq!(of("/srv/other"), pair("xfs", "/dev/sdb"));
        assert_eq!(mount_of("", Path::new("/srv")), None);
    }
}
