//! A private RabbitMQ: node name, cookie, ports, port mapper and data of its own.
//!
//! Users and permissions come from a definitions file that the broker loads while it starts, before it listens: that costs a
//! fraction of one `rabbitmqctl` call. The users of all hosts that may ever exist are in it.
//!
//! The broker also gets a home of its own: the installed one, without the plugins. Erlang looks for each of some eight hundred
//! modules in each library directory in turn, and Debian ships eighty-five of these. Without the plugins, and with the broker's
//! own modules and Erlang's (as links in one directory) searched first, the start takes 5 s instead of 10 to 15.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::unistd::chown;
use serde_json::{Value, json};

use crate::error::{BenchError, Result};
use crate::layout::{Layout, set_mode};
use crate::plan::{HOSTS_MAX, Plan};
use crate::postgres::{account, own_directory};
use crate::state::Secrets;
use crate::supervisor::protocol::StartSpec;

/// Name in `cluster.json`.
pub(crate) const PROCESS: &str = "rabbitmq";
const VHOST: &str = "drover";
const ACCOUNT: &str = "rabbitmq";
/// The real script. The one on the PATH is Debian's wrapper, which switches user and insists on the system's directories.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const ERLANG: &str = "/usr/bin/erl";
/// Erlang's schedulers spin for a while before they sleep. On a machine that they share with guests that is time taken from those;
/// RabbitMQ's own guide on run-time tuning says to switch it off there.
const NO_BUSY_WAIT: &str = "+sbwt none +sbwtdcpu none +sbwtdio none";

/// The broker as seen from the root namespace, with all rights: for the API, the conductor and tests.
pub(crate) fn url(plan: Plan, secrets: &Secrets) -> String {
    format!("amqp://drover:{}@127.0.0.1:{}/{VHOST}", secrets.broker, plan.amqp_port())
}

/// The broker as seen by a host's agent, with that host's rights only.
pub(crate) fn agent_url(plan: Plan, secrets: &Secrets, host: &str) -> String {
    format!("amqp://compute-{host}:{}@{}:{}/{VHOST}", secrets.agents, plan.root_address(), plan.amqp_port())
}

/// Writes the broker's configuration, definitions and cookie.
pub(crate) fn prepare(plan: Plan, secrets: &Secrets) -> Result<()> {
    let directory = Layout::new(plan).rabbitmq();
    let owner = account(ACCOUNT)?;
    own_directory(&directory, owner)?;
    let files = [
        ("rabbitmq.conf", configuration(plan, &directory)),
        ("definitions.json", definitions(secrets).to_string()),
        ("enabled_plugins", "[].\n".to_owned()),
        (".erlang.cookie", secrets.cookie.clone()),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        fs::write(&path, text).map_err(BenchError::file("write", &path))?;
        chown(&path, Some(owner.0), Some(owner.1)).map_err(BenchError::sys(format!("give {} to its service", path.display())))?;
        set_mode(&path, 0o600)?;
    }
    Ok(())
}

fn configuration(plan: Plan, directory: &Path) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         listeners.tcp.2 = {root}:{port}\n\
         load_definitions = {directory}/definitions.json\n\
         loopback_users = none\n\
         log.console = true\n\
         log.console.level = info\n\
         log.file = false\n\
         vm_memory_high_watermark.absolute = 1GB\n\
         disk_free_limit.absolute = 50MB\n",
        port = plan.amqp_port(),
        root = plan.root_address(),
        directory = directory.display(),
    )
}

/// Virtual host, users and permissions. An agent may use its own queue and publish to the exchanges and queues of its trade, no
/// more.
fn definitions(secrets: &Secrets) -> Value {
    let mut users = vec![json!({"name": "drover", "password": secrets.broker, "tags": ""})];
    let mut permissions = vec![json!({"user": "drover", "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"})];
    for host in (1..=HOSTS_MAX).map(Plan::host_name) {
        let user = format!("compute-{host}");
        let own = format!("compute\\.{}", escape(&host));
        users.push(json!({"name": user, "password": secrets.agents, "tags": ""}));
        permissions.push(json!({
            "user": user,
            "vhost": VHOST,
            "configure": format!("^{own}$"),
            "write": format!("^({own}|drover\\.conductor)$"),
            "read": format!("^({own}|drover\\.compute)$"),
        }));
    }
    json!({"vhosts": [{"name": VHOST}], "users": users, "permissions": permissions})
}

/// A host name inside a regular expression.
fn escape(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if !character.is_ascii_alphanumeric() {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Whether a library directory belongs to the broker proper. Plugins are named `rabbitmq_…`, but one part of the broker is, too.
fn is_core(library: &str) -> bool {
    !library.starts_with("rabbitmq_") || library.starts_with("rabbitmq_prelaunch")
}

/// Makes the broker's home and returns the directories that hold most of its modules, to be searched first.
fn make_home(home: &Path) -> Result<Vec<PathBuf>> {
    let program = fs::canonicalize(PROGRAM)
        .map_err(BenchError::io(format!("find {PROGRAM}; deploy/dev/install-packages installs RabbitMQ")))?;
    let installed = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let plugins = home.join("plugins");
    if home.exists() {
        fs::remove_dir_all(home).map_err(BenchError::file("remove", home))?; // It may come from an earlier release.
    }
    fs::create_dir_all(&plugins).map_err(BenchError::file("create", &plugins))?;
    let link = |from: PathBuf, to: PathBuf| symlink(&from, &to).map_err(BenchError::file("create", &to));
    link(installed.join("sbin"), home.join("sbin"))?;
    link(installed.join("escript"), home.join("escript"))?;
    let source = installed.join("plugins");
    let mut first = Vec::new();
    for entry in fs::read_dir(&source).map_err(BenchError::file("read", &source))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_core(&name) {
            continue;
        }
        link(entry.path(), plugins.join(&name))?;
        if name.starts_with("rabbit-") || name.starts_with("rabbit_common-") {
            first.push(plugins.join(name).join("ebin"));
        }
    }
    first.push(link_erlang(&home.join("erlang"))?);
    Ok(first)
}

/// Links all of Erlang's own modules into one directory.
fn link_erlang(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
    let program = fs::canonicalize(ERLANG).map_err(BenchError::io(format!("find {ERLANG}")))?;
    let libraries = program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("lib");
    for library in fs::read_dir(&libraries).map_err(BenchError::file("read", &libraries))?.flatten() {
        let Ok(modules) = fs::read_dir(library.path().join("ebin")) else {
            continue;
        };
        for module in modules.flatten().filter(|module| module.path().extension().is_some_and(|end| end == "beam")) {
            let link = directory.join(module.file_name());
            match symlink(module.path(), &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(BenchError::file("create", &link)(error));
                }
                _ => {}
            }
        }
    }
    Ok(directory.to_owned())
}

/// How the broker is started. It stays in the foreground, since it sees a notification socket.
pub(crate) fn start_spec(plan: Plan) -> Result<StartSpec> {
    let layout = Layout::new(plan);
    let owner = account(ACCOUNT)?;
    let directory = layout.rabbitmq();
    let path = |name: &str| directory.join(name).display().to_string();
    let first: Vec<String> = make_home(&directory.join("home"))?.iter().map(|path| path.display().to_string()).collect();
    let mut spec = layout.start_spec(PROCESS, vec![PROGRAM.to_owned()]);
    spec.user = Some((owner.0.as_raw(), owner.1.as_raw()));
    spec.directory.clone_from(&directory);
    spec.env.extend(
        [
            ("HOME", directory.display().to_string()),
            ("RABBITMQ_NODENAME", format!("{}@localhost", plan.name())),
            ("RABBITMQ_SCRIPTS_DIR", path("home/sbin")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("{NO_BUSY_WAIT} -pa {}", first.join(" "))),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_PID_FILE", path("pid")),
            ("RABBITMQ_DIST_PORT", plan.erlang_port().to_string()),
            ("ERL_EPMD_PORT", plan.epmd_port().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_confined_to_its_own_queue() {
        let all = definitions(&Secrets::default());
        let permission = all["permissions"]
            .as_array()
            .and_then(|list| list.iter().find(|entry| entry["user"] == "compute-h1").cloned())
            .expect("h1 has permissions");
        assert_eq!(permission["configure"], "^compute\\.h1$");
        assert_eq!(permission["write"], "^(compute\\.h1|drover\\.conductor)$");
        assert_eq!(permission["read"], "^(compute\\.h1|drover\\.compute)$");
    }

    #[test]
    fn plugins_are_told_from_the_broker() {
        assert!(is_core("rabbit-3.10.8") && is_core("ra-2.2.0") && is_core("rabbitmq_prelaunch-3.10.8"));
        assert!(!is_core("rabbitmq_management-3.10.8"));
    }

    #[test]
    fn host_names_cannot_widen_a_permission() {
        assert_eq!(escape("a.b*"), "a\\.b\\*");
    }

    #[test]
    fn the_broker_listens_on_the_benchs_ports_only() {
        let text = configuration(Plan::new(1).expect("a plan"), Path::new("/x"));
        assert!(text.contains("127.0.0.1:5872") && text.contains("10.213.1.254:5872"));
    }
}
