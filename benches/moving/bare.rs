//! What the proxy is measured against: loops that read pages and send batches, and nothing else.
//!
//! No journal, no claims, no checkpoints, no comparing. They read the same pages of legacy, send batches of the same
//! size over the same transport, as many at a time as the proxy, to a storage service like the proxy's.

use std::sync::Arc;
use std::time::Duration;

use cutover::contract::{AttemptId, Epoch, Key, Row};
use cutover::schema::{Filter, Read, Schema, Table};
use cutover::sql::{Db, PoolOptions, TableSpec, introspect};
use cutover::storage::{
    AmqpOptions, Capabilities, Payment, Storage, StorageOptions, Transport, UnixMs,
};
use cutover::tls::{Trust, TrustFiles};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::fixture::World;

/// The proxy's `applier.batch`.
const BATCH: usize = 100;
/// The proxy's `applier.concurrency`.
const AT_ONCE: usize = 8;
/// Rows read at a time.
const PAGE: u64 = 500;
const DEADLINE: Duration = Duration::from_secs(30);

/// Both ends of the loops.
pub(crate) struct Bare {
    legacy: Db,
    schema: Schema,
    /// The proxy's storage service, read only.
    proxys: Storage,
    /// A service of its own.
    own: Storage,
}

impl Bare {
    /// Reads the proxy's legacy and writes to the other world's storage.
    pub(crate) async fn open(world: &World, beside: &World) -> Self {
        let legacy = Db::open(&world.legacy.url, &PoolOptions::default()).expect("a database URL");
        let specs: Vec<TableSpec> = (0..super::ROUNDS)
            .map(|table| TableSpec {
                name: super::name(table),
                ..TableSpec::default()
            })
            .collect();
        Self {
            schema: introspect(&legacy, &specs).await.expect("the tables exist"),
            legacy,
            proxys: storage_of(world),
            own: storage_of(beside),
        }
    }

    /// Copies a table.
    pub(crate) async fn copy(&self, table: &str) {
        let table = self.schema.table(table).expect("a table");
        let mut after = None;
        let pages = stream::unfold(&mut after, async |after| {
            let rows = self.page(table, after.take()).await;
            *after = Some(key_of(table, rows.last()?));
            Some((rows, after))
        });
        let batches = pages.flat_map(|rows| {
            let batches: Vec<Vec<Row>> = rows.chunks(BATCH).map(<[Row]>::to_vec).collect();
            stream::iter(batches)
        });
        batches
            .map(|rows| self.send(table, rows))
            .buffer_unordered(AT_ONCE)
            .for_each(async |()| {})
            .await;
    }

    /// Reads a table of both sides.
    pub(crate) async fn read_both(&self, table: &str) {
        let table = self.schema.table(table).expect("a table");
        let (mut legacy, mut storage) = (None, None);
        loop {
            let ranged = async {
                let deadline = UnixMs::after(DEADLINE);
                let page = self
                    .proxys
                    .range(table, storage.as_deref(), PAGE, Epoch(1), deadline);
                page.await.expect("storage answers")
            };
            let (rows, page) = tokio::join!(self.page(table, legacy.take()), ranged);
            let Some(last) = rows.last() else {
                return;
            };
            legacy = Some(key_of(table, last));
            storage = page.next;
        }
    }

    async fn page(&self, table: &Arc<Table>, after: Option<Vec<Value>>) -> Vec<Row> {
        let filter = after.map_or(Filter::All(Vec::new()), Filter::After);
        let read = Read::whole_rows(table, filter, Some(PAGE));
        let reply = self.legacy.read(&read).await.expect("legacy answers");
        serde_json::from_str(reply.as_json()).expect("rows")
    }

    async fn send(&self, table: &Arc<Table>, rows: Vec<Row>) {
        let payments = rows.into_iter().map(|row| Payment {
            table: Arc::clone(table),
            key: Key(json!(key_of(table, &row)).to_string()),
            row: Some(row),
            attempt: AttemptId::fresh(),
            deadline: UnixMs::after(DEADLINE),
            epoch: Epoch(1),
            fence: None,
        });
        for paid in self.own.pay(payments.collect()).await {
            paid.expect("storage takes the row");
        }
    }
}

fn key_of(table: &Table, row: &Row) -> Vec<Value> {
    table.key_of(row).expect("a row has its key")
}

fn storage_of(world: &World) -> Storage {
    let (url, queue) = world.storage_queue();
    let options = StorageOptions {
        db: "campaign_db".to_owned(),
        transport: Transport::Amqp(AmqpOptions {
            url: url.to_owned(),
            exchange: String::new(),
            routing_key: queue.to_owned(),
        }),
        capabilities: Capabilities::all(),
        rpc_deadline: DEADLINE,
        inflight_max: 64,
        trust: Arc::new(Trust::load(TrustFiles::default()).expect("the public roots")),
    };
    Storage::new(options).expect("options of a storage client")
}
