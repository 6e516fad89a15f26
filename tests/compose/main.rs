//! The dev cluster of `deploy/compose` in a real Docker engine: guests move through HTTPS, nobody reads them on their way, and
//! nobody without the right certificate gets anywhere.
//!
//! `make test-compose` (`deploy/compose/test`) brings the cluster up, runs these tests one at a time, and takes all of it down.

mod capture;
mod cluster;
mod monitoring;
mod moves;
mod refusals;
mod renewal;
mod rogue;
