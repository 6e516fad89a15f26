//! A guest of a test, seen from both ends: what the API says of it, and what it says of itself.

use std::time::Duration;

use drover_testkit::{Answer, Guest, GuestSpec, LATEST, Mark, wait_for};
use serde_json::{Value, json};

use crate::cloud::{Cloud, SOON};

pub(crate) struct Vm<'a> {
    cloud: &'a Cloud,
    guest: Guest,
    born: Mark,
}

impl<'a> Vm<'a> {
    pub(crate) fn boot(cloud: &'a Cloud, spec: &GuestSpec) -> Self {
        let born = cloud.watch.mark();
        let guest = cloud.bench.create_guest(spec).unwrap_or_else(|e| panic!("guest {} boots: {}", spec.name, e.chain()));
        let vm = Self { cloud, guest, born };
        wait_for("Drover to adopt the guest", SOON, || vm.server()["OS-EXT-SRV-ATTR:host"] == spec.host.as_str()).expect("adopted");
        if !spec.paused {
            cloud.watch.wait_for_life(vm.guest.address(), born, SOON).expect("the guest is heard");
        }
        vm
    }

    pub(crate) fn id(&self) -> &str {
        self.guest.uuid()
    }

    pub(crate) fn name(&self) -> &str {
        self.guest.name()
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The server as the API shows it; null when it cannot be had.
    pub(crate) fn server(&self) -> Value {
        self.cloud.api.server(self.id())
    }

    pub(crate) fn host(&self) -> String {
        self.server()["OS-EXT-SRV-ATTR:host"].as_str().unwrap_or_default().to_owned()
    }

    /// `os-migrateLive` with this body.
    pub(crate) fn act(&self, microversion: &str, body: &Value) -> Answer {
        self.cloud.api.post(microversion, &format!("/v2.1/servers/{}/action", self.id()), &json!({"os-migrateLive": body}))
    }

    /// Any other action, by its body.
    pub(crate) fn action_of(&self, body: &Value) -> Answer {
        self.cloud.api.post(LATEST, &format!("/v2.1/servers/{}/action", self.id()), body)
    }

    /// Asks for a live migration, asynchronously; `None` lets the scheduler choose.
    pub(crate) fn migrate(&self, host: Option<&str>) -> Answer {
        self.cloud.api.live_migrate(self.id(), host)
    }

    /// The same, and it must be accepted.
    pub(crate) fn start_migration(&self, host: Option<&str>) {
        let answer = self.migrate(host);
        assert_eq!(answer.status, 202, "{}", answer.message());
    }

    /// Everything that is known of the server's newest migration.
    pub(crate) fn migration(&self) -> Value {
        self.cloud.api.newest_migration(self.id())
    }

    /// The server's newest instance action with its events, oldest first.
    pub(crate) fn action(&self) -> Value {
        let path = format!("/v2.1/servers/{}/os-instance-actions", self.id());
        let listed = self.cloud.api.get(LATEST, &path);
        let request = listed.body["instanceActions"][0]["request_id"].as_str().unwrap_or_default().to_owned();
        self.cloud.api.get(LATEST, &format!("{path}/{request}")).body["instanceAction"].take()
    }

    /// Waits until the copy runs: libvirt's job is there and has sent something.
    pub(crate) fn copying(&self) -> Value {
        let sent = |m: &Value| m["status"] == "running" && m["progress"]["memory_processed"].as_i64().unwrap_or(0) > 0;
        wait_for("the copy to run", SOON, || sent(&self.migration())).unwrap_or_else(|e| panic!("{e}: {}", self.migration()));
        self.migration()
    }

    /// Waits until nothing is being done to the server; its newest migration then.
    pub(crate) fn settled(&self, within: Duration) -> Value {
        wait_for("the server to be free", within, || {
            let server = self.server();
            server.is_object() && server["OS-EXT-STS:task_state"].is_null()
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.migration()));
        self.migration()
    }

    /// Waits until the migration ended as `status`.
    pub(crate) fn ended(&self, status: &str, within: Duration) -> Value {
        let migration = self.settled(within);
        assert_eq!(migration["status"], status, "{migration:#}");
        migration
    }

    /// The server is on this host, in this status, free; and libvirt has the guest there and nowhere else.
    pub(crate) fn assert_on(&self, host: &str, status: &str) {
        let server = self.server();
        assert_eq!(server["OS-EXT-SRV-ATTR:host"], host, "{}", self.migration());
        assert_eq!(server["status"], status, "{server}");
        for there in self.cloud.bench.hosts().expect("hosts") {
            let Ok(state) = self.guest.state_on(&there) else { continue };
            let expected = if status == "PAUSED" { "paused" } else { "running" };
            let right = if there.name() == host { state.as_deref() == Some(expected) } else { state.is_none() };
            assert!(right, "{} on {} is {state:?}; the server is on {host}", self.name(), there.name());
        }
    }

    /// The guest is alive now, was never restarted, never ran twice, and lost no page and no block.
    pub(crate) fn assert_unharmed(&self) {
        let (watch, address) = (&self.cloud.watch, self.guest.address());
        watch.wait_for_life(address, watch.mark(), SOON).expect("the guest is heard");
        let seen = watch.observed(address).expect("the guest was heard");
        assert!(seen.is_unharmed(), "{seen:?}");
    }

    /// The longest silence of the guest since it was born, in milliseconds.
    pub(crate) fn longest_gap_ms(&self) -> u128 {
        self.cloud.watch.longest_gap_since(self.guest.address(), self.born).map_or(u128::MAX, |gap| gap.length.as_millis())
    }
}
