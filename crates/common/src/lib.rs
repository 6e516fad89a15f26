//! What Drover's services share: domain types, messages, the message bus, configuration and process life.
//!
//! No SQL, no HTTP but what metrics and traces need, no libvirt here.

pub mod bus;
pub mod certificate;
pub mod config;
pub mod doctor;
pub mod fault;
pub mod host;
pub mod ids;
pub mod lifecycle;
pub mod metrics;
pub mod migration;
pub mod power;
pub mod rpc;
pub mod server;
pub mod server_group;
pub mod telemetry;
