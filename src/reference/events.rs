//! What the service tells the hub after a committed write: which row changed, never what is in it.

use std::time::Duration;

use futures_util::future::OptionFuture;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::contract::Key;
use crate::hub::{Hub, Message, Publisher, Receipt};
use crate::schema::Change;

/// Events that wait for the hub; more are dropped.
pub(super) const QUEUE_MAX: usize = 1024;
/// How long the hub may take for one step.
const HUB_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes what is queued on the topic exchange, which it declares first, until the queue's last sender
/// is gone; then closes the hub, whose last user it is. A `shutdown` before there is an exchange ends it too.
pub(super) async fn publish(
    hub: Hub,
    exchange: String,
    routing_key: String,
    mut queue: mpsc::Receiver<String>,
    shutdown: CancellationToken,
) {
    let declared = shutdown.run_until_cancelled(declare(&hub, &exchange));
    let publisher = Publisher::new(&hub, QUEUE_MAX);
    if declared.await.is_none() {
        queue.close();
    }
    let mut last = None;
    while let Some(body) = queue.recv().await {
        let deadline = Instant::now() + HUB_TIMEOUT;
        // An event that no queue takes is no loss: nobody asked for it.
        match publisher.publish(&exchange, &routing_key, Message::json(body), deadline) {
            Ok(receipt) => last = Some(receipt),
            Err(error) => tracing::warn!(%error, "an event was dropped"),
        }
    }
    if let Some(Err(error)) = OptionFuture::from(last.map(Receipt::settled)).await {
        tracing::warn!(%error, "the last event may be lost");
    }
    publisher.close().await;
    hub.close().await;
}

/// Publishing to an exchange that does not exist would cost the channel, again and again.
async fn declare(hub: &Hub, exchange: &str) {
    while let Err(error) = hub.declare_topic(exchange, HUB_TIMEOUT).await {
        tracing::warn!(exchange, %error, "no exchange for events yet");
        tokio::time::sleep(HUB_TIMEOUT).await;
    }
}

/// The event of one changed row, as JSON text; `None` only if the key is not one of the table's.
///
/// It has `table`, `op` and `key` (an object of the key's columns), and for the table `campaigns` with the
/// single key `id` also `campaign_id`, which is what the application's handler reads.
pub(super) fn of(change: &Change, key: &Key) -> Option<String> {
    let table = change.table();
    let values: Vec<Value> = serde_json::from_str(&key.0).ok()?;
    let columns = table.key_columns().map(|column| column.name.clone());
    let key: Map<String, Value> = columns.zip(values).collect();
    let campaign = match key.get("id") {
        Some(id) if table.name == "campaigns" && key.len() == 1 => Some(id.clone()),
        _ => None,
    };
    let mut body = json!({ "table": table.name, "op": op(change), "key": key });
    if let Some(id) = campaign {
        body["campaign_id"] = id;
    }
    Some(body.to_string())
}

fn op(change: &Change) -> &'static str {
    match change {
        Change::Insert { upsert: false, .. } => "insert",
        Change::Insert { upsert: true, .. } => "upsert",
        Change::Update { .. } => "update",
        Change::Delete { .. } | Change::SoftDelete { .. } => "delete",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::{Column, Filter, Generated, Kind, Policy, Table};

    fn delete_from(table: &str) -> Change {
        let table = Table {
            name: table.to_owned(),
            sql_name: table.to_owned(),
            columns: vec![Column {
                name: "id".to_owned(),
                kind: Kind::Uuid,
                sql_type: "uuid".to_owned(),
                base_type: "uuid".to_owned(),
                nullable: false,
                has_default: false,
                generated: Generated::No,
                sequence: None,
            }],
            key: vec![0],
            unique: Vec::new(),
            references: Vec::new(),
            policy: Policy::default(),
            row_sql: Default::default(),
        };
        Change::Delete {
            table: Arc::new(table),
            filter: Filter::All(Vec::new()),
            single: false,
        }
    }

    #[test]
    fn a_changed_campaign_is_told_with_its_id() {
        let event = of(&delete_from("campaigns"), &Key(r#"["a"]"#.to_owned()));
        assert_eq!(
            event.unwrap(),
            r#"{"table":"campaigns","op":"delete","key":{"id":"a"},"campaign_id":"a"}"#
        );
    }

    #[test]
    fn another_tables_row_is_told_with_its_key_alone() {
        let event = of(&delete_from("tags"), &Key("[7]".to_owned()));
        assert_eq!(
            event.unwrap(),
            r#"{"table":"tags","op":"delete","key":{"id":7}}"#
        );
    }
}
