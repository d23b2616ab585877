//! Transactions run in tasks of their own.
//!
//! A future that is dropped while a transaction begins would leave it open on a pooled connection, and a
//! transition that its caller lost interest in must still end one way or the other.

use std::future::Future;

use crate::sql::Fault;

/// Runs `work` to its end even when the caller is cancelled.
pub(super) async fn run_to_end<T, E, F>(work: F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<Fault> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(E::from(Fault::Unexpected(error.to_string()))),
    }
}
