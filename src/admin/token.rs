//! The token that start-up writes, for whoever may read the proxy's files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use uuid::Uuid;

use crate::config::TokenHash;

/// Makes up a new operator token and leaves it in a file that only its owner can read. The token itself is
/// kept nowhere else; a start replaces the one before.
///
/// # Errors
/// When the file cannot be written.
pub fn write_operator_token(path: &Path) -> io::Result<TokenHash> {
    // Two random UUIDs: 244 bits from the operating system.
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // A file of another name first: an older one may be open to others, and keeps its mode when written to.
    let fresh = path.with_extension(format!("{}.new", Uuid::new_v4().simple()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(TokenHash::of(&token))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_token_is_new_at_every_start_and_its_owners_alone() {
        let folder = std::env::temp_dir().join(Uuid::new_v4().to_string());
        let path = folder.join("data/operator.token");
        let first = write_operator_token(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = write_operator_token(&path).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert!(second.matches(&TokenHash::of(written.trim())));
        assert!(!first.matches(&second));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
