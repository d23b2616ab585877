//! The router as clients meet it: over loopback, on a SQLite legacy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::config::Role;
use crate::control::{self, ControlOptions};
use crate::server::{self, ServerOptions};
use crate::sql::{Db, PoolOptions, TableSpec};
use crate::telemetry::Metrics;
use crate::{divergence, journal};

const STATUS_MEMBERS: [&str; 22] = [
    "stage",
    "phase",
    "authority",
    "epoch",
    "since",
    "reason",
    "actor",
    "latched",
    "rollback",
    "readiness",
    "journal",
    "guard",
    "backends",
    "latency_delta",
    "comparisons",
    "backfill",
    "verify",
    "bypass_writes",
    "replicas",
    "weakened",
    "version",
    "pinned",
];

struct Plane {
    addr: SocketAddr,
    db: Db,
    storage_up: Arc<AtomicBool>,
    shutdown: CancellationToken,
    folder: PathBuf,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shutdown.cancel();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// An admin plane with a viewer `look` and an operator `act`, or without named tokens.
async fn plane(named_tokens: bool) -> Plane {
    let folder = std::env::temp_dir().join(format!("cutover-admin-{}", Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    let url = format!("sqlite://{}", folder.join("legacy.db").display());
    let db = Db::open(&url, &PoolOptions::default()).unwrap();
    db.batch("CREATE TABLE campaigns (id TEXT PRIMARY KEY, name TEXT)")
        .await
        .unwrap();
    control::install(&db).await.unwrap();
    journal::install(&db).await.unwrap();
    divergence::install(&db).await.unwrap();
    let legacy = Arc::new(Legacy::open(db.clone(), vec![spec()]).await.unwrap());
    let control = Control::open(db.clone(), ControlOptions::default())
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let beating = (control.clone(), shutdown.clone());
    tokio::spawn(async move { beating.0.run(beating.1).await });
    let storage_up = Arc::new(AtomicBool::new(true));
    let is_up = storage_up.clone();
    let state = AdminState {
        control,
        legacy,
        storage: StorageView {
            is_up: Box::new(move || is_up.load(Ordering::Relaxed)),
            weakened: vec!["counts are not compared".to_owned()],
            highest_stage: Stage::Complete,
        },
        observer: Arc::new(Observer::new(Arc::new(
            Metrics::new(["campaigns".to_owned()]).unwrap(),
        ))),
        tokens: ArcSwap::from_pointee(if named_tokens { tokens() } else { vec![] }),
        operator_token: TokenHash::of("written at start"),
        protect_metrics: false,
        version: "1.2.3".to_owned(),
        config_view: ArcSwap::from_pointee(json!({"db": "campaign_db"})),
        shutdown: shutdown.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = router(Arc::new(state));
    tokio::spawn(server::serve(
        listener,
        router,
        ServerOptions::default(),
        shutdown.clone(),
    ));
    Plane {
        addr,
        db,
        storage_up,
        shutdown,
        folder,
    }
}

fn spec() -> TableSpec {
    TableSpec {
        name: "campaigns".to_owned(),
        soft_delete: None,
        version: None,
        ignore: vec![],
        filled_by_storage: vec![],
        show_values: false,
        hash_keys: false,
    }
}

fn tokens() -> Vec<AdminToken> {
    [("look", Role::Viewer), ("act", Role::Operator)]
        .map(|(token, role)| AdminToken {
            name: format!("ada who may {token}"),
            hash: TokenHash::of(token),
            role,
        })
        .into()
}

impl Plane {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (StatusCode, Value) {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        (status, body)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let headers = [("authorization", "Bearer look")];
        self.send(Method::GET, path, &headers, String::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let headers = [
            ("authorization", "Bearer act"),
            ("content-type", "application/json"),
        ];
        self.send(Method::POST, path, &headers, body.to_string())
            .await
    }

    /// The code of the refusal of a well-formed act that is sent with other headers.
    async fn refused(&self, headers: &[(&str, &str)]) -> (u16, String) {
        let body = json!({"to": "dual_write", "reason": "planned"}).to_string();
        let (status, body) = self.send(Method::POST, "/admin/stage", headers, body).await;
        let code = body["error"]["code"].as_str().unwrap_or_default();
        (status.as_u16(), code.to_owned())
    }
}

#[tokio::test]
async fn status_has_every_member_of_the_specification() {
    let plane = plane(true).await;
    let (status, body) = plane.get("/admin/status").await;
    assert_eq!(status, StatusCode::OK);
    for member in STATUS_MEMBERS {
        assert!(body.get(member).is_some(), "{member}: {body:#}");
    }
    assert_eq!(body["stage"], "off");
    assert_eq!(body["authority"], "legacy");
    assert_eq!(body["rollback"]["safe"], true);
    assert_eq!(
        body["readiness"],
        json!({"next": "dual_write", "ready": true, "blockers": []})
    );
    assert_eq!(body["backends"]["legacy"]["up"], true);
    assert_eq!(body["replicas"][0]["dirty"], false);
    assert_eq!(body["comparisons"]["one_sided_error"], 0);
    for member in ["owed", "oldest_seconds", "in_doubt", "quarantined"] {
        assert_eq!(body["journal"][member].as_f64(), Some(0.0), "{member}");
    }
}

#[tokio::test]
async fn the_stage_moves_with_a_reason_and_leaves_records_of_who_did_it() {
    let plane = plane(true).await;
    let wish = json!({"to": "dual_write", "reason": "planned", "ticket": "CHG-1"});
    let rehearsal = json!({"to": "dual_write", "reason": "planned", "dry_run": true});
    let (status, body) = plane.post("/admin/stage", rehearsal).await;
    assert_eq!((status, &body["possible"]), (StatusCode::OK, &json!(true)));
    let (status, body) = plane.post("/admin/stage", wish).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["from"], &body["to"]),
        (&json!("off"), &json!("dual_write"))
    );
    let (_, audit) = plane.get("/admin/transitions?verify=true").await;
    let newest = &audit["transitions"][0];
    assert_eq!(
        (&newest["actor"], &newest["ticket"]),
        (&json!("ada who may act"), &json!("CHG-1"))
    );
    assert_eq!(newest["evidence"]["readiness"]["ready"], true);
    assert_eq!(audit["actions"][0]["actor"], "ada who may act");
    assert_eq!(audit["chain"]["intact"], true);
}

#[tokio::test]
async fn a_stage_that_is_not_ready_is_entered_by_force_only() {
    let plane = plane(true).await;
    plane.storage_up.store(false, Ordering::Relaxed);
    let mut wish = json!({"to": "dual_write", "reason": "planned"});
    let (status, body) = plane.post("/admin/stage", wish.clone()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let blockers = &body["error"]["details"]["readiness"]["blockers"];
    assert_eq!(blockers[0]["code"], "storage_down");
    wish["force"] = json!(true);
    let (status, _) = plane.post("/admin/stage", wish).await;
    assert_eq!(status, StatusCode::OK);
    let (_, audit) = plane.get("/admin/transitions").await;
    assert_eq!(audit["actions"][0]["kind"], "force");
    assert_eq!(audit["transitions"][0]["forced"], true);
}

#[tokio::test]
async fn a_rollback_latches_until_somebody_rearms() {
    let plane = plane(true).await;
    let forward = json!({"to": "dual_write", "reason": "planned"});
    plane.post("/admin/stage", forward.clone()).await;
    let (status, body) = plane
        .post("/admin/rollback", json!({"reason": "too slow"}))
        .await;
    assert_eq!(
        (status, &body["to"]),
        (StatusCode::OK, &json!("off")),
        "{body}"
    );
    let (_, status) = plane.get("/admin/status").await;
    assert_eq!(status["latched"], true);
    let (status, _) = plane.post("/admin/stage", forward.clone()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, _) = plane.post("/admin/rearm", json!({"reason": "fixed"})).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = plane.post("/admin/stage", forward).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn acts_that_are_not_well_formed_change_nothing() {
    let plane = plane(true).await;
    for (wish, status) in [
        (json!({"to": "dual_write"}), 400),
        (json!({"to": "dual_write", "reason": "  "}), 400),
        (json!({"to": "sideways", "reason": "planned"}), 400),
        (json!({"to": "dual_write", "reason": "x", "why": "y"}), 400),
        (json!({"to": "live", "reason": "hurry", "force": true}), 400),
        (
            json!({"to": "dual_write", "reason": "planned", "expected_epoch": 99}),
            412,
        ),
    ] {
        let (answered, body) = plane.post("/admin/stage", wish.clone()).await;
        assert_eq!(answered.as_u16(), status, "{wish}: {body}");
    }
    let (_, status) = plane.get("/admin/status").await;
    assert_eq!(status["stage"], "off");
}

#[tokio::test]
async fn only_an_operator_on_the_same_origin_acts_and_in_json() {
    let plane = plane(true).await;
    let json = ("content-type", "application/json");
    let act = ("authorization", "Bearer act");
    let refusal = |status, code: &str| (status, code.to_owned());
    assert_eq!(plane.refused(&[json]).await, refusal(401, "unauthorized"));
    let unknown = ("authorization", "Bearer guess");
    assert_eq!(
        plane.refused(&[json, unknown]).await,
        refusal(401, "unauthorized")
    );
    let look = ("authorization", "Bearer look");
    assert_eq!(
        plane.refused(&[json, look]).await,
        refusal(403, "forbidden")
    );
    let foreign = ("origin", "http://elsewhere.example");
    assert_eq!(
        plane.refused(&[json, act, foreign]).await,
        refusal(403, "forbidden")
    );
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(
        plane.refused(&[form, act]).await,
        refusal(400, "invalid_request")
    );
    let own = format!("http://{}", plane.addr);
    assert_eq!(
        plane.refused(&[json, act, ("origin", &own)]).await,
        refusal(200, "")
    );
}

#[tokio::test]
async fn without_named_tokens_this_machine_may_look_and_the_operator_token_acts() {
    let plane = plane(false).await;
    let (status, _) = plane
        .send(Method::GET, "/admin/status", &[], String::new())
        .await;
    assert_eq!(status, StatusCode::OK);
    let json = ("content-type", "application/json");
    assert_eq!(plane.refused(&[json]).await.0, 401);
    let operator = ("authorization", "Bearer written at start");
    assert_eq!(plane.refused(&[json, operator]).await.0, 200);
}

#[tokio::test]
async fn ready_asks_the_authority_only() {
    let plane = plane(true).await;
    plane.storage_up.store(false, Ordering::Relaxed);
    let open = async |path| plane.send(Method::GET, path, &[], String::new()).await;
    assert_eq!(open("/healthz").await.0, StatusCode::OK);
    let (status, body) = open("/readyz").await;
    assert_eq!(
        (status, &body["authority"]),
        (StatusCode::OK, &json!("legacy"))
    );
    let (status, body) = open("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.as_str().unwrap().contains("cutover_epoch 1"), "{body}");
}

#[tokio::test]
async fn entries_and_divergences_are_shown_and_acted_on() {
    let plane = plane(true).await;
    plane
        .db
        .control(
            "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, epoch, created_us, parked)
             VALUES (1, 'storage', 'copy', 'campaigns', '[\"1\"]', 1, cutover.now_us(), 'quarantined')",
            vec![],
        )
        .await
        .unwrap();
    plane
        .db
        .control(
            "INSERT INTO cutover.divergences (tbl, kind, key, fields, first_us, last_us, seen)
             VALUES ('campaigns', 'field', '[\"1\"]', 'name', 1, 1, 1)",
            vec![],
        )
        .await
        .unwrap();
    let (_, journal) = plane.get("/admin/journal?limit=5").await;
    assert_eq!(journal["journal"]["quarantined"], 1);
    let seq = journal["entries"][0]["seq"].clone();
    let (_, status) = plane.get("/admin/status").await;
    assert_eq!(status["readiness"]["blockers"][0]["code"], "quarantined");

    let reason = json!({"reason": "the row was a test"});
    let (status, body) = plane
        .post(&format!("/admin/journal/{seq}/accept"), reason.clone())
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = plane
        .post(&format!("/admin/journal/{seq}/retry"), reason)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");

    let (_, list) = plane.get("/admin/divergences").await;
    assert_eq!(list["open"], 1);
    let id = &list["divergences"][0]["id"];
    let explanation = json!({"reason": "rounding", "until": "2999-01-01T00:00:00Z"});
    let (status, body) = plane
        .post(&format!("/admin/divergences/{id}/explain"), explanation)
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, list) = plane.get("/admin/divergences").await;
    assert_eq!(list["open"], 0);
    let (_, audit) = plane.get("/admin/transitions").await;
    let kinds: Vec<&Value> = audit["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| &action["kind"])
        .collect();
    assert_eq!(kinds, ["explain", "journal_accept"]);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_in_the_contracts_form() {
    let plane = plane(true).await;
    for path in ["/", "/admin/backfill", "/admin/stage"] {
        let (status, body) = plane.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body["error"]["code"], "not_found");
    }
    let (_, config) = plane.get("/admin/config").await;
    assert_eq!(config, json!({"db": "campaign_db"}));
    let (status, _) = plane.get("/admin/journal?limit=many").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn events_come_at_once_and_when_the_epoch_changes_and_end_at_shutdown() {
    let plane = plane(true).await;
    let request = hyper::Request::builder()
        .uri(format!("http://{}/admin/events", plane.addr))
        .header("authorization", "Bearer look")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut events = client.request(request).await.unwrap().into_body();
    let mut stages = Vec::new();
    for wish in [Some("dual_write"), None] {
        let frame = events.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: "));
        let data: Value = serde_json::from_str(data.unwrap()).unwrap();
        stages.push(data["stage"].clone());
        if let Some(to) = wish {
            plane
                .post("/admin/stage", json!({"to": to, "reason": "planned"}))
                .await;
        }
    }
    assert_eq!(stages, ["off", "dual_write"]);
    plane.shutdown.cancel();
    while events.frame().await.is_some() {}
}
