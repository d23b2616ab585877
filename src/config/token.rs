//! Bearer tokens: who may use a door or the admin plane.
//!
//! A token is kept as its SHA-256 only. It is high-entropy text that a machine made, so a plain fast hash
//! suffices; comparing hashes in constant time leaks nothing about the token.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// A client of the doors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DoorToken {
    /// Who it is, for logs.
    pub name: String,
    /// What the client must present.
    pub hash: TokenHash,
    /// The tables it may name; none means all.
    pub tables: Option<Vec<String>>,
    /// What it may do with them.
    pub access: Access,
}

/// What a client of the doors may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// `select` and `count`.
    Read,
    /// Everything.
    Write,
}

/// A user of the admin plane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AdminToken {
    /// Who it is, for the audit.
    pub name: String,
    /// What the user must present.
    pub hash: TokenHash,
    /// What the user may do.
    pub role: Role,
}

/// What a user of the admin plane may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and change.
    Operator,
}

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits, as `sha256sum` prints them.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(index * 2..index * 2 + 2)?;
            if pair.starts_with('+') {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are the hash of the same token, in time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, presented: &Self) -> bool {
        self.0.ct_eq(&presented.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl Serialize for TokenHash {
    /// Hidden: whoever sees the configuration need not see hashes.
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_the_hash_that_sha256sum_prints() {
        // printf %s secret | sha256sum
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let hash = TokenHash::from_hex(hex).unwrap();
        assert!(hash.matches(&TokenHash::of("secret")));
        assert!(!hash.matches(&TokenHash::of("secret ")));
        assert_eq!(TokenHash::from_hex("2bb8"), None);
        assert_eq!(TokenHash::from_hex(&"+1".repeat(32)), None);
    }
}
