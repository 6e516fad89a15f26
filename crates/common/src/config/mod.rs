//! Configuration: the embedded commented defaults, below the file, below systemd's credentials, below the environment; read once,
//! checked once, at start.
//!
//! All options stand in `deploy/config/drover.toml` with their meaning; [`sections`] is the same in types. A test holds the two
//! against each other.

mod credentials;
mod sections;

use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::{Deserialize, Serialize};

pub use sections::*;

/// The commented default file.
pub const DEFAULTS: &str = include_str!("../../../../deploy/config/drover.toml");

/// Where the file is when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/drover/drover.toml";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is named but not there.
    #[error("configuration file {0} cannot be read: give another one with --config-file")]
    NoFile(PathBuf),
    /// A key that does not exist, or a value of the wrong type. The text names the key and where it comes from.
    #[error("configuration: {0}")]
    Malformed(#[source] Box<figment::Error>),
    /// A credential of the service manager's cannot be read.
    #[error("credential {path} cannot be read")]
    Credential {
        /// The file, or the directory of all.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A value that is not allowed.
    #[error("configuration: {option} = {value} is not allowed: {allowed}")]
    NotAllowed {
        /// `[section] option`.
        option: String,
        /// What was given.
        value: String,
        /// What would be.
        allowed: String,
    },
}

impl ConfigError {
    /// A value that is not allowed.
    pub fn not_allowed(option: &str, value: impl fmt::Debug, allowed: impl fmt::Display) -> Self {
        Self::NotAllowed { option: option.to_owned(), value: format!("{value:?}"), allowed: allowed.to_string() }
    }
}

/// A text that is never shown: logs and errors get `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Reads the configuration: defaults, then `file` (or the default path, if it is there), then systemd's credentials, then `DROVER_*`.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let mut figment = Figment::new().merge(Toml::string(DEFAULTS));
    match file {
        Some(path) if !path.is_file() => return Err(ConfigError::NoFile(path.to_owned())),
        Some(path) => figment = figment.merge(Toml::file_exact(path)),
        None if Path::new(DEFAULT_PATH).is_file() => figment = figment.merge(Toml::file_exact(DEFAULT_PATH)),
        None => {}
    }
    for (option, value) in credentials::directory().map_or(Ok(Vec::new()), |directory| credentials::read(&directory))? {
        figment = figment.merge((option, value));
    }
    let environment =
        Env::prefixed("DROVER_").filter(|key| key.as_str().contains("__")).map(|key| section_in_file(key.as_str()).into());
    // `section_in_file` wrote the one section in capitals; to lower case comes last in figment, and would undo that.
    from_figment(&figment.merge(environment.split("__").lowercase(false)))
}

/// The configuration that `text` (TOML) makes of the defaults.
pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
    from_figment(&Figment::new().merge(Toml::string(DEFAULTS)).merge(Toml::string(text)))
}

fn from_figment(figment: &Figment) -> Result<Config, ConfigError> {
    let config: Config = figment.extract().map_err(|e| ConfigError::Malformed(Box::new(e)))?;
    config.check()?;
    Ok(config)
}

/// The environment's names are case-blind; the file's one section in capitals is put right.
fn section_in_file(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    key.strip_prefix("default__").map_or(key.clone(), |option| format!("DEFAULT__{option}"))
}

/// The system's host name.
pub fn system_host_name() -> Result<String, ConfigError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    if name.is_empty() {
        return Err(ConfigError::not_allowed("[DEFAULT] host", name, "the system has no host name, so one must be given"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        let mut section = String::new();
        let mut found = Vec::new();
        for line in text.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((name, _)) = line.split_once(" = ")
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            {
                found.push(format!("{section}.{name}"));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_default_file_documents_exactly_the_options_that_the_code_has() {
        let config = serde_json::to_value(from_toml("").unwrap()).unwrap();
        let mut in_code: Vec<String> = config
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(section, options)| options.as_object().unwrap().keys().map(move |o| format!("{section}.{o}")))
            .collect();
        in_code.sort();
        assert_eq!(options(DEFAULTS), in_code);
    }

    #[test]
    fn every_option_of_the_default_file_is_preceded_by_a_comment_or_by_its_group() {
        for paragraph in DEFAULTS.split("\n\n").filter(|p| p.contains(" = ") && !p.starts_with('[')) {
            assert!(paragraph.trim_start().starts_with("# "), "{paragraph}");
        }
    }

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let error = from_toml("[libvirt]\nlive_migration_bandwith = 3").unwrap_err();
        assert!(format!("{error}").contains("live_migration_bandwith"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_by_name() {
        let error = from_toml("[libvirt]\nlive_migration_bandwidth = -3").unwrap_err();
        assert!(format!("{error}").contains("live_migration_bandwidth"), "{error}");
    }

    #[test]
    fn a_uri_without_a_place_for_the_host_is_refused_with_the_value_and_what_is_allowed() {
        let error = from_toml("[libvirt]\nlive_migration_uri = \"qemu+tcp://h2/system\"").unwrap_err();
        assert_eq!(
            format!("{error}"),
            "configuration: [libvirt] live_migration_uri = \"qemu+tcp://h2/system\" is not allowed: a URI with one %s in the place \
             of the destination, for instance qemu+tcp://%s/system"
        );
    }

    #[test]
    fn downtime_and_its_steps_are_bounded() {
        for (option, most) in [("live_migration_downtime", 2_000_000), ("live_migration_downtime_steps", 1000)] {
            assert!(from_toml(&format!("[libvirt]\n{option} = {most}")).is_ok(), "{option}");
            let error = from_toml(&format!("[libvirt]\n{option} = {}", most + 1)).unwrap_err().to_string();
            assert!(error.contains(&format!("[libvirt] {option} =")) && error.contains(&format!("to {most}")), "{error}");
        }
    }

    #[test]
    fn noauth_is_refused_on_an_address_that_others_can_reach() {
        assert!(from_toml("[api]\nosapi_compute_listen = \"0.0.0.0\"").is_err());
        assert!(from_toml("[api]\nosapi_compute_listen = \"0.0.0.0\"\nnoauth_listen_anywhere = true").is_ok());
    }

    #[test]
    fn a_certificate_and_its_key_are_given_together() {
        for section in ["oslo_messaging_rabbit", "wsgi"] {
            for (option, allowed) in
                [("ssl_cert_file", false), ("ssl_key_file", false), ("ssl_key_file = \"k\"\nssl_cert_file", true)]
            {
                let checked = from_toml(&format!("[{section}]\n{option} = \"f\""));
                assert_eq!(checked.is_ok(), allowed, "{section} {option}");
                assert!(allowed || checked.unwrap_err().to_string().contains(&format!("[{section}] ssl_cert_file")));
            }
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = from_toml("[database]\nconnection = \"postgres://u:hunter2@db/drover\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
        assert_eq!(config.database.connection.expose(), "postgres://u:hunter2@db/drover");
    }
}
