//! Following a row's reference on both sides.
//!
//! Parents come and go while a table is read, so a reference that leads nowhere is a suspect like any other: it
//! is looked at in the order in which answers are (`recheck`), with the parent as part of what must stand still
//! on the authority and of what must not be owed.

use serde_json::Value;

use super::Comparer;
use super::recheck::{Look, one_row};
use crate::compare::{Difference, DifferenceKind, FieldDiff, FieldKind};
use crate::contract::{Key, Reply, Row, written_rows};
use crate::journal;
use crate::schema::{Read, Relation};
use crate::sql::Fault;
use crate::stage::Backend;

/// A row and what it refers to, as one side has them.
#[derive(Clone, PartialEq, Debug)]
struct Followed {
    row: Reply,
    /// None: there is no row, or it refers to nothing.
    parent: Option<Reply>,
    reference: Option<Vec<Value>>,
    leads: Leads,
}

/// Where a row's reference leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leads {
    /// There is no row.
    NoRow,
    /// To its parent, or it is no reference.
    Somewhere,
    /// To nothing.
    Nowhere,
}

impl Comparer {
    /// One look, in the order of every look: the authority, the journal, the secondary, the authority again.
    pub(super) async fn look_at_reference(
        &self,
        row: &Read,
        relation: &Relation,
        suspect: &Difference,
    ) -> Look {
        let snapshot = self.control.snapshot();
        let authority = snapshot.stage.authority();
        let Some(before) = self.follow(authority, row, relation).await else {
            return Look::Unread;
        };
        match self
            .is_either_on_its_way(authority, relation, &before, suspect)
            .await
        {
            Some(false) => {}
            Some(true) => return Look::Moving,
            None => return Look::Unread,
        }
        let Some(secondary) = self.follow(authority.other(), row, relation).await else {
            return Look::Unread;
        };
        match (before.leads, secondary.leads) {
            (Leads::Nowhere, Leads::Somewhere) | (Leads::Somewhere, Leads::Nowhere) => {}
            (Leads::NoRow, _) | (_, Leads::NoRow) => return Look::Same,
            (Leads::Nowhere, Leads::Nowhere) | (Leads::Somewhere, Leads::Somewhere) => {
                return Look::Same;
            }
        }
        let Some(after) = self.follow(authority, row, relation).await else {
            return Look::Unread;
        };
        if self.control.snapshot().epoch != snapshot.epoch || after != before {
            return Look::Moving;
        }
        let fields = relation.column_names().into_iter().map(|column| FieldDiff {
            column,
            kind: FieldKind::Value,
        });
        let key = suspect
            .samples
            .first()
            .and_then(|sample| sample.key.clone());
        Look::Differs(one_row(
            DifferenceKind::Orphan,
            key.unwrap_or_default(),
            fields.collect(),
        ))
    }

    async fn follow(&self, side: Backend, row: &Read, relation: &Relation) -> Option<Followed> {
        let reply = self.read_side(side, row).await?;
        let held = rows(&reply)?.pop();
        let mut followed = Followed {
            leads: match held {
                None => Leads::NoRow,
                Some(_) => Leads::Somewhere,
            },
            reference: held.and_then(|held| relation.reference(&held)),
            parent: None,
            row: reply,
        };
        if let Some(reference) = &followed.reference {
            let parents = relation.parents(std::slice::from_ref(reference));
            let parent = self.read_side(side, &parents).await?;
            if rows(&parent)?.is_empty() {
                followed.leads = Leads::Nowhere;
            }
            followed.parent = Some(parent);
        }
        Some(followed)
    }

    /// Whether the row is on its way, or anything is owed of its parent. None where nobody can say.
    async fn is_either_on_its_way(
        &self,
        authority: Backend,
        relation: &Relation,
        before: &Followed,
        suspect: &Difference,
    ) -> Option<bool> {
        let row = self
            .is_on_its_way(authority, &relation.child, suspect)
            .await?;
        if row || before.reference.is_none() {
            return Some(row);
        }
        let parent = self.parent_key(relation, before).await.ok()?;
        let owed = journal::is_owed(self.legacy.db(), &relation.parent.name, parent.as_ref());
        owed.await.ok()
    }

    /// The key of the parent that the authority's row refers to. None where only the parent's row could tell
    /// and there is none: then anything that is owed of its table counts.
    async fn parent_key(
        &self,
        relation: &Relation,
        before: &Followed,
    ) -> Result<Option<Key>, Fault> {
        let parent = before.parent.as_ref().and_then(|reply| rows(reply)?.pop());
        let values = match (parent, &before.reference) {
            (Some(row), _) => relation.parent.key_of(&row),
            (None, Some(reference)) if relation.target == relation.parent.key => {
                Some(reference.clone())
            }
            (None, Some(_) | None) => None,
        };
        let Some(values) = values else {
            return Ok(None);
        };
        let mut keys = self
            .legacy
            .canonical_keys(&relation.parent, &[values])
            .await?;
        Ok(keys.pop())
    }
}

fn rows(reply: &Reply) -> Option<Vec<Row>> {
    written_rows(reply.as_json()).ok()
}
