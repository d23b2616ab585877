//! Relationships: whether what a row refers to is there, on its own side.
//!
//! For each page the distinct references of both sides' rows are looked up by key on both sides, in batches, so
//! memory is bounded by the page. A row that refers to nothing on one side only is a suspect, and is an `orphan`
//! once that is confirmed. One that refers to nothing on both sides is no difference between them: it is
//! counted apart, for whoever owns the data.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::pages::{Pair, confirmed};
use super::{TableVerdict, Verify};
use crate::contract::Key;
use crate::schema::{References, Relation};
use crate::shadow::Checked;
use crate::stage::Backend;
use crate::walk::{WalkError, key_of};

/// Suspects that are rechecked at once.
const CHECKS_AT_ONCE: usize = 8;

impl Verify<'_> {
    /// What became of the rows that were suspected of being orphans, by their place. The confirmed ones are
    /// counted and owed here, with what they refer to.
    pub(super) async fn check_references(
        &self,
        relations: &[Relation],
        pairs: &[Pair],
        verdict: &mut TableVerdict,
    ) -> Result<HashMap<usize, Checked>, WalkError> {
        let mut results = HashMap::new();
        for relation in relations {
            let mut places = self.suspects(relation, pairs, verdict).await?;
            places.retain(|place| !matches!(results.get(place), Some(Checked::Confirmed(_))));
            let keys = places
                .iter()
                .map(|place| key_of(&relation.child, &pairs[*place].legacy));
            let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
            let checks = self.recheck(relation, &keys).await?;
            let mut orphans = Vec::new();
            for (place, checked) in places.into_iter().zip(&checks) {
                if matches!(checked, Checked::Confirmed(_)) {
                    self.count(&relation.child, *checked, verdict);
                    orphans.push(&pairs[place]);
                }
                results.insert(place, *checked);
            }
            if self.repair && !orphans.is_empty() {
                let parents = self.parents_of(relation, &orphans).await?;
                self.walk.owe(&relation.parent, &parents).await?;
            }
            self.repair(&relation.child, confirmed(keys, &checks), verdict)
                .await?;
        }
        Ok(results)
    }

    /// Rechecks some at a time, while the walk may go on; the results in order.
    async fn recheck(
        &self,
        relation: &Relation,
        keys: &[Vec<Value>],
    ) -> Result<Vec<Checked>, WalkError> {
        let comparer = &self.parts.comparer;
        let mut checks = stream::iter(keys.to_vec())
            .map(|key| comparer.check_reference(relation, key))
            .buffered(CHECKS_AT_ONCE);
        let mut results = Vec::with_capacity(keys.len());
        while let Some(checked) = checks.next().await {
            self.walk.steady().await?;
            results.push(checked);
        }
        Ok(results)
    }

    /// The places of rows whose reference leads nowhere on one side only.
    async fn suspects(
        &self,
        relation: &Relation,
        pairs: &[Pair],
        verdict: &mut TableVerdict,
    ) -> Result<Vec<usize>, WalkError> {
        let mut references = References::new();
        let mut referred = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let matched_by = [&pair.legacy, &pair.storage];
            referred.push(matched_by.map(|row| relation.note(row, &mut references)));
        }
        let values: Vec<Vec<Value>> = references.into_values().collect();
        let (on_legacy, on_storage) = tokio::try_join!(
            self.walk.parents(Backend::Legacy, relation, &values),
            self.walk.parents(Backend::Storage, relation, &values),
        )?;
        let mut suspects = Vec::new();
        for (place, [legacy, storage]) in referred.into_iter().enumerate() {
            let nowhere = (
                leads_nowhere(legacy, &on_legacy),
                leads_nowhere(storage, &on_storage),
            );
            match nowhere {
                (false, false) => {}
                (true, true) => verdict.orphans_alike += 1,
                (true, false) | (false, true) => suspects.push(place),
            }
        }
        Ok(suspects)
    }

    /// The keys of what these rows refer to, on whichever side.
    async fn parents_of(
        &self,
        relation: &Relation,
        orphans: &[&Pair],
    ) -> Result<Vec<Key>, WalkError> {
        let mut references = References::new();
        for row in orphans
            .iter()
            .flat_map(|pair| [&pair.legacy, &pair.storage])
        {
            relation.note(row, &mut references);
        }
        let values: Vec<Vec<Value>> = references.into_values().collect();
        self.walk.parent_keys(relation, &values).await
    }
}

fn leads_nowhere(reference: Option<String>, found: &HashSet<String>) -> bool {
    reference.is_some_and(|reference| !found.contains(&reference))
}
