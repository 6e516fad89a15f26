//! Memory that is checked. The content of every page follows from the boot, the page's number and its version; the versions are
//! kept elsewhere. A page that is lost, old, mixed up with another or damaged in the copy does not hold what it must.

use super::Stream;

const PAGE_WORDS: usize = 512;
/// Size of a page.
pub const PAGE_BYTES: u64 = (PAGE_WORDS * 8) as u64;
/// Pages per MiB.
pub const PAGES_PER_MIB: u64 = 256;

/// The working set.
#[derive(Debug)]
pub struct WorkingSet {
    boot: u64,
    words: Vec<u64>,
    versions: Vec<u64>,
    cursor: usize,
}

impl WorkingSet {
    /// Allocates and fills `pages` pages (at least one).
    pub fn new(boot: u64, pages: usize) -> Self {
        let pages = pages.max(1);
        let mut set = Self { boot, words: vec![0; pages * PAGE_WORDS], versions: vec![0; pages], cursor: 0 };
        for page in 0..pages {
            set.fill(page);
        }
        set
    }

    /// Checks the next `count` pages without writing; returns the number of bad ones.
    pub fn check(&mut self, count: u64) -> u64 {
        let mut errors = 0;
        for _ in 0..count {
            let page = self.advance();
            errors += u64::from(!self.holds(page));
        }
        errors
    }

    /// Checks and rewrites the next `count` pages; returns the number of bad ones.
    pub fn dirty(&mut self, count: u64) -> u64 {
        let mut errors = 0;
        for _ in 0..count {
            let page = self.advance();
            errors += u64::from(!self.holds(page));
            self.versions[page] += 1;
            self.fill(page);
        }
        errors
    }

    fn advance(&mut self) -> usize {
        let page = self.cursor;
        self.cursor = (page + 1) % self.versions.len();
        page
    }

    fn stream(&self, page: usize) -> Stream {
        Stream::new(self.boot, page as u64, self.versions[page])
    }

    fn fill(&mut self, page: usize) {
        let stream = self.stream(page);
        let words = &mut self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS];
        for (word, value) in words.iter_mut().zip(stream) {
            *word = value;
        }
    }

    fn holds(&self, page: usize) -> bool {
        let words = &self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS];
        words.iter().zip(self.stream(page)).all(|(word, value)| *word == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intact_memory_shows_no_error() {
        let mut set = WorkingSet::new(7, 16);
        assert_eq!(set.check(32), 0);
        assert_eq!(set.dirty(40), 0);
        assert_eq!(set.check(16), 0);
    }

    #[test]
    fn one_flipped_bit_is_found() {
        let mut set = WorkingSet::new(7, 16);
        set.words[5 * PAGE_WORDS + 100] ^= 1;
        assert_eq!(set.check(16), 1);
    }

    #[test]
    fn an_old_version_of_a_page_is_found() {
        let mut set = WorkingSet::new(7, 4);
        let old = set.words.clone();
        set.dirty(4);
        set.words[..PAGE_WORDS].copy_from_slice(&old[..PAGE_WORDS]);
        assert_eq!(set.dirty(4), 1);
    }

    #[test]
    fn two_pages_that_changed_places_are_found() {
        let mut set = WorkingSet::new(7, 4);
        let (first, second) = set.words.split_at_mut(PAGE_WORDS);
        first.swap_with_slice(&mut second[..PAGE_WORDS]);
        assert_eq!(set.check(4), 2);
    }
}
