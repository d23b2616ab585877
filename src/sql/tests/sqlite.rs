//! SQLite: every kind, and changes row by row.

use serde_json::json;

use super::*;
use crate::schema::{Generated, Kind};
use crate::sql::render;

const TYPES: &str = "
    CREATE TABLE source (
        id UUID, k NUMERIC TEXT, t TEXT, v VARCHAR(10), flag BOOLEAN, i INTEGER, i2 SMALLINT,
        n NUMERIC TEXT, n_nan NUMERIC TEXT, f REAL, f_inf REAL, j JSON, jb JSONB,
        at TIMESTAMPTZ, at_default TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, ts TIMESTAMP, d DATE, tm TIME,
        iv INTERVAL, b BYTEA, ai INTEGER[], ip INET, doubled INT GENERATED ALWAYS AS (i2 * 2) STORED,
        \"odd \"\"name'\" TEXT, unset TEXT, PRIMARY KEY (id, k));
";

#[tokio::test]
async fn every_kind_is_written_read_and_copied_to_the_byte() {
    let db = sqlite_file("types");
    db.batch(TYPES).await.unwrap();
    db.batch(&TYPES.replace("source", "copy")).await.unwrap();
    let (source, copy) = (table(&db, "source").await, table(&db, "copy").await);
    let given = r#"{
        "id": "0190A0B0-0000-7000-8000-00000000000A", "k": 12.500, "t": "line\n\"quote\" \\ é \u0001", "v": "v",
        "flag": false, "i": 9223372036854775807, "i2": 21, "n": 12345678901234567890123456789012345678.910,
        "n_nan": "NaN", "f": 0.1, "f_inf": "Infinity", "j": {"b":1.50,"a":[null,"x"]}, "jb": [1],
        "at": "2024-05-06T09:08:09.5+02:00", "ts": "2024-05-06T07:08:09.000000", "d": "2024-02-29",
        "tm": "23:59:59.000001", "iv": "P1Y2M3DT4H5M6.7S", "b": "AP8Q", "ai": [1,null,3], "ip": "10.0.0.1",
        "odd \"name'": "odd"}"#;
    let stored = round_trip(&db, &source, &copy, serde_json::from_str(given).unwrap()).await;
    for part in [
        r#"{"id":"0190a0b0-0000-7000-8000-00000000000a","k":12.500,"t":"line\n\"quote\" \\ é \u0001""#,
        r#""flag":false,"i":9223372036854775807,"i2":21,"n":12345678901234567890123456789012345678.910"#,
        r#""n_nan":"NaN","f":0.1,"f_inf":"Infinity","j":{"b":1.50,"a":[null,"x"]},"jb":[1]"#,
        r#""at":"2024-05-06T07:08:09.500000Z","at_default":"20"#,
        r#"000Z","ts":"2024-05-06T07:08:09.000000","d":"2024-02-29","tm":"23:59:59.000001","#,
        r#""b":"AP8Q","ai":[1,null,3],"ip":"10.0.0.1","doubled":42,"odd \"name'":"odd","unset":null}"#,
    ] {
        assert!(stored.contains(part), "{part}\n{stored}");
    }
}

#[tokio::test]
async fn changes_keep_the_contract() {
    let db = sqlite_file("changes");
    db.batch(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT DEFAULT 'none', \
         amount NUMERIC TEXT, deleted_at TIMESTAMPTZ)",
    )
    .await
    .unwrap();
    let spec = TableSpec {
        name: "items".to_owned(),
        soft_delete: Some("deleted_at".to_owned()),
        ..TableSpec::default()
    };
    let items = introspect(&db, &[spec]).await.unwrap().tables["items"].clone();
    super::changes_keep_the_contract(&db, &items).await;

    let rowid = &items.columns[0];
    assert_eq!(rowid.generated, Generated::IdentityByDefault);
    let sequence = rowid.sequence.clone().unwrap();
    let applied = apply(&db, &insert(&items, vec![json!({"name": "new"})], false)).await;
    let id: Vec<i64> = serde_json::from_str(&applied[0].key.0).unwrap();
    let next = render::next_values(db.dialect(), &sequence, 2);
    let next = db.fetch(&next.text, next.args).await.unwrap();
    assert_eq!(next[1].some_int(0).unwrap(), id[0] + 2);
}

#[tokio::test]
async fn the_pragmas_are_read_as_they_are() {
    let db = sqlite_file("pragmas");
    db.batch(
        "CREATE TABLE a_child (id TEXT PRIMARY KEY, p1 INT, p2 TEXT, \
           FOREIGN KEY (p2, p1) REFERENCES parent ON DELETE CASCADE); \
         CREATE TABLE parent (a INT, b TEXT, u TEXT UNIQUE, PRIMARY KEY (b, a)); \
         CREATE TABLE cutover_journal (id INT); CREATE TABLE refsvc_events (id INT)",
    )
    .await
    .unwrap();
    let schema = schema(&db).await;
    let names: Vec<_> = schema.tables.keys().map(String::as_str).collect();
    assert_eq!(names, ["parent", "a_child"]);
    let parent = schema.table("parent").unwrap();
    assert_eq!(
        (&parent.key[..], &parent.unique[..]),
        (&[1, 0][..], &[vec![2]][..])
    );
    assert_eq!(parent.columns[0].kind, Kind::Int(64));
    let reference = &schema.table("a_child").unwrap().references[0];
    assert_eq!(reference.columns, [2, 1]);
    assert_eq!(reference.target, ["b", "a"]);
}
