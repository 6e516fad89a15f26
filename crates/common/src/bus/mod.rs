//! The message bus: casts and calls between API, conductor and agents.
//!
//! [`Bus`] is what everybody uses. Below it a [`Transport`] carries parcels: [`amqp`] over RabbitMQ, [`memory`] within one process
//! for tests. What the bus promises, and no more:
//!
//! - `Ok` from [`Bus::cast`] means that the broker has the message and that a queue took it. No agent, no queue: then it is
//!   [`SendError::Unroutable`] at once.
//! - A message may come late or twice. What must not be lost is on a row before it is sent.
//! - The sender of an [`Incoming`] is vouched for by the broker.

pub mod amqp;
mod amqp_tls;
pub mod memory;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::fault::Fault;
use crate::ids::{HostName, Incarnation, MessageId};
use crate::metrics::DEPENDENCY_UP;
use crate::names;
use crate::rpc::Envelope;
use crate::rpc::envelope::{MAX_MESSAGE_BYTES, VERSION, Version, decode};

/// Where a message can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Any conductor: the shared, durable queue.
    Conductor,
    /// One conductor's own queue: replies, and agents that ask back.
    ConductorProcess(Incarnation),
    /// One API process's own queue.
    ApiProcess(Incarnation),
    /// The agent of one host.
    Compute(HostName),
    /// Whoever listens to notifications: nobody may, and that is no error to the sender.
    Notifications(Priority),
}

/// How loud a notification is (`nova/objects/fields.py`, `NotificationPriority`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Something happened.
    Info,
    /// Something failed.
    Error,
}
names!("notification priority", Priority { Info = "info", Error = "error" });

/// The topic of versioned notifications (Nova's default `versioned_notifications_topics`).
const NOTIFICATIONS: &str = "versioned_notifications";

impl fmt::Display for Address {
    /// The name of the queue behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conductor => f.write_str("conductor"),
            Self::ConductorProcess(life) => write!(f, "conductor.{life}"),
            Self::ApiProcess(life) => write!(f, "api.{life}"),
            Self::Compute(host) => write!(f, "compute.{host}"),
            Self::Notifications(priority) => write!(f, "{NOTIFICATIONS}.{priority}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no address");
        match text.split_once('.') {
            None if text == "conductor" => Ok(Self::Conductor),
            Some(("conductor", life)) => life.parse().map(Self::ConductorProcess).map_err(|_| bad()),
            Some(("api", life)) => life.parse().map(Self::ApiProcess).map_err(|_| bad()),
            Some((NOTIFICATIONS, priority)) => priority.parse().map(Self::Notifications).map_err(|_| bad()),
            Some(("compute", host)) => host.parse().map(Self::Compute).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

/// Who sent a message, by the broker's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// API or conductor.
    Control,
    /// The agent of this host.
    Agent(HostName),
}

impl Sender {
    /// What the name of a broker's user means: `compute-<host>` is an agent, anything else belongs to the control plane.
    pub fn from_user(user: &str) -> Option<Self> {
        match user.strip_prefix("compute-") {
            Some(host) => HostName::new(host).ok().map(Self::Agent),
            None if user.is_empty() => None,
            None => Some(Self::Control),
        }
    }
}

/// Why a message did not get there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No queue: nobody is there.
    #[error("nobody listens at {0}")]
    Unroutable(Address),
    /// No connection to the broker.
    #[error("no connection to the broker")]
    Disconnected,
    /// The broker would not take it (queue full, permission).
    #[error("the broker refused a message to {to}: {why}")]
    Refused {
        /// The address.
        to: Address,
        /// The broker's words.
        why: String,
    },
    /// It cannot be put into bytes, or into too many.
    #[error("message cannot be sent: {0}")]
    Unsendable(String),
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The question did not get there.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No answer came in time. Nothing is known of what was done.
    #[error("no answer from {to} within {} s", within.as_secs_f32())]
    Timeout {
        /// Who was asked.
        to: Address,
        /// How long was waited.
        within: Duration,
    },
    /// The connection broke in between. Nothing is known of what was done.
    #[error("connection to the broker lost while waiting for {0}")]
    Lost(Address),
    /// The answer is a refusal or a failure.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A message on its way, already in bytes.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Where to.
    pub to: Address,
    /// The message, JSON.
    pub payload: Vec<u8>,
    /// Its id.
    pub message_id: MessageId,
    /// The question it answers.
    pub answers: Option<MessageId>,
    /// Where an answer is expected.
    pub reply_to: Option<Address>,
    /// After this nobody wants it any more.
    pub expiration: Option<Duration>,
    /// Whether it shall survive a restart of the broker.
    pub durable: bool,
}

/// What carries parcels.
pub trait Transport: Send + Sync {
    /// Sends one; `Ok` when a queue has it.
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), SendError>>;
}

/// Gives a message back to the broker's account, one way or the other.
pub trait Acknowledge: Send + Sync {
    /// Done with it.
    fn ack(self: Box<Self>) -> BoxFuture<'static, ()>;
    /// Not done: let another try (the broker counts, and puts it among the dead letters in the end).
    fn requeue(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A message that arrived.
pub struct Incoming {
    /// Who sent it.
    pub sender: Sender,
    payload: Vec<u8>,
    message_id: MessageId,
    reply_to: Option<Address>,
    acknowledge: Box<dyn Acknowledge>,
}

impl Incoming {
    /// Reads it.
    pub fn decode<M: DeserializeOwned>(&self) -> Result<Envelope<M>, Fault> {
        decode(&self.payload)
    }

    /// Where an answer to it goes, if one is wanted.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        let address = match (&self.sender, &self.reply_to) {
            // An agent gets its answers in its own queue, whatever it says.
            (Sender::Agent(host), Some(_)) => Address::Compute(host.clone()),
            (Sender::Control, Some(address)) => address.clone(),
            (_, None) => return None,
        };
        Some(ReplyTo { address, question: self.message_id })
    }

    /// Done with it.
    pub async fn ack(self) {
        self.acknowledge.ack().await;
    }

    /// Not done: let it come again.
    pub async fn requeue(self) {
        self.acknowledge.requeue().await;
    }
}

/// Where an answer goes.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    address: Address,
    question: MessageId,
}

impl ReplyTo {
    /// Who asked.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

#[derive(Serialize, Deserialize)]
struct Reply {
    version: Version,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok(serde_json::Value),
    Fault(Fault),
}

type Waiting = Mutex<HashMap<MessageId, oneshot::Sender<Vec<u8>>>>;

/// What a transport hands arrivals to: answers to those who wait, everything else to the inbox.
#[derive(Clone)]
pub struct Inbox {
    waiting: Arc<Waiting>,
    requests: mpsc::Sender<Incoming>,
    connected: watch::Sender<u64>,
    connected_at: Arc<Mutex<Instant>>,
}

/// A message as the transport got it.
pub struct Arrival {
    /// Who sent it.
    pub sender: Sender,
    /// The bytes.
    pub payload: Vec<u8>,
    /// Its id.
    pub message_id: MessageId,
    /// The question it answers.
    pub answers: Option<MessageId>,
    /// Where an answer is expected.
    pub reply_to: Option<Address>,
    /// How to give it back.
    pub acknowledge: Box<dyn Acknowledge>,
}

impl Inbox {
    /// Takes an arrival in. Waits while the inbox is full.
    pub async fn put(&self, arrival: Arrival) {
        let Arrival { sender, payload, message_id, answers, reply_to, acknowledge } = arrival;
        if let Some(question) = answers {
            if let Some(asker) = self.lock().remove(&question) {
                asker.send(payload).ok(); // Nobody there: the asker gave up just now.
            }
            acknowledge.ack().await;
            return;
        }
        let incoming = Incoming { sender, payload, message_id, reply_to, acknowledge };
        self.requests.send(incoming).await.ok(); // Closed inbox: the process ends; unacknowledged, it goes to another.
    }

    /// The connection is there (again).
    pub fn set_connected(&self) {
        *self.connected_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.connected.send_modify(|count| *count += 1);
        DEPENDENCY_UP.set(["broker"], 1.0);
    }

    /// The connection is gone: no answer will come any more.
    pub fn set_disconnected(&self) {
        self.lock().clear();
        DEPENDENCY_UP.set(["broker"], 0.0);
    }

    /// Begins to wait for the answer to a question.
    fn expect(&self, question: MessageId) -> Expected {
        let (sender, answer) = oneshot::channel();
        self.lock().insert(question, sender);
        Expected { inbox: self.clone(), question, answer }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MessageId, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is waited for. Whoever stops waiting, by whatever way, drops it, and the question is forgotten.
struct Expected {
    inbox: Inbox,
    question: MessageId,
    answer: oneshot::Receiver<Vec<u8>>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.inbox.lock().remove(&self.question);
    }
}

/// A process's way to all others. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    transport: Arc<dyn Transport>,
    own: Address,
    inbox: Inbox,
}

/// How many arrivals wait in a process. At least as many as a broker hands out before it wants acknowledgements: then putting one
/// in never has to wait, and an answer is never stuck behind questions.
const INBOX_LENGTH: usize = 1024;

impl Bus {
    /// Makes a bus; `start` gets the inbox and gives the transport. What arrives comes out of the receiver.
    pub fn new(own: Address, start: impl FnOnce(Inbox) -> Arc<dyn Transport>) -> (Self, mpsc::Receiver<Incoming>) {
        let (requests, arrivals) = mpsc::channel(INBOX_LENGTH);
        let inbox = Inbox {
            waiting: Arc::default(),
            requests,
            connected: watch::channel(0).0,
            connected_at: Arc::new(Mutex::new(Instant::now())),
        };
        (Self { transport: start(inbox.clone()), own, inbox }, arrivals)
    }

    /// This process's own address.
    pub fn own_address(&self) -> &Address {
        &self.own
    }

    /// Counts connections to the broker: 0 before the first. Whoever has to introduce itself again watches it.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.inbox.connected.subscribe()
    }

    /// How long ago the last connection to the broker was made.
    pub fn connected_for(&self) -> Duration {
        self.inbox.connected_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Sends a message that wants no answer; durable, so that a restart of the broker does not lose it.
    pub async fn cast<M: Serialize>(&self, to: &Address, envelope: &Envelope<M>) -> Result<(), SendError> {
        self.send(to, envelope, None, None, true).await
    }

    /// Sends a message that is worth nothing after `expiration`, such as a sample of progress.
    pub async fn cast_transient<M: Serialize>(
        &self,
        to: &Address,
        envelope: &Envelope<M>,
        expiration: Duration,
    ) -> Result<(), SendError> {
        self.send(to, envelope, None, Some(expiration), false).await
    }

    /// Tells whoever listens. The body is no envelope of ours: it is what listeners of Nova's notifications understand.
    pub async fn notify(&self, priority: Priority, body: &serde_json::Value) -> Result<(), SendError> {
        let parcel = Parcel {
            to: Address::Notifications(priority),
            payload: body.to_string().into_bytes(),
            message_id: MessageId::random(),
            answers: None,
            reply_to: None,
            expiration: None,
            durable: true,
        };
        match self.transport.send(parcel).await {
            Err(SendError::Unroutable(_)) => Ok(()),
            sent => sent,
        }
    }

    /// Asks and waits for the answer, at most `within`.
    pub async fn call<M: Serialize, R: DeserializeOwned>(
        &self,
        to: &Address,
        envelope: &Envelope<M>,
        within: Duration,
    ) -> Result<R, CallError> {
        let mut expected = self.inbox.expect(envelope.message_id);
        let asked = async {
            // The answer can overtake the broker's confirmation of the question; whichever comes first ends the wait.
            let question = self.send(to, envelope, Some(self.own.clone()), Some(within), false);
            let answer = &mut expected.answer;
            tokio::pin!(question);
            tokio::select! {
                biased;
                payload = &mut *answer => payload.map_err(|_| CallError::Lost(to.clone())),
                sent = &mut question => {
                    sent?;
                    answer.await.map_err(|_| CallError::Lost(to.clone()))
                }
            }
        };
        let payload = tokio::time::timeout(within, asked).await;
        let payload = payload.map_err(|_| CallError::Timeout { to: to.clone(), within })??;
        read_reply(&payload).map_err(CallError::Fault)
    }

    /// Answers a call. That the asker is gone is no error of ours.
    pub async fn reply<R: Serialize>(&self, to: Option<&ReplyTo>, answer: Result<R, Fault>) {
        let Some(ReplyTo { address, question }) = to else { return };
        let outcome = match answer.map(serde_json::to_value) {
            Ok(Ok(value)) => Outcome::Ok(value),
            Ok(Err(error)) => Outcome::Fault(Fault::unexpected(error)),
            Err(fault) => Outcome::Fault(fault),
        };
        let Ok(payload) = serde_json::to_vec(&Reply { version: VERSION, outcome }) else {
            return;
        };
        let parcel = Parcel {
            to: address.clone(),
            payload,
            message_id: MessageId::random(),
            answers: Some(*question),
            reply_to: None,
            expiration: None,
            durable: false,
        };
        if let Err(error) = self.transport.send(parcel).await {
            tracing::debug!(error = %error, to = %address, "answer not delivered");
        }
    }

    async fn send<M: Serialize>(
        &self,
        to: &Address,
        envelope: &Envelope<M>,
        reply_to: Option<Address>,
        expiration: Option<Duration>,
        durable: bool,
    ) -> Result<(), SendError> {
        let payload = serde_json::to_vec(envelope).map_err(|e| SendError::Unsendable(e.to_string()))?;
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(SendError::Unsendable(format!("{} bytes, at most {MAX_MESSAGE_BYTES} are allowed", payload.len())));
        }
        let message_id = envelope.message_id;
        self.transport.send(Parcel { to: to.clone(), payload, message_id, answers: None, reply_to, expiration, durable }).await
    }
}

fn read_reply<R: DeserializeOwned>(payload: &[u8]) -> Result<R, Fault> {
    let reply: Reply =
        serde_json::from_slice(payload).map_err(|e| Fault::unexpected(format_args!("answer cannot be read: {e}")))?;
    if reply.version.major != VERSION.major {
        return Err(Fault::unsupported_version(reply.version, VERSION));
    }
    match reply.outcome {
        Outcome::Ok(value) => {
            serde_json::from_value(value).map_err(|e| Fault::unexpected(format_args!("answer cannot be read: {e}")))
        }
        Outcome::Fault(fault) => Err(fault),
    }
}
