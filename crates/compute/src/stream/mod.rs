//! How a guest's memory (and with TLS its copied disks) travels between two QEMUs: encrypted or not, on how many connections,
//! compressed or not.
//!
//! All of it is agreed on before the guest is touched, by the source, from what both ends say they can do ([`own_end`]): what
//! libvirt or QEMU would refuse in the middle of the start is refused here, in words. Pure but for [`own_end`] and [`link`].
//!
//! - [`certificates`], [`qemu_conf`]: what QEMU has for TLS.
//! - [`possible`]: what takes newer versions than a host has. Adding a rule: a line in its table.
//! - [`compression`], [`link`]: whether compression is worth its cores.

pub mod certificates;
pub mod compression;
pub mod link;
pub mod possible;
pub mod qemu_conf;

use std::path::Path;

use drover_common::config::{Compression, LibvirtSection};
use drover_common::ids::HostName;
use drover_common::rpc::latest::{Stream, StreamEnd, TlsEnd};

use self::link::Link;
use crate::context::Context;
use crate::flags::MigrationFlags;
use crate::inventory::dotted;

/// The options that the stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Take part in no migration without TLS.
    pub require_tls: bool,
    /// Connections, if the stream is parallel.
    pub connections: u8,
    /// Whether to compress.
    pub compression: Compression,
    /// zstd's level.
    pub level: u8,
    /// What a migration may take of the link, MiB/s; 0 for all.
    pub bandwidth_mib: u64,
}

impl StreamOptions {
    /// The stream's part of `[libvirt]`.
    pub fn new(libvirt: &LibvirtSection) -> Self {
        Self {
            require_tls: libvirt.live_migration_require_tls,
            connections: libvirt.live_migration_parallel_connections,
            compression: libvirt.live_migration_compression,
            level: libvirt.live_migration_compression_level,
            bandwidth_mib: libvirt.live_migration_bandwidth.into(),
        }
    }

    /// The flags that they ask for, whatever the link is.
    pub fn flags(&self) -> MigrationFlags {
        match (self.compression, self.connections) {
            (Compression::Zstd, _) => COMPRESSED_STREAM,
            (_, 2..) => MigrationFlags::PARALLEL,
            _ => MigrationFlags::NONE,
        }
    }

    /// What the configuration alone says, for an order from a conductor that does not know of streams.
    pub fn by_themselves(&self, flags: MigrationFlags) -> Stream {
        let zstd = self.compression == Compression::Zstd && flags.intersects(MigrationFlags::COMPRESSED);
        self.stream(flags, zstd.then_some(self.level), None)
    }

    fn stream(&self, flags: MigrationFlags, zstd_level: Option<u8>, compression: Option<String>) -> Stream {
        let parallel_connections = flags.intersects(MigrationFlags::PARALLEL).then_some(self.connections);
        let tls = if flags.intersects(MigrationFlags::TLS) { "TLS" } else { "not encrypted" };
        let connections = parallel_connections.map_or_else(|| "one stream".to_owned(), |n| format!("parallel connections: {n}"));
        let why = [Some(format!("{tls}, {connections}")), compression].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Stream { parallel_connections, zstd_level, why }
    }
}

/// libvirt has zstd for parallel streams only.
const COMPRESSED_STREAM: MigrationFlags = MigrationFlags::PARALLEL.with(MigrationFlags::COMPRESSED);

/// The flags for a stream that was agreed on.
#[must_use]
pub fn flags_of(stream: &Stream, flags: MigrationFlags) -> MigrationFlags {
    let flags = if stream.parallel_connections.is_some() { flags.with(MigrationFlags::PARALLEL) } else { flags };
    if stream.zstd_level.is_some() { flags.with(COMPRESSED_STREAM) } else { flags }
}

/// The two hosts, and what each says of its end.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The source's name.
    pub source: &'a HostName,
    /// Its end.
    pub here: &'a StreamEnd,
    /// The destination's name.
    pub destination: &'a HostName,
    /// Its end; none from an agent that is older than streams.
    pub there: Option<&'a StreamEnd>,
}

impl<'a> Ends<'a> {
    /// Both, as far as they say anything.
    fn each(&self) -> impl Iterator<Item = (&'a HostName, &'a StreamEnd)> {
        [Some((self.source, self.here)), self.there.map(|there| (self.destination, there))].into_iter().flatten()
    }
}

/// How a guest with these flags travels, or why it cannot.
pub fn agree(options: &StreamOptions, flags: MigrationFlags, ends: Ends<'_>, link: Option<&Link>) -> Result<Stream, String> {
    encryption(options, flags, ends)?;
    let (zstd_level, why) = match options.compression {
        Compression::None => (None, None),
        Compression::Zstd => (Some(options.level), Some(format!("zstd level {}, as configured", options.level))),
        Compression::Auto => {
            let cannot =
                flags.with(COMPRESSED_STREAM).possible().and_then(|()| possible::check(flags.with(COMPRESSED_STREAM), true, ends));
            let (zstd, why) = compression::choose(options, link, cannot.err());
            (zstd.then_some(options.level), Some(why))
        }
    };
    let flags = if zstd_level.is_some() { flags.with(COMPRESSED_STREAM) } else { flags };
    possible::check(flags, zstd_level.is_some(), ends)?;
    Ok(options.stream(flags, zstd_level, why))
}

/// Whether both ends have what the encryption that is wanted takes, and whether one is wanted that is not to be had.
fn encryption(options: &StreamOptions, flags: MigrationFlags, ends: Ends<'_>) -> Result<(), String> {
    let Ends { source, destination, here, there } = ends;
    if !flags.intersects(MigrationFlags::TLS) {
        let demanding = ends.each().find(|(_, end)| end.requires_tls);
        return demanding.map_or(Ok(()), |(host, _)| {
            Err(format!(
                "{host} takes part in no migration without TLS (live_migration_require_tls, or migrate_tls_force in qemu.conf), and \
                 {source} migrates without it: set live_migration_with_native_tls there"
            ))
        });
    }
    let option = if options.require_tls || there.is_some_and(|there| there.requires_tls) {
        "live_migration_require_tls"
    } else {
        "live_migration_with_native_tls"
    };
    match there {
        Some(there) => fits((source, &here.tls), (destination, &there.tls)).map_err(|why| format!("{option}: {why}")),
        None if options.require_tls => Err(format!("{option}: the agent of {destination} is too old to tell of its certificates")),
        None => Ok(()),
    }
}

/// Whether what leaves `source` and arrives at `destination` finds certificates on both sides that the other takes.
fn fits((source, from): (&HostName, &TlsEnd), (destination, to): (&HostName, &TlsEnd)) -> Result<(), String> {
    let own = |host: &HostName, role: &str, own: &Option<Result<String, String>>| match own {
        Some(Ok(authority)) => Ok(authority.clone()),
        Some(Err(why)) => Err(format!("QEMU on {host} has no {role} certificate: {why}")),
        None => Err(format!("QEMU on {host} has no {role} certificate")),
    };
    let (client, server) = (own(source, "client", &from.client)?, own(destination, "server", &to.server)?);
    for (host, authority, judge, trusts) in [(source, client, destination, &to.trusts), (destination, server, source, &from.trusts)]
    {
        if !trusts.contains(&authority) {
            return Err(format!("the certificate of QEMU on {host} is of a CA that {judge} does not take (ca-cert.pem there)"));
        }
    }
    Ok(())
}

/// Why a guest that goes there could not come back the same way, if that is so.
pub fn no_way_back(flags: MigrationFlags, ends: Ends<'_>) -> Option<String> {
    let Ends { source, destination, here, there } = ends;
    let there = there?;
    let mut reasons = Vec::new();
    if let (Some(old), Some(new)) = (here.qemu_version, there.qemu_version)
        && new > old
    {
        reasons.push(format!(
            "QEMU {} of {destination} is newer than {} of {source}: HypervisorFilter refuses the way back unless \
             skip_hypervisor_version_check_on_lm is set, and QEMU does not promise that an older one understands it",
            dotted(new),
            dotted(old)
        ));
    }
    if flags.intersects(MigrationFlags::TLS)
        && let Err(why) = fits((destination, &there.tls), (source, &here.tls))
    {
        reasons.push(format!("TLS on the way back: {why}"));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// What this host's end of a stream can do.
pub async fn own_end(ctx: &Context) -> StreamEnd {
    let qemu = ctx.qemu();
    let user = qemu.and_then(|qemu| qemu.user);
    // What arrives is led to this address, and checks that the certificate is for it.
    let name = ctx.options.live_migration_inbound_addr.as_ref().map(ToString::to_string);
    let look = move || {
        let conf = std::fs::read_to_string(qemu_conf::PATH).unwrap_or_default();
        let directory = qemu_conf::certificate_directory(&conf, Path::exists);
        (qemu_conf::forces_tls(&conf), certificates::look(&directory, user, name.as_deref()))
    };
    let (forced, tls) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    StreamEnd {
        qemu_version: qemu.map(|qemu| qemu.version),
        libvirt_version: ctx.libvirt_version(),
        requires_tls: ctx.options.stream.require_tls || forced,
        tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: (i32, i32) = (10_000_002, 11_003_000);

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn end((qemu, libvirt): (i32, i32)) -> StreamEnd {
        let of_the_ca = || Some(Ok("ca".to_owned()));
        let tls = TlsEnd { trusts: vec!["ca".to_owned()], server: of_the_ca(), client: of_the_ca() };
        StreamEnd { qemu_version: Some(qemu), libvirt_version: Some(libvirt), requires_tls: false, tls }
    }

    fn options(compression: Compression, connections: u8) -> StreamOptions {
        StreamOptions { require_tls: false, connections, compression, level: 1, bandwidth_mib: 0 }
    }

    fn agreed(options: &StreamOptions, also: MigrationFlags, here: &StreamEnd, there: &StreamEnd) -> Result<Stream, String> {
        let flags = MigrationFlags::LIVE.with(MigrationFlags::PEER2PEER).with(options.flags()).with(also);
        let (source, destination) = (&host("h1"), &host("h2"));
        agree(options, flags, Ends { source, here, destination, there: Some(there) }, None)
    }

    #[test]
    fn the_default_is_one_stream_in_the_clear_and_says_so() {
        let stream = agreed(&options(Compression::None, 1), MigrationFlags::NONE, &end(NEW), &end(NEW)).unwrap();
        assert_eq!(stream, Stream { parallel_connections: None, zstd_level: None, why: "not encrypted, one stream".to_owned() });
        assert_eq!(flags_of(&stream, MigrationFlags::LIVE), MigrationFlags::LIVE);
    }

    #[test]
    fn what_is_configured_is_agreed_on_and_becomes_flags() {
        let stream = agreed(&options(Compression::Zstd, 4), MigrationFlags::TLS, &end(NEW), &end(NEW)).unwrap();
        assert_eq!((stream.parallel_connections, stream.zstd_level), (Some(4), Some(1)));
        assert_eq!(stream.why, "TLS, parallel connections: 4; zstd level 1, as configured");
        let flags = flags_of(&stream, MigrationFlags::LIVE);
        assert!(flags.intersects(MigrationFlags::PARALLEL) && flags.intersects(MigrationFlags::COMPRESSED));
    }

    #[test]
    fn tls_that_one_side_requires_and_the_source_does_not_use_is_refused_by_name() {
        let demanding = StreamEnd { requires_tls: true, ..end(NEW) };
        let refused = agreed(&options(Compression::None, 1), MigrationFlags::NONE, &end(NEW), &demanding).unwrap_err();
        assert!(refused.starts_with("h2 takes part in no migration without TLS (live_migration_require_tls,"), "{refused}");
        agreed(&options(Compression::None, 1), MigrationFlags::TLS, &end(NEW), &demanding).unwrap();
    }

    #[test]
    fn a_certificate_that_is_missing_or_not_taken_on_either_side_is_refused_by_host_and_option() {
        let with = |change: fn(&mut TlsEnd)| {
            let mut end = end(NEW);
            change(&mut end.tls);
            end
        };
        let good = end(NEW);
        let expired = with(|tls| tls.client = Some(Err("client-cert.pem expired on …".to_owned())));
        let missing = with(|tls| tls.server = Some(Err("server-cert.pem is missing".to_owned())));
        let foreign = with(|tls| tls.trusts = vec!["other".to_owned()]);
        for (here, there, part) in [
            (&expired, &good, "live_migration_with_native_tls: QEMU on h1 has no client certificate: client-cert.pem expired"),
            (&good, &missing, "QEMU on h2 has no server certificate: server-cert.pem is missing"),
            (&good, &foreign, "the certificate of QEMU on h1 is of a CA that h2 does not take"),
            (&foreign, &good, "the certificate of QEMU on h2 is of a CA that h1 does not take"),
        ] {
            let refused = agreed(&options(Compression::None, 1), MigrationFlags::TLS, here, there).unwrap_err();
            assert!(refused.contains(part), "{refused}");
            agreed(&options(Compression::None, 1), MigrationFlags::NONE, here, there).unwrap();
        }
        // What the other direction would take is none of this one's matter.
        agreed(&options(Compression::None, 1), MigrationFlags::TLS, &missing, &expired).unwrap();
    }

    #[test]
    fn an_agent_that_does_not_tell_of_its_certificates_is_enough_only_where_they_are_not_required() {
        let (source, destination, here) = (&host("h1"), &host("h2"), &end(NEW));
        let ends = Ends { source, here, destination, there: None };
        let mut options = options(Compression::None, 1);
        agree(&options, MigrationFlags::TLS, ends, None).unwrap();
        options.require_tls = true;
        assert!(agree(&options, MigrationFlags::TLS, ends, None).unwrap_err().contains("too old"));
    }

    #[test]
    fn where_zstd_cannot_be_auto_does_without_and_says_why_and_zstd_is_refused() {
        let old = end((7_002_000, 9_000_000));
        let refused = agreed(&options(Compression::Zstd, 2), MigrationFlags::NONE, &end(NEW), &old).unwrap_err();
        assert!(refused.contains("libvirt 9.1") && refused.contains("h2"), "{refused}");
        let stream = agreed(&options(Compression::Auto, 1), MigrationFlags::NONE, &end(NEW), &old).unwrap();
        assert!(stream.zstd_level.is_none() && stream.why.contains("libvirt 9.1"), "{stream:?}");
        let stream = agreed(&options(Compression::Auto, 1), MigrationFlags::POSTCOPY, &end(NEW), &end(NEW)).unwrap();
        assert!(stream.parallel_connections.is_none() && stream.why.contains("QEMU 10.1"), "{stream:?}");
    }

    #[test]
    fn a_guest_that_could_not_come_back_is_warned_of() {
        let (source, destination) = (&host("h1"), &host("h2"));
        let warned =
            |flags, here: &StreamEnd, there: &StreamEnd| no_way_back(flags, Ends { source, here, destination, there: Some(there) });
        let old = end((7_002_000, 9_000_000));
        assert_eq!(warned(MigrationFlags::TLS, &end(NEW), &end(NEW)), None);
        assert_eq!(warned(MigrationFlags::TLS, &end(NEW), &old), None, "newer to older is the way that is checked now");
        let newer = warned(MigrationFlags::NONE, &old, &end(NEW)).unwrap();
        assert!(newer.starts_with("QEMU 10.0.2 of h2 is newer than 7.2.0 of h1"), "{newer}");
        let mut one_way = end(NEW);
        one_way.tls.server = None;
        assert_eq!(warned(MigrationFlags::NONE, &one_way, &end(NEW)), None);
        let no_server = warned(MigrationFlags::TLS, &one_way, &end(NEW)).unwrap();
        assert_eq!(no_server, "TLS on the way back: QEMU on h1 has no server certificate");
    }
}
