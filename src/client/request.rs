//! Requests, checked by the rules of the servers.

use super::Attributes;
use super::answer::Refusal;
use crate::content::{AttributeList, Content};
use crate::protocol::{self, Code};

/// Checks a request by the rules of the servers, so that the client never sends one that they
/// refuse. Each argument must be exactly one word, since otherwise it would change the request.
pub(super) fn check(words: &[&str], request: &str) -> Result<(), Refusal> {
    if words.iter().any(|word| word.is_empty() || word.contains(' ')) {
        // The argument may be a password, so the message does not contain it.
        let words = "a name or a password is one word, without spaces";
        return Err(Refusal::new(Code::BadArgument, words));
    }
    let refused = |why: protocol::Refusal| Refusal::new(why.code, why.words);
    protocol::parse(request.as_bytes()).map(drop).map_err(refused)
}

/// Returns the lines that add these attributes to a message with this text.
pub(super) fn with_lines(text: &str, attributes: &Attributes) -> Result<String, Refusal> {
    let (mut lines, mut list) = (String::new(), AttributeList::default());
    for (attribute, value) in attributes.each() {
        let line = format!("WITH {attribute} {value}");
        check(&[], &line)?;
        list.set(attribute, &value);
        lines += &line;
        lines.push('\n');
    }
    if !protocol::fits(Content { text, attributes: list.get() }) {
        let words = "a title and a text have at most 3840 bytes together";
        return Err(Refusal::new(Code::TooLong, words));
    }
    Ok(lines)
}
