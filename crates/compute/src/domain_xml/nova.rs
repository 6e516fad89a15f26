//! Nova's metadata in a domain (`nova/virt/libvirt/config.py`, `LibvirtConfigGuestMetaNovaInstance`), versions 1.0 and 1.1.

use drover_common::rpc::latest::Owner;
use drover_common::server::Flavor;

use super::tree::Element;

const NAMESPACE_PREFIX: &str = "http://openstack.org/xmlns/libvirt/nova/";

/// What Nova wrote about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NovaMetadata {
    /// The server's name.
    pub name: Option<String>,
    /// Its flavor.
    pub flavor: Option<Flavor>,
    /// Its project and user.
    pub owner: Option<Owner>,
}

impl NovaMetadata {
    /// Finds Nova's part of `<metadata>`.
    pub(super) fn read(metadata: &Element) -> Option<Self> {
        let instance = metadata.children_named("instance").find(|element| {
            let namespace = element.namespace.as_deref().unwrap_or_default();
            namespace.starts_with(NAMESPACE_PREFIX)
        })?;
        Some(Self {
            name: instance.text_at(&["name"]).map(str::to_owned),
            flavor: instance.child("flavor").and_then(flavor),
            owner: instance.child("owner").and_then(owner),
        })
    }
}

/// The flavor, if Nova's element is whole: half of one would be a wrong size.
fn flavor(element: &Element) -> Option<Flavor> {
    let number = |name: &str| element.text_at(&[name])?.parse::<i32>().ok();
    Some(Flavor {
        name: element.attribute("name")?.to_owned(),
        vcpus: number("vcpus")?,
        memory_mb: number("memory")?,
        root_gb: number("disk").unwrap_or(0),
        ephemeral_gb: number("ephemeral").unwrap_or(0),
        swap_mb: number("swap").unwrap_or(0),
    })
}

fn owner(element: &Element) -> Option<Owner> {
    Some(Owner {
        project_id: element.attribute_at(&["project"], "uuid")?.to_owned(),
        user_id: element.attribute_at(&["user"], "uuid")?.to_owned(),
    })
}
