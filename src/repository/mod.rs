//! Where a request meets the two backends.

mod call;

pub use call::{Answer, Call, OpIdSource};
