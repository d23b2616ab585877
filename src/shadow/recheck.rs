//! Reading a suspect again until it is explained or confirmed.

use serde_json::Value;

use super::{Comparer, Verdict, verdict};
use crate::compare::{Difference, DifferenceKind, Sample};
use crate::contract::Key;
use crate::contract::Reply;
use crate::divergence::Finding;
use crate::journal;
use crate::schema::Read;
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

/// One look at both sides.
enum Look {
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
        match self.look_again(read, &mut suspect, looks).await {
            // Too few looks to say more.
            None => Compared::Transient,
            Some(checked) => checked.into(),
        }
    }

    /// The same for one row. Its key is known, so only what is owed of this row counts as moving.
    pub(super) async fn recheck_row(&self, read: &Read, key: Vec<Value>) -> Checked {
        let sample = Sample {
            kind: DifferenceKind::Field,
            key: Some(key),
            fields: Vec::new(),
        };
        let mut suspect = Difference {
            kind: DifferenceKind::Field,
            rows: 1,
            samples: vec![sample],
        };
        let looks = self.options.load().recheck_max.max(ROW_LOOKS_MIN);
        let checked = self.look_again(read, &mut suspect, looks).await;
        checked.unwrap_or(Checked::Unread)
    }

    /// Looks at most so many times; none when that decided nothing.
    async fn look_again(
        &self,
        read: &Read,
        suspect: &mut Difference,
        looks: u32,
    ) -> Option<Checked> {
        let delay = self.options.load().recheck_delay;
        let (mut sightings, mut moved) = (0, false);
        for _ in 0..looks {
            tokio::time::sleep(delay).await;
            match self.look(read, suspect).await {
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
                        self.confirm(read, suspect).await;
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
        let Ok(key) = self.key_of(read, suspect).await else {
            return Look::Unread;
        };
        match journal::is_owed(self.legacy.db(), &read.table.name, key.as_ref()).await {
            Ok(false) => {}
            Ok(true) => return Look::Moving,
            Err(_) => return Look::Unread,
        }
        let other = match authority {
            Backend::Legacy => Backend::Storage,
            Backend::Storage => Backend::Legacy,
        };
        let Some(secondary) = self.read_side(other, read).await else {
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

    async fn read_side(&self, side: Backend, read: &Read) -> Option<Reply> {
        match side {
            Backend::Legacy => self.read_legacy(read).await,
            Backend::Storage => {
                let epoch = self.control.snapshot().epoch;
                self.read_storage(read, epoch, None).await
            }
        }
    }

    /// The canonical key of the row that differs, when the replies hold it.
    async fn key_of(
        &self,
        read: &Read,
        difference: &Difference,
    ) -> Result<Option<Key>, crate::sql::Fault> {
        let Some(values) = first_key(difference) else {
            return Ok(None);
        };
        let mut keys = self
            .legacy
            .canonical_keys(&read.table, &[values.to_vec()])
            .await?;
        Ok(keys.pop())
    }

    async fn confirm(&self, read: &Read, difference: &Difference) {
        let key = match self.key_of(read, difference).await {
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
            table: read.table.name.clone(),
            kind: difference.kind.into(),
            key,
            fields: fields.unwrap_or_default(),
        };
        self.confirmed(&read.table, finding).await;
    }
}

fn first_key(difference: &Difference) -> Option<&[Value]> {
    let Sample { key, .. } = difference.samples.first()?;
    key.as_deref()
}

fn same_row(watched: &Difference, seen: &Difference) -> bool {
    watched.kind == seen.kind && first_key(watched) == first_key(seen)
}
