//! The hashes of passwords in memory: most of what an account takes.

use std::borrow::Cow;

/// What the hashes begin with that this version makes: algorithm, version and cost.
const USUAL: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// Stands before a hash that begins otherwise.
const OTHER: char = '$';

/// The hash of a password, without what all of them begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// Of a PHC string.
    pub fn new(text: &str) -> PasswordHash {
        let rest = text.strip_prefix(USUAL).filter(|rest| !rest.starts_with(OTHER));
        let kept = rest.map_or_else(|| Cow::Owned(format!("{OTHER}{text}")), Cow::Borrowed);
        PasswordHash(kept.into())
    }

    /// The PHC string, in two parts.
    pub fn parts(&self) -> [&str; 2] {
        match self.0.strip_prefix(OTHER) {
            Some(text) => ["", text],
            None => [USUAL, &self.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NOBODY;

    #[test]
    fn a_hash_comes_back_as_it_was() {
        assert!(NOBODY.starts_with(USUAL));
        assert_eq!(PasswordHash::new(NOBODY).0.len(), NOBODY.len() - USUAL.len());
        for rest in ["", "$", "$x", "x", "x$y", "ä"] {
            for text in [rest.to_owned(), format!("{USUAL}{rest}"), format!("${rest}")] {
                assert_eq!(PasswordHash::new(&text).parts().concat(), text);
            }
        }
    }
}
