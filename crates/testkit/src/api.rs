//! A small client of the REST API, as an operator's script would be: no retries, nothing hidden.

use std::time::Duration;

use serde_json::{Value, json};

/// The newest microversion that this client speaks.
pub const LATEST: &str = "2.84";

/// The API of a bench, as the admin of project `admin`.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    agent: ureq::Agent,
}

/// A status and a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as JSON; null when there is none.
    pub body: Value,
}

impl Answer {
    /// The message of Nova's fault envelope; empty if it is none.
    pub fn message(&self) -> &str {
        let envelope = self.body.as_object().and_then(|object| object.values().next());
        envelope.and_then(|fault| fault["message"].as_str()).unwrap_or_default()
    }

    /// What the body has under a key; null when there is nothing, also when the body is no object but an error's text.
    fn take(mut self, key: &str) -> Value {
        self.body.get_mut(key).map(Value::take).unwrap_or_default()
    }
}

/// Nothing that is answered at all takes longer: prechecks included.
const TIMEOUT: Duration = Duration::from_mins(2);

impl Api {
    /// The API at this URL, without a path.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { base: base.to_owned(), agent: config.new_agent() }
    }

    /// The URL that it was made with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET` at a microversion; `path` begins with `/`.
    pub fn get(&self, microversion: &str, path: &str) -> Answer {
        let request =
            self.agent.get(format!("{}{path}", self.base)).header("OpenStack-API-Version", format!("compute {microversion}"));
        answer(request.call())
    }

    /// The same, with the body as it came, for measurements: reading it as JSON takes longer than many an answer. Status 0 without one.
    pub fn get_bytes(&self, microversion: &str, path: &str) -> (u16, Vec<u8>) {
        let request =
            self.agent.get(format!("{}{path}", self.base)).header("OpenStack-API-Version", format!("compute {microversion}"));
        let Ok(mut response) = request.call() else { return (0, Vec::new()) };
        match response.body_mut().read_to_vec() {
            Ok(body) => (response.status().as_u16(), body),
            Err(_) => (0, Vec::new()),
        }
    }

    /// `POST` of a JSON body at a microversion.
    pub fn post(&self, microversion: &str, path: &str, body: &Value) -> Answer {
        let request =
            self.agent.post(format!("{}{path}", self.base)).header("OpenStack-API-Version", format!("compute {microversion}"));
        answer(request.content_type("application/json").send(body.to_string()))
    }

    /// `PUT` of a JSON body at a microversion.
    pub fn put(&self, microversion: &str, path: &str, body: &Value) -> Answer {
        let request =
            self.agent.put(format!("{}{path}", self.base)).header("OpenStack-API-Version", format!("compute {microversion}"));
        answer(request.content_type("application/json").send(body.to_string()))
    }

    /// A server as the API shows it; null when it cannot be had.
    pub fn server(&self, server: &str) -> Value {
        self.get(LATEST, &format!("/v2.1/servers/{server}")).take("server")
    }

    /// `os-migrateLive`, asynchronously; without a host the scheduler chooses.
    pub fn live_migrate(&self, server: &str, host: Option<&str>) -> Answer {
        self.post(LATEST, &format!("/v2.1/servers/{server}/action"), &live_migrate_body(host))
    }

    /// Everything that is known of a server's newest migration; null when there is none.
    pub fn newest_migration(&self, server: &str) -> Value {
        let listed = self.get(LATEST, &format!("/v2.1/os-migrations?limit=1&instance_uuid={server}"));
        let id = listed.body["migrations"][0]["id"].as_i64();
        id.map_or(Value::Null, |id| self.get(LATEST, &format!("/drover/v1/migrations/{id}")).take("migration"))
    }

    /// `DELETE` at a microversion.
    pub fn delete(&self, microversion: &str, path: &str) -> Answer {
        let request =
            self.agent.delete(format!("{}{path}", self.base)).header("OpenStack-API-Version", format!("compute {microversion}"));
        answer(request.call())
    }
}

/// A point in time as the API writes those of migrations and actions (UTC, microseconds, no zone), since the epoch.
pub fn timestamp(text: &str) -> Option<Duration> {
    let time = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc();
    Some(Duration::from_micros(u64::try_from(time.timestamp_micros()).ok()?))
}

/// The body of `os-migrateLive` from microversion 2.25 on: each disk is copied or not as it needs.
pub fn live_migrate_body(host: Option<&str>) -> Value {
    json!({"os-migrateLive": {"host": host, "block_migration": "auto"}})
}

/// A connection that cannot be made shows as status 0, so that a test that waits for the API can go on asking.
fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    match result {
        Ok(mut response) => {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            let body = serde_json::from_str(&text).unwrap_or(if text.is_empty() { Value::Null } else { Value::String(text) });
            Answer { status: response.status().as_u16(), body }
        }
        Err(error) => Answer { status: 0, body: Value::String(error.to_string()) },
    }
}
