//! What a move does to the journal's open entries.
//!
//! One table, because each cell is a promise: P5 (a rollback keeps debts and deadlines), P11 (older
//! generations are void) and P8 (a retry learns from its record what became of the operation).

use crate::journal::FLOOR;
use crate::sql::{Fault, Tx};

use crate::stage::{Backend, Stage};

/// What happens to the open entries of the current generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Conversion {
    /// They stay as they are, or there are none.
    Keep,
    /// Each becomes a `copy` towards this backend. A request under way keeps its deadline, and the copy
    /// is payable only after it.
    CopyTo(Backend),
    /// The generation is raised: they are void, and cleaned up later.
    Void,
}

impl Conversion {
    /// The table. A move that needs an empty journal finds nothing to keep.
    pub(super) fn between(from: Stage, to: Stage) -> Self {
        use Stage::{Complete, DualWrite, Live, Off, RampDown, Shadow};
        match (from, to) {
            // Nobody pays storage any more: it will be filled anew. `off` itself has no entries.
            (_, Off) => Self::Void,
            // The same debts.
            (Off | DualWrite | Shadow, DualWrite | Shadow) => Self::Keep,
            // Drained first: there are none.
            (Shadow, Live) | (RampDown, DualWrite | Shadow | Live) => Self::Keep,
            // Rollback: legacy's rows are the truth, whatever became of the requests under way.
            (Live, DualWrite | Shadow) => Self::CopyTo(Backend::Storage),
            // Nothing waits for legacy any more, but what it lacks is owed to it.
            (Live, RampDown) => Self::CopyTo(Backend::Legacy),
            // Legacy is let go.
            (RampDown, Complete) => Self::Void,
            // `complete` has no entries.
            (Complete, DualWrite | Shadow | Live | RampDown) => Self::Keep,
            // No such moves: the plan refuses them before.
            (Off | DualWrite, Live)
            | (Off | DualWrite | Shadow, RampDown)
            | (Off | DualWrite | Shadow | Live, Complete)
            | (Live, Live)
            | (RampDown, RampDown)
            | (Complete, Complete) => Self::Keep,
        }
    }

    /// What the records of the operations behind open intents become.
    ///
    /// Towards storage a retry may run anew, because the copy undoes whatever storage did alone. Towards
    /// legacy it may not: storage is the authority and may have done it. An intent that is void was
    /// legacy's to decide, so its operation may run anew as well.
    fn record_state(self) -> Option<&'static str> {
        match self {
            Self::Keep => None,
            Self::CopyTo(Backend::Legacy) => Some("unknown"),
            Self::CopyTo(Backend::Storage) | Self::Void => Some("converted"),
        }
    }

    /// Does it, and returns the last deadline of the entries it concerned (0 without any).
    pub(super) async fn run(
        self,
        tx: &mut Tx,
        generation: i64,
        clock_skew_max_us: i64,
    ) -> Result<i64, Fault> {
        let Some(record_state) = self.record_state() else {
            return Ok(0);
        };
        // Every writer waits meanwhile.
        let open = format!("seq >= {FLOOR} AND generation = $1");
        let deadline_last =
            format!("SELECT coalesce(max(deadline_us), 0) FROM cutover.journal WHERE {open}");
        let rows = tx.control(&deadline_last, vec![generation.into()]).await?;
        let deadline_last_us = rows.first().map_or(Ok(0), |row| row.some_int(0))?;
        let under_way = format!(
            "UPDATE cutover.operations SET state = $2, settled_us = cutover.now_us()
             WHERE state = 'open' AND op_id IN
                (SELECT op_id FROM cutover.journal WHERE {open} AND kind = 'intent')"
        );
        let args = vec![generation.into(), record_state.into()];
        tx.control(&under_way, args).await?;
        if self == Self::CopyTo(Backend::Legacy) {
            // Legacy refused them and storage had not got its rows back: from now on storage's count.
            let refused = format!(
                "UPDATE cutover.operations SET state = $2, reply = NULL WHERE state = 'refused' AND op_id IN
                    (SELECT op_id FROM cutover.journal WHERE {open} AND direction = 'storage')"
            );
            let args = vec![generation.into(), record_state.into()];
            tx.control(&refused, args).await?;
        }
        if let Self::CopyTo(backend) = self {
            let copy = format!(
                "UPDATE cutover.journal SET direction = $2, kind = 'copy', token = NULL, attempt_id = NULL,
                    attempts = 0, parked = NULL,
                    not_before_us = CASE WHEN deadline_us IS NULL THEN not_before_us ELSE deadline_us + $3 END
                 WHERE {open}"
            );
            let args = vec![
                generation.into(),
                backend.as_str().into(),
                clock_skew_max_us.into(),
            ];
            tx.control(&copy, args).await?;
        }
        Ok(deadline_last_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_owes_storage_what_was_under_way() {
        for to in [Stage::DualWrite, Stage::Shadow] {
            assert_eq!(
                Conversion::between(Stage::Live, to),
                Conversion::CopyTo(Backend::Storage)
            );
        }
    }

    #[test]
    fn ramping_down_owes_legacy_and_tells_no_retry_to_run_again() {
        let conversion = Conversion::between(Stage::Live, Stage::RampDown);
        assert_eq!(conversion, Conversion::CopyTo(Backend::Legacy));
        assert_eq!(conversion.record_state(), Some("unknown"));
    }

    #[test]
    fn whatever_falls_to_off_voids_the_journal() {
        for from in Stage::ALL {
            assert_eq!(Conversion::between(from, Stage::Off), Conversion::Void);
        }
    }
}
