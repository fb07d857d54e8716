//! What the text protocols of the others have in common: lines that end with CR LF.

/// The first line without its end, and what follows it; none when it is not whole.
pub(crate) fn split_line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memmem::find(input, b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}

/// What stands at the front of some bytes, and what follows it; none when it is not whole.
pub(crate) type Split<'a, T> = Result<Option<(T, &'a [u8])>, String>;

/// Takes what is whole at the front of some bytes, one after the other: how many bytes it was.
pub(crate) fn take_each<'a, T>(
    input: &'a [u8],
    split: impl Fn(&'a [u8]) -> Split<'a, T>,
    mut take: impl FnMut(T) -> Result<(), String>,
) -> Result<usize, String> {
    let mut rest = input;
    while let Some((one, after)) = split(rest)? {
        take(one)?;
        rest = after;
    }
    Ok(input.len() - rest.len())
}

/// A line as text that can be shown and parsed.
pub(crate) fn text(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|_| strange(line))
}

/// Why a conversation ends with an answer that no server should give.
pub(crate) fn strange(answer: &[u8]) -> String {
    format!("strange-answer `{}`", answer.escape_ascii())
}

/// The body whose length a line has announced; its CR LF is taken, too.
pub(crate) fn split_body(input: &[u8], length: usize) -> Split<'_, &[u8]> {
    let Some((body, rest)) = input.split_at_checked(length) else { return Ok(None) };
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok(Some((body, rest))),
        [] | [b'\r'] => Ok(None),
        _ => Err(strange(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_are_taken() {
        assert_eq!(split_line(b"+OK"), None);
        assert_eq!(split_line(b"+OK\r"), None);
        assert_eq!(split_line(b"+OK\r\n"), Some((&b"+OK"[..], &b""[..])));
        assert_eq!(split_line(b"\r\n\r\n"), Some((&b""[..], &b"\r\n"[..])));
        assert_eq!(split_body(b"ab", 3), Ok(None));
        assert_eq!(split_body(b"abc", 3), Ok(None));
        assert_eq!(split_body(b"abc\r", 3), Ok(None));
        assert_eq!(split_body(b"abc\r\nd", 3), Ok(Some((&b"abc"[..], &b"d"[..]))));
        assert!(split_body(b"abcd\r\n", 3).is_err());
        assert_eq!(split_body(b"abc", usize::MAX), Ok(None));
    }
}
