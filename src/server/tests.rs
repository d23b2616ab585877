//! The limits and the drain, over real sockets, with limits short enough to be met.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_util::sync::CancellationToken;

use super::*;

const BODY_MAX: usize = 1024 * 1024;
const MIB: usize = 1024 * 1024;

struct Running {
    addr: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

async fn start(options: ServerOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let shutdown = CancellationToken::new();
    let gate = (entered.clone(), release.clone());
    let router = Router::new()
        .route("/read", post(read))
        .route("/quick", get(async || "quick"))
        .route(
            "/slow",
            get(async move || {
                gate.0.notify_one();
                gate.1.notified().await;
                "done"
            }),
        );
    let task = tokio::spawn(serve(listener, router, options, shutdown.clone()));
    Running {
        addr,
        shutdown,
        task,
        entered,
        release,
    }
}

async fn read(request: Request) -> Response<Body> {
    match read_body(request.into_body(), BODY_MAX, Duration::from_secs(1)).await {
        Ok(body) => json_response(StatusCode::OK, body.len().to_string()),
        Err(error) => error_response(&error),
    }
}

fn quick_limits() -> ServerOptions {
    ServerOptions {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(600),
        ..ServerOptions::default()
    }
}

/// Everything the server says until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes));
    read.await.expect("the server closes").ok();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_client_that_dribbles_its_headers_is_cut_off() {
    let server = start(quick_limits()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let start = Instant::now();
    stream.write_all(b"GET /quick HTTP/1.1\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off() {
    let server = start(quick_limits()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_kept_alive_connection_outlives_the_header_timeout_but_not_the_idle_timeout() {
    let server = start(quick_limits()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for _ in 0..2 {
        let request = b"GET /quick HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut buffer = [0; 1024];
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].ends_with(b"quick"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_refused_and_its_connection_closed() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc";
    stream.write_all(head).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("invalid_request"));
}

/// Sends ten MiB in the framing given; returns the answer and how much had been sent when it came.
async fn send_ten_mib(addr: SocketAddr, head: &str, chunked: bool) -> (String, usize) {
    let (mut reader, mut writer) = TcpStream::connect(addr).await.unwrap().into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let sender = tokio::spawn(async move {
        let mut piece = vec![b'x'; 64 * 1024];
        if chunked {
            piece.splice(0..0, *b"10000\r\n");
            piece.extend(b"\r\n");
        }
        while count.load(Relaxed) < 10 * MIB && writer.write_all(&piece).await.is_ok() {
            count.fetch_add(64 * 1024, Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = vec![0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    let sent = sent.load(Relaxed);
    reader.read_to_end(&mut answer).await.ok();
    sender.await.unwrap();
    (String::from_utf8(answer).unwrap(), sent)
}

fn assert_refused(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(
        answer.contains(r#"{"error":{"code":"too_large""#),
        "{answer}"
    );
}

#[tokio::test]
async fn ten_mib_with_a_length_are_refused_unread() {
    let server = start(ServerOptions::default()).await;
    let head = "POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 10485760\r\n\r\n";
    let (answer, sent) = send_ten_mib(server.addr, head, false).await;
    assert_refused(&answer);
    assert!(sent < MIB, "{sent}");
}

#[tokio::test]
async fn ten_mib_without_a_length_are_refused_before_they_are_read() {
    let server = start(ServerOptions::default()).await;
    let head = "POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let (answer, sent) = send_ten_mib(server.addr, head, true).await;
    assert_refused(&answer);
    assert!(sent < 10 * MIB, "{sent}");
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_at_the_first_byte_over_the_limit() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n100001\r\n";
    stream.write_all(head).await.unwrap();
    stream.write_all(&vec![b'x'; BODY_MAX + 1]).await.unwrap();
    assert_refused(&rest(&mut stream).await);
}

#[tokio::test]
async fn a_shutdown_lets_the_request_in_flight_finish_and_takes_no_more() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let request = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    server.entered.notified().await;
    server.shutdown.cancel();
    assert_eq!(rest(&mut silent).await, "");
    while TcpStream::connect(server.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.release.notify_one();
    assert!(rest(&mut stream).await.ends_with("done"));
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_the_grace() {
    let server = start(ServerOptions {
        grace: Duration::from_millis(100),
        ..ServerOptions::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let request = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    server.entered.notified().await;
    server.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(2), server.task).await;
    ended.expect("the grace is over").unwrap();
}

#[tokio::test]
async fn tls_is_spoken_and_a_broken_reload_keeps_the_old_certificate() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/testdata");
    let key = std::env::temp_dir().join(format!("cutover-tls-{}.pem", uuid::Uuid::new_v4()));
    std::fs::copy(format!("{dir}/server-key.pem"), &key).unwrap();
    let tls = Arc::new(Tls::load(format!("{dir}/server.pem"), &key).unwrap());
    let server = start(ServerOptions {
        tls: Some(tls.clone()),
        ..ServerOptions::default()
    })
    .await;
    tls.reload().unwrap();
    std::fs::write(&key, "no key").unwrap();
    assert!(matches!(
        tls.reload(),
        Err(crate::tls::TlsError::File { .. })
    ));
    std::fs::remove_file(&key).unwrap();

    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(format!("{dir}/root.pem")).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let request = b"GET /quick HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("quick"), "{answer}");
}
