//! A cloud for one test: the bench, its API, guests that are removed at the end, and processes that are as they were.
//!
//! The bench is one, so tests take turns. Whatever a test changed (a stopped process, an option, a cut link) is put right when its
//! [`Cloud`] goes away, also when the test failed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_testkit::{Api, Bench, GuestSpec, GuestWatch, Host, LATEST, UpOptions, wait_for};

use crate::vm::Vm;

static TURN: Mutex<()> = Mutex::new(());

/// The hosts that every test finds.
pub(crate) const HOSTS: u8 = 3;
/// The longest that anything on the bench may take that is not slowed down on purpose.
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) struct Cloud {
    pub bench: Bench,
    pub api: Api,
    pub watch: GuestWatch,
    options: Mutex<Vec<(String, String)>>,
    conductors: Mutex<Vec<String>>,
    bridges: Mutex<Vec<(String, String)>>,
    _turn: MutexGuard<'static, ()>,
}

impl Cloud {
    /// The cloud, healthy, without guests.
    pub(crate) fn new() -> Self {
        let turn = lock(&TURN);
        let bench = Bench::from_env().expect("the bench of this checkout").quiet();
        let cluster =
            bench.up(&UpOptions { hosts: Some(HOSTS), older: 0, infrastructure_only: false }).expect("the bench comes up");
        for guest in bench.guests().expect("a list of guests") {
            bench.remove_guest(guest.name()).expect("a guest that an earlier test left is removed");
        }
        let api = Api::new(&cluster.api);
        // A host that an earlier test cut off may take a while to find the broker again.
        wait_for("the agents to be heard", SOON * 2, || (1..=HOSTS).all(|host| is_up(&api, &format!("h{host}"))))
            .expect("every host is up");
        let watch = bench.watch().expect("a receiver for the guests' datagrams");
        let (options, conductors, bridges) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { api, bench, watch, options, conductors, bridges, _turn: turn }
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.bench.host(name).expect("a host of the bench")
    }

    /// Boots a guest and waits until Drover knows it as a server.
    pub(crate) fn boot(&self, spec: &GuestSpec) -> Vm<'_> {
        Vm::boot(self, spec)
    }

    /// Boots the simplest guest on `h1`.
    pub(crate) fn boot_on_h1(&self, name: &str) -> Vm<'_> {
        self.boot(&GuestSpec::new(name, "h1"))
    }

    /// Sets an option of a process through its environment and starts it anew; undone at the end.
    pub(crate) fn set_option(&self, process: &str, option: &str, value: &str) {
        let key = format!("DROVER_{option}");
        self.bench.set_environment(process, &key, Some(value)).expect("an option is set");
        lock(&self.options).push((process.to_owned(), key));
        self.restart(process);
    }

    /// Sets several options of an agent's `[libvirt]` and starts it anew once.
    pub(crate) fn set_agent_options(&self, host: &str, options: &[(&str, &str)]) {
        let process = format!("compute-{host}");
        for (option, value) in options {
            let key = format!("DROVER_LIBVIRT__{option}");
            self.bench.set_environment(&process, &key, Some(value)).expect("an option is set");
            lock(&self.options).push((process.clone(), key));
        }
        self.restart(&process);
    }

    pub(crate) fn restart(&self, process: &str) {
        self.stop(process);
        self.start(process);
    }

    pub(crate) fn stop(&self, process: &str) {
        self.bench.process(process).and_then(|p| p.stop()).unwrap_or_else(|e| panic!("{process} stops: {}", e.chain()));
    }

    pub(crate) fn kill(&self, process: &str) {
        self.bench.process(process).and_then(|p| p.kill()).unwrap_or_else(|e| panic!("{process} is killed: {}", e.chain()));
    }

    pub(crate) fn start(&self, process: &str) {
        self.bench.process(process).and_then(|p| p.start()).unwrap_or_else(|e| panic!("{process} starts: {}", e.chain()));
    }

    /// One more conductor; gone at the end.
    pub(crate) fn add_conductor(&self, name: &str) {
        lock(&self.conductors).push(name.to_owned());
        self.start(name);
    }

    /// One more bridge on a host, which leads to the same network as its first one; gone at the end.
    pub(crate) fn add_bridge(&self, host: &str, bridge: &str) {
        lock(&self.bridges).push((host.to_owned(), bridge.to_owned()));
        for arguments in [
            format!("link add {bridge} type bridge mcast_snooping 0"),
            format!("link add {bridge}-up type veth peer name {bridge}-down"),
            format!("link set {bridge}-up master br0 up"),
            format!("link set {bridge}-down master {bridge} up"),
            format!("link set {bridge} up"),
        ] {
            self.host(host).run("ip", arguments.split(' ')).unwrap_or_else(|e| panic!("ip {arguments}: {}", e.chain()));
        }
    }

    /// Slows every migration away from `host` down to this many MiB/s.
    pub(crate) fn cap_bandwidth(&self, host: &str, mib_s: u32) {
        self.set_option(&format!("compute-{host}"), "LIBVIRT__LIVE_MIGRATION_BANDWIDTH", &mib_s.to_string());
    }
}

fn is_up(api: &Api, host: &str) -> bool {
    let services = api.get(LATEST, &format!("/v2.1/os-services?host={host}&binary=nova-compute"));
    services.body["services"][0]["state"] == "up"
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Put right what can be; the next test's `new` says what cannot.
        for host in self.bench.hosts().unwrap_or_default() {
            host.plug().ok();
            host.run("nft", ["flush ruleset"]).ok();
        }
        self.bench.fabric("nft", ["flush ruleset"]).ok();
        for conductor in std::mem::take(&mut *lock(&self.conductors)) {
            self.bench.remove_conductor(&conductor).ok();
        }
        let options = std::mem::take(&mut *lock(&self.options));
        for (process, key) in options {
            self.bench.set_environment(&process, &key, None).ok();
            if let Ok(process) = self.bench.process(&process) {
                process.stop().ok();
            }
        }
        for guest in self.bench.guests().unwrap_or_default() {
            self.bench.remove_guest(guest.name()).ok();
        }
        for (host, bridge) in std::mem::take(&mut *lock(&self.bridges)) {
            if let Ok(host) = self.bench.host(&host) {
                host.run("ip", ["link", "delete", &format!("{bridge}-up")]).ok();
                host.run("ip", ["link", "delete", &bridge]).ok();
            }
        }
        let hosts = self.bench.hosts().unwrap_or_default();
        for extra in hosts.iter().skip(usize::from(HOSTS)) {
            self.bench.remove_host(&extra.name()).ok();
        }
    }
}
