//! The doors: HTTP and AMQP in front of one repository.
//!
//! A door turns what came over a wire into a `Call` and the `Answer` back into what goes over it. What both do
//! alike (read, name, allow, execute, count) is in `doorway`; nothing here knows a backend.

mod amqp;
mod doorway;
mod http;
mod naming;
mod scope;

pub use amqp::AmqpDoor;
pub use doorway::{Doorway, Execute};
pub use http::HttpDoor;
