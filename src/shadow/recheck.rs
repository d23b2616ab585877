//! Reading a suspect again until it is explained or confirmed.

use super::{Comparer, difference};
use crate::contract::{Key, Reply};
use crate::stage::Backend;
use crate::compare::Difference;
use crate::divergence::Finding;
use crate::journal;
use crate::schema::Read;
use crate::stage::Backend;
use crate::telemetry::Comparison as Compared;

/// How often a difference must be seen with the authority standing still: once more than a value that
/// changes and changes back could fake.
const SIGHTINGS: u32 = 2;

/// One look at both sides.
enum Look {
    /// They agree.
    Same,
    /// They differ, nothing was owed, and the authority stood still meanwhile.
    Differs(Difference),
    /// The authority moved, or something is owed: this look says nothing.
    Moving,
    /// A side did not answer.
    Unread,
}

impl Comparer {
    /// Reads both sides again, at most `recheck_max` times.
    pub(super) async fn recheck(&self, read: &Read) -> Compared {
        let options = self.options.load_full();
        let mut sightings = 0;
        for _ in 0..options.recheck_max {
            tokio::time::sleep(options.recheck_delay).await;
            match self.look(read).await {
                Look::Same => return Compared::Transient,
                Look::Unread => return Compared::OneSidedError,
                Look::Moving => sightings = 0,
                Look::Differs(difference) => {
                    sightings += 1;
                    if sightings >= SIGHTINGS {
                        self.confirm(read, &difference).await;
                        return Compared::Confirmed;
                    }
                }
            }
        }
        Compared::Transient
    }

    async fn look(&self, read: &Read) -> Look {
        let snapshot = self.control.snapshot();
        let authority = snapshot.stage.authority();
        let Some(before) = self.read_side(authority, read).await else {
            return Look::Unread;
        };
        // What was committed before this moment is either settled or seen here.
        match journal::is_owed(self.legacy.db(), &read.table.name).await {
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
        if difference(read, &before, &secondary).is_none() {
            return Look::Same;
        }
        let Some(after) = self.read_side(authority, read).await else {
            return Look::Unread;
        };
        if difference(read, &before, &after).is_some() || self.control.snapshot().epoch != snapshot.epoch {
            return Look::Moving;
        }
        match difference(read, &after, &secondary) {
            Some(difference) => Look::Differs(difference),
            None => Look::Same,
        }
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

    async fn confirm(&self, read: &Read, difference: &Difference) {
        let key = match &difference.key {
            Some(values) => self
                .legacy
                .canonical_keys(&read.table, std::slice::from_ref(values))
                .await
                .ok()
                .and_then(|mut keys| keys.pop()),
            None => None::<Key>,
        };
        let finding = Finding {
            table: read.table.name.clone(),
            kind: difference.kind.as_str(),
            key,
            fields: difference.fields.clone(),
        };
        self.confirmed(&read.table, finding).await;
    }
}
