//! Watching guests from outside: receives their datagrams and answers the questions that a migration raises.
//!
//! The kernel stamps each datagram when it arrives, so a busy test program does not lengthen the gaps that it measures.

mod track;

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

use track::Track;
pub use track::{Gap, Observed};

use crate::error::{BenchError, Result};
use crate::plan::Plan;
use crate::wait::{Look, wait_until};
use crate::workload::report::{REPORT_BYTES, Report};

/// Room for the datagrams of many guests while the receiver does not get the processor.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How often the receiver looks whether it should end.
const END_CHECK: Duration = Duration::from_millis(200);

/// A moment, for [`GuestWatch::longest_gap_since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(Duration);

type Tracks = Mutex<HashMap<Ipv4Addr, Track>>;

/// Receives the datagrams of all guests of a bench for as long as it lives. One per bench at a time.
#[derive(Debug)]
pub struct GuestWatch {
    tracks: Arc<Tracks>,
    ended: Arc<AtomicBool>,
    receiver: Option<JoinHandle<()>>,
}

impl GuestWatch {
    /// Begins to listen.
    pub fn start(plan: Plan) -> Result<Self> {
        let address = plan.watch();
        let socket = UdpSocket::bind(address).map_err(BenchError::io(format!(
            "listen for guests on {address} (is the bench up, and does no other program watch it?)"
        )))?;
        let set_up = || format!("set up the socket {address}");
        socket.set_read_timeout(Some(END_CHECK)).map_err(BenchError::io(set_up()))?;
        setsockopt(&socket, ReceiveTimestampns, &true).map_err(BenchError::sys(set_up()))?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).map_err(BenchError::sys(set_up()))?;
        let (tracks, ended) = (Arc::new(Tracks::default()), Arc::new(AtomicBool::new(false)));
        let (shared, end) = (Arc::clone(&tracks), Arc::clone(&ended));
        let receiver = thread::spawn(move || receive(&socket, &shared, &end));
        Ok(Self { tracks, ended, receiver: Some(receiver) })
    }

    /// Now, as a mark.
    pub fn mark(&self) -> Mark {
        Mark(now())
    }

    /// What was heard of a guest so far; `None` if nothing.
    pub fn observed(&self, guest: Ipv4Addr) -> Option<Observed> {
        lock(&self.tracks).get(&guest).map(|track| track.observed(now()))
    }

    /// The longest silence of a guest since the mark, including the one that lasts; `None` if it was never heard.
    pub fn longest_gap_since(&self, guest: Ipv4Addr, mark: Mark) -> Option<Gap> {
        lock(&self.tracks).get(&guest).map(|track| track.longest_gap(mark.0, now()))
    }

    /// Waits until a guest is heard (again, after the mark).
    pub fn wait_for_life(&self, guest: Ipv4Addr, after: Mark, within: Duration) -> Result<Observed> {
        wait_until(&format!("a datagram of {guest}"), within, || {
            let tracks = lock(&self.tracks);
            Ok(match tracks.get(&guest) {
                Some(track) if track.last_heard() > after.0 => Look::Done(track.observed(now())),
                Some(_) => Look::NotYet("it fell silent before".to_owned()),
                None => Look::NotYet("it was never heard".to_owned()),
            })
        })
    }

    /// Forgets what was heard of a guest, e.g. before another one gets its address.
    pub fn forget(&self, guest: Ipv4Addr) {
        lock(&self.tracks).remove(&guest);
    }
}

impl Drop for GuestWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(receiver) = self.receiver.take() {
            // A receiver that panicked has nothing more to tell.
            _ = receiver.join();
        }
    }
}

fn lock(tracks: &Tracks) -> MutexGuard<'_, HashMap<Ipv4Addr, Track>> {
    tracks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the kernel stamps datagrams with wall-clock time, and both are read on one machine")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn receive(socket: &UdpSocket, tracks: &Tracks, ended: &AtomicBool) {
    let mut control = nix::cmsg_space!(TimeSpec);
    while !ended.load(Ordering::Relaxed) {
        let mut bytes = [0; REPORT_BYTES + 1];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let Ok(message) = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) else {
            continue; // The timeout that lets us look at `ended`.
        };
        let stamp = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            })
        });
        let (sender, length) = (message.address.map(|address| address.ip()), message.bytes);
        if let (Some(sender), Some(report)) = (sender, bytes.get(..length).and_then(Report::decode)) {
            lock(tracks).entry(sender).or_default().record(stamp.unwrap_or_else(now), &report);
        }
    }
}
