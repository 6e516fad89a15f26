//! `make demo`: a tour for newcomers. A guest moves to the host that was asked for, watched live, and back to one that the
//! scheduler chooses. Everything it shows it read from the REST API, from QEMU's account of the job, or from the guest's datagrams.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::{Api, LATEST, live_migrate_body};
use crate::bench::Bench;
use crate::command::run as run_command;
use crate::error::{BenchError, Result};
use crate::guest::{Guest, GuestSpec};
use crate::up::UpOptions;
use crate::wait::{Look, wait_until};
use crate::watch::GuestWatch;

const GUEST: &str = "demo";
const SOURCE: &str = "h1";
const DESTINATION: &str = "h2";
/// The first move is slowed down, so that there is something to watch.
const SLOW_MIB_S: u32 = 12;
/// How an agent is told so, and to report each second.
const SLOWLY: [(&str, &str); 2] =
    [("DROVER_LIBVIRT__LIVE_MIGRATION_BANDWIDTH", "12"), ("DROVER_LIBVIRT__LIVE_MIGRATION_MONITOR_INTERVAL", "1")];
const MOVED_WITHIN: Duration = Duration::from_mins(2);
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// Runs the tour on this bench; it is up afterwards, with the guest on it.
pub fn run(bench: &Bench) -> Result<()> {
    let cluster = bench.up(&UpOptions::default())?;
    let tour = Tour { bench: bench.clone(), api: Api::new(&cluster.api), url: cluster.api.clone(), watch: bench.watch()? };
    set_slow(bench, true)?;
    let toured = tour.guest().and_then(|guest| tour.moves(&guest).map(|()| guest));
    set_slow(bench, false)?;
    tour.farewell(&toured?);
    Ok(())
}

/// Slows down the agent from which the first move starts, or lets it go as fast as it can again.
fn set_slow(bench: &Bench, slow: bool) -> Result<()> {
    let agent = format!("compute-{SOURCE}");
    for (key, value) in SLOWLY {
        bench.set_environment(&agent, key, slow.then_some(value))?;
    }
    let agent = bench.process(&agent)?;
    agent.stop()?;
    agent.start()
}

struct Tour {
    bench: Bench,
    api: Api,
    url: String,
    watch: GuestWatch,
}

impl Tour {
    /// A fresh guest that Drover knows as a server.
    fn guest(&self) -> Result<Guest> {
        println!("\n==> A guest on {SOURCE}");
        if self.bench.guest(GUEST).is_ok() {
            self.bench.remove_guest(GUEST)?;
        }
        let spec = GuestSpec { memory_mib: 256, dirty_mib_s: 2.0, ..GuestSpec::new(GUEST, SOURCE) };
        let guest = self.bench.create_guest(&spec)?;
        wait_until("Drover to adopt the guest as a server", KNOWN_WITHIN, || {
            let server = self.api.server(guest.uuid());
            let ready = server["status"] == "ACTIVE";
            Ok(if ready { Look::Done(()) } else { Look::NotYet(server.to_string()) })
        })?;
        println!("    {GUEST}: {} MiB, writes {} MiB/s, server {}", spec.memory_mib, spec.dirty_mib_s, guest.uuid());
        Ok(guest)
    }

    fn moves(&self, guest: &Guest) -> Result<()> {
        println!("\n==> Live-migrate it to {DESTINATION} (slowed down to {SLOW_MIB_S} MiB/s, so that there is something to see)");
        self.migrate(guest, Some(DESTINATION))?;
        println!("\n==> And to whichever host the scheduler chooses (as fast as it can)");
        self.migrate(guest, None)
    }

    /// One move: asked for with curl, watched through the API, summed up.
    fn migrate(&self, guest: &Guest, host: Option<&str>) -> Result<()> {
        let before = self.watch.mark();
        let began = Instant::now();
        self.curl(guest, host)?;
        let answered = began.elapsed();
        let migration = self.follow(guest)?;
        if migration["status"] != "completed" {
            return Err(BenchError::Refused(format!(
                "the migration ended as {}: {}; `deploy/dev/bench status` shows the logs",
                migration["status"], migration["fault"]["message"]
            )));
        }
        self.watch.wait_for_life(guest.address(), self.watch.mark(), KNOWN_WITHIN)?;
        let gap = self.watch.longest_gap_since(guest.address(), before);
        let seen = self.watch.observed(guest.address());
        let of_job = |key: &str| milliseconds(&migration["job_result"][key]);
        println!("    from {} to {}", text(&migration["source_compute"]), text(&migration["dest_compute"]));
        println!("    {:<46}{:>10}", "accepted (202) after", in_ms(answered));
        println!(
            "    {:<46}{:>10}",
            "request accepted to ACTIVE on the destination",
            between(&migration, "created_at", "ended_at")
        );
        println!("    {:<46}{:>10}", "of that in libvirt", of_job("call_ms"));
        println!("    {:<46}{:>10}", "downtime, as QEMU measured it", of_job("downtime_ms"));
        println!(
            "    {:<46}{:>10}",
            "longest gap in the guest's UDP stream",
            gap.map_or("unknown".to_owned(), |g| in_ms(g.length))
        );
        let unharmed = seen.is_some_and(|seen| seen.is_unharmed());
        println!("    {:<46}{:>10}", "guest", if unharmed { "unharmed" } else { "HARMED" });
        if unharmed {
            Ok(())
        } else {
            Err(BenchError::Refused("the guest was harmed: that is a bug in Drover or below it".to_owned()))
        }
    }

    /// Shows the command and runs it.
    fn curl(&self, guest: &Guest, host: Option<&str>) -> Result<()> {
        let url = format!("{}/v2.1/servers/{}/action", self.url, guest.uuid());
        let (version, body) = (format!("OpenStack-API-Version: compute {LATEST}"), live_migrate_body(host).to_string());
        println!("    $ curl -X POST {url} \\\n        -H 'Content-Type: application/json' -H '{version}' \\\n        -d '{body}'");
        let arguments = ["-sS", "-o", "-", "-w", "HTTP %{http_code}", "-H", "Content-Type: application/json", "-H", &version];
        let answer = run_command(Command::new("curl").args(arguments).args(["-d", &body, "-X", "POST", &url]))?;
        println!("    {answer}");
        if answer == "HTTP 202" {
            Ok(())
        } else {
            Err(BenchError::Refused(format!("the API did not accept the request: {answer}")))
        }
    }

    /// Shows each new sample until the migration has ended.
    fn follow(&self, guest: &Guest) -> Result<Value> {
        let mut shown = String::new();
        wait_until("the migration to end", MOVED_WITHIN, || {
            let migration = self.api.newest_migration(guest.uuid());
            let line = progress(&migration);
            if line != shown && !line.is_empty() {
                println!("    {line}");
                shown = line;
            }
            let over = matches!(migration["status"].as_str(), Some("completed" | "failed" | "cancelled" | "error"));
            Ok(if over { Look::Done(migration) } else { Look::NotYet(shown.clone()) })
        })
    }

    fn farewell(&self, guest: &Guest) {
        let (url, id) = (&self.url, guest.uuid());
        println!(
            "
==> All of it is still up. Try:
    # hosts, guests, processes and their logs
    deploy/dev/bench status
    # what has been moved, and what was done to the guest
    target/debug/drover migration list --os-endpoint {url}
    curl -s {url}/v2.1/os-migrations | jq
    curl -s {url}/v2.1/servers/{id}/os-instance-actions | jq
    # OpenStack's own client (pip install python-openstackclient)
    openstack --os-auth-type none --os-endpoint {url}/v2.1 --os-compute-api-version {LATEST} \\
        server migrate --live-migration --wait {GUEST}
    # one more guest, with a disk that has to be copied
    deploy/dev/bench guest web --host h2 --disk local
    # remove everything
    make down"
        );
    }
}

/// One line on how far it is; empty before there is anything to tell.
fn progress(migration: &Value) -> String {
    let status = text(&migration["internal_status"]);
    let sample = &migration["progress"];
    let (Some(total), Some(left)) = (sample["memory_total"].as_i64(), sample["memory_remaining"].as_i64()) else {
        return status;
    };
    if !status.starts_with("running") {
        return status; // The sample is of before.
    }
    let percent = if total > 0 { 100 - left * 100 / total } else { 0 };
    let speed = sample["bytes_per_second"].as_i64().unwrap_or(0);
    format!("{status:<16}{percent:>4} %  {:>9} left  {:>9}/s  iteration {}", mib(left), mib(speed), text(&sample["iteration"]))
}

fn mib(bytes: i64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn milliseconds(value: &Value) -> String {
    value.as_i64().map_or("unknown".to_owned(), |ms| format!("{ms} ms"))
}

fn in_ms(length: Duration) -> String {
    format!("{} ms", length.as_millis())
}

/// The time between two of the row's own timestamps.
fn between(migration: &Value, from: &str, to: &str) -> String {
    let at = |key: &str| migration[key].as_str().and_then(crate::api::timestamp);
    match (at(from), at(to)) {
        (Some(from), Some(to)) => in_ms(to.saturating_sub(from)),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sample_becomes_a_line() {
        let migration = json!({"internal_status": "running", "progress": {"memory_total": 268_435_456, "memory_remaining": 67_108_864,
            "bytes_per_second": 12_582_912, "iteration": 1}});
        assert_eq!(progress(&migration), "running           75 %   64.0 MiB left   12.0 MiB/s  iteration 1");
        assert_eq!(progress(&json!({"internal_status": "preparing", "progress": null})), "preparing");
        assert_eq!(progress(&Value::Null), "");
    }

    #[test]
    fn the_rows_own_times_are_subtracted() {
        let row = json!({"created_at": "2026-11-22T23:59:59.900000", "ended_at": "2026-11-23T00:00:01.150000"});
        assert_eq!(between(&row, "created_at", "ended_at"), "1250 ms");
        assert_eq!(between(&row, "created_at", "claimed_at"), "unknown");
    }
}
