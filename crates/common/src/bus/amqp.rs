//! The bus over RabbitMQ.
//!
//! ```text
//! drover.conductor (direct) ── "conductor" ──▶ conductor          quorum, delivery limit, bounded, dead letters: conductor.dead
//!                           ├─ "conductor.<life>" ─▶ one conductor   exclusive
//!                           └─ "api.<life>" ─▶ one API process       exclusive
//! drover.compute (direct)   ── "compute.<host>" ─▶ one agent         exclusive: no agent, no queue
//! nova (topic)              ── "versioned_notifications.<priority>" ─▶ whoever bound a queue
//! ```
//!
//! Agents may write to `drover.conductor` only and read their own queue only (permissions in `docs/messages.md`). Everything is
//! published `mandatory` and confirmed. One task owns the connection and makes it again, for ever, with a growing pause.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use super::amqp_tls::Credentials;
use super::{Acknowledge, Address, Arrival, Bus, Inbox, Incoming, Parcel, SendError, Sender, Transport};
use crate::config::{Config, ConfigError};
use crate::ids::MessageId;
use crate::telemetry;

const TO_CONTROL: &str = "drover.conductor";
const TO_AGENTS: &str = "drover.compute";
/// Nova's `control_exchange`: listeners of notifications know it.
const NOTIFICATIONS: &str = "nova";
const DEAD_LETTERS: &str = "drover.dead";
const DEAD_QUEUE: &str = "conductor.dead";

/// lapin has buffers for 32 frames each way: with RabbitMQ's 128 KiB for a frame they are 8 MiB of each process. Longer messages come
/// in several frames. `frame_max` in the URL wins.
const FRAME_BYTES: u32 = 16 << 10;
/// Two of them missed, and the broker drops the connection and with it an agent's queue.
const HEARTBEAT_SECONDS: u16 = 5;
/// Messages from the shared queue that one process works on at a time.
const PREFETCH_SHARED: u16 = 64;
/// Unacknowledged messages from a process's own queue, where its answers come in, too: more than it ever works on at a time, so
/// that an answer never waits for the handler that waits for it.
pub(super) const PREFETCH_OWN: u16 = 512;
/// How long the broker has for the goodbye on a connection that is given up.
const GOODBYE: Duration = Duration::from_secs(1);
/// Deliveries of one message before it is put among the dead letters: whatever fails so often is not going to work.
const DELIVERY_LIMIT: i64 = 20;
/// Messages in the shared queue and among the dead letters; beyond it the broker refuses, and senders keep what matters on rows.
const QUEUE_LENGTH: i64 = 100_000;

/// Starts the connection to the broker of this configuration. It need not be there yet.
pub fn start(config: &Config, own: Address) -> Result<(Bus, mpsc::Receiver<Incoming>), ConfigError> {
    let url = &config.default.transport_url;
    let mut uri: AMQPUri = url.expose().parse().map_err(|e: String| {
        ConfigError::not_allowed("[DEFAULT] transport_url", url, format_args!("amqp(s)://USER:PASSWORD@HOST:PORT/VHOST ({e})"))
    })?;
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    uri.query.connection_timeout = Some(5000);
    uri.query.frame_max.get_or_insert(FRAME_BYTES);
    let user = uri.authority.userinfo.username.clone();
    if let Address::Compute(host) = &own
        && user != format!("compute-{host}")
    {
        let allowed = format!("the agent of {host} must log in as compute-{host}: the broker vouches for hosts by their users");
        return Err(ConfigError::not_allowed("[DEFAULT] transport_url", format!("amqp://{user}:***@…"), allowed));
    }
    let credentials = Credentials::new(&config.oslo_messaging_rabbit, &uri)?;
    let (publisher, channel) = watch::channel(None);
    let link = Link { uri, credentials, own: own.clone(), publisher };
    Ok(Bus::new(own, |inbox| {
        // Not tracked: it must outlive the tasks that still have something to send; the end of the process ends it.
        tokio::spawn(link.keep(inbox));
        Arc::new(AmqpTransport { publisher: channel, user })
    }))
}

struct Link {
    uri: AMQPUri,
    credentials: Credentials,
    own: Address,
    publisher: watch::Sender<Option<Publisher>>,
}

/// The channel of one connection on which everything is published.
#[derive(Clone)]
struct Publisher {
    channel: Channel,
    /// Told by whoever finds the channel closed: nothing else listens to it.
    broken: Arc<Notify>,
}

impl Link {
    /// Connects, serves until the connection breaks, and again.
    async fn keep(self, inbox: Inbox) {
        let pauses = || {
            let builder =
                ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_delay(Duration::from_secs(5));
            builder.with_jitter().without_max_times().build()
        };
        let mut backoff = pauses();
        loop {
            match self.connect().await {
                Ok((connection, publisher, consumers)) => {
                    info!(broker = %self.uri.authority.host, "connected to the broker");
                    backoff = pauses();
                    let broken = Arc::new(Notify::new());
                    self.publisher.send_replace(Some(Publisher { channel: publisher, broken: Arc::clone(&broken) }));
                    inbox.set_connected();
                    let why = tokio::select! {
                        why = Self::receive(consumers, &inbox) => why,
                        () = broken.notified() => "the channel for publishing is closed".to_owned(),
                    };
                    self.publisher.send_replace(None);
                    inbox.set_disconnected();
                    warn!(error = why, "connection to the broker lost");
                    // It may still be open: the broker must forget its queues before the next one declares them.
                    tokio::time::timeout(GOODBYE, connection.close(200, ShortString::from("reconnecting"))).await.ok();
                }
                Err(error) => {
                    warn!(error = telemetry::chain(&error), broker = %self.uri.authority.host, "no connection to the broker");
                }
            }
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }

    async fn connect(&self) -> Result<(Connection, Channel, Vec<Consumer>), lapin::Error> {
        let name = LongString::from(self.own.to_string());
        let properties = ConnectionProperties::default().with_connection_name(name);
        let (tls, runtime) = (self.credentials.read().await?, lapin::runtime::default_runtime()?);
        let connection = Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime).await?;
        let publisher = connection.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        let channel = connection.create_channel().await?;
        let mut consumers = Vec::new();
        let exchange = exchange_of(&self.own);
        if !matches!(self.own, Address::Compute(_)) {
            declare_exchanges(&channel).await?;
        }
        if matches!(self.own, Address::ConductorProcess(_)) {
            declare_shared_queue(&channel).await?;
            consumers.push(consume(&channel, &Address::Conductor, PREFETCH_SHARED).await?);
        }
        let own = ShortString::from(self.own.to_string());
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(own.clone(), exclusive, FieldTable::default()).await?;
        channel.queue_bind(own.clone(), exchange.into(), own, QueueBindOptions::default(), FieldTable::default()).await?;
        consumers.push(consume(&channel, &self.own, PREFETCH_OWN).await?);
        Ok((connection, publisher, consumers))
    }

    /// Takes deliveries until a consumer ends, for whatever reason: a channel that closed, or a queue that the broker took away from
    /// under one of several. Returns why.
    async fn receive(consumers: Vec<Consumer>, inbox: &Inbox) -> String {
        let mut deliveries = until_one_ends(consumers);
        while let Some(delivery) = deliveries.next().await {
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => return telemetry::chain(&error),
            };
            match arrival(delivery) {
                Ok(arrival) => inbox.put(arrival).await,
                Err((delivery, why)) => {
                    warn!(why, "message refused");
                    // No requeue: it would come back the same. On the shared queue it goes among the dead letters.
                    delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.ok();
                }
            }
        }
        "the broker closed the channel or ended a consumer".to_owned()
    }
}

/// All items of several streams, until the first of them has no more.
fn until_one_ends<S: Stream + Unpin>(streams: Vec<S>) -> impl Stream<Item = S::Item> + Unpin {
    let marked = streams.into_iter().map(|stream| stream.map(Some).chain(futures::stream::once(futures::future::ready(None))));
    futures::stream::select_all(marked).take_while(|item| futures::future::ready(item.is_some())).filter_map(futures::future::ready)
}

fn exchange_of(address: &Address) -> &'static str {
    match address {
        Address::Compute(_) => TO_AGENTS,
        Address::Notifications(_) => NOTIFICATIONS,
        Address::Conductor | Address::ConductorProcess(_) | Address::ApiProcess(_) => TO_CONTROL,
    }
}

async fn declare_exchanges(channel: &Channel) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for exchange in [TO_CONTROL, TO_AGENTS] {
        channel.exchange_declare(exchange.into(), ExchangeKind::Direct, durable, FieldTable::default()).await?;
    }
    channel.exchange_declare(NOTIFICATIONS.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    channel.exchange_declare(DEAD_LETTERS.into(), ExchangeKind::Fanout, durable, FieldTable::default()).await
}

async fn declare_shared_queue(channel: &Channel) -> Result<(), lapin::Error> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let bounded = |overflow: &str| {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        table.insert("x-max-length".into(), AMQPValue::LongLongInt(QUEUE_LENGTH));
        table.insert("x-overflow".into(), AMQPValue::LongString(overflow.into()));
        table
    };
    channel.queue_declare(DEAD_QUEUE.into(), durable, bounded("drop-head")).await?;
    channel
        .queue_bind(
            DEAD_QUEUE.into(),
            DEAD_LETTERS.into(),
            ShortString::from(""),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut shared = bounded("reject-publish");
    shared.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    shared.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(DEAD_LETTERS.into()));
    let name = ShortString::from(Address::Conductor.to_string());
    channel.queue_declare(name.clone(), durable, shared).await?;
    channel.queue_bind(name.clone(), TO_CONTROL.into(), name, QueueBindOptions::default(), FieldTable::default()).await
}

async fn consume(channel: &Channel, address: &Address, prefetch: u16) -> Result<Consumer, lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?; // Holds for the consumers that come after it.
    let queue = ShortString::from(address.to_string());
    channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// Reads what the bus needs from the properties, or says what is wrong with them.
fn arrival(mut delivery: Delivery) -> Result<Arrival, (Box<Delivery>, &'static str)> {
    let properties = &delivery.properties;
    let Some(sender) = properties.user_id().as_ref().and_then(|user| Sender::from_user(user.as_str())) else {
        return Err((Box::new(delivery), "no user_id: the broker vouches for nobody"));
    };
    let id = |text: &Option<ShortString>| text.as_ref().and_then(|t| t.as_str().parse::<MessageId>().ok());
    let Some(message_id) = id(properties.message_id()) else {
        return Err((Box::new(delivery), "no message_id"));
    };
    let answers = id(properties.correlation_id());
    let reply_to = properties.reply_to().as_ref().and_then(|t| t.as_str().parse().ok());
    let payload = std::mem::take(&mut delivery.data);
    Ok(Arrival { sender, payload, message_id, answers, reply_to, acknowledge: Box::new(Delivered(delivery)) })
}

struct Delivered(Delivery);

impl Acknowledge for Delivered {
    fn ack(self: Box<Self>) -> BoxFuture<'static, ()> {
        // A failed ack means that the connection is gone: then the message comes again, which every handler must bear anyway.
        async move {
            self.0.ack(BasicAckOptions::default()).await.ok();
        }
        .boxed()
    }

    fn requeue(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            self.0.nack(BasicNackOptions { requeue: true, multiple: false }).await.ok();
        }
        .boxed()
    }
}

struct AmqpTransport {
    publisher: watch::Receiver<Option<Publisher>>,
    user: String,
}

impl Publisher {
    /// The channel is of no more use, though its connection may live.
    fn give_up(&self, error: &lapin::Error, to: &Address) -> SendError {
        debug!(error = telemetry::chain(error), to = %to, "publish failed");
        self.broken.notify_one();
        SendError::Disconnected
    }
}

impl AmqpTransport {
    fn properties(&self, parcel: &Parcel) -> BasicProperties {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_user_id(self.user.as_str().into())
            .with_message_id(parcel.message_id.to_string().into())
            .with_delivery_mode(if parcel.durable { 2 } else { 1 });
        if let Some(question) = parcel.answers {
            properties = properties.with_correlation_id(question.to_string().into());
        }
        if let Some(address) = &parcel.reply_to {
            properties = properties.with_reply_to(address.to_string().into());
        }
        if let Some(expiration) = parcel.expiration {
            properties = properties.with_expiration(expiration.as_millis().to_string().into());
        }
        properties
    }
}

impl Transport for AmqpTransport {
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), SendError>> {
        async move {
            let publisher = self.publisher.borrow().clone().ok_or(SendError::Disconnected)?;
            let Ok(key) = ShortString::try_new(parcel.to.to_string()) else {
                return Err(SendError::Unroutable(parcel.to));
            };
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let properties = self.properties(&parcel);
            let confirm =
                publisher.channel.basic_publish(exchange_of(&parcel.to).into(), key, options, &parcel.payload, properties).await;
            match confirm.map_err(|error| publisher.give_up(&error, &parcel.to))?.await {
                Ok(Confirmation::Ack(None)) => Ok(()),
                Ok(Confirmation::Ack(Some(_))) => Err(SendError::Unroutable(parcel.to)),
                Ok(Confirmation::Nack(_)) => Err(SendError::Refused { to: parcel.to, why: "the queue is full".to_owned() }),
                Ok(Confirmation::NotRequested) => Err(SendError::Refused { to: parcel.to, why: "no confirmation mode".to_owned() }),
                Err(error) => Err(publisher.give_up(&error, &parcel.to)),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn one_consumer_that_ends_ends_all() {
        let (sender, lives) = mpsc::unbounded_channel();
        sender.send(1).unwrap();
        let lives = stream::unfold(lives, |mut lives| async { lives.recv().await.map(|item| (item, lives)) }).boxed();
        let items = until_one_ends(vec![lives, stream::iter([2, 3]).boxed()]);
        let seen: Vec<i32> = tokio::time::timeout(Duration::from_secs(5), items.collect()).await.expect("it ends");
        assert!(seen.contains(&2) && seen.contains(&3), "{seen:?}");
        drop(sender);
    }
}
