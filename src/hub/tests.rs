//! The hub against a real broker, and over a line that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::tls::issuer::public_trust;

mod tls;

const SOON: Duration = Duration::from_secs(15);

pub(crate) fn broker() -> String {
    std::env::var("CUTOVER_TEST_AMQP")
        .expect("CUTOVER_TEST_AMQP must hold the URL of a RabbitMQ for tests")
}

pub(crate) fn queue_name(what: &str) -> String {
    format!("hub-test.{what}.{}", uuid::Uuid::new_v4().simple())
}

/// A queue that goes away by itself when nobody has used it for a minute.
pub(crate) async fn queue(what: &str) -> String {
    let name = queue_name(what);
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-expires".into(), lapin::types::AMQPValue::LongInt(60_000));
    declare(&name, arguments).await;
    name
}

async fn declare(name: &str, arguments: lapin::types::FieldTable) {
    let connection = connection().await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_declare(name.into(), Default::default(), arguments)
        .await
        .unwrap();
}

async fn connection() -> lapin::Connection {
    lapin::Connection::connect(&broker(), Default::default())
        .await
        .unwrap()
}

async fn hub() -> Hub {
    let hub = Hub::connect(&broker(), "hub test", &public_trust()).unwrap();
    hub.wait_up(SOON).await.unwrap();
    hub
}

async fn client(hub: &Hub) -> RpcClient {
    let client = RpcClient::new(hub, RpcOptions::default());
    client.wait_ready(SOON).await.unwrap();
    client
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A service that answers with the request's body after `delay`, until the handle is aborted.
async fn echo(queue: &str, delay: Duration) -> JoinHandle<()> {
    let hub = hub().await;
    let publisher = Arc::new(Publisher::new(&hub, 1_000));
    let mut consumer = Consumer::new(&hub, consume(queue));
    eventually("the publisher is ready", || publisher.is_ready()).await;
    let task = tokio::spawn(async move {
        while let Some(delivery) = consumer.next().await {
            let publisher = Arc::clone(&publisher);
            tokio::spawn(async move {
                sleep(delay).await;
                let asked = &delivery.message;
                let reply = Message {
                    correlation_id: asked.correlation_id.clone(),
                    ..Message::json(asked.body.clone())
                }
                .with_header("x-cutover-status", Header::Int(200));
                let to = asked.reply_to.clone().unwrap();
                let receipt = publisher.publish("", &to, reply, Instant::now() + SOON);
                receipt.unwrap().settled().await.unwrap();
                delivery.ack().await.unwrap();
            });
        }
    });
    let ready = client(&hub)
        .await
        .call("", queue, Message::json("0"), SOON)
        .await;
    assert_eq!(ready.unwrap().status, Some(200));
    task
}

fn consume(queue: &str) -> ConsumeOptions {
    ConsumeOptions {
        queue: queue.to_owned(),
        declare: true,
        bindings: Vec::new(),
        prefetch: 500,
    }
}

/// Sends one message as soon as the queue is there to take it.
async fn knock(queue: &str) {
    let hub = hub().await;
    let publisher = Publisher::new(&hub, 10);
    eventually("the publisher is ready", || publisher.is_ready()).await;
    let deadline = Instant::now() + SOON;
    loop {
        let receipt = publisher.publish("", queue, Message::json("1"), deadline);
        if receipt.unwrap().settled().await.unwrap() == Published::Confirmed {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A line to the broker that can be cut: connections through it die, new ones are accepted again at once.
struct Line {
    url: String,
    cut: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Line {
    async fn open() -> Self {
        let url = broker();
        let (head, tail) = url.rsplit_once('@').unwrap();
        let (target, path) = tail.split_once('/').unwrap();
        let target: SocketAddr = target.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = watch::channel(0);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self {
            url: format!("{head}@{address}/{path}"),
            cut,
            task,
        }
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

#[tokio::test]
async fn a_call_is_answered_with_status_and_body() {
    let queue = queue("echo").await;
    let service = echo(&queue, Duration::ZERO).await;
    let hub = hub().await;
    let client = client(&hub).await;
    let reply = client
        .call("", &queue, Message::json("[1]"), SOON)
        .await
        .unwrap();
    assert_eq!(reply.status, Some(200));
    assert_eq!(reply.body, b"[1]");
    assert_eq!(client.pending(), 0);
    service.abort();
    client.close().await;
    hub.close().await;
    assert_eq!(hub.state(), HubState::Down);
}

#[tokio::test]
async fn a_direct_reply_does_not_come_back_although_no_queue_has_it() {
    let queue = queue("direct").await;
    let hub = hub().await;
    let (client, publisher) = (client(&hub).await, Publisher::new(&hub, 10));
    eventually("the publisher is ready", || publisher.is_ready()).await;
    let service = async {
        let mut consumer = Consumer::new(&hub, consume(&queue));
        let delivery = consumer.next().await.unwrap();
        let asked = &delivery.message;
        let reply = Message {
            correlation_id: asked.correlation_id.clone(),
            ..Message::json("[2]")
        };
        let to = asked.reply_to.clone().unwrap();
        let receipt = publisher.publish("", &to, reply, Instant::now() + SOON);
        let published = receipt.unwrap().settled().await.unwrap();
        delivery.ack().await.unwrap();
        published
    };
    let call = client.call("", &queue, Message::json("[1]"), SOON);
    let (answer, published) = tokio::join!(call, service);
    assert_eq!(answer.unwrap().body, b"[2]");
    assert_eq!(published, Published::Confirmed);
}

#[tokio::test]
async fn an_unroutable_call_is_returned_and_its_neighbours_are_answered() {
    let queue = queue("neighbour").await;
    let service = echo(&queue, Duration::ZERO).await;
    let hub = hub().await;
    let client = client(&hub).await;
    let nowhere = queue_name("nowhere");
    let calls = (0..200).map(|number| {
        let to = if number % 3 == 0 { &nowhere } else { &queue };
        client.call("", to, Message::json(number.to_string()), SOON)
    });
    for (number, result) in join_all(calls).await.into_iter().enumerate() {
        if number % 3 == 0 {
            assert!(
                matches!(result, Err(RpcError::Returned(_))),
                "{number} {result:?}"
            );
        } else {
            assert_eq!(result.unwrap().body, number.to_string().as_bytes());
        }
    }
    assert_eq!(client.pending(), 0);
    service.abort();
}

#[tokio::test]
async fn a_late_reply_is_dropped_and_counted() {
    let queue = queue("slow").await;
    let service = echo(&queue, Duration::from_millis(400)).await;
    let hub = hub().await;
    let client = client(&hub).await;
    let limit = Duration::from_millis(100);
    let result = client.call("", &queue, Message::json("1"), limit).await;
    assert_eq!(result, Err(RpcError::TimedOut));
    assert_eq!(client.pending(), 0);
    eventually("the late reply is counted", || client.late_replies() == 1).await;
    service.abort();
}

#[tokio::test]
async fn a_cancelled_caller_leaves_nothing_pending() {
    let queue = queue("cancelled").await;
    let service = echo(&queue, Duration::from_millis(300)).await;
    let hub = hub().await;
    let client = client(&hub).await;
    let call = client.call("", &queue, Message::json("1"), SOON);
    tokio::select! {
        _ = call => panic!("answered too early"),
        () = sleep(Duration::from_millis(100)) => {}
    }
    assert_eq!(client.pending(), 0);
    service.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_calls_at_once_each_get_their_own_answer() {
    let queue = queue("many").await;
    let service = echo(&queue, Duration::from_millis(5)).await;
    let hub = hub().await;
    let client = client(&hub).await;
    let calls =
        (0..500).map(|number| client.call("", &queue, Message::json(number.to_string()), SOON));
    for (number, result) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(result.unwrap().body, number.to_string().as_bytes());
    }
    assert_eq!((client.pending(), client.late_replies()), (0, 0));
    service.abort();
}

#[tokio::test]
async fn over_the_limit_nothing_is_sent() {
    let queue = queue("full").await;
    let service = echo(&queue, Duration::from_millis(300)).await;
    let hub = hub().await;
    let options = RpcOptions {
        channels: 1,
        pending_max: 2,
    };
    let client = RpcClient::new(&hub, options);
    client.wait_ready(SOON).await.unwrap();
    let calls = (0..5).map(|_| client.call("", &queue, Message::json("1"), SOON));
    let results = join_all(calls).await;
    let refused = |result: &&Result<_, _>| matches!(result, Err(RpcError::NotSent(_)));
    assert_eq!(results.iter().filter(refused).count(), 3);
    service.abort();
}

#[tokio::test]
async fn a_cut_line_leaves_sent_calls_in_doubt_and_comes_back() {
    let queue = queue("cut").await;
    let service = echo(&queue, Duration::from_millis(500)).await;
    let line = Line::open().await;
    let hub = Hub::connect(&line.url, "cut test", &public_trust()).unwrap();
    let client = client(&hub).await;
    let call = client.call("", &queue, Message::json("1"), SOON);
    let (result, ()) = tokio::join!(call, async {
        sleep(Duration::from_millis(150)).await;
        line.cut();
    });
    assert!(
        matches!(result, Err(RpcError::ConnectionLost(_))),
        "{result:?}"
    );
    assert_eq!(client.pending(), 0);
    client.wait_ready(SOON).await.unwrap();
    eventually("the hub is up again", || hub.is_up()).await;
    let reply = client
        .call("", &queue, Message::json("2"), SOON)
        .await
        .unwrap();
    assert_eq!(reply.body, b"2");
    line.task.abort();
    service.abort();
}

#[tokio::test]
async fn without_a_broker_a_call_fails_at_once_as_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let hub = Hub::connect(
        &format!("amqp://guest:guest@{address}/%2f"),
        "nobody",
        &public_trust(),
    )
    .unwrap();
    let client = RpcClient::new(&hub, RpcOptions::default());
    let result = client.call("", "q", Message::json("1"), SOON).await;
    assert!(matches!(result, Err(RpcError::NotSent(_))));
    assert!(hub.wait_up(Duration::from_millis(50)).await.is_err());
    hub.close().await;
}

#[tokio::test]
async fn many_publishes_are_confirmed_side_by_side_and_returns_are_told_apart() {
    let hub = hub().await;
    let queue = queue("events").await;
    let publisher = Publisher::new(&hub, 1_000);
    eventually("the publisher is ready", || publisher.is_ready()).await;
    let nowhere = queue_name("nowhere");
    let receipts = (0..300).map(|number| {
        let to = if number % 7 == 0 { &nowhere } else { &queue };
        let message = Message::json(number.to_string());
        publisher
            .publish("", to, message, Instant::now() + SOON)
            .unwrap()
    });
    let receipts: Vec<_> = receipts.collect();
    for (number, result) in join_all(receipts.into_iter().map(Receipt::settled))
        .await
        .into_iter()
        .enumerate()
    {
        let returned = matches!(result.unwrap(), Published::Returned(_));
        assert_eq!(returned, number % 7 == 0, "{number}");
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_after_a_cut() {
    let queue = queue_name("again");
    let line = Line::open().await;
    let hub = Hub::connect(&line.url, "consumer test", &public_trust()).unwrap();
    let mut consumer = Consumer::new(&hub, consume(&queue));
    let publish = tokio::spawn({
        let queue = queue.clone();
        async move { knock(&queue).await }
    });
    let first = consumer.next().await.unwrap();
    assert!(!first.redelivered);
    publish.await.unwrap();
    line.cut();
    let again = consumer.next().await.unwrap();
    assert!(again.redelivered);
    assert_eq!(first.ack().await, Err(Lost));
    again.ack().await.unwrap();
    line.task.abort();
    hub.close().await;
    assert!(consumer.next().await.is_none());
    let channel = connection().await.create_channel().await.unwrap();
    let deleted = channel.queue_delete(queue.as_str().into(), Default::default());
    deleted.await.unwrap();
}

#[tokio::test]
async fn an_existing_queue_with_other_arguments_is_used_as_it_is() {
    let hub = hub().await;
    let queue = queue("other").await;
    let mut consumer = Consumer::new(&hub, consume(&queue));
    knock(&queue).await;
    consumer.next().await.unwrap().reject(false).await.unwrap();
}
