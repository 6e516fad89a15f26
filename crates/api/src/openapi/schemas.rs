//! Which schemas stand in front of which operation; the handlers check bodies and queries against the same ones.

use serde_json::Value;

use crate::validation::Schemas;
use crate::{
    aggregates, extension, flavors, hypervisors, instance_actions, keypairs, limits, migrations, server_groups, server_migrations,
    servers, services,
};

/// What the body of an operation may be, in any microversion; none when there is none.
pub(super) fn body(handler: &str) -> Vec<Value> {
    let schemas: &Schemas = match handler {
        "servers::action::run" => return servers::action::bodies(),
        "aggregates::action" => {
            let actions = [&aggregates::schema::ADD_HOST, &aggregates::schema::REMOVE_HOST, &aggregates::schema::SET_METADATA];
            return actions.into_iter().flat_map(|action| action.documents()).collect();
        }
        "aggregates::create" => &aggregates::schema::CREATE,
        "aggregates::update" => &aggregates::schema::UPDATE,
        "extension::keep::run" => &extension::keep::SCHEMA,
        "extension::migrations::update" => &extension::migrations::PRIORITY,
        "extension::pause::begin" => &extension::pause::BODY,
        "extension::placement::update" => &extension::placement::BODY,
        "keypairs::create" => &keypairs::CREATE,
        "metadata::create" | "metadata::update_all" => &servers::metadata::ALL,
        "metadata::update" => &servers::metadata::ONE,
        "server_groups::create" => &server_groups::CREATE,
        "server_migrations::action" => &server_migrations::ACTION,
        "services::update" => &services::update::SCHEMAS,
        "tags::update_all" => &servers::tags::ALL,
        _ => return Vec::new(),
    };
    schemas.documents()
}

/// The schemas of the query of an operation.
pub(super) fn query(handler: &str) -> Option<&'static Schemas> {
    Some(match handler {
        "flavors::index" | "flavors::detail" => &flavors::LIST,
        "hypervisors::index" | "hypervisors::detail" => &hypervisors::LIST,
        "hypervisors::show" => &hypervisors::SHOW,
        "instance_actions::index" => &instance_actions::LIST,
        "keypairs::index" => &keypairs::LIST,
        "keypairs::show" | "keypairs::delete" => &keypairs::ONE,
        "limits::show" => &limits::QUERY,
        "migrations::index" => &migrations::LIST,
        "server_groups::index" => &server_groups::LIST,
        "servers::index" | "servers::detail" => &servers::schema::LIST,
        "services::index" => &services::LIST,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{COMPUTE, EXTENSION};

    /// Has no body in Nova either.
    const WITHOUT: [&str; 1] = ["tags::update"];

    #[test]
    fn every_operation_that_takes_a_body_says_which() {
        for operation in COMPUTE.iter().chain(EXTENSION) {
            let takes_one = matches!(operation.method, "POST" | "PUT") && !WITHOUT.contains(&operation.handler);
            assert_eq!(!body(operation.handler).is_empty(), takes_one, "{}", operation.handler);
        }
    }
}
