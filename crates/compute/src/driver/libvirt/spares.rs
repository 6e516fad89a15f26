//! Idle connections, each perhaps made ready for a domain. Which one is taken and which is let go: no I/O here.

use drover_common::ids::ServerId;

/// Idle connections that are kept, for as many guests that leave at the same time.
const SPARES_MAX: usize = 4;

/// The idle ones, the longest idle first.
#[derive(Debug)]
pub(super) struct Spares<T>(Vec<(Option<ServerId>, T)>);

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Spares<T> {
    /// The one that was made ready for this domain, else one that was made ready for none.
    pub(super) fn take(&mut self, server: ServerId) -> Option<T> {
        let place = |of| self.0.iter().position(|(ready_for, _)| *ready_for == of);
        let place = place(Some(server)).or_else(|| place(None))?;
        Some(self.0.remove(place).1)
    }

    /// Keeps one. One too many, the longest idle, comes back: probably it was made ready for a migration that did not start.
    #[must_use]
    pub(super) fn put(&mut self, ready_for: Option<ServerId>, spare: T) -> Option<T> {
        self.0.push((ready_for, spare));
        (self.0.len() > SPARES_MAX).then(|| self.0.remove(0).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_of_several_that_leave_at_once_finds_the_connection_that_was_made_ready_for_it() {
        let (mut spares, guests) = (Spares::default(), [(); SPARES_MAX].map(|()| ServerId::random()));
        for guest in guests {
            assert_eq!(spares.put(Some(guest), guest), None);
        }
        assert_eq!(spares.take(ServerId::random()), None, "none is taken from another");
        for guest in [guests[2], guests[0], guests[3], guests[1]] {
            assert_eq!(spares.take(guest), Some(guest));
        }
    }

    #[test]
    fn one_that_is_ready_for_none_serves_any_and_the_longest_idle_is_let_go() {
        let mut spares = Spares::default();
        assert_eq!(spares.put(None, 0), None);
        assert_eq!(spares.take(ServerId::random()), Some(0));
        let abandoned = ServerId::random();
        assert_eq!(spares.put(Some(abandoned), 1), None);
        for later in 2..=4 {
            assert_eq!(spares.put(None, later), None);
        }
        assert_eq!(spares.put(None, 5), Some(1));
        assert_eq!(spares.take(abandoned), Some(2), "its own is gone: any free one");
    }
}
