//! `drover migration list`, `queue`, `priority` and `show`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{ApiError, Client};
use crate::table::{bytes, redraw, shown, table};

const QUEUE: &str = "/drover/v1/queue";
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Which migrations.
pub(crate) struct Filter {
    pub(crate) server: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) limit: u32,
}

/// Prints migrations, newest first; with `watch` until none of them is under way.
pub(crate) fn list(client: &Client, filter: &Filter, watch: bool) -> Result<(), ApiError> {
    let limit = filter.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    for (name, value) in [("instance_uuid", &filter.server), ("host", &filter.host), ("status", &filter.status)] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    loop {
        let found = client.get("/v2.1/os-migrations", &query, "migrations")?;
        let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let waits = found.iter().any(|migration| matches!(migration["status"].as_str(), Some("queued" | "accepted")));
        // Who may list migrations need not be allowed to see the queue.
        let line = if waits { client.get(QUEUE, &[], "queue").unwrap_or_default() } else { Value::Null };
        let text = listing(found, line.as_array().map(Vec::as_slice).unwrap_or_default());
        if !watch {
            print!("{text}");
            return Ok(());
        }
        redraw(&text);
        if found.iter().all(|migration| is_over(&migration["status"])) {
            return Ok(());
        }
        std::thread::sleep(REFRESH_EVERY);
    }
}

/// Those in line have their position and what they wait for in the last column, if there are any.
fn listing(migrations: &[Value], line: &[Value]) -> String {
    if migrations.is_empty() {
        return "No migrations.\n".to_owned();
    }
    let keys = ["id", "status", "instance_uuid", "source_compute", "dest_compute", "created_at", "updated_at"];
    let mut headings = vec!["ID", "STATUS", "SERVER", "FROM", "TO", "CREATED", "UPDATED"];
    let mut rows: Vec<Vec<String>> =
        migrations.iter().map(|migration| keys.iter().map(|key| shown(&migration[*key])).collect()).collect();
    if !line.is_empty() {
        headings.push("QUEUE");
        for (row, migration) in rows.iter_mut().zip(migrations) {
            let place = line.iter().find(|place| place["migration_id"] == migration["id"]);
            row.push(place.map_or_else(String::new, |place| {
                let why = shown(&place["waiting_for"]);
                format!("{}{}{why}", shown(&place["position"]), if why.is_empty() { "" } else { ": " })
            }));
        }
    }
    table(&headings, &rows)
}

/// Prints the queue, the first in line first.
pub(crate) fn queue(client: &Client) -> Result<(), ApiError> {
    let line = client.get(QUEUE, &[], "queue")?;
    print!("{}", queued(line.as_array().map(Vec::as_slice).unwrap_or_default()));
    Ok(())
}

fn queued(line: &[Value]) -> String {
    if line.is_empty() {
        return "Nothing waits.\n".to_owned();
    }
    let keys = ["position", "priority", "migration_id", "server_uuid", "source_compute"];
    let row = |place: &Value| {
        let hosts: Vec<String> = place["hosts"].as_array().into_iter().flatten().map(shown).collect();
        let to = if hosts.is_empty() { shown(&place["requested_host"]) } else { hosts.join(", ") };
        let fields = keys.iter().map(|key| shown(&place[*key]));
        fields.chain([to, shown(&place["queued_at"]), shown(&place["waiting_for"])]).collect()
    };
    let rows: Vec<Vec<String>> = line.iter().map(row).collect();
    table(&["POSITION", "PRIORITY", "ID", "SERVER", "FROM", "TO", "SINCE", "WAITS FOR"], &rows)
}

/// Tells the API how soon a migration leaves the queue, and prints where it stands now.
pub(crate) fn set_priority(client: &Client, id: u64, priority: i32) -> Result<(), ApiError> {
    let migration = client.put(&format!("/drover/v1/migrations/{id}"), &json!({"priority": priority}), "migration")?;
    match place(&migration) {
        Some(place) => println!("Migration {id} is now number {place}."),
        None => println!("Migration {id} is {}; the priority counts if it has to wait.", shown(&migration["internal_status"])),
    }
    Ok(())
}

/// Where a migration stands in line.
fn place(migration: &Value) -> Option<String> {
    let queue = migration["queue"].as_object()?;
    let of_source = format!("{} of {}", shown(&queue["position_at_source"]), shown(&migration["source_compute"]));
    Some(format!("{} in the queue, {of_source}'s, with priority {}", shown(&queue["position"]), shown(&migration["priority"])))
}

/// Prints one migration; with `watch` until it has ended, and then fails unless it completed.
pub(crate) fn show(client: &Client, id: u64, watch: bool) -> Result<ExitCode, ApiError> {
    loop {
        let migration = client.get(&format!("/drover/v1/migrations/{id}"), &[], "migration")?;
        let text = details(&migration);
        if !watch {
            print!("{text}");
            return Ok(ExitCode::SUCCESS);
        }
        redraw(&text);
        if is_over(&migration["status"]) {
            let completed = migration["status"] == "completed";
            return Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(REFRESH_EVERY);
    }
}

fn is_over(status: &Value) -> bool {
    matches!(status.as_str(), Some("completed" | "failed" | "cancelled" | "error"))
}

/// All that is known of a migration. What is not known has no line.
fn details(migration: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<18}{value}"); // Writing to a String cannot fail.
        }
    };
    line("migration", format!("{} ({})", shown(&migration["id"]), shown(&migration["uuid"])));
    line("server", shown(&migration["server_uuid"]));
    line("status", shown(&migration["internal_status"]));
    line("waiting for", shown(&migration["waiting_for"]));
    line("place", place(migration).unwrap_or_default());
    line("from", shown(&migration["source_compute"]));
    line("to", shown(&migration["dest_compute"]));
    line("requested", requested(&migration["request"]));
    line("request", shown(&migration["request"]["request_id"]));
    line("attempt", shown(&migration["attempt"]));
    line("abort asked by", shown(&migration["abort_requested_by"]));
    line("force asked by", shown(&migration["force_complete_requested_by"]));
    line("fault", fault(&migration["fault"]));
    for refusal in migration["refusals"].as_array().into_iter().flatten() {
        line("refused", format!("{}: {}", shown(&refusal["host"]), fault(refusal)));
    }
    for disk in migration["disks"].as_array().into_iter().flatten() {
        let (target, treatment, why) = (shown(&disk["target"]), shown(&disk["treatment"]), shown(&disk["why"]));
        line("disk", format!("{target} ({}) {treatment}: {why}", shown(&disk["source"])));
    }
    line("policy", shown(&migration["policy"]));
    progress(&migration["progress"], &mut line);
    if !migration["bandwidth_mib"].is_null() {
        line("share of links", format!("{} MiB/s", shown(&migration["bandwidth_mib"])));
    }
    result(&migration["job_result"], &mut line);
    let blackout = &migration["network_blackout"];
    if !blackout.is_null() {
        line("blackout", format!("{} ({})", milliseconds(&blackout["total_ms"]), shown(&blackout["basis"])));
    }
    for (name, key) in [
        ("accepted at", "created_at"),
        ("claimed at", "claimed_at"),
        ("started at", "started_at"),
        ("switched over at", "switched_over_at"),
        ("ended at", "ended_at"),
        ("updated at", "updated_at"),
    ] {
        line(name, shown(&migration[key]));
    }
    for step in migration["steps"].as_array().into_iter().flatten().filter(|step| step["kind"] != "policy") {
        let why = shown(&step["why"]);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let at = shown(&step["at"]);
        line(at.get(11..).unwrap_or(&at), format!("{}{why}", shown(&step["what"])));
    }
    text
}

fn requested(request: &Value) -> String {
    let host = match request["host"].as_str() {
        None => "any host".to_owned(),
        Some(_) if request["skip_scheduler"] == true => format!("{} (scheduler bypassed)", shown(&request["host"])),
        Some(_) => shown(&request["host"]),
    };
    let disks = match request["block_migration"].as_bool() {
        None => "each disk as it needs",
        Some(true) => "copy disks",
        Some(false) => "shared disks",
    };
    format!("{host}, {disks}, by {} of {}", shown(&request["user_id"]), shown(&request["project_id"]))
}

fn fault(fault: &Value) -> String {
    if fault.is_null() { String::new() } else { format!("{}: {}", shown(&fault["class"]), shown(&fault["message"])) }
}

fn progress(progress: &Value, line: &mut impl FnMut(&str, String)) {
    if progress.is_null() {
        return;
    }
    let of = |kind: &str| {
        let count = |what: &str| &progress[format!("{kind}_{what}")];
        let total = count("total").as_i64().unwrap_or(0);
        let sent = format!("{} sent, {} left of {}", bytes(count("processed")), bytes(count("remaining")), bytes(count("total")));
        if total > 0 { sent } else { String::new() }
    };
    line("memory", of("memory"));
    line("disks", of("disk"));
    line("iteration", shown(&progress["iteration"]));
    line("speed", format!("{}/s", bytes(&progress["bytes_per_second"])));
    line("guest writes", format!("{}/s", bytes(&progress["dirty_bytes_per_second"])));
    if progress["throttle_percent"].as_i64().is_some_and(|percent| percent > 0) {
        line("guest slowed by", format!("{} %", shown(&progress["throttle_percent"])));
    }
    line("running for", milliseconds(&progress["elapsed_ms"]));
    let outlook = &progress["outlook"];
    if !outlook.is_null() {
        let eta = milliseconds(&outlook["eta_ms"]);
        let eta = if eta.is_empty() { "not known".to_owned() } else { eta };
        line("ends in", format!("{eta} ({})", shown(&outlook["basis"])));
    }
}

fn result(result: &Value, line: &mut impl FnMut(&str, String)) {
    line("job took", milliseconds(&result["total_ms"]));
    line("downtime", milliseconds(&result["downtime_ms"]));
}

fn milliseconds(value: &Value) -> String {
    if value.is_null() { String::new() } else { format!("{} ms", shown(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_known_has_a_line() {
        let migration = json!({
            "id": 7, "uuid": "u", "server_uuid": "s", "internal_status": "running", "waiting_for": null,
            "source_compute": "h1", "dest_compute": "h2",
            "request": {"host": "h2", "skip_scheduler": true, "block_migration": null, "user_id": "admin", "project_id": "admin",
                        "request_id": "req-1"},
            "attempt": 1, "refusals": [{"host": "h3", "class": "ComputeServiceUnavailable", "message": "gone"}],
            "progress": {"elapsed_ms": 1200, "memory_total": 1_073_741_824, "memory_processed": 536_870_912,
                         "memory_remaining": 536_870_912, "disk_total": 0, "iteration": 1, "bytes_per_second": 1_048_576,
                         "dirty_bytes_per_second": 0, "throttle_percent": 0,
                         "outlook": {"eta_ms": 3000, "basis": "what is left"}},
            "disks": [{"target": "vda", "source": "/d/disk", "sharing": "not shared", "treatment": "flattened", "why": "h2 has no /base/x"}],
            "policy": "downtime 50 to 500 ms",
            "steps": [{"at": "2026-11-22T18:00:42.600000", "kind": "phase", "what": "running", "why": null},
                      {"at": "2026-11-22T18:00:43.000000", "kind": "decision", "what": "downtime 95 ms", "why": "the next step"}],
            "created_at": "2026-11-22T18:00:42.583416",
        });
        let expected = "\
migration         7 (u)
server            s
status            running
from              h1
to                h2
requested         h2 (scheduler bypassed), each disk as it needs, by admin of admin
request           req-1
attempt           1
refused           h3: ComputeServiceUnavailable: gone
disk              vda (/d/disk) flattened: h2 has no /base/x
policy            downtime 50 to 500 ms
memory            512.0 MiB sent, 512.0 MiB left of 1.0 GiB
iteration         1
speed             1.0 MiB/s
guest writes      0 B/s
running for       1200 ms
ends in           3000 ms (what is left)
accepted at       2026-11-22T18:00:42.583416
18:00:42.600000   running
18:00:43.000000   downtime 95 ms: the next step
";
        assert_eq!(details(&migration), expected);
    }

    #[test]
    fn what_it_cost_the_guest_is_told_with_what_that_rests_on() {
        let migration = json!({"job_result": {"total_ms": 900, "downtime_ms": 12},
                               "network_blackout": {"total_ms": 15, "basis": "QEMU's downtime and more"}});
        let told = details(&migration);
        assert!(told.contains("downtime          12 ms\nblackout          15 ms (QEMU's downtime and more)\n"), "{told}");
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(listing(&[], &[]), "No migrations.\n");
        assert_eq!(queued(&[]), "Nothing waits.\n");
    }

    #[test]
    fn who_waits_is_told_where_and_for_what() {
        let migrations = [json!({"id": 8, "status": "running"}), json!({"id": 7, "status": "queued"})];
        let line = [json!({"position": 1, "priority": 5, "migration_id": 7, "server_uuid": "s", "source_compute": "h1",
                           "requested_host": null, "hosts": ["h2", "h3"], "waiting_for": "a slot of h3", "queued_at": "now"})];
        let listed = listing(&migrations, &line);
        assert!(listed.lines().next().unwrap().ends_with("QUEUE"), "{listed}");
        assert!(listed.contains("1: a slot of h3"), "{listed}");
        assert!(!listing(&migrations[..1], &[]).contains("QUEUE"));
        let queue = queued(&line);
        assert!(queue.contains("h2, h3") && queue.contains("a slot of h3"), "{queue}");
        let migration = json!({"source_compute": "h1", "priority": 5, "queue": {"position": 3, "position_at_source": 2}});
        assert_eq!(place(&migration).unwrap(), "3 in the queue, 2 of h1's, with priority 5");
    }
}
