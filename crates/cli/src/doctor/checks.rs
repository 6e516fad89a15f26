//! The checks: each a judgement over the facts, without asking anybody anything.
//!
//! *Adding a check:* a function and its line in [`CHECKS`]; a fact that nobody tells yet goes into [`drover_common::doctor`].

use std::collections::BTreeMap;
use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use drover_common::doctor::{Facts, Host};
use drover_common::rpc::latest::{Certificate, HostDiagnosis, Mount};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Nothing is wrong.
    Well,
    /// Somebody should look at it.
    Warning,
    /// Migrations fail, or will.
    Broken,
}

impl Severity {
    /// As it is printed.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Warning => "WARNING",
            Self::Broken => "BROKEN",
        }
    }

    /// As the shell gets it.
    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Well => 0,
            Self::Warning => 1,
            Self::Broken => 2,
        })
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) severity: Severity,
    pub(super) what: String,
    pub(super) mend: String,
}

fn warning(what: impl Into<String>, mend: impl Into<String>) -> Judgement {
    Judgement { severity: Severity::Warning, what: what.into(), mend: mend.into() }
}

fn broken(what: impl Into<String>, mend: impl Into<String>) -> Judgement {
    Judgement { severity: Severity::Broken, what: what.into(), mend: mend.into() }
}

type Check = fn(&Facts) -> Vec<Judgement>;

/// All checks, in the order in which they are told.
pub(super) const CHECKS: [(&str, Check); 12] = [
    ("database", database),
    ("broker", broker),
    ("conductors", conductors),
    ("agents", agents),
    ("releases", releases),
    ("hypervisors", hypervisors),
    ("certificates", certificates),
    ("clocks", clocks),
    ("tcp_syn_retries", tcp_syn_retries),
    ("storage", storage),
    ("migration ports", migration_ports),
    ("operators", operators),
];

/// A certificate that ends sooner should have been renewed.
const RENEW_BEFORE: TimeDelta = TimeDelta::days(14);
/// Above this, logs of two hosts cannot be read side by side, and a certificate may not be good yet.
const CLOCKS_APART_MS: i64 = 2000;
/// The kernel tries for 2^(n+1) - 1 seconds: 15 with 3, 127 with its default, 6.
const SYN_RETRIES_MAX: u32 = 3;
/// A message that is this old was not just written.
const OUTBOX_LAG_SECONDS: f64 = 30.0;
/// A destination's libvirt from the first of these up to the second crashes when a broken post-copy is gone on with.
const RECOVERY_CRASHES: std::ops::Range<i32> = 11_002_000..11_004_000;
/// File systems that several hosts have in common.
const SHARED_FILE_SYSTEMS: [&str; 9] =
    ["nfs", "nfs4", "ceph", "fuse.ceph", "fuse.glusterfs", "glusterfs", "gfs2", "ocfs2", "lustre"];

fn database(facts: &Facts) -> Vec<Judgement> {
    let missing = &facts.database.steps_missing;
    if missing.is_empty() {
        return Vec::new();
    }
    vec![broken(format!("the schema lacks {}", missing.join(", ")), "run `drover db migrate`")]
}

fn broker(facts: &Facts) -> Vec<Judgement> {
    let (waiting, lag) = (facts.database.outbox_unpublished, facts.database.outbox_lag_seconds);
    if lag <= OUTBOX_LAG_SECONDS {
        return Vec::new();
    }
    let what = format!("{waiting} promised messages have not reached it, the oldest for {lag:.0} s");
    vec![broken(what, "look at RabbitMQ (alarms, disk space) and at the conductors' log; nothing is lost, they are sent later")]
}

fn conductors(facts: &Facts) -> Vec<Judgement> {
    let mut found = Vec::new();
    if let Some(problem) = &facts.conductor.problem {
        let mend = "start drover-conductor, and see in its log whether it reaches broker and database";
        found.push(broken(format!("none answers through the broker: {problem}"), mend));
    }
    let silent = facts.conductors.iter().filter(|(_, up)| !**up);
    found.extend(silent.map(|(host, _)| {
        warning(
            format!("{host} is silent"),
            format!("start it, or forget it: `openstack compute service delete` with the id of nova-conductor on {host}"),
        )
    }));
    found
}

fn agents(facts: &Facts) -> Vec<Judgement> {
    if facts.hosts.is_empty() {
        return vec![broken("no compute host is known", "start drover-compute on each host; its log says what keeps it")];
    }
    facts.hosts.iter().filter_map(agent).collect()
}

fn agent(host: &Host) -> Option<Judgement> {
    let name = &host.host;
    if host.forced_down {
        let mend = "when it is repaired: `openstack compute service set --up`, and its agent pays what it owes";
        return Some(warning(format!("{name} is forced down"), mend));
    }
    if !host.up {
        let mend =
            format!("start drover-compute on {name}; if the machine is off and fenced: `openstack compute service set --down`");
        return Some(broken(format!("{name} is silent"), mend));
    }
    match (&host.diagnosis, &host.problem) {
        (None, Some(problem)) => {
            Some(broken(format!("{name} does not answer: {problem}"), format!("see drover-compute's log on {name}")))
        }
        (Some(HostDiagnosis { libvirt_up: false, .. }), _) => Some(broken(
            format!("{name}: libvirt does not answer its agent"),
            format!("look at libvirtd on {name}; guests run on meanwhile"),
        )),
        _ => None,
    }
}

fn releases(facts: &Facts) -> Vec<Judgement> {
    let mut releases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    releases.entry(&facts.release).or_default().push("the API".to_owned());
    if let Some(release) = &facts.conductor.release {
        releases.entry(release).or_default().push("the conductor".to_owned());
    }
    for (host, diagnosis) in diagnosed(facts) {
        releases.entry(&diagnosis.release).or_default().push(host.host.to_string());
    }
    if releases.len() < 2 {
        return Vec::new();
    }
    let shown: Vec<String> = releases.iter().map(|(release, who)| format!("{release} on {}", who.join(", "))).collect();
    vec![warning(
        format!("several are in use: {}", shown.join("; ")),
        "finish the upgrade: agents first, then conductors, then the API",
    )]
}

fn hypervisors(facts: &Facts) -> Vec<Judgement> {
    let mut found = Vec::new();
    let crash = facts.hosts.iter().filter(|host| RECOVERY_CRASHES.contains(&host.libvirt_version));
    found.extend(crash.map(|host| {
        warning(
            format!(
                "{} has libvirt {}, which crashes when a broken post-copy is gone on with",
                host.host,
                dotted(host.libvirt_version)
            ),
            "install libvirt 11.4.0 or newer, or leave live_migration_permit_post_copy = false",
        )
    }));
    let newest = facts.hosts.iter().max_by_key(|host| host.hypervisor_version);
    let older = newest.into_iter().flat_map(|newest| {
        let older = facts.hosts.iter().filter(|host| host.hypervisor_version < newest.hypervisor_version);
        older.map(move |host| {
            let (has, has_newest) = (dotted(host.hypervisor_version), dotted(newest.hypervisor_version));
            let what = format!("{} has {} {has}, {} has {has_newest}", host.host, host.hypervisor_type, newest.host);
            warning(what, format!("guests of {} are refused on {}: bring it up to date", newest.host, host.host))
        })
    });
    found.extend(older);
    found
}

fn certificates(facts: &Facts) -> Vec<Judgement> {
    let now = facts.database.clock;
    let of_api = facts.certificates.iter().map(|certificate| ("the API".to_owned(), certificate));
    let of_hosts = diagnosed(facts)
        .flat_map(|(host, diagnosis)| diagnosis.certificates.iter().map(move |certificate| (host.host.to_string(), certificate)));
    of_api.chain(of_hosts).filter_map(|(who, certificate)| judge_certificate(&who, certificate, now)).collect()
}

fn judge_certificate(who: &str, certificate: &Certificate, now: DateTime<Utc>) -> Option<Judgement> {
    let path = &certificate.path;
    let Some(end) = certificate.not_after else {
        let problem = certificate.problem.as_deref().unwrap_or("no reason was given");
        return Some(broken(format!("{who}: {path} cannot be read: {problem}"), "see owner, mode and content of the file"));
    };
    let day = end.format("%Y-%m-%d");
    if end <= now {
        return Some(broken(format!("{who}: {path} ended on {day}"), "renew it; docs/security.md says who takes the new one when"));
    }
    (end - now < RENEW_BEFORE)
        .then(|| warning(format!("{who}: {path} ends on {day}"), "renew it; docs/security.md says who takes the new one when"))
}

fn clocks(facts: &Facts) -> Vec<Judgement> {
    let conductor = facts.conductor.clock_ahead_ms.map(|ahead| ("the conductor".to_owned(), ahead, "the database's"));
    let hosts = facts.hosts.iter().filter_map(|host| Some((host.host.to_string(), host.clock_ahead_ms?, "the conductor's")));
    let apart = conductor.into_iter().chain(hosts).filter(|(_, ahead, _)| ahead.abs() > CLOCKS_APART_MS);
    apart
        .map(|(who, ahead, whose)| {
            let (by, where_to) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
            let what = format!("{who}'s is {}.{} s {where_to} {whose}", by / 1000, by % 1000 / 100);
            warning(what, "let chrony or another NTP client keep it")
        })
        .collect()
}

fn tcp_syn_retries(facts: &Facts) -> Vec<Judgement> {
    let many = diagnosed(facts).filter_map(|(host, diagnosis)| {
        let retries = diagnosis.tcp_syn_retries.filter(|retries| *retries > SYN_RETRIES_MAX)?;
        let seconds = (2_u64 << retries.min(32)) - 1;
        Some(warning(
            format!("{}: {retries}: where packets are dropped, libvirt hangs in connect for {seconds} s", host.host),
            format!("sysctl -w net.ipv4.tcp_syn_retries={SYN_RETRIES_MAX}, and the same in /etc/sysctl.d"),
        ))
    });
    many.collect()
}

fn storage(facts: &Facts) -> Vec<Judgement> {
    let mounts: Vec<(&Host, &Mount)> =
        diagnosed(facts).filter_map(|(host, diagnosis)| Some((host, diagnosis.instances.as_ref()?))).collect();
    let is_shared = |mount: &Mount| SHARED_FILE_SYSTEMS.contains(&mount.file_system.as_str());
    let Some((first, shared)) = mounts.iter().find(|(_, mount)| is_shared(mount)) else {
        return Vec::new(); // All have their own: disks are copied.
    };
    let differs = mounts.iter().filter(|(_, mount)| mount.source != shared.source || mount.file_system != shared.file_system);
    differs
        .map(|(host, mount)| {
            warning(
                format!(
                    "{} on {} is {} {}, on {} it is {} {}",
                    mount.path, host.host, mount.file_system, mount.source, first.host, shared.file_system, shared.source
                ),
                "mount the same there, or expect disks to be copied between the two",
            )
        })
        .collect()
}

fn migration_ports(facts: &Facts) -> Vec<Judgement> {
    let failed = diagnosed(facts).flat_map(|(host, diagnosis)| {
        diagnosis.reach.iter().filter_map(move |tried| {
            let problem = tried.problem.as_ref()?;
            let mend = "open libvirt's port and migration_port_min to migration_port_max between all hosts; see live_migration_uri and \
                        live_migration_inbound_addr";
            Some(broken(format!("{} does not reach {}: {problem}", host.host, tried.host), mend))
        })
    });
    failed.collect()
}

fn operators(facts: &Facts) -> Vec<Judgement> {
    let mut found = Vec::new();
    if let Some(pause) = &facts.pause {
        let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
        let since = pause.since.format("%Y-%m-%d %H:%M");
        let what = format!("new migrations are held back by {} since {since} UTC{why}", pause.paused_by);
        found.push(warning(what, "`drover resume` lets them go on"));
    }
    for (kind, count) in facts.findings.iter().filter(|(_, count)| **count > 0) {
        let what = format!("{count} open findings of the kind {kind}");
        found.push(match kind.as_str() {
            "ownership_conflict" | "undecidable" => {
                broken(what, "`drover finding list` names them; choose with `drover server keep SERVER HOST`")
            }
            _ => warning(what, "`drover finding list` names them"),
        });
    }
    if facts.cleanup_debts > 0 {
        let what = format!("{} clean-ups are owed by hosts", facts.cleanup_debts);
        found.push(warning(what, "they are paid when their hosts answer; the conductor's log says which"));
    }
    found
}

fn diagnosed(facts: &Facts) -> impl Iterator<Item = (&Host, &HostDiagnosis)> {
    facts.hosts.iter().filter_map(|host| Some((host, host.diagnosis.as_ref()?)))
}

fn dotted(version: i32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000)
}

#[cfg(test)]
pub(super) mod tests {
    use drover_common::doctor::{Conductor, Database, Pause};
    use drover_common::ids::HostName;
    use drover_common::rpc::latest::{Peer, Reach};

    use super::*;

    fn name(host: &str) -> HostName {
        HostName::new(host).unwrap()
    }

    fn host(host: &str) -> Host {
        let mount = Mount { path: "/srv".to_owned(), file_system: "nfs4".to_owned(), source: "nas:/guests".to_owned() };
        Host {
            host: name(host),
            up: true,
            forced_down: false,
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: 10_000_002,
            libvirt_version: 11_004_000,
            clock_ahead_ms: Some(-40),
            diagnosis: Some(HostDiagnosis {
                release: "0.1.0".to_owned(),
                clock: now(),
                here: Peer { host: name(host), address: host.to_owned(), migration_port: Some(49215) },
                libvirt_up: true,
                tcp_syn_retries: Some(3),
                certificates: vec![certificate(60)],
                instances: Some(mount),
                reach: vec![Reach { host: name("other"), problem: None }],
            }),
            problem: None,
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    fn certificate(days: i64) -> Certificate {
        Certificate { path: "/etc/drover/cert.pem".to_owned(), not_after: Some(now() + TimeDelta::days(days)), problem: None }
    }

    /// Nothing is wrong here.
    pub(in crate::doctor) fn healthy() -> Facts {
        Facts {
            release: "0.1.0".to_owned(),
            certificates: vec![certificate(90)],
            database: Database { clock: now(), steps_missing: Vec::new(), outbox_unpublished: 1, outbox_lag_seconds: 0.1 },
            conductor: Conductor { release: Some("0.1.0".to_owned()), clock_ahead_ms: Some(3), problem: None },
            conductors: BTreeMap::from([(name("c1"), true)]),
            hosts: vec![host("h1"), host("h2")],
            pause: None,
            findings: BTreeMap::new(),
            cleanup_debts: 0,
        }
    }

    fn diagnosis(facts: &mut Facts, at: usize) -> &mut HostDiagnosis {
        facts.hosts[at].diagnosis.as_mut().unwrap()
    }

    /// What a check says after `change`, and how bad that is.
    fn judged(check: Check, change: impl FnOnce(&mut Facts)) -> Vec<(Severity, String)> {
        let mut facts = healthy();
        change(&mut facts);
        check(&facts).into_iter().map(|judgement| (judgement.severity, judgement.what)).collect()
    }

    fn one(severity: Severity, what: &str) -> Vec<(Severity, String)> {
        vec![(severity, what.to_owned())]
    }

    #[test]
    fn all_is_well_where_nothing_is_wrong() {
        for (name, check) in CHECKS {
            assert_eq!(check(&healthy()), [], "{name}");
        }
    }

    #[test]
    fn a_schema_of_an_earlier_release_and_a_broker_that_takes_nothing_are_broken() {
        let schema = judged(database, |facts| facts.database.steps_missing = vec!["7 locks".to_owned()]);
        assert_eq!(schema, one(Severity::Broken, "the schema lacks 7 locks"));
        let outbox = judged(broker, |facts| facts.database.outbox_lag_seconds = 45.2);
        assert_eq!(outbox, one(Severity::Broken, "1 promised messages have not reached it, the oldest for 45 s"));
    }

    #[test]
    fn conductors_that_do_not_answer_are_broken_and_a_silent_one_beside_others_is_a_warning() {
        let none = judged(conductors, |facts| facts.conductor.problem = Some("nobody listens at conductor".to_owned()));
        assert_eq!(none, one(Severity::Broken, "none answers through the broker: nobody listens at conductor"));
        let silent = judged(conductors, |facts| facts.conductors.extend([(name("c2"), false)]));
        assert_eq!(silent, one(Severity::Warning, "c2 is silent"));
    }

    #[test]
    fn an_agent_is_silent_forced_down_without_an_answer_or_without_libvirt() {
        assert_eq!(judged(agents, |facts| facts.hosts[1].up = false), one(Severity::Broken, "h2 is silent"));
        let forced = judged(agents, |facts| (facts.hosts[1].up, facts.hosts[1].forced_down) = (false, true));
        assert_eq!(forced, one(Severity::Warning, "h2 is forced down"));
        let mute = judged(agents, |facts| {
            (facts.hosts[1].diagnosis, facts.hosts[1].problem) = (None, Some("no answer".to_owned()));
        });
        assert_eq!(mute, one(Severity::Broken, "h2 does not answer: no answer"));
        let libvirt = judged(agents, |facts| diagnosis(facts, 0).libvirt_up = false);
        assert_eq!(libvirt, one(Severity::Broken, "h1: libvirt does not answer its agent"));
        assert_eq!(judged(agents, |facts| facts.hosts.clear()), one(Severity::Broken, "no compute host is known"));
    }

    #[test]
    fn an_upgrade_that_is_not_finished_is_told_with_who_is_behind() {
        let found = judged(releases, |facts| "0.0.9".clone_into(&mut diagnosis(facts, 1).release));
        assert_eq!(found, one(Severity::Warning, "several are in use: 0.0.9 on h2; 0.1.0 on the API, the conductor, h1"));
    }

    #[test]
    fn a_libvirt_that_crashes_and_a_qemu_that_is_older_than_another_are_told() {
        let crash = judged(hypervisors, |facts| facts.hosts[0].libvirt_version = 11_003_000);
        let expected = "h1 has libvirt 11.3.0, which crashes when a broken post-copy is gone on with";
        assert_eq!(crash, one(Severity::Warning, expected));
        let older = judged(hypervisors, |facts| facts.hosts[1].hypervisor_version = 7_002_000);
        assert_eq!(older, one(Severity::Warning, "h2 has QEMU 7.2.0, h1 has 10.0.2"));
    }

    #[test]
    fn a_certificate_ends_soon_has_ended_or_cannot_be_read() {
        let soon = judged(certificates, |facts| diagnosis(facts, 0).certificates = vec![certificate(13)]);
        assert_eq!(soon, one(Severity::Warning, "h1: /etc/drover/cert.pem ends on 2024-10-17"));
        let ended = judged(certificates, |facts| facts.certificates = vec![certificate(-1)]);
        assert_eq!(ended, one(Severity::Broken, "the API: /etc/drover/cert.pem ended on 2024-10-03"));
        let unreadable = judged(certificates, |facts| {
            let problem = Some("Permission denied".to_owned());
            facts.certificates = vec![Certificate { not_after: None, problem, ..certificate(1) }];
        });
        assert_eq!(unreadable, one(Severity::Broken, "the API: /etc/drover/cert.pem cannot be read: Permission denied"));
    }

    #[test]
    fn clocks_may_be_two_seconds_apart() {
        assert_eq!(judged(clocks, |facts| facts.hosts[0].clock_ahead_ms = Some(-2000)), []);
        let behind = judged(clocks, |facts| facts.hosts[0].clock_ahead_ms = Some(-61_250));
        assert_eq!(behind, one(Severity::Warning, "h1's is 61.2 s behind the conductor's"));
        let ahead = judged(clocks, |facts| facts.conductor.clock_ahead_ms = Some(2001));
        assert_eq!(ahead, one(Severity::Warning, "the conductor's is 2.0 s ahead of the database's"));
    }

    #[test]
    fn the_kernels_patience_in_connect_is_told_in_seconds() {
        let found = judged(tcp_syn_retries, |facts| diagnosis(facts, 1).tcp_syn_retries = Some(6));
        let expected = "h2: 6: where packets are dropped, libvirt hangs in connect for 127 s";
        assert_eq!(found, one(Severity::Warning, expected));
        assert_eq!(judged(tcp_syn_retries, |facts| diagnosis(facts, 1).tcp_syn_retries = None), []);
    }

    #[test]
    fn one_host_outside_of_the_shared_storage_is_told_and_storage_of_ones_own_everywhere_is_fine() {
        let own = Mount { path: "/srv".to_owned(), file_system: "ext4".to_owned(), source: "/dev/sda1".to_owned() };
        let outside = judged(storage, |facts| diagnosis(facts, 1).instances = Some(own.clone()));
        assert_eq!(outside, one(Severity::Warning, "/srv on h2 is ext4 /dev/sda1, on h1 it is nfs4 nas:/guests"));
        let everywhere = judged(storage, |facts| {
            for at in [0, 1] {
                diagnosis(facts, at).instances = Some(own.clone());
            }
        });
        assert_eq!(everywhere, []);
    }

    #[test]
    fn a_host_that_another_does_not_reach_is_broken() {
        let found = judged(migration_ports, |facts| {
            let problem = Some("libvirt at h2 port 16514: no answer within 2 s (are packets dropped on the way?)".to_owned());
            diagnosis(facts, 0).reach = vec![Reach { host: name("h2"), problem }];
        });
        let expected = "h1 does not reach h2: libvirt at h2 port 16514: no answer within 2 s (are packets dropped on the way?)";
        assert_eq!(found, one(Severity::Broken, expected));
    }

    #[test]
    fn what_waits_for_an_operator_is_told() {
        let pause = Pause { reason: "new switches".to_owned(), paused_by: "admin".to_owned(), since: now() };
        let paused = judged(operators, |facts| facts.pause = Some(pause));
        let expected = "new migrations are held back by admin since 2024-10-04 00:00 UTC: new switches";
        assert_eq!(paused, one(Severity::Warning, expected));
        let found = judged(operators, |facts| {
            facts.findings = BTreeMap::from([("leftover".to_owned(), 2), ("ownership_conflict".to_owned(), 1)]);
            facts.cleanup_debts = 3;
        });
        let severities: Vec<Severity> = found.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, [Severity::Warning, Severity::Broken, Severity::Warning], "{found:?}");
    }
}
