//! `drover`: the operators' command line, for what `openstack` has no verb for. It asks the REST API; only `drover db` speaks to
//! the database.

mod api;
mod database;
mod doctor;
mod documents;
mod findings;
mod migrations;
mod pause;
mod servers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use drover_common::telemetry;

/// Operate Drover: live migration of libvirt guests.
#[derive(Debug, Parser)]
#[command(name = "drover", version)]
struct Arguments {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The database.
    Db {
        #[command(subcommand)]
        verb: DbVerb,
    },
    /// Live migrations.
    Migration {
        #[command(subcommand)]
        verb: MigrationVerb,
    },
    /// Servers.
    Server {
        #[command(subcommand)]
        verb: ServerVerb,
    },
    /// What an operator should look at.
    Finding {
        #[command(subcommand)]
        verb: FindingVerb,
    },
    /// Check the whole deployment, say what is wrong and how to mend it. Exit code: 0 all is well, 1 something to look at, 2 something
    /// is broken or cannot be asked.
    Doctor {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Hold back new migrations, all over the fleet: they are accepted, checked and queued. Those under way end.
    Pause {
        /// Why; whoever waits is told.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Let new migrations go on.
    Resume {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Print completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
    /// Write man pages, of the services too.
    #[command(hide = true)]
    Man {
        /// The directory to write into.
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum DbVerb {
    /// Create the schema, or bring it up to date. May run at any time, several times, and twice at once.
    Migrate {
        /// Configuration file (TOML); without it /etc/drover/drover.toml, if it is there.
        #[arg(long, value_name = "PATH", env = "DROVER_CONFIG_FILE")]
        config_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum MigrationVerb {
    /// List migrations, newest first.
    List {
        /// Only those of this server.
        #[arg(long, value_name = "UUID")]
        server: Option<String>,
        /// Only those from or to this host.
        #[arg(long)]
        host: Option<String>,
        /// Only those in this status.
        #[arg(long)]
        status: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        limit: u32,
        /// Show the list anew every second until none of them is under way.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// List the migrations that wait for a slot, in the order in which they get one.
    Queue {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Say how soon a migration leaves the queue.
    Priority {
        /// Its number.
        id: u64,
        /// The higher the sooner, -1000 to 1000; 0 is what each begins with. Equal ones go in the order of their requests.
        #[arg(allow_negative_numbers = true)]
        priority: i32,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Show all that is known of a migration.
    Show {
        /// Its number.
        id: u64,
        /// Show it anew every second until it has ended; the exit code then tells whether it completed.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Debug, Subcommand)]
enum ServerVerb {
    /// In an ownership conflict: keep the copy on this host, remove the other one, whatever it does.
    Keep {
        /// The server's UUID.
        server: String,
        /// The host whose copy is the guest.
        host: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Debug, Subcommand)]
enum FindingVerb {
    /// List open findings, oldest first.
    List {
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

/// Where the API is, and what it is shown.
#[derive(Debug, Args)]
struct Endpoint {
    /// The API's address.
    #[arg(long = "os-endpoint", value_name = "URL", env = "OS_ENDPOINT", default_value = "http://127.0.0.1:8774")]
    url: String,
    /// The token (best given in the environment, where nobody else sees it).
    #[arg(long = "os-token", value_name = "TOKEN", env = "OS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The user, where the API wants a password (`auth_strategy = "http_basic"`).
    #[arg(long = "os-username", value_name = "USER", env = "OS_USERNAME", requires = "password")]
    username: Option<String>,
    /// The password (best given in the environment, where nobody else sees it).
    #[arg(long = "os-password", value_name = "PASSWORD", env = "OS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Who may have signed the API's certificate (PEM). Without it: whom browsers trust.
    #[arg(long = "os-cacert", value_name = "PATH", env = "OS_CACERT")]
    cacert: Option<PathBuf>,
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Api(#[from] api::ApiError),
    #[error(transparent)]
    Database(#[from] database::DatabaseError),
    #[error("man pages cannot be written into {directory}")]
    ManPages { directory: PathBuf, source: std::io::Error },
}

fn main() -> ExitCode {
    match run(Arguments::parse().noun) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover: {}", telemetry::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(noun: Noun) -> Result<ExitCode, CommandError> {
    match noun {
        Noun::Db { verb: DbVerb::Migrate { config_file } } => database::migrate(config_file.as_deref())?,
        Noun::Migration { verb: MigrationVerb::List { server, host, status, limit, watch, endpoint } } => {
            let filter = migrations::Filter { server, host, status, limit };
            migrations::list(&api::Client::new(&endpoint)?, &filter, watch)?;
        }
        Noun::Migration { verb: MigrationVerb::Queue { endpoint } } => migrations::queue(&api::Client::new(&endpoint)?)?,
        Noun::Migration { verb: MigrationVerb::Priority { id, priority, endpoint } } => {
            migrations::set_priority(&api::Client::new(&endpoint)?, id, priority)?;
        }
        Noun::Migration { verb: MigrationVerb::Show { id, watch, endpoint } } => {
            return Ok(migrations::show(&api::Client::new(&endpoint)?, id, watch)?);
        }
        Noun::Server { verb: ServerVerb::Keep { server, host, endpoint } } => {
            servers::keep(&api::Client::new(&endpoint)?, &server, &host)?;
        }
        Noun::Doctor { endpoint } => return Ok(doctor::run(&api::Client::new(&endpoint)?)),
        Noun::Pause { reason, endpoint } => pause::begin(&api::Client::new(&endpoint)?, &reason)?,
        Noun::Resume { endpoint } => pause::end(&api::Client::new(&endpoint)?)?,
        Noun::Finding { verb: FindingVerb::List { endpoint } } => findings::list(&api::Client::new(&endpoint)?)?,
        Noun::Completions { shell } => documents::completions(Arguments::command(), shell),
        Noun::Man { directory } => {
            documents::man_pages(Arguments::command(), &directory)
                .map_err(|source| CommandError::ManPages { directory, source })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
