//! Schemas that nobody would choose and that are there: keys that read differently from session to session, documents
//! that no strict reader takes, rows that moved on before the row they hung on went.

use std::time::Duration;

use crate::fixture::{World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(60);
/// As long as PostgreSQL allows, and alike but for their ends.
const LONG_NAMES: [&str; 2] = [
    "a_name_that_is_as_long_as_a_name_may_be_in_postgresql_but_one_a",
    "a_name_that_is_as_long_as_a_name_may_be_in_postgresql_but_one_b",
];

async fn world(ddl: &str, tables: &[&str]) -> World {
    let tables = tables.iter();
    let world = World::build(WorldOptions {
        ddl: ddl.to_owned(),
        tables: tables
            .map(|name| format!("[[tables]]\nname = \"{name}\"\n"))
            .collect(),
        config: "[compare]\nrecheck_delay = \"10ms\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    world
}

/// Fills storage, and has a verify say that both sides are the same.
async fn filled_and_verified(world: &World) {
    for command in ["backfill", "verify"] {
        let (status, said) = world.proxies[0]
            .operate(&[command, "--reason", "test"])
            .await;
        assert!(status.success(), "{command}: {said}");
    }
}

/// Nothing is owed but what is given up; how many entries that are.
async fn given_up(world: &World) -> i64 {
    let open = "SELECT count(*) FROM cutover.journal WHERE parked IS DISTINCT FROM 'quarantined'";
    eventually("what can be paid is paid", SOON, async || {
        let open = world.legacy.number(open).await;
        (open == 0).then_some(()).ok_or(open)
    })
    .await;
    world
        .legacy
        .number("SELECT count(*) FROM cutover.journal")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_moved_on_before_a_removal_keep_what_hangs_on_them() {
    let tables = ["owners", "folders", "files", "links"];
    let ddl = "CREATE TABLE owners (id int PRIMARY KEY);
        CREATE TABLE folders (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE files (id int PRIMARY KEY, folder int REFERENCES folders ON DELETE CASCADE);
        CREATE TABLE links (id int PRIMARY KEY, file int REFERENCES files ON DELETE SET NULL);
        INSERT INTO owners SELECT generate_series(1, 40);
        INSERT INTO folders SELECT i, i % 40 + 1 FROM generate_series(1, 80) i;
        INSERT INTO files SELECT i, i % 80 + 1 FROM generate_series(1, 160) i;
        INSERT INTO links SELECT i, i % 160 + 1 FROM generate_series(1, 160) i";
    let world = world(ddl, &tables).await;
    filled_and_verified(&world).await;
    for write in [
        // Its own foreign key follows the key: folders are changed before their owner is.
        "UPDATE owners SET id = id + 1000 WHERE id BETWEEN 11 AND 15",
        "BEGIN; INSERT INTO owners VALUES (100); UPDATE folders SET owner = 100 WHERE owner < 10; \
         DELETE FROM owners WHERE id < 10; COMMIT",
        "BEGIN; UPDATE folders SET owner = 21 WHERE owner = 20; DELETE FROM owners WHERE id = 20; COMMIT; \
         BEGIN; INSERT INTO owners VALUES (20); UPDATE folders SET owner = 20 WHERE owner = 21; COMMIT",
        "BEGIN; DELETE FROM owners WHERE id = 30; INSERT INTO owners VALUES (30); \
         INSERT INTO folders VALUES (30, 30) ON CONFLICT DO NOTHING; INSERT INTO files VALUES (500, 30); COMMIT",
    ] {
        world.legacy.execute(write).await;
    }
    for table in tables {
        world.settles(table, SOON).await;
    }
    assert_eq!(given_up(&world).await, 0);
    for table in tables {
        world.assert_same_rows(table).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_no_longer_for_a_row_that_is_given_up() {
    let ddl = "CREATE TABLE owners (id int PRIMARY KEY);
        CREATE TABLE folders (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE, n int);
        INSERT INTO owners VALUES (1), (2); INSERT INTO folders VALUES (1, 1, 1), (2, 2, 2)";
    let world = world(ddl, &["owners", "folders"]).await;
    filled_and_verified(&world).await;
    let stricter = "ALTER TABLE folders ADD CHECK (n > 0)";
    world.storage_database.execute(stricter).await;
    let moved_on = "BEGIN; UPDATE folders SET owner = 2, n = -1 WHERE id = 1; DELETE FROM owners WHERE id = 1; COMMIT";
    world.legacy.execute(moved_on).await;
    world.settles("owners", SOON).await;
    assert_eq!(given_up(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_told_apart_by_their_keys_however_a_session_and_a_type_spell_them() {
    let [long_a, long_b] = LONG_NAMES;
    let tables = ["moments", "ratios", "codes", "hosts", long_a, long_b];
    let ddl = format!(
        "CREATE TABLE moments (id timestamptz PRIMARY KEY, n int, until date, since timestamp[]);
        INSERT INTO moments VALUES ('infinity', 1, '-infinity', '{{infinity,NULL}}'), ('0044-03-15 12:00:00Z BC', 2, NULL, NULL),
          ('294276-12-31 23:59:59.999999Z', 3, '5874897-12-31', NULL), ('2026-01-01 00:00:00.000001Z', 4, '4713-01-01 BC', '{{}}');
        CREATE TABLE ratios (id double precision PRIMARY KEY, n int);
        INSERT INTO ratios VALUES (0, 1), (0.30000000000000004, 2), ('NaN', 3), ('-Infinity', 4), (5e-324, 5);
        CREATE DOMAIN code AS char(5); CREATE DOMAIN nets AS inet[];
        CREATE TABLE codes (id code PRIMARY KEY, n int, nets nets);
        INSERT INTO codes VALUES ('ab', 1, '{{10.0.0.1,NULL}}'), ('c', 2, NULL);
        CREATE TABLE hosts (id inet, number bit(3), n int, PRIMARY KEY (id, number));
        INSERT INTO hosts VALUES ('10.0.0.1/8', B'101', 1), ('::1', B'000', 2);
        CREATE TABLE {long_a} (id int PRIMARY KEY, n int); CREATE TABLE {long_b} (id int PRIMARY KEY, n int);
        INSERT INTO {long_a} VALUES (1); INSERT INTO {long_b} VALUES (2)"
    );
    let world = world(&ddl, &tables).await;
    filled_and_verified(&world).await;
    for table in tables {
        world.assert_same_rows(table).await;
    }
    let mut writes =
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET extra_float_digits = -3;"
            .to_owned();
    writes += &tables
        .map(|table| format!("UPDATE {table} SET n = coalesce(n, 0) + 10;"))
        .concat();
    writes += "UPDATE ratios SET id = '-0' WHERE id = 0; DELETE FROM moments WHERE n = 12; \
               RESET timezone; RESET datestyle; RESET extra_float_digits";
    world.legacy.execute(&writes).await;
    assert_eq!(given_up(&world).await, 0);
    filled_and_verified(&world).await;
    for table in ["moments", "codes", "hosts", long_a, long_b] {
        world.assert_same_rows(table).await;
    }
    let planted =
        "UPDATE hosts SET n = -1 WHERE number = B'101'; UPDATE codes SET n = -1 WHERE id = 'c'";
    world.storage_database.execute(planted).await;
    let verifying = ["verify", "--reason", "test"];
    let (status, said) = world.proxies[0].operate(&verifying).await;
    assert_eq!(status.code(), Some(1), "{said}");
    let found = "SELECT tbl FROM cutover.divergences WHERE kind = 'field' ORDER BY tbl";
    assert_eq!(
        world.legacy.texts(found).await,
        ["codes", "hosts"],
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_carried_is_given_up_alone() {
    let wide: String = (0..120)
        .map(|column| format!(", j{column} jsonb"))
        .collect();
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let ddl = format!(
        "CREATE TABLE wide (id int PRIMARY KEY{wide}); INSERT INTO wide (id, j3) VALUES (1, '{{}}');
        CREATE TABLE documents (id int PRIMARY KEY, document json, amount numeric);
        INSERT INTO documents VALUES (1, '{{\"a\":1,\"a\":2}}'), (2, '\"\\ud800\"'), (3, '\"\\u0000\"'), (4, '{}'),
          (5, '{}'), (6, '{{\"$serde_json::private::Number\":\"1\"}}');
        INSERT INTO documents VALUES (7, NULL, repeat('9', 1001)::numeric), (8, '{}', repeat('9', 1000)::numeric);
        INSERT INTO documents SELECT i, to_json(i), i FROM generate_series(100, 300) i",
        deep(60),
        deep(200),
        deep(20),
    );
    let world = world(&ddl, &["wide", "documents"]).await;
    let filling = ["backfill", "--reason", "test"];
    let (_, said) = world.proxies[0].operate(&filling).await;
    assert_eq!(given_up(&world).await, 7, "{said}");
    let keys = "SELECT key FROM cutover.journal ORDER BY key";
    let keys = world.legacy.texts(keys).await;
    assert_eq!(keys, ["[1]", "[2]", "[3]", "[4]", "[5]", "[6]", "[7]"]);
    world.assert_same_rows("wide").await;
    let carried = "SELECT count(*) FROM documents";
    assert_eq!(world.storage_database.number(carried).await, 202);
    let verifying = ["verify", "--reason", "test"];
    let (status, said) = world.proxies[0].operate(&verifying).await;
    assert_eq!(status.code(), Some(1), "{said}");
    // Written again in another shape, they are carried.
    world
        .legacy
        .execute("UPDATE documents SET document = '{}', amount = 1 WHERE id < 8")
        .await;
    assert_eq!(given_up(&world).await, 0);
    filled_and_verified(&world).await;
}
