//! Every message as it stands on the wire. A change here is a change of the protocol: it needs a line in the CHANGELOG, and either
//! a default for what an older peer does not send, or another major version.

use chrono::DateTime;
use drover_common::fault::Fault;
use drover_common::host::HostInventory;
use drover_common::ids::{Attempt, HostName, Incarnation, MessageId, MigrationId, PowerActionId, RequestId, Revision, ServerId};
use drover_common::migration::{Decision, JobResult, Outlook, Progress};
use drover_common::power::PowerAction;
use drover_common::rpc::envelope::{Envelope, MAX_MESSAGE_BYTES, UserContext, VERSION, decode};
use drover_common::rpc::latest::*;
use drover_common::server::Flavor;
use insta::assert_json_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

fn server() -> ServerId {
    ServerId(Uuid::from_u128(0x1111))
}

fn life() -> Incarnation {
    Incarnation(Uuid::from_u128(0x2222))
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn of() -> OfAttempt {
    OfAttempt { migration: MigrationId(7), attempt: Attempt(1), server: server() }
}

fn envelope<M>(message: M) -> Envelope<M> {
    Envelope {
        message_id: MessageId(Uuid::from_u128(0x3333)),
        request_id: Some(RequestId::from_stored("req-00000000-0000-0000-0000-000000004444".to_owned())),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        context: UserContext { user_id: Some("alice".to_owned()), project_id: Some("blue".to_owned()) },
        ..Envelope::new(message)
    }
}

/// Writes a message as it is sent, and reads it back.
fn wire<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: M) -> serde_json::Value {
    let envelope = envelope(message);
    let bytes = serde_json::to_vec(&envelope).unwrap();
    assert_eq!(decode::<M>(&bytes).unwrap(), envelope);
    serde_json::from_slice(&bytes).unwrap()
}

fn disk() -> GuestDisk {
    GuestDisk {
        target: "vda".to_owned(),
        source: DiskSource::File { path: "/srv/shared/vm.qcow2".to_owned() },
        read_only: false,
        shareable: false,
        format: "qcow2".to_owned(),
        capacity_bytes: 1 << 30,
        allocation_bytes: 1 << 20,
        backing_file: Some("/srv/base/debian".to_owned()),
        resolves_to: Some("/srv/pool/vm.qcow2".to_owned()),
        chain: vec![Image {
            source: DiskSource::File { path: "/srv/base/debian".to_owned() },
            format: "raw".to_owned(),
            resolves_to: None,
            file: Some(FileFacts { bytes: 1 << 30, allocated_bytes: 1 << 28, inode: 12, made_ns: Some(1_700_000_000_000_000_000) }),
        }],
        not_copyable: None,
        file: Some(FileFacts { bytes: 1 << 21, allocated_bytes: 1 << 20, inode: 13, made_ns: None }),
    }
}

fn probe() -> StorageProbe {
    StorageProbe { directory: "/srv/shared".to_owned(), written: Ok(".drover-probe-h1-1".to_owned()) }
}

fn guest() -> GuestDescription {
    GuestDescription {
        name: "instance-1".to_owned(),
        state: GuestState::Running,
        persistent: true,
        xml: "<domain/>".to_owned(),
        memory_mb: 1024,
        disks: vec![disk()],
        probes: vec![probe()],
        host_cpu: Some("<cpu><arch>x86_64</arch><model>Westmere</model></cpu>".to_owned()),
        networks: vec![HostNetwork { name: "br-ex".to_owned(), physical_network: Some("physnet1".to_owned()) }],
    }
}

fn found() -> DestinationCheck {
    let directory = DirectoryCheck {
        directory: "/srv/shared".to_owned(),
        sees_source: Ok(true),
        probe: probe(),
        free_bytes: Some(1 << 40),
        device: Some(64769),
    };
    DestinationCheck {
        connect_address: "192.0.2.2".to_owned(),
        inbound_address_set: true,
        migration_port_probe: Some(49215),
        directories: vec![directory],
        block_devices: vec![BlockDeviceCheck { path: "/dev/sdb".to_owned(), identity: Some("naa.1".to_owned()) }],
        graphics_listen_addr_vnc: None,
        graphics_listen_addr_spice: None,
        links: vec![LinkCheck { path: "/srv/shared/vm.qcow2".to_owned(), resolves_to: "/srv/pool/vm.qcow2".to_owned() }],
        no_post_copy: Some("no userfaultfd".to_owned()),
        stream: Some(StreamEnd {
            qemu_version: Some(10_000_002),
            libvirt_version: Some(11_003_000),
            requires_tls: true,
            tls: TlsEnd {
                trusts: vec!["5e884898".to_owned()],
                server: Some(Ok("5e884898".to_owned())),
                client: Some(Err("client-cert.pem is missing".to_owned())),
            },
        }),
        images: Some(vec![ImageCheck {
            path: "/srv/base/debian".to_owned(),
            bytes: Some(1 << 30),
            digest: Some(Ok("ba7816bf".to_owned())),
        }]),
        networks: networks(),
        consoles: consoles(),
    }
}

fn networks() -> Vec<Renamed> {
    vec![Renamed { from: "br-ex".to_owned(), to: "br0".to_owned() }]
}

fn consoles() -> Vec<MovedConsole> {
    let at = |host: &str, service: &str| ConsoleAddress { host: host.to_owned(), service: service.to_owned() };
    vec![MovedConsole { from: at("192.0.2.1", "10000"), to: at("192.0.2.2", "10001") }]
}

fn data() -> MigrateData {
    MigrateData {
        name: "instance-1".to_owned(),
        xml: "<domain/>".to_owned(),
        persistent: true,
        paused: false,
        block_migration: true,
        disks: vec![MigrateDisk {
            disk: disk(),
            sharing: Sharing::NotShared,
            copied: true,
            carried: false,
            below: Some(Below::Kept),
            why: "/srv/base/debian: the destination has the same content".to_owned(),
        }],
        destination: DestinationAddresses {
            host: host("h2"),
            connect_address: "192.0.2.2".to_owned(),
            inbound_address_set: true,
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
            networks: networks(),
            consoles: consoles(),
        },
        no_post_copy: Some("no userfaultfd".to_owned()),
        connect_timeout_s: Some(127),
        stream: Some(Stream { parallel_connections: Some(4), zstd_level: Some(1), why: "TLS, parallel connections: 4".to_owned() }),
        no_way_back: Some("QEMU 10.0.2 of h2 is newer".to_owned()),
    }
}

fn facts() -> HostFacts {
    let marker = Some(Marker { migration: MigrationId(7), attempt: Attempt(1) });
    HostFacts {
        incarnation: life(),
        guest: Some(GuestFacts { state: GuestState::PausedMigration, persistent: true, marker }),
        job: Some(JobKind::MigrationOut),
        call: CallState::Ended { error: Some("operation aborted".to_owned()), taken_back: Some("it took too long".to_owned()) },
    }
}

fn domain() -> DomainReport {
    DomainReport {
        server: server(),
        domain_name: "instance-1".to_owned(),
        display_name: "web".to_owned(),
        state: GuestState::Running,
        job: None,
        persistent: true,
        marker: None,
        flavor: Flavor { name: "m1.tiny".to_owned(), vcpus: 1, memory_mb: 512, root_gb: 1, ephemeral_gb: 0, swap_mb: 0 },
        owner: Some(Owner { project_id: "blue".to_owned(), user_id: "alice".to_owned() }),
    }
}

fn domains() -> DomainsReport {
    DomainsReport {
        incarnation: life(),
        sequence: 3,
        complete: true,
        domains: vec![domain()],
        gone: Vec::new(),
        unreadable: vec![ServerId(Uuid::from_u128(0x6666))],
    }
}

fn inventory() -> HostInventory {
    HostInventory {
        host_uuid: Uuid::from_u128(0x5555),
        hypervisor_hostname: "h1".to_owned(),
        hypervisor_type: "QEMU".to_owned(),
        hypervisor_version: 10_000_002,
        libvirt_version: 11_003_000,
        host_ip: "192.0.2.1".to_owned(),
        vcpus: 8,
        memory_mb: 16384,
        local_gb: 100,
        free_disk_gb: 80,
        cpu_info: serde_json::json!({"arch": "x86_64"}),
        link_bandwidth_mib: 1000,
        migration_bandwidth_mib: 200,
    }
}

fn piece() -> ImagePiece {
    ImagePiece { extents: vec![Extent { offset: 2 << 20, content: b"meta_data.json".to_vec() }], next: Some(3 << 20) }
}

fn peer() -> Peer {
    Peer { host: host("h2"), address: "192.0.2.2".to_owned(), migration_port: Some(49215) }
}

fn diagnosis() -> HostDiagnosis {
    HostDiagnosis {
        release: "0.1.0".to_owned(),
        clock: DateTime::UNIX_EPOCH,
        here: Peer { host: host("h1"), address: "192.0.2.1".to_owned(), migration_port: Some(49215) },
        libvirt_up: true,
        tcp_syn_retries: Some(6),
        certificates: vec![Certificate {
            path: "/etc/drover/cert.pem".to_owned(),
            not_after: Some(DateTime::UNIX_EPOCH),
            problem: None,
        }],
        instances: Some(Mount {
            path: "/var/lib/libvirt/images".to_owned(),
            file_system: "nfs4".to_owned(),
            source: "nas:/guests".to_owned(),
        }),
        reach: vec![Reach { host: host("h2"), problem: Some("libvirt at 192.0.2.2 port 16509: refused".to_owned()) }],
    }
}

fn clean_up(authority: Authority) -> CleanUp {
    CleanUp {
        migration: MigrationId(7),
        left_by: Attempt(1),
        server: server(),
        authority,
        data: data(),
        probes: Some(vec![probe()]),
    }
}

#[test]
fn messages_to_a_compute_agent() {
    let (migration, server) = (MigrationId(7), server());
    let with_data = || WithData { of: of(), data: data() };
    let messages = [
        ToCompute::DescribeGuest(AboutGuest { migration, server }),
        ToCompute::CheckCanLiveMigrateDestination(CheckDestination { migration, server, guest: guest(), source_host: host("h1") }),
        ToCompute::CheckCanLiveMigrateSource(CheckSource {
            migration,
            server,
            guest: guest(),
            destination_host: host("h2"),
            found: found(),
            block_migration: None,
            disk_over_commit: Some(false),
        }),
        ToCompute::PreLiveMigration(with_data()),
        ToCompute::ReadImage(PieceOfImage { of: of(), target: "sda".to_owned(), offset: 2 << 20 }),
        ToCompute::WriteImage(WriteImage { with: with_data(), target: "sda".to_owned(), piece: piece() }),
        ToCompute::LiveMigration(with_data()),
        ToCompute::LiveMigrationAbort(of()),
        ToCompute::LiveMigrationForceComplete(of()),
        ToCompute::LiveMigrationBandwidth(Bandwidth { of: of(), bandwidth_mib: Some(50) }),
        ToCompute::RecoverPostCopy(Recovery { with: with_data(), pause_ms: 2000 }),
        ToCompute::GetFacts(of()),
        ToCompute::PostLiveMigrationAtDestination(with_data()),
        ToCompute::ProbeStorage(with_data()),
        ToCompute::ForgetProbes(AboutGuest { migration, server }),
        ToCompute::PostLiveMigration(clean_up(Authority::Migration { attempt: Attempt(1) })),
        ToCompute::RollbackLiveMigrationAtDestination(clean_up(Authority::Debt { id: 3 })),
        ToCompute::ResumeGuest(of()),
        ToCompute::SuspendGuest(of()),
        ToCompute::DiscardGuest(of()),
        ToCompute::Power(PowerOrder { id: PowerActionId(9), server, action: PowerAction::RebootSoft }),
        ToCompute::ReportDomains,
        ToCompute::Diagnose(Diagnose { peers: vec![peer()] }),
    ];
    for message in messages {
        let name = message.name();
        assert_json_snapshot!(format!("to_compute.{name}"), wire(message));
    }
}

#[test]
fn messages_to_a_conductor() {
    let progress = Progress {
        elapsed_ms: 1,
        memory_total: 2,
        memory_processed: 3,
        memory_remaining: 4,
        outlook: Some(Outlook { eta_ms: Some(2000), basis: "what is left".to_owned() }),
        bandwidth_mib: Some(50),
        ..Progress::default()
    };
    let policy = Decision { elapsed_ms: 0, what: "policy".to_owned(), why: "convergence".to_owned() };
    let decision = Decision { elapsed_ms: 900, what: "downtime 95 ms".to_owned(), why: "live_migration_downtime_steps".to_owned() };
    let grant = GrantRequest {
        migration: MigrationId(7),
        authority: Authority::Migration { attempt: Attempt(1) },
        kind: GrantKind::Start,
        incarnation: life(),
    };
    let report = MigrationReport {
        migration: MigrationId(7),
        attempt: Attempt(1),
        server: server(),
        revision: Some(Revision(5)),
        facts: facts(),
        result: Some(JobResult { total_ms: Some(900), downtime_ms: Some(30), ..JobResult::default() }),
        not_started: None,
    };
    let messages = [
        ToConductor::MigrateServer(MigrateServer { migration: MigrationId(7), live: true, rebuild: false, flavor: None }),
        ToConductor::Wake { migration: MigrationId(7) },
        ToConductor::HostUp(HostUp { incarnation: life(), inventory: inventory(), domains: domains() }),
        ToConductor::Heartbeat { incarnation: life() },
        ToConductor::Domains(domains()),
        ToConductor::Grant(grant),
        ToConductor::WakePower { power_action: PowerActionId(9) },
        ToConductor::GrantPower(PowerGrantRequest { id: PowerActionId(9), incarnation: life() }),
        ToConductor::Progress(ProgressReport { of: of(), progress }),
        ToConductor::Decided(DecisionReport { of: of(), decision: policy, more: vec![decision.clone()] }),
        ToConductor::Report(report),
        ToConductor::Diagnose,
    ];
    for message in messages {
        let name = message.name();
        assert_json_snapshot!(format!("to_conductor.{name}"), wire(message));
    }
    let alone = ToConductor::Decided(DecisionReport { of: of(), decision, more: Vec::new() });
    assert_json_snapshot!("to_conductor.decided.alone", wire(alone));
}

#[test]
fn messages_to_an_api_process() {
    assert_json_snapshot!("to_api.migration_moved", wire(ToApi::MigrationMoved { migration: MigrationId(7) }));
}

#[test]
fn answers() {
    assert_json_snapshot!("answer.describe_guest", guest());
    assert_json_snapshot!("answer.read_image", piece());
    assert_json_snapshot!("answer.check_can_live_migrate_destination", found());
    assert_json_snapshot!("answer.check_can_live_migrate_source", data());
    assert_json_snapshot!("answer.get_facts", facts());
    assert_json_snapshot!(
        "answer.host_up",
        HostWelcome {
            watch: vec![Watch {
                of: of(),
                revision: Revision(5),
                abort_requested: true,
                force_complete_requested: false,
                no_post_copy: false,
                bandwidth_mib: Some(50),
            }]
        }
    );
    assert_json_snapshot!("answer.grant", Granted { revision: Revision(5), abort_requested: false, bandwidth_mib: Some(50) });
    assert_json_snapshot!(
        "answer.post_live_migration_at_destination",
        Arrival { report: DomainsReport { complete: false, ..domains() }, announced_after_ms: Some(2) }
    );
    assert_json_snapshot!("answer.power.under_way", PowerProgress::UnderWay);
    assert_json_snapshot!("answer.power.done", PowerProgress::Done { report: domains() });
    let fault = Fault::power_action(PowerAction::Stop, "libvirt on h1: no");
    assert_json_snapshot!("answer.power.failed", PowerProgress::Failed { fault, report: None });
    assert_json_snapshot!("answer.diagnose.host", diagnosis());
    let hosts = vec![
        Diagnosed { host: host("h1"), clock_ahead_ms: Some(-3), diagnosis: Some(diagnosis()), problem: None },
        Diagnosed { host: host("h3"), clock_ahead_ms: None, diagnosis: None, problem: Some("no answer".to_owned()) },
    ];
    let fleet = FleetDiagnosis { release: "0.1.0".to_owned(), clock: DateTime::UNIX_EPOCH, hosts };
    assert_json_snapshot!("answer.diagnose.fleet", fleet);
    assert_json_snapshot!("answer.fault", Fault::precheck("no"));
}

#[test]
fn a_newer_minor_version_with_fields_that_we_do_not_know_is_understood() {
    let mut sent = wire(ToConductor::Wake { migration: MigrationId(7) });
    sent["version"] = "1.9".into();
    sent["from_the_future"] = true.into();
    sent["body"]["also"] = "this".into();
    let read = decode::<ToConductor>(&serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(read.message, ToConductor::Wake { migration: MigrationId(7) });
}

/// What the release before wrote, without the fields of 1.1.
#[test]
fn a_message_of_the_minor_before_is_understood() {
    let mut sent = wire(ToConductor::Domains(domains()));
    sent["version"] = "1.0".into();
    sent["body"].as_object_mut().unwrap().remove("unreadable");
    let read = decode::<ToConductor>(&serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(read.message, ToConductor::Domains(DomainsReport { unreadable: Vec::new(), ..domains() }));
    let mut watch = serde_json::to_value(Watch {
        of: of(),
        revision: Revision(5),
        abort_requested: true,
        force_complete_requested: true,
        no_post_copy: true,
        bandwidth_mib: Some(50),
    })
    .unwrap();
    watch.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_requested") && key != "bandwidth_mib");
    let read: Watch = serde_json::from_value(watch).unwrap();
    assert!(!read.abort_requested && !read.force_complete_requested && read.bandwidth_mib.is_none());
    let mut known = serde_json::to_value(inventory()).unwrap();
    known.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_bandwidth_mib"));
    let read: HostInventory = serde_json::from_value(known).unwrap();
    assert_eq!((read.link_bandwidth_mib, read.migration_bandwidth_mib), (0, 0));
    let mut described = serde_json::to_value(guest()).unwrap();
    described.as_object_mut().unwrap().retain(|key, _| !["host_cpu", "networks"].contains(&key.as_str()));
    described["disks"][0].as_object_mut().unwrap().retain(|key, _| !["resolves_to", "chain", "file"].contains(&key.as_str()));
    let read: GuestDescription = serde_json::from_value(described).unwrap();
    assert!(read.networks.is_empty() && read.disks[0].chain.is_empty() && !read.disks[0].shareable);
    assert_eq!((read.host_cpu, read.disks[0].data_file()), (None, Some("/srv/shared/vm.qcow2")));
}

#[test]
fn another_major_version_and_an_unknown_kind_of_a_newer_minor_are_refused_by_version() {
    let mut sent = wire(ToConductor::Wake { migration: MigrationId(7) });
    sent["version"] = "2.0".into();
    let refused = decode::<ToConductor>(&serde_json::to_vec(&sent).unwrap()).unwrap_err();
    assert_eq!(refused, Fault::unsupported_version("2.0", VERSION));
    sent["version"] = "1.9".into();
    sent["kind"] = "teleport".into();
    let refused = decode::<ToConductor>(&serde_json::to_vec(&sent).unwrap()).unwrap_err();
    assert_eq!(refused, Fault::unsupported_version("1.9", VERSION));
}

#[test]
fn a_message_that_is_too_long_or_no_message_is_refused() {
    let long = vec![b' '; MAX_MESSAGE_BYTES + 1];
    assert!(decode::<ToConductor>(&long).unwrap_err().message.contains("bytes"));
    assert!(decode::<ToConductor>(b"hello").is_err());
    assert!(decode::<ToConductor>(b"{}").is_err());
}
