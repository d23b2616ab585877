//! Ids of SQLite's that were handed out and may not be in their table yet.
//!
//! A live write's row comes to legacy after its id was chosen, and SQLite only knows the greatest rowid that is
//! there. So what was handed out is remembered, and two writes at a time get an id each. The file has one proxy;
//! if it had two, the later write would be answered `conflict`, as any id that is taken.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The last id handed out, by sequence: as many as there are tables.
#[derive(Debug, Default)]
pub(super) struct Rowids(Mutex<HashMap<String, i64>>);

impl Rowids {
    /// These consecutive ids, or as many after the last one that was handed out.
    pub(super) fn hand_out(&self, sequence: &str, free: Vec<i64>) -> Vec<i64> {
        let mut handed_out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = handed_out.entry(sequence.to_owned()).or_insert(i64::MIN);
        let after = last.saturating_add(1);
        let taken = free
            .first()
            .map_or(0, |first| after.saturating_sub(*first).max(0));
        let ids: Vec<i64> = free.iter().map(|id| id.saturating_add(taken)).collect();
        *last = ids.last().copied().unwrap_or(*last);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_handed_out_once_though_its_row_is_not_there_yet() {
        let rowids = Rowids::default();
        assert_eq!(rowids.hand_out("a", vec![5]), [5]);
        assert_eq!(rowids.hand_out("a", vec![5, 6]), [6, 7]);
        assert_eq!(rowids.hand_out("b", vec![5]), [5]);
        assert_eq!(rowids.hand_out("a", vec![]), [0; 0]);
        assert_eq!(
            rowids.hand_out("a", vec![100]),
            [100],
            "somebody gave a greater one"
        );
        assert_eq!(rowids.hand_out("c", vec![-7]), [-7]);
    }
}
