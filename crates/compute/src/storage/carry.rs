//! Read-only images (config drives, small CD-ROMs) that are carried to the destination by message, piece by piece.
//!
//! libvirt copies no read-only disk. The conductor asks the source for each piece and hands it to the destination, which has made the
//! file before, full of zeros and marked ([`super::disks`]): agents trust nobody but the conductor, and no port is needed. What is zero
//! does not travel.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use drover_common::rpc::latest::{Extent, ImagePiece, PIECE_BYTES_MAX};

use super::disks::{Owner, open_marked};

/// What is all zero in such a block is left out.
const BLOCK_BYTES: usize = 64 << 10;

/// The piece of a file that begins at `offset`. Blocks.
pub fn read(path: &Path, offset: u64) -> io::Result<ImagePiece> {
    let file = fs::File::open(path)?;
    let (mut at, mut extents, mut content_bytes) = (offset, Vec::<Extent>::new(), 0);
    let mut block = vec![0; BLOCK_BYTES];
    while content_bytes + BLOCK_BYTES <= PIECE_BYTES_MAX {
        let read = read_full(&file, &mut block, at)?;
        let content = block.get(..read).unwrap_or_default();
        if content.iter().any(|byte| *byte != 0) {
            content_bytes += read;
            match extents.last_mut() {
                Some(last) if last.offset + last.content.len() as u64 == at => last.content.extend_from_slice(content),
                _ => extents.push(Extent { offset: at, content: content.to_vec() }),
            }
        }
        at += read as u64;
        if read < BLOCK_BYTES {
            return Ok(ImagePiece { extents, next: None });
        }
    }
    Ok(ImagePiece { extents, next: Some(at) })
}

fn read_full(file: &fs::File, block: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = block.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// Writes a piece into the file that this attempt made, within its length. Blocks.
pub fn write(path: &Path, owner: Owner, piece: &ImagePiece) -> io::Result<()> {
    let file = open_marked(path, owner)?;
    let length = file.metadata()?.len();
    for extent in &piece.extents {
        let end = extent.offset.checked_add(extent.content.len() as u64);
        if end.is_none_or(|end| end > length) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the image has grown beyond its {length} bytes")));
        }
        file.write_all_at(&extent.content, extent.offset)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{Attempt, MigrationId};

    use super::super::disks;
    use super::*;

    #[test]
    fn an_image_arrives_as_it_was_piece_by_piece_and_its_zeros_do_not_travel() {
        let directory = std::env::temp_dir().join(format!("drover-carry-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&directory).unwrap();
        let (from, to) = (directory.join("from"), directory.join("to"));
        let owner = Owner { migration: MigrationId(7), attempt: Attempt(1) };
        for (length, dense) in [(0_usize, 0_usize), (5, 5), (300_000, 1000), (10 << 20, 4 << 20), ((6 << 20) + 17, (6 << 20) + 17)]
        {
            let mut content: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap() | 1).collect();
            content[dense / 2..length - dense.div_ceil(2)].fill(0);
            fs::write(&from, &content).unwrap();
            fs::remove_file(&to).ok();
            fs::File::create_new(&to).unwrap().set_len(length as u64).unwrap();
            disks::mark(&to, owner).unwrap();
            let (mut offset, mut carried) = (Some(0), 0);
            while let Some(at) = offset {
                let piece = read(&from, at).unwrap();
                let bytes: usize = piece.extents.iter().map(|extent| extent.content.len()).sum();
                assert!(bytes <= PIECE_BYTES_MAX);
                carried += bytes;
                write(&to, owner, &piece).unwrap();
                write(&to, owner, &piece).unwrap(); // The answer may have been lost.
                offset = piece.next;
            }
            assert!(fs::read(&to).unwrap() == content, "{length}");
            assert!(carried <= dense + 2 * BLOCK_BYTES, "{carried} of {dense}");
        }
        let piece = read(&from, 0).unwrap();
        let other = Owner { attempt: Attempt(2), ..owner };
        assert_eq!(write(&to, other, &piece).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::File::create(&to).unwrap();
        assert_eq!(write(&to, owner, &piece).unwrap_err().kind(), io::ErrorKind::InvalidInput, "never beyond the end");
        fs::remove_dir_all(&directory).unwrap();
    }
}
