//! The embedded default: everything a stranger needs to see the proxy work, in one process.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::config::{Config, Transport};
use crate::reference::{self, Options, Started};
use crate::sql::{Db, PoolOptions};

/// The plan's table, in both databases.
const TABLE: &str = include_str!("embedded.sql");
/// A few campaigns to look at, in legacy.
const SAMPLES: &str = include_str!("samples.sql");

/// Prepares the two SQLite files and starts the storage service that the configuration points at.
pub(super) async fn start(
    config: &Config,
    shutdown: CancellationToken,
) -> Result<Started, AppError> {
    let data = Path::new("data");
    std::fs::create_dir_all(data).map_err(|source| AppError::File {
        path: data.to_owned(),
        source,
    })?;
    let legacy = Db::open(config.legacy.url.expose(), &PoolOptions::default())?;
    legacy.batch(TABLE).await?;
    legacy.batch(SAMPLES).await?;
    legacy.close().await;
    let options = Options {
        database: "sqlite://data/storage.db".to_owned(),
        db: config.db.clone(),
        http: storage_address(config)?,
        tls: None,
        faults: None,
        broker: None,
        ddl: Some(TABLE.to_owned()),
        without: Vec::new(),
        soft_delete: Vec::new(),
    };
    Ok(reference::start(options, shutdown).await?)
}

/// Where the configuration expects the storage service.
fn storage_address(config: &Config) -> Result<std::net::SocketAddr, AppError> {
    let refused = || {
        AppError::Refused(
            "the embedded default serves its storage service on storage.base_url, which must be http://ADDRESS:PORT"
                .to_owned(),
        )
    };
    let Transport::Http { base_url } = &config.storage.transport else {
        return Err(refused());
    };
    base_url
        .expose()
        .strip_prefix("http://")
        .and_then(|rest| rest.trim_end_matches('/').parse().ok())
        .ok_or_else(refused)
}

/// Tells people where to go.
pub(super) fn announce(config: &Config, embedded: bool) {
    tracing::info!(http = %config.http.listen, admin = %config.admin.listen, "the proxy runs");
    if !embedded {
        return;
    }
    let (http, admin) = (config.http.listen, config.admin.listen);
    println!("cutover runs on the embedded default; its state is under ./data");
    println!("  queries   http://{http}/v1/query   (http://{http}/v1/openapi.json)");
    println!("  admin     http://{admin}/admin/status, http://{admin}/metrics");
    println!("  token     data/operator.token");
    println!("try");
    println!(
        "  curl -s http://{http}/v1/query --json '{{\"db\":\"{}\",\"query\":{{\"type\":\"select\",\"table\":\"campaigns\",\"limit\":2}}}}'",
        config.db
    );
    println!("  cutover status --admin http://{admin}");
}
