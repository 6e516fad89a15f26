//! The connection to libvirt: made, kept, made again; and the threads on which its calls block.
//!
//! libvirt's event loop runs on a thread of its own for the life of the process. It notices a connection that broke, also by
//! keep-alive when libvirtd hangs, and hands on events.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use drover_common::ids::ServerId;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use virt::connect::Connect;
use virt::error::Error;

use super::calls::{Handles, Peer};
use super::ffi::{RawEvent, Sink, Subscriptions};
use super::turns::Turns;
use super::{error, job};
use crate::driver::{Connection, DomainEvent, DriverError};

/// libvirtd serves five calls of a client at a time (`max_client_requests`); one is left for what libvirt's library asks by itself.
const CALLS_MAX: usize = 4;
/// Events that wait for the slowest listener, who must look at everything again when there are more.
const EVENTS_MAX: usize = 1024;
/// Seconds between two keep-alive messages on an idle connection, and how many may stay unanswered.
const KEEPALIVE_INTERVAL_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The way to one libvirtd.
pub(super) struct Link {
    uri: String,
    session: Mutex<Option<Arc<Session>>>,
    permits: Arc<Semaphore>,
    turns: Turns,
    connection: watch::Sender<Connection>,
    events: broadcast::Sender<DomainEvent>,
}

struct Session {
    // Dropped before the connection: each subscription holds it open.
    _subscriptions: Subscriptions,
    peer: Peer,
    closed: CancellationToken,
}

impl Link {
    /// Begins to keep a connection to `uri` until `stop`.
    pub(super) fn start(uri: &str, stop: CancellationToken) -> Result<Arc<Self>, DriverError> {
        start_event_loop()?;
        let link = Arc::new(Self {
            uri: uri.to_owned(),
            session: Mutex::new(None),
            permits: Arc::new(Semaphore::new(CALLS_MAX)),
            turns: Turns::default(),
            connection: watch::channel(Connection::default()).0,
            events: broadcast::channel(EVENTS_MAX).0,
        });
        tokio::spawn(Arc::clone(&link).keep(stop));
        Ok(link)
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    pub(super) fn events(&self) -> broadcast::Receiver<DomainEvent> {
        self.events.subscribe()
    }

    /// Makes one call on a thread where it may block; about one domain only one at a time. libvirt serves the calls about a domain one
    /// after the other anyway, and half a minute each when its QEMU does not answer: that guest must not take all of [`CALLS_MAX`].
    pub(super) async fn call<T, F>(self: Arc<Self>, about: Option<ServerId>, call: F) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: FnOnce(&Peer) -> Result<T, Error> + Send + 'static,
    {
        // On a task of its own: a turn may be given to whoever waits in a future that is not looked at any more (a watch that has
        // ended has questions left), and would never be given back.
        let answered = tokio::spawn(async move {
            let turn = match about {
                Some(server) => Some(self.turns.take(server).await),
                None => None,
            };
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let session = self.session().ok_or_else(|| DriverError::unavailable(format!("no connection to {}", self.uri)))?;
            let done = tokio::task::spawn_blocking(move || {
                let result = call(&session.peer).map_err(|error| error::on(&session.peer.connect, &error));
                if !session.peer.connect.is_alive().unwrap_or(false) {
                    session.closed.cancel();
                }
                drop((permit, turn));
                result
            });
            done.await.unwrap_or_else(|error| Err(DriverError::other(error.to_string())))
        });
        answered.await.unwrap_or_else(|error| Err(DriverError::other(error.to_string())))
    }

    async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let pauses = || {
            let builder = ExponentialBuilder::default().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
            builder.with_jitter().without_max_times().build()
        };
        let mut backoff = pauses();
        while !stop.is_cancelled() {
            match Arc::clone(&self).open().await {
                Ok(session) => {
                    info!(uri = self.uri, "connected to libvirt");
                    backoff = pauses();
                    let closed = session.closed.clone();
                    self.set_session(Some(session));
                    self.connection.send_modify(|connection| {
                        connection.count += 1;
                        connection.up = true;
                    });
                    tokio::select! {
                        () = closed.cancelled() => warn!(uri = self.uri, "connection to libvirt lost"),
                        () = stop.cancelled() => {}
                    }
                    self.set_session(None);
                    self.connection.send_modify(|connection| connection.up = false);
                }
                Err(error) => warn!(error = %error, uri = self.uri, "no connection to libvirt"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next().unwrap_or(PAUSE_MAX)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn open(self: Arc<Self>) -> Result<Arc<Session>, DriverError> {
        let opened = tokio::task::spawn_blocking(move || {
            let connect = connect(&self.uri)?;
            let closed = CancellationToken::new();
            let peer = Peer::new(connect);
            let sink = self.sink(peer.handles(), closed.clone());
            Ok(Arc::new(Session { _subscriptions: Subscriptions::new(&peer.connect, &sink), peer, closed }))
        });
        opened.await.unwrap_or_else(|error| Err(DriverError::other(error.to_string())))
    }

    fn sink(&self, handles: Handles, closed: CancellationToken) -> Sink {
        let events = self.events.clone();
        Arc::new(move |event| {
            let event = match event {
                RawEvent::Lifecycle(uuid) => {
                    handles.forget(ServerId(uuid)); // It may have another name now.
                    DomainEvent::Changed(ServerId(uuid))
                }
                RawEvent::Arrived(uuid) => DomainEvent::Arrived(ServerId(uuid), Instant::now()),
                RawEvent::Iteration(uuid) => DomainEvent::Iteration(ServerId(uuid)),
                RawEvent::JobCompleted(uuid, params) => DomainEvent::JobCompleted(ServerId(uuid), Box::new(job::result(&params))),
                RawEvent::Closed => return closed.cancel(),
            };
            events.send(event).ok(); // Nobody listens: nobody waits for it.
        })
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_session(&self, session: Option<Arc<Session>>) {
        let old = std::mem::replace(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner), session);
        // Closing talks to libvirtd: not on a thread that runs tasks.
        tokio::task::spawn_blocking(move || drop(old));
    }
}

/// Opens a connection. Blocks.
pub(super) fn connect(uri: &str) -> Result<Connect, DriverError> {
    let connect = Connect::open(Some(uri)).map_err(|error| DriverError::unavailable(error.message()))?;
    // A driver within this process (test:///) has no connection that could hang.
    connect.set_keep_alive(KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT).ok();
    Ok(connect)
}

/// libvirt takes its event loop before the first connection or never, so there is one for the whole process.
fn start_event_loop() -> Result<(), DriverError> {
    static STARTED: OnceLock<Result<(), DriverError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(|error| error::of(&error))?;
            std::thread::Builder::new()
                .name("libvirt-events".to_owned())
                .spawn(run_event_loop)
                .map_err(|error| DriverError::other(format!("no thread for libvirt's events: {error}")))?;
            Ok(())
        })
        .clone()
}

fn run_event_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            warn!(error = %error, "libvirt's event loop failed once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_whose_answer_nobody_looks_at_keeps_no_other_waiting() {
        let link = Link::start("test:///default", CancellationToken::new()).unwrap();
        link.connection().wait_for(|connection| connection.up).await.unwrap();
        let server = ServerId::random();
        let ask = || Box::pin(Arc::clone(&link).call(Some(server), |_| Ok(())));
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn(Arc::clone(&link).call(Some(server), move |_| {
            gate.recv().ok();
            Ok(())
        }));
        let mut second = ask();
        assert!(futures::poll!(&mut second).is_pending(), "the first one has its turn");
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(10), ask()).await.expect("the third one gets its turn").unwrap();
        drop(second);
    }
}
