//! The store against a real PostgreSQL, races included.

mod claims;
mod fixture;
mod fleet;
mod hosts;
mod leases;
mod listing;
mod logs;
mod migrations;
mod outbox;
mod power;
mod servers;
mod steps;
