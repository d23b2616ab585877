//! Faults on demand, so that tests and rehearsals can meet them: slow, failing, lying, or silent after the
//! deed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use axum::{Router, response::IntoResponse as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::contract::{Code, Error};
use crate::server::{ServerOptions, error_response, json_response, read_body};

/// What goes wrong, and how often. Rates are probabilities from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Waited before every request is executed, in milliseconds.
    pub latency_ms: u64,
    /// Answered `internal`, not executed.
    pub error_rate: f64,
    /// Executed and committed, never answered.
    pub lost_reply_rate: f64,
    /// Over AMQP: answered twice.
    pub duplicate_reply_rate: f64,
    /// Nothing is taken: HTTP connections are closed, AMQP requests are answered `overloaded`.
    pub refuse: bool,
    /// Answered with a changed value; what is stored is right.
    pub corrupt_rate: f64,
    /// Writes are answered `backend_unavailable`, not executed.
    pub read_only: bool,
}

/// The faults in force, shared by the transports and the fault port.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultSwitch(Arc<ArcSwap<Faults>>);

/// The largest latency that may be asked for: longer is not slow but gone, which `refuse` is for.
const LATENCY_MS_MAX: u64 = 60_000;

impl Faults {
    fn check(self) -> Result<Self, Error> {
        let rates = [
            self.error_rate,
            self.lost_reply_rate,
            self.duplicate_reply_rate,
            self.corrupt_rate,
        ];
        let fault = if self.latency_ms > LATENCY_MS_MAX {
            format!("latency_ms is at most {LATENCY_MS_MAX}")
        } else if rates.iter().any(|rate| !(0.0..=1.0).contains(rate)) {
            "a rate is from 0 to 1".to_owned()
        } else {
            return Ok(self);
        };
        Err(Error::new(Code::InvalidRequest, fault))
    }
}

impl FaultSwitch {
    /// The faults for one request, which keeps them to its end.
    pub(super) fn now(&self) -> Faults {
        **self.0.load()
    }

    /// `GET`, `PUT` (or `POST`) and `DELETE /faults`.
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/faults", get(show).put(set).post(set).delete(clear))
            .with_state(self)
    }
}

/// Whether something of this probability happens now.
pub(super) fn happens(rate: f64) -> bool {
    // The last 53 random bits of a UUID are a uniform fraction; there is no need for a generator of our own.
    const BITS: u64 = 1 << 53;
    let bits = Uuid::new_v4().as_u64_pair().1 % BITS;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let fraction = bits as f64 / BITS as f64;
    fraction < rate
}

/// Changes one value in a reply, as a faulty service would; false when the reply holds none.
pub(super) fn corrupt(value: &mut Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => {
            *flag = !*flag;
            true
        }
        Value::Number(number) => {
            *value = Value::from(number.as_i64().unwrap_or_default().wrapping_add(1));
            true
        }
        Value::String(text) => {
            text.push('~');
            true
        }
        Value::Array(items) => items.iter_mut().any(corrupt),
        Value::Object(members) => {
            // Rows before what frames them; the last column before the key, which comes first.
            if let Some(rows) = members.get_mut("rows") {
                return corrupt(rows);
            }
            members.values_mut().rev().any(corrupt)
        }
    }
}

async fn show(State(switch): State<FaultSwitch>) -> Response<Body> {
    axum::Json(switch.now()).into_response()
}

async fn set(State(switch): State<FaultSwitch>, request: Request) -> Response<Body> {
    let limits = ServerOptions::default();
    let body = match read_body(request.into_body(), 64 * 1024, limits.body_timeout).await {
        Ok(body) => body,
        Err(error) => return error_response(&error),
    };
    let faults = serde_json::from_slice::<Faults>(&body)
        .map_err(|error| Error::new(Code::InvalidRequest, error.to_string()))
        .and_then(Faults::check);
    match faults {
        Ok(faults) => {
            tracing::warn!(?faults, "faults asked for");
            switch.0.store(Arc::new(faults));
            axum::Json(faults).into_response()
        }
        Err(error) => error_response(&error),
    }
}

async fn clear(State(switch): State<FaultSwitch>) -> Response<Body> {
    tracing::warn!("faults cleared");
    switch.0.store(Arc::default());
    json_response(StatusCode::OK, "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rate_of_zero_never_happens_and_one_always() {
        assert!((0..1000).all(|_| !happens(0.0) && happens(1.0)));
    }

    #[test]
    fn a_corrupted_reply_differs_in_one_value_of_a_row() {
        let mut reply = json!({"rows": [{"id": 1, "name": "a", "note": null}], "next": [1]});
        assert!(corrupt(&mut reply));
        assert_eq!(
            reply,
            json!({"rows": [{"id": 1, "name": "a~", "note": null}], "next": [1]})
        );
        assert!(!corrupt(&mut json!([])));
    }

    #[test]
    fn an_unknown_fault_and_an_impossible_rate_are_refused() {
        assert!(serde_json::from_str::<Faults>(r#"{"latency": 5}"#).is_err());
        let faults: Faults = serde_json::from_str(r#"{"error_rate": 1.5}"#).unwrap();
        assert!(faults.check().is_err());
    }
}
