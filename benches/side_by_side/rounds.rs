//! Two sides measured in turns.
//!
//! Other load on a machine makes times drift, but it meets both sides of a short round alike: so each
//! round asks one side and then the other, the order swapped every round, and only the ratio of the
//! medians within a round counts. Requests go out at a fixed pace, one at a time on one kept connection,
//! which leaves the work behind the scenes room, and each is timed from its sending.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

const ROUNDS: usize = 10;
const REQUESTS_PER_ROUND: usize = 300;
const WARM_UP_REQUESTS: usize = 300;

/// One side of a comparison: a kept connection to a server that takes the contract's requests.
pub(crate) struct Side {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// A figure, measured.
pub(crate) struct Measured {
    /// What was measured.
    pub(crate) name: &'static str,
    /// The ratio that is promised.
    pub(crate) ratio_max: f64,
    ratios: Vec<f64>,
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Side {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { address, sender }
    }

    /// Sends a body and returns the answer's, with the time from sending to its last byte.
    pub(crate) async fn ask(&mut self, body: String) -> (Duration, Bytes) {
        let request = Request::post("/v1/query")
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        self.sender.ready().await.expect("the connection is kept");
        let started = Instant::now();
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole body");
        let time = started.elapsed();
        let body = body.to_bytes();
        assert!(status.is_success(), "{status} {body:?}");
        (time, body)
    }

    async fn paced(
        &mut self,
        requests: usize,
        per_second: u32,
        next: &mut impl FnMut() -> String,
    ) -> Vec<Duration> {
        let mut pace = interval(Duration::from_secs(1) / per_second);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            pace.tick().await;
            times.push(self.ask(next()).await.0);
        }
        times
    }
}

impl Measured {
    /// Measures `ours` against `theirs`; `next` makes the requests of both.
    pub(crate) async fn run(
        name: &'static str,
        ratio_max: f64,
        per_second: u32,
        (ours, theirs): (&mut Side, &mut Side),
        mut next: impl FnMut() -> String,
    ) -> Self {
        let mut measured = Self {
            name,
            ratio_max,
            ratios: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
        };
        ours.paced(WARM_UP_REQUESTS, per_second, &mut next).await;
        theirs.paced(WARM_UP_REQUESTS, per_second, &mut next).await;
        for round in 0..ROUNDS {
            let (mut our, mut their);
            if round % 2 == 0 {
                our = ours.paced(REQUESTS_PER_ROUND, per_second, &mut next).await;
                their = theirs
                    .paced(REQUESTS_PER_ROUND, per_second, &mut next)
                    .await;
            } else {
                their = theirs
                    .paced(REQUESTS_PER_ROUND, per_second, &mut next)
                    .await;
                our = ours.paced(REQUESTS_PER_ROUND, per_second, &mut next).await;
            }
            measured.ratios.push(
                quantile(&mut our, 0.5).as_secs_f64() / quantile(&mut their, 0.5).as_secs_f64(),
            );
            measured.ours.append(&mut our);
            measured.theirs.append(&mut their);
        }
        measured
    }

    /// One line of the table under [`HEADER`].
    pub(crate) fn line(mut self) -> String {
        self.ratios.sort_by(f64::total_cmp);
        let ratio = f64::midpoint(self.ratios[(ROUNDS - 1) / 2], self.ratios[ROUNDS / 2]);
        let ms = |times: &mut Vec<Duration>, share| quantile(times, share).as_secs_f64() * 1e3;
        format!(
            "{:<34} {:>7.2} {:>5.2} {:>6.2} {:>6.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  {}",
            self.name,
            self.ratio_max,
            ratio,
            self.ratios[0],
            self.ratios[ROUNDS - 1],
            ms(&mut self.theirs, 0.5),
            ms(&mut self.ours, 0.5),
            ms(&mut self.theirs, 0.99),
            ms(&mut self.ours, 0.99),
            if ratio <= self.ratio_max {
                "kept"
            } else {
                "MISSED"
            },
        )
    }
}

/// The table's head: the median over the rounds of the ratio of medians, its spread, and times in
/// milliseconds over all rounds.
pub(crate) fn header() -> String {
    format!(
        "{:<34} {:>7} {:>5} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "", "promise", "ratio", "least", "most", "base p50", "ours p50", "base p99", "ours p99"
    )
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few thousand"
    )]
    let index = ((times.len() - 1) as f64 * share).round() as usize;
    times[index]
}
