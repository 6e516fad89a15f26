//! What the bench remembers between commands: which hosts and guests there are, secrets, and settings that tests changed.
//!
//! One JSON file in the state directory, written whole and renamed into place, only under the bench's lock. It records what was
//! *asked for*; what runs is asked of the supervisors and of libvirt.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::plan::{GUEST_FIRST, GUEST_LAST, HOSTS_MAX, Plan};

/// What kind of host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// libvirt and QEMU as installed on the machine.
    #[default]
    Normal,
    /// libvirt and QEMU of an older Debian suite.
    Older,
    /// No libvirtd: the compute agent uses libvirt's `test:///default`.
    Bare,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// 1 for `h1`.
    pub index: u8,
    /// Its kind.
    pub kind: HostKind,
}

impl HostRecord {
    /// Name, e.g. `h1`.
    pub fn name(&self) -> String {
        Plan::host_name(self.index)
    }
}

/// One guest that the bench made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// The domain's UUID.
    pub uuid: String,
    /// The guest's IP address.
    pub address: Ipv4Addr,
}

/// Passwords, made once per bench.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// PostgreSQL role `drover`.
    pub database: String,
    /// RabbitMQ user `drover`.
    pub broker: String,
    /// RabbitMQ users `compute-<host>` (one password for all: the broker's permissions tell them apart).
    pub agents: String,
    /// Erlang cookie of the broker.
    pub cookie: String,
}

/// Everything the bench remembers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Hosts in order.
    pub hosts: Vec<HostRecord>,
    /// Guests by name.
    pub guests: BTreeMap<String, GuestRecord>,
    /// Passwords.
    pub secrets: Secrets,
    /// Extra environment by process name.
    pub environment: BTreeMap<String, BTreeMap<String, String>>,
    /// Drover's own processes that should run beside one agent per host (`api`, `conductor-1`, …).
    pub services: Vec<String>,
    /// The highest index that any host ever had: a name is not used for two hosts, since Drover would take the second for an
    /// impostor.
    #[serde(default)]
    pub last_host: u8,
}

impl State {
    /// A state with no hosts and fresh secrets.
    pub fn fresh() -> Result<Self> {
        let secrets = Secrets { database: secret()?, broker: secret()?, agents: secret()?, cookie: secret()? };
        Ok(Self { secrets, ..Self::default() })
    }

    /// Reads the state; `None` if the bench has none.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BenchError::file("read", path)(error)),
        };
        let state = serde_json::from_str(&text).map_err(|error| {
            BenchError::Refused(format!("{} is damaged ({error}); run `deploy/dev/bench down`, then `up`", path.display()))
        })?;
        Ok(Some(state))
    }

    /// Writes the state.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    /// The host with this name.
    pub fn host(&self, name: &str) -> Result<&HostRecord> {
        self.hosts.iter().find(|host| host.name() == name).ok_or_else(|| BenchError::Unknown {
            kind: "host",
            name: name.to_owned(),
            known: list(self.hosts.iter().map(HostRecord::name)),
        })
    }

    /// The guest with this name.
    pub fn guest(&self, name: &str) -> Result<&GuestRecord> {
        self.guests.get(name).ok_or_else(|| BenchError::Unknown {
            kind: "guest",
            name: name.to_owned(),
            known: list(self.guests.keys().cloned()),
        })
    }

    /// Adds a host with an index that none had before.
    pub fn add_host(&mut self, kind: HostKind) -> Result<HostRecord> {
        let index = self.last_host + 1;
        if index > HOSTS_MAX {
            return Err(BenchError::Refused(format!(
                "the bench has had {HOSTS_MAX} hosts; more have no addresses: `down`, then `up`"
            )));
        }
        self.last_host = index;
        let host = HostRecord { index, kind };
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// A guest address that no guest has.
    pub fn free_guest_byte(&self) -> Result<u8> {
        (GUEST_FIRST..=GUEST_LAST)
            .find(|byte| self.guests.values().all(|guest| guest.address.octets()[3] != *byte))
            .ok_or_else(|| BenchError::Refused("no guest address is free; remove guests with guest-rm".to_owned()))
    }
}

/// Names for an error message.
pub(crate) fn list(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Writes a value as JSON so that a reader sees the old file or the new one, never half of it.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| BenchError::Refused(format!("cannot write {}: {error}", path.display())))?;
    let draft = path.with_extension(uuid::Uuid::new_v4().to_string());
    fs::write(&draft, text + "\n").map_err(BenchError::file("write", &draft))?;
    fs::rename(&draft, path).map_err(BenchError::file("replace", path))
}

fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(BenchError::io("read /dev/urandom"))?;
    Ok(u128::from_le_bytes(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_gets_a_name_that_another_had() {
        let mut state = State::default();
        for _ in 0..3 {
            state.add_host(HostKind::Normal).expect("room");
        }
        state.hosts.pop();
        assert_eq!(state.add_host(HostKind::Older).expect("room").name(), "h4");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let mut state = State::default();
        state.add_host(HostKind::Normal).expect("room");
        let text = state.host("h9").expect_err("unknown").to_string();
        assert!(text.contains("h9") && text.contains("known: h1"), "{text}");
    }

    #[test]
    fn guest_addresses_are_not_shared() {
        let mut state = State::default();
        let first = state.free_guest_byte().expect("free");
        let guest = GuestRecord { uuid: String::new(), address: Ipv4Addr::new(10, 213, 0, first) };
        state.guests.insert("a".to_owned(), guest);
        assert_eq!(state.free_guest_byte().expect("free"), first + 1);
    }
}
