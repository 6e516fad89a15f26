//! `migrate_server`: which kind of move is it (Nova: `nova/conductor/manager.py`, `migrate_server`).

use drover_common::fault::Fault;
use drover_common::rpc::latest::MigrateServer;

/// The kinds that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The guest keeps running.
    Live,
    /// It is shut down, moved and started.
    Cold,
}

/// Live: live, not rebuild, no flavor. Cold: not live, not rebuild, a flavor. Anything else is nothing.
pub(crate) fn kind(message: &MigrateServer) -> Result<Kind, Fault> {
    match (message.live, message.rebuild, message.flavor.is_some()) {
        (true, false, false) => Ok(Kind::Live),
        (false, false, true) => Ok(Kind::Cold),
        (live, rebuild, flavor) => {
            Err(Fault::not_implemented(format_args!("migrate_server with live={live}, rebuild={rebuild}, flavor given={flavor}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_common::fault::FaultClass;
    use drover_common::ids::MigrationId;
    use drover_common::server::Flavor;

    use super::*;

    #[test]
    fn only_two_of_the_eight_combinations_mean_something() {
        let flavor = Flavor { name: "f".to_owned(), vcpus: 1, memory_mb: 1, root_gb: 0, ephemeral_gb: 0, swap_mb: 0 };
        for bits in 0..8 {
            let (live, rebuild, with_flavor) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let message = MigrateServer { migration: MigrationId(1), live, rebuild, flavor: with_flavor.then(|| flavor.clone()) };
            match (live, rebuild, with_flavor) {
                (true, false, false) => assert_eq!(kind(&message), Ok(Kind::Live)),
                (false, false, true) => assert_eq!(kind(&message), Ok(Kind::Cold)),
                _ => assert_eq!(kind(&message).unwrap_err().class, FaultClass::NotImplemented),
            }
        }
    }
}
