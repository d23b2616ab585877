//! Status, health, lists and events.

use super::*;

const STATUS_MEMBERS: [&str; 26] = [
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
    "verified",
    "baseline",
    "flag_file",
    "maintenance",
];

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
