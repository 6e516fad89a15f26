//! `noauth`: everybody is who they say they are. For development and for the bench; the configuration keeps it on loopback.
//!
//! - `X-Auth-Token: USER[:PROJECT]`: that user; the project is called like the user when it is not given. The user `admin` has
//!   every role, anybody else is a plain member (`member`, `reader`) of the project. This is what Nova's `noauth2` did.
//! - No token: **admin of the project `admin`**, so that a plain curl works. (Nova answered 204 with a token to use.)
//! - `X-Auth-Token: notused` counts as none: it is what OpenStack's clients send with `--os-auth-type none`.

use http::{HeaderMap, HeaderValue};

use crate::context::Caller;
use crate::error::ApiError;

const ADMIN: &str = "admin";
/// What keystoneauth's plugin `none` sends.
const PLACEHOLDER: &str = "notused";
/// Longest name of a user or a project (Keystone's own bound for ids is 64).
const NAME_LENGTH_MAX: usize = 255;

/// The caller that the headers claim.
pub(super) fn caller(headers: &HeaderMap) -> Result<Caller, ApiError> {
    let refused = || ApiError::Unauthorized { challenge: HeaderValue::from_static("Noauth token=\"USER[:PROJECT]\"") };
    let token = match headers.get("x-auth-token").map(|value| value.to_str()) {
        None => return Ok(admin()),
        Some(Ok("" | PLACEHOLDER)) => return Ok(admin()),
        Some(Ok(token)) => token,
        Some(Err(_)) => return Err(refused()),
    };
    let (user, project) = token.split_once(':').unwrap_or((token, token));
    let is_name = |text: &str| !text.is_empty() && text.len() <= NAME_LENGTH_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_name(user) || !is_name(project) {
        return Err(refused());
    }
    Ok(if user == ADMIN {
        Caller::new(user, project, &["admin", "manager", "member", "reader"])
    } else {
        Caller::new(user, project, &["member", "reader"])
    })
}

fn admin() -> Caller {
    Caller::new(ADMIN, ADMIN, &["admin", "manager", "member", "reader"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(token: Option<&str>) -> Option<(String, String, bool)> {
        let headers = token.map(|t| ("x-auth-token".parse().unwrap(), t.parse().unwrap())).into_iter().collect();
        caller(&headers).ok().map(|c| (c.user_id.clone(), c.project_id.clone(), c.is_admin()))
    }

    #[test]
    fn the_token_names_user_and_project_and_only_the_user_admin_is_admin() {
        let expected = |user: &str, project: &str, admin| Some((user.to_owned(), project.to_owned(), admin));
        assert_eq!(who(None), expected("admin", "admin", true));
        assert_eq!(who(Some("")), expected("admin", "admin", true));
        assert_eq!(who(Some("notused")), expected("admin", "admin", true));
        assert_eq!(who(Some("admin:p1")), expected("admin", "p1", true));
        assert_eq!(who(Some("alice")), expected("alice", "alice", false));
        assert_eq!(who(Some("alice:admin")), expected("alice", "admin", false));
        assert_eq!(who(Some("alice:p:q")), expected("alice", "p:q", false));
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for bad in [":", ":p", "alice:", "al ice", &"a".repeat(256)] {
            assert_eq!(who(Some(bad)), None, "{bad:?}");
        }
    }
}
