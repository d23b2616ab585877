//! Telling what was done: on the hub, and by webhook.
//!
//! Both are tried a few times and then given up: the audit has it, and the log. What is told is the
//! evidence, never a row.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{ANNOUNCEMENTS_MAX, Sentinel, webhook};
use crate::hub::{Hub, Message, PublishError, Published, Publisher};

/// The topic exchange of events.
const EXCHANGE: &str = "message_hub";
/// How often each listener is tried.
const TRIES: u32 = 5;
/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Before the second try; doubled before each next one.
const PAUSE: Duration = Duration::from_millis(200);

/// Something to tell.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    /// `rollback` or `freeze`; on the hub with `cutover.` before it.
    pub(super) event: &'static str,
    /// JSON.
    pub(super) body: String,
}

/// The way to the hub.
struct Voice {
    hub: Hub,
    publisher: Publisher,
}

impl Sentinel {
    pub(super) async fn tell(&self, shutdown: &CancellationToken) {
        let voice = self.voice();
        let mut announced = self.announced.lock().await;
        while let Some(Some(one)) = shutdown.run_until_cancelled(announced.recv()).await {
            self.tell_all(&one, voice.as_ref()).await;
        }
        // Told even when a SIGTERM follows on a rollback.
        while let Ok(one) = announced.try_recv() {
            self.tell_all(&one, voice.as_ref()).await;
        }
        if let Some(voice) = voice {
            voice.publisher.close().await;
            voice.hub.close().await;
        }
    }

    fn voice(&self) -> Option<Voice> {
        let options = self.options.load_full();
        let url = options.hub_url.as_deref()?;
        match Hub::connect(url, "cutover guard", &options.trust) {
            Ok(hub) => Some(Voice {
                publisher: Publisher::new(&hub, ANNOUNCEMENTS_MAX),
                hub,
            }),
            Err(error) => {
                tracing::error!(%error, "rollbacks cannot be published");
                None
            }
        }
    }

    async fn tell_all(&self, one: &Announcement, voice: Option<&Voice>) {
        let options = self.options.load_full();
        let hub = async {
            if let Some(voice) = voice {
                persevere("the hub", async || voice.publish(one).await).await;
            }
        };
        let web = async {
            if let Some(url) = &options.webhook {
                let connector = options.trust.connector(TRY_TIMEOUT);
                let post =
                    async || webhook::post(&connector, url, one.body.clone(), TRY_TIMEOUT).await;
                persevere("the webhook", post).await;
            }
        };
        tokio::join!(hub, web);
    }
}

impl Voice {
    async fn publish(&self, one: &Announcement) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        // An exchange that does not exist would cost the channel.
        let declared = self.hub.declare_topic(EXCHANGE, TRY_TIMEOUT).await;
        declared.map_err(|error| told(&error))?;
        let message = Message {
            persistent: true,
            ..Message::json(one.body.clone())
        };
        let key = format!("cutover.{}", one.event);
        let deadline = Instant::now() + TRY_TIMEOUT;
        let receipt = self.publisher.publish(EXCHANGE, &key, message, deadline);
        match receipt.map_err(|error| told(&error))?.settled().await {
            Ok(Published::Confirmed) => Ok(()),
            // Nobody has asked to be told.
            Ok(Published::Returned(_)) => {
                tracing::warn!(key, "no queue is bound for what the guard tells");
                Ok(())
            }
            Err(error @ (PublishError::NotSent(_) | PublishError::InDoubt(_))) => Err(told(&error)),
        }
    }
}

/// Tries until it works or is not worth trying any more.
async fn persevere<F: Future<Output = Result<(), String>>>(
    whom: &'static str,
    attempt: impl Fn() -> F,
) {
    let mut pause = PAUSE;
    for number in 1..=TRIES {
        let Err(why) = attempt().await else { return };
        tracing::warn!(whom, number, why, "what the guard did could not be told");
        if number < TRIES {
            sleep(pause).await;
            pause *= 2;
        }
    }
    tracing::error!(whom, "was not told what the guard did; the audit has it");
}
