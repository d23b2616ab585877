//! Reading a suspect again until it is explained or confirmed.

use std::sync::Arc;

use serde_json::Value;

use super::{Comparer, Verdict, verdict};
use crate::compare::{Difference, DifferenceKind, FieldDiff, Sample};
use crate::contract::{Key, Reply};
use crate::divergence::Finding;
use crate::journal;
use crate::schema::{Read, Relation, Table};
use crate::stage::Backend;
use crate::telemetry::Comparison as Compared;

/// How often a difference must be seen with the authority standing still: once more than a value that
/// changes and changes back could fake.
const SIGHTINGS: u32 = 2;

/// Looks at one row before giving up, at least: enough to confirm a difference whatever its kind.
pub(super) const ROW_LOOKS_MIN: u32 = 5;

/// What became of a suspect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// Both sides were seen to agree.
    Agreed,
    /// The authority moved or something was owed to the end: whatever differs is on its way.
    Moving,
    /// They differ.
    Confirmed(DifferenceKind),
    /// A side did not answer, or the difference changed from look to look.
    Unread,
}

impl From<Checked> for Compared {
    fn from(checked: Checked) -> Self {
        match checked {
            Checked::Agreed | Checked::Moving => Self::Transient,
            Checked::Confirmed(_) => Self::Confirmed,
            Checked::Unread => Self::OneSidedError,
        }
    }
}

/// A suspect, and what was seen of it so far.
pub(super) struct Watched {
    suspect: Difference,
    sightings: u32,
    moved: bool,
}

/// What is looked at again.
#[derive(Clone, Copy)]
pub(super) enum Question<'a> {
    /// Whether both sides answer a read alike.
    Answers(&'a Read),
    /// Whether a row's reference leads to a parent on both sides, or on neither.
    Reference {
        /// Reads the row.
        row: &'a Read,
        /// What it refers by.
        relation: &'a Relation,
    },
}

/// One look at both sides.
pub(super) enum Look {
    /// They agree.
    Same,
    /// They differ, nothing of the row was owed, and the authority stood still meanwhile.
    Differs(Difference),
    /// The authority moved, or something is owed: this look says nothing.
    Moving,
    /// A side did not answer.
    Unread,
}

impl Comparer {
    /// Reads both sides of a read that differed again, at most `recheck_max` times.
    pub(super) async fn recheck(&self, read: &Read, first: Difference) -> Compared {
        let suspect = first;
        let looks = self.options.load().recheck_max;
        match self
            .look_again(Question::Answers(read), suspect, looks)
            .await
        {
            // Too few looks to say more.
            None => Compared::Transient,
            Some(checked) => checked.into(),
        }
    }

    /// The same for a row's reference. Its key is known, so only what is owed of it and of its parent counts as
    /// moving.
    pub(super) async fn recheck_reference(
        &self,
        row: &Read,
        relation: &Relation,
        key: Vec<Value>,
    ) -> Checked {
        let suspect = one_row(DifferenceKind::Orphan, key, Vec::new());
        let looks = self.options.load().recheck_max.max(ROW_LOOKS_MIN);
        let question = Question::Reference { row, relation };
        let checked = self.look_again(question, suspect, looks).await;
        checked.unwrap_or(Checked::Unread)
    }

    /// Looks at most so many times; none when that decided nothing.
    async fn look_again(
        &self,
        question: Question<'_>,
        suspect: Difference,
        looks: u32,
    ) -> Option<Checked> {
        let delay = self.options.load().recheck_delay;
        let mut watched = Watched::new(suspect);
        for _ in 0..looks {
            tokio::time::sleep(delay).await;
            let look = match question {
                Question::Answers(read) => self.look(read, &watched.suspect).await,
                Question::Reference { row, relation } => {
                    self.look_at_reference(row, relation, &watched.suspect)
                        .await
                }
            };
            let Some(checked) = watched.see(look) else {
                continue;
            };
            if matches!(checked, Checked::Confirmed(_)) {
                self.confirm(question.table(), &watched.suspect).await;
            }
            return Some(checked);
        }
        watched.ended()
    }

    /// The order matters: the authority, then the journal, then the secondary, then the authority again.
    /// What was committed before the first reading is either settled, or seen in the journal; what is
    /// committed after it shows in the second.
    async fn look(&self, read: &Read, suspect: &Difference) -> Look {
        let snapshot = self.control.snapshot();
        let authority = snapshot.stage.authority();
        let Some(before) = self.read_side(authority, read).await else {
            return Look::Unread;
        };
        match self.is_on_its_way(authority, &read.table, suspect).await {
            Some(false) => {}
            Some(true) => return Look::Moving,
            None => return Look::Unread,
        }
        let Some(secondary) = self.read_side(authority.other(), read).await else {
            return Look::Unread;
        };
        let Verdict::Differs(difference) = verdict(read, &before, &secondary) else {
            return Look::Same;
        };
        let Some(after) = self.read_side(authority, read).await else {
            return Look::Unread;
        };
        if self.control.snapshot().epoch != snapshot.epoch || after != before {
            return Look::Moving;
        }
        Look::Differs(difference)
    }

    /// Whether anything is owed of the row that a suspect tells the key of (of any row, where it tells none), or a
    /// removal may have taken it along. None where nobody can say.
    pub(super) async fn is_on_its_way(
        &self,
        authority: Backend,
        table: &Arc<Table>,
        suspect: &Difference,
    ) -> Option<bool> {
        let key = self.key_of(table, suspect).await.ok()?;
        let owed = journal::is_owed(self.legacy.db(), &table.name, key.as_ref());
        if owed.await.ok()? {
            return Some(true);
        }
        self.is_under_removal(authority, table, suspect).await
    }

    pub(super) async fn read_side(&self, side: Backend, read: &Read) -> Option<Reply> {
        match side {
            Backend::Legacy => self.read_legacy(read).await,
            Backend::Storage => {
                let epoch = self.control.snapshot().epoch;
                self.read_storage(read, epoch, None).await
            }
        }
    }

    /// The canonical key of the row that differs, when the replies hold it.
    pub(super) async fn key_of(
        &self,
        table: &Table,
        difference: &Difference,
    ) -> Result<Option<Key>, crate::sql::Fault> {
        let Some(values) = first_key(difference) else {
            return Ok(None);
        };
        let mut keys = self
            .legacy
            .canonical_keys(table, &[values.to_vec()])
            .await?;
        Ok(keys.pop())
    }

    pub(super) async fn confirm(&self, table: &Table, difference: &Difference) {
        let key = match self.key_of(table, difference).await {
            Ok(key) => key,
            Err(fault) => {
                tracing::warn!(%fault, "a divergence is written down without its key");
                None
            }
        };
        let fields = difference.samples.first().map(|sample| {
            let names = sample.fields.iter().map(|field| field.column.clone());
            names.collect()
        });
        let finding = Finding {
            table: table.name.clone(),
            kind: difference.kind.into(),
            key,
            fields: fields.unwrap_or_default(),
        };
        self.confirmed(table, finding).await;
    }
}

impl Watched {
    pub(super) fn new(suspect: Difference) -> Self {
        Self {
            suspect,
            sightings: 0,
            moved: false,
        }
    }

    /// What is to be confirmed, or was.
    pub(super) fn difference(&self) -> &Difference {
        &self.suspect
    }

    /// Takes in a look; decides as soon as that can be.
    pub(super) fn see(&mut self, look: Look) -> Option<Checked> {
        match look {
            Look::Same => Some(Checked::Agreed),
            Look::Unread => Some(Checked::Unread),
            Look::Moving => {
                self.moved = true;
                self.sightings = 0;
                None
            }
            Look::Differs(difference) => {
                // Another row, or kind, than the one that was watched: watch that one from now on.
                self.sightings = match same_row(&self.suspect, &difference) {
                    true => self.sightings + 1,
                    false => 0,
                };
                self.suspect = difference;
                (self.sightings >= SIGHTINGS).then_some(Checked::Confirmed(self.suspect.kind))
            }
        }
    }

    /// What is to be said when there are no more looks; none when they decided nothing.
    pub(super) fn ended(&self) -> Option<Checked> {
        self.moved.then_some(Checked::Moving)
    }
}

impl<'a> Question<'a> {
    /// The table that it is about.
    fn table(self) -> &'a Table {
        match self {
            Self::Answers(read) | Self::Reference { row: read, .. } => &read.table,
        }
    }
}

/// A difference that is one row's.
pub(super) fn one_row(kind: DifferenceKind, key: Vec<Value>, fields: Vec<FieldDiff>) -> Difference {
    let sample = Sample {
        kind,
        key: Some(key),
        fields,
    };
    Difference {
        kind,
        rows: 1,
        samples: vec![sample],
    }
}

pub(super) fn first_key(difference: &Difference) -> Option<&[Value]> {
    let Sample { key, .. } = difference.samples.first()?;
    key.as_deref()
}

fn same_row(watched: &Difference, seen: &Difference) -> bool {
    watched.kind == seen.kind && first_key(watched) == first_key(seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(kind: DifferenceKind) -> Look {
        Look::Differs(one_row(kind, vec![json!(1)], Vec::new()))
    }

    fn watched() -> Watched {
        Watched::new(one_row(DifferenceKind::Field, vec![json!(1)], Vec::new()))
    }

    #[test]
    fn a_difference_is_confirmed_when_it_was_seen_again_and_moving_begins_anew() {
        let mut watched = watched();
        assert_eq!(watched.see(seen(DifferenceKind::Field)), None);
        assert_eq!(watched.see(Look::Moving), None);
        assert_eq!(watched.see(seen(DifferenceKind::Field)), None);
        let confirmed = Some(Checked::Confirmed(DifferenceKind::Field));
        assert_eq!(watched.see(seen(DifferenceKind::Field)), confirmed);
    }

    #[test]
    fn a_difference_that_becomes_another_is_watched_as_that() {
        let mut watched = watched();
        for kind in [DifferenceKind::Missing, DifferenceKind::Extra] {
            assert_eq!(watched.see(seen(kind)), None);
            assert_eq!(watched.see(seen(kind)), None);
        }
        assert_eq!(watched.ended(), None, "nothing was decided");
        assert_eq!(watched.see(Look::Moving), None);
        assert_eq!(watched.ended(), Some(Checked::Moving));
    }

    #[test]
    fn agreement_and_silence_decide_at_once() {
        assert_eq!(watched().see(Look::Same), Some(Checked::Agreed));
        assert_eq!(watched().see(Look::Unread), Some(Checked::Unread));
    }
}
