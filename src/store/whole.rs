//! Files that are read, replaced or copied as a whole.

use super::disk::Disk;
use crate::limits::FILE_PIECE_BYTES;
use std::io;

/// Opens a file for reading and writing; `None` when it is missing.
pub(super) fn open<D: Disk>(disk: &D, name: &str) -> io::Result<Option<D::File>> {
    match disk.open(name, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the first `most` bytes of a file; `None` when it is missing.
pub(super) fn read<D: Disk>(disk: &D, name: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open(disk, name)? else { return Ok(None) };
    let mut bytes = vec![0; disk.size(&file)?.min(most as u64) as usize];
    let length = disk.read_at(&file, &mut bytes, 0)?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// Removes a file, if it exists.
pub(super) fn remove<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Replaces a file; the new bytes are durable on return.
pub(super) fn replace<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    let file = disk.open(&new, true)?;
    disk.truncate(&file, 0)?;
    disk.write_at(&file, bytes, 0)?;
    disk.sync(&file)?;
    disk.rename(&new, name)?;
    disk.sync_folder(".")
}

/// Copies all bytes of a file from the offset `at` to the same offsets of a file, perhaps of the
/// same one. They are durable on return.
pub(super) fn copy<D: Disk>(disk: &D, from: &D::File, to: &D::File, mut at: u64) -> io::Result<()> {
    let mut piece = vec![0; FILE_PIECE_BYTES];
    loop {
        let read = disk.read_at(from, &mut piece, at)?;
        if read == 0 {
            return disk.sync(to);
        }
        disk.write_at(to, &piece[..read], at)?;
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    #[test]
    fn one_that_cannot_be_opened_is_not_taken_for_missing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        assert_eq!(read(&disk, "vote", 10).unwrap(), None);
        replace(&disk, "vote", b"a vote that is longer").unwrap();
        assert_eq!(read(&disk, "vote", 10).unwrap().unwrap(), b"a vote tha");
        assert!(read(&disk, "vote/folder", 10).is_err());
    }
}
