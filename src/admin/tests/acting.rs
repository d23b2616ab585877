//! Who may act, what is done then, and what is left on record.

use super::*;

#[tokio::test]
async fn the_stage_moves_with_a_reason_and_leaves_records_of_who_did_it() {
    let plane = plane(true).await;
    let wish = json!({"to": "dual_write", "reason": "planned", "ticket": "CHG-1"});
    let rehearsal = json!({"to": "dual_write", "reason": "planned", "dry_run": true});
    let (status, body) = plane.post("/admin/stage", rehearsal).await;
    assert_eq!((status, &body["possible"]), (StatusCode::OK, &json!(true)));
    let skip = json!({"to": "live", "reason": "hurry", "dry_run": true, "force": true});
    let (_, body) = plane.post("/admin/stage", skip).await;
    assert_eq!(body["possible"], false);
    assert_eq!(body["readiness"]["blockers"][0]["code"], "refused");
    let (status, body) = plane.post("/admin/stage", wish).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["from"], &body["stage"]),
        (&json!("off"), &json!("dual_write"))
    );
    let (_, audit) = plane.get("/admin/transitions?verify=true").await;
    let newest = &audit["transitions"][0];
    assert_eq!(
        (&newest["actor"], &newest["ticket"]),
        (&json!("ada who may act"), &json!("CHG-1"))
    );
    assert_eq!(newest["evidence"]["readiness"]["ready"], true);
    assert_eq!(
        audit["actions"],
        json!([]),
        "a move that was not forced has one record"
    );
    assert_eq!(audit["intact"], true);
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
    assert_eq!(audit["actions"][0]["action"], "force");
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
        (status, &body["stage"]),
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
    let (_, entry) = plane.get(&format!("/admin/journal/{seq}")).await;
    assert_eq!(
        (&entry["to"], &entry["state"]),
        (&json!("storage"), &json!("quarantined"))
    );
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
        .map(|action| &action["action"])
        .collect();
    assert_eq!(kinds, ["explain", "journal_accept"]);
}
