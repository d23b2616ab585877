//! A `where`, bound: columns found, values checked, NULL comparisons turned into `is_null`.

use serde_json::Value;

use super::{BindLimits, find_column, mismatch};
use crate::contract::{Code, Condition, Error, Operator, Where};
use crate::schema::{Filter, Kind, Table, Test};

/// Binds a condition; none is all rows.
pub(super) fn bind(
    condition: Option<&Where>,
    table: &Table,
    limits: &BindLimits,
) -> Result<Filter, Error> {
    let mut binder = Binder {
        table,
        limits,
        parts: 0,
    };
    match condition {
        Some(condition) => binder.bind(condition, 0),
        None => Ok(Filter::All(Vec::new())),
    }
}

struct Binder<'a> {
    table: &'a Table,
    limits: &'a BindLimits,
    /// How many tests and combiners were met.
    parts: usize,
}

impl Binder<'_> {
    fn bind(&mut self, condition: &Where, depth: usize) -> Result<Filter, Error> {
        self.parts += 1;
        if self.parts > self.limits.where_parts_max {
            let message = format!("where has more than {} parts", self.limits.where_parts_max);
            return Err(Error::new(Code::TooLarge, message));
        }
        if depth > self.limits.where_depth_max {
            let message = format!("where nests deeper than {}", self.limits.where_depth_max);
            return Err(Error::new(Code::TooLarge, message));
        }
        Ok(match condition {
            Where::And(parts) => Filter::All(self.bind_all(parts, depth)?),
            Where::Or(parts) => Filter::Any(self.bind_all(parts, depth)?),
            Where::Not(part) => Filter::Not(Box::new(self.bind(part, depth + 1)?)),
            Where::Column(name, condition) => {
                let column = find_column(name, self.table)?;
                Filter::Test(self.bind_test(column, condition)?)
            }
        })
    }

    fn bind_all(&mut self, parts: &[Where], depth: usize) -> Result<Vec<Filter>, Error> {
        let parts = parts.iter().map(|part| self.bind(part, depth + 1));
        parts.collect()
    }

    fn bind_test(&self, column: usize, condition: &Condition) -> Result<Test, Error> {
        let operator = condition.operator;
        let is_null = |is: bool| Test {
            column,
            operator: Operator::IsNull,
            value: Value::Bool(is),
        };
        let value = match (operator, &condition.value) {
            (Operator::Eq, Value::Null) => return Ok(is_null(true)),
            (Operator::Ne, Value::Null) => return Ok(is_null(false)),
            (Operator::IsNull, Value::Bool(is)) => return Ok(is_null(*is)),
            (Operator::IsNull, _) => {
                return Err(mismatch(
                    self.table,
                    column,
                    "tested by is_null true or false",
                ));
            }
            (Operator::In, value) => {
                self.check_operator(column, operator)?;
                self.bind_in(column, value)?
            }
            (_, value) => {
                self.check_operator(column, operator)?;
                self.bind_value(column, value)?
            }
        };
        Ok(Test {
            column,
            operator,
            value,
        })
    }

    /// Whether the column's kind has the operator at all.
    fn check_operator(&self, column: usize, operator: Operator) -> Result<(), Error> {
        let kind = &self.table.columns[column].kind;
        let (fits, expected) = match operator {
            Operator::IsNull => (true, ""),
            Operator::Eq | Operator::Ne | Operator::In => (
                *kind != Kind::Json(false),
                "of a kind that has an equality (jsonb, not json)",
            ),
            Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => {
                (kind.is_ordered(), "of a kind that has an order")
            }
            Operator::Like => (kind.is_text(), "of kind text for like"),
        };
        if fits {
            Ok(())
        } else {
            Err(mismatch(self.table, column, expected))
        }
    }

    fn bind_in(&self, column: usize, value: &Value) -> Result<Value, Error> {
        let Value::Array(values) = value else {
            return Err(mismatch(self.table, column, "compared by in to an array"));
        };
        if values.len() > self.limits.in_max {
            let message = format!("in has more than {} elements", self.limits.in_max);
            return Err(Error::new(Code::TooLarge, message));
        }
        let values = values.iter().map(|value| self.bind_value(column, value));
        values.collect::<Result<_, _>>().map(Value::Array)
    }

    /// A value that is compared. NULL is equal to nothing in SQL: who means it says `is_null`.
    fn bind_value(&self, column: usize, value: &Value) -> Result<Value, Error> {
        let kind = &self.table.columns[column].kind;
        if value.is_null() {
            return Err(mismatch(self.table, column, "compared to NULL by is_null"));
        }
        kind.canonical(value)
            .ok_or_else(|| mismatch(self.table, column, kind.expected()))
    }
}
