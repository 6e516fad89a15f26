//! The API service.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_common::lifecycle::main("drover-api", drover_api::run)
}
