//! The configuration as its users meet it: the shipped files, overrides, errors, reloads.

use std::time::Duration;

use super::*;
use crate::stage::Stage;
use crate::storage::Capability;

const PRODUCTION: &str = include_str!("../../config/production.toml");

const SMALL: &str = "
[legacy]
url = \"postgres://u:p@db/x\"
[storage]
amqp_url = \"amqp://guest:guest@127.0.0.1:5672/%2f\"
[[tables]]
name = \"campaigns\"
";

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn production_environment() -> Vec<(String, String)> {
    variables(&[
        ("LEGACY_URL", "postgres://cutover@legacy/campaigns"),
        ("STORAGE_AMQP_URL", "amqp://cutover@broker"),
        ("DOOR_AMQP_URL", "amqp://cutover@broker"),
        ("CAMPAIGN_SERVICE_TOKEN", "0123456789abcdef0123456789abcdef"),
    ])
}

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse("test.toml", text, &variables(environment))
}

fn errors(text: &str, environment: &[(&str, &str)]) -> String {
    parse(text, environment).unwrap_err().to_string()
}

fn edited(section: &str, line: &str) -> String {
    format!("[{section}]\n{line}\n{SMALL}")
}

#[test]
fn the_embedded_default_needs_no_server_and_no_environment() {
    let config = parse(DEFAULT, &[]).unwrap();
    assert_eq!(config.legacy.url.expose(), "sqlite://data/legacy.db");
    assert!(matches!(config.storage.transport, Transport::Http { .. }));
    assert!(config.storage.capabilities.has(Capability::Fencing));
    assert_eq!(config.amqp, None);
    assert_eq!(config.tables[0].name, "campaigns");
    assert_eq!(config.hot.limits.in_flight_max, 512);
}

#[test]
fn the_production_file_is_valid() {
    let config = Config::parse("production.toml", PRODUCTION, &production_environment()).unwrap();
    assert_eq!(config.amqp.unwrap().queue, "cutover.query");
    assert_eq!(config.hot.http_tokens[0].access, Access::Write);
    assert_eq!(config.hot.admin_tokens[0].role, Role::Operator);
}

#[test]
fn the_production_file_shows_the_defaults_where_it_says_nothing_else() {
    let shown = Config::parse("production.toml", PRODUCTION, &production_environment()).unwrap();
    let default = parse(SMALL, &[]).unwrap();
    assert_eq!(shown.hot.limits, default.hot.limits);
    assert_eq!(shown.hot.compare, default.hot.compare);
    assert_eq!(shown.hot.log, default.hot.log);
    assert_eq!(
        shown.hot.guard.settings().failure_rate,
        default.hot.guard.settings().failure_rate
    );
    assert_eq!(shown.hot.guard.unavailable, default.hot.guard.unavailable);
    assert_eq!(
        shown.hot.guard.latency_delta,
        default.hot.guard.latency_delta
    );
    assert_eq!(
        shown.hot.guard.inconsistency,
        default.hot.guard.inconsistency
    );
    assert_eq!(shown.flip, default.flip);
    assert_eq!(shown.control, default.control);
    assert_eq!(shown.applier, default.applier);
    assert_eq!(shown.journal, default.journal);
    assert_eq!(shown.operations, default.operations);
    assert_eq!(shown.flag, default.flag);
    assert_eq!(shown.storage.rpc_deadline, default.storage.rpc_deadline);
    assert_eq!(shown.legacy.connections_max, default.legacy.connections_max);
}

/// serde names every key of a section when it refuses an unknown one: that is the list to hold the file to.
#[test]
fn the_production_file_names_every_key() {
    let sections = [
        "",
        "legacy",
        "storage",
        "http",
        "http.tls",
        "amqp",
        "admin",
        "admin.tls",
        "flag",
        "flip",
        "control",
        "operations",
        "journal",
        "compare",
        "readiness",
        "guard",
        "guard.failure_rate",
        "guard.inconsistency",
        "guard.latency_delta",
        "guard.unavailable",
        "guard.canary",
        "backfill",
        "verify",
        "applier",
        "limits",
        "log",
    ];
    let lists = ["http.tokens", "admin.tokens", "tables"];
    let either = ["token", "hash"];
    for section in sections.into_iter().chain(lists) {
        let head = match section {
            "" => String::new(),
            _ if lists.contains(&section) => format!("[[{section}]]\n"),
            _ => format!("[{section}]\n"),
        };
        let message = errors(&format!("{head}no_such_key = 1"), &[]);
        assert!(message.contains("unknown field `no_such_key`"), "{message}");
        let expected = message.split("expected").nth(1).unwrap();
        let expected = expected.split(" in `").next().unwrap();
        for key in expected.split('`').skip(1).step_by(2) {
            if either.contains(&key) && !section.starts_with("tables") {
                continue;
            }
            assert!(
                names_key(section, key),
                "production.toml does not show {key} in [{section}]"
            );
        }
    }
}

/// Whether the production file sets the key, or shows it in a comment, inside the section.
fn names_key(section: &str, key: &str) -> bool {
    let mut current = String::new();
    PRODUCTION.lines().any(|line| {
        if line.starts_with('[') {
            current = line.trim_matches(['[', ']']).to_owned();
            let (outer, inner) = current.rsplit_once('.').unwrap_or(("", &current));
            return outer == section && inner == key;
        }
        let line = line.trim_start_matches("# ");
        current == section && line.starts_with(&format!("{key} = "))
    })
}

#[test]
fn variables_override_every_kind_of_key() {
    let config = parse(
        SMALL,
        &[
            ("CUTOVER_LEGACY__URL", "sqlite://elsewhere.db"),
            ("CUTOVER_DB", "other_db"),
            ("CUTOVER_COMPARE__SAMPLE", "0.25"),
            ("CUTOVER_FLIP__MAX_PAUSE", "7s"),
            ("CUTOVER_STORAGE__CAPABILITIES", "[\"delete\"]"),
            ("CUTOVER_ADMIN__PROTECT_METRICS", "true"),
            ("CUTOVER_FLAG__PIN", "ramp_down"),
            ("CUTOVER_TABLES", "[{ name = \"a\" }, { name = \"b\" }]"),
            ("CUTOVER_ADMIN", "http://not-a-key"),
            ("CUTOVER_TOKEN", "not-a-key"),
        ],
    )
    .unwrap();
    assert_eq!(config.legacy.url.expose(), "sqlite://elsewhere.db");
    assert_eq!(config.db, "other_db");
    assert_eq!(config.hot.compare.sample, 0.25);
    assert_eq!(config.flip.max_pause, Duration::from_secs(7));
    assert!(config.storage.capabilities.has(Capability::Delete));
    assert!(config.admin.protect_metrics);
    assert_eq!(config.hot.pin, Some(Stage::RampDown));
    assert_eq!(config.tables.len(), 2);
}

#[test]
fn an_error_names_the_line_or_the_variable() {
    let message = errors("db = \"x\"\n[flip]\nmax_pause = \"5\"\n", &[]);
    assert!(message.starts_with("test.toml:3: "), "{message}");
    let message = errors("[legacy]\nurll = \"x\"\n", &[]);
    assert!(message.starts_with("test.toml:2: "), "{message}");
    let message = errors(SMALL, &[("CUTOVER_LEGACY__URLL", "x")]);
    assert!(message.starts_with("CUTOVER_LEGACY__URLL: "), "{message}");
    let message = errors(SMALL, &[("CUTOVER_FLIP__MAX_PAUSE", "1s")]);
    assert!(
        message.starts_with("CUTOVER_FLIP__MAX_PAUSE: flip.max_pause"),
        "{message}"
    );
    let message = errors("db = [\n", &[]);
    assert!(message.starts_with("test.toml:"), "{message}");
}

#[test]
fn every_broken_rule_is_reported_at_once() {
    let message = errors(
        "[legacy]\nurl = \"mysql://x\"\n[storage]\ncapabilities = [\"teleport\"]\n[flip]\nmax_pause = \"1s\"\n",
        &[],
    );
    for part in [
        "legacy.url",
        "storage.amqp_url",
        "teleport",
        "flip.max_pause",
        "no table is named",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(message.contains("test.toml:6: flip.max_pause"), "{message}");
    assert!(message.contains("\n  hint: "), "{message}");
}

#[test]
fn sections_that_nothing_reads_yet_are_refused() {
    let message = errors(&format!("{SMALL}\n[events]\n"), &[]);
    assert!(message.contains("unknown field"), "{message}");
}

#[test]
fn a_change_window_that_says_no_hours_is_refused_with_an_example() {
    let office = "[readiness]\nchange_window = [\"Mon-Fri 08:00-17:00 UTC\"]\n";
    let config = parse(&format!("{SMALL}\n{office}"), &[]).unwrap();
    assert_eq!(config.hot.readiness.change_window.len(), 1);
    let vague = office.replace("08:00-17:00", "mornings");
    let message = errors(&format!("{SMALL}\n{vague}"), &[]);
    assert!(message.contains("Mon-Fri 08:00-17:00 UTC"), "{message}");
}

#[test]
fn a_guard_that_could_not_work_is_refused_key_by_key() {
    let nonsense = "[guard]
rollback_to = \"shadow\"
webhook = \"ftp://hooks.internal/x\"
evaluate_every = \"0s\"
[guard.failure_rate]
threshold = 1.0
window = \"0s\"
min_samples = 0
[guard.inconsistency]
threshold = 0
[guard.latency_delta]
consecutive = 0
[guard.unavailable]
failures = 0
[guard.canary]
table = \"nowhere\"
every = \"1ms\"
";
    let message = errors(&format!("{SMALL}{nonsense}"), &[]);
    for key in [
        "rollback_to",
        "webhook",
        "evaluate_every",
        "failure_rate.threshold",
        "failure_rate.window",
        "failure_rate.min_samples",
        "inconsistency.threshold",
        "latency_delta.consecutive",
        "unavailable.failures",
        "canary.table",
        "canary.every",
    ] {
        assert!(
            message.contains(&format!("guard.{key}: ")),
            "{key}: {message}"
        );
    }
    let action = "[guard.unavailable]\naction = \"panic\"\n";
    let message = errors(&format!("{SMALL}{action}"), &[]);
    assert!(message.contains("`rollback`"), "{message}");
}

#[test]
fn the_guard_is_reloaded_and_its_webhook_is_shown_without_its_path() {
    let hook = |path: &str| {
        let url = format!("http://hooks.internal/{path}");
        parse(SMALL, &[("CUTOVER_GUARD__WEBHOOK", &url)]).unwrap()
    };
    let (old, new) = (hook("secret-one"), hook("secret-two"));
    assert_eq!(old.reloadable_diff(&new).applied, ["guard.webhook"]);
    assert!(!old.view().to_string().contains("secret"));
    assert_eq!(old.hot.guard.settings(), crate::guard::Settings::default());
}

#[test]
fn a_pause_shorter_than_one_doubtful_payment_is_refused() {
    let message = errors(&edited("flip", "max_pause = \"1.75s\""), &[]);
    assert!(message.contains("does not exceed"), "{message}");
    assert!(parse(&edited("flip", "max_pause = \"1.76s\""), &[]).is_ok());
}

#[test]
fn a_door_on_the_queue_of_its_own_calls_is_a_loop() {
    let door = "enabled = true\nurl = \"amqp://localhost\"\nqueue = \"storage.query\"";
    let message = errors(&edited("amqp", door), &[]);
    assert!(message.contains("consume its own calls"), "{message}");
    let elsewhere = door.replace("localhost", "other");
    assert!(parse(&edited("amqp", &elsewhere), &[]).is_ok());
}

#[test]
fn a_table_named_twice_is_refused_where_it_is_repeated() {
    let message = errors(&format!("{SMALL}[[tables]]\nname = \"campaigns\"\n"), &[]);
    assert!(
        message.starts_with("test.toml:9: tables.1.name"),
        "{message}"
    );
}

#[test]
fn secrets_come_from_variables_and_files() {
    let path = std::env::temp_dir().join(format!("cutover-secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, "postgres://from:file@db/x\n").unwrap();
    let text = SMALL.replace(
        "\"postgres://u:p@db/x\"",
        &format!("{{ file = {:?} }}", path.display().to_string()),
    );
    let config = parse(&text, &[]).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(config.legacy.url.expose(), "postgres://from:file@db/x");
    let message = errors(&text, &[]);
    assert!(message.contains("cannot be read"), "{message}");
    let text = SMALL.replace("\"postgres://u:p@db/x\"", "{ env = \"NO_SUCH\" }");
    assert!(errors(&text, &[]).contains("NO_SUCH is not set"));
}

#[test]
fn no_secret_is_printed_or_digested() {
    let one = parse(SMALL, &[]).unwrap();
    let shown = format!("{one:?}{}", serde_json::to_string(&one).unwrap());
    assert!(!shown.contains("u:p@"), "{shown}");
    let other = parse(&SMALL.replace("u:p@", "u:q@"), &[]).unwrap();
    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.reloadable_diff(&other).needs_restart, ["legacy.url"]);
}

#[test]
fn the_digest_is_of_what_replicas_must_agree_on() {
    let one = parse(SMALL, &[]).unwrap();
    let listening_elsewhere = parse(SMALL, &[("CUTOVER_HTTP__LISTEN", "0.0.0.0:80")]).unwrap();
    assert_eq!(one.digest(), listening_elsewhere.digest());
    let comparing_less = parse(SMALL, &[("CUTOVER_COMPARE__SAMPLE", "0.5")]).unwrap();
    assert_ne!(one.digest(), comparing_less.digest());
}

#[test]
fn a_reload_tells_what_it_changes_and_what_waits() {
    let old = parse(SMALL, &[]).unwrap();
    assert_eq!(old.reloadable_diff(&old), Reload::default());
    let new = parse(
        SMALL,
        &[
            ("CUTOVER_COMPARE__SAMPLE", "0.5"),
            ("CUTOVER_LIMITS__READ_DEADLINE", "1s"),
            ("CUTOVER_LIMITS__IDLE_TIMEOUT", "10s"),
            ("CUTOVER_FLAG__PIN", "off"),
            ("CUTOVER_STORAGE__ROUTING_KEY", "storage.v2"),
            (
                "CUTOVER_ADMIN__TOKENS",
                "[{ name = \"a\", token = \"0123456789abcdef\" }]",
            ),
        ],
    )
    .unwrap();
    let reload = old.reloadable_diff(&new);
    assert_eq!(
        reload.applied,
        [
            "admin.tokens",
            "compare.sample",
            "flag.pin",
            "limits.read_deadline"
        ]
    );
    assert_eq!(
        reload.needs_restart,
        ["limits.idle_timeout", "storage.routing_key"]
    );
}
