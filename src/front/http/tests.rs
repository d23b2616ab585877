//! The door over a real socket, with a repository that answers what the test says.

use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Access, Config, DEFAULT, TokenHash};
use crate::contract::{Epoch, OpId, Reply};
use crate::front::Execute;
use crate::repository::{Call, OpIdSource};
use crate::server::{ServerOptions, serve};
use crate::stage::{Backend, Stage};
use crate::telemetry::Metrics;

const SELECT: &str = r#"{"db":"campaign_db","query":{"type":"select","table":"campaigns"}}"#;
const INSERT: &str =
    r#"{"db":"campaign_db","query":{"type":"insert","table":"campaigns","data":{"name":"a"}}}"#;

struct Running {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    metrics: Arc<Metrics>,
    hot: Arc<ArcSwap<Hot>>,
    calls: Arc<Mutex<Vec<Call>>>,
    _stop: tokio_util::sync::DropGuard,
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Got {
    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn answer(result: Result<Reply, Error>, op_id: Option<OpId>) -> Answer {
    Answer {
        result,
        backend: Some(Backend::Legacy),
        epoch: Epoch(7),
        stage: Stage::Shadow,
        op_id,
        backend_time: Some(Duration::from_millis(1)),
        lease_expired: false,
    }
}

fn rows() -> Result<Reply, Error> {
    Ok(Reply::from_json("[]".to_owned()))
}

async fn start(respond: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Running {
    let respond = Arc::new(respond);
    start_with(move |call| {
        let answer = respond(&call);
        async move { answer }.boxed()
    })
    .await
}

async fn start_with(
    execute: impl Fn(Call) -> futures_util::future::BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> Running {
    let config = Config::parse("test.toml", DEFAULT, &[]).unwrap();
    let hot = Arc::new(ArcSwap::from_pointee(config.hot));
    let metrics = Arc::new(Metrics::new(["campaigns".to_owned()]).unwrap());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let execute: Execute = Arc::new(move |call| {
        seen.lock().unwrap().push(call.clone());
        execute(call)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let door = HttpDoor::new(Doorway {
        execute,
        metrics: metrics.clone(),
        hot: hot.clone(),
    });
    tokio::spawn(serve(
        listener,
        door,
        ServerOptions::default(),
        stop.clone(),
    ));
    Running {
        base,
        client: Client::builder(TokioExecutor::new()).build_http(),
        metrics,
        hot,
        calls,
        _stop: stop.drop_guard(),
    }
}

impl Running {
    async fn post(&self, body: &str, headers: &[(&str, &str)]) -> Got {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send("POST", "/v1/query", body, &all).await
    }

    async fn send(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    fn change(&self, change: impl Fn(&mut Hot)) {
        let mut hot = self.hot.load().as_ref().clone();
        change(&mut hot);
        self.hot.store(Arc::new(hot));
    }

    fn last_call(&self) -> Call {
        self.calls.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn an_answer_is_the_bare_reply_and_its_headers_say_who_gave_it() {
    let op_id = OpId::fresh();
    let door = start(move |_| answer(rows(), Some(op_id))).await;
    let got = door.post(SELECT, &[("x-request-id", "abc")]).await;
    assert_eq!((got.status, &got.body), (200, &serde_json::json!([])));
    assert_eq!(got.header("x-cutover-backend"), "legacy");
    assert_eq!(got.header("x-cutover-epoch"), "7");
    assert_eq!(got.header("x-cutover-op-id"), op_id.to_string());
    assert_eq!(got.header("x-request-id"), "abc");
    assert!(got.header("server-timing").contains("backend;dur=1.000"));
    let text = door.metrics.render().unwrap();
    assert!(text.contains(
        r#"cutover_requests_total{code="ok",door="http",op="select",table="campaigns"} 1"#
    ));
    assert!(text.contains(r#"cutover_inflight{door="http"} 0"#));
}

#[tokio::test]
async fn every_failure_has_the_form_of_the_contract() {
    let door = start(|_| answer(rows(), None)).await;
    let json = [("content-type", "application/json")];
    let cases = [
        ("GET", "/nowhere", "", &json[..], 404, "not_found"),
        ("GET", "/v1/query", "", &json[..], 405, "invalid_request"),
        (
            "DELETE",
            "/v1/openapi.json",
            "",
            &json[..],
            405,
            "invalid_request",
        ),
        (
            "POST",
            "/v1/query",
            SELECT,
            &[("content-type", "text/plain")][..],
            415,
            "invalid_request",
        ),
        ("POST", "/v1/query", SELECT, &[][..], 415, "invalid_request"),
        ("POST", "/v1/query", "{", &json[..], 400, "invalid_request"),
        (
            "POST",
            "/v1/query",
            "{\"db\":\"x\"}",
            &json[..],
            400,
            "invalid_request",
        ),
    ];
    for (method, path, body, headers, status, code) in cases {
        let got = door.send(method, path, body, headers).await;
        assert_eq!((got.status, got.code()), (status, code), "{method} {path}");
    }
    let large = format!("[{}]", "1,".repeat(1 << 20));
    let got = door.post(&large, &[]).await;
    assert_eq!((got.status, got.code()), (413, "too_large"));
    assert!(door.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_full_door_refuses_and_counts() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gates = (entered.clone(), release.clone());
    let door = start_with(move |_| {
        let (entered, release) = gates.clone();
        async move {
            entered.notify_one();
            release.notified().await;
            answer(rows(), None)
        }
        .boxed()
    })
    .await;
    door.change(|hot| hot.limits.in_flight_max = 1);
    let (first, ()) = tokio::join!(door.post(SELECT, &[]), async {
        entered.notified().await;
        let refused = door.post(SELECT, &[]).await;
        assert_eq!((refused.status, refused.code()), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), "1");
        release.notify_one();
    });
    assert_eq!(first.status, 200);
    let text = door.metrics.render().unwrap();
    assert!(text.contains(r#"cutover_shed_total{what="http_request"} 1"#));
}

#[tokio::test]
async fn a_token_opens_the_door_as_far_as_its_scope() {
    let door = start(|_| answer(rows(), None)).await;
    door.change(|hot| {
        hot.http_tokens = vec![DoorToken {
            name: "reader".to_owned(),
            hash: TokenHash::of("secret"),
            tables: Some(vec!["campaigns".to_owned()]),
            access: Access::Read,
        }];
    });
    let nobody = door.post(SELECT, &[]).await;
    assert_eq!((nobody.status, nobody.code()), (401, "unauthorized"));
    assert_eq!(nobody.header("www-authenticate"), "Bearer");
    let wrong = door
        .post(SELECT, &[("authorization", "Bearer other")])
        .await;
    assert_eq!(wrong.status, 401);
    let mine = [("authorization", "Bearer secret")];
    assert_eq!(door.post(SELECT, &mine).await.status, 200);
    let write = door.post(INSERT, &mine).await;
    assert_eq!((write.status, write.code()), (403, "forbidden"));
    let elsewhere = SELECT.replace("campaigns", "payments");
    assert_eq!(door.post(&elsewhere, &mine).await.status, 403);
}

#[tokio::test]
async fn an_idempotency_key_is_the_operation_id() {
    let door = start(|call| answer(rows(), call.request.op_id)).await;
    let id = OpId::fresh().to_string();
    let got = door.post(INSERT, &[("idempotency-key", &id)]).await;
    assert_eq!(got.header("x-cutover-op-id"), id);
    assert_eq!(door.last_call().op_id_source, OpIdSource::Client);
    let first = door.post(INSERT, &[("idempotency-key", "order-7")]).await;
    let second = door
        .post(INSERT, &[("idempotency-key", "\"order-7\"")])
        .await;
    assert_eq!(
        first.header("x-cutover-op-id"),
        second.header("x-cutover-op-id")
    );
    let body = INSERT.replacen('{', &format!("{{\"op_id\":\"{}\",", OpId::fresh()), 1);
    let got = door.post(&body, &[("idempotency-key", &id)]).await;
    assert_eq!((got.status, got.code()), (400, "invalid_request"));
}

#[tokio::test]
async fn the_trace_goes_on_with_a_span_of_ours() {
    let door = start(|_| answer(rows(), None)).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    door.post(SELECT, &[("traceparent", parent)]).await;
    let child = door.last_call().traceparent.unwrap();
    assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert_ne!(child, parent);
    door.post(SELECT, &[("traceparent", "nonsense")]).await;
    assert_eq!(door.last_call().traceparent, None);
}

#[tokio::test]
async fn an_internal_error_says_an_id_and_nothing_else() {
    let door = start(|_| answer(Err(Error::new(Code::Internal, "column 3 is NULL")), None)).await;
    let got = door.post(SELECT, &[]).await;
    assert_eq!((got.status, got.code()), (500, "internal"));
    assert!(got.body["error"]["details"]["id"].is_string());
    assert!(!got.body.to_string().contains("column 3"));
}

#[tokio::test]
async fn a_read_without_a_lease_says_so() {
    let door = start(|_| Answer {
        lease_expired: true,
        ..answer(rows(), None)
    })
    .await;
    let got = door.post(SELECT, &[]).await;
    assert_eq!(got.header("x-cutover-lease"), "expired");
    let text = door.metrics.render().unwrap();
    assert!(text.contains("cutover_lease_expired_reads_total 1"));
}

#[tokio::test]
async fn the_description_names_every_code_and_every_reference_exists() {
    let door = start(|_| answer(rows(), None)).await;
    let got = door.send("GET", "/v1/openapi.json", "", &[]).await;
    assert_eq!(got.body["openapi"], "3.1.0");
    let codes = &got.body["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]
        ["enum"];
    let ours: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes, &serde_json::json!(ours));
    let text = got.body.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(got.body.pointer(pointer).is_some(), "{pointer}");
    }
}
