//! Devices that are not disks: those that tie a guest to its host, the bridges it is on, the consoles that listen.

use drover_common::rpc::latest::ConsoleAddress;

use super::tree::Element;

/// Everything that cannot leave the host, each by name.
pub(super) fn bound_to_host(domain: &Element) -> Vec<String> {
    let mut found = Vec::new();
    for device in domain.child("devices").into_iter().flat_map(Element::children) {
        found.extend(what_binds(device));
    }
    if let Some(security) = domain.child("launchSecurity") {
        found.push(format!("memory encryption ({}), which QEMU cannot migrate", kind(security)));
    }
    found
}

/// What of a device keeps the guest on its host, by libvirt's and QEMU's own rules.
fn what_binds(device: &Element) -> Option<String> {
    let named = |what: &str| Some(format!("{what} {}", alias(device)));
    match (device.name.as_str(), kind(device)) {
        // libvirt unplugs what a teamed interface can do without, and plugs it in again.
        ("hostdev" | "interface", _) if device.attribute_at(&["teaming"], "type") == Some("transient") => None,
        ("hostdev", kind) => named(&format!("{kind} host device")),
        ("interface", "hostdev") => {
            let mac = device.attribute_at(&["mac"], "address").unwrap_or("without MAC address");
            Some(format!("network interface {mac}, which is a host device (without failover)"))
        }
        ("interface", kind @ ("vdpa" | "vds")) => named(&format!("{kind} interface")),
        ("interface", _) if device.attribute_at(&["backend"], "type") == Some("passt") => {
            named("network interface through passt, whose process stays behind,")
        }
        ("filesystem", _) => {
            let directory = device.attribute_at(&["target"], "dir").unwrap_or("without a name");
            Some(format!("file system {directory} of the host"))
        }
        ("shmem", _) if device.attribute("role") != Some("master") => {
            Some(format!("shared memory {}", device.attribute("name").unwrap_or("without a name")))
        }
        ("input", kind @ ("passthrough" | "evdev")) => named(&format!("{kind} input device")),
        ("smartcard", _) if device.attribute("mode") == Some("host") => named("a smartcard of the host,"),
        ("memory", _) if device.at(&["source", "path"]).is_some() => {
            let model = device.attribute("model").unwrap_or("memory");
            let path = device.text_at(&["source", "path"]).unwrap_or("without a path");
            Some(format!("{model} on {path} of the host"))
        }
        ("video", _) if device.attribute_at(&["model", "acceleration"], "accel3d") == Some("yes") => {
            named("a graphics card with 3D acceleration, which QEMU cannot migrate:")
        }
        ("video", _) if device.attribute_at(&["driver"], "name") == Some("vhostuser") => named("vhost-user graphics card"),
        ("tpm", _) => tpm(device),
        _ => None,
    }
}

/// The state of an emulated TPM travels with the guest; its secret, and other TPMs, do not.
fn tpm(device: &Element) -> Option<String> {
    let backend = device.child("backend")?;
    match kind(backend) {
        "emulator" => {
            let secret = backend.attribute_at(&["encryption"], "secret")?;
            Some(format!("a TPM whose state is encrypted with libvirt's secret {secret}, which does not travel"))
        }
        kind => Some(format!("a TPM of the host ({kind})")),
    }
}

/// Bridges and devices of the host that interfaces are on, each once. libvirt's own networks go by their names on every host.
pub(super) fn host_networks(domain: &Element) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let interfaces = domain.child("devices").into_iter().flat_map(|devices| devices.children_named("interface"));
    for interface in interfaces {
        let Some(attribute) = network_attribute(kind(interface)) else { continue };
        if let Some(name) = interface.attribute_at(&["source"], attribute)
            && !found.iter().any(|known| known == name)
        {
            found.push(name.to_owned());
        }
    }
    found
}

/// Sockets of the host that QEMU connects to for the guest's network interfaces.
pub(super) fn vhost_user_sockets(domain: &Element) -> Vec<String> {
    let interfaces = domain.child("devices").into_iter().flat_map(|devices| devices.children_named("interface"));
    let sources = interfaces.filter(|interface| kind(interface) == "vhostuser").filter_map(|interface| interface.child("source"));
    let connected = sources.filter(|source| source.attribute("mode") == Some("client"));
    connected.filter_map(|source| source.attribute("path").map(str::to_owned)).collect()
}

/// Which attribute of `<source>` names what an interface of this type is on.
pub(super) fn network_attribute(interface_type: &str) -> Option<&'static str> {
    match interface_type {
        "bridge" => Some("bridge"),
        "direct" => Some("dev"),
        _ => None,
    }
}

/// Elements that may be a console on TCP. libvirt shows the first console twice, as `<serial>` and as `<console>`.
pub(super) const CONSOLES: [&str; 4] = ["serial", "console", "parallel", "channel"];

/// Where the guest's consoles listen on TCP, each address once.
pub(super) fn listening_consoles(domain: &Element) -> Vec<ConsoleAddress> {
    let mut found: Vec<ConsoleAddress> = Vec::new();
    let devices = domain.child("devices").into_iter().flat_map(Element::children);
    for device in devices.filter(|device| CONSOLES.contains(&device.name.as_str()) && kind(device) == "tcp") {
        let listening = device.children_named("source").filter(|source| source.attribute("mode") == Some("bind"));
        for source in listening {
            let (Some(host), Some(service)) = (source.attribute("host"), source.attribute("service")) else { continue };
            let address = ConsoleAddress { host: host.to_owned(), service: service.to_owned() };
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

fn kind(element: &Element) -> &str {
    element.attribute("type").unwrap_or("unknown")
}

fn alias(device: &Element) -> &str {
    device.attribute_at(&["alias"], "name").unwrap_or("without an alias")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(devices: &str) -> Vec<String> {
        bound_to_host(&Element::parse(&format!("<domain><devices>{devices}</devices></domain>")).unwrap())
    }

    #[test]
    fn every_device_that_cannot_move_is_named() {
        let devices = "\
            <hostdev mode='subsystem' type='pci'><alias name='hostdev0'/></hostdev>\
            <hostdev mode='subsystem' type='mdev' model='vfio-pci'><alias name='hostdev1'/></hostdev>\
            <interface type='hostdev'><mac address='52:54:00:00:00:01'/></interface>\
            <interface type='vdpa'><alias name='net3'/></interface>\
            <interface type='user'><backend type='passt'/><alias name='net4'/></interface>\
            <filesystem type='mount'><driver type='virtiofs'/><target dir='home'/></filesystem>\
            <shmem name='shared'/>\
            <input type='evdev'><alias name='input1'/></input>\
            <smartcard mode='host'><alias name='smartcard0'/></smartcard>\
            <memory model='virtio-pmem'><source><path>/dev/pmem0</path></source></memory>\
            <video><model type='virtio'><acceleration accel3d='yes'/></model><alias name='video0'/></video>\
            <video><driver name='vhostuser'/><alias name='video1'/></video>\
            <tpm model='tpm-crb'><backend type='emulator'><encryption secret='5e'/></backend></tpm>\
            <tpm model='tpm-tis'><backend type='passthrough'/></tpm>";
        let mut named = bound(devices);
        named.extend(bound_to_host(&Element::parse("<domain><launchSecurity type='sev'/></domain>").unwrap()));
        insta::assert_snapshot!(named.join("\n"));
    }

    #[test]
    fn what_libvirt_and_qemu_can_move_is_not_in_the_way() {
        let devices = "\
            <interface type='hostdev'><mac address='52:54:00:00:00:01'/><teaming type='transient' persistent='ua-1'/></interface>\
            <hostdev mode='subsystem' type='pci'><teaming type='transient' persistent='ua-1'/></hostdev>\
            <interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>\
            <interface type='vhostuser'><source type='unix' path='/run/s' mode='server'/></interface>\
            <interface type='user'/><shmem name='shared' role='master'/><input type='tablet'/>\
            <memory model='dimm'><target><size>1</size></target></memory>\
            <video><model type='virtio'/></video><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";
        assert_eq!(bound(devices), Vec::<String>::new());
    }

    #[test]
    fn bridges_sockets_and_listening_consoles_are_found_once_each() {
        let domain = Element::parse(
            "<domain><devices>\
            <interface type='bridge'><source bridge='br-ex'/></interface>\
            <interface type='bridge'><source bridge='br-ex'/></interface>\
            <interface type='direct'><source dev='eth1' mode='bridge'/></interface>\
            <interface type='network'><source network='default' bridge='virbr0'/></interface>\
            <serial type='tcp'><source mode='bind' host='127.0.0.1' service='10000'/></serial>\
            <serial type='tcp'><source mode='connect' host='192.0.2.1' service='7'/></serial>\
            <console type='tcp'><source mode='bind' host='127.0.0.1' service='10000'/></console>\
            <interface type='vhostuser'><source type='unix' path='/run/a' mode='client'/></interface>\
            <interface type='vhostuser'><source type='unix' path='/run/b' mode='server'/></interface>\
            <serial type='pty'/></devices></domain>",
        )
        .unwrap();
        assert_eq!(vhost_user_sockets(&domain), ["/run/a"]);
        assert_eq!(host_networks(&domain), ["br-ex", "eth1"]);
        let console = ConsoleAddress { host: "127.0.0.1".to_owned(), service: "10000".to_owned() };
        assert_eq!(listening_consoles(&domain), [console]);
    }
}
