//! The only place that serves HTTP: the front door, the admin plane and the reference service hand it a
//! listener and a service.
//!
//! `axum::serve` bounds nothing: a client that never finishes its headers, its body or its reading holds a
//! connection for ever. Here everything a client can make us wait for has a limit (`options`), what a
//! connection is doing is known at any time (`activity`), and a shutdown drains. HTTP/1.1 only: one request
//! per connection at a time is what makes "cut off this client" and "close after refusing" mean something.

mod accept;
mod activity;
mod answer;
mod body;
mod connection;
mod hangup;
mod in_place;
mod options;
mod service;
mod stream;
mod tls;

pub use accept::serve;
pub use answer::{error_response, json_response};
pub use body::read_body;
pub use hangup::Hangup;
pub use options::ServerOptions;
pub use service::{Arriving, Service};
pub use tls::Tls;

#[cfg(test)]
mod tests;
