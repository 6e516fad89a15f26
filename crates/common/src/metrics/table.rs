//! Every metric there is. `docs/metrics.md` says the same for people; a test holds the two against each other.

use prometheus_client::metrics::histogram;

use super::kinds::{Counter, Declared, Gauge, Histogram, Kind, Metric, Unit};

/// The API's name.
pub const API: &str = "drover-api";
/// The conductor's name.
pub const CONDUCTOR: &str = "drover-conductor";
/// The compute agent's name.
pub const COMPUTE: &str = "drover-compute";

/// Answers of a service: 1 ms to 1 min.
fn answers() -> histogram::Histogram {
    histogram::Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

/// How long a guest stands: 10 ms to 5 min.
fn standstills() -> histogram::Histogram {
    histogram::Histogram::new([0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 30.0, 300.0])
}

/// Phases and waits: 10 ms to a day.
fn phases() -> histogram::Histogram {
    histogram::Histogram::new([
        0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0,
    ])
}

/// A copy's speed: 1 MiB/s to 16 GiB/s.
fn speeds() -> histogram::Histogram {
    histogram::Histogram::new((0..=14).map(|power| f64::from(1_u32 << power) * 1_048_576.0))
}

/// Passes over the memory.
fn passes() -> histogram::Histogram {
    histogram::Histogram::new([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 100.0, 1000.0])
}

/// Declares statics, and the list of all.
macro_rules! metrics {
    ($($static:ident: $kind:ident<$n:literal> $name:literal $unit:ident [$($label:literal),*] of [$($service:ident),+]
       $help:literal $(, $buckets:ident)?;)+) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub static $static: $kind<$n> = $kind::new(
                Metric {
                    name: $name,
                    kind: Kind::$kind,
                    unit: Unit::$unit,
                    labels: &[$($label),*],
                    services: &[$($service),+],
                    help: $help,
                },
                [$($label),*],
                $($buckets)?
            );
        )+

        /// All of them, in the order of the definition.
        pub static ALL: &[&dyn Declared] = &[$(&$static),+];
    };
}

metrics! {
    // Every service.
    BUILD_INFO: Gauge<1> "drover_build_info" None ["version"] of [API, CONDUCTOR, COMPUTE]
        "1, with the release as label";
    DEPENDENCY_UP: Gauge<1> "drover_dependency_up" None ["dependency"] of [API, CONDUCTOR, COMPUTE]
        "1 while the service reaches what it needs: broker, database (API, conductor), libvirt (compute)";
    MESSAGE_DURATION: Histogram<1> "drover_message_duration" Seconds ["kind"] of [CONDUCTOR, COMPUTE]
        "How long a message's handler took, by kind of message", answers;
    DATABASE_CONNECTIONS: Gauge<1> "drover_database_connections" None ["state"] of [API, CONDUCTOR]
        "Connections of the pool: idle, used";

    // The API.
    API_REQUEST_DURATION: Histogram<3> "drover_api_request_duration" Seconds ["method", "route", "status"] of [API]
        "How long a request took, by route (its template; other: no route) and class of the answer's status (2xx)", answers;
    API_REQUESTS_UNDER_WAY: Gauge<0> "drover_api_requests_under_way" None [] of [API]
        "Requests that are not answered yet";
    MIGRATIONS_ACCEPTED: Counter<0> "drover_migrations_accepted" None [] of [API]
        "Live migrations that were accepted";

    // The conductor: events, counted by the one conductor that they happened in.
    MIGRATIONS_ENDED: Counter<2> "drover_migrations_ended" None ["status", "reason"] of [CONDUCTOR]
        "Migrations that ended, by status and class of the fault (none: no fault)";
    MIGRATION_DURATION: Histogram<1> "drover_migration_duration" Seconds ["status"] of [CONDUCTOR]
        "From the request to the end, by status", phases;
    MIGRATION_PHASE_DURATION: Histogram<1> "drover_migration_phase_duration" Seconds ["phase"] of [CONDUCTOR]
        "How long a phase took, of migrations that ended: waiting, preparing, copying, finishing, rolling-back", phases;
    MIGRATION_DOWNTIME: Histogram<0> "drover_migration_downtime" Seconds [] of [CONDUCTOR]
        "How long the guest's CPUs stood at the switch-over, by libvirt's account", standstills;
    MIGRATION_NETWORK_BLACKOUT: Histogram<0> "drover_migration_network_blackout" Seconds [] of [CONDUCTOR]
        "How long the network did not reach the guest, as far as its hosts know: downtime, and the time to the first announcement",
        standstills;
    MIGRATION_BANDWIDTH: Histogram<0> "drover_migration_bandwidth" BytesPerSecond [] of [CONDUCTOR]
        "Memory and disks sent, over the job's whole time, by libvirt's account", speeds;
    MIGRATION_TRANSFERRED: Counter<0> "drover_migration_transferred" Bytes [] of [CONDUCTOR]
        "Memory and disks sent, of migrations that ended";
    MIGRATION_ITERATIONS: Histogram<0> "drover_migration_iterations" None [] of [CONDUCTOR]
        "Passes over the memory, of migrations that ended", passes;
    ROLL_BACKS: Counter<1> "drover_roll_backs" None ["ending"] of [CONDUCTOR]
        "Roll-backs that were begun, by what they shall end in: retry, failed, cancelled";
    POST_COPY_RECOVERIES: Counter<0> "drover_post_copy_recoveries" None [] of [CONDUCTOR]
        "Tries to go on with a post-copy that broke";
    REFUSALS: Counter<1> "drover_refusals" None ["reason"] of [CONDUCTOR]
        "Hosts that the scheduler let pass, or that were asked for, and that were refused, by class of the fault";
    SCHEDULER_DURATION: Histogram<0> "drover_scheduler_duration" Seconds [] of [CONDUCTOR]
        "How long the scheduler took to filter and weigh the hosts", answers;
    QUEUE_WAIT: Histogram<1> "drover_queue_wait" Seconds ["reason"] of [CONDUCTOR]
        "How long a migration waited in the queue, by what it waited for: outgoing, incoming, fleet, paused, other", phases;
    FINDINGS_RAISED: Counter<1> "drover_findings_raised" None ["kind"] of [CONDUCTOR]
        "Findings that were raised, by kind (ownership_conflict, foreign_job, leftover, undecidable)";
    LEASES_LOST: Counter<0> "drover_leases_lost" None [] of [CONDUCTOR]
        "Drives that stopped because another conductor had taken over";

    // The conductor: the fleet as the database has it, the same from each conductor.
    MIGRATIONS_OPEN: Gauge<1> "drover_migrations_open" None ["status"] of [CONDUCTOR]
        "Migrations that have not ended, by status (fleet)";
    QUEUE_DEPTH: Gauge<1> "drover_queue_depth" None ["reason"] of [CONDUCTOR]
        "Migrations in the queue, by what they wait for (fleet)";
    QUEUE_OLDEST: Gauge<0> "drover_queue_oldest" Seconds [] of [CONDUCTOR]
        "How long the oldest queued migration has been there (fleet)";
    SLOTS_IN_USE: Gauge<1> "drover_slots_in_use" None ["limit"] of [CONDUCTOR]
        "Slots in use: outgoing and incoming of the host with the most, and all of the fleet (fleet)";
    SLOTS: Gauge<1> "drover_slots" None ["limit"] of [CONDUCTOR]
        "Slots there are, as configured: outgoing and incoming of each host, of the fleet; 0 means no limit";
    HOSTS: Gauge<1> "drover_hosts" None ["state"] of [CONDUCTOR]
        "Compute hosts: up, down, forced_down (fleet)";
    FINDINGS_OPEN: Gauge<1> "drover_findings_open" None ["kind"] of [CONDUCTOR]
        "Findings that wait for an operator, by kind (fleet)";
    CLEANUP_DEBTS: Gauge<0> "drover_cleanup_debts" None [] of [CONDUCTOR]
        "Clean-ups that hosts still owe (fleet)";
    OUTBOX_UNPUBLISHED: Gauge<0> "drover_outbox_unpublished" None [] of [CONDUCTOR]
        "Promised messages that the broker does not have yet (fleet)";
    OUTBOX_LAG: Gauge<0> "drover_outbox_lag" Seconds [] of [CONDUCTOR]
        "Age of the oldest of them (fleet)";
    PAUSED: Gauge<0> "drover_paused" None [] of [CONDUCTOR]
        "1 while an operator holds back new migrations (fleet)";

    // The compute agent.
    JOBS_UNDER_WAY: Gauge<0> "drover_compute_jobs_under_way" None [] of [COMPUTE]
        "Migrations away from this host that its agent has in hand";
    JOBS_ENDED: Counter<1> "drover_compute_jobs_ended" None ["result"] of [COMPUTE]
        "libvirt's calls that returned: succeeded, failed, taken_back";
    JOB_DURATION: Histogram<0> "drover_compute_job_duration" Seconds [] of [COMPUTE]
        "How long libvirt's call took", phases;
    JOBS_ADOPTED: Counter<0> "drover_compute_jobs_adopted" None [] of [COMPUTE]
        "Running jobs that were taken up again after a restart of the agent";
    BLACKOUT: Histogram<0> "drover_compute_blackout" Seconds [] of [COMPUTE]
        "How long the guest ran on neither host: from its stop by force-complete to its arrival, else the downtime", standstills;
    DECISIONS: Counter<1> "drover_compute_decisions" None ["measure"] of [COMPUTE]
        "Decisions about copies under way: downtime, post_copy, force_complete, abort, wait";
    STALLS: Counter<0> "drover_compute_stalls" None [] of [COMPUTE]
        "Copies that were found to get nowhere, each once";
}
