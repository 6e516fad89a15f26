//! What users may do who are no admins, by Nova's defaults and by a policy file.

use std::fs;

use drover_testkit::GuestSpec;
use serde_json::{Value, json};

use super::{Keystone, token};
use crate::cloud::{Cloud, SOON};
use crate::rest;
use crate::service::scratch;

/// A cloud whose guests belong to the project `one`.
fn cloud_of_one(options: &[(&str, &str)]) -> (Cloud, Keystone) {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, options);
    cloud.set_option("conductor-1", "DEFAULT__DEFAULT_PROJECT_ID", keystone.project("one"));
    (cloud, keystone)
}

/// What this user of the project is answered.
fn get(keystone: &Keystone, user: &str, project: &str, path: &str) -> rest::Answer {
    let token = token(&keystone.url(), user, project);
    rest::get(&keystone.resource(path), &[("x-auth-token", &token), ("openstack-api-version", "compute 2.80")])
}

#[test]
fn a_project_sees_its_own_servers_and_no_hosts() {
    let (cloud, keystone) = cloud_of_one(&[]);
    let vm = cloud.boot(&GuestSpec::new("mine", "h1"));
    let get = |user, project, path: &str| get(&keystone, user, project, path);
    let path = format!("/servers/{}", vm.id());
    let server = |user| get(user, "one", &path).body["server"].clone();
    for user in ["reader", "member", "manager"] {
        let shown = server(user);
        assert_eq!((&shown["name"], shown.get("OS-EXT-SRV-ATTR:host"), shown.get("host_status")), (&json!("mine"), None, None));
    }
    assert_eq!(get("admin", "admin", &path).body["server"]["OS-EXT-SRV-ATTR:host"], "h1");
    assert_eq!(get("stranger", "two", &path).status, 404);
    assert_eq!(get("stranger", "two", "/servers").body, json!({"servers": []}));
    assert_eq!(get("reader", "one", "/servers").body["servers"].as_array().map(Vec::len), Some(1));
    for forbidden in ["/servers?all_tenants=1", "/os-services", "/os-hypervisors", "/os-migrations"] {
        let answer = get("reader", "one", forbidden);
        let message = answer.body["forbidden"]["message"].as_str().unwrap_or_default();
        assert!(answer.status == 403 && message.starts_with("Policy doesn't allow os_compute_api:"), "{forbidden}: {answer:?}");
    }
}

#[test]
fn a_manager_moves_its_own_guest_and_is_not_told_where_to() {
    let (cloud, keystone) = cloud_of_one(&[]);
    let vm = cloud.boot(&GuestSpec::new("managed", "h1"));
    let live = ["server", "migrate", "--live-migration", "--wait", vm.id()];
    let said = keystone.client("member", "one").openstack_refused(&live);
    assert!(said.contains("Policy doesn't allow os_compute_api:os-migrate-server:migrate_live to be performed"), "{said}");
    let said = keystone.client("manager", "one").openstack_refused(&[&live[..], &["--host", "h2"]].concat());
    assert!(said.contains("os_compute_api:os-migrate-server:migrate_live:host"), "{said}");
    let said = keystone.client("stranger", "two").openstack_refused(&live);
    assert!(said.contains("No Server found"), "{said}");
    keystone.client("manager", "one").openstack(&live);
    vm.ended("completed", SOON);
    assert_ne!(vm.host(), "h1");
    let listed = get(&keystone, "manager", "one", &format!("/os-migrations?project_id={}", keystone.project("one")));
    let row = &listed.body["migrations"][0];
    assert_eq!([&row["source_compute"], &row["dest_compute"], &row["status"]], [&Value::Null, &Value::Null, &json!("completed")]);
}

#[test]
fn a_policy_file_overrides_the_defaults() {
    let file = scratch("policy.yaml");
    let rules = "# Members may move their guests, and readers see the hosts.\n\
                 \"os_compute_api:os-migrate-server:migrate_live\": \"rule:project_member_or_admin\"\n\
                 \"os_compute_api:os-extended-server-attributes\": \"role:reader and project_id:%(project_id)s\"\n";
    fs::write(&file, rules).expect("the file is written");
    let (cloud, keystone) = cloud_of_one(&[("OSLO_POLICY__POLICY_FILE", &file.display().to_string())]);
    let vm = cloud.boot(&GuestSpec::new("by-policy", "h1"));
    keystone.client("member", "one").openstack(&["server", "migrate", "--live-migration", "--wait", vm.id()]);
    vm.ended("completed", SOON);
    let shown = keystone.client("reader", "one").openstack_json(&["server", "show", vm.id()]);
    assert_eq!(shown["OS-EXT-SRV-ATTR:host"], vm.host().as_str(), "{shown:#}");
}
