//! The hash chain of the audit: how a record is sealed, and whether all seals hold.
//!
//! A record's hash covers the one before it, so an edit or a removal in the middle shows. That the newest
//! transition was not cut off shows by the epoch of the state; a table rewritten from its start does not.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::sql::{Db, Fault, Record};

use super::audit::{ActionRecord, TransitionRecord};
use super::state;

/// Records are verified in pages of this many.
const PAGE: i64 = 1000;

/// What a verification of the chains found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainReport {
    /// Records of `transitions` that were read.
    pub transitions: u64,
    /// Records of `actions` that were read.
    pub actions: u64,
    /// What does not fit, in words; empty when both chains are intact.
    pub broken: Vec<String>,
}

impl ChainReport {
    /// Whether both chains hold.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Reads both chains from their start and says where they break.
///
/// # Errors
/// See [`Fault`].
pub async fn verify_chain(db: &Db) -> Result<ChainReport, Fault> {
    // Before the records: a transition that is committed meanwhile is then merely newer.
    let epoch = db
        .control("SELECT epoch FROM cutover.state WHERE id = 1", vec![])
        .await?
        .first()
        .ok_or_else(state::not_installed)?
        .some_int(0)?;
    let mut transitions = Chain::new("transitions", "epoch", TransitionRecord::COLUMNS);
    transitions
        .walk(db, |row, previous| {
            let record = TransitionRecord::from_record(row)?;
            Ok((record.epoch.0, record.hash(previous)))
        })
        .await?;
    if transitions.last < epoch {
        transitions.broken.push(format!(
            "transitions: the record of epoch {epoch} is missing"
        ));
    }
    let mut actions = Chain::new("actions", "id", ActionRecord::COLUMNS);
    actions
        .walk(db, |row, previous| {
            let record = ActionRecord::from_record(row)?;
            Ok((record.id, record.hash(previous)))
        })
        .await?;
    Ok(ChainReport {
        transitions: transitions.count,
        actions: actions.count,
        broken: [transitions.broken, actions.broken].concat(),
    })
}

/// A walk along one chain.
struct Chain {
    table: &'static str,
    id: &'static str,
    columns: &'static str,
    last: i64,
    hash: String,
    count: u64,
    broken: Vec<String>,
}

impl Chain {
    fn new(table: &'static str, id: &'static str, columns: &'static str) -> Self {
        Self {
            table,
            id,
            columns,
            last: 0,
            hash: String::new(),
            count: 0,
            broken: vec![],
        }
    }

    /// Reads the table from its start; `seal` is a row's id and the hash it ought to have.
    async fn walk(
        &mut self,
        db: &Db,
        seal: impl Fn(&Record, &str) -> Result<(i64, String), Fault>,
    ) -> Result<(), Fault> {
        let Self {
            table, id, columns, ..
        } = self;
        let sql = format!(
            "SELECT {columns}, previous_hash, hash FROM cutover.{table} WHERE {id} > $1 ORDER BY {id} LIMIT $2"
        );
        let width = columns.split(',').count();
        loop {
            let args = vec![self.last.into(), PAGE.into()];
            let rows = db.control(&sql, args).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in &rows {
                let previous = row.some_text(width)?;
                let (id, ought) = seal(row, &previous)?;
                self.follow(id, &previous, &row.some_text(width + 1)?, &ought);
            }
        }
    }

    fn follow(&mut self, id: i64, previous: &str, hash: &str, ought: &str) {
        let table = self.table;
        if previous != self.hash {
            self.broken.push(format!(
                "{table}: a record before {id} is missing or replaced"
            ));
        }
        if hash != ought {
            self.broken
                .push(format!("{table}: record {id} was changed"));
        }
        hash.clone_into(&mut self.hash);
        self.last = id;
        self.count += 1;
    }
}

/// SHA-256 over the previous hash and the fields, each with its length so that no two lists read alike.
pub(super) fn chain_hash(previous: &str, fields: &[Option<&String>]) -> String {
    let mut sha = Sha256::new();
    for field in std::iter::once(Some(previous)).chain(fields.iter().map(|f| f.map(String::as_str)))
    {
        match field {
            Some(text) => sha.update(format!("{}:{text},", text.len())),
            None => sha.update("-,"),
        }
    }
    hex(&sha.finalize())
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_read_alike_when_joined_hash_apart() {
        let (a, b, ab) = ("a".to_owned(), "b".to_owned(), "ab".to_owned());
        let none = String::new();
        let left = chain_hash("", &[Some(&a), Some(&b)]);
        assert_ne!(left, chain_hash("", &[Some(&ab), Some(&none)]));
        assert_ne!(
            chain_hash("", &[None]),
            chain_hash("", &[Some(&"-".to_owned())])
        );
    }

    #[test]
    fn a_changed_record_and_a_missing_one_both_break_the_chain() {
        let mut chain = Chain::new("actions", "id", "");
        let first = chain_hash("", &[]);
        chain.follow(1, "", &first, &first);
        assert!(chain.broken.is_empty());
        chain.follow(3, "elsewhere", "its hash", "what it ought to be");
        assert_eq!(chain.broken.len(), 2);
    }
}
