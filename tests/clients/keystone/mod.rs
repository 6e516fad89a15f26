//! A real Keystone, and an API of the cloud's that asks it.

mod clients;
mod roles;
mod tokens;

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Client, installed};
use crate::cloud::Cloud;
use crate::service::{Service, free_port, scratch};

/// Everybody's.
const PASSWORD: &str = "opensesame";
const SERVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/keystone/serve.py");
/// Seconds for which tokens are good, unless a test says otherwise.
const HOUR: u32 = 3600;

/// A Keystone that serves, and the API that trusts it.
struct Keystone {
    server: Service,
    api: Service,
    /// The projects' ids by name.
    projects: Value,
}

impl Keystone {
    /// Both, the API with these options beside those that it needs.
    fn start(cloud: &Cloud, options: &[(&str, &str)]) -> Self {
        let server = serve(HOUR);
        let port = free_port();
        let url = format!("{}/v3", server.url());
        let admin = as_user(&url, "admin", "admin");
        let projects = admin.python(include_str!("populate.py"), &[&url, &format!("http://127.0.0.1:{port}/v2.1")]);
        let needed = [
            ("API__AUTH_STRATEGY", "keystone"),
            ("KEYSTONE_AUTHTOKEN__AUTH_URL", url.as_str()),
            ("KEYSTONE_AUTHTOKEN__WWW_AUTHENTICATE_URI", "http://keystone.example:5000"),
            ("KEYSTONE_AUTHTOKEN__USERNAME", "nova"),
            ("KEYSTONE_AUTHTOKEN__PASSWORD", PASSWORD),
            ("KEYSTONE_AUTHTOKEN__PROJECT_NAME", "service"),
        ];
        let api = Service::api(cloud, port, &[&needed, options].concat());
        Self { server, api, projects }
    }

    /// The URL at which one logs in.
    fn url(&self) -> String {
        format!("{}/v3", self.server.url())
    }

    /// The shell of a user who works in this project.
    fn client(&self, user: &str, project: &str) -> Client {
        as_user(&self.url(), user, project)
    }

    /// A project's id.
    fn project(&self, name: &str) -> &str {
        self.projects[name].as_str().expect("a project")
    }

    /// The URL of a resource of the API.
    fn resource(&self, path: &str) -> String {
        format!("{}/v2.1{path}", self.api.url())
    }
}

/// Serves the Keystone of these tests, once more if it is served already: its tokens are good for so many seconds.
fn serve(lifetime: u32) -> Service {
    let (port, directory) = (free_port(), prepared());
    Service::start(&format!("keystone-{lifetime}"), &installed("python"), port, "/v3", |command| {
        command.args(["-W", "ignore", SERVE, "serve"]).arg(directory).args([port.to_string(), lifetime.to_string()]);
    })
}

/// Its database and keys: made once, as it takes a while.
fn prepared() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = scratch("keystone");
        let mut prepare = std::process::Command::new(installed("python"));
        prepare.args(["-W", "ignore", SERVE, "prepare"]).arg(&directory).arg(PASSWORD);
        let output = prepare.output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        directory
    })
}

fn as_user(auth_url: &str, user: &str, project: &str) -> Client {
    Client::new([
        ("OS_AUTH_URL", auth_url),
        ("OS_USERNAME", user),
        ("OS_PASSWORD", PASSWORD),
        ("OS_PROJECT_NAME", project),
        ("OS_USER_DOMAIN_NAME", "Default"),
        ("OS_PROJECT_DOMAIN_NAME", "Default"),
    ])
}

/// A new token of this user's, from the Keystone at this URL.
fn token(auth_url: &str, user: &str, project: &str) -> String {
    let domain = json!({"name": "Default"});
    let user = json!({"name": user, "domain": domain, "password": PASSWORD});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let body = json!({"auth": {"identity": identity, "scope": {"project": {"name": project, "domain": domain}}}});
    let request = ureq::post(format!("{auth_url}/auth/tokens")).content_type("application/json");
    let response = request.send(body.to_string()).expect("Keystone lets the user in");
    let token = response.headers().get("x-subject-token").expect("a token");
    token.to_str().expect("text").to_owned()
}
