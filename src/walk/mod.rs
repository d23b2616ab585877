//! Walking both sides in key order: what backfill and verify share.
//!
//! A walk lasts for hours, the stage may move meanwhile, and either side may be away for a while. So each
//! step asks anew whether the walk may go on (`walk`), reads by pages with bounded memory (`pages`), and
//! tells how far it is (`progress`). Nothing here holds a transaction between two pages.

mod error;
mod pace;
mod pages;
mod parents;
mod progress;
#[expect(
    clippy::module_inception,
    reason = "the type that the module is named for"
)]
mod walk;

pub use error::WalkError;
pub(crate) use pace::Pace;
pub(crate) use pages::{key_of, values_of};
pub(crate) use progress::Line;
pub use progress::{Progress, TableProgress, WalkState};
pub(crate) use walk::{Note, Walk};
