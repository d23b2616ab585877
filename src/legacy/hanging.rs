//! What hangs on a row that is paid to legacy as the secondary, and is owed with it.
//!
//! Storage is the judge, and its foreign keys remove, clear or change rows of which no reply tells. When a row
//! goes, or a column of it that others refer to changes, the rows of legacy that refer to it, by legacy's own foreign
//! keys whatever their action, are owed as well: each is paid with what storage has then, and owes in turn what
//! hangs on it.
//!
//! The trail may be lost before it is followed: a row is taken along and created again, perhaps pointing elsewhere,
//! and its entries are paid as one. So a row that may have been taken along counts as one that was, though
//! it is there: if it was found by following (`Left`), if a row that may carry its kind along departed while its entry
//! was open (`Table::place`), or if it was created since the cause of such a departure was sent (`journal::created`).
//!
//! How the look and payments beside it keep clear of each other is told in `journal::departures`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;

use super::{Image, Legacy};
use crate::contract::{Key, Row};
use crate::journal::{
    self, Claim, Claimed, Copies, Departure, Direction, Kin, Leaving, Left, Ties, append_copies,
    carried_by, commit_under, note_departure, owe_created,
};
use crate::schema::{Filter, Relation, Schema, Table};
use crate::sql::Fault;

/// Rows that are found and owed in one statement.
const PAGE: usize = 500;

/// The last departure that this process knows of. An older one than the last is safe: more is looked at.
#[derive(Default, Debug)]
pub(super) struct Departures(AtomicI64);

/// What is known of a row's way until it is paid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// It may have left before this departure, though it may be there again; none where its number is not known.
    Left(Option<Departure>),
    /// It was looked at since it may have left.
    LookedAt,
    /// Nothing took it along: what it is in storage tells whether it left.
    Stayed,
}

/// A foreign key, and the values by which rows refer to the row that leaves.
type Trail = (Relation, Vec<Value>);

impl Legacy {
    /// The last departure that is known here, to be asked before a write is sent.
    #[must_use]
    pub fn departure_known(&self) -> Departure {
        Departure(self.departures.0.load(Ordering::Relaxed))
    }

    /// Counts departures on, so that what this process knows of them is young.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn count_on(&self) -> Result<(), Fault> {
        let number = journal::tick(self.db()).await?;
        self.knows_of(number);
        Ok(())
    }

    /// Owes legacy what hangs on the row of an entry, if it left storage or may have, before it is paid. Returns the
    /// number under which that was looked for.
    ///
    /// # Errors
    /// See [`Fault`]; what was owed by then may be owed twice, which is harmless. Must not be cancelled half-way.
    pub async fn owe_hanging(
        &self,
        claim: &Claim,
        entry: &Claimed,
        image: &Image,
    ) -> Result<Option<Departure>, Fault> {
        self.knows_of(claim.departure);
        let schema = self.schema();
        let relations = schema.relations_to(&image.table);
        if relations.is_empty() {
            return Ok(None);
        }
        let way = self.way_of(&schema, entry, image).await?;
        let looked = match way {
            Way::LookedAt => None,
            Way::Left(_) | Way::Stayed => self.follow(claim, image, relations, way).await?,
        };
        // After that look: what is created again later finds the trail whole.
        let carried = schema.carried(&image.table);
        let is_whole = way != Way::Stayed || image.row.is_none();
        if is_whole && !carried.is_empty() {
            owe_created(self.db(), claim.epoch, &carried, entry.noted).await?;
        }
        if let Some(number) = looked {
            let row = is_whole.then(|| place_of(image));
            let noted = claim.note_look(self.db(), entry.seq, row.as_deref(), number);
            noted.await?;
        }
        Ok(looked)
    }

    /// Owes what hangs on the row by relations by which it may do so no more. Returns the number under which that was
    /// looked for.
    async fn follow(
        &self,
        claim: &Claim,
        image: &Image,
        relations: Vec<Relation>,
        way: Way,
    ) -> Result<Option<Departure>, Fault> {
        let trails = self.trails(relations, way, image).await?;
        if trails.is_empty() {
            return Ok(None);
        }
        let before = match way {
            Way::Left(before) => before,
            Way::LookedAt | Way::Stayed => None,
        };
        let row = place_of(image);
        let number = note_departure(self.db(), &leaving(&row, &trails, before)).await?;
        self.knows_of(number);
        for trail in &trails {
            self.owe_along(claim, image, trail, before.unwrap_or(number), number)
                .await?;
        }
        Ok(Some(number))
    }

    /// Whether rows of legacy other than itself refer to the row that is to go: where legacy's own foreign keys
    /// fire, they would do to those what is only storage's to say.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn is_hung_on(&self, image: &Image) -> Result<bool, Fault> {
        let relations = self.schema().relations_to(&image.table);
        for trail in self.trails(relations, Way::Stayed, image).await? {
            let (relation, values) = &trail;
            let filter = relation.referring(values);
            let keys = self.keys_matching(&relation.child, &filter, 2).await?;
            if keys.iter().any(|key| !is_itself(relation, image, key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn knows_of(&self, departure: Departure) {
        let known = &self.departures.0;
        known.fetch_max(departure.0, Ordering::Relaxed);
    }

    async fn way_of(&self, schema: &Schema, entry: &Claimed, image: &Image) -> Result<Way, Fault> {
        let marked = match entry.left {
            Some(left) if !left.was_looked_at(self.db(), &place_of(image)).await? => Some(left),
            Some(_) | None => None,
        };
        let carried = match schema.is_between(&image.table) {
            true => carried_by(self.db(), &kin(image), entry.noted).await?,
            false => None,
        };
        Ok(match (marked.max(carried), entry.left) {
            (Some(before), _) => Way::Left((before != Departure(0)).then_some(before)),
            (None, Some(_)) => Way::LookedAt,
            (None, None) => Way::Stayed,
        })
    }

    /// The foreign keys by which something may have hung on the row, and does no more.
    async fn trails(
        &self,
        relations: Vec<Relation>,
        way: Way,
        image: &Image,
    ) -> Result<Vec<Trail>, Fault> {
        let mut before = image.table.row_of_key(&image.key);
        if !relations.iter().all(Relation::is_by_key) {
            let held = self
                .rows(&image.table, std::slice::from_ref(&image.key))
                .await?;
            before.extend(held.into_values().flatten());
        }
        let after = match way {
            Way::Stayed => image.row.as_ref(),
            Way::Left(_) | Way::LookedAt => None,
        };
        Ok(relations
            .into_iter()
            .filter_map(|relation| trail(relation, &before, after))
            .collect())
    }

    /// Owes the rows of one trail, page by page. What comes to refer to the row meanwhile was read from storage
    /// after the departure was noted, and needs not be found.
    async fn owe_along(
        &self,
        claim: &Claim,
        image: &Image,
        (relation, values): &Trail,
        before: Departure,
        noted: Departure,
    ) -> Result<(), Fault> {
        let child = &relation.child;
        let left = match relation.takes_along() {
            true => Left::Before(before),
            false => Left::No,
        };
        let mut filter = relation.referring(values);
        loop {
            let keys = self.keys_matching(child, &filter, PAGE as u64).await?;
            let owed: Vec<Key> = keys
                .iter()
                .filter(|key| !is_itself(relation, image, key))
                .cloned()
                .collect();
            if !owed.is_empty() {
                let mut tx = self.db().begin().await?;
                let copies = Copies {
                    direction: Direction::ToLegacy,
                    table: &child.name,
                    keys: &owed,
                    op_id: None,
                    left,
                    noted: Some(noted),
                };
                append_copies(&mut tx, copies).await?;
                commit_under(tx, claim.epoch).await?;
            }
            match keys.last() {
                Some(last) if keys.len() == PAGE => {
                    let last = key_values(child, last);
                    let referring = relation.referring(values);
                    filter = Filter::All(vec![referring, Filter::After(last)]);
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

/// What of the row's payment rests on nothing having departed.
pub(super) fn ties(schema: &Schema, image: &Image) -> Ties {
    let relations = schema.relations(&image.table);
    let rows = image.row.iter();
    let pairs = rows.flat_map(|row| relations.iter().map(move |relation| (relation, row)));
    let names = pairs.filter_map(|(relation, row)| Some(relation.place(&relation.reference(row)?)));
    let itself = kin(image);
    let others = names.filter(|name| *name != itself.row);
    let refers_to = others.collect();
    Ties {
        refers_to,
        kin: schema.is_between(&image.table).then_some(itself),
    }
}

fn kin(image: &Image) -> Kin {
    Kin {
        kind: image.table.place(),
        row: place_of(image),
    }
}

/// Whose departure is to be noted before anybody follows the trails.
fn leaving(row: &str, trails: &[Trail], before: Option<Departure>) -> Leaving {
    let places = trails
        .iter()
        .map(|(relation, values)| relation.place(values));
    let carried = trails.iter().filter(|(relation, _)| relation.takes_along());
    Leaving {
        row: places.chain([row.to_owned()]).collect(),
        kinds: carried
            .map(|(relation, _)| relation.child.place())
            .collect(),
        before,
    }
}

/// By what rows referred to a row, if they do so no more.
fn trail(relation: Relation, before: &Row, after: Option<&Row>) -> Option<Trail> {
    let values = relation.referred_by(before)?;
    let stays = after.and_then(|after| relation.parent_identity(after))
        == Some(relation.reference_identity(&values));
    (!stays).then_some((relation, values))
}

fn is_itself(relation: &Relation, image: &Image, key: &Key) -> bool {
    relation.child.name == image.table.name && *key == image.key
}

fn place_of(image: &Image) -> String {
    let key = key_values(&image.table, &image.key);
    image.table.place_of_key(&key)
}

fn key_values(table: &Arc<Table>, key: &Key) -> Vec<Value> {
    let row = table.row_of_key(key);
    table.key_of(&row).unwrap_or_default()
}
