//! Reading a suspect again until it is explained or confirmed.

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
const ROW_LOOKS_MIN: u32 = 5;

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
        let mut suspect = first;
        let looks = self.options.load().recheck_max;
        let question = Question::Answers(read);
        match self.look_again(question, &mut suspect, looks).await {
            // Too few looks to say more.
            None => Compared::Transient,
            Some(checked) => checked.into(),
        }
    }

    /// The same for one row. Its key is known, so only what is owed of this row counts as moving.
    pub(super) async fn recheck_row(&self, question: Question<'_>, key: Vec<Value>) -> Checked {
        let mut suspect = one_row(DifferenceKind::Field, key, Vec::new());
        let looks = self.options.load().recheck_max.max(ROW_LOOKS_MIN);
        let checked = self.look_again(question, &mut suspect, looks).await;
        checked.unwrap_or(Checked::Unread)
    }

    /// Looks at most so many times; none when that decided nothing.
    async fn look_again(
        &self,
        question: Question<'_>,
        suspect: &mut Difference,
        looks: u32,
    ) -> Option<Checked> {
        let delay = self.options.load().recheck_delay;
        let (mut sightings, mut moved) = (0, false);
        for _ in 0..looks {
            tokio::time::sleep(delay).await;
            let look = match question {
                Question::Answers(read) => self.look(read, suspect).await,
                Question::Reference { row, relation } => {
                    self.look_at_reference(row, relation, suspect).await
                }
            };
            match look {
                Look::Same => return Some(Checked::Agreed),
                Look::Unread => return Some(Checked::Unread),
                Look::Moving => {
                    moved = true;
                    sightings = 0;
                }
                Look::Differs(difference) => {
                    // Another row than the one that was watched: watch that one from now on.
                    sightings = if same_row(suspect, &difference) {
                        sightings + 1
                    } else {
                        0
                    };
                    *suspect = difference;
                    if sightings >= SIGHTINGS {
                        self.confirm(question.table(), suspect).await;
                        return Some(Checked::Confirmed(suspect.kind));
                    }
                }
            }
        }
        moved.then_some(Checked::Moving)
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
        let Ok(key) = self.key_of(&read.table, suspect).await else {
            return Look::Unread;
        };
        match journal::is_owed(self.legacy.db(), &read.table.name, key.as_ref()).await {
            Ok(false) => {}
            Ok(true) => return Look::Moving,
            Err(_) => return Look::Unread,
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

    async fn confirm(&self, table: &Table, difference: &Difference) {
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

fn first_key(difference: &Difference) -> Option<&[Value]> {
    let Sample { key, .. } = difference.samples.first()?;
    key.as_deref()
}

fn same_row(watched: &Difference, seen: &Difference) -> bool {
    watched.kind == seen.kind && first_key(watched) == first_key(seen)
}
