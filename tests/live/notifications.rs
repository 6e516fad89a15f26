//! What a listener of Nova's versioned notifications hears.

use std::time::Duration;

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cloud::{Cloud, SOON};

/// A queue of its own on the exchange `nova`.
struct Listener {
    runtime: Runtime,
    consumer: Consumer,
    _connection: Connection,
}

impl Listener {
    fn new(cloud: &Cloud) -> Self {
        let url = cloud.bench.cluster().expect("the cluster").amqp_url;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (connection, consumer) = runtime.block_on(listen(&url)).expect("a queue on the exchange nova");
        Self { runtime, consumer, _connection: connection }
    }

    /// The next notification, as a listener of oslo.messaging reads it.
    fn next(&mut self) -> Value {
        let next = async { tokio::time::timeout(Duration::from_secs(20), self.consumer.next()).await };
        let delivery = self.runtime.block_on(next).expect("a notification in time").expect("a connection").expect("a delivery");
        let envelope: Value = serde_json::from_slice(&delivery.data).expect("JSON");
        assert_eq!(envelope["oslo.version"], "2.0");
        serde_json::from_str(envelope["oslo.message"].as_str().expect("a text")).expect("JSON in JSON")
    }

    /// All of them up to this one.
    fn until(&mut self, event_type: &str) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.next());
            if heard.last().is_some_and(|told| told["event_type"] == event_type) {
                return heard;
            }
        }
    }
}

async fn listen(url: &str) -> Result<(Connection, Consumer), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let (name, all) = (queue.name().clone(), "versioned_notifications.*");
    channel.queue_bind(name.clone(), "nova".into(), all.into(), QueueBindOptions::default(), FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(name, "".into(), options, FieldTable::default()).await?;
    Ok((connection, consumer))
}

/// All that was heard but the scheduler's choice, with which it began.
fn after_the_choice(heard: &[Value]) -> &[Value] {
    let (choice, others) = heard.split_at(2);
    for (told, phase) in choice.iter().zip(["start", "end"]) {
        assert_eq!(told["event_type"], format!("scheduler.select_destinations.{phase}"), "{told:#}");
        assert!(told["publisher_id"].as_str().is_some_and(|publisher| publisher.starts_with("nova-scheduler:")), "{told:#}");
    }
    others
}

fn steps(heard: &[Value]) -> Vec<(&str, &str)> {
    heard
        .iter()
        .map(|told| {
            let event = told["event_type"].as_str().unwrap_or_default();
            (event.strip_prefix("instance.live_migration_").unwrap_or(event), told["publisher_id"].as_str().unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_listener_hears_each_step_of_a_move_an_abort_and_a_refusal() {
    let cloud = Cloud::new();
    cloud.set_option("conductor-1", "OSLO_MESSAGING_NOTIFICATIONS__DRIVER", "messagingv2");
    let mut listener = Listener::new(&cloud);
    let vm = cloud.boot_on_h1("notified");
    vm.start_migration(Some("h2"));
    vm.ended("completed", SOON);
    let heard = listener.until("instance.live_migration_post.end");
    let heard = after_the_choice(&heard);
    let (h1, h2) = ("nova-compute:h1", "nova-compute:h2");
    let expected =
        [("pre.start", h2), ("pre.end", h2), ("post.start", h1), ("post_dest.start", h2), ("post_dest.end", h2), ("post.end", h1)];
    assert_eq!(steps(heard), expected);
    let last = &heard[5]["payload"]["nova_object.data"];
    assert_eq!((&last["uuid"], &last["host"], &last["task_state"]), (&json!(vm.id()), &json!("h2"), &Value::Null), "{last:#}");

    // Refused: the host that it is on.
    assert_eq!(vm.act("2.30", &json!({"host": "h2", "block_migration": "auto"})).status, 400);
    let refused = listener.until("compute_task.migrate_server.error");
    let reason = &refused[0]["payload"]["nova_object.data"]["reason"]["nova_object.data"];
    assert_eq!((refused.len(), &refused[0]["priority"]), (1, &json!("ERROR")));
    assert_eq!(reason["exception"], "UnableToMigrateToSelf", "{reason:#}");

    // Taken back.
    cloud.cap_bandwidth("h2", 3);
    vm.start_migration(Some("h1"));
    let id = vm.copying()["id"].as_i64().expect("an id");
    assert_eq!(cloud.api.delete("2.65", &format!("/v2.1/servers/{}/migrations/{id}", vm.id())).status, 202);
    vm.ended("cancelled", SOON);
    let heard = listener.until("instance.live_migration_rollback.end");
    let heard = after_the_choice(&heard);
    let expected = [
        ("pre.start", h1),
        ("pre.end", h1),
        ("abort.start", h2),
        ("abort.end", h2),
        ("rollback.start", h2),
        ("rollback_dest.start", h1),
        ("rollback_dest.end", h1),
        ("rollback.end", h2),
    ];
    assert_eq!(steps(heard), expected);
}
