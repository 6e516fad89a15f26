//! `drover db migrate`.

use std::path::Path;

use drover_common::config::{self, ConfigError};
use drover_store::{Store, StoreError};

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Creates the schema or brings it up to date, and says what was done.
pub(crate) fn migrate(config_file: Option<&Path>) -> Result<(), DatabaseError> {
    let config = config::load(config_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DatabaseError::Runtime)?;
    let steps = runtime.block_on(async { Store::open(&config.database)?.migrate().await })?;
    for step in &steps {
        println!("applied {step}");
    }
    match steps.len() {
        0 => println!("The schema is up to date: nothing to do."),
        1 => println!("The schema is up to date: 1 step applied."),
        count => println!("The schema is up to date: {count} steps applied."),
    }
    Ok(())
}
