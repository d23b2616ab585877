//! What a statement does not show still reaches the other side: the trigger sees rows, not statements.

use std::time::Duration;

use serde_json::json;

use crate::fixture::{World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

const RELATED: &str = "CREATE TABLE parents (
    id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code TEXT UNIQUE,
    boss INT REFERENCES parents (id) ON DELETE SET NULL,
    note TEXT DEFAULT 'none',
    loud TEXT GENERATED ALWAYS AS (upper(note)) STORED
);
CREATE TABLE children (
    parent INT REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    place SERIAL,
    name TEXT NOT NULL,
    PRIMARY KEY (parent, place)
);";

const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'so \"happy\"');
CREATE DOMAIN positive AS INT CHECK (VALUE > 0);
CREATE TABLE everything (
    id UUID PRIMARY KEY, c_text TEXT, c_varchar VARCHAR(20), c_char CHAR(6), c_bool BOOL,
    c_int2 INT2, c_int4 INT4, c_int8 INT8, c_numeric NUMERIC(40, 10), c_float4 FLOAT4, c_float8 FLOAT8,
    c_json JSON, c_jsonb JSONB, c_timestamptz TIMESTAMPTZ, c_timestamp TIMESTAMP, c_date DATE,
    c_time TIME, c_interval INTERVAL, c_bytea BYTEA, c_enum MOOD, c_domain POSITIVE,
    c_ints INT8[], c_texts TEXT[], c_inet INET
);";

#[tokio::test(flavor = "multi_thread")]
async fn cascades_and_self_references_are_captured() {
    let world = world_of(RELATED, &["parents", "children"]).await;
    world
        .legacy
        .execute(
            "INSERT INTO parents (code, boss) VALUES ('a', NULL), ('b', 1), ('c', 1), ('d', 3);
             UPDATE parents SET boss = id WHERE code = 'd';
             INSERT INTO children (parent, name) SELECT id, code || n FROM parents, generate_series(1, 3) n",
        )
        .await;
    both_settle(&world, &["parents", "children"]).await;
    world
        .legacy
        .execute("DELETE FROM parents WHERE code IN ('a', 'c')")
        .await;
    both_settle(&world, &["parents", "children"]).await;
    let left = "SELECT count(*) FROM children";
    assert_eq!(world.storage_database.number(left).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_identities_and_generated_columns_come_from_legacy() {
    let world = world_of(RELATED, &["parents", "children"]).await;
    let query = json!({"type": "insert", "table": "parents", "data": {"code": "a"}});
    let row = world.proxies[0].query(query).await.ok();
    assert_eq!(
        (&row["note"], &row["loud"]),
        (&json!("none"), &json!("NONE"))
    );
    let id = row["id"].clone();
    let child = json!({"type": "insert", "table": "children", "data": {"parent": id, "name": "x"}});
    let child = world.proxies[0].query(child).await.ok();
    assert_eq!(child["place"], 1);
    both_settle(&world, &["parents", "children"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_before_trigger_and_a_changed_key_are_captured() {
    let world = world_of(RELATED, &["parents", "children"]).await;
    world
        .legacy
        .execute(
            "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END $$;
             CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON parents
             FOR EACH ROW EXECUTE FUNCTION shout();
             INSERT INTO parents (code, note) VALUES ('a', 'hey');
             INSERT INTO children (parent, place, name) VALUES (1, 1, 'x'), (1, 2, 'y')",
        )
        .await;
    both_settle(&world, &["parents", "children"]).await;
    world
        .legacy
        .execute("UPDATE children SET place = place + 10")
        .await;
    both_settle(&world, &["parents", "children"]).await;
    let moved = "SELECT place::text FROM children ORDER BY place";
    assert_eq!(world.storage_database.texts(moved).await, ["11", "12"]);
    let noted = "SELECT loud FROM parents";
    assert_eq!(world.storage_database.texts(noted).await, ["HEY!"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_unique_values_get_across() {
    let world = world_of(RELATED, &["parents", "children"]).await;
    world
        .legacy
        .execute("INSERT INTO parents (code) VALUES ('a'), ('b'), ('c')")
        .await;
    both_settle(&world, &["parents"]).await;
    world
        .legacy
        .execute(
            "BEGIN; UPDATE parents SET code = 'tmp' WHERE id = 1;
             UPDATE parents SET code = 'a' WHERE id = 2;
             UPDATE parents SET code = 'b' WHERE id = 1; COMMIT",
        )
        .await;
    both_settle(&world, &["parents"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_hang_on_swapped_ones_stay_in_storage() {
    let grandchildren = format!(
        "{RELATED} CREATE TABLE toys (
            id SERIAL PRIMARY KEY, parent INT, place INT,
            FOREIGN KEY (parent, place) REFERENCES children (parent, place) ON DELETE CASCADE
        );"
    );
    let tables = ["parents", "children", "toys"];
    let world = world_of(&grandchildren, &tables).await;
    world
        .legacy
        .execute(
            "INSERT INTO parents (code) VALUES ('a'), ('b'), ('c');
             UPDATE parents SET boss = 1 WHERE code = 'c';
             INSERT INTO children (parent, place, name) SELECT 1 + n % 3, n, 'x' FROM generate_series(1, 30) n;
             INSERT INTO toys (parent, place) SELECT parent, place FROM children",
        )
        .await;
    both_settle(&world, &tables).await;
    world
        .legacy
        .execute(
            "BEGIN; UPDATE parents SET code = 'tmp' WHERE id = 1;
             UPDATE parents SET code = 'a' WHERE id = 2;
             UPDATE parents SET code = 'b' WHERE id = 1; COMMIT",
        )
        .await;
    both_settle(&world, &tables).await;
    eventually("nothing is owed", SOON, async || {
        let owed = "SELECT count(*) FROM cutover.journal";
        let owed = world.legacy.number(owed).await;
        (owed == 0).then_some(()).ok_or(owed)
    })
    .await;
    both_settle(&world, &tables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_was() {
    let world = world_of(TYPES, &["everything"]).await;
    world
        .legacy
        .execute(
            r#"INSERT INTO everything VALUES
            ('00000000-0000-0000-0000-000000000001', E'tab\t"quote\' \\ ünïcode 🎉', 'varchar', 'pad', true,
             -32768, -2147483648, -9223372036854775808, 123456789012345678901234567890.0123456789,
             0.1, 0.30000000000000004, '{"b":1.50,"a":[12345678901234567890,null]}', '{"b": 1.50, "a": [12345678901234567890]}',
             '2024-02-29 23:59:59.999999+05:30', '1999-12-31 23:59:59.000001', '0001-01-01', '23:59:59.999999',
             '1 year 2 mons -3 days 04:05:06.789', '\x00ff10', 'so "happy"', 7,
             '{9223372036854775807,NULL,-1}', '{"a,b","NULL",NULL,"q\"uote",""}', '2001:db8::1/64'),
            ('00000000-0000-0000-0000-000000000002', '', '', '', false, 32767, 2147483647, 9223372036854775807,
             -0.0000000001, 3.4e38, 1.7976931348623157e308, '[]', '{}', '1970-01-01 00:00:00+00',
             '2038-01-19 03:14:08', '9999-12-31', '00:00:00', '0', '', 'sad', 2147483647, '{}', '{}', '10.0.0.1');
            INSERT INTO everything (id) VALUES ('00000000-0000-0000-0000-000000000003')"#,
        )
        .await;
    both_settle(&world, &["everything"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_json_does_not_carry_is_quarantined_and_never_altered() {
    let ddl = "CREATE TABLE odd (
        id INT PRIMARY KEY, doc JSONB, plain JSON, ints INT[], moments TIMESTAMPTZ[], bytes BYTEA[], docs JSONB[],
        hosts INET[]
    );";
    let world = world_of(ddl, &["odd"]).await;
    world
        .legacy
        .execute(
            r#"INSERT INTO odd (id, doc) VALUES (1, 'null'), (2, NULL), (3, '{"a": null}'), (4, '[null]');
            INSERT INTO odd (id, plain) VALUES (11, ' null '), (12, NULL), (13, '"null"');
            INSERT INTO odd (id, ints) VALUES (21, '[0:1]={1,2}'), (22, '{{1,2},{3,NULL}}'), (23, '{}'),
                (24, '[1:1][2:3]={{1,2}}');
            INSERT INTO odd (id, moments) VALUES (31, '{{2026-01-01},{2026-01-02}}'), (32, '{2026-01-01}'),
                (33, '{{{NULL,2026-01-03}},{{2026-01-01 10:00+02,1999-12-31}},{{2026-01-04,NULL}}}');
            INSERT INTO odd (id, bytes) VALUES (41, '{{a},{b}}'), (42, '{a,NULL}'),
                (43, '{{{{{{"",NULL}}}}},{{{{{"\\x00ff","\\x5c22"}}}}}}');
            INSERT INTO odd (id, docs) VALUES (51, '{"[1]"}'), (52, '{"null"}'), (53, '{"{}",NULL}'),
                (54, '{{"{\"a\": [1]}",NULL},{"1.50","\"[x]\""}}'), (55, '{{"[1]"},{"2"}}');
            INSERT INTO odd (id, hosts) VALUES (71, '{{10.0.0.1,NULL},{10.0.0.2/8,::1}}')"#,
        )
        .await;
    let quarantined = "SELECT key FROM cutover.journal WHERE parked = 'quarantined' ORDER BY seq";
    eventually("all is paid or quarantined", SOON, async || {
        let open =
            "SELECT count(*) FROM cutover.journal WHERE parked IS DISTINCT FROM 'quarantined'";
        let open = world.legacy.number(open).await;
        (open == 0).then_some(()).ok_or(open)
    })
    .await;
    assert_eq!(
        world.legacy.texts(quarantined).await,
        ["[1]", "[11]", "[21]", "[24]", "[51]", "[52]", "[55]"]
    );
    // What did get across is the same to the letter.
    let kept = "SELECT o::text FROM odd o WHERE id NOT IN (1, 11, 21, 24, 51, 52, 55) ORDER BY id";
    let (legacy, storage) =
        tokio::join!(world.legacy.texts(kept), world.storage_database.texts(kept));
    assert_eq!(legacy, storage);
    let count = "SELECT count(*) FROM odd";
    assert_eq!(world.storage_database.number(count).await, 16);

    // Mended, it is paid; and an array whose parts differ in length is refused, not flattened.
    world
        .legacy
        .execute("UPDATE odd SET doc = NULL WHERE id = 1")
        .await;
    let seq = "SELECT min(seq) FROM cutover.journal WHERE key = '[1]'";
    let path = format!("/admin/journal/{}/retry", world.legacy.number(seq).await);
    let reason = json!({"reason": "mended"});
    world.proxies[0]
        .admin()
        .post(&path, &reason)
        .await
        .unwrap()
        .ok();
    eventually("it is paid", SOON, async || {
        let there = world
            .storage_database
            .number("SELECT count(*) FROM odd WHERE id = 1")
            .await;
        (there == 1).then_some(()).ok_or(there)
    })
    .await;
    let nested = json!({"type": "insert", "table": "odd", "data": {"id": 60, "bytes": [["AA=="], ["AA==", "AQ=="]]}});
    let refused = world.proxies[0].query(nested).await;
    assert_eq!(refused.code(), "type_mismatch", "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_document_arrives_as_sql_null_where_the_config_says_that_it_is_one() {
    let world = World::build(WorldOptions {
        ddl: "CREATE TABLE odd (id INT PRIMARY KEY, doc JSONB, other JSONB);".to_owned(),
        tables: "[[tables]]\nname = \"odd\"\nnull_documents = [\"doc\"]\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let rows =
        "INSERT INTO odd VALUES (1, 'null', '{}'), (2, '{\"a\": null}', NULL), (3, NULL, 'null')";
    world.legacy.execute(rows).await;
    eventually("all is paid or quarantined", SOON, async || {
        let open = "SELECT key FROM cutover.journal WHERE parked IS NULL";
        let stuck = world.legacy.texts(open).await;
        stuck.is_empty().then_some(()).ok_or(stuck.join(" "))
    })
    .await;
    let quarantined = "SELECT key FROM cutover.journal WHERE parked = 'quarantined'";
    assert_eq!(world.legacy.texts(quarantined).await, ["[3]"]);
    let arrived = "SELECT o::text FROM odd o ORDER BY id";
    assert_eq!(
        world.storage_database.texts(arrived).await,
        ["(1,,{})", "(2,\"{\"\"a\"\": null}\",)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_many_rows_and_one_that_is_rolled_back() {
    let world = world_of(RELATED, &["parents", "children"]).await;
    world
        .legacy
        .execute(
            "INSERT INTO parents (code) SELECT 'p' || n FROM generate_series(1, 500) n;
             UPDATE parents SET note = 'odd' WHERE id % 2 = 1;
             DELETE FROM parents WHERE id % 5 = 0",
        )
        .await;
    world
        .legacy
        .execute("BEGIN; UPDATE parents SET note = 'never'; ROLLBACK")
        .await;
    both_settle(&world, &["parents"]).await;
    let rows = "SELECT count(*) FROM parents";
    assert_eq!(world.storage_database.number(rows).await, 400);
}

/// A world with these tables, in `dual_write`.
async fn world_of(ddl: &str, tables: &[&str]) -> World {
    let config = |table: &&str| format!("[[tables]]\nname = \"{table}\"\n\n");
    let options = WorldOptions {
        ddl: ddl.to_owned(),
        tables: tables.iter().map(config).collect(),
        ..WorldOptions::default()
    };
    let world = World::build(options).await;
    world.advance_to("dual_write").await;
    world
}

/// Waits until the tables are equal, and holds the rows' own text against each other: it shows what JSON does not.
async fn both_settle(world: &World, tables: &[&str]) {
    for table in tables {
        world.settles(table, SOON).await;
        let sql = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let (legacy, storage) =
            tokio::join!(world.legacy.texts(&sql), world.storage_database.texts(&sql));
        assert_eq!(legacy, storage, "{table}");
        assert!(!legacy.is_empty(), "{table} has rows");
    }
}
