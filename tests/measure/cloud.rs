//! What is measured on: a bench with two hosts, and guests that do nothing.

use std::mem;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use drover_testkit::{Api, Bench, BenchError, Guest, GuestSpec, GuestWatch, Host, Look, Result, UpOptions, wait_until};

use crate::methods;

/// The conductor of every bench.
pub(crate) const CONDUCTOR: &str = "conductor-1";
/// The longest that anything here may take.
pub(crate) const SOON: Duration = Duration::from_mins(2);

const HOSTS: [&str; 2] = ["h1", "h2"];
/// Quiet before each measured move, so that it does not pay for what the one before left to do (a QEMU that ends, reports).
const QUIET: Duration = Duration::from_millis(500);
/// When libvirt tells again of a guest that Drover has not followed yet; see [`methods::tell_again`].
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// The limit of migrations that leave one host at a time, 1 by default, as Nova's.
const LIMIT: &str = "DROVER_DEFAULT__MAX_CONCURRENT_LIVE_MIGRATIONS";

/// The bench, its API, and an ear for its guests.
pub(crate) struct Cloud {
    pub bench: Bench,
    pub api: Api,
    watch: GuestWatch,
}

/// Where the next move goes.
pub(crate) struct Route {
    pub source: Host,
    pub destination: Host,
}

impl Route {
    /// And back.
    pub(crate) fn turn(&mut self) {
        mem::swap(&mut self.source, &mut self.destination);
    }
}

impl Cloud {
    /// Brings everything up.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        let hosts = u8::try_from(HOSTS.len()).ok();
        let cluster = bench.up(&UpOptions { hosts, older: 0, infrastructure_only: false })?;
        Ok(Self { bench: bench.clone(), api: Api::new(&cluster.api), watch: bench.watch()? })
    }

    /// From the first host to the second: guests boot on the first.
    pub(crate) fn route(&self) -> Result<Route> {
        let [source, destination] = HOSTS;
        Ok(Route { source: self.bench.host(source)?, destination: self.bench.host(destination)? })
    }

    /// Boots a guest of 128 MiB without a disk and waits until Drover knows it.
    pub(crate) fn boot(&self, name: &str) -> Result<Guest> {
        eprintln!("    booting {name}");
        let host = self.route()?.source;
        let guest = self.bench.create_guest(&GuestSpec::new(name, &host.name()))?;
        self.settle(slice::from_ref(&guest), &host)?;
        Ok(guest)
    }

    /// Ends a guest; the next may get its address.
    pub(crate) fn remove(&self, guest: &Guest) -> Result<()> {
        self.bench.remove_guest(guest.name())?;
        self.watch.forget(guest.address());
        Ok(())
    }

    /// Lets any number of guests leave a host at the same time.
    pub(crate) fn lift_limits(&self) -> Result<()> {
        self.bench.set_environment(CONDUCTOR, LIMIT, Some("0"))?;
        let conductor = self.bench.process(CONDUCTOR)?;
        conductor.stop()?;
        conductor.start()
    }

    /// Waits until the guests live on this host, unharmed, as far as Drover knows, too, and all is quiet.
    pub(crate) fn settle(&self, guests: &[Guest], host: &Host) -> Result<()> {
        for guest in guests {
            let mut told = Instant::now();
            wait_until(&format!("{} to be ACTIVE on {}", guest.name(), host.name()), SOON, || {
                let server = self.api.server(guest.uuid());
                let there = server["OS-EXT-SRV-ATTR:host"] == host.name();
                let free = server["OS-EXT-STS:task_state"].is_null() && server["status"] == "ACTIVE";
                if there && free {
                    return Ok(Look::Done(()));
                }
                if told.elapsed() > TELL_AGAIN {
                    methods::tell_again(guest, host)?;
                    told = Instant::now();
                }
                Ok(Look::NotYet(server.to_string()))
            })?;
            let seen = self.watch.wait_for_life(guest.address(), self.watch.mark(), SOON)?;
            if !seen.is_unharmed() {
                return Err(BenchError::Refused(format!("{} was harmed on its way to {}: {seen:?}", guest.name(), host.name())));
            }
        }
        thread::sleep(QUIET);
        Ok(())
    }
}
