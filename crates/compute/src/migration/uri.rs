//! URIs of a migration: where the source's libvirt connects to, and where QEMU sends the memory.

use drover_common::config::ConfigError;
use drover_common::fault::Fault;

/// `live_migration_uri`, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    text: String,
    /// The host with `%s` in it, for instance `%s` or `%s.migration.example.org`.
    host: String,
    port: Option<u16>,
}

impl UriTemplate {
    /// Takes `live_migration_uri` apart; that it has exactly one `%s` was checked before.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let refuse = |allowed: &str| ConfigError::not_allowed("[libvirt] live_migration_uri", text, allowed);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(refuse("a URI such as qemu+tcp://%s/system"));
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match host_and_port.rsplit_once(':') {
            None => (host_and_port, default_port(scheme)),
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => return Err(refuse("a port is a number from 1 to 65535")),
            },
        };
        if !host.contains("%s") {
            return Err(refuse("%s stands in the place of the destination's name"));
        }
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port })
    }

    /// The URI for one destination.
    pub fn uri(&self, address: &str) -> Result<String, Fault> {
        Ok(self.text.replace("%s", &in_uri(address)?))
    }

    /// Host and port of the destination's libvirt as a TCP connection sees them; none where the transport is not TCP.
    pub fn tcp_target(&self, address: &str) -> Result<Option<(String, u16)>, Fault> {
        in_uri(address)?;
        Ok(self.port.map(|port| (self.host.replace("%s", address), port)))
    }
}

/// The memory stream's URI, led to the address on which the destination takes migrations.
pub fn migrate_uri(address: &str) -> Result<String, Fault> {
    Ok(format!("tcp://{}", in_uri(address)?))
}

/// libvirt's ports (`src/remote/remote_driver.c`): no transport means TLS.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme.split_once('+').map(|(_, transport)| transport) {
        None | Some("tls") => Some(16514),
        Some("tcp") => Some(16509),
        Some("ssh" | "libssh" | "libssh2") => Some(22),
        Some(_) => None,
    }
}

/// The address as it stands in a URI. Nova's guard: nothing but what a name or an address is made of gets into a URI.
fn in_uri(address: &str) -> Result<String, Fault> {
    let fits = !address.is_empty() && address.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
    if !fits {
        return Err(Fault::precheck(format_args!("{address:?} is no host name or address")));
    }
    Ok(if address.contains(':') { format!("[{address}]") } else { address.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> UriTemplate {
        UriTemplate::new(text).unwrap()
    }

    #[test]
    fn the_destination_takes_the_place_of_the_percent_s() {
        let tcp = template("qemu+tcp://%s/system");
        assert_eq!(tcp.uri("h2").unwrap(), "qemu+tcp://h2/system");
        assert_eq!(tcp.uri("2001:db8::2").unwrap(), "qemu+tcp://[2001:db8::2]/system");
        assert_eq!(migrate_uri("192.0.2.2").unwrap(), "tcp://192.0.2.2");
        assert_eq!(migrate_uri("2001:db8::2").unwrap(), "tcp://[2001:db8::2]");
    }

    #[test]
    fn nothing_else_gets_into_a_uri() {
        for bad in ["", "h2/system?command=x", "h 2", "h2@evil", "h2\n", "h%2"] {
            assert!(template("qemu+tcp://%s/system").uri(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_port_is_the_transports_or_the_given_one() {
        for (text, expected) in [
            ("qemu+tcp://%s/system", Some(("h2", 16509))),
            ("qemu+tls://%s/system", Some(("h2", 16514))),
            ("qemu://%s/system", Some(("h2", 16514))),
            ("qemu+ssh://root@%s/system", Some(("h2", 22))),
            ("qemu+tcp://%s:7000/system", Some(("h2", 7000))),
            ("qemu+tls://%s.mig.example.org/system?no_verify=1", Some(("h2.mig.example.org", 16514))),
            ("qemu+ext://%s/system", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(template(text).tcp_target("h2").unwrap(), expected, "{text}");
        }
        assert_eq!(template("qemu+tcp://%s/system").tcp_target("2001:db8::2").unwrap(), Some(("2001:db8::2".to_owned(), 16509)));
    }

    #[test]
    fn a_template_that_is_no_uri_is_refused() {
        for bad in ["%s", "qemu+tcp://%s:http/system", "qemu+tcp://h2/%s"] {
            assert!(UriTemplate::new(bad).is_err(), "{bad}");
        }
    }
}
