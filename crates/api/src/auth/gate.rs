//! A bound on work that proves who somebody is: whoever has no credentials may ask for as much of it as they like.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Lets a few in at a time, lets some more wait, and sends the rest away.
#[derive(Debug)]
pub(super) struct Gate {
    /// Inside or waiting.
    places: Arc<Semaphore>,
    inside: Arc<Semaphore>,
}

/// Being inside. Goes to where the work is done: a caller who hangs up does not end work on another thread.
#[derive(Debug)]
pub(super) struct Inside {
    _place: OwnedSemaphorePermit,
    _inside: OwnedSemaphorePermit,
}

impl Gate {
    /// For so many at a time, with so many more waiting.
    pub(super) fn new(inside: usize, waiting: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(inside + waiting)), inside: Arc::new(Semaphore::new(inside)) }
    }

    /// Waits for a turn.
    pub(super) async fn enter(&self) -> Result<Inside, ApiError> {
        let full = || ApiError::Unavailable("Too many callers wait to be authenticated. Try again.".to_owned());
        let place = self.places.clone().try_acquire_owned().map_err(|_| full())?;
        let inside = self.inside.clone().acquire_owned().await.map_err(|_| full())?; // Never closed.
        Ok(Inside { _place: place, _inside: inside })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_works_one_waits_and_the_third_is_sent_away() {
        let gate = Gate::new(1, 1);
        let first = gate.enter().await.unwrap();
        let mut second = Box::pin(gate.enter());
        assert!((&mut second).now_or_never().is_none());
        assert!(matches!(gate.enter().await, Err(ApiError::Unavailable(_))));
        drop(first);
        second.await.unwrap();
        gate.enter().await.unwrap();
    }
}
