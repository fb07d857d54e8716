//! Frames of a link: a length as `u32`, and a packet.

use crate::limits::FRAME_BYTES_MAX;
use byteorder::{ByteOrder, LE};

/// The length before each frame, in bytes.
pub const LENGTH_BYTES: usize = 4;

/// Begins a frame in an empty buffer.
pub fn begin_frame(frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend([0; LENGTH_BYTES]);
}

/// Completes a frame with its length.
///
/// # Panics
/// The packet is over [`FRAME_BYTES_MAX`].
pub fn end_frame(frame: &mut [u8]) {
    let length = frame.len() - LENGTH_BYTES;
    assert!(length <= FRAME_BYTES_MAX, "a frame over its bound");
    LE::write_u32(frame, length as u32);
}

/// Returns the next frame, if all of it is here.
///
/// # Errors
/// Its length is over the bound.
pub fn next_frame(input: &[u8]) -> Option<Result<&[u8], ()>> {
    let length = LE::read_u32(input.get(..LENGTH_BYTES)?) as usize;
    if length > FRAME_BYTES_MAX {
        return Some(Err(()));
    }
    input.get(LENGTH_BYTES..LENGTH_BYTES + length).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bounded_before_they_are_believed() {
        assert_eq!(next_frame(&[2, 0, 0, 0, 7, 8, 9]), Some(Ok(&[7, 8][..])));
        assert_eq!(next_frame(&[2, 0, 0, 0, 7]), None);
        assert_eq!(next_frame(&[2, 0, 0]), None);
        assert_eq!(next_frame(&[0xff; 4]), Some(Err(())));
    }
}
