//! A message as the rest of the program sees it: no type of the AMQP library leaves this module.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The value of a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Header {
    /// An integer of any of AMQP's widths.
    Int(i64),
    /// Text.
    Text(String),
}

/// A message to send or one that came: body and the properties this program uses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// The payload.
    pub body: Vec<u8>,
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Where to answer to; at most 255 bytes, as all short texts here.
    pub reply_to: Option<String>,
    /// What the answer has to carry.
    pub correlation_id: Option<String>,
    /// The sender's name for the message.
    pub message_id: Option<String>,
    /// Milliseconds the message may wait in a queue.
    pub expiration_ms: Option<u64>,
    /// When it was sent: Unix time in seconds, as AMQP has it.
    pub timestamp_s: Option<u64>,
    /// Kept on disk by durable queues.
    pub persistent: bool,
    /// Application headers; those of other types than `Header` knows are not shown.
    pub headers: BTreeMap<String, Header>,
}

/// A text that AMQP's short strings (255 bytes) do not hold.
#[derive(Debug, thiserror::Error)]
#[error("{0} is longer than 255 bytes")]
pub(super) struct TooLong(&'static str);

/// `text` as AMQP's short string; `what` names it in the error.
pub(super) fn short(what: &'static str, text: &str) -> Result<ShortString, TooLong> {
    ShortString::try_new(text).map_err(|_| TooLong(what))
}

impl Header {
    /// The integer, also when it was sent as text.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn to_amqp(&self) -> AMQPValue {
        match self {
            Self::Int(value) => AMQPValue::LongLongInt(*value),
            Self::Text(text) => AMQPValue::LongString(text.as_bytes().into()),
        }
    }

    fn from_amqp(value: &AMQPValue) -> Option<Self> {
        Some(match value {
            AMQPValue::ShortShortInt(value) => Self::Int((*value).into()),
            AMQPValue::ShortShortUInt(value) => Self::Int((*value).into()),
            AMQPValue::ShortInt(value) => Self::Int((*value).into()),
            AMQPValue::ShortUInt(value) => Self::Int((*value).into()),
            AMQPValue::LongInt(value) => Self::Int((*value).into()),
            AMQPValue::LongUInt(value) => Self::Int((*value).into()),
            AMQPValue::LongLongInt(value) => Self::Int(*value),
            AMQPValue::ShortString(text) => Self::Text(text.to_string()),
            AMQPValue::LongString(text) => {
                Self::Text(String::from_utf8_lossy(text.as_bytes()).into_owned())
            }
            _ => return None,
        })
    }
}

impl Message {
    /// A JSON message.
    #[must_use]
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            content_type: Some("application/json".to_owned()),
            ..Self::default()
        }
    }

    /// The message with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: Header) -> Self {
        self.headers.insert(name.to_owned(), value);
        self
    }

    /// The properties as they go on the wire.
    pub(super) fn properties(&self) -> Result<BasicProperties, TooLong> {
        let mut table = FieldTable::default();
        for (name, value) in &self.headers {
            table.insert(short("a header's name", name)?, value.to_amqp());
        }
        let mut properties = BasicProperties::default()
            .with_headers(table)
            .with_delivery_mode(if self.persistent { 2 } else { 1 });
        if let Some(text) = &self.content_type {
            properties = properties.with_content_type(short("content_type", text)?);
        }
        if let Some(text) = &self.reply_to {
            properties = properties.with_reply_to(short("reply_to", text)?);
        }
        if let Some(text) = &self.correlation_id {
            properties = properties.with_correlation_id(short("correlation_id", text)?);
        }
        if let Some(text) = &self.message_id {
            properties = properties.with_message_id(short("message_id", text)?);
        }
        if let Some(expiration) = self.expiration_ms {
            properties = properties.with_expiration(short("expiration", &expiration.to_string())?);
        }
        if let Some(timestamp) = self.timestamp_s {
            properties = properties.with_timestamp(timestamp);
        }
        Ok(properties)
    }

    /// A message that came.
    pub(super) fn received(body: Vec<u8>, properties: &BasicProperties) -> Self {
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let headers = properties.headers().as_ref().map(|table| {
            let known = table.inner().iter().filter_map(|(name, value)| {
                Header::from_amqp(value).map(|value| (name.to_string(), value))
            });
            known.collect()
        });
        Self {
            body,
            content_type: text(properties.content_type()),
            reply_to: text(properties.reply_to()),
            correlation_id: text(properties.correlation_id()),
            message_id: text(properties.message_id()),
            expiration_ms: text(properties.expiration()).and_then(|text| text.parse().ok()),
            timestamp_s: *properties.timestamp(),
            persistent: *properties.delivery_mode() == Some(2),
            headers: headers.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_received_as_it_was_sent() {
        let sent = Message {
            reply_to: Some("amq.rabbitmq.reply-to".into()),
            correlation_id: Some("7".into()),
            message_id: Some("m".into()),
            expiration_ms: Some(1500),
            timestamp_s: Some(1_700_000_000),
            persistent: true,
            ..Message::json("{}")
        }
        .with_header("deadline", Header::Int(-5))
        .with_header("traceparent", Header::Text("00-é".into()));
        let properties = sent.properties().unwrap();
        assert_eq!(Message::received(b"{}".to_vec(), &properties), sent);
    }

    #[test]
    fn an_over_long_text_is_refused_instead_of_breaking_the_channel() {
        let message = Message {
            correlation_id: Some("x".repeat(256)),
            ..Message::default()
        };
        assert!(message.properties().is_err());
    }
}
