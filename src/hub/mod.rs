//! The message hub: one AMQP 0-9-1 connection, and what travels over it.
//!
//! The only module that knows `lapin`. A `Hub` is a connection that comes back by itself; over it an
//! `RpcClient` asks and is answered, a `Publisher` sends and learns what became of it, a `Consumer` takes
//! from a queue. All three answer the one question that matters when a connection breaks: was it sent?
//!
//! Consume and publish over different hubs: under a memory alarm the broker stops reading from connections
//! that publish, and an acknowledgement on such a connection would be stuck behind its messages
//! (<https://www.rabbitmq.com/docs/alarms>).

mod backoff;
mod consume;
mod lane;
mod link;
mod message;
mod publish;
mod rpc;
mod table;
mod task;
#[cfg(test)]
pub(crate) mod tests;

pub use consume::{Binding, ConsumeOptions, Consumer, Delivery, Lost};
pub use link::{Hub, HubError, HubState};
pub use message::{Header, Message};
pub use publish::{PublishError, Published, Publisher, Receipt};
pub use rpc::{RpcClient, RpcError, RpcOptions, RpcReply};
