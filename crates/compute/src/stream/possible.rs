//! What takes newer versions of QEMU or libvirt than a host has. What no version can do is in [`crate::flags`], and refused at the
//! start of the agent.

use super::Ends;
use crate::flags::MigrationFlags;
use crate::inventory::dotted;

/// Something that takes certain versions on both hosts.
struct Rule {
    /// Flags that make it up, all of them.
    flags: &'static [MigrationFlags],
    /// Whether it is about zstd: the flag for compression does not say by what.
    zstd: bool,
    /// Its name, and the options that ask for it.
    what: &'static str,
    /// QEMU's first version with it; 0: all that we meet.
    qemu: i32,
    /// libvirt's.
    libvirt: i32,
}

const RULES: &[Rule] = &[
    Rule {
        flags: &[MigrationFlags::POSTCOPY, MigrationFlags::PARALLEL],
        zstd: false,
        // QEMU's `migrate_caps_check`, "Postcopy is not yet compatible with multifd"; Nova's MIN_MULTIFD_WITH_POSTCOPY_QEMU_VERSION.
        what: "post-copy with parallel connections (live_migration_permit_post_copy with live_migration_parallel_connections or \
               live_migration_compression)",
        qemu: 10_001_000,
        libvirt: 0,
    },
    Rule {
        flags: &[MigrationFlags::COMPRESSED, MigrationFlags::PARALLEL],
        zstd: true,
        what: "zstd (live_migration_compression)",
        qemu: 5_000_000,
        libvirt: 9_001_000,
    },
    Rule {
        flags: &[MigrationFlags::ZEROCOPY],
        zstd: false,
        what: "zero-copy (VIR_MIGRATE_ZEROCOPY)",
        qemu: 7_001_000,
        libvirt: 8_005_000,
    },
    Rule {
        flags: &[MigrationFlags::NON_SHARED_SYNCHRONOUS_WRITES],
        zstd: false,
        what: "synchronous writes (VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES)",
        qemu: 0,
        libvirt: 8_000_000,
    },
];

/// Whether both hosts can do what these flags ask for together. A host that does not tell its versions is taken at its libvirt's word.
pub fn check(flags: MigrationFlags, zstd: bool, ends: Ends<'_>) -> Result<(), String> {
    let asked_for = |rule: &&Rule| rule.flags.iter().all(|flag| flags.intersects(*flag)) && (zstd || !rule.zstd);
    for rule in RULES.iter().filter(asked_for) {
        for (host, end) in ends.each() {
            let has = [("QEMU", rule.qemu, end.qemu_version), ("libvirt", rule.libvirt, end.libvirt_version)];
            for (program, least, version) in has {
                if let Some(version) = version.filter(|version| *version < least) {
                    let (least, version) = (dotted(least), dotted(version));
                    let least = least.trim_end_matches(".0");
                    return Err(format!("{} takes {program} {least} on both hosts, and {host} has {version}", rule.what));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drover_common::ids::HostName;
    use drover_common::rpc::latest::StreamEnd;

    use super::*;

    fn end(qemu: i32, libvirt: i32) -> StreamEnd {
        StreamEnd { qemu_version: Some(qemu), libvirt_version: Some(libvirt), ..StreamEnd::default() }
    }

    fn checked(flags: &[MigrationFlags], zstd: bool, here: &StreamEnd, there: &StreamEnd) -> Result<(), String> {
        let (source, destination) = (&HostName::new("h1").unwrap(), &HostName::new("h2").unwrap());
        let flags = flags.iter().fold(MigrationFlags::NONE, |all, flag| all.with(*flag));
        check(flags, zstd, Ends { source, here, destination, there: Some(there) })
    }

    #[test]
    fn each_rule_holds_for_both_hosts_and_names_what_is_lacking() {
        use MigrationFlags as F;
        let newest = end(10_001_000, 11_003_000);
        let parallel = [F::PARALLEL, F::COMPRESSED];
        let cases: [(&[F], bool, StreamEnd, &str); 5] = [
            (&[F::POSTCOPY, F::PARALLEL], false, end(10_000_002, 11_003_000), "takes QEMU 10.1 on both hosts, and HOST has 10.0.2"),
            (&parallel, true, end(7_002_000, 9_000_000), "zstd (live_migration_compression) takes libvirt 9.1 on both hosts"),
            (&[F::ZEROCOPY], false, end(7_000_000, 11_000_000), "takes QEMU 7.1 on both hosts, and HOST has 7.0.0"),
            (&[F::ZEROCOPY], false, end(7_001_000, 8_004_000), "takes libvirt 8.5 on both hosts, and HOST has 8.4.0"),
            (&[F::NON_SHARED_SYNCHRONOUS_WRITES], false, end(7_002_000, 7_010_000), "takes libvirt 8 on both hosts"),
        ];
        for (flags, zstd, old, part) in cases {
            assert_eq!(checked(flags, zstd, &newest, &newest), Ok(()), "{part}");
            for (host, here, there) in [("h1", &old, &newest), ("h2", &newest, &old)] {
                let refused = checked(flags, zstd, here, there).unwrap_err();
                assert!(refused.contains(&part.replace("HOST", host)), "{refused}");
            }
        }
    }

    #[test]
    fn what_an_old_version_can_do_is_not_refused() {
        use MigrationFlags as F;
        let bookworm = end(7_002_000, 9_000_000);
        for flags in [&[F::POSTCOPY, F::TLS][..], &[F::PARALLEL, F::TLS], &[F::COMPRESSED], &[F::ZEROCOPY, F::PARALLEL]] {
            assert_eq!(checked(flags, false, &bookworm, &bookworm), Ok(()), "{flags:?}");
        }
        let silent = StreamEnd::default();
        assert_eq!(checked(&[F::POSTCOPY, F::PARALLEL], false, &silent, &silent), Ok(()));
    }
}
