//! What the control needs to be told.

use std::time::Duration;

use crate::stage::Stage;

/// How a replica takes part in the control.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlOptions {
    /// Names this process, and never another: host, process id and something random.
    pub replica_id: String,
    /// How long a replica may rely on what it knows without asking.
    pub lease: Duration,
    /// How often it asks; well below `lease`.
    pub heartbeat: Duration,
    /// How far apart the clocks of replicas, database and service may be.
    pub clock_skew_max: Duration,
    /// How long a transition may hold writers up before it gives up.
    pub flip_max_pause: Duration,
    /// The program's version, for `status`.
    pub version: String,
    /// A digest of the configuration; a difference between replicas blocks an advance.
    pub config_digest: String,
    /// `[legacy] bypass = "refuse"`: the database refuses writes past the proxy in every stage.
    pub bypass_always_refused: bool,
    /// Storage is reached through the broker: a maintenance of one is one of the other.
    pub storage_over_broker: bool,
    /// `[flag] pin`: this replica believes this stage, whatever the database says.
    pub pin: Option<Stage>,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            replica_id: uuid::Uuid::new_v4().to_string(),
            lease: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            clock_skew_max: Duration::from_millis(500),
            flip_max_pause: Duration::from_secs(5),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_digest: String::new(),
            bypass_always_refused: false,
            storage_over_broker: false,
            pin: None,
        }
    }
}
