//! The values that labels may have.

use std::fmt;

use crate::compare::DifferenceKind;
use crate::contract::Query;

/// Declares a closed set of label values with their spelling.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, so that series exist before their first event.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it is spelled in labels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

labels! {
    /// Where a request came in.
    Door {
        /// The HTTP door.
        Http = "http",
        /// The AMQP door.
        Amqp = "amqp",
    }
}

labels! {
    /// What a request asks for.
    Op {
        /// `select`.
        Select = "select",
        /// `count`.
        Count = "count",
        /// `insert`.
        Insert = "insert",
        /// `upsert`.
        Upsert = "upsert",
        /// `update`.
        Update = "update",
        /// `delete`.
        Delete = "delete",
        /// `transaction`.
        Transaction = "transaction",
        /// `range`.
        Range = "range",
        /// `batch`.
        Batch = "batch",
        /// `resolve`.
        Resolve = "resolve",
        /// `describe`.
        Describe = "describe",
        /// A read or write of the guard's own.
        Probe = "probe",
        /// The request could not be read.
        Invalid = "invalid",
    }
}

labels! {
    /// Why a backend did not answer, by what it means for the write.
    ErrorKind {
        /// It refused: nothing happened.
        Rejected = "rejected",
        /// It was not reached: nothing happened.
        Unavailable = "unavailable",
        /// It ran into its time limit and was undone: nothing happened.
        TimedOut = "timed_out",
        /// It may have happened.
        InDoubt = "in_doubt",
        /// The answer, or the refusal, makes no sense.
        Unexpected = "unexpected",
    }
}

labels! {
    /// How a comparison ended.
    Comparison {
        /// Both sides agree.
        Match = "match",
        /// They differed and then agreed.
        Transient = "transient",
        /// They differ while the authority's row stood still.
        Confirmed = "confirmed",
        /// One side answered with an error.
        OneSidedError = "one_sided_error",
        /// Not chosen by `compare.sample`.
        Unsampled = "unsampled",
        /// Not done for want of room.
        Shed = "shed",
        /// A named rule says not to look.
        Ignored = "ignored",
    }
}

labels! {
    /// How the two sides differ.
    DivergenceKind {
        /// The secondary's reply is not of the contract's shape.
        Shape = "shape",
        /// The secondary lacks a row.
        Missing = "missing",
        /// The secondary has a row that the authority does not.
        Extra = "extra",
        /// On one side only, a row refers to one that is not there.
        Orphan = "orphan",
        /// The soft-delete column is set on one side only.
        SoftDelete = "soft_delete",
        /// The secondary's version of a row is older.
        Version = "version",
        /// The secondary's version of a row is newer.
        VersionAhead = "version_ahead",
        /// A row's fields differ.
        Field = "field",
        /// The same rows in another order.
        Order = "order",
        /// Counts differ.
        Count = "count",
        /// Storage's reply to a write is not what was written.
        EchoMismatch = "echo_mismatch",
        /// Legacy refused what storage had taken; storage gets legacy's row back.
        Refused = "refused",
    }
}

labels! {
    /// Where a row stands in a backfill.
    Backfilled {
        /// Owed to storage.
        Done = "done",
        /// Yet to be owed, as far as that is known.
        Left = "left",
        /// Only storage had it; its removal is owed.
        Extra = "extra",
    }
}

labels! {
    /// How a payment ended.
    Payment {
        /// The secondary has it.
        Applied = "applied",
        /// A newer entry of the key covers it.
        Superseded = "superseded",
        /// The secondary refused it; retried later.
        Parked = "parked",
        /// The secondary refused it for good.
        Quarantined = "quarantined",
        /// The secondary was not reached; retried.
        Unavailable = "unavailable",
        /// It may have happened; paid again after its deadline.
        InDoubt = "in_doubt",
    }
}

labels! {
    /// Who moved the stage.
    ActorKind {
        /// A person, through the admin API.
        Operator = "operator",
        /// The flag file.
        FlagFile = "flag_file",
        /// A rollback trigger.
        Guard = "guard",
        /// The proxy itself: a full journal, a coordinator that died.
        Proxy = "proxy",
    }
}

labels! {
    /// Whose clock is compared with this replica's.
    Peer {
        /// The legacy database.
        Legacy = "legacy",
        /// The storage service.
        Storage = "storage",
        /// The replica that differs most.
        Replica = "replica",
    }
}

labels! {
    /// What is known of a replica.
    ReplicaState {
        /// Heard of within its lease.
        Fresh = "fresh",
        /// Not heard of.
        Missing = "missing",
        /// It may have dropped a debt to legacy (rule P15).
        Dirty = "dirty",
    }
}

labels! {
    /// What was refused or left out for want of room.
    Shed {
        /// Requests at the HTTP door.
        HttpRequest = "http_request",
        /// Reads on the secondary.
        ShadowRead = "shadow_read",
    }
}

labels! {
    /// What became of an AMQP request.
    AmqpAnswer {
        /// The answer was published and routed.
        Answered = "answered",
        /// The answer was published, but nobody waits for it any more.
        Unroutable = "unroutable",
        /// The answer could not be published; the request comes again.
        Failed = "failed",
        /// No `reply_to`: dead-lettered.
        DeadLettered = "dead_lettered",
    }
}

labels! {
    /// How a table of storage differs from legacy's.
    DriftKind {
        /// Storage does not have it.
        MissingTable = "missing_table",
        /// Storage lacks a column.
        MissingColumn = "missing_column",
        /// Only storage has a column.
        ExtraColumn = "extra_column",
        /// A column holds what legacy's cannot read, or cannot hold what legacy's does.
        Type = "type",
        /// Storage refuses NULL in a column, legacy does not.
        NotNull = "not_null",
        /// A column is computed on one side only.
        Generated = "generated",
        /// The primary keys are not the same.
        PrimaryKey = "primary_key",
        /// Only storage holds columns unique.
        Unique = "unique",
        /// Only storage has a foreign key, or it does something else when the row that is pointed at goes.
        ForeignKey = "foreign_key",
        /// Only legacy enforces something. Told, and nothing is held up.
        Looser = "looser",
    }
}

labels! {
    /// What the guard watches storage by.
    Trigger {
        /// The share of storage's calls that failed.
        FailureRate = "failure_rate",
        /// Confirmed divergences.
        Inconsistency = "inconsistency",
        /// How much slower storage is than legacy.
        LatencyDelta = "latency_delta",
        /// Storage is not there at all.
        Unavailable = "unavailable",
    }
}

impl DriftKind {
    /// Whether rows that legacy takes may be refused, cut or spelled otherwise by storage.
    #[must_use]
    pub fn blocks(self) -> bool {
        match self {
            Self::MissingTable
            | Self::MissingColumn
            | Self::ExtraColumn
            | Self::Type
            | Self::NotNull
            | Self::Generated
            | Self::PrimaryKey
            | Self::Unique
            | Self::ForeignKey => true,
            Self::Looser => false,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Op {
    /// The operation of a query.
    #[must_use]
    pub fn of(query: &Query) -> Self {
        match query {
            Query::Select(_) => Self::Select,
            Query::Count(_) => Self::Count,
            Query::Insert(_) => Self::Insert,
            Query::Upsert(_) => Self::Upsert,
            Query::Update(_) => Self::Update,
            Query::Delete(_) => Self::Delete,
            Query::Transaction(_) => Self::Transaction,
            Query::Range(_) => Self::Range,
            Query::Batch(_) => Self::Batch,
            Query::Resolve(_) => Self::Resolve,
            Query::Describe(_) => Self::Describe,
        }
    }
}

impl From<DifferenceKind> for DivergenceKind {
    fn from(kind: DifferenceKind) -> Self {
        match kind {
            DifferenceKind::Shape => Self::Shape,
            DifferenceKind::Missing => Self::Missing,
            DifferenceKind::Extra => Self::Extra,
            DifferenceKind::Orphan => Self::Orphan,
            DifferenceKind::SoftDelete => Self::SoftDelete,
            DifferenceKind::Version => Self::Version,
            DifferenceKind::VersionAhead => Self::VersionAhead,
            DifferenceKind::Field => Self::Field,
            DifferenceKind::Order => Self::Order,
            DifferenceKind::Count => Self::Count,
        }
    }
}
