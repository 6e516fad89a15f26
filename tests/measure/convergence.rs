//! `--convergence`: the policies side by side. A guest writes at a share of what the link carries; each policy in turn leads its copy,
//! through libvirt alone, from one host to the other. The policies are the agent's own code.
//!
//! Nova's times are made for hosts with hundreds of GiB; here they are shortened, the same way for Nova's policy and for Drover's.

use std::collections::HashMap;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use drover_common::config::{StallAction, TimeoutAction};
use drover_compute::migration::policy::convergence::{Convergence, Means};
use drover_compute::migration::policy::nova::Nova;
use drover_compute::migration::policy::ovirt::Ovirt;
use drover_compute::migration::policy::proxmox::Proxmox;
use drover_compute::migration::policy::{Measure, Policy, PolicyOptions, Situation};
use drover_testkit::{Guest, GuestSpec, Host, Result};

use crate::cloud::{Cloud, Route};
use crate::table::table;

/// What the link carries.
const MIB_S: u32 = 16;
/// What the guest writes to, over and over.
const WORKING_SET_MIB: u32 = 24;
/// What the guest writes, in percent of that link.
const SHARES: [u32; 5] = [0, 50, 90, 110, 150];
const QUICK_SHARES: [u32; 3] = [0, 50, 110];
/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(250);
/// Far beyond every policy's own patience here.
const GIVEN_UP: Duration = Duration::from_secs(90);
/// Nova's defaults, divided by 25.
const OPTIONS: PolicyOptions = PolicyOptions {
    downtime_ms: 500,
    downtime_steps: 10,
    downtime_delay_seconds: 3,
    completion_timeout_seconds: 32,
    timeout_action: TimeoutAction::Abort,
    stall_action: StallAction::None,
};
/// As every guest of less than 2 GiB.
const WEIGHT: u64 = 2 << 30;

/// A policy and what it may do beside pausing the guest.
struct Contender {
    name: &'static str,
    means: Means,
    policy: fn(Means) -> Box<dyn Policy>,
}

const PAUSE_ONLY: Means = Means { post_copy: false, auto_converge: false };
const AUTO_CONVERGE: Means = Means { post_copy: false, auto_converge: true };
const POST_COPY: Means = Means { post_copy: true, auto_converge: false };

/// Those with the same permissions stand together.
const CONTENDERS: [Contender; 8] = [
    Contender { name: "Drover", means: PAUSE_ONLY, policy: drover },
    Contender { name: "Nova", means: PAUSE_ONLY, policy: nova },
    Contender { name: "oVirt, minimal downtime", means: PAUSE_ONLY, policy: |_| Box::new(Ovirt::minimal_downtime()) },
    Contender { name: "Proxmox", means: PAUSE_ONLY, policy: |_| Box::<Proxmox>::default() },
    Contender { name: "Drover", means: AUTO_CONVERGE, policy: drover },
    Contender { name: "Nova", means: AUTO_CONVERGE, policy: nova },
    Contender { name: "Drover", means: POST_COPY, policy: drover },
    Contender { name: "oVirt, post-copy", means: POST_COPY, policy: |_| Box::new(Ovirt::post_copy()) },
];

fn drover(means: Means) -> Box<dyn Policy> {
    Box::new(Convergence::new(&OPTIONS, WEIGHT, means))
}

fn nova(_: Means) -> Box<dyn Policy> {
    Box::new(Nova::new(&OPTIONS, WEIGHT))
}

/// One copy led by one policy.
struct Led {
    contender: &'static Contender,
    share: u32,
    finished: bool,
    took: Duration,
    downtime_ms: Option<u64>,
    /// Its last deed.
    last: String,
}

/// Measures all of it; the document.
pub(crate) fn measure(cloud: &Cloud, quick: bool, command: &str) -> Result<String> {
    let shares: &[u32] = if quick { &QUICK_SHARES } else { &SHARES };
    let mut all = Vec::new();
    for &share in shares {
        let name = format!("dirty-{share}");
        let spec = GuestSpec {
            dirty_mib_s: f64::from(MIB_S * share) / 100.0,
            working_set_mib: Some(WORKING_SET_MIB),
            interval_ms: 200,
            ..GuestSpec::new(&name, "h1")
        };
        let guest = cloud.bench.create_guest(&spec)?;
        let mut route = cloud.route()?;
        for contender in &CONTENDERS {
            let led = lead(&guest, &route, share, contender);
            eprintln!("    {share} %, {}: finished {}, {} ms, {}", contender.name, led.finished, led.took.as_millis(), led.last);
            if led.finished {
                route.turn();
            }
            cloud.settle(slice::from_ref(&guest), &route.source)?;
            all.push(led);
        }
        cloud.remove(&guest)?;
    }
    Ok(document(&all, command))
}

fn lead(guest: &Guest, route: &Route, share: u32, contender: &'static Contender) -> Led {
    let mut policy = (contender.policy)(contender.means);
    let began = Instant::now();
    let (source, destination) = (route.source.clone(), route.destination.libvirt_uri());
    let (uuid, bandwidth) = (guest.uuid().to_owned(), MIB_S.to_string());
    let call = thread::spawn(move || {
        let mut arguments = vec!["migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--bandwidth", &bandwidth];
        arguments.extend(contender.means.post_copy.then_some("--postcopy"));
        arguments.extend(contender.means.auto_converge.then_some("--auto-converge"));
        arguments.extend([uuid.as_str(), destination.as_str()]);
        source.virsh(arguments).map(drop)
    });
    let (mut limit, mut last, mut done) = (None, "-".to_owned(), false);
    while !call.is_finished() {
        thread::sleep(LOOK);
        let Some(now) = look(guest, &route.source, limit).filter(|_| !done) else { continue };
        if began.elapsed() > GIVEN_UP {
            act(&route.source, guest, Measure::Abort);
            (last, done) = ("given up by the measurement".to_owned(), true);
            continue;
        }
        for decision in policy.decide(&now) {
            if let Measure::SetDowntime { milliseconds } = decision.measure {
                limit = Some(milliseconds);
            }
            done |= matches!(decision.measure, Measure::Abort | Measure::PostCopy | Measure::ForceComplete);
            last = shown(decision.measure);
            act(&route.source, guest, decision.measure);
        }
    }
    let finished = call.join().is_ok_and(|result| result.is_ok());
    let took = began.elapsed();
    let account = if finished { stats(guest, &route.destination, &["--completed"]) } else { HashMap::new() };
    Led { contender, share, finished, took, downtime_ms: account.get("downtime").copied(), last }
}

fn act(source: &Host, guest: &Guest, measure: Measure) {
    let uuid = guest.uuid();
    let milliseconds;
    let arguments = match measure {
        Measure::SetDowntime { milliseconds: ms } => {
            milliseconds = ms.to_string();
            vec!["migrate-setmaxdowntime", uuid, milliseconds.as_str()]
        }
        Measure::PostCopy => vec!["migrate-postcopy", uuid],
        Measure::Abort => vec!["domjobabort", uuid],
        Measure::ForceComplete => vec!["suspend", uuid],
        Measure::Wait => return,
    };
    // The copy may have ended in this very moment; how it ended shows in the end.
    source.virsh(arguments).ok();
}

fn look(guest: &Guest, source: &Host, downtime_ms: Option<u64>) -> Option<Situation> {
    let stats = stats(guest, source, &[]);
    let number = |name: &str| stats.get(name).and_then(|value| i64::try_from(*value).ok());
    Some(Situation {
        elapsed: Duration::from_millis(*stats.get("time_elapsed")?),
        downtime_ms,
        iteration: number("memory_iteration")?,
        remaining: number("memory_remaining")?,
        bytes_per_second: number("memory_bps").unwrap_or(0),
        throttle_percent: stats.get("auto_converge_throttle").and_then(|percent| i32::try_from(*percent).ok()).unwrap_or(0),
    })
}

/// `virsh domjobinfo --rawstats`; empty if there is none.
fn stats(guest: &Guest, host: &Host, options: &[&str]) -> HashMap<String, u64> {
    let arguments = ["domjobinfo", "--rawstats"].into_iter().chain(options.iter().copied()).chain([guest.uuid()]);
    let text = host.virsh(arguments).unwrap_or_default();
    let number = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(number).collect()
}

fn shown(measure: Measure) -> String {
    match measure {
        Measure::SetDowntime { milliseconds } => format!("downtime {milliseconds} ms"),
        Measure::PostCopy => "post-copy".to_owned(),
        Measure::Abort => "abort".to_owned(),
        Measure::ForceComplete => "pause the guest".to_owned(),
        Measure::Wait => "cannot finish".to_owned(),
    }
}

const fn permitted(means: Means) -> &'static str {
    match (means.post_copy, means.auto_converge) {
        (true, _) => "post-copy",
        (false, true) => "auto-converge",
        (false, false) => "-",
    }
}

fn document(all: &[Led], command: &str) -> String {
    let seconds = |took: Duration| format!("{:.1} s", took.as_secs_f64());
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|led| {
            let downtime = led.downtime_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
            let finished = if led.finished { "yes" } else { "no" };
            vec![
                format!("{} %", led.share),
                led.contender.name.to_owned(),
                permitted(led.contender.means).to_owned(),
                finished.to_owned(),
                seconds(led.took),
                downtime,
                led.last.clone(),
            ]
        })
        .collect();
    let head = ["guest writes", "policy", "beside the pause", "finished", "took", "downtime", "last deed"];
    format!(
        "# How copies come to an end\n\nWritten by `{command}`. A guest of 128 MiB that writes to {WORKING_SET_MIB} MiB of it, at a share \
         of a link of {MIB_S} MiB/s; each policy leads its copy through libvirt alone. The policies are the agent's own code \
         (`crates/compute/src/migration/policy`). The downtime is QEMU's own figure; in post-copy it is the switch only, what the guest \
         waits for pages afterwards is not in it. The link is narrow by QEMU's own `max-bandwidth`, which does not hold while the guest \
         stands: over a wire that carries no more the downtime would come near the limit that the policy set last. The budget is {} ms: \
         a limit beyond it, by which Proxmox's policy finishes above 100 %, is none that Drover's may set. Nova's times are divided by \
         25 (a step each {} s, timeout after {} s), Drover's with them. One copy each: figures of a second or less are within chance.\n\n{}",
        OPTIONS.downtime_ms,
        OPTIONS.downtime_delay_seconds * 2,
        OPTIONS.completion_timeout_seconds * 2,
        table(&head, &rows)
    )
}
