//! Telling the network where a guest is that has just arrived.
//!
//! QEMU announces a guest that runs here from now on: five times, in the first second, and never again. What of it is lost (a
//! switch's port that does not forward yet, a queue that overflows) leaves the switches sending to the old host until the guest
//! itself says something. So the agent repeats it from outside, as soon as libvirt says that the CPUs run: it asks nobody, waits
//! for no conductor, and uses no monitor command, which would taint the domain.
//!
//! - [`frame`]: what is sent, as QEMU would.
//! - [`bridge`]: where. The tap's own bridge learns the guest's place from the first of QEMU's announcements, which comes through
//!   the tap and cannot be lost before it; the frames here are for what lies beyond, and leave through all ports of the bridge.
//! - [`socket`]: how. It takes `CAP_NET_RAW`; without it QEMU's announcements have to do.
//! - [`announced`]: how long it took until the first one had left, for the migration's account.

pub mod announced;
pub mod bridge;
pub mod frame;
pub mod socket;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_common::ids::ServerId;
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info, warn};

use self::bridge::BridgePort;
use self::frame::MacAddress;
use self::socket::AnnounceSocket;
use crate::context::Context;
use crate::domain_xml::mac_addresses;
use crate::driver::{DomainEvent, XmlKind};

/// Guests on their way here whose addresses are remembered. One that is forgotten is asked about when it is here.
const EXPECTED_MAX: usize = 1024;

/// How guests are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceOptions {
    /// How often each interface is; 0: not at all.
    pub count: u32,
    /// Between the first of these times; then it grows ([`Self::pause_after`]).
    pub interval: Duration,
}

/// Announcements at one pace; then the pauses are twice as long.
const AT_ONE_PACE: u32 = 10;
/// Pauses grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl AnnounceOptions {
    /// The pause before the next time, after so many: what is lost in the first moment is made good within one interval, and a
    /// switch that takes a second to come up is told as well, without a flood.
    pub fn pause_after(&self, times: u32) -> Duration {
        match times {
            0 => Duration::ZERO,
            _ => self.interval.saturating_mul(2_u32.saturating_pow(times / AT_ONE_PACE)).min(self.interval.max(PAUSE_MAX)),
        }
    }
}

/// The addresses of guests that are about to arrive, so that none has to be asked for when they do: libvirt keeps the XML of a guest
/// back until all of it is here, which after a switch to post-copy takes long.
#[derive(Debug, Default)]
pub struct Expected {
    guests: Mutex<BTreeMap<ServerId, Vec<MacAddress>>>,
    warned: AtomicBool,
}

impl Expected {
    /// A guest with this XML is about to arrive.
    pub fn expect(&self, server: ServerId, xml: &str) {
        let Ok(addresses) = mac_addresses(xml) else { return };
        let mut guests = self.lock();
        guests.insert(server, addresses);
        if guests.len() > EXPECTED_MAX {
            guests.pop_first();
        }
    }

    fn take(&self, server: ServerId) -> Option<Vec<MacAddress>> {
        self.lock().remove(&server)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Vec<MacAddress>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Announces arriving guests until the process is told to stop.
pub async fn keep_announcing(ctx: Arc<Context>) {
    if ctx.options.announce.count == 0 {
        return;
    }
    let mut events = ctx.driver.events();
    let stop = ctx.life.stop.clone();
    let announcing = async {
        loop {
            match events.recv().await {
                Ok(DomainEvent::Arrived(server, at)) => ctx.life.spawn(announce(Arc::clone(&ctx), server, at)),
                Ok(_) | Err(RecvError::Lagged(_)) => {} // What was missed is left to QEMU's own announcements.
                Err(RecvError::Closed) => return,
            }
        }
    };
    stop.run_until_cancelled(announcing).await;
}

/// Announces one guest, whose CPUs have run here since `arrived`, on every interface of it that is a port of a bridge.
async fn announce(ctx: Arc<Context>, server: ServerId, arrived: Instant) {
    let addresses = match ctx.expected.take(server) {
        Some(addresses) => addresses,
        None => match ctx.driver.xml(server, XmlKind::Live).await {
            Ok(text) => mac_addresses(&text).unwrap_or_default(),
            Err(error) => return debug!(server.id = %server, error = %error, "not announced: its interfaces are not known"),
        },
    };
    let ports = bridge::ports_of(Path::new(bridge::SYSFS), &addresses);
    if ports.is_empty() {
        return debug!(server.id = %server, "not announced: none of its interfaces is a port of a bridge");
    }
    let socket = match AnnounceSocket::open() {
        Ok(socket) => socket,
        Err(error) if ctx.expected.warned.swap(true, Ordering::Relaxed) => return debug!(error = %error, "not announced"),
        Err(error) => {
            return warn!(
                error = %error,
                "guests that arrive are announced by QEMU only: the agent needs CAP_NET_RAW (live_migration_announce_count)"
            );
        }
    };
    let options = ctx.options.announce;
    let (mut times, mut has_left) = (0, false);
    while times < options.count {
        tokio::time::sleep(options.pause_after(times)).await;
        // Once it is on its way elsewhere, or gone, its place is no more ours to tell.
        if ctx.life.stop.is_cancelled() || ctx.actors.is_under_way(server) {
            break;
        }
        let Some(sent) = send(&socket, &ports) else { break };
        if sent && !std::mem::replace(&mut has_left, true) {
            ctx.announced.note(server, arrived.elapsed());
        }
        times += 1;
    }
    if times > 0 {
        info!(server.id = %server, interfaces = ports.len(), times, "guest announced");
    }
}

/// Whether anything was sent; none if there is nothing to announce any more.
fn send(socket: &AnnounceSocket, ports: &[BridgePort]) -> Option<bool> {
    let there = ports.iter().filter(|port| port.is_there(Path::new(bridge::SYSFS)));
    there.fold(None, |sent, port| {
        let result = socket.send(&port.bridge, &frame::rarp(port.address));
        if let Err(error) = &result {
            debug!(error = %error, bridge = port.bridge, "announcement not sent");
        }
        Some(result.is_ok() || sent.unwrap_or(false))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_dense_in_the_first_tenth_of_a_second_and_reach_beyond_the_first_second() {
        let options = AnnounceOptions { count: 40, interval: Duration::from_millis(10) };
        let at = |times: u32| (0..times).map(|before| options.pause_after(before)).sum::<Duration>().as_millis();
        assert_eq!((at(1), at(2), at(10)), (0, 10, 90));
        assert_eq!((at(11), at(20), at(40)), (110, 290, 1490));
        let slow = AnnounceOptions { count: 1000, interval: Duration::from_secs(3) };
        assert_eq!(slow.pause_after(999), Duration::from_secs(3));
        assert_eq!(options.pause_after(999), PAUSE_MAX);
    }
}
