//! Space reserved for a start on a full disk: a server must write its identity before it can
//! serve reads and DELETE again.

use super::Store;
use super::disk::Disk;
use crate::limits::RESERVE_BYTES;
use std::io;

const NAME: &str = "reserve";

impl<D: Disk> Store<D> {
    /// Reserves space, unless it is reserved, so that a later start succeeds on a full disk.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn keep_reserve(&self) -> io::Result<()> {
        let file = self.disk.open(NAME, true)?;
        if self.disk.size(&file)? < RESERVE_BYTES {
            self.disk.write_at(&file, &vec![0; RESERVE_BYTES as usize], 0)?;
            self.disk.sync(&file)?;
        }
        Ok(())
    }

    /// Frees the reserved space so that the directory can be opened. Returns whether space was
    /// reserved.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn release_reserve(disk: &D) -> io::Result<bool> {
        match disk.remove(NAME) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
