//! The durable list of what the secondary is owed, in the legacy database.
//!
//! An entry names a key, never a row: whoever pays it reads the authority's row at that moment, so a
//! payment can only carry committed state, entries of one key collapse into one, and a schema change or a
//! large row cannot hurt the writer whose transaction appended the entry (see ARCHITECTURE, "Keys, not
//! images"). Only open entries are kept; a settled one is deleted in the batch that settles it.
//!
//! * `copy`: the secondary's row of this key must become the authority's row.
//! * `intent`: a live write may have reached storage; until it is resolved its keys are locked by it. That of a
//!   removal is widened by what hangs on its rows before it is sent (`bonds`, `widen`).

mod append;
mod behind;
mod bonds;
mod candidates;
mod claim;
mod created;
mod ddl;
mod departures;
mod entry;
mod extend;
mod floor;
mod gate;
mod give_back;
mod intent;
mod low_water;
mod operation;
mod stats;
mod stripes;
mod take_over;
#[cfg(test)]
mod tests;
mod widen;

pub use append::{Copies, append_copies};
pub use behind::{Older, Removal, note_removals, older_than};
pub use bonds::{Ahead, Bonds, Named, Target, pointing_before};
pub use candidates::Outlook;
pub use claim::{Claim, ClaimOptions, claim, claim_parked};
pub use created::{SENT_AGE_MAX, note_created, owe_created, prune_created, tick};
pub use ddl::COMPONENT;
pub use departures::{
    Kin, Leaving, Ties, carried_by, is_overtaken, note_departure, prune_departures,
};
pub use entry::{Claimed, Departure, Direction, Left, Parked};
pub use floor::{FLOOR, Sounding, forget_floor, prune_floor};
pub use gate::{GATE_LOCK, commit_under, gate, gate_in_pg_locks};
pub use give_back::{Beside, GiveBack, give_back, is_given_back, open_beside};
pub use intent::{Intent, Opened, distrust, drop_intent, open_intent, settle_intent};
pub use low_water::LowWater;
pub use operation::{
    Operation, OperationState, forget_settled, record_done, record_state, recorded,
};
pub use stats::{
    OpenEntry, Owed, OwedUntil, Payable, accept, entries, entry, is_owed, last_seq, owed,
    owed_among, owed_until, payable, prune_operations, prune_void, removing_among, retry,
    retry_written_again,
};
pub use take_over::{ClaimedIntent, claim_intents};
pub use widen::{Widened, widen};
