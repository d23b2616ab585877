//! What differs between two descriptions of a table. Pure.
//!
//! What matters most is where storage is stricter: it would refuse, or cut, a row that legacy took. Each such
//! difference is of a kind of its own. Where storage is looser nothing is lost while legacy is the judge, so that is
//! one kind, which is told and holds nothing up. A type that holds more than legacy's is no difference.

use std::collections::BTreeSet;

use crate::contract::{DescribedColumn, Description, ForeignKey, GeneratedBy, Holds};
use crate::telemetry::DriftKind;

/// One difference: its kind, the columns, and what to say of it.
pub(super) type Told = (DriftKind, String, String);

/// Whole digits of the integers, to hold them against a numeric.
const WHOLE_DIGITS: [(Holds, i64); 3] = [(Holds::Int16, 5), (Holds::Int32, 10), (Holds::Int64, 19)];

/// Holds what storage says of a table against what legacy's catalog says. Columns that only one side has are left out.
pub(super) fn told(legacy: &Description, storage: &Description) -> Vec<Told> {
    let mut told = Vec::new();
    for column in &legacy.columns {
        let described = storage.columns.iter().find(|one| one.name == column.name);
        if let Some(described) = described {
            columns(column, described, &mut told);
        }
    }
    keys(legacy, storage, &mut told);
    relations(legacy, storage, &mut told);
    told
}

fn columns(legacy: &DescribedColumn, storage: &DescribedColumn, told: &mut Vec<Told>) {
    let mut tell = |kind, what: &str| {
        told.push((
            kind,
            legacy.name.clone(),
            format!("column {}: {what}", legacy.name),
        ))
    };
    if !holds_all(legacy, storage) {
        let what = format!(
            "{} of storage does not hold all that {} of legacy does",
            storage.sql_type, legacy.sql_type
        );
        tell(DriftKind::Type, &what);
    }
    match (legacy.nullable, storage.nullable) {
        (true, false) => tell(DriftKind::NotNull, "storage refuses NULL, legacy does not"),
        (false, true) => tell(DriftKind::Looser, "legacy refuses NULL, storage does not"),
        (true, true) | (false, false) => {}
    }
    let computes = |column: &DescribedColumn| column.generated == Some(GeneratedBy::Expression);
    let counts = |column: &DescribedColumn| column.generated == Some(GeneratedBy::Identity);
    if computes(legacy) != computes(storage) {
        tell(DriftKind::Generated, "it is computed on one side only");
    } else if counts(legacy) && !counts(storage) {
        tell(
            DriftKind::Looser,
            "legacy gives it a value of a sequence, storage does not",
        );
    }
}

/// Whether storage's column holds every value that legacy's can. What is not known of one is taken for good.
fn holds_all(legacy: &DescribedColumn, storage: &DescribedColumn) -> bool {
    let (Some(held), Some(place)) = (&legacy.holds, &storage.holds) else {
        return true;
    };
    is_held(held, place)
        && match (held, place) {
            (_, Holds::Numeric) => digits_fit(held, &legacy.limits, &storage.limits),
            (held, place) if std::mem::discriminant(held) == std::mem::discriminant(place) => {
                let most = storage.limits.first();
                most.is_none_or(|most| legacy.limits.first().is_some_and(|own| own <= most))
            }
            (_, _) => true,
        }
}

fn is_held(held: &Holds, place: &Holds) -> bool {
    match (held, place) {
        (Holds::Enum(labels), Holds::Enum(known)) => labels.iter().all(|one| known.contains(one)),
        (Holds::Array(held), Holds::Array(place)) => is_held(held, place),
        (held, place) => {
            held == place
                || matches!(
                    (held, place),
                    (Holds::Int16, Holds::Int32 | Holds::Int64 | Holds::Numeric)
                        | (Holds::Int32, Holds::Int64 | Holds::Numeric)
                        | (Holds::Int64, Holds::Numeric)
                        | (Holds::Float32, Holds::Float64)
                )
                // Both are spelled as text in the contract.
                || (is_spelled(held) && matches!(place, Holds::Text | Holds::Other))
        }
    }
}

/// Whether the contract spells such values as text, other than text itself.
fn is_spelled(held: &Holds) -> bool {
    matches!(
        held,
        Holds::Uuid
            | Holds::Timestamptz
            | Holds::Timestamp
            | Holds::Date
            | Holds::Time
            | Holds::Interval
            | Holds::Bytes
            | Holds::Enum(_)
            | Holds::Other
    )
}

/// Whether a numeric of storage has a place for every digit of legacy's.
fn digits_fit(held: &Holds, legacy: &[i64], storage: &[i64]) -> bool {
    let Some((whole_max, fraction_max)) = digits(storage) else {
        return true;
    };
    let integer = WHOLE_DIGITS.iter().find(|(holds, _)| holds == held);
    let needed = integer
        .map(|(_, whole)| (*whole, 0))
        .or_else(|| digits(legacy));
    needed.is_some_and(|(whole, fraction)| whole <= whole_max && fraction <= fraction_max)
}

/// Digits before and after the point; none without limits.
fn digits(limits: &[i64]) -> Option<(i64, i64)> {
    match limits {
        [] => None,
        [all] => Some((*all, 0)),
        [all, fraction, ..] => Some((all - fraction, *fraction)),
    }
}

fn keys(legacy: &Description, storage: &Description, told: &mut Vec<Told>) {
    let set = |key: &[String]| -> BTreeSet<String> { key.iter().cloned().collect() };
    if set(&legacy.primary_key) != set(&storage.primary_key) {
        let (own, other) = (legacy.primary_key.join(","), storage.primary_key.join(","));
        let what = format!("the primary key is ({other}) in storage, ({own}) in legacy");
        told.push((DriftKind::PrimaryKey, own, what));
    }
    let all = |of: &Description| -> Vec<BTreeSet<String>> {
        let keys = [&of.primary_key].into_iter().chain(&of.unique);
        keys.map(|key| set(key)).collect()
    };
    // What is unique by some of its columns is unique by all of them.
    let implied = |key: &[String], by: &[BTreeSet<String>]| {
        let key = set(key);
        by.iter().any(|one| one.is_subset(&key))
    };
    let (in_legacy, in_storage) = (all(legacy), all(storage));
    for key in storage
        .unique
        .iter()
        .filter(|key| !implied(key, &in_legacy))
    {
        let key = key.join(",");
        let what = format!("only storage holds ({key}) unique");
        told.push((DriftKind::Unique, key, what));
    }
    for key in legacy
        .unique
        .iter()
        .filter(|key| !implied(key, &in_storage))
    {
        let key = key.join(",");
        let what = format!("only legacy holds ({key}) unique");
        told.push((DriftKind::Looser, key, what));
    }
}

fn relations(legacy: &Description, storage: &Description, told: &mut Vec<Told>) {
    let among = |key: &ForeignKey, others: &[ForeignKey]| others.contains(key);
    for (of, others, kind, side) in [
        (storage, legacy, DriftKind::ForeignKey, "storage"),
        (legacy, storage, DriftKind::Looser, "legacy"),
    ] {
        let only = of
            .foreign_keys
            .iter()
            .filter(|key| !among(key, &others.foreign_keys));
        for key in only {
            let columns = key.columns.join(",");
            let what = format!(
                "only {side} has a foreign key like that of ({columns}) to {}",
                key.table
            );
            told.push((kind, columns, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn described(columns: Value, rest: Value) -> Description {
        let mut all = json!({"columns": columns, "primary_key": ["id"]});
        for (name, value) in rest.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn column(holds: Value, limits: &[i64]) -> Value {
        json!({"name": "c", "type": "as written", "holds": holds, "limits": limits, "nullable": true})
    }

    fn kinds(legacy: &Description, storage: &Description) -> Vec<DriftKind> {
        let told = told(legacy, storage).into_iter();
        told.map(|(kind, ..)| kind).collect()
    }

    /// Whether a column of storage is a place for what one of legacy holds.
    fn has_room(legacy: (Value, &[i64]), storage: (Value, &[i64])) -> bool {
        let one = |(holds, limits)| described(json!([column(holds, limits)]), json!({}));
        let found = kinds(&one(legacy), &one(storage));
        assert!(found.iter().all(|kind| *kind == DriftKind::Type));
        found.is_empty()
    }

    #[test]
    fn a_type_must_hold_all_that_legacys_does_and_may_hold_more() {
        let text = || json!("text");
        for (legacy, storage, fits) in [
            ((text(), &[60][..]), (text(), &[][..]), true),
            ((text(), &[60]), (text(), &[60]), true),
            ((text(), &[60]), (text(), &[40]), false),
            ((text(), &[]), (text(), &[40]), false),
            (
                (json!("numeric"), &[12, 4]),
                (json!("numeric"), &[14, 6]),
                true,
            ),
            (
                (json!("numeric"), &[12, 4]),
                (json!("numeric"), &[12, 6]),
                false,
            ),
            (
                (json!("numeric"), &[12, 4]),
                (json!("numeric"), &[14, 2]),
                false,
            ),
            ((json!("numeric"), &[]), (json!("numeric"), &[30, 9]), false),
            ((json!("int32"), &[]), (json!("numeric"), &[10]), true),
            ((json!("int64"), &[]), (json!("numeric"), &[10]), false),
            ((json!("int64"), &[]), (json!("int32"), &[]), false),
            ((json!("int32"), &[]), (json!("int64"), &[]), true),
            ((json!("numeric"), &[]), (json!("float64"), &[]), false),
            (
                (json!("timestamptz"), &[]),
                (json!("timestamp"), &[]),
                false,
            ),
            (
                (json!("timestamptz"), &[]),
                (json!("timestamptz"), &[3]),
                false,
            ),
            ((json!("uuid"), &[]), (text(), &[]), true),
            ((text(), &[]), (json!("uuid"), &[]), false),
            ((json!("json"), &[]), (text(), &[]), false),
            (
                (json!({"enum": ["a"]}), &[]),
                (json!({"enum": ["b", "a"]}), &[]),
                true,
            ),
            (
                (json!({"enum": ["a", "c"]}), &[]),
                (json!({"enum": ["a"]}), &[]),
                false,
            ),
            ((json!({"enum": ["a"]}), &[]), (text(), &[]), true),
            (
                (json!({"array": "int32"}), &[]),
                (json!({"array": "int64"}), &[]),
                true,
            ),
            ((json!({"array": "text"}), &[]), (text(), &[]), false),
            ((json!("int32"), &[]), (Value::Null, &[]), true),
        ] {
            let shown = format!("{legacy:?} in {storage:?}");
            assert_eq!(has_room(legacy, storage), fits, "{shown}");
        }
    }

    #[test]
    fn what_storage_refuses_and_legacy_does_not_is_named_and_the_reverse_is_only_looser() {
        let one = |nullable: bool, generated: Value, rest: Value| {
            let column =
                json!({"name": "c", "type": "t", "nullable": nullable, "generated": generated});
            described(json!([column]), rest)
        };
        let key = |on_delete: &str| json!({"columns": ["c"], "table": "t", "target": ["id"], "on_delete": on_delete});
        let plain = one(true, Value::Null, json!({}));
        let strict = json!({"unique": [["c", "d"]], "foreign_keys": [key("refuse")]});
        let strict = one(false, Value::Null, strict);
        assert_eq!(kinds(&plain, &plain), []);
        assert_eq!(
            kinds(&plain, &strict),
            [DriftKind::NotNull, DriftKind::Unique, DriftKind::ForeignKey]
        );
        assert_eq!(kinds(&strict, &plain), [DriftKind::Looser; 3]);

        let narrow = one(true, Value::Null, json!({"unique": [["c"]]}));
        let wide = one(true, Value::Null, json!({"unique": [["c", "d"]]}));
        assert_eq!(kinds(&narrow, &wide), [DriftKind::Looser]);
        assert_eq!(kinds(&wide, &narrow), [DriftKind::Unique]);

        let cascades = one(true, Value::Null, json!({"foreign_keys": [key("cascade")]}));
        let refuses = one(true, Value::Null, json!({"foreign_keys": [key("refuse")]}));
        assert_eq!(
            kinds(&refuses, &cascades),
            [DriftKind::ForeignKey, DriftKind::Looser]
        );

        let computed = one(true, json!("expression"), json!({}));
        let counted = one(true, json!("identity"), json!({}));
        assert_eq!(kinds(&computed, &plain), [DriftKind::Generated]);
        assert_eq!(kinds(&plain, &computed), [DriftKind::Generated]);
        assert_eq!(kinds(&counted, &plain), [DriftKind::Looser]);
        assert_eq!(kinds(&plain, &counted), []);

        let other = one(true, Value::Null, json!({"primary_key": ["c"]}));
        assert_eq!(kinds(&plain, &other), [DriftKind::PrimaryKey]);
    }
}
