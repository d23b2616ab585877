//! The keys that hold secrets: URLs and tokens, written out or named by variable or file.

use super::check::Checker;
use super::raw::{Raw, RawSecret};
use super::{Address, AdminToken, DoorToken, TokenHash};

/// Tokens that people make up are guessed: those that machines make are longer than this.
const TOKEN_CHARS_MIN: usize = 16;

impl Checker<'_> {
    pub(super) fn door_tokens(&mut self, raw: &Raw) -> Vec<DoorToken> {
        let mut tokens = Vec::new();
        for (index, token) in raw.http.tokens.iter().enumerate() {
            let key = format!("http.tokens.{index}");
            let taken = raw.http.tokens[..index]
                .iter()
                .any(|one| one.name == token.name);
            self.unique_name(&key, &token.name, taken);
            for (at, table) in token.tables.iter().flatten().enumerate() {
                if !raw.tables.iter().any(|known| known.name == *table) {
                    self.found(
                        &format!("{key}.tables.{at}"),
                        format!("no [[tables]] is named {table:?}"),
                        "name configured tables, or leave `tables` out to allow all",
                    );
                }
            }
            let hash = self.token_hash(&key, token.token.as_ref(), token.hash.as_deref());
            tokens.extend(hash.map(|hash| DoorToken {
                name: token.name.clone(),
                hash,
                tables: token.tables.clone(),
                access: token.access,
            }));
        }
        tokens
    }

    pub(super) fn admin_tokens(&mut self, raw: &Raw) -> Vec<AdminToken> {
        let mut tokens = Vec::new();
        for (index, token) in raw.admin.tokens.iter().enumerate() {
            let key = format!("admin.tokens.{index}");
            let taken = raw.admin.tokens[..index]
                .iter()
                .any(|one| one.name == token.name);
            self.unique_name(&key, &token.name, taken);
            let hash = self.token_hash(&key, token.token.as_ref(), token.hash.as_deref());
            tokens.extend(hash.map(|hash| AdminToken {
                name: token.name.clone(),
                hash,
                role: token.role,
            }));
        }
        tokens
    }

    fn unique_name(&mut self, key: &str, name: &str, taken: bool) {
        if taken || name.is_empty() {
            self.found(
                &format!("{key}.name"),
                format!("{name:?} does not tell this token from others"),
                "give every token a name of its own: the audit shows it",
            );
        }
    }

    fn token_hash(
        &mut self,
        key: &str,
        token: Option<&RawSecret>,
        hash: Option<&str>,
    ) -> Option<TokenHash> {
        match (token, hash) {
            (Some(token), None) => {
                let text = self.secret(&format!("{key}.token"), token)?;
                if text.len() < TOKEN_CHARS_MIN {
                    self.found(
                        &format!("{key}.token"),
                        "is shorter than 16 characters",
                        "make one with: openssl rand -hex 32",
                    );
                    return None;
                }
                Some(TokenHash::of(&text))
            }
            (None, Some(hash)) => {
                let hash = TokenHash::from_hex(hash);
                if hash.is_none() {
                    self.found(
                        &format!("{key}.hash"),
                        "is not the 64 hexadecimal digits of a SHA-256",
                        "make it with: printf %s \"$TOKEN\" | sha256sum",
                    );
                }
                hash
            }
            (Some(_), Some(_)) | (None, None) => {
                self.found(
                    key,
                    "needs one of `token` and `hash`",
                    "give token = { env = \"NAME\" } or hash = \"<sha256>\"",
                );
                None
            }
        }
    }

    pub(super) fn address(
        &mut self,
        key: &str,
        secret: Option<&RawSecret>,
        schemes: &[&str],
    ) -> Option<Address> {
        let hint = format!("give a URL that begins with {}://", schemes.join(":// or "));
        let Some(secret) = secret else {
            self.found(key, "is missing", &hint);
            return None;
        };
        let text = self.secret(key, secret)?;
        let known = text
            .split_once("://")
            .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
        if !known {
            self.found(key, "is not such a URL", &hint);
            return None;
        }
        Some(Address::new(text))
    }

    fn secret(&mut self, key: &str, secret: &RawSecret) -> Option<String> {
        match secret {
            RawSecret::Plain(text) => Some(text.clone()),
            RawSecret::Env(name) => {
                let value = self.environment.iter().find(|(known, _)| known == name);
                if value.is_none() {
                    self.found(
                        key,
                        format!("the environment variable {name} is not set"),
                        "set it, or use { file = \"path\" }",
                    );
                }
                value.map(|(_, value)| value.clone())
            }
            RawSecret::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    self.found(
                        key,
                        format!("the file {} cannot be read: {error}", path.display()),
                        "the path is relative to where the process starts",
                    );
                    None
                }
            },
        }
    }
}
