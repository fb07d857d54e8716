//! Space reserved for a start on a full disk: a server must write its identity before it can
//! serve reads and DELETE again.

use super::disk::Disk;
use crate::limits::RESERVE_BYTES;
use std::io;

const NAME: &str = "reserve";

/// Reserves the space unless it is reserved already.
pub(super) fn keep<D: Disk>(disk: &D) -> io::Result<()> {
    let file = disk.open(NAME, true)?;
    if disk.size(&file)? < RESERVE_BYTES {
        disk.write_at(&file, &vec![0; RESERVE_BYTES as usize], 0)?;
        disk.sync(&file)?;
    }
    Ok(())
}

/// Frees the space. Returns whether it was reserved.
pub(super) fn release<D: Disk>(disk: &D) -> io::Result<bool> {
    match disk.remove(NAME) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
