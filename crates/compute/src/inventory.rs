//! What the host is and has, as the scheduler and the API see it.

use std::path::Path;

use drover_common::host::HostInventory;
use serde_json::json;
use uuid::Uuid;

use crate::config::Options;
use crate::context::Context;
use crate::domain_xml::{Element, host_cpu_element};
use crate::driver::{DriverError, HostDescription};
use crate::prechecks::post_copy::Qemu;
use crate::storage;

const GIB: u64 = 1 << 30;

/// Asks libvirt and the file system.
pub async fn read(ctx: &Context) -> Result<HostInventory, DriverError> {
    let (host, host_ip) = tokio::join!(ctx.driver.host(), host_ip(&ctx.options));
    let path = ctx.options.instances_path.clone();
    let space = tokio::task::spawn_blocking(move || space(&path)).await.unwrap_or_default();
    let host = host?;
    ctx.set_host_cpu(host_cpu_element(&host.capabilities).ok().flatten());
    ctx.set_qemu(Element::parse(&host.capabilities).ok().and_then(|capabilities| Qemu::of(&host, &capabilities)));
    let mut inventory = assemble(host, host_ip, space)?;
    inventory.link_bandwidth_mib = ctx.options.link_bandwidth_mib;
    inventory.migration_bandwidth_mib = u32::try_from(ctx.options.bandwidth_mib).unwrap_or(u32::MAX);
    Ok(inventory)
}

fn assemble(host: HostDescription, host_ip: String, (total, free): (u64, u64)) -> Result<HostInventory, DriverError> {
    let capabilities = Element::parse(&host.capabilities)
        .map_err(|error| DriverError::other(format!("capabilities of the host: {}", drover_common::telemetry::chain(&error))))?;
    let gib = |bytes: u64| i64::try_from(bytes / GIB).unwrap_or(i64::MAX);
    Ok(HostInventory {
        host_uuid: host_uuid(&capabilities, &host.hostname),
        hypervisor_hostname: host.hostname,
        hypervisor_type: host.hypervisor_type.to_uppercase(),
        hypervisor_version: host.hypervisor_version,
        libvirt_version: host.libvirt_version,
        host_ip,
        vcpus: host.cpus,
        memory_mb: host.memory_mb,
        local_gb: gib(total),
        free_disk_gb: gib(free),
        cpu_info: cpu_info(&capabilities),
        link_bandwidth_mib: 0,
        migration_bandwidth_mib: 0,
    })
}

/// libvirt's host UUID. Its test driver has none; there the name stands for it, so that it stays the same.
fn host_uuid(capabilities: &Element, hostname: &str) -> Uuid {
    let known = capabilities.text_at(&["host", "uuid"]).and_then(|text| text.parse().ok());
    known.unwrap_or_else(|| {
        let mut bytes = [0_u8; 16];
        for (i, byte) in hostname.bytes().enumerate() {
            bytes[i % 16] = bytes[i % 16].wrapping_mul(31).wrapping_add(byte);
        }
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// Nova's `cpu_info`: the host's CPU as libvirt knows it.
fn cpu_info(capabilities: &Element) -> serde_json::Value {
    let Some(cpu) = capabilities.at(&["host", "cpu"]) else {
        return json!({});
    };
    let features: Vec<&str> = cpu.children_named("feature").filter_map(|feature| feature.attribute("name")).collect();
    let count = |name: &str| cpu.attribute_at(&["topology"], name).and_then(|text| text.parse::<u32>().ok());
    json!({
        "arch": cpu.text_at(&["arch"]),
        "model": cpu.text_at(&["model"]),
        "vendor": cpu.text_at(&["vendor"]),
        "topology": {
            "sockets": count("sockets"),
            "cores": count("cores"),
            "threads": count("threads"),
        },
        "features": features,
    })
}

/// Total and free bytes of the file system that holds `path`, or its nearest directory that is there.
fn space(path: &Path) -> (u64, u64) {
    let there = path.ancestors().find(|directory| directory.is_dir());
    let Some(there) = there else { return (0, 0) };
    let free = there.to_str().and_then(storage::free_bytes);
    (storage::size_bytes(there).unwrap_or(0), free.unwrap_or(0))
}

/// The address for migrations: as configured, else what the host's name resolves to, else the name itself.
async fn host_ip(options: &Options) -> String {
    if let Some(address) = &options.live_migration_inbound_addr {
        return address.to_string();
    }
    if let Some(address) = &options.my_ip {
        return address.clone();
    }
    let resolved = tokio::net::lookup_host((options.host.as_str(), 0)).await;
    let address = resolved.ok().and_then(|mut addresses| addresses.next());
    address.map_or_else(|| options.host.to_string(), |address| address.ip().to_string())
}

/// The versions of everything that decides what guests can be here.
pub fn versions(inventory: &HostInventory) -> (&str, i32, i32) {
    (&inventory.hypervisor_type, inventory.hypervisor_version, inventory.libvirt_version)
}

/// A version as people write it.
pub fn dotted(version: i32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000)
}

/// For instance `QEMU 10.0.2, libvirt 11.3.0`.
pub fn shown(inventory: &HostInventory) -> String {
    format!("{} {}, libvirt {}", inventory.hypervisor_type, dotted(inventory.hypervisor_version), dotted(inventory.libvirt_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(capabilities: &str) -> HostDescription {
        HostDescription {
            hostname: "h1".to_owned(),
            hypervisor_type: "Test".to_owned(),
            hypervisor_version: 10_000_002,
            libvirt_version: 11_003_000,
            cpus: 4,
            memory_mb: 8192,
            capabilities: capabilities.to_owned(),
        }
    }

    #[test]
    fn capabilities_become_novas_cpu_info() {
        let capabilities = "<capabilities><host><uuid>d70e6000-0000-4000-8000-000000050001</uuid><cpu><arch>x86_64</arch>\
            <model>EPYC</model><vendor>AMD</vendor><topology sockets='1' dies='1' cores='2' threads='1'/>\
            <feature name='aes'/><feature name='avx'/></cpu></host></capabilities>";
        let inventory = assemble(host(capabilities), "192.0.2.1".to_owned(), (10 * GIB, GIB)).unwrap();
        insta::assert_json_snapshot!(inventory);
        assert_eq!(shown(&inventory), "TEST 10.0.2, libvirt 11.3.0");
    }

    #[test]
    fn a_host_without_uuid_has_one_that_stays() {
        let of = |name: &str| {
            let mut host = host("<capabilities/>");
            name.clone_into(&mut host.hostname);
            assemble(host, String::new(), (0, 0)).unwrap().host_uuid
        };
        assert_eq!(of("h1"), of("h1"));
        assert_ne!(of("h1"), of("h2"));
    }
}
