//! Inserts without a key: whoever inserts, on whichever side and in whatever stage, gets a key that is free.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover::sql::{Db, PoolOptions};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{LegacyKind, StorageKind, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(60);
/// Their keys come from a serial and from an identity that is always generated.
const TABLES: [&str; 2] = ["serials", "identities"];
const POSTGRES: &str = "\
CREATE TABLE serials (id bigserial PRIMARY KEY, note text);
CREATE TABLE identities (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
INSERT INTO serials (note) SELECT 'old' FROM generate_series(1, 30);
INSERT INTO identities (note) SELECT 'old' FROM generate_series(1, 30);";
const SQLITE: &str = "\
CREATE TABLE serials (id INTEGER PRIMARY KEY, note text);
CREATE TABLE identities (id INTEGER PRIMARY KEY, note text);";
const SQLITE_WITH_ROWS: &str = "\
CREATE TABLE serials (id INTEGER PRIMARY KEY, note text);
CREATE TABLE identities (id INTEGER PRIMARY KEY, note text);
INSERT INTO serials (id, note) VALUES (1, 'old'), (30, 'old');
INSERT INTO identities (id, note) VALUES (1, 'old'), (30, 'old');";

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_free_on_both_sides_of_postgresql() {
    let sides = (POSTGRES, LegacyKind::Superuser, StorageKind::Postgres);
    keys_stay_free(sides).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_free_with_storage_on_sqlite() {
    let stored = StorageKind::Sqlite(SQLITE);
    keys_stay_free((POSTGRES, LegacyKind::Superuser, stored)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_free_on_both_sides_of_sqlite() {
    let stored = StorageKind::Sqlite(SQLITE);
    keys_stay_free((SQLITE_WITH_ROWS, LegacyKind::Sqlite, stored)).await;
}

async fn keys_stay_free((ddl, legacy, stored): (&str, LegacyKind, StorageKind)) {
    let world = World::build(WorldOptions {
        ddl: ddl.to_owned(),
        tables: TABLES
            .map(|table| format!("[[tables]]\nname = \"{table}\"\n"))
            .concat(),
        legacy,
        stored,
        ..WorldOptions::default()
    })
    .await;
    let mut given = Given {
        legacy: Db::open(&world.legacy_url, &PoolOptions::default()).expect("legacy's URL"),
        keys: TABLES.map(|_| BTreeSet::new()),
    };
    given.by_the_proxy(&world).await;
    world.advance_to("dual_write").await;
    given.by_the_proxy(&world).await;
    given.by_legacy().await;
    filled(&world).await;
    given.by_the_service(&world).await;
    for stage in ["shadow", "live"] {
        world.advance_to(stage).await;
        given.by_the_proxy(&world).await;
        given.by_the_service(&world).await;
    }
    world.proxies[0].rollback().await.ok();
    given.by_the_proxy(&world).await;
    given.by_legacy().await;
    verified(&world).await;
    given.by_the_service(&world).await;

    rearm(&world).await;
    for stage in ["live", "ramp_down"] {
        world.advance_to(stage).await;
        given.by_the_proxy(&world).await;
        given.by_the_service(&world).await;
    }
    verified(&world).await;
    eventually("the way back", SOON, async || {
        let answer = world.proxies[0].rollback().await;
        answer.status.is_success().then_some(()).ok_or(answer.body)
    })
    .await;
    given.by_the_proxy(&world).await;
    given.by_legacy().await;
    verified(&world).await;

    rearm(&world).await;
    world.advance_to("complete").await;
    given.by_the_proxy(&world).await;
    given.by_the_service(&world).await;
}

/// The keys that were given, of each table.
struct Given {
    legacy: Db,
    keys: [BTreeSet<i64>; 2],
}

impl Given {
    /// Several at once, through the door.
    async fn by_the_proxy(&mut self, world: &World) {
        for (table, keys) in TABLES.into_iter().zip(&mut self.keys) {
            let insert = || world.proxies[0].query(keyless(table));
            for answer in join_all((0..4).map(|_| insert())).await {
                let row = answer.ok();
                let id = row["id"].as_i64().expect("a key");
                assert!(keys.insert(id), "{table}: {id} was given before");
            }
        }
    }

    /// Past the proxy, in legacy.
    async fn by_legacy(&mut self) {
        for (table, keys) in TABLES.into_iter().zip(&mut self.keys) {
            let sql = format!(
                "INSERT INTO {table} (note) VALUES ('past the proxy') RETURNING CAST(id AS bigint)"
            );
            let rows = self.legacy.fetch(&sql, vec![]).await.expect("a free key");
            let id = rows[0].some_int(0).expect("a key");
            assert!(keys.insert(id), "{table}: {id} was given before");
        }
    }

    /// Past the proxy, at the service, once it has all rows, and taken away again: no other side knows of it.
    async fn by_the_service(&mut self, world: &World) {
        nothing_is_owed(world).await;
        for (table, keys) in TABLES.into_iter().zip(&self.keys) {
            let row = world.storage.query(&keyless(table)).await.ok();
            let id = row["id"].as_i64().expect("a key");
            assert!(!keys.contains(&id), "{table}: {id} was given before");
            let remove =
                json!({"type": "delete", "table": table, "where": {"id": id}, "hard": true});
            world.storage.query(&remove).await.ok();
        }
    }
}

fn keyless(table: &str) -> Value {
    json!({"type": "insert", "table": table, "data": {"note": "new"}})
}

async fn filled(world: &World) {
    let (status, said) = world.proxies[0]
        .operate(&["backfill", "--reason", "test"])
        .await;
    assert!(status.success(), "{said}");
    verified(world).await;
}

/// Both sides are the same.
async fn verified(world: &World) {
    nothing_is_owed(world).await;
    let proxy = &world.proxies[0];
    let (status, said) = proxy.operate(&["verify", "--reason", "test"]).await;
    assert!(status.success(), "{said}");
}

async fn nothing_is_owed(world: &World) {
    eventually("nothing is owed", SOON, async || {
        let status = world.proxies[0].status().await;
        (status["journal"]["owed"] == 0).then_some(()).ok_or(status)
    })
    .await;
}

async fn rearm(world: &World) {
    let body = json!({"reason": "test"});
    let answer = world.proxies[0].admin().post("/admin/rearm", &body).await;
    answer.expect("the proxy answers").ok();
}
