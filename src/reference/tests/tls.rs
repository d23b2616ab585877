//! The service behind TLS, as the proxy's client meets it: believed by a root, or never sent anything.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::fixture::{Place, Under, insert, options};
use crate::contract::{Epoch, Query};
use crate::reference::{Options, start};
use crate::server::Tls;
use crate::storage::{
    Call, Capabilities, HttpOptions, Storage, StorageError, StorageOptions, Transport, UnixMs,
};
use crate::tls::issuer::{Authority, Issued, public_trust};
use crate::tls::{Trust, TrustFiles};

const LIMIT: Duration = Duration::from_secs(10);

/// The service with a certificate.
struct Service {
    port: u16,
    place: Place,
    _stop: DropGuard,
}

impl Service {
    async fn with(certificate: &Issued) -> Self {
        let (database, place) = Place::new(Under::Sqlite).await;
        let tls = Tls::load(&certificate.chain, &certificate.key).unwrap();
        let stop = CancellationToken::new();
        let options = Options {
            faults: None,
            tls: Some(Arc::new(tls)),
            ..options(database, &[])
        };
        let started = start(options, stop.clone()).await.unwrap();
        let port = started.http_addr.port();
        tokio::spawn(started.join());
        Self {
            port,
            place,
            _stop: stop.drop_guard(),
        }
    }

    fn client(&self, trust: Arc<Trust>) -> Storage {
        let http = HttpOptions {
            base_url: format!("https://localhost:{}", self.port),
            pool: 2,
        };
        Storage::new(StorageOptions {
            db: "campaign_db".to_owned(),
            transport: Transport::Http(http),
            capabilities: Capabilities::all(),
            rpc_deadline: LIMIT,
            inflight_max: 4,
            trust,
        })
        .unwrap()
    }
}

async fn write(client: &Storage) -> Result<(), StorageError> {
    let query = Query::from_value(insert(Uuid::new_v4(), "Spring")).unwrap();
    let call = Call::new(query, UnixMs::after(LIMIT), Epoch(1));
    client.call(&call).await.map(drop)
}

async fn rows(client: &Storage) -> String {
    let query = Query::from_value(json!({"type": "count", "table": "campaigns"})).unwrap();
    let call = Call::new(query, UnixMs::after(LIMIT), Epoch(1));
    client.call(&call).await.unwrap().as_json().to_owned()
}

/// Refused for this reason, before anything was sent.
async fn refused(client: &Storage, why: &str) {
    match write(client).await {
        Err(StorageError::Unavailable(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_private_root_is_believed_and_without_it_nothing_is_sent() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let service = Service::with(&ours.issue("localhost")).await;
    refused(&service.client(public_trust()), "UnknownIssuer").await;
    refused(&service.client(theirs.trust()), "UnknownIssuer").await;
    let trusting = service.client(ours.trust());
    write(&trusting).await.unwrap();
    assert_eq!(rows(&trusting).await, r#"{"count":1}"#);
    service.place.remove().await;
}

#[tokio::test]
async fn a_certificate_of_another_name_or_of_another_time_is_refused() {
    let ours = Authority::new();
    for (certificate, why) in [
        (ours.issue("elsewhere.internal"), "not valid for name"),
        (ours.issue_expired("localhost"), "expired"),
    ] {
        let service = Service::with(&certificate).await;
        refused(&service.client(ours.trust()), why).await;
        service.place.remove().await;
    }
}

#[tokio::test]
async fn a_root_that_is_replaced_is_believed_from_the_next_connection_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let service = Service::with(&after.issue("localhost")).await;
    let files = TrustFiles {
        ca: Some(before.root()),
        identity: None,
    };
    let trust = Arc::new(Trust::load(files).unwrap());
    let client = service.client(Arc::clone(&trust));
    refused(&client, "UnknownIssuer").await;
    std::fs::write(before.root(), "no certificate").unwrap();
    assert!(trust.reload().is_err());
    std::fs::copy(after.root(), before.root()).unwrap();
    trust.reload().unwrap();
    client.renew_trust();
    write(&client).await.unwrap();
    service.place.remove().await;
}
