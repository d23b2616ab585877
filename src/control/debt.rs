//! Debts to legacy that only this process knows (`ramp_down`).
//!
//! In `ramp_down` a caller is answered after storage alone, and legacy is told afterwards. Between the two
//! a crash would lose the debt, so going back waits until every replica says that it holds none, and one
//! that died holding some makes legacy stale (P15).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::control::{Control, Inner};
use super::snapshot::Snapshot;

/// One write that legacy may not know of. Dropped without [`LegacyDebt::settled`], it makes legacy stale.
#[derive(Debug)]
pub struct LegacyDebt {
    inner: Arc<Inner>,
    settled: bool,
}

impl Control {
    /// Incurs a debt before a write is sent to storage under `admitted`; none when the epoch has moved since, so
    /// that the write must be admitted anew. Hold it until the copy is in the journal or the write is known not
    /// to have happened (after its deadline, when it is in doubt).
    #[must_use]
    pub fn incur_legacy_debt(&self, admitted: &Snapshot) -> Option<LegacyDebt> {
        self.inner.debts.fetch_add(1, Ordering::SeqCst);
        let debt = LegacyDebt {
            inner: Arc::clone(&self.inner),
            settled: false,
        };
        // Counted first, looked after: the beat that acknowledges a drain installs it first and counts after.
        if self.snapshot().epoch == admitted.epoch {
            Some(debt)
        } else {
            debt.settled();
            None
        }
    }
}

impl LegacyDebt {
    /// The copy is in the journal, or there is nothing to copy.
    pub fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for LegacyDebt {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.debt_dropped.store(true, Ordering::SeqCst);
        }
        self.inner.debts.fetch_sub(1, Ordering::SeqCst);
    }
}
