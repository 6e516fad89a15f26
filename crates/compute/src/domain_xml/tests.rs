use drover_common::rpc::latest::Owner;

use super::*;

const NOVA: &str = r"<domain type='kvm' id='3'>
  <name>instance-0000002a</name>
  <uuid>18097226-2105-4549-8265-1afe8f9baa1b</uuid>
  <title>a title</title>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:name>web-1</nova:name>
      <nova:flavor name='m1.small'>
        <nova:memory>2048</nova:memory><nova:disk>20</nova:disk><nova:swap>0</nova:swap>
        <nova:ephemeral>5</nova:ephemeral><nova:vcpus>2</nova:vcpus>
      </nova:flavor>
      <nova:owner><nova:user uuid='u1'>joe</nova:user><nova:project uuid='p1'>shop</nova:project></nova:owner>
    </nova:instance>
    <drover:migration xmlns:drover='https://drover.example/xmlns/libvirt/1' id='12' attempt='3'/>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static' current='1'>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-8.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>Westmere</model>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/var/lib/nova/instances/x/disk' index='2'/>
      <backingStore type='file' index='3'>
        <format type='raw'/><source file='/var/lib/nova/instances/_base/abc'/><backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw'/><source dev='/dev/mapper/vol' index='1'/><backingStore/>
      <mirror type='file' job='copy'/><target dev='vdb' bus='virtio'/><shareable/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/><source protocol='rbd' name='vms/x'/><target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdd'/></disk>
    <hostdev mode='subsystem' type='pci' managed='yes'><alias name='hostdev0'/></hostdev>
    <interface type='hostdev'><mac address='52:54:00:00:00:01'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:02'/></interface>
  </devices>
</domain>";

#[test]
fn a_domain_of_nova_shows_novas_name_size_and_owner() {
    let domain = DomainXml::parse(NOVA).unwrap();
    assert_eq!((domain.name.as_str(), domain.display_name()), ("instance-0000002a", "web-1"));
    let flavor = domain.flavor();
    assert_eq!((flavor.name.as_str(), flavor.vcpus, flavor.memory_mb), ("m1.small", 2, 2048));
    assert_eq!((flavor.root_gb, flavor.ephemeral_gb, flavor.swap_mb), (20, 5, 0));
    let owner = Owner { project_id: "p1".to_owned(), user_id: "u1".to_owned() };
    assert_eq!(domain.nova.unwrap().owner, Some(owner));
    assert_eq!((domain.memory_mb, domain.vcpus), (2048, 1));
}

#[test]
fn a_domain_of_virt_manager_shows_its_title_or_name_and_its_own_size() {
    let xml = "<domain type='qemu'><name>g1</name><memory unit='MiB'>512</memory><vcpu>3</vcpu></domain>";
    let domain = DomainXml::parse(xml).unwrap();
    assert_eq!(domain.display_name(), "g1");
    assert_eq!(domain.flavor().name, "3vcpu-512mb");
    assert_eq!(domain.nova, None);
    let titled = DomainXml::parse(&xml.replace("<memory", "<title>T</title><memory")).unwrap();
    assert_eq!(titled.display_name(), "T");
}

#[test]
fn disks_and_host_devices_are_read() {
    let domain = DomainXml::parse(NOVA).unwrap();
    insta::assert_debug_snapshot!((domain.disks, domain.bound_to_host));
}

#[test]
fn what_a_copy_of_a_disk_would_lack_is_named_and_a_block_device_is_one() {
    let disk = |source: &str| {
        let xml = format!(
            "<domain type='t'><name>g</name><memory>1</memory><devices><disk {source}<target dev='vda'/></disk></devices></domain>"
        );
        DomainXml::parse(&xml).unwrap().disks.remove(0)
    };
    let secret = "<encryption format='luks'><secret type='passphrase' uuid='5e'/></encryption>";
    for encrypted in [
        disk(&format!("type='file'><source file='/d/vda'>{secret}</source>")),
        disk(&format!("type='file'><source file='/d/vda'/>{secret}")),
    ] {
        assert_eq!(encrypted.not_copyable.as_deref(), Some("it is encrypted"));
    }
    let device = disk("type='block'><source dev='/dev/vg/x'/>");
    assert_eq!((device.location, device.not_copyable), (DiskLocation::Block("/dev/vg/x".to_owned()), None));
}

#[test]
fn the_cpu_element_is_cut_out_as_it_stands() {
    let cpu = cpu_element(NOVA).unwrap().unwrap();
    assert!(cpu.starts_with("<cpu mode='custom'") && cpu.ends_with("</cpu>") && cpu.contains("Westmere"), "{cpu}");
    assert_eq!(cpu_element("<domain><cpu mode='maximum'/></domain>").unwrap(), Some("<cpu mode='maximum'/>"));
    assert_eq!(cpu_element("<domain><x><cpu/></x></domain>").unwrap(), None);
}

#[test]
fn memory_is_counted_in_mib_whatever_its_unit() {
    for (unit, amount, expected) in [("KiB", "1025", 2), ("b", "1048576", 1), ("G", "3", 3072), ("MB", "1000", 954)] {
        let xml = format!("<domain type='t'><name>g</name><memory unit='{unit}'>{amount}</memory></domain>");
        assert_eq!(DomainXml::parse(&xml).unwrap().memory_mb, expected, "{amount} {unit}");
    }
    assert!(DomainXml::parse("<domain type='t'><name>g</name><memory>much</memory></domain>").is_err());
}

#[test]
fn a_marker_is_read_as_libvirt_gives_it_out() {
    let marker = Marker { migration: MigrationId(12), attempt: Attempt(3) };
    assert_eq!(read_marker("<migration id='12' attempt='3'/>"), Some(marker));
    for other in ["<migration id='12'/>", "<migration id='x' attempt='3'/>", "<other id='12' attempt='3'/>", ""] {
        assert_eq!(read_marker(other), None, "{other}");
    }
}
