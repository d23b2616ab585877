//! Comparisons counted since they were last written down, by table and operation.

use std::collections::BTreeMap;

use crate::evidence::Tally;
use crate::telemetry::{Comparison, Op};

/// The counts that are not on record yet. Bounded: tables come from the config, operations are a closed set.
#[derive(Debug, Default)]
pub(super) struct Tallies(BTreeMap<(String, &'static str), (i64, i64)>);

impl Tallies {
    /// A comparison ended, or was left out.
    pub(super) fn count(&mut self, table: &str, op: Op, result: Comparison) {
        let counts = self.0.entry((table.to_owned(), op.as_str())).or_default();
        counts.0 += 1;
        counts.1 += i64::from(says_something(result));
    }

    /// Hands them out and begins anew.
    pub(super) fn take(&mut self) -> Vec<Tally> {
        std::mem::take(&mut self.0)
            .into_iter()
            .map(|((table, op), (asked, compared))| Tally {
                table,
                op: op.to_owned(),
                asked,
                compared,
            })
            .collect()
    }

    /// Takes back what could not be written down.
    pub(super) fn give_back(&mut self, tally: &Tally) {
        let Some(op) = Op::ALL.iter().find(|op| op.as_str() == tally.op) else {
            return;
        };
        let counts = self
            .0
            .entry((tally.table.clone(), op.as_str()))
            .or_default();
        counts.0 += tally.asked;
        counts.1 += tally.compared;
    }
}

/// Whether both sides were seen and the result stood.
fn says_something(result: Comparison) -> bool {
    match result {
        Comparison::Match | Comparison::Confirmed | Comparison::Ignored => true,
        Comparison::Transient
        | Comparison::OneSidedError
        | Comparison::Unsampled
        | Comparison::Shed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_and_what_was_left_out_are_no_comparison_and_nothing_is_counted_twice() {
        let mut tallies = Tallies::default();
        for result in Comparison::ALL {
            tallies.count("t", Op::Select, *result);
        }
        let taken = tallies.take();
        assert_eq!((taken[0].asked, taken[0].compared), (7, 3));
        assert_eq!(tallies.take(), []);
        tallies.give_back(&taken[0]);
        tallies.count("t", Op::Select, Comparison::Match);
        assert_eq!(tallies.take()[0].compared, 4);
    }
}
