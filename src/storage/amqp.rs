//! The AMQP transport: what a call looks like as a message.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::Ending;
use super::{AmqpOptions, Call};
use crate::hub::{Header, Hub, HubError, Message, RpcClient, RpcError, RpcOptions};
use crate::tls::Trust;

/// The line over a broker.
#[derive(Debug)]
pub(super) struct Amqp {
    hub: Hub,
    rpc: RpcClient,
    exchange: String,
    routing_key: String,
}

impl Amqp {
    pub(super) fn new(
        options: AmqpOptions,
        inflight_max: usize,
        trust: &Arc<Trust>,
    ) -> Result<Self, HubError> {
        let hub = Hub::connect(&options.url, "cutover storage client", trust)?;
        let rpc = RpcClient::new(
            &hub,
            RpcOptions {
                // Twice: calls that were given up make room at once, but not before the next one asks.
                pending_max: inflight_max.saturating_mul(2),
                ..RpcOptions::default()
            },
        );
        Ok(Self {
            hub,
            rpc,
            exchange: options.exchange,
            routing_key: options.routing_key,
        })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.rpc.is_ready()
    }

    pub(super) fn late_replies(&self) -> u64 {
        self.rpc.late_replies()
    }

    pub(super) async fn call(
        &self,
        call: &Call,
        fences: Option<String>,
        body: String,
        limit: Duration,
    ) -> Ending {
        let mut message = Message::json(body)
            .with_header("deadline", Header::Int(call.deadline.0))
            .with_header("attempt_id", Header::Text(call.attempt.to_string()))
            .with_header("epoch", Header::Int(call.epoch.0));
        if let Some(trace) = &call.traceparent {
            message = message.with_header("traceparent", Header::Text(trace.clone()));
        }
        if let Some(fences) = fences {
            message = message.with_header("fences", Header::Text(fences));
        }
        let answer = self
            .rpc
            .call(&self.exchange, &self.routing_key, message, limit)
            .await;
        match answer {
            Ok(reply) => Ending::Answered {
                status: reply.status,
                body: reply.body,
            },
            Err(RpcError::NotSent(why) | RpcError::Returned(why)) => Ending::NotSent(why),
            Err(RpcError::ConnectionLost(why)) => Ending::Lost(why),
            Err(RpcError::TimedOut) => Ending::TimedOut,
        }
    }

    pub(super) async fn close(&self) {
        self.rpc.close().await;
        self.hub.close().await;
    }
}
