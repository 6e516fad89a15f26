//! `/flavors`.

use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Cloud, golden};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_flavors_are_those_that_servers_have(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h1").await;
    let mut shown = json!({});
    for version in ["2.1", "2.55", "2.61", "2.75"] {
        let list = cloud.get(version, "/v2.1/flavors").await.json();
        let detail = cloud.get(version, "/v2.1/flavors/detail?is_public=None").await.json();
        let one = cloud.get(version, "/v2.1/flavors/m1.small").await.json();
        assert_eq!(detail["flavors"], json!([one["flavor"]]));
        shown[version] = json!({"list": list, "show": one});
    }
    golden("flavors", &shown);
    for (version, path, expected) in [
        ("2.1", "/nope", "404 itemNotFound: Flavor nope could not be found."),
        ("2.1", "/%00", "404 itemNotFound: Flavor \0 could not be found."),
        ("2.1", "?minRam=x", "400 badRequest: Invalid minRam filter [x]"),
        ("2.1", "?marker=x", "400 badRequest: marker [x] not found"),
        ("2.75", "?foo=x", "400 badRequest: Additional properties are not allowed ('foo' was unexpected)"),
    ] {
        cloud.get(version, &format!("/v2.1/flavors{path}")).await.assert_refusal(expected);
    }
    let none = cloud.get("2.1", "/v2.1/flavors?minRam=4096").await.json();
    assert_eq!(none, json!({"flavors": []}));
    let private = cloud.get("2.1", "/v2.1/flavors?is_public=false").await.json();
    assert_eq!(private, json!({"flavors": []}));
}
