//! The command line against an admin plane that answers what the test says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use clap::CommandFactory as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::contract::{Code, Error};
use crate::server::{ServerOptions, error_response, json_response, serve};

/// `(method and path, authorization, body)`.
type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;

async fn admin(answer: Result<Value, Error>) -> (String, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let router = Router::new().fallback(async move |request: Request| {
        let line = format!("{} {}", request.method(), request.uri());
        let token = request.headers().get("authorization");
        let token = token.map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = to_bytes(request.into_body(), 1 << 16).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        record.lock().unwrap().push((line, token, body));
        match answer {
            Ok(value) => json_response(StatusCode::OK, value.to_string()),
            Err(error) => error_response(&error),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(
        listener,
        router,
        ServerOptions::default(),
        CancellationToken::new(),
    ));
    (base, seen)
}

async fn run(base: &str, line: &str) -> ExitCode {
    let mut words = vec!["cutover"];
    words.extend(line.split(' '));
    words.extend(["--admin", base, "--token", "t"]);
    let cli = Cli::try_parse_from(words).unwrap();
    cli.command.run_client().await.unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    for line in ["stage live", "stage nowhere --reason r", "rearm", "nothing"] {
        let words = std::iter::once("cutover").chain(line.split(' '));
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[tokio::test]
async fn each_command_asks_what_the_admin_api_names() {
    let cases = [
        ("status --json", "GET /admin/status", Value::Null),
        (
            "stage live --reason go --ticket T-1 --expected-epoch 4 --force",
            "POST /admin/stage",
            json!({"to": "live", "reason": "go", "ticket": "T-1", "expected_epoch": 4, "force": true}),
        ),
        (
            "rollback --reason bad --to dual_write",
            "POST /admin/rollback",
            json!({"reason": "bad", "to": "dual_write"}),
        ),
        (
            "rearm --reason fixed",
            "POST /admin/rearm",
            json!({"reason": "fixed"}),
        ),
        ("divergences", "GET /admin/divergences", Value::Null),
        (
            "divergences explain 5 --reason known --until 2026-12-31T00:00:00Z",
            "POST /admin/divergences/5/explain",
            json!({"reason": "known", "until": "2026-12-31T00:00:00Z"}),
        ),
        ("journal", "GET /admin/journal", Value::Null),
        ("journal show 7", "GET /admin/journal/7", Value::Null),
        (
            "journal retry 7 --reason again",
            "POST /admin/journal/7/retry",
            json!({"reason": "again"}),
        ),
        (
            "journal accept 7 --reason lost",
            "POST /admin/journal/7/accept",
            json!({"reason": "lost"}),
        ),
        ("history --json", "GET /admin/transitions", Value::Null),
        (
            "divergences list --json",
            "GET /admin/divergences",
            Value::Null,
        ),
        ("journal list --json", "GET /admin/journal", Value::Null),
    ];
    let (base, seen) = admin(Ok(json!({"stage": "live", "epoch": 5}))).await;
    for (line, asked, body) in cases {
        assert_eq!(run(&base, line).await, ExitCode::SUCCESS, "{line}");
        let expected = (asked.to_owned(), "Bearer t".to_owned(), body);
        assert_eq!(seen.lock().unwrap().pop(), Some(expected), "{line}");
    }
}

#[tokio::test]
async fn jobs_are_started_followed_and_judged_by_their_result() {
    let report = json!({"clean": true, "recorded": true, "tables": [], "quarantined": 0});
    let done = json!({"id": "J", "state": "done", "result": report});
    let (base, seen) = admin(Ok(done)).await;
    let line = "backfill --table ads --table tags --rate 100 --reason fill";
    assert_eq!(run(&base, line).await, ExitCode::SUCCESS);
    assert_eq!(run(&base, "verify --repair").await, ExitCode::SUCCESS);
    let asked: Vec<_> = seen.lock().unwrap().drain(..).collect();
    let fill = json!({"tables": ["ads", "tags"], "reason": "fill", "rate": 100});
    assert_eq!(
        (asked[0].0.as_str(), &asked[0].2),
        ("POST /admin/backfill", &fill)
    );
    assert_eq!(asked[1].0, "GET /admin/jobs/J");
    let look = json!({"tables": [], "repair": true, "reason": ""});
    assert_eq!(
        (asked[2].0.as_str(), &asked[2].2),
        ("POST /admin/verify", &look)
    );

    let dirty = json!({"id": "J", "state": "done", "result": {"clean": false, "tables": []}});
    let (base, _) = admin(Ok(dirty)).await;
    assert_eq!(run(&base, "verify --json").await, ExitCode::from(1));
    let failed = json!({"id": "J", "state": "failed", "error": "not possible in stage off"});
    let (base, _) = admin(Ok(failed)).await;
    assert_eq!(run(&base, "backfill").await, ExitCode::from(1));
}

#[tokio::test]
async fn exit_codes_tell_refused_from_unreachable() {
    let refusal = Error::new(Code::PreconditionFailed, "the epoch is 6");
    let (base, _) = admin(Err(refusal)).await;
    assert_eq!(
        run(&base, "stage live --reason go").await,
        ExitCode::from(1)
    );
    assert_eq!(run("http://127.0.0.1:1", "status").await, ExitCode::from(3));
    assert_eq!(run("nonsense", "status").await, ExitCode::from(2));
}

#[tokio::test]
async fn something_to_look_at_is_exit_code_one() {
    let (base, _) = admin(Ok(json!({"divergences": [{"id": 1}]}))).await;
    assert_eq!(run(&base, "divergences").await, ExitCode::from(1));
    let blocked = json!({"readiness": {"blockers": [{"code": "owed", "message": "m"}]}});
    let (base, _) = admin(Ok(blocked)).await;
    assert_eq!(
        run(&base, "stage live --reason go --dry-run").await,
        ExitCode::from(1)
    );
    let (base, _) = admin(Ok(
        json!({"transitions": [], "intact": false, "broken_at": 3}),
    ))
    .await;
    assert_eq!(run(&base, "history --verify").await, ExitCode::from(1));
}

#[tokio::test]
async fn check_config_says_two_for_a_bad_file() {
    let check = |file: &'static str| async move {
        let cli = Cli::try_parse_from(["cutover", "check-config", file]).unwrap();
        cli.command.run_client().await.unwrap()
    };
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let good = format!("{dir}/default.toml");
    assert_eq!(check(good.leak()).await, ExitCode::SUCCESS);
    assert_eq!(check("/no/such/file.toml").await, ExitCode::from(2));
}
