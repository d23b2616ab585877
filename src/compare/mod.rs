//! Whether two backends say the same, typed and pure.
//!
//! Backends spell one value in many ways (`1.50`, an offset, an upper-case UUID), and a comparer that
//! minds spelling raises alarms until nobody listens. So values are compared by their column's kind:
//! numbers by value and never through `f64`, instants as instants, JSON by structure. What is found is a
//! *suspect*; whether it is a divergence is decided by whoever looks a second time.
//!
//! A difference names keys and fields and holds no other value of a row.

mod difference;
mod reply;
mod row;
mod value;

pub use difference::{Difference, DifferenceKind, FieldDiff, FieldKind, Sample};
pub use reply::replies_equal;
pub use row::{RowDiff, row_diff};
pub use value::values_equal;
