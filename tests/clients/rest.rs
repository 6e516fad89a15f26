//! One request with a token, for what no client shows: headers, and refusals of tokens.

use serde_json::Value;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// `WWW-Authenticate`, empty if it is not there.
    pub challenge: String,
    pub body: Value,
}

/// `GET`, with these headers.
pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = headers.iter().fold(agent.get(url), |request, (name, value)| request.header(*name, *value));
    answer(request.call())
}

/// `DELETE`, with these headers.
pub(crate) fn delete(url: &str, headers: &[(&str, &str)]) -> Answer {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = headers.iter().fold(agent.delete(url), |request, (name, value)| request.header(*name, *value));
    answer(request.call())
}

/// Status 0 if there was no connection, so that one can wait for one.
fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let Ok(mut response) = result else { return Answer { status: 0, challenge: String::new(), body: Value::Null } };
    let challenge = response.headers().get("www-authenticate").map_or("", |value| value.to_str().unwrap_or_default()).to_owned();
    let body = response.body_mut().read_to_string().unwrap_or_default();
    Answer { status: response.status().as_u16(), challenge, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) }
}
