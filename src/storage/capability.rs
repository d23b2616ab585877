//! What a storage service can do beyond the plan's select, insert and update by equality.

use std::collections::BTreeSet;

/// One capability: those of SPEC 1, and `describe`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Capability {
    /// `delete`.
    Delete,
    /// `count`.
    Count,
    /// `upsert`.
    Upsert,
    /// `where` operators beyond equality.
    Operators,
    /// `order_by`.
    OrderBy,
    /// `transaction`.
    Transaction,
    /// `range`.
    Ranges,
    /// `batch`.
    Batch,
    /// Refuses late writes at commit.
    Deadline,
    /// Recognises repeated sends, refusals included.
    AttemptId,
    /// Refuses older fence tokens.
    Fencing,
    /// `resolve`.
    Resolve,
    /// `describe`.
    Describe,
}

/// The capabilities of one service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 13] = [
        Self::Delete,
        Self::Count,
        Self::Upsert,
        Self::Operators,
        Self::OrderBy,
        Self::Transaction,
        Self::Ranges,
        Self::Batch,
        Self::Deadline,
        Self::AttemptId,
        Self::Fencing,
        Self::Resolve,
        Self::Describe,
    ];

    /// As the config spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Count => "count",
            Self::Upsert => "upsert",
            Self::Operators => "operators",
            Self::OrderBy => "order_by",
            Self::Transaction => "transaction",
            Self::Ranges => "ranges",
            Self::Batch => "batch",
            Self::Deadline => "deadline",
            Self::AttemptId => "attempt_id",
            Self::Fencing => "fencing",
            Self::Resolve => "resolve",
            Self::Describe => "describe",
        }
    }
}

impl Capabilities {
    /// All of them: what the reference service has.
    #[must_use]
    pub fn all() -> Self {
        Self(Capability::ALL.into_iter().collect())
    }

    /// Reads the config's list; `all` stands for every one.
    ///
    /// # Errors
    /// The name that is not a capability.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut set = BTreeSet::new();
        for name in names {
            if name == "all" {
                set.extend(Capability::ALL);
                continue;
            }
            let known = Capability::ALL
                .into_iter()
                .find(|capability| capability.as_str() == name);
            set.insert(known.ok_or_else(|| name.to_owned())?);
        }
        Ok(Self(set))
    }

    /// Whether the service has it.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// The same without one.
    #[must_use]
    pub fn without(mut self, capability: Capability) -> Self {
        self.0.remove(&capability);
        self
    }
}
