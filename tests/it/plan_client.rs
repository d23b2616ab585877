//! The plan's repository over the plan's client: it works unchanged, in every stage.

use std::time::Duration;

use hyper::Method;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::fixture::campaigns::insert;
use crate::fixture::{StorageClient, World, WorldOptions};

const SOON: Duration = Duration::from_secs(20);

/// The plan's `CampaignRepository`, method by method.
struct CampaignRepository(StorageClient);

impl CampaignRepository {
    async fn get_campaign(&self, id: &str) -> Value {
        let query = json!({"type": "select", "table": "campaigns", "where": {"id": id}});
        self.0.execute_query(query).await[0].clone()
    }

    async fn create(&self, campaign: &Value) -> Value {
        let query = json!({"type": "insert", "table": "campaigns", "data": campaign});
        self.0.execute_query(query).await
    }

    async fn update(&self, id: &str, data: &Value) -> Value {
        let filter = json!({"id": id});
        let query = json!({"type": "update", "table": "campaigns", "where": filter, "data": data});
        self.0.execute_query(query).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plans_repository_works_unchanged_in_every_stage() {
    let world = World::build(WorldOptions::default()).await;
    let repository = CampaignRepository(world.client().await);
    for stage in [
        "off",
        "dual_write",
        "shadow",
        "live",
        "ramp_down",
        "complete",
    ] {
        if stage == "shadow" {
            // What `off` wrote is taken along as a backfill would.
            let again = "UPDATE campaigns SET name = name";
            world.legacy.execute(again).await;
        }
        world.advance_to(stage).await;
        let id = uuid::Uuid::new_v4().to_string();
        let campaign = json!({
            "id": id, "name": "Test Campaign", "description": null,
            "theme_data": {"palette": ["red", 1.50, {"deep": true}]},
            "created_at": "2025-09-20T10:00:00.123456Z", "updated_at": "2025-09-20T10:00:00Z",
        });
        let created = repository.create(&campaign).await;
        assert_eq!(created["theme_data"], campaign["theme_data"], "{stage}");
        assert_eq!(
            created["created_at"], "2025-09-20T10:00:00.123456Z",
            "{stage}"
        );
        let theme = json!({"theme_data": {"palette": []}, "description": "themed"});
        let updated = repository.update(&id, &theme).await;
        assert_eq!(updated["theme_data"], json!({"palette": []}), "{stage}");
        assert_eq!(repository.get_campaign(&id).await, updated, "{stage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_without_an_id_gets_one() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    let repository = CampaignRepository(world.client().await);
    let created = repository.create(&json!({"name": "Test Campaign"})).await;
    let id = created["id"].as_str().expect("an id");
    assert_eq!(repository.get_campaign(id).await, created);
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_operation_gets_its_first_answer_through_either_door() {
    let world = World::build(WorldOptions::default()).await;
    let client = world.client().await;
    for stage in ["dual_write", "live"] {
        world.advance_to(stage).await;
        let op_id = uuid::Uuid::new_v4().to_string();
        let query = insert(stage, "Once");
        let named = BasicProperties::default().with_message_id(op_id.as_str().into());
        let mut answers = Vec::new();
        for _ in 0..2 {
            let reply = client
                .request(&query, named.clone())
                .await
                .expect("a reply");
            let reply: Value = serde_json::from_slice(&reply.data).expect("JSON");
            answers.push(reply);
        }
        let body = json!({"db": "campaign_db", "query": query});
        let headers = [("idempotency-key", op_id.as_str())];
        let door = &world.proxies[0].door;
        let sent = door.send(Method::POST, "/v1/query", Some(&body), &headers);
        let answer = sent.await.expect("an answer");
        answers.push(answer.body);
        assert_eq!(answers[0]["name"], "Once", "{stage}");
        assert_eq!(answers[1], answers[0], "{stage}");
        assert_eq!(answers[2], answers[0], "{stage}");
    }
    world.settles("campaigns", SOON).await;
}
