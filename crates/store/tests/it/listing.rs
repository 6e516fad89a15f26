//! What the compiler does not check: every filter and every key of the one query that is built while the program runs.

use chrono::DateTime;
use drover_common::ids::{Incarnation, ServerId};
use drover_common::rpc::latest::DomainReport;
use drover_common::server::{TaskState, VmState};
use drover_store::servers::{self, Deleted, Direction, Filter, LockedBy, Observer, SortKey};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::fixture::{add_server, domain, host};

use Direction::{Ascending, Descending};

fn all(filter: Filter) -> Filter {
    Filter { limit: 100, ..filter }
}

async fn ids(conn: &mut PgConnection, filter: &Filter) -> Vec<ServerId> {
    servers::list(conn, filter).await.unwrap().into_iter().map(|server| server.uuid).collect()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_filter_runs_and_each_field_of_the_filter_is_one(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let id = add_server(&mut conn, "h1").await;
    let server = servers::get(&mut conn, id).await.unwrap().unwrap();
    // No `..`: a new field must be named here, and in one of the two lists below.
    let everything = Filter {
        project_id: Some(server.project_id.clone()),
        user_id: Some(server.user_id.clone()),
        host: Some("h1".to_owned()),
        zone: None,
        node: None,
        name: Some(".".to_owned()),
        hostname: Some("^[a-z0-9.-]+$".to_owned()),
        flavor: Some(server.flavor.name.clone()),
        vm_states: Some(vec![VmState::Active]),
        task_states: None,
        power_state: Some(1),
        progress: Some(0),
        locked: Some(false),
        locked_by: None,
        tags: Vec::new(),
        tags_any: Vec::new(),
        not_tags: vec!["x".to_owned()],
        not_tags_any: vec!["x".to_owned()],
        uuid: Some(id.0),
        created_at: Some(server.created_at),
        launched_at: Some(server.launched_at),
        terminated_at: None,
        deleted: Deleted::No,
        changes_since: Some(server.updated_at),
        changes_before: Some(server.updated_at),
        sort: Vec::new(),
        marker: None,
        limit: 10,
    };
    assert_eq!(ids(&mut conn, &everything).await, [id]);
    let nothing = [
        Filter { project_id: Some("x".to_owned()), ..Filter::default() },
        Filter { user_id: Some("x".to_owned()), ..Filter::default() },
        Filter { host: Some("x".to_owned()), ..Filter::default() },
        Filter { zone: Some(("x".to_owned(), "nova".to_owned())), ..Filter::default() },
        Filter { node: Some("^x$".to_owned()), ..Filter::default() },
        Filter { name: Some("^xyz$".to_owned()), ..Filter::default() },
        Filter { hostname: Some("^xyz$".to_owned()), ..Filter::default() },
        Filter { flavor: Some("x".to_owned()), ..Filter::default() },
        Filter { vm_states: Some(vec![VmState::Stopped, VmState::Error]), ..Filter::default() },
        Filter { task_states: Some(vec![TaskState::Migrating]), ..Filter::default() },
        Filter { power_state: Some(4), ..Filter::default() },
        Filter { progress: Some(7), ..Filter::default() },
        Filter { locked: Some(true), ..Filter::default() },
        Filter { locked_by: Some(LockedBy::Owner), ..Filter::default() },
        Filter { tags: vec!["x".to_owned()], ..Filter::default() },
        Filter { tags_any: vec!["x".to_owned()], ..Filter::default() },
        Filter { uuid: Some(Uuid::nil()), ..Filter::default() },
        Filter { created_at: Some(DateTime::UNIX_EPOCH), ..Filter::default() },
        Filter { launched_at: Some(DateTime::UNIX_EPOCH), ..Filter::default() },
        Filter { terminated_at: Some(DateTime::UNIX_EPOCH), ..Filter::default() },
        Filter { changes_before: Some(DateTime::UNIX_EPOCH), ..Filter::default() },
        Filter { deleted: Deleted::Yes, ..Filter::default() },
    ];
    for filter in nothing {
        let filter = all(filter);
        assert_eq!(ids(&mut conn, &filter).await, [], "{filter:?}");
    }
    assert_eq!(ids(&mut conn, &all(Filter { deleted: Deleted::Both, ..Filter::default() })).await, [id]);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_key_orders_and_pages_both_ways(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for host in ["h2", "h1", "h1", "h3", "h2"] {
        add_server(&mut conn, host).await;
    }
    let mut orders: Vec<Vec<(SortKey, Direction)>> = vec![Vec::new()];
    for &key in SortKey::ALL {
        orders.push(vec![(key, Ascending)]);
        orders.push(vec![(key, Descending)]);
        orders.push(vec![(SortKey::Host, Ascending), (key, Descending)]);
    }
    for sort in orders {
        let whole = ids(&mut conn, &all(Filter { sort: sort.clone(), ..Filter::default() })).await;
        assert_eq!(whole.len(), 5);
        let mut paged = Vec::new();
        let mut marker = None;
        loop {
            let page = ids(&mut conn, &Filter { sort: sort.clone(), marker, limit: 2, ..Filter::default() }).await;
            marker = page.last().map(|id| id.0);
            paged.extend(page);
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole, "{sort:?}");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_guests_host_name_is_made_of_the_servers_name(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (id, on) = (ServerId::random(), host("h1"));
    for (sequence, (name, expected)) in (1..).zip([
        ("My Server_1.example".to_owned(), "my-server-1.example".to_owned()),
        ("-.ü.-".to_owned(), format!("server-{id}")),
        (format!("{}-b", "a".repeat(62)), "a".repeat(62)),
    ]) {
        let observer = Observer { host: &on, node: "node", incarnation: Incarnation::random(), sequence };
        let named = DomainReport { display_name: name, ..domain(id) };
        servers::adopt(&mut conn, observer, &named, VmState::Active, ("project", "user")).await.unwrap();
        assert_eq!(servers::get(&mut conn, id).await.unwrap().unwrap().hostname, expected);
    }
}
