//! Arrays of PostgreSQL whose elements are written one by one, put together again in all their dimensions.
//!
//! `unnest` gives the elements in storage order and forgets the dimensions. Where a part of a dimension begins and ends
//! follows from how many elements it has, so brackets can be set around each element's text.

/// Dimensions that an array can have in PostgreSQL (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// Text of the elements of an array that is not NULL, in its dimensions. `item` is an expression over
/// `cutover_array.item` for an element's text, and is never NULL.
pub(super) fn nested(array: &str, [open, close]: [char; 2], item: &str) -> String {
    // In the list of a SELECT: in FROM, `unnest` makes a column of each field of a composite.
    let length = |dimension| format!("coalesce(array_length({array}, {dimension}), 1)");
    let levels: Vec<_> = (1..=DIMENSIONS_MAX)
        .map(|depth| {
            let inner: Vec<_> = (depth..=DIMENSIONS_MAX).map(length).collect();
            format!("({depth}, {})", inner.join(" * "))
        })
        .collect();
    format!(
        "coalesce((SELECT string_agg(repeat('{open}', bounds.starts) || {item} || repeat('{close}', bounds.ends), ',' \
         ORDER BY cutover_array.position) \
         FROM (SELECT each.item, row_number() OVER () AS position FROM (SELECT unnest({array}) AS item) AS each) \
         AS cutover_array CROSS JOIN LATERAL (\
         SELECT CAST(count(*) FILTER (WHERE (cutover_array.position - 1) % level.size = 0) AS int) AS starts, \
         CAST(count(*) FILTER (WHERE cutover_array.position % level.size = 0) AS int) AS ends \
         FROM (VALUES {}) AS level(depth, size) WHERE level.depth <= array_ndims({array})) AS bounds), \
         '{open}{close}')",
        levels.join(", ")
    )
}
