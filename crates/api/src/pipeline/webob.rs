//! The answers that in Nova come from the layers around its controllers: `webob`'s own exceptions, as JSON, HTML or text.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

/// What is between a path that no route has and the caller: 404, never 405.
pub(crate) async fn not_found(headers: HeaderMap) -> Response {
    answer(StatusCode::NOT_FOUND, "The resource could not be found.", &headers)
}

/// An answer of `webob`'s in the form that the caller accepts; HTML when it does not say.
pub(crate) fn answer(status: StatusCode, explanation: &str, headers: &HeaderMap) -> Response {
    let code = format!("{} {}", status.as_u16(), title(status));
    let (content_type, body) = match preferred(headers) {
        Form::Json => {
            let body = json!({"message": format!("{explanation}<br /><br />\n\n\n"), "code": code, "title": title(status)});
            ("application/json; charset=UTF-8", body.to_string())
        }
        Form::Html => (
            "text/html; charset=UTF-8",
            format!(
                "<html>\n <head>\n  <title>{code}</title>\n </head>\n <body>\n  <h1>{code}</h1>\n  {explanation}<br /><br />\n\n\n\n \
                 </body>\n</html>"
            ),
        ),
        Form::Text => ("text/plain; charset=UTF-8", format!("{code}\n\n{explanation}\n\n\n\n")),
    };
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// `http` and `webob` differ in the name of one status.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Text,
}

/// The offered form with the greatest weight; among equals the order HTML, JSON, text.
fn preferred(headers: &HeaderMap) -> Form {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept: Vec<String> = lines.flat_map(|line| line.split(',')).map(|range| range.trim().to_ascii_lowercase()).collect();
    if accept.iter().all(String::is_empty) {
        return Form::Html;
    }
    let offers = [(Form::Html, "text/html"), (Form::Json, "application/json"), (Form::Text, "text/plain")];
    let weighed = offers.map(|(form, media_type)| (weight(&accept, media_type), form));
    let best = weighed.into_iter().rev().max_by_key(|(weight, _)| *weight);
    best.filter(|(weight, _)| *weight > 0).map_or(Form::Text, |(_, form)| form)
}

/// How much the ranges want a media type, in thousandths: the most specific range that contains it decides.
fn weight(accept: &[String], media_type: &str) -> u32 {
    let kind = media_type.split('/').next().unwrap_or_default();
    let found = accept.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?;
        let specific = if name == media_type {
            2
        } else if name.strip_suffix("/*") == Some(kind) {
            1
        } else if name == "*/*" {
            0
        } else {
            return None;
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
        let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
        Some((specific, thousandths))
    });
    found.max_by_key(|(specific, _)| *specific).map_or(0, |(_, thousandths)| thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_accept() {
        for (accept, form) in [
            (None, Form::Html),
            (Some(""), Form::Html),
            (Some("*/*"), Form::Html),
            (Some("text/html"), Form::Html),
            (Some("application/json"), Form::Json),
            (Some("Application/JSON"), Form::Json),
            (Some("text/plain"), Form::Text),
            (Some("text/*"), Form::Html),
            (Some("text/html;q=0.5, application/json"), Form::Json),
            (Some("application/json;q=0.1, */*;q=0.5"), Form::Html),
            (Some("application/xml"), Form::Text),
        ] {
            let headers = accept.map(|a| (header::ACCEPT, a.parse().unwrap())).into_iter().collect();
            assert_eq!(preferred(&headers), form, "{accept:?}");
        }
    }
}
