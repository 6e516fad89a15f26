//! libvirt's migration flags: names from the configuration, what libvirt cannot do together, and what one guest needs.
//!
//! One table ([`NAMES`]) knows the flags; a test holds it against libvirt's own constants. All checks happen at the start of the
//! process: a combination that libvirt refuses would otherwise be found out by the first guest.

use std::fmt;

use drover_common::config::ConfigError;

/// A set of `VIR_MIGRATE_*` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationFlags(u32);

/// Every flag that libvirt has (libvirt-domain.h, `virDomainMigrateFlags`).
pub const NAMES: &[(&str, MigrationFlags)] = &[
    ("VIR_MIGRATE_LIVE", MigrationFlags::LIVE),
    ("VIR_MIGRATE_PEER2PEER", MigrationFlags::PEER2PEER),
    ("VIR_MIGRATE_TUNNELLED", MigrationFlags::TUNNELLED),
    ("VIR_MIGRATE_PERSIST_DEST", MigrationFlags::PERSIST_DEST),
    ("VIR_MIGRATE_UNDEFINE_SOURCE", MigrationFlags::UNDEFINE_SOURCE),
    ("VIR_MIGRATE_PAUSED", MigrationFlags::PAUSED),
    ("VIR_MIGRATE_NON_SHARED_DISK", MigrationFlags::NON_SHARED_DISK),
    ("VIR_MIGRATE_NON_SHARED_INC", MigrationFlags::NON_SHARED_INC),
    ("VIR_MIGRATE_CHANGE_PROTECTION", MigrationFlags(1 << 8)),
    ("VIR_MIGRATE_UNSAFE", MigrationFlags(1 << 9)),
    ("VIR_MIGRATE_OFFLINE", MigrationFlags::OFFLINE),
    ("VIR_MIGRATE_COMPRESSED", MigrationFlags::COMPRESSED),
    ("VIR_MIGRATE_ABORT_ON_ERROR", MigrationFlags(1 << 12)),
    ("VIR_MIGRATE_AUTO_CONVERGE", MigrationFlags::AUTO_CONVERGE),
    ("VIR_MIGRATE_RDMA_PIN_ALL", MigrationFlags(1 << 14)),
    ("VIR_MIGRATE_POSTCOPY", MigrationFlags::POSTCOPY),
    ("VIR_MIGRATE_TLS", MigrationFlags::TLS),
    ("VIR_MIGRATE_PARALLEL", MigrationFlags::PARALLEL),
    ("VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES", MigrationFlags::NON_SHARED_SYNCHRONOUS_WRITES),
    ("VIR_MIGRATE_POSTCOPY_RESUME", MigrationFlags::POSTCOPY_RESUME),
    ("VIR_MIGRATE_ZEROCOPY", MigrationFlags::ZEROCOPY),
];

/// Flags that no configuration may have, and why.
const NEVER: &[(MigrationFlags, &str)] = &[
    (MigrationFlags::OFFLINE, "it moves a definition, not a running guest"),
    (MigrationFlags::PAUSED, "it leaves the guest stopped on the destination"),
    (MigrationFlags::POSTCOPY_RESUME, "it repairs a broken post-copy migration and cannot begin one"),
];

/// Pairs that libvirt refuses, and why.
const EXCLUSIVE: &[(MigrationFlags, MigrationFlags, &str)] = &[
    (MigrationFlags::TUNNELLED, MigrationFlags::PARALLEL, "a tunnel is one connection"),
    (MigrationFlags::TUNNELLED, MigrationFlags::POSTCOPY, "post-copy needs a way back, which a tunnel has not"),
    (MigrationFlags::TUNNELLED, MigrationFlags::TLS, "a tunnel is protected by libvirt's own connection"),
    (MigrationFlags::TUNNELLED, MigrationFlags::NON_SHARED_DISK, "libvirt cannot copy disks through a tunnel"),
    (MigrationFlags::TUNNELLED, MigrationFlags::NON_SHARED_INC, "libvirt cannot copy disks through a tunnel"),
    (MigrationFlags::TUNNELLED, MigrationFlags::ZEROCOPY, "a tunnel copies the memory"),
    (MigrationFlags::ZEROCOPY, MigrationFlags::TLS, "what is encrypted is copied"),
    (MigrationFlags::ZEROCOPY, MigrationFlags::COMPRESSED, "what is compressed is copied"),
    (MigrationFlags::NON_SHARED_DISK, MigrationFlags::NON_SHARED_INC, "one copies whole disks, the other their top layer"),
];

/// Flags that mean nothing without one of others, and why.
const NEEDS: &[(MigrationFlags, MigrationFlags, &str)] = &[
    (MigrationFlags::POSTCOPY, MigrationFlags::LIVE, "post-copy moves running guests only"),
    (MigrationFlags::ZEROCOPY, MigrationFlags::PARALLEL, "libvirt has zero-copy for parallel streams only"),
    (MigrationFlags::NON_SHARED_SYNCHRONOUS_WRITES, MigrationFlags::NON_SHARED, "it says how disks are copied"),
];

impl MigrationFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// The guest runs while it is copied.
    pub const LIVE: Self = Self(1);
    /// The two libvirts talk to each other; the client may go.
    pub const PEER2PEER: Self = Self(1 << 1);
    /// The memory travels inside libvirt's connection.
    pub const TUNNELLED: Self = Self(1 << 2);
    /// The domain becomes persistent on the destination.
    pub const PERSIST_DEST: Self = Self(1 << 3);
    /// The domain is undefined on the source.
    pub const UNDEFINE_SOURCE: Self = Self(1 << 4);
    /// The guest stays stopped on the destination.
    pub const PAUSED: Self = Self(1 << 5);
    /// Disks are copied whole.
    pub const NON_SHARED_DISK: Self = Self(1 << 6);
    /// Disks' top layers are copied.
    pub const NON_SHARED_INC: Self = Self(1 << 7);
    /// Only the definition moves.
    pub const OFFLINE: Self = Self(1 << 10);
    /// Memory is compressed on its way.
    pub const COMPRESSED: Self = Self(1 << 11);
    /// The guest is slowed down until the copy keeps up.
    pub const AUTO_CONVERGE: Self = Self(1 << 13);
    /// The guest may run on the destination before all its memory is there.
    pub const POSTCOPY: Self = Self(1 << 15);
    /// QEMU's streams are encrypted.
    pub const TLS: Self = Self(1 << 16);
    /// Several connections for the memory.
    pub const PARALLEL: Self = Self(1 << 17);
    /// Writes of the guest wait for the copy of the disk.
    pub const NON_SHARED_SYNCHRONOUS_WRITES: Self = Self(1 << 18);
    /// Repairs a broken post-copy migration.
    pub const POSTCOPY_RESUME: Self = Self(1 << 19);
    /// Memory is sent without being copied on the way.
    pub const ZEROCOPY: Self = Self(1 << 20);
    /// Either way of copying disks.
    pub const NON_SHARED: Self = Self(Self::NON_SHARED_DISK.0 | Self::NON_SHARED_INC.0);

    /// libvirt's number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether any of `others` is in the set.
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// The set with `others`.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The set without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The flags that `option` lists, with those that other options ask for, or why it cannot be so.
    pub fn from_names(option: &str, names: &[String], also: Self) -> Result<Self, ConfigError> {
        let mut flags = also;
        for name in names {
            let Some((_, flag)) = NAMES.iter().find(|(known, _)| known == name) else {
                return Err(ConfigError::not_allowed(option, name, AllNames));
            };
            flags = flags.with(*flag);
        }
        flags.possible().map_err(|why| ConfigError::not_allowed(option, flags.to_string(), why))?;
        Ok(flags)
    }

    /// Whether libvirt can do all this together and Drover can live with it.
    pub fn possible(self) -> Result<(), String> {
        if !self.intersects(Self::PEER2PEER) {
            return Err("VIR_MIGRATE_PEER2PEER is required: without it a migration would die with the agent".to_owned());
        }
        for (flag, why) in NEVER {
            if self.intersects(*flag) {
                return Err(format!("{flag} cannot be used: {why}"));
            }
        }
        for (one, other, why) in EXCLUSIVE {
            if self.intersects(*one) && self.intersects(*other) {
                return Err(format!("{one} and {other} exclude each other: {why}"));
            }
        }
        for (flag, needed, why) in NEEDS {
            if self.intersects(*flag) && !self.intersects(*needed) {
                return Err(format!("{flag} needs {needed}: {why}"));
            }
        }
        Ok(())
    }

    /// What of the configured flags makes sense for one guest: transient stays transient, a guest whose CPUs stand needs no
    /// post-copy, and without a disk to copy libvirt must not be told to copy disks (an empty list would mean all of them).
    #[must_use]
    pub const fn for_guest(self, persistent: bool, paused: bool, copies_disks: bool) -> Self {
        let mut flags = self;
        if !persistent {
            flags = flags.without(Self::PERSIST_DEST).without(Self::UNDEFINE_SOURCE);
        }
        if paused {
            flags = flags.without(Self::POSTCOPY);
        }
        if !copies_disks {
            flags = flags.without(Self::NON_SHARED).without(Self::NON_SHARED_SYNCHRONOUS_WRITES);
        }
        flags
    }
}

impl MigrationFlags {
    /// The flags for disks that are copied with all that lies below them: libvirt has one word for all disks of a guest.
    #[must_use]
    pub const fn copying_whole_disks(self) -> Self {
        self.without(Self::NON_SHARED_INC).with(Self::NON_SHARED_DISK)
    }
}

impl fmt::Display for MigrationFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = NAMES.iter().filter(|(_, flag)| self.intersects(*flag)).map(|(name, _)| *name);
        f.write_str(names.next().unwrap_or("none"))?;
        names.try_for_each(|name| write!(f, " | {name}"))
    }
}

struct AllNames;

impl fmt::Display for AllNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list out of")?;
        NAMES.iter().try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &str) -> Result<MigrationFlags, String> {
        let names: Vec<String> = names.split_whitespace().map(|name| format!("VIR_MIGRATE_{name}")).collect();
        MigrationFlags::from_names("[libvirt] live_migration_flag", &names, MigrationFlags::NONE).map_err(|e| e.to_string())
    }

    #[test]
    fn novas_defaults_are_novas_numbers() {
        assert_eq!(parse("LIVE PEER2PEER PERSIST_DEST UNDEFINE_SOURCE").unwrap().bits(), 27);
        assert_eq!(parse("LIVE PEER2PEER PERSIST_DEST UNDEFINE_SOURCE NON_SHARED_INC").unwrap().bits(), 155);
        assert_eq!(parse("UNDEFINE_SOURCE PEER2PEER").unwrap().bits(), 18);
    }

    #[test]
    fn an_unknown_name_is_refused_with_option_value_and_the_allowed_names() {
        let error = parse("LIVE PEER2PEER TURBO").unwrap_err();
        assert!(error.starts_with("configuration: [libvirt] live_migration_flag = \"VIR_MIGRATE_TURBO\" is not allowed: a list out of VIR_MIGRATE_LIVE"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_and_says_why() {
        for (names, part) in [
            ("LIVE", "VIR_MIGRATE_PEER2PEER is required"),
            ("PEER2PEER OFFLINE", "VIR_MIGRATE_OFFLINE cannot be used"),
            ("PEER2PEER PAUSED", "VIR_MIGRATE_PAUSED cannot be used"),
            ("PEER2PEER LIVE POSTCOPY POSTCOPY_RESUME", "VIR_MIGRATE_POSTCOPY_RESUME cannot be used"),
            ("PEER2PEER TUNNELLED PARALLEL", "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_PARALLEL exclude"),
            ("PEER2PEER TUNNELLED NON_SHARED_INC", "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_NON_SHARED_INC exclude"),
            ("PEER2PEER TUNNELLED TLS", "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_TLS exclude"),
            ("PEER2PEER PARALLEL ZEROCOPY TLS", "VIR_MIGRATE_ZEROCOPY and VIR_MIGRATE_TLS exclude"),
            ("PEER2PEER PARALLEL ZEROCOPY COMPRESSED", "VIR_MIGRATE_ZEROCOPY and VIR_MIGRATE_COMPRESSED exclude"),
            ("PEER2PEER LIVE TUNNELLED POSTCOPY", "VIR_MIGRATE_TUNNELLED and VIR_MIGRATE_POSTCOPY exclude"),
            ("PEER2PEER NON_SHARED_DISK NON_SHARED_INC", "VIR_MIGRATE_NON_SHARED_DISK and VIR_MIGRATE_NON_SHARED_INC exclude"),
            ("PEER2PEER POSTCOPY", "VIR_MIGRATE_POSTCOPY needs VIR_MIGRATE_LIVE"),
            ("PEER2PEER ZEROCOPY", "VIR_MIGRATE_ZEROCOPY needs VIR_MIGRATE_PARALLEL"),
            ("PEER2PEER NON_SHARED_SYNCHRONOUS_WRITES", "needs VIR_MIGRATE_NON_SHARED_DISK | VIR_MIGRATE_NON_SHARED_INC"),
        ] {
            let error = parse(names).unwrap_err();
            assert!(error.contains(part), "{names}: {error}");
        }
    }

    #[test]
    fn flags_that_other_options_ask_for_are_checked_too() {
        let names = ["VIR_MIGRATE_PEER2PEER".to_owned(), "VIR_MIGRATE_TUNNELLED".to_owned()];
        assert!(MigrationFlags::from_names("o", &names, MigrationFlags::POSTCOPY).is_err());
    }

    #[test]
    fn whole_disks_take_the_place_of_top_layers() {
        let flags = parse("LIVE PEER2PEER NON_SHARED_INC").unwrap().copying_whole_disks();
        assert_eq!(flags, parse("LIVE PEER2PEER NON_SHARED_DISK").unwrap());
        assert_eq!(flags.copying_whole_disks(), flags);
    }

    #[test]
    fn a_guest_gets_only_the_flags_that_make_sense_for_it() {
        let all =
            parse("LIVE PEER2PEER PERSIST_DEST UNDEFINE_SOURCE NON_SHARED_INC NON_SHARED_SYNCHRONOUS_WRITES POSTCOPY").unwrap();
        assert_eq!(all.for_guest(true, false, true), all);
        let transient = all.for_guest(false, false, true);
        assert!(!transient.intersects(MigrationFlags::PERSIST_DEST) && !transient.intersects(MigrationFlags::UNDEFINE_SOURCE));
        assert!(!all.for_guest(true, true, true).intersects(MigrationFlags::POSTCOPY));
        let nothing_to_copy = all.for_guest(true, false, false);
        assert!(!nothing_to_copy.intersects(MigrationFlags::NON_SHARED));
        assert!(!nothing_to_copy.intersects(MigrationFlags::NON_SHARED_SYNCHRONOUS_WRITES));
        assert!(nothing_to_copy.intersects(MigrationFlags::POSTCOPY));
    }
}
