//! TLS in both directions: PEM files, and whom outgoing connections believe.
//!
//! A listener's certificate is `server`'s; who is believed when the proxy itself connects (to storage over
//! HTTPS, to brokers over AMQPS, to the webhook) is one `Trust` for all of them, read again on SIGHUP.

mod pem;
mod trust;

#[cfg(test)]
pub(crate) mod issuer;

pub use pem::{TlsError, certificates, private_key};
pub use trust::{HttpsConnector, Identity, Trust, TrustFiles, reason};
