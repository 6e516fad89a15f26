//! Moving guests through Drover's API, and finding out when each step happened without disturbing it: while a migration runs, only
//! the conductor's log is looked at.

use std::thread;
use std::time::Duration;

use drover_testkit::{BenchError, Guest, Look, Result, wait_until};

use crate::clock;
use crate::cloud::{CONDUCTOR, Cloud, Route, SOON};
use crate::log::Tail;
use crate::timeline::{Marks, Timeline};

const ENTERED: &str = "libvirt migrate call entered";
const RETURNED: &str = "libvirt migrate call returned";
const CLOSED: &str = "migration closed";

/// Asks for all guests to be moved, at the same time, and waits until all have been. The bench has two hosts, so the scheduler can
/// choose only the right one.
pub(crate) fn migrate(cloud: &Cloud, guests: &[Guest], route: &Route) -> Result<Vec<Timeline>> {
    let mut conductor = Tail::of(&cloud.bench.process(CONDUCTOR)?)?;
    let mut agent = Tail::of(&cloud.bench.process(&format!("compute-{}", route.source.name()))?)?;
    let posts: Vec<Result<(Duration, Duration)>> = thread::scope(|scope| {
        let posts: Vec<_> = guests.iter().map(|guest| scope.spawn(|| post(cloud, guest))).collect();
        posts.into_iter().map(|post| post.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let posts = posts.into_iter().collect::<Result<Vec<_>>>()?;
    wait_until("the migrations to be closed", SOON, || {
        conductor.read()?;
        let open: Vec<&str> = guests.iter().filter(|guest| conductor.at(CLOSED, guest.uuid()).is_none()).map(Guest::name).collect();
        Ok(if open.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{} on the way", open.join(", "))) })
    })?;
    agent.read()?;
    let timeline = |(guest, (sent, accepted)): (&Guest, (Duration, Duration))| {
        let row = cloud.api.newest_migration(guest.uuid());
        if row["status"] != "completed" || row["dest_compute"] != route.destination.name() {
            let name = guest.name();
            return Err(BenchError::Refused(format!(
                "the migration of {name} to {} did not succeed: {row:#}",
                route.destination.name()
            )));
        }
        let logged = |log: &Tail, message: &str| {
            let missing =
                || BenchError::Refused(format!("nobody logged {message:?} of {}; is the log's level info?", guest.name()));
            log.at(message, guest.uuid()).ok_or_else(missing)
        };
        let (entered, returned) = (logged(&agent, ENTERED)?, logged(&agent, RETURNED)?);
        Timeline::new(&row, Marks { sent, accepted, entered, returned, closed: logged(&conductor, CLOSED)? })
    };
    guests.iter().zip(posts).map(timeline).collect()
}

/// Asks for one; when that was sent, and when it was accepted.
fn post(cloud: &Cloud, guest: &Guest) -> Result<(Duration, Duration)> {
    let sent = clock::now();
    let answer = cloud.api.live_migrate(guest.uuid(), None);
    let accepted = clock::now();
    if answer.status == 202 {
        Ok((sent, accepted))
    } else {
        Err(BenchError::Refused(format!("live migration of {}: {} {}", guest.name(), answer.status, answer.body)))
    }
}

/// A thread of this program did.
pub(crate) fn panicked() -> BenchError {
    BenchError::Refused("a thread of the measurement panicked; that is a bug".to_owned())
}
