//! What Keystone says of a token (`GET /v3/auth/tokens`).

use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use http::{HeaderMap, header};
use serde::Deserialize;

use crate::context::Caller;

/// A token that is good.
#[derive(Debug)]
pub(super) struct Valid {
    /// Whose it is. Without a project if the token is for none.
    pub(super) caller: Caller,
    /// How long it will be good, as far as that is known.
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: Identified,
    project: Option<Identified>,
    #[serde(default)]
    roles: Vec<Role>,
    expires_at: DateTime<FixedOffset>,
    /// Says something only where Keystone has an admin project; without one every project counts as it.
    #[serde(default = "yes")]
    is_admin_project: bool,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

const fn yes() -> bool {
    true
}

/// Reads the answer; `None` for a token that has run out.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Option<Valid>, serde_json::Error> {
    let Answer { token } = serde_json::from_slice(body)?;
    // By Keystone's own clock: ours may differ. From a Keystone that does not tell the time nothing is remembered.
    let date = headers.get(header::DATE).and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    let lifetime = match date.map(|now| (token.expires_at - now).to_std()) {
        None => Duration::ZERO,
        Some(Err(_)) => return Ok(None),
        Some(Ok(lifetime)) => lifetime,
    };
    let roles: Vec<&str> = token.roles.iter().map(|role| role.name.as_str()).collect();
    let project = token.project.as_ref().map_or("", |project| project.id.as_str());
    let caller = Caller::new(&token.user.id, project, &roles).with_admin_project(token.is_admin_project);
    Ok(Some(Valid { caller, lifetime }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn answer() -> Value {
        json!({"token": {
            "methods": ["password"],
            "user": {"id": "u1", "name": "alice", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p1", "name": "one", "domain": {"id": "default", "name": "Default"}},
            "is_domain": false,
            "roles": [{"id": "1", "name": "member"}, {"id": "2", "name": "reader"}],
            "expires_at": "2026-11-24T10:14:54.000000Z",
            "issued_at": "2026-11-24T09:14:54.000000Z",
        }})
    }

    fn read_at(date: Option<&'static str>, body: &Value) -> Option<Valid> {
        let headers = date.map(|d| (header::DATE, HeaderValue::from_static(d))).into_iter().collect();
        read(&headers, body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn user_project_and_roles_are_the_tokens() {
        let valid = read_at(Some("Tue, 24 Nov 2026 10:04:54 GMT"), &answer()).unwrap();
        assert_eq!(valid.caller, Caller::new("u1", "p1", &["member", "reader"]));
        assert_eq!(valid.lifetime, Duration::from_mins(10));
    }

    #[test]
    fn a_token_that_ran_out_is_none_and_one_of_unknown_age_is_not_remembered() {
        assert!(read_at(Some("Tue, 24 Nov 2026 10:14:55 GMT"), &answer()).is_none());
        assert_eq!(read_at(None, &answer()).unwrap().lifetime, Duration::ZERO);
    }

    #[test]
    fn a_token_for_no_project_has_none() {
        let mut body = answer();
        body["token"].as_object_mut().unwrap().remove("project");
        assert_eq!(read_at(None, &body).unwrap().caller.project_id, "");
    }
}
