//! A private PostgreSQL with honest durability: fsync stays on, since figures measured here are published.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, chown};

use crate::command::run;
use crate::error::{BenchError, Result};
use crate::layout::{Layout, set_mode};
use crate::plan::Plan;
use crate::state::Secrets;
use crate::supervisor::protocol::StartSpec;

/// Name in `cluster.json`.
pub(crate) const PROCESS: &str = "postgres";
pub(crate) const DATABASE: &str = "drover";
const ACCOUNT: &str = "postgres";

/// The account that a service runs as.
pub(crate) fn account(name: &str) -> Result<(Uid, Gid)> {
    let user = User::from_name(name).map_err(BenchError::sys(format!("look up the account {name}")))?;
    let user = user.ok_or_else(|| {
        BenchError::Refused(format!("there is no account {name}; run deploy/dev/install-packages, which installs the service"))
    })?;
    Ok((user.uid, user.gid))
}

/// A directory that belongs to a service's account and that nobody else may enter.
pub(crate) fn own_directory(path: &Path, owner: (Uid, Gid)) -> Result<()> {
    fs::create_dir_all(path).map_err(BenchError::file("create", path))?;
    chown(path, Some(owner.0), Some(owner.1)).map_err(BenchError::sys(format!("give {} to its service", path.display())))?;
    set_mode(path, 0o700)
}

/// The newest installed server's programs.
fn programs() -> Result<PathBuf> {
    let base = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(base).map_err(BenchError::file("find PostgreSQL in", base))?;
    versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("postgres").exists())
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| BenchError::Refused("no PostgreSQL server is installed; run deploy/dev/install-packages".to_owned()))
}

/// The database's address for Drover's processes and for tests.
pub(crate) fn url(plan: Plan, secrets: &Secrets) -> String {
    format!("postgres://drover:{}@127.0.0.1:{}/{DATABASE}", secrets.database, plan.postgres_port())
}

/// Creates the cluster if there is none. A directory left by an interrupted attempt is started over.
pub(crate) fn prepare(plan: Plan) -> Result<()> {
    let directory = Layout::new(plan).postgres();
    let owner = account(ACCOUNT)?;
    let (data, done) = (directory.join("data"), directory.join("initialised"));
    if !done.exists() {
        if data.exists() {
            fs::remove_dir_all(&data).map_err(BenchError::file("remove", &data))?;
        }
        own_directory(&directory, owner)?;
        let mut initdb = Command::new(programs()?.join("initdb"));
        initdb
            .args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pgdata"])
            .arg(&data)
            .current_dir(&directory)
            .uid(owner.0.as_raw())
            .gid(owner.1.as_raw());
        run(&mut initdb)?;
        let path = data.join("pg_hba.conf");
        fs::write(&path, host_based_authentication(plan)).map_err(BenchError::file("write", &path))?;
        fs::write(&done, "").map_err(BenchError::file("write", &done))?;
    }
    let path = data.join("postgresql.conf");
    fs::write(&path, configuration(plan, &directory)).map_err(BenchError::file("write", &path))
}

fn host_based_authentication(plan: Plan) -> String {
    // The directory of the Unix socket is closed to everybody but root and postgres.
    format!("local all all trust\nhost all drover 127.0.0.1/32 scram-sha-256\nhost all drover {} scram-sha-256\n", plan.subnet())
}

fn configuration(plan: Plan, directory: &Path) -> String {
    format!(
        "listen_addresses = '127.0.0.1,{root}'\n\
         port = {port}\n\
         unix_socket_directories = '{socket}'\n\
         max_connections = 200\n\
         shared_buffers = 64MB\n\
         jit = off\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         lc_messages = 'C.UTF-8'\n\
         log_line_prefix = '%m [%p] '\n",
        root = plan.root_address(),
        port = plan.postgres_port(),
        socket = directory.display(),
    )
}

/// How the server is started. SIGINT is its fast shutdown; SIGTERM would wait for every client to leave.
pub(crate) fn start_spec(plan: Plan) -> Result<StartSpec> {
    let layout = Layout::new(plan);
    let owner = account(ACCOUNT)?;
    let data = layout.postgres().join("data");
    let argv = vec![programs()?.join("postgres").display().to_string(), "-D".to_owned(), data.display().to_string()];
    let mut spec = layout.start_spec(PROCESS, argv);
    spec.user = Some((owner.0.as_raw(), owner.1.as_raw()));
    spec.directory = layout.postgres();
    spec.stop_signal = Signal::SIGINT as i32;
    Ok(spec)
}

/// Runs SQL as the superuser, over the Unix socket.
pub(crate) fn psql(plan: Plan, database: &str, sql: &str) -> Result<String> {
    let mut psql = Command::new(programs()?.join("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--username=postgres"])
        .arg(format!("--host={}", Layout::new(plan).postgres().display()))
        .arg(format!("--port={}", plan.postgres_port()))
        .arg(format!("--dbname={database}"))
        .args(["--command", sql]);
    run(&mut psql)
}

/// Creates the role and the database when they are missing. The role may create databases: tests make their own.
pub(crate) fn create_database(plan: Plan, secrets: &Secrets) -> Result<()> {
    let there = psql(
        plan,
        "postgres",
        "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'drover')
              + (SELECT count(*) FROM pg_database WHERE datname = 'drover')",
    )?;
    match there.trim() {
        "2" => return Ok(()),
        "0" => {
            // The password is digits only (see `Secrets`), so it needs no quoting.
            psql(plan, "postgres", &format!("CREATE ROLE drover LOGIN CREATEDB PASSWORD '{}'", secrets.database))?;
        }
        _ => {}
    }
    psql(plan, "postgres", &format!("CREATE DATABASE {DATABASE} OWNER drover"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_left_on() {
        let text = configuration(Plan::new(0).expect("a plan"), Path::new("/x"));
        assert!(!text.contains("fsync") && !text.contains("synchronous_commit") && !text.contains("full_page_writes"));
        assert!(text.contains("listen_addresses = '127.0.0.1,10.213.0.254'") && text.contains("port = 5532"));
    }

    #[test]
    fn only_the_benchs_addresses_may_connect_and_only_with_a_password() {
        let text = host_based_authentication(Plan::new(4).expect("a plan"));
        assert!(text.contains("host all drover 10.213.4.0/24 scram-sha-256"));
        assert!(!text.contains("0.0.0.0"));
    }
}
