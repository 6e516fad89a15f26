//! `drover-compute`: the agent of one compute host.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_common::lifecycle::main("drover-compute", drover_compute::run)
}
