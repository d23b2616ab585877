//! The service with capabilities switched off: it knows less of the contract, as a lesser service would.

use crate::contract::{Code, Error, Operator, Query, Where};
use crate::storage::{Capabilities, Capability};

/// Refuses what a service with only these capabilities does not understand.
///
/// # Errors
/// `unsupported`, naming the capability.
pub(super) fn check(query: &Query, capabilities: &Capabilities) -> Result<(), Error> {
    match needed(query)
        .into_iter()
        .find(|capability| !capabilities.has(*capability))
    {
        None => Ok(()),
        Some(missing) => Err(Error::new(
            Code::Unsupported,
            format!("this service does not have `{}`", missing.as_str()),
        )
        .with_details(serde_json::json!({ "capability": missing.as_str() }))),
    }
}

fn needed(query: &Query) -> Vec<Capability> {
    match query {
        Query::Select(select) => {
            let mut needed = operators(select.filter.as_ref());
            if !select.order_by.is_empty() {
                needed.push(Capability::OrderBy);
            }
            needed
        }
        Query::Count(count) => with(Capability::Count, operators(count.filter.as_ref())),
        Query::Insert(_) => Vec::new(),
        Query::Upsert(_) => vec![Capability::Upsert],
        Query::Update(update) => operators(update.filter.as_ref()),
        Query::Delete(delete) => with(Capability::Delete, operators(delete.filter.as_ref())),
        Query::Transaction(queries) => with(
            Capability::Transaction,
            queries.iter().flat_map(needed).collect(),
        ),
        Query::Range(_) => vec![Capability::Ranges],
        Query::Batch(items) => with(
            Capability::Batch,
            items.iter().flat_map(|item| needed(&item.query)).collect(),
        ),
        Query::Resolve(_) => vec![Capability::Resolve],
        Query::Describe(_) => vec![Capability::Describe],
    }
}

fn with(capability: Capability, mut others: Vec<Capability>) -> Vec<Capability> {
    others.insert(0, capability);
    others
}

/// `Operators`, unless the filter is an object of equalities.
fn operators(filter: Option<&Where>) -> Vec<Capability> {
    let is_equality = |entry: &Where| matches!(entry, Where::Column(_, condition) if condition.operator == Operator::Eq);
    let plain = match filter {
        None => true,
        Some(Where::And(entries)) => entries.iter().all(is_equality),
        Some(other) => is_equality(other),
    };
    if plain {
        Vec::new()
    } else {
        vec![Capability::Operators]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::{Condition, Select};

    fn select(operator: Operator) -> Query {
        let condition = Condition {
            operator,
            value: json!(1),
        };
        Query::Select(Select {
            table: "campaigns".to_owned(),
            filter: Some(Where::And(vec![Where::Column("id".to_owned(), condition)])),
            ..Select::default()
        })
    }

    #[test]
    fn the_least_service_knows_equality_and_nothing_more() {
        let least = Capabilities::default();
        assert!(check(&select(Operator::Eq), &least).is_ok());
        let refused = check(&select(Operator::Lt), &least).unwrap_err();
        assert_eq!(refused.code, Code::Unsupported);
        assert!(check(&select(Operator::Lt), &Capabilities::all()).is_ok());
    }

    #[test]
    fn a_transaction_needs_what_its_members_need() {
        let all_but = Capabilities::all().without(Capability::Operators);
        let query = Query::Transaction(vec![select(Operator::Eq), select(Operator::In)]);
        assert!(check(&query, &all_but).is_err());
    }
}
