//! Drover's test bench: a small cloud of real parts on one machine.
//!
//! Each host of the bench is a set of namespaces with its own libvirtd, identity and directories; guests are real QEMU machines
//! (emulated, so no KVM is needed) whose workload shows whether a migration did them harm; PostgreSQL and RabbitMQ are private
//! instances. `deploy/dev/bench` is the command line; live tests and the benchmark use this library:
//!
//! ```no_run
//! use drover_testkit::{Bench, Disk, GuestSpec, UpOptions};
//!
//! # fn main() -> drover_testkit::Result<()> {
//! let bench = Bench::from_env()?;
//! bench.up(&UpOptions::default())?;
//! let watch = bench.watch()?;
//! let guest = bench.create_guest(&GuestSpec { disk: Disk::Shared, ..GuestSpec::new("web", "h1") })?;
//! let before = watch.mark();
//! // … migrate it …
//! assert!(watch.observed(guest.address()).is_some_and(|seen| seen.is_unharmed()));
//! println!("longest silence: {:?}", watch.longest_gap_since(guest.address(), before));
//! # Ok(())
//! # }
//! ```
//!
//! How the parts fit together:
//!
//! - [`plan`]: every name, address and port, from one number.
//! - [`supervisor`]: who holds the processes, and why nothing can be left behind.
//! - [`host`], `network`, `libvirtd`, `pki`, `older`: what makes a host.
//! - `postgres`, `rabbitmq`, `drover`: the services.
//! - [`guest`] and [`workload`]: what runs on the hosts; [`watch`]: what is seen of it.
//! - `up`, `down`, [`mod@bench`], [`process`], [`cluster`]: putting it together and taking it apart.
//! - [`api`]: a client of Drover's REST API; [`demo`]: a tour for newcomers.

pub mod api;
pub mod bench;
pub mod cluster;
mod command;
pub mod demo;
mod down;
mod drover;
pub mod error;
pub mod guest;
pub mod host;
pub mod identity;
mod layout;
mod libvirtd;
mod lock;
mod network;
mod older;
mod pki;
pub mod plan;
mod postgres;
pub mod process;
mod rabbitmq;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod up;
pub mod wait;
pub mod watch;
pub mod workload;

pub use api::{Answer, Api, LATEST};
pub use bench::Bench;
pub use cluster::{Cluster, ClusterHost, ClusterProcess};
pub use error::{BenchError, Result};
pub use guest::{BASE_PATTERN, CONSOLE_PORT, Disk, Guest, GuestSpec};
pub use host::Host;
pub use libvirtd::installed_major_version;
pub use plan::Plan;
pub use process::Process;
pub use state::HostKind;
pub use up::UpOptions;
pub use wait::{Look, wait_for, wait_until};
pub use watch::{Gap, GuestWatch, Mark, Observed};
