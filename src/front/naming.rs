//! How an operation gets its id at a door.
//!
//! A client may name its write in the body (`op_id`), or beside it (`Idempotency-Key`, `message_id`); both at once
//! must agree. A name that is not a UUID is hashed to one.
//!
//! An AMQP message without a name still has to take effect once when the broker delivers it again. It is known
//! again by `reply_to`, `correlation_id` and a digest of its body. These may repeat in honest traffic (a client
//! that counts its correlation ids from 1 for every connection, and sends the same insert twice), so such an id
//! must not be *consulted* for a message that the broker marks as delivered for the first time; but it must be
//! *recorded* then, or the redelivery would find nothing. `OpIdSource` carries that difference to where operations
//! are recorded. The body is part of the id so that a reused correlation id with other content is another
//! operation, not a conflict.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::scope;
use crate::contract::{Code, Error, OpId, Request};
use crate::repository::OpIdSource;

/// The namespace of hashed names; fixed for ever, or a repeat after an upgrade would be a new operation.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f9d_3a52_7c1e_4b8a_9e04_2d51_c7f3_8ab6);

/// What the wire says about the operation's id, beside the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Naming {
    /// Nothing.
    None,
    /// The client's name for it.
    Client(OpId),
    /// A name made from a delivery.
    Delivery {
        /// See [`from_delivery`].
        op_id: OpId,
        /// The broker delivered the message before.
        redelivered: bool,
    },
}

/// The id that a client's name stands for: itself when it is a UUID, else its hash (UUIDv5).
pub(super) fn from_client(name: &str) -> OpId {
    OpId(Uuid::try_parse(name).unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, name.as_bytes())))
}

/// The id of a message that has no name.
pub(super) fn from_delivery(reply_to: &str, correlation_id: &str, body: &[u8]) -> OpId {
    let mut name = Vec::with_capacity(reply_to.len() + correlation_id.len() + 34);
    for part in [reply_to.as_bytes(), correlation_id.as_bytes()] {
        name.extend_from_slice(part);
        // Neither holds a zero byte: it keeps ("ab", "c") and ("a", "bc") apart.
        name.push(0);
    }
    name.extend_from_slice(&Sha256::digest(body));
    OpId(Uuid::new_v5(&NAMESPACE, &name))
}

/// Gives the request its final id.
pub(super) fn settle(request: &mut Request, naming: Naming) -> Result<OpIdSource, Error> {
    match (request.op_id, naming) {
        (Some(body), Naming::Client(beside)) if body != beside => Err(Error::new(
            Code::InvalidRequest,
            "op_id in the body and the id beside it (Idempotency-Key or message_id) differ: send one, or the same in both",
        )),
        (Some(_), _) | (None, Naming::None) => Ok(OpIdSource::Client),
        (None, Naming::Client(op_id)) => {
            request.op_id = Some(op_id);
            Ok(OpIdSource::Client)
        }
        // A read has no effect to guard.
        (None, Naming::Delivery { .. }) if !scope::writes(&request.query) => Ok(OpIdSource::Client),
        (None, Naming::Delivery { op_id, redelivered }) => {
            request.op_id = Some(op_id);
            Ok(if redelivered {
                OpIdSource::Redelivery
            } else {
                OpIdSource::FirstDelivery
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Insert, Query, Select};

    fn write(op_id: Option<OpId>) -> Request {
        Request {
            db: "campaign_db".to_owned(),
            query: Query::Insert(Insert::default()),
            op_id,
        }
    }

    #[test]
    fn a_uuid_is_itself_and_another_name_is_hashed() {
        let id = Uuid::now_v7();
        assert_eq!(from_client(&id.to_string()), OpId(id));
        assert_eq!(from_client("order-7"), from_client("order-7"));
        assert_ne!(from_client("order-7"), from_client("order-8"));
        assert_eq!(from_client("order-7").0.get_version_num(), 5);
    }

    #[test]
    fn two_names_that_differ_are_refused() {
        let mut request = write(Some(OpId::fresh()));
        let refused = settle(&mut request, Naming::Client(OpId::fresh())).unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest);
        let same = request.op_id.unwrap();
        assert!(settle(&mut request, Naming::Client(same)).is_ok());
    }

    #[test]
    fn a_delivery_names_a_write_without_a_name_and_only_that() {
        let op_id = from_delivery("q", "1", b"{}");
        let naming = Naming::Delivery {
            op_id,
            redelivered: false,
        };
        let mut request = write(None);
        assert_eq!(
            settle(&mut request, naming).unwrap(),
            OpIdSource::FirstDelivery
        );
        assert_eq!(request.op_id, Some(op_id));
        let own = OpId::fresh();
        let mut request = write(Some(own));
        assert_eq!(settle(&mut request, naming).unwrap(), OpIdSource::Client);
        assert_eq!(request.op_id, Some(own));
        let mut read = write(None);
        read.query = Query::Select(Select::default());
        assert_eq!(settle(&mut read, naming).unwrap(), OpIdSource::Client);
        assert_eq!(read.op_id, None);
    }

    #[test]
    fn deliveries_that_differ_in_anything_have_different_ids() {
        let id = from_delivery("ab", "c", b"x");
        assert_ne!(id, from_delivery("a", "bc", b"x"));
        assert_ne!(id, from_delivery("ab", "c", b"y"));
        assert_eq!(id, from_delivery("ab", "c", b"x"));
    }
}
