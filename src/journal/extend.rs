//! Taking more keys into a claim: rows that a payment would take along, to be paid with it.

use super::intent::is_held;
use super::stripes::{by_table, lock};
use super::{Claim, Claimed, Direction};
use crate::contract::Key;
use crate::sql::{Db, Fault};

impl Claim {
    /// Appends entries for keys of which nothing is owed, claimed from the start: nobody pays them beside
    /// this claim, and what is written meanwhile waits behind them. `None`: something is owed of one of
    /// them, or the epoch has moved; nothing was appended.
    ///
    /// # Errors
    /// See [`Fault`]. Must not be cancelled half-way.
    pub async fn extend(
        &self,
        db: &Db,
        direction: Direction,
        keys: &[(String, Key)],
    ) -> Result<Option<Vec<Claimed>>, Fault> {
        let mut tx = db.begin().await?;
        lock(
            &mut tx,
            keys.iter().map(|(table, key)| (table.as_str(), key)),
        )
        .await?;
        if is_held(&mut tx, keys).await? {
            return Ok(None);
        }
        let mut claimed = Vec::with_capacity(keys.len());
        for (table, of_table) in by_table(keys) {
            let rows = tx
                .control(
                    "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, epoch, created_us, \
                     token, deadline_us, attempts) \
                     SELECT s.generation, $1, 'copy', $2, e.value, s.epoch, cutover.now_us(), $3::uuid, $4, 1 \
                     FROM cutover.state s, cutover.each($5) AS e WHERE s.epoch = $6 \
                     RETURNING seq, key, created_us",
                    vec![
                        direction.as_str().into(),
                        table.into(),
                        self.token.into(),
                        self.deadline_us.into(),
                        of_table,
                        self.epoch.into(),
                    ],
                )
                .await?;
            for row in rows {
                claimed.push(Claimed {
                    seq: row.some_int(0)?,
                    table: table.to_owned(),
                    key: Key(row.some_text(1)?),
                    op_id: None,
                    created_us: row.some_int(2)?,
                    attempts: 1,
                    removing: false,
                    bypassed: 0,
                    left: None,
                    noted: self.departure,
                });
            }
        }
        if claimed.len() < keys.len() {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(claimed))
    }
}
