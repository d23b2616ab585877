//! A removal spelled out: what hangs on its rows is changed and removed by name, in one transaction with it.
//!
//! So storage need not have legacy's relations, and need not be believed about them: every row that changes is
//! named in the request and in the reply. Where it has them, this order suits them: first columns become NULL,
//! then rows go that hang on others, then what was asked for. Only in a circle of rows what was asked for goes
//! first, so that its reply holds the rows as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::bonds::Leaving;
use super::plan::{Part, Plan, Planned, values_of};
use crate::contract::{Key, Reply, Row};
use crate::journal::Named;
use crate::legacy::{Fate, Swept, SweptRow};
use crate::schema::{Change, Filter, Schema, Step, Table};

/// Rows in one statement where a key is one column, and terms where it is several.
const ROWS_PER_STEP: usize = 1_000;
const TERMS_PER_STEP: usize = 200;
/// Members of one transaction.
const STEPS_MAX: usize = 100;

/// Why a removal cannot be spelled out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tangle {
    /// Another member of the transaction writes what it takes along, or points at what goes.
    Members,
    /// A column gets its default: only a database knows it.
    Default,
    /// A column becomes NULL that other rows point at in turn.
    Chain,
    /// It takes too many statements.
    TooMany,
}

/// Rows of one table with one fate.
type Group<'a> = (Arc<Table>, Vec<&'a SweptRow>);

/// The plan with everything that hangs on its removals.
pub(super) fn unfold(plan: &Plan, swept: &Swept, schema: &Schema) -> Result<Plan, Tangle> {
    check(plan, swept, schema)?;
    if swept.rows.is_empty() {
        return Ok(plan.clone());
    }
    let removals = |planned: &Planned| planned.leaving == Leaving::Rows;
    let first = plan.steps.iter().position(removals).unwrap_or(0);
    let last = plan.steps.iter().rposition(removals).unwrap_or(first);
    let (cleared, removed) = (cleared(swept), removed(swept, schema));
    let (before, after) = match swept.circular {
        true => (cleared, removed),
        false => ([cleared, removed].concat(), Vec::new()),
    };
    let mut unfolded = Plan {
        steps: Vec::new(),
        ..plan.clone()
    };
    unfolded.write.steps.clear();
    unfolded.write.transaction = true;
    for (index, (step, planned)) in plan.write.steps.iter().zip(&plan.steps).enumerate() {
        if index == first {
            unfolded.add_ours(before.clone());
        }
        let mut planned = planned.clone();
        if removals(&planned) {
            planned.part = Part::Root;
        }
        unfolded.write.steps.push(step.clone());
        unfolded.steps.push(planned);
        if index == last {
            unfolded.add_ours(after.clone());
        }
    }
    match unfolded.steps.len() <= STEPS_MAX {
        true => Ok(unfolded),
        false => Err(Tangle::TooMany),
    }
}

impl Plan {
    fn add_ours(&mut self, steps: Vec<(Change, Planned)>) {
        for (change, planned) in steps {
            self.write.steps.push(Step::Change(change));
            self.steps.push(planned);
        }
    }

    /// What the caller gets of storage's reply: the answers to what it asked, in the shape that it asked for. A
    /// predicate that was narrowed to one key is answered by a row where the caller is owed an array.
    pub(super) fn for_caller(&self, reply: Reply) -> Reply {
        let replies: Vec<&RawValue> = match self.write.transaction {
            true => serde_json::from_str(reply.as_json()).unwrap_or_default(),
            false => serde_json::from_str(reply.as_json()).into_iter().collect(),
        };
        let steps = self.write.steps.iter().zip(&self.steps);
        let answers: Vec<String> = replies
            .into_iter()
            .zip(steps)
            .filter(|(_, (_, planned))| planned.part.is_asked())
            .map(|(answer, (step, _))| match step {
                Step::Change(change) if !change.is_single() => many(answer.get()),
                Step::Change(_) | Step::Read(_) => answer.get().to_owned(),
            })
            .collect();
        match (self.asked_transaction, answers.as_slice()) {
            (false, [only]) => Reply::from_json(only.clone()),
            (false, []) => reply,
            (true | false, _) => Reply::from_json(format!("[{}]", answers.join(","))),
        }
    }
}

/// The answer of a change that is owed an array.
fn many(answer: &str) -> String {
    match answer.trim_start().as_bytes().first() {
        Some(b'[') => answer.to_owned(),
        Some(b'{') => format!("[{answer}]"),
        Some(_) | None => "[]".to_owned(),
    }
}

/// Whether what legacy holds now is all there is to say about the removals when they run.
fn check(plan: &Plan, swept: &Swept, schema: &Schema) -> Result<(), Tangle> {
    let mut leaving = plan.bonds.leaving.clone();
    let mut named = leaving.clone();
    for row in &swept.rows {
        let name = (row.table.name.clone(), row.key.clone());
        match &row.fate {
            Fate::Removed => drop(leaving.insert(name.clone())),
            Fate::Defaulted => return Err(Tangle::Default),
            Fate::Cleared(columns) if is_followed(&row.table, columns, schema) => {
                return Err(Tangle::Chain);
            }
            Fate::Cleared(_) => {}
        }
        named.insert(name);
    }
    if removes_what_is_gone(plan, swept) {
        return Err(Tangle::Members);
    }
    let last = plan
        .steps
        .iter()
        .rposition(|planned| planned.leaving != Leaving::Nothing);
    let before = plan.steps.iter().take(last.unwrap_or(0));
    for (planned, step) in before.zip(&plan.write.steps) {
        let Step::Change(change) = step else { continue };
        let points = planned.targets.iter().any(|target| match &target.key {
            Some(key) => leaving.contains(&(target.table.clone(), key.clone())),
            None => leaving.iter().any(|(table, _)| *table == target.table),
        });
        let table = &change.table().name;
        let writes = !swept.rows.is_empty()
            && !matches!(change, Change::Delete { .. })
            && planned
                .keys
                .iter()
                .any(|key| named.contains(&(table.clone(), key.clone())));
        if points || writes {
            return Err(Tangle::Members);
        }
    }
    Ok(())
}

/// Whether a member removes a row that an earlier member's removal may have taken along: its reply would not
/// tell.
fn removes_what_is_gone(plan: &Plan, swept: &Swept) -> bool {
    let steps = plan.steps.iter().zip(&plan.write.steps);
    let mut after = steps
        .skip_while(|(planned, _)| planned.leaving != Leaving::Rows)
        .skip(1);
    after.any(|(planned, step)| match step {
        Step::Change(change @ Change::Delete { .. }) => planned.keys.iter().any(|key| {
            swept
                .hanging
                .contains(&(change.table().name.clone(), key.clone()))
        }),
        Step::Change(_) | Step::Read(_) => false,
    })
}

/// Whether a relation acts on rows that point at one of these columns when it changes.
fn is_followed(table: &Table, columns: &BTreeSet<usize>, schema: &Schema) -> bool {
    let mut references = schema.tables.values().flat_map(|child| &child.references);
    references.any(|reference| {
        let names = columns.iter().map(|&index| &table.columns[index].name);
        reference.table == table.name && super::super::bonds::acts_on_update(reference, names)
    })
}

/// The updates that clear columns.
fn cleared(swept: &Swept) -> Vec<(Change, Planned)> {
    let mut groups: BTreeMap<(&str, &BTreeSet<usize>), Group<'_>> = BTreeMap::new();
    for row in &swept.rows {
        if let Fate::Cleared(columns) = &row.fate {
            let group = groups.entry((&row.table.name, columns));
            let (_, rows) = group.or_insert_with(|| (Arc::clone(&row.table), Vec::new()));
            rows.push(row);
        }
    }
    let each = groups
        .into_iter()
        .flat_map(|((_, columns), (table, rows))| {
            let name = |&index: &usize| (table.columns[index].name.clone(), Value::Null);
            let set: Row = columns.iter().map(name).collect();
            steps(&table, &rows, Part::Cleared, |filter| Change::Update {
                table: Arc::clone(&table),
                filter,
                set: set.clone(),
                single: false,
            })
        });
    each.collect()
}

/// The deletes: tables that point before those that are pointed at, and the farthest rows of each first.
fn removed(swept: &Swept, schema: &Schema) -> Vec<(Change, Planned)> {
    let mut deletes = Vec::new();
    for table in schema.tables.values().rev() {
        let of_table = |row: &&SweptRow| row.fate == Fate::Removed && row.table.name == table.name;
        let rows: Vec<&SweptRow> = swept.rows.iter().rev().filter(of_table).collect();
        deletes.extend(steps(table, &rows, Part::Swept, |filter| Change::Delete {
            table: Arc::clone(table),
            filter,
            single: false,
        }));
    }
    deletes
}

/// One change of these rows, cut so that each statement keeps within its bound.
fn steps(
    table: &Arc<Table>,
    rows: &[&SweptRow],
    part: Part,
    change: impl Fn(Filter) -> Change,
) -> Vec<(Change, Planned)> {
    let at_once = match table.key.len() {
        1 => ROWS_PER_STEP,
        columns => (TERMS_PER_STEP / (columns + 1)).max(1),
    };
    let step = |rows: &[&SweptRow]| {
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let change = change(Filter::Keys(values_of(&keys)));
        let planned = Planned {
            keys,
            part,
            ..Planned::default()
        };
        (change, planned)
    };
    rows.chunks(at_once).map(step).collect()
}

/// The rows that the intent has to hold beside those of the plan, and those that leave.
pub(super) fn held(swept: &Swept) -> (Vec<Named>, Vec<Named>) {
    let name = |row: &SweptRow| (row.table.name.clone(), row.key.clone());
    let leaving = swept.rows.iter().filter(|row| row.fate == Fate::Removed);
    (
        swept.rows.iter().map(name).collect(),
        leaving.map(name).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::{ID, schema, write};
    use crate::schema::write_query;

    const CAMPAIGN: &str = "[\"campaign\"]";

    fn key(name: &str) -> Key {
        Key(format!("[\"{name}\"]"))
    }

    fn hanging(table: &str, name: &str, fate: Fate) -> SweptRow {
        let table = schema().table(table).expect("a table").clone();
        SweptRow {
            table,
            key: key(name),
            fate,
        }
    }

    fn swept(rows: Vec<SweptRow>) -> Swept {
        Swept {
            rows,
            ..Swept::default()
        }
    }

    /// A plan of these queries, each of one key and, when it is a delete of campaigns, a removal.
    fn plan(query: Value, keys: &[&str]) -> Plan {
        let write = write(query);
        let mut plan = Plan {
            asked_transaction: write.transaction,
            write,
            keys: Vec::new(),
            steps: Vec::new(),
            bonds: crate::journal::Bonds::default(),
            deleted_at: String::new(),
        };
        for (step, name) in plan.write.steps.iter().zip(keys) {
            let Step::Change(change) = step else { continue };
            let mut planned = Planned {
                keys: vec![key(name)],
                ..Planned::default()
            };
            if matches!(change, Change::Delete { .. }) && change.table().name == "campaigns" {
                planned.leaving = Leaving::Rows;
                plan.bonds
                    .leaving
                    .insert(("campaigns".to_owned(), key(name)));
            }
            plan.steps.push(planned);
        }
        plan
    }

    fn delete(table: &str) -> Value {
        json!({"type": "delete", "table": table, "where": {"id": ID}, "hard": true})
    }

    fn removal() -> Plan {
        plan(delete("campaigns"), &["campaign"])
    }

    /// Operation and table of each step as it is sent.
    fn sent(plan: &Plan) -> Vec<String> {
        let query = write_query(&plan.write, "").to_value();
        let queries = query["queries"].as_array().expect("a transaction").clone();
        queries
            .iter()
            .map(|query| format!("{} {}", query["type"], query["table"]).replace('"', ""))
            .collect()
    }

    #[test]
    fn what_hangs_on_a_row_is_cleared_and_removed_before_it() {
        let rows = vec![
            hanging("pairs", "a", Fate::Cleared([2].into())),
            hanging("items", "b", Fate::Removed),
        ];
        let unfolded = unfold(&removal(), &swept(rows), &schema()).unwrap();
        let order = ["update pairs", "delete items", "delete campaigns"];
        assert_eq!(sent(&unfolded), order);
        let parts: Vec<Part> = unfolded.steps.iter().map(|planned| planned.part).collect();
        assert_eq!(parts, [Part::Cleared, Part::Swept, Part::Root]);
    }

    #[test]
    fn in_a_circle_what_was_asked_for_goes_before_what_hangs_on_it() {
        let rows = vec![
            hanging("pairs", "a", Fate::Cleared([2].into())),
            hanging("items", "b", Fate::Removed),
        ];
        let circle = Swept {
            circular: true,
            ..swept(rows)
        };
        let unfolded = unfold(&removal(), &circle, &schema()).unwrap();
        let order = ["update pairs", "delete campaigns", "delete items"];
        assert_eq!(sent(&unfolded), order);
    }

    #[test]
    fn the_farthest_rows_of_a_table_go_first_and_in_statements_that_a_service_takes() {
        let rows = (0..150).map(|at| hanging("pairs", &at.to_string(), Fate::Removed));
        let unfolded = unfold(&removal(), &swept(rows.collect()), &schema()).unwrap();
        assert_eq!(
            unfolded.steps.len(),
            4,
            "two columns are two terms, and one for the row"
        );
        assert_eq!(unfolded.steps[0].keys[0], key("149"));
        let rows = (0..1_000).map(|at| hanging("items", &at.to_string(), Fate::Removed));
        let unfolded = unfold(&removal(), &swept(rows.collect()), &schema()).unwrap();
        assert_eq!(unfolded.steps.len(), 2);
    }

    #[test]
    fn a_member_before_the_removal_may_write_nothing_that_it_takes_along() {
        let update = json!({"type": "update", "table": "items", "where": {"id": ID}, "data": {"campaign_id": ID}});
        let both = |first: &Value, second: &Value| json!({"type": "transaction", "queries": [first, second]});
        let item = || swept(vec![hanging("items", "item", Fate::Removed)]);
        let campaign = delete("campaigns");
        let before = plan(both(&update, &campaign), &["item", "campaign"]);
        let refused = unfold(&before, &item(), &schema());
        assert_eq!(refused.unwrap_err(), Tangle::Members);
        let after = plan(both(&campaign, &update), &["campaign", "item"]);
        assert!(unfold(&after, &item(), &schema()).is_ok());
        let other = plan(both(&update, &campaign), &["other", "campaign"]);
        assert!(unfold(&other, &item(), &schema()).is_ok());

        let mut points = other.clone();
        let target = |table: &str, key: Option<&str>| crate::journal::Target {
            table: table.to_owned(),
            key: key.map(|key| Key(key.to_owned())),
        };
        for target in [
            target("campaigns", Some(CAMPAIGN)),
            target("campaigns", None),
        ] {
            points.steps[0].targets = vec![target];
            let refused = unfold(&points, &Swept::default(), &schema());
            assert_eq!(refused.unwrap_err(), Tangle::Members);
        }
    }

    #[test]
    fn a_member_may_remove_a_row_before_its_parent_but_not_after() {
        let both = |first, second| json!({"type": "transaction", "queries": [first, second]});
        let hanging = Swept {
            hanging: [("items".to_owned(), key("item"))].into(),
            ..Swept::default()
        };
        let before = plan(
            both(delete("items"), delete("campaigns")),
            &["item", "campaign"],
        );
        assert!(unfold(&before, &hanging, &schema()).is_ok());
        let after = plan(
            both(delete("campaigns"), delete("items")),
            &["campaign", "item"],
        );
        assert_eq!(
            unfold(&after, &hanging, &schema()).unwrap_err(),
            Tangle::Members
        );
    }

    #[test]
    fn the_caller_gets_the_answers_to_what_it_asked_digit_by_digit() {
        let rows = vec![hanging("items", "b", Fate::Removed)];
        let unfolded = unfold(&removal(), &swept(rows), &schema()).unwrap();
        let reply = Reply::from_json(r#"[[{"id":1}], {"budget":1.50}]"#.to_owned());
        assert_eq!(unfolded.for_caller(reply).as_json(), r#"{"budget":1.50}"#);
        let many = json!({"type": "delete", "table": "items", "where": {"campaign_id": ID}});
        let many = plan(many, &["item"]);
        for (given, owed) in [("{\"a\":1}", "[{\"a\":1}]"), ("null", "[]"), ("[1]", "[1]")] {
            let reply = Reply::from_json(given.to_owned());
            assert_eq!(many.for_caller(reply).as_json(), owed);
        }
    }
}
