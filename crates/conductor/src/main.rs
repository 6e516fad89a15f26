//! `drover-conductor`: leads migrations. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_common::lifecycle::main("drover-conductor", drover_conductor::run)
}
