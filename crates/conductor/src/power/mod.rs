//! Power actions: led from their rows to their ends, as migrations are, only simpler.
//!
//! The host's agent is told what to do again and again until it says that it has ended ([`ask`](Conductor::ask_for_power)): to the agent
//! the same id is the same order, so the answer that was lost is given again, and an agent that was restarted takes it up anew (a reboot
//! may then happen twice). What is to be done next is [`plan`]'s to say; the end is one transaction ([`closing`]).
//!
//! A host that does not answer is waited for [`SILENCE_MAX`]: then the action has failed, and the fault says that nobody knows what was
//! done. An order that is carried out later is refused its leave ([`Conductor::grant_power`]), and what was done is reported by the host.

mod closing;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use drover_common::bus::ReplyTo;
use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::{HostName, Incarnation, PowerActionId};
use drover_common::rpc::latest::{PowerGrantRequest, PowerOrder, PowerProgress, ToCompute};
use drover_common::telemetry;
use drover_store::power::{self, Power};
use drover_store::servers::{self, Server};
use drover_store::{StoreError, actions, migrations};
use tracing::{Instrument, debug, error, info, info_span, warn};

use self::plan::{Answer, Next, Situation};
use crate::Conductor;
use crate::consumer::Done;

/// The agent answers within half of it, done or not.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Between two questions to an agent that could not be asked.
const AGAIN: Duration = Duration::from_secs(1);
/// While a delete waits for the end of something else, which wakes it.
const OTHERS: Duration = Duration::from_secs(5);
/// After a failed database statement.
const AFTER_ERROR: Duration = Duration::from_secs(2);
/// How long a host may be silent until its action counts as failed: longer than an agent needs to be started anew.
pub(crate) const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Drives of power actions that one conductor has at a time, apart from those of migrations: an action may wait for a silent host or for a
/// guest that does not obey for a minute, and no migration is to wait for that.
pub(crate) const DRIVES_MAX: usize = 256;
/// Rows that one look of the sweep takes up.
const BATCH: i64 = 200;

/// What a look at a row came to.
enum Step {
    /// Look again at once.
    Again,
    /// Nothing to do for so long, and why.
    Wait(String, Duration),
    /// It is over.
    Closed,
}

impl Conductor {
    /// Takes up every power action that nobody looks after.
    pub(crate) async fn sweep_power(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut conn = self.store.connection().await?;
        let due = power::due(&mut conn, BATCH).await?;
        drop(conn);
        for id in due {
            self.start_power(id).await;
        }
        Ok(())
    }

    /// Takes the lease of a power action and drives it on a task of its own.
    pub(crate) async fn start_power(self: &Arc<Self>, id: PowerActionId) -> Done {
        let Ok(place) = Arc::clone(&self.power_drives).try_acquire_owned() else {
            return Done::Yes; // The sweep comes back to it.
        };
        let me = Incarnation::random();
        let take = async {
            let mut conn = self.store.unsynced().await?;
            power::take(&mut conn, id, me).await
        };
        match take.await {
            Ok(Some(row)) => {
                let span = info_span!("conductor.power", power.id = %id, server.id = %row.server, request.id = %row.request_id);
                let conductor = Arc::clone(self);
                let drive = async move {
                    conductor.drive_power(row, me).await;
                    drop(place);
                };
                self.life.spawn(drive.instrument(span));
                Done::Yes
            }
            Ok(None) => {
                debug!(power.id = %id, "over, or driven already");
                Done::Yes
            }
            Err(error) => Done::Again(error),
        }
    }

    /// Drives a row whose lease is ours until there is nothing to do but wait.
    async fn drive_power(self: &Arc<Self>, mut row: Power, me: Incarnation) {
        loop {
            let step = self.step_power(&row).await.unwrap_or_else(|error| {
                error!(error = telemetry::chain(&error), "step failed; it is tried again");
                Step::Wait(error.to_string(), AFTER_ERROR)
            });
            let goes_on = async {
                let mut conn = self.store.unsynced().await?;
                match &step {
                    Step::Again => power::renew(&mut conn, row.id, me).await,
                    Step::Wait(why, pause) => power::release(&mut conn, row.id, me, *pause, why).await.map(|()| None),
                    Step::Closed => Ok(None),
                }
            };
            match goes_on.await {
                Ok(Some(next)) => row = next,
                Ok(None) => return,
                Err(error) => return warn!(error = telemetry::chain(&error), "lease not kept; the sweep comes back to it"),
            }
            if self.life.stop.is_cancelled() {
                return; // The lease runs out by itself.
            }
        }
    }

    async fn step_power(self: &Arc<Self>, row: &Power) -> Result<Step, StoreError> {
        let mut conn = self.store.connection().await?;
        let migration = migrations::open_of_server(&mut conn, row.server).await?;
        let others = power::open_of_server(&mut conn, row.server).await?;
        // Last: after a migration that is seen as over, the server is seen where that left it.
        let Some(server) = servers::get(&mut conn, row.server).await? else {
            return Ok(Step::Wait("its server, which is not in the books".to_owned(), OTHERS)); // The key forbids it.
        };
        let situation = Situation { row, server: &server, migration: migration.as_ref(), others: &others };
        match plan::plan(&situation) {
            Next::Wait(why) => Ok(Step::Wait(why, OTHERS)),
            Next::Gone => {
                drop(conn);
                self.close_power(row, None, None).await
            }
            Next::Ask => {
                actions::begin_event(&mut conn, row.instance_action, row.action.rule().event, server.host.as_str()).await?;
                drop(conn);
                self.ask_for_power(row, &server).await
            }
        }
    }

    /// Tells the agent what to do, or asks how far it is.
    async fn ask_for_power(self: &Arc<Self>, row: &Power, server: &Server) -> Result<Step, StoreError> {
        let order = PowerOrder { id: row.id, server: row.server, action: row.action };
        let asked = self.agents.call(&server.host, ToCompute::Power(order), Some(&row.request_id), ANSWER_WITHIN).await;
        let answer = match asked {
            Ok(PowerProgress::UnderWay) => Answer::UnderWay,
            Ok(PowerProgress::Done { report }) => return self.close_power(row, None, Some((&server.host, &report))).await,
            Ok(PowerProgress::Failed { fault, report }) => {
                return self.close_power(row, Some(fault), report.as_ref().map(|report| (&server.host, report))).await;
            }
            Err(fault) => {
                // Its libvirt or its agent may be back in a moment, unless an operator says that the host is not.
                let is_gone = fault.class == FaultClass::ComputeServiceUnavailable && self.is_forced_down(&server.host).await;
                plan::judge(row.action, &server.host, fault, is_gone)
            }
        };
        match answer {
            Answer::UnderWay => {
                if row.is_silent {
                    power::note_answer(&mut *self.store.connection().await?, row.id).await?;
                }
                Ok(Step::Again)
            }
            Answer::NotAsked(why) => {
                debug!(why, "the host could not be asked");
                self.pause(AGAIN).await;
                Ok(Step::Again)
            }
            Answer::Silent(why) => {
                let silent_for = power::note_silence(&mut *self.store.connection().await?, row.id).await?;
                match silent_for {
                    Some(silent_for) if silent_for >= SILENCE_MAX => {
                        let fault = plan::unknown_outcome(row.action, &server.host, &why);
                        self.close_power(row, Some(fault), None).await
                    }
                    _ => {
                        debug!(why, "the host does not answer");
                        self.pause(AGAIN).await;
                        Ok(Step::Again)
                    }
                }
            }
            Answer::Refused(fault) => self.close_power(row, Some(fault), None).await,
        }
    }

    async fn pause(&self, time: Duration) {
        self.life.stop.run_until_cancelled(tokio::time::sleep(time)).await;
    }

    /// Answers an agent that is about to do something to a guest.
    pub(crate) async fn grant_power(&self, host: &HostName, request: PowerGrantRequest, reply_to: Option<&ReplyTo>) -> Done {
        let decide = async {
            let mut conn = self.store.connection().await?;
            let Some(row) = power::get(&mut conn, request.id).await? else { return Ok(Err("there is no such action".to_owned())) };
            let migration = migrations::open_of_server(&mut conn, row.server).await?;
            let others = power::open_of_server(&mut conn, row.server).await?;
            let Some(server) = servers::get(&mut conn, row.server).await? else {
                return Ok(Err("there is no such server".to_owned()));
            };
            let situation = Situation { row: &row, server: &server, migration: migration.as_ref(), others: &others };
            Ok::<_, StoreError>(plan::may(&situation, host))
        };
        let answer = match decide.await {
            Ok(Ok(())) => {
                info!(power.id = %request.id, host = %host, "granted");
                Ok(())
            }
            Ok(Err(why)) => {
                info!(power.id = %request.id, host = %host, why, "not granted");
                Err(Fault::migration_error(format_args!("power action {} is not granted to {host}: {why}", request.id)))
            }
            // Not put back: the agent asks again.
            Err(error) => Err(Fault::unexpected(error)),
        };
        self.bus.reply(reply_to, answer).await;
        Done::Yes
    }
}
