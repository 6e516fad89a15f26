//! The same clients with a password of the htpasswd file.

use std::fs;

use crate::client::Client;
use crate::cloud::Cloud;
use crate::rest;
use crate::service::{Service, free_port, scratch};

const HASH: &str = "import bcrypt, json; print(json.dumps(bcrypt.hashpw(b'opensesame', bcrypt.gensalt(10)).decode()))";

#[test]
fn a_user_of_the_file_moves_a_guest_and_nobody_else_gets_in() {
    let cloud = Cloud::new();
    let hash = Client::new([]).python(HASH, &[]);
    let file = scratch("htpasswd");
    fs::write(&file, format!("alice:{}\n", hash.as_str().expect("a hash"))).expect("the file is written");
    let file = file.display().to_string();
    let options = [("API__AUTH_STRATEGY", "http_basic"), ("API__HTTP_BASIC_AUTH_USER_FILE", file.as_str())];
    let api = Service::api(&cloud, free_port(), &options);
    let endpoint = format!("{}/v2.1", api.url());
    let client = |password| {
        let who = [("OS_AUTH_TYPE", "http_basic"), ("OS_USERNAME", "alice"), ("OS_PASSWORD", password)];
        Client::new(who.into_iter().chain([("OS_ENDPOINT", endpoint.as_str())]))
    };

    let vm = cloud.boot_on_h1("basic");
    let printed = client("opensesame").openstack(&["server", "migrate", "--live-migration", "--host", "h2", "--wait", "basic"]);
    assert!(printed.contains("Complete"), "{printed}");
    vm.assert_on("h2", "ACTIVE");
    let seen = client("opensesame").python(include_str!("sdk.py"), &[vm.id(), "h1"]);
    assert_eq!((&seen["second"], &seen["third"]), (&"h1".into(), &vm.host().into()), "{seen:#}");
    vm.assert_unharmed();

    let said = client("sesame").openstack_refused(&["server", "show", vm.id()]);
    assert!(said.contains("The request you have made requires authentication"), "{said}");
    let answer = rest::get(&format!("{endpoint}/servers"), &[("x-auth-token", "admin")]);
    assert_eq!((answer.status, answer.challenge.as_str()), (401, "Basic realm=\"Compute API\""), "{answer:?}");
    assert_eq!(answer.body["error"]["title"], "Unauthorized", "{answer:?}");
}
