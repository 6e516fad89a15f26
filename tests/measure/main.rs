//! `make bench`: Drover beside libvirt itself, on a bench of its own; writes `docs/benchmarks.md`.
//!
//! The yardstick is libvirt: the same guest is moved through Drover's API, by `virsh migrate`, and by nothing but libvirt's call,
//! in turns. What each figure means stands in the document ([`report`]); a target that is missed is said, and is no error. An error
//! is a migration that failed, a guest that was harmed, or a bench that did not work.
//!
//! - [`statistics`], [`table`], [`targets`], [`report`]: pure; figures and how they are written down.
//! - [`methods`], [`drover`]: the three ways to move a guest. [`timeline`], [`log`]: when each step of Drover's way happened.
//! - [`pairs`], [`parallel`], [`footprint`], [`listings`], [`disk`]: what is measured. [`cloud`], [`machine`]: on what.
//! - [`convergence`]: policies side by side, another document, with `--convergence`.

mod clock;
mod cloud;
mod convergence;
mod disk;
mod drover;
mod footprint;
mod interrupt;
mod listings;
mod log;
mod machine;
mod methods;
mod pairs;
mod parallel;
mod report;
mod statistics;
mod table;
mod targets;
mod timeline;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use drover_testkit::plan::NUMBER_VARIABLE;
use drover_testkit::{Bench, BenchError, Plan, Result};

use cloud::Cloud;
use interrupt::Interrupt;
use machine::Machine;
use report::Report;

/// Benches to choose from when `DROVER_BENCH` names none; neither the demo's nor those of `make test`.
const BENCHES: [u8; 4] = [5, 4, 3, 2];
/// With `--quick`.
const QUICK_PAIRS: u32 = 4;
const QUICK_PARALLEL: u32 = 2;

/// Measures Drover against libvirt itself and writes the figures down.
#[derive(Debug, Parser)]
#[command(name = "bench measure")]
struct Arguments {
    /// Moves of one guest by each of the three methods, half of them in each direction; with a multiple of 12 each method has each
    /// place equally often.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..))]
    pairs: u32,
    /// Moves of four guests at once by both methods, half of them in each direction.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    parallel: u32,
    /// Few rounds: shows that it works, not how fast.
    #[arg(long, conflicts_with_all = ["pairs", "parallel"])]
    quick: bool,
    /// Measure how policies bring copies to an end, instead; writes docs/convergence.md.
    #[arg(long, conflicts_with_all = ["pairs", "parallel"])]
    convergence: bool,
    /// The file to write; docs/benchmarks.md of the checkout (with --convergence docs/convergence.md) if not given.
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let bench = claim_bench()?;
    let interrupt = Interrupt::listen(&bench)?;
    let measured = if arguments.convergence {
        Cloud::start(&bench).and_then(|cloud| convergence::measure(&cloud, arguments.quick, &command()))
    } else {
        measure(&bench, arguments).map(|report| report.text())
    };
    interrupt.stay_if_given_up();
    // With the bench go its logs; somebody who wants to look at them says so.
    let down = if std::env::var_os("DROVER_KEEP").is_some_and(|keep| keep == "1") { Ok(()) } else { bench.down() };
    let text = measured?;
    down?;
    let document = if arguments.convergence { "docs/convergence.md" } else { "docs/benchmarks.md" };
    let path = arguments.output.clone().unwrap_or_else(|| bench.checkout().join(document));
    fs::write(&path, &text).map_err(BenchError::file("write", &path))?;
    println!("{text}");
    eprintln!("==> Written to {}", path.display());
    Ok(())
}

/// The bench that `DROVER_BENCH` names, or the first that no other checkout uses; cleared of what a killed run left.
fn claim_bench() -> Result<Bench> {
    if std::env::var_os(NUMBER_VARIABLE).is_some() {
        let bench = Bench::from_env()?;
        bench.down()?;
        return Ok(bench);
    }
    let mut refused = None;
    for number in BENCHES {
        let bench = Bench::of(Plan::new(number)?)?;
        match bench.down() {
            Ok(()) => return Ok(bench),
            Err(error @ BenchError::Foreign { .. }) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| BenchError::Refused("no bench is free".to_owned())))
}

fn measure(bench: &Bench, arguments: &Arguments) -> Result<Report> {
    let (pairs, parallel) = if arguments.quick { (QUICK_PAIRS, QUICK_PARALLEL) } else { (arguments.pairs, arguments.parallel) };
    let cloud = Cloud::start(bench)?;
    let machine = Machine::look(&cloud)?;
    let began = clock::now();
    eprintln!("==> One guest: {pairs} moves by each method, load {}", machine.load_average);
    let guest = cloud.boot("idle-1")?;
    let triples = pairs::measure(&cloud, &guest, pairs)?;
    let fsync_ms = disk::fsync_ms(&bench.plan().state_dir())?;
    eprintln!("==> Four guests at once: {parallel} moves by each method");
    cloud.lift_limits()?;
    let guests = [guest, cloud.boot("idle-2")?, cloud.boot("idle-3")?, cloud.boot("idle-4")?];
    let parallel = parallel::measure(&cloud, &guests, parallel)?;
    eprintln!("==> Footprint, {} s", footprint::SPAN.as_secs());
    let footprint = footprint::measure(&cloud)?;
    let load_after = machine::load_average()?;
    eprintln!("==> Listing servers");
    let listings = listings::measure(&cloud)?;
    let command = command();
    Ok(Report { began, command, machine, load_after, quick: arguments.quick, triples, fsync_ms, parallel, footprint, listings })
}

/// How this program was called.
fn command() -> String {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.is_empty() { "make bench".to_owned() } else { format!("deploy/dev/bench measure {}", given.join(" ")) }
}
