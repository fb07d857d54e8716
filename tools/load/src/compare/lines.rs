//! The common part of the other systems' protocols: lines that end with CR LF.

use crate::run::postern::invalid_answer;

/// The first item of some bytes and the bytes after it; `None` if it is incomplete.
pub(crate) type Split<'a, T> = Result<Option<(T, &'a [u8])>, String>;

/// Splits off the first line, without its end.
pub(crate) fn split_line(input: &[u8]) -> Split<'_, &str> {
    let Some(end) = memchr::memmem::find(input, b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&input[..end]).map_err(|_| invalid_answer(&input[..end]))?;
    Ok(Some((line, &input[end + 2..])))
}

/// Splits off a body of a known length, and its CR LF.
pub(crate) fn split_body(input: &[u8], length: usize) -> Split<'_, &[u8]> {
    let Some((body, rest)) = input.split_at_checked(length) else { return Ok(None) };
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok(Some((body, rest))),
        [] | [b'\r'] => Ok(None),
        _ => Err(invalid_answer(rest)),
    }
}

/// Handles all complete items at the front of some bytes and returns their length.
pub(crate) fn parse_each<'a, T>(
    input: &'a [u8],
    split: impl Fn(&'a [u8]) -> Split<'a, T>,
    mut handle: impl FnMut(T) -> Result<(), String>,
) -> Result<usize, String> {
    let mut rest = input;
    while let Some((item, after)) = split(rest)? {
        handle(item)?;
        rest = after;
    }
    Ok(input.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_parts_are_split_off() {
        assert_eq!(split_line(b"+OK"), Ok(None));
        assert_eq!(split_line(b"+OK\r"), Ok(None));
        assert_eq!(split_line(b"+OK\r\n"), Ok(Some(("+OK", &b""[..]))));
        assert_eq!(split_line(b"\r\n\r\n"), Ok(Some(("", &b"\r\n"[..]))));
        assert_eq!(split_body(b"ab", 3), Ok(None));
        assert_eq!(split_body(b"abc", 3), Ok(None));
        assert_eq!(split_body(b"abc\r", 3), Ok(None));
        assert_eq!(split_body(b"abc\r\nd", 3), Ok(Some((&b"abc"[..], &b"d"[..]))));
        assert!(split_body(b"abcd\r\n", 3).is_err());
        assert_eq!(split_body(b"abc", usize::MAX), Ok(None));
    }
}
