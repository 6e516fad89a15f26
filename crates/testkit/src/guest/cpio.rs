//! Writer of the "newc" cpio format, which is all that the kernel wants of an initramfs.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a directory. Its parent must be there already.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds an executable file (plain files need not be told apart in a guest without users).
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, mtime, size, device (2), device meant (2), name size, checksum (unused)
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_format_is_that_of_the_specification() {
        let mut archive = Archive::default();
        archive.file("ab", b"xyz");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000081ed"));
        // A header has 110 bytes; with "ab\0" that is 113, padded to 116; the content is padded to 4.
        assert_eq!(&bytes[110..120], b"ab\0\0\0\0xyz\0");
        assert!(bytes.len().is_multiple_of(4) && bytes.windows(10).any(|part| part == b"TRAILER!!!"));
    }

    #[test]
    fn cpio_reads_what_we_write() {
        let mut archive = Archive::default();
        archive.directory("lib");
        archive.file("lib/a", b"hello");
        archive.device("console", 5, 1);
        let Ok(mut cpio) = Command::new("cpio").args(["--list", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            return; // Not installed: the bench needs it not, only this test does.
        };
        cpio.stdin.take().expect("a pipe").write_all(&archive.finish()).expect("it reads");
        let output = cpio.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "lib\nlib/a\nconsole\n");
    }
}
