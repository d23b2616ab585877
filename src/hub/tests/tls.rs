//! A broker that speaks TLS: a relay in front of the real one.

use super::*;
use crate::tls::issuer::{Authority, Issued};
use crate::tls::{certificates, private_key};

#[tokio::test]
async fn a_broker_behind_tls_is_believed_by_its_root_and_not_without_it() {
    let ours = Authority::new();
    let (port, relay) = behind_tls(&ours.issue("localhost")).await;
    let broker = broker();
    let (user, _) = broker["amqp://".len()..].split_once('@').unwrap();
    let url = format!("amqps://{user}@localhost:{port}/%2f");
    let stranger = Hub::connect(&url, "tls test", &Authority::new().trust()).unwrap();
    let hub = Hub::connect(&url, "tls test", &ours.trust()).unwrap();
    hub.wait_up(SOON).await.unwrap();
    assert!(!stranger.is_up());
    let queue = queue("tls").await;
    let service = echo(&queue, Duration::ZERO).await;
    let client = client(&hub).await;
    let reply = client.call("", &queue, Message::json("1"), SOON).await;
    assert_eq!(reply.unwrap().body, b"1");
    service.abort();
    relay.abort();
}

/// A port that speaks TLS and passes on to the broker.
async fn behind_tls(certificate: &Issued) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor(certificate);
    let relay = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not believe the certificate goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut server = TcpStream::connect(address()).await.unwrap();
                copy_bidirectional(&mut stream, &mut server).await.ok();
            });
        }
    });
    (port, relay)
}

fn acceptor(certificate: &Issued) -> tokio_rustls::TlsAcceptor {
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificates(&certificate.chain).unwrap(),
            private_key(&certificate.key).unwrap(),
        )
        .unwrap();
    Arc::new(config).into()
}

/// Host and port of the broker.
fn address() -> String {
    let broker = broker();
    let (_, rest) = broker.split_once('@').unwrap();
    rest.split('/').next().unwrap().to_owned()
}
