//! The client: how it is set up, and the one way a call goes out.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::amqp::Amqp;
use super::http::Http;
use super::outcome::{Ending, outcome};
use super::{Call, Capabilities, Rehearsing, StorageError};
use crate::clock::boottime;
use crate::contract::{Reply, Request};
use crate::tls::Trust;

/// The client of the storage service.
#[derive(Debug)]
pub struct Storage {
    pub(super) db: String,
    pub(super) capabilities: Capabilities,
    rpc_deadline: Duration,
    inflight: Semaphore,
    line: Line,
    /// The faults of a drill, while there is one.
    rehearsing: ArcSwapOption<Rehearsing>,
}

/// How to reach the service and what it can do.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The database to name in requests that are made here.
    pub db: String,
    /// How to reach it.
    pub transport: Transport,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The usual time for one call.
    pub rpc_deadline: Duration,
    /// Calls under way at most; more wait for their turn until their deadline.
    pub inflight_max: usize,
    /// Whom the service, or its broker, must be over TLS.
    pub trust: Arc<Trust>,
}

/// Over what.
#[derive(Clone, Debug)]
pub enum Transport {
    /// RPC over AMQP, direct reply-to.
    Amqp(AmqpOptions),
    /// `POST {base_url}/query`.
    Http(HttpOptions),
}

/// Where the service's queue is.
#[derive(Clone, Debug)]
pub struct AmqpOptions {
    /// The broker.
    pub url: String,
    /// The exchange; empty is the default one, whose routing keys are queues.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// Where the service's server is.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// `http://host:port[/path]` or `https://…`.
    pub base_url: String,
    /// Idle connections kept.
    pub pool: usize,
}

/// Options that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `amqp_url`.
    #[error(transparent)]
    Amqp(#[from] crate::hub::HubError),
    /// `base_url`.
    #[error("base_url: {0}")]
    Http(String),
}

#[derive(Debug)]
enum Line {
    Amqp(Amqp),
    /// Boxed: the client is several times the size of the other.
    Http(Box<Http>),
}

impl Storage {
    /// A client; it connects in the background and does not wait. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When an URL is not one.
    pub fn new(options: StorageOptions) -> Result<Self, OptionsError> {
        let inflight_max = options.inflight_max.clamp(1, Semaphore::MAX_PERMITS);
        let line = match options.transport {
            Transport::Amqp(amqp) => Line::Amqp(Amqp::new(amqp, inflight_max, &options.trust)?),
            Transport::Http(http) => {
                let http = Http::new(&http, options.rpc_deadline, options.trust);
                let http = http.map_err(OptionsError::Http)?;
                Line::Http(Box::new(http))
            }
        };
        Ok(Self {
            db: options.db,
            capabilities: options.capabilities,
            rpc_deadline: options.rpc_deadline,
            inflight: Semaphore::new(inflight_max),
            line,
            rehearsing: ArcSwapOption::empty(),
        })
    }

    /// What the service can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The usual time for one call.
    #[must_use]
    pub fn rpc_deadline(&self) -> Duration {
        self.rpc_deadline
    }

    /// Whether a call could be sent now, as far as that is known without one: HTTP has no standing line.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        match &self.line {
            Line::Amqp(amqp) => amqp.is_ready(),
            Line::Http(_) => true,
        }
    }

    /// Replies that came after their call was given up, since the start; they are dropped.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        match &self.line {
            Line::Amqp(amqp) => amqp.late_replies(),
            Line::Http(_) => 0,
        }
    }

    /// Whether the service refuses a late request at its commit, so that a deadline is enough to wait for.
    #[must_use]
    pub fn refuses_late(&self) -> bool {
        self.capabilities.has(super::Capability::Deadline)
    }

    /// After the trust was read again: connections from now on are held to it.
    pub fn renew_trust(&self) {
        match &self.line {
            // A broker is looked at anew with each connection.
            Line::Amqp(_) => {}
            Line::Http(http) => http.renew_trust(),
        }
    }

    /// Begins the faults of a drill on this replica, or ends them.
    pub fn rehearse(&self, rehearsing: Option<Arc<Rehearsing>>) {
        self.rehearsing.store(rehearsing);
    }

    /// The faults of the drill under way, or of the last one until somebody ended it.
    #[must_use]
    pub fn rehearsing(&self) -> Option<Arc<Rehearsing>> {
        self.rehearsing.load_full()
    }

    /// The reply to a live write altered, when a drill says so. Only to be held against what was written, where
    /// it is refused; never to be applied or answered.
    #[must_use]
    pub fn rehearsed_echo(&self, call: &Call, reply: &Reply) -> Option<Reply> {
        self.rehearsing()?.altered(call, reply, boottime())
    }

    /// Sends one query, once, and waits for its answer until its deadline.
    ///
    /// # Errors
    /// See [`StorageError`]: rejected, never executed, or in doubt.
    pub async fn call(&self, call: &Call) -> Result<Reply, StorageError> {
        let Some(rehearsing) = self.rehearsing() else {
            return self.deliver(call).await;
        };
        if rehearsing.withholds(call.epoch, boottime()) {
            return Err(StorageError::Unavailable("withheld by a drill".to_owned()));
        }
        let reply = self.deliver(call).await?;
        let left = call.deadline.remaining();
        if let Some(delay) = rehearsing.delay(call.epoch, left, boottime()) {
            sleep(delay).await;
        }
        Ok(reply)
    }

    async fn deliver(&self, call: &Call) -> Result<Reply, StorageError> {
        let turn = timeout(call.deadline.remaining(), self.inflight.acquire()).await;
        // The permit is held to the end of the call.
        let _permit = match turn {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => {
                let why = "overloaded: too many calls under way".to_owned();
                return Err(StorageError::Unavailable(why));
            }
        };
        let body = body(&self.db, call);
        let limit = call.deadline.remaining();
        if limit.is_zero() {
            let ending = Ending::NotSent("the deadline has passed".to_owned());
            return outcome(ending);
        }
        let fences = match self.capabilities.has(super::Capability::Fencing) {
            true => call.fences_text(),
            false => None,
        };
        let ending = match &self.line {
            Line::Amqp(amqp) => amqp.call(call, fences, body, limit).await,
            Line::Http(http) => http.call(call, fences, body, limit).await,
        };
        outcome(ending)
    }

    /// Ends the line; calls under way end in doubt.
    pub async fn close(&self) {
        match &self.line {
            Line::Amqp(amqp) => amqp.close().await,
            Line::Http(_) => {}
        }
    }
}

/// The request as it goes on the wire. Never with the client's operation id (rule P7).
fn body(db: &str, call: &Call) -> String {
    let request = Request {
        db: db.to_owned(),
        query: call.query.clone(),
        op_id: None,
    };
    request.to_json()
}
