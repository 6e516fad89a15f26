//! Ctrl-C and SIGTERM: a run that is given up leaves no bench behind.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use drover_testkit::{Bench, BenchError, Result};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Whether the run was given up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, for the life of the process, a signal takes the bench down and ends the process.
    pub(crate) fn listen(bench: &Bench) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(BenchError::io("wait for signals"))?;
        let on = |kind| {
            let _entered = runtime.enter();
            signal(kind).map_err(BenchError::io("wait for signals"))
        };
        let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        let (given_up, bench) = (Self::default(), bench.clone());
        let told = given_up.clone();
        thread::spawn(move || {
            runtime.block_on(either(&mut interrupt, &mut terminate));
            told.0.store(true, Ordering::Relaxed);
            eprintln!("==> Interrupted; taking the bench down");
            if let Err(error) = bench.down() {
                eprintln!("measure: {}", error.chain());
            }
            process::exit(INTERRUPTED);
        });
        Ok(given_up)
    }

    /// Stays here if the run was given up: the process ends when the bench is down, and what failed meanwhile failed because of that.
    pub(crate) fn stay_if_given_up(&self) {
        while self.0.load(Ordering::Relaxed) {
            thread::park();
        }
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
