//! The API over a real PostgreSQL (`DATABASE_URL`; each test has a database of its own), with the bus in memory.
//!
//! Goldens are in `snapshots/`: one file a resource, with its answer at every microversion in which something changes.

mod aggregates;
mod bad_input;
mod discovery;
mod envelopes;
mod extension;
mod fixture;
mod flavors;
mod hypervisors;
mod instance_actions;
mod keypairs;
mod labels;
mod latency;
mod live_migrate;
mod live_migrate_legacy;
mod locks;
mod migrations;
mod observed;
mod openapi;
mod power;
mod prechecks;
mod races;
mod server_groups;
mod server_migrations;
mod servers;
mod services;
