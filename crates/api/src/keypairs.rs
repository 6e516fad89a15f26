//! `/os-keypairs`: public keys of users, by name (`nova/api/openstack/compute/keypairs.py`). They are stored for the clients that ask
//! for them; servers come from the hosts, so none gets one.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use drover_store::key_pairs::{self, KeyPair, ONE_OF_A_NAME};
use drover_store::{audit, commit};
use http::StatusCode;
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::migrations::entry;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::links::Link;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;
use crate::validation::types::{common, multi, name, non_negative_integer};
use crate::validation::{Query, Schemas};

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let (user, number) = (common(), multi(&non_negative_integer()));
    let paged = json!({"user_id": user, "limit": number, "marker": common()});
    Schemas::new([
        (v2(1), object(&json!({}), true)),
        (v2(10), object(&json!({"user_id": user}), true)),
        (v2(35), object(&paged, true)),
        (v2(75), object(&paged, false)),
    ])
});

pub(crate) static ONE: LazyLock<Schemas> = LazyLock::new(|| {
    let user = json!({"user_id": common()});
    Schemas::new([(v2(1), object(&json!({}), true)), (v2(10), object(&user, true)), (v2(75), object(&user, false))])
});

pub(crate) static CREATE: LazyLock<Schemas> = LazyLock::new(|| {
    let body = |properties: Value, required: &[&str]| {
        let key_pair = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        json!({"type": "object", "properties": {"keypair": key_pair}, "required": ["keypair"], "additionalProperties": false})
    };
    let (text, kind) = (json!({"type": "string"}), json!({"type": "string", "enum": ["ssh", "x509"]}));
    let with_type = json!({"name": name(), "public_key": text, "type": kind});
    let with_user = json!({"name": name(), "public_key": text, "type": kind, "user_id": text});
    Schemas::new([
        (v2(1), body(json!({"name": name(), "public_key": text}), &["name"])),
        (v2(2), body(with_type, &["name"])),
        (v2(10), body(with_user.clone(), &["name"])),
        (v2(92), body(with_user, &["name", "public_key"])),
    ])
});

fn object(properties: &Value, open: bool) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": open})
}

/// A key pair in a list and in the answer to POST; the answer to GET has more.
#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    public_key: &'a str,
    fingerprint: &'a str,
    /// Since 2.2.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(flatten)]
    alone: Option<Alone>,
}

/// What only the answer to GET has.
#[derive(Serialize)]
struct Alone {
    id: i64,
    created_at: String,
    updated_at: Option<String>,
    deleted_at: Option<String>,
    deleted: bool,
}

impl<'a> View<'a> {
    fn of(key_pair: &'a KeyPair, call: &Call) -> Self {
        Self {
            name: &key_pair.name,
            public_key: &key_pair.public_key,
            fingerprint: &key_pair.fingerprint,
            kind: (call.version >= v2(2)).then_some("ssh"),
            user_id: None,
            alone: None,
        }
    }

    fn with_user(self, key_pair: &'a KeyPair) -> Self {
        Self { user_id: Some(&key_pair.user_id), ..self }
    }

    fn alone(self, key_pair: &'a KeyPair) -> Self {
        let created_at = ts(key_pair.created_at);
        let alone = Alone { id: key_pair.id, created_at, updated_at: None, deleted_at: None, deleted: false };
        Self { alone: Some(alone), ..self.with_user(key_pair) }
    }
}

/// `GET /os-keypairs`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    let user = user(&app, &call, &query, Rule::KeyPairsIndex)?;
    let paged = call.version >= v2(35);
    let limit = if paged { Some(query.limit(app.config().max_limit)?) } else { None };
    let marker = query.get("marker").filter(|_| paged);
    let mut conn = app.store().connection().await?;
    if let Some(marker) = marker {
        let unknown = || ApiError::bad_request(format!("marker [{marker}] not found"));
        key_pairs::get(&mut conn, user, marker).await?.ok_or_else(unknown)?;
    }
    let found = key_pairs::list(&mut conn, user, marker, limit).await?;
    let mut document = json!({"keypairs": found.iter().map(|one| json!({"keypair": View::of(one, &call)})).collect::<Vec<_>>()});
    let full = limit.is_some_and(|limit| limit > 0 && i64::try_from(found.len()) == Ok(limit));
    if let Some(last) = found.last().filter(|_| full) {
        let links: Vec<Link> = call.links.next("os-keypairs", &call.query, &last.name);
        document["keypairs_links"] = json!(links);
    }
    Ok(Json(document).into_response())
}

/// `POST /os-keypairs`: takes a public key. Keys are not generated: who has the API's database would have everybody's.
pub(crate) async fn create(State(app): State<AppState>, call: Call, body: Body) -> Result<Response, ApiError> {
    CREATE.check_body(call.version, &body)?;
    let wish = &body.value["keypair"];
    let user = wish["user_id"].as_str().unwrap_or(&call.caller().user_id);
    app.policy().enforce_of_user(Rule::KeyPairsCreate, call.caller(), user)?;
    let name = wish["name"].as_str().unwrap_or_default();
    let also = if call.version >= v2(92) { "_- @." } else { "_- " };
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c)) {
        return Err(invalid("Keypair name contains unsafe characters"));
    }
    if wish["type"] == "x509" {
        return Err(invalid("only ssh keys are stored here"));
    }
    let Some(public_key) = wish["public_key"].as_str() else {
        return Err(invalid("keys are not generated here: make one (ssh-keygen) and send its public_key"));
    };
    let fingerprint = fingerprint(public_key).ok_or_else(|| invalid("failed to generate fingerprint"))?;
    let mut tx = app.store().begin().await?;
    let key_pair = match key_pairs::insert(&mut tx, user, name, public_key, &fingerprint).await {
        Ok(key_pair) => key_pair,
        Err(error) if error.broken_constraint() == Some(ONE_OF_A_NAME) => {
            return Err(ApiError::Conflict(format!("Key pair '{name}' already exists.")));
        }
        Err(error) => return Err(error.into()),
    };
    let target = format!("key pair {name} of {user}");
    audit::write(&mut tx, entry(&call.asked, "os-keypairs:create", &target, Some(&fingerprint))).await?;
    commit(tx).await?;
    let status = if call.version >= v2(2) { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({"keypair": View::of(&key_pair, &call).with_user(&key_pair)}))).into_response())
}

/// `GET /os-keypairs/{name}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([name]): Path<1>) -> Result<Response, ApiError> {
    let query = ONE.check_query(call.version, &call.query)?;
    let user = user(&app, &call, &query, Rule::KeyPairsShow)?;
    let found = key_pairs::get(&mut *app.store().connection().await?, user, &name).await?;
    let key_pair = found.ok_or_else(|| not_found(&name, user))?;
    Ok(Json(json!({"keypair": View::of(&key_pair, &call).alone(&key_pair)})).into_response())
}

/// `DELETE /os-keypairs/{name}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([name]): Path<1>) -> Result<StatusCode, ApiError> {
    let query = ONE.check_query(call.version, &call.query)?;
    let user = user(&app, &call, &query, Rule::KeyPairsDelete)?;
    let mut tx = app.store().begin().await?;
    if !key_pairs::delete(&mut tx, user, &name).await? {
        return Err(not_found(&name, user));
    }
    audit::write(&mut tx, entry(&call.asked, "os-keypairs:delete", &format!("key pair {name} of {user}"), None)).await?;
    commit(tx).await?;
    Ok(if call.version >= v2(2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

/// Whose key pairs are asked for: since 2.10 another user's can be.
fn user<'a>(app: &AppState, call: &'a Call, query: &'a Query, rule: Rule) -> Result<&'a str, ApiError> {
    let given = query.get("user_id").filter(|_| call.version >= v2(10));
    let user = given.unwrap_or(&call.caller().user_id);
    app.policy().enforce_of_user(rule, call.caller(), user)?;
    Ok(user)
}

fn invalid(reason: &str) -> ApiError {
    ApiError::bad_request(format!("Keypair data is invalid: {reason}"))
}

fn not_found(name: &str, user: &str) -> ApiError {
    ApiError::NotFound(format!("Keypair {name} not found for user {user}"))
}

/// Nova's fingerprint: MD5 of the key, with colons. None: it is no public key in OpenSSH's form (its type, twice, and Base64).
fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let (kind, encoded) = (words.next()?, words.next()?);
    let key = STANDARD.decode(encoded).ok()?;
    let (length, rest) = key.split_first_chunk::<4>()?;
    let inner = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    if !known || inner != kind.as_bytes() || rest.len() == inner.len() {
        return None;
    }
    let digest = Md5::digest(&key);
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_compile() {
        LazyLock::force(&LIST);
        LazyLock::force(&ONE);
        LazyLock::force(&CREATE);
    }

    /// As `ssh-keygen -l -E md5` says it.
    #[test]
    fn a_fingerprint_is_that_of_ssh_keygen() {
        assert_eq!(
            fingerprint("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOWKDiUe3e/7tIR1ANtvGXP6v94+PEB09ZDcVG7HZ64v alice"),
            Some("f3:b7:74:27:77:a2:12:73:8f:fe:cb:15:d7:da:6e:70".to_owned())
        );
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa !!!",
            "ssh-rsa AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOWKDiUe3e/7tIR1ANtvGXP6v94+PEB09ZDcVG7HZ64v",
            "hello world",
        ] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
    }
}
