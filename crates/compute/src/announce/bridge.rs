//! Where a guest is plugged in: its tap by the address that libvirt gave it, and the tap's bridge, both from sysfs.
//!
//! Asking libvirt would take longer, and while the guest arrives it does not answer. Only Linux bridges count: they do not learn from
//! what is sent on the bridge itself, so a frame there tells the others and does not mislead the bridge. Open vSwitch would learn
//! that the guest is the host; its taps have no `brport` and are left alone, as are macvtaps.

use std::fs;
use std::path::Path;

use super::frame::MacAddress;

/// The kernel's network devices.
pub const SYSFS: &str = "/sys/class/net";

/// A guest's interface in a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePort {
    /// The guest's address.
    pub address: MacAddress,
    /// The tap.
    pub tap: String,
    /// The bridge.
    pub bridge: String,
}

impl BridgePort {
    /// Whether the tap is still there, in the same bridge.
    pub fn is_there(&self, sysfs: &Path) -> bool {
        bridge_of(sysfs, &self.tap).as_deref() == Some(&self.bridge)
    }
}

/// The ports of bridges that belong to interfaces with these addresses.
pub fn ports_of(sysfs: &Path, addresses: &[MacAddress]) -> Vec<BridgePort> {
    let devices = fs::read_dir(sysfs).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let port = |tap: String| {
        let own = MacAddress::parse(&fs::read_to_string(sysfs.join(&tap).join("address")).ok()?)?;
        let address = *addresses.iter().find(|address| address.of_tap() == own)?;
        Some(BridgePort { address, bridge: bridge_of(sysfs, &tap)?, tap })
    };
    devices.filter_map(port).collect()
}

fn bridge_of(sysfs: &Path, tap: &str) -> Option<String> {
    let bridge = fs::read_link(sysfs.join(tap).join("brport/bridge")).ok()?;
    bridge.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_guests_taps_are_found_by_address_and_only_in_bridges() {
        let sysfs = tempfile::tempdir().unwrap();
        let device = |name: &str, address: &str, bridge: Option<&str>| {
            let directory = sysfs.path().join(name);
            fs::create_dir_all(directory.join("brport")).unwrap();
            fs::write(directory.join("address"), format!("{address}\n")).unwrap();
            if let Some(bridge) = bridge {
                symlink(format!("../../{bridge}"), directory.join("brport/bridge")).unwrap();
            }
        };
        device("vnet0", "fe:54:00:00:00:01", Some("br0"));
        device("vnet1", "fe:54:00:00:00:02", None); // Open vSwitch's
        device("vnet2", "fe:54:00:00:00:03", Some("br0")); // another guest's
        device("up0", "52:54:00:00:00:01", Some("br0"));
        let guest = [1, 2].map(|last| MacAddress([0x52, 0x54, 0, 0, 0, last]));
        let found = ports_of(sysfs.path(), &guest);
        assert_eq!(found, [BridgePort { address: guest[0], tap: "vnet0".to_owned(), bridge: "br0".to_owned() }]);
        assert!(found[0].is_there(sysfs.path()));
        fs::remove_dir_all(sysfs.path().join("vnet0")).unwrap();
        assert!(!found[0].is_there(sysfs.path()));
    }
}
