//! The clients that people use, unmodified, against the bench: `openstack`, `nova` and openstacksdk, through each way to
//! authenticate, with a real Keystone for the last. Real guests move.
//!
//! `make test-clients` puts the clients into a venv of these tests (`target/clients-venv`, from `requirements.txt`) and runs them;
//! `deploy/dev/test clients NAME` runs those whose names contain NAME.

#[expect(dead_code, reason = "written for the live tests, which use more of it")]
#[path = "../live/cloud.rs"]
mod cloud;
#[expect(dead_code, reason = "written for the live tests, which use more of it")]
#[path = "../live/vm.rs"]
mod vm;

mod administration;
mod client;
mod http_basic;
mod keystone;
mod openstack;
mod rest;
mod sdk;
mod service;
mod unlikely_requests;
