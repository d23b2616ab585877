//! The `where` grammar, both ways.
//!
//! An object's entries are ANDed: `column: value` (equality), `column: {op: value, …}`, and the combiners
//! `or: [where, …]`, `and: [where, …]`, `not: where`. A JSON object as the value of an equality is written
//! `{"eq": {…}}`. A column that is named `or` or `and` can be tested only by the operator form
//! (`{"or": {"eq": 1}}`), one that is named `not` not at all: `not` is always the combiner.
//!
//! An object with one entry is that entry, with more an `And` of them, so that what is written by
//! `to_value` is read back as the same tree. Written with the plain forms where they suffice, so that a
//! service that knows equality only understands all it can.

use serde_json::{Map, Value, json};

use super::members::{invalid, shown};
use super::{Condition, Error, Operator, Where};

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 9] = [
        Self::Eq,
        Self::Ne,
        Self::Lt,
        Self::Lte,
        Self::Gt,
        Self::Gte,
        Self::In,
        Self::Like,
        Self::IsNull,
    ];

    /// As it is spelled in `where`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::In => "in",
            Self::Like => "like",
            Self::IsNull => "is_null",
        }
    }

    fn from_wire(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operator| operator.as_str() == text)
    }
}

impl Where {
    /// Reads the wire form. Its depth is bounded by whoever parsed the JSON.
    ///
    /// # Errors
    /// `invalid_request`, naming the entry that is wrong.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let Value::Object(map) = value else {
            return Err(invalid("where must be an object"));
        };
        let mut entries = Vec::with_capacity(map.len());
        for (name, value) in map {
            read_entry(name, value, &mut entries)?;
        }
        Ok(match entries.pop() {
            Some(only) if entries.is_empty() => only,
            Some(last) => {
                entries.push(last);
                Self::And(entries)
            }
            None => Self::And(entries),
        })
    }

    /// The wire form; `from_value` reads it back as the same tree.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::And(parts) => match plain_object(parts) {
                Some(object) => object,
                None => json!({ "and": parts.iter().map(Self::to_value).collect::<Vec<_>>() }),
            },
            Self::Or(parts) => {
                json!({ "or": parts.iter().map(Self::to_value).collect::<Vec<_>>() })
            }
            Self::Not(part) => json!({ "not": part.to_value() }),
            Self::Column(name, condition) => {
                let mut map = Map::new();
                map.insert(name.clone(), condition_value(name, condition));
                Value::Object(map)
            }
        }
    }
}

fn read_entry(name: String, value: Value, entries: &mut Vec<Where>) -> Result<(), Error> {
    match (name.as_str(), value) {
        ("or", Value::Array(parts)) => entries.push(Where::Or(read_parts(parts)?)),
        ("and", Value::Array(parts)) => entries.push(Where::And(read_parts(parts)?)),
        ("or" | "and", value) if !value.is_object() => {
            return Err(invalid(format!("where: {name} must be an array")));
        }
        ("not", value) => {
            let part = Where::from_value(value)
                .map_err(|error| invalid(format!("where: not: {}", error.message)))?;
            entries.push(Where::Not(Box::new(part)));
        }
        (_, Value::Object(operators)) => read_operators(&name, operators, entries)?,
        (_, value) => entries.push(Where::Column(
            name,
            Condition {
                operator: Operator::Eq,
                value,
            },
        )),
    }
    Ok(())
}

fn read_parts(parts: Vec<Value>) -> Result<Vec<Where>, Error> {
    parts.into_iter().map(Where::from_value).collect()
}

fn read_operators(
    column: &str,
    operators: Map<String, Value>,
    entries: &mut Vec<Where>,
) -> Result<(), Error> {
    if operators.is_empty() {
        let message = format!("where: {} has an object without an operator", shown(column));
        return Err(invalid(message));
    }
    for (name, value) in operators {
        let Some(operator) = Operator::from_wire(&name) else {
            let known = Operator::ALL.map(Operator::as_str).join(", ");
            let message = format!(
                "where: {} has no operator {}; operators are {known} (an object is compared by {{\"eq\": …}})",
                shown(column),
                shown(&name)
            );
            return Err(invalid(message));
        };
        let expected = match operator {
            Operator::In if !value.is_array() => Some("an array"),
            Operator::Like if !value.is_string() => Some("text"),
            Operator::IsNull if !value.is_boolean() => Some("true or false"),
            _ => None,
        };
        if let Some(expected) = expected {
            let message = format!("where: {name} of {} must be {expected}", shown(column));
            return Err(invalid(message));
        }
        entries.push(Where::Column(
            column.to_owned(),
            Condition { operator, value },
        ));
    }
    Ok(())
}

/// `{"a": 1, "b": 2}`, where every part is a column's test and no column comes twice.
fn plain_object(parts: &[Where]) -> Option<Value> {
    // One part in an object would be read back as itself, without the `And`.
    if parts.len() == 1 {
        return None;
    }
    let mut map = Map::with_capacity(parts.len());
    for part in parts {
        let Where::Column(name, condition) = part else {
            return None;
        };
        let value = condition_value(name, condition);
        if map.insert(name.clone(), value).is_some() {
            return None;
        }
    }
    Some(Value::Object(map))
}

fn condition_value(column: &str, condition: &Condition) -> Value {
    let needs_operator = condition.operator != Operator::Eq
        || condition.value.is_object()
        || matches!(column, "or" | "and");
    if needs_operator {
        json!({ condition.operator.as_str(): condition.value })
    } else {
        condition.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Where {
        Where::from_value(value).unwrap()
    }

    fn test(column: &str, operator: Operator, value: Value) -> Where {
        Where::Column(column.to_owned(), Condition { operator, value })
    }

    #[test]
    fn entries_and_operators_are_anded() {
        assert_eq!(
            read(json!({"a": {"gte": 1, "lt": 5}, "b": null})),
            Where::And(vec![
                test("a", Operator::Gte, json!(1)),
                test("a", Operator::Lt, json!(5)),
                test("b", Operator::Eq, Value::Null),
            ])
        );
        assert_eq!(read(json!({})), Where::And(vec![]));
    }

    #[test]
    fn combiners_nest() {
        assert_eq!(
            read(json!({"or": [{"a": 1}, {"not": {"b": {"like": "x%"}}}]})),
            Where::Or(vec![
                test("a", Operator::Eq, json!(1)),
                Where::Not(Box::new(test("b", Operator::Like, json!("x%")))),
            ])
        );
    }

    #[test]
    fn columns_named_like_combiners_have_the_operator_form() {
        let tree = read(json!({"or": {"eq": [1]}, "and": {"in": [2]}}));
        assert_eq!(
            tree,
            Where::And(vec![
                test("or", Operator::Eq, json!([1])),
                test("and", Operator::In, json!([2])),
            ])
        );
        assert_eq!(read(tree.to_value()), tree);
    }

    #[test]
    fn what_is_wrong_is_named_and_values_are_not() {
        for (value, message) in [
            (json!([]), "where must be an object"),
            (json!({"or": 1}), "or must be an array"),
            (json!({"not": "secret"}), "not: where must be an object"),
            (json!({"a": {}}), "without an operator"),
            (json!({"a": {"regex": "secret"}}), "no operator \"regex\""),
            (
                json!({"a": {"in": "secret"}}),
                "in of \"a\" must be an array",
            ),
            (json!({"a": {"like": 1}}), "like of \"a\" must be text"),
            (json!({"a": {"is_null": null}}), "must be true or false"),
            (json!({"or": [{"a": 1}, 2]}), "where must be an object"),
        ] {
            let error = Where::from_value(value).unwrap_err();
            assert!(error.message.contains(message), "{}", error.message);
            assert!(!error.message.contains("secret"));
        }
    }

    #[test]
    fn equalities_are_written_plainly() {
        let value = json!({"a": 1, "b": null, "tags": [1]});
        assert_eq!(read(value.clone()).to_value(), value);
    }

    #[test]
    fn every_tree_is_read_back_as_it_was() {
        let mut state = 7_u64;
        for _ in 0..5_000 {
            let tree = any_where(&mut state, 4);
            assert_eq!(read(tree.to_value()), tree);
        }
    }

    fn next(state: &mut u64, below: u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 33) % below
    }

    fn any_where(state: &mut u64, depth: u64) -> Where {
        let parts = |state: &mut u64| {
            (0..next(state, 4))
                .map(|_| any_where(state, depth - 1))
                .collect()
        };
        match if depth == 0 { 3 } else { next(state, 6) } {
            0 => Where::And(parts(state)),
            1 => Where::Or(parts(state)),
            2 => Where::Not(Box::new(any_where(state, depth - 1))),
            _ => {
                let names = ["a", "b", "or", "and", "eq", "like"];
                let column = names[next(state, 6) as usize];
                let operator = Operator::ALL[next(state, 9) as usize];
                let value = match operator {
                    Operator::In => json!([1, "x"]),
                    Operator::Like => json!("x%"),
                    Operator::IsNull => json!(true),
                    _ => [json!(1), json!([1]), json!({"eq": 1}), Value::Null]
                        [next(state, 4) as usize]
                        .clone(),
                };
                test(column, operator, value)
            }
        }
    }
}
