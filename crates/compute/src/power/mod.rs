//! Power actions on this host's guests: pause, unpause, start, stop, reboot, delete.
//!
//! The conductor gives an order again and again until it gets an end for an answer. The first time it is taken on, on a task of its own; the
//! next times it is the question how far it is. One order at a time is at work on a guest, and none while a migration is; what was
//! answered last is remembered by the order's id. Another life of the agent takes an order up anew, from the guest as it is then.
//!
//! What is to be done next is [`deeds::next`]'s to say, of the guest as it was just seen. Before each deed leave is asked for, and the
//! guest is looked at once more: an order that comes late does nothing.

mod deeds;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::{PowerActionId, ServerId};
use drover_common::power::PowerAction;
use drover_common::rpc::latest::{PowerGrantRequest, PowerOrder, PowerProgress, ToConductor};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, info, info_span, warn};

use self::deeds::{Deed, Scene, Shutdown};
use crate::context::Context;
use crate::driver::{Action, DomainEvent, DriverError, ErrorClass};
use crate::facts::{self, SeenGuest};
use crate::grants::{self, NotGranted};

/// How long an answer is kept back for the end: half of what the conductor waits for it.
const HOLD: Duration = Duration::from_secs(2);
/// Between two looks at a guest that is to shut down; libvirt's events come sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between two words to such a guest (Nova: `shutdown_retry_interval`).
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How long libvirt has for one deed, and for one look. A QEMU whose monitor hangs keeps it waiting without end.
const LIBVIRT_ANSWERS: Duration = Duration::from_secs(30);
/// Ends that are remembered. Nobody asks for the oldest any more.
const REMEMBERED_MAX: usize = 1024;

/// How an order ended.
#[derive(Debug, Clone)]
enum End {
    /// Answered so from now on.
    Is(PowerProgress),
    /// Nothing is known, or nothing could be done: the order may come again.
    Again(Fault),
}

/// What becomes of an order.
enum Entry {
    /// It is new: where its end is to be written, and where it will be read.
    New { sender: watch::Sender<Option<End>>, end: watch::Receiver<Option<End>>, started: Arc<AtomicBool> },
    /// It is at work, or has ended.
    Known(watch::Receiver<Option<End>>),
    /// Another order is at work on the guest, or was given later.
    Busy,
}

/// The orders of this life: of each guest the last.
#[derive(Debug, Default)]
pub struct Powers {
    table: Mutex<HashMap<ServerId, Work>>,
}

#[derive(Debug)]
struct Work {
    id: PowerActionId,
    end: watch::Receiver<Option<End>>,
    /// Whether the guest was started by it, for an order that comes again because its end could not be told.
    started: Arc<AtomicBool>,
}

impl Work {
    fn is_under_way(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    fn may_come_again(&self) -> bool {
        !self.is_under_way() && !matches!(*self.end.borrow(), Some(End::Is(_)))
    }
}

impl Powers {
    /// Whether an order is at work on this guest.
    pub fn is_under_way(&self, server: ServerId) -> bool {
        self.lock().get(&server).is_some_and(Work::is_under_way)
    }

    /// Takes an order on, if it is new.
    fn enter(&self, order: PowerOrder) -> Entry {
        let mut table = self.lock();
        let mut started = Arc::default();
        match table.get(&order.server) {
            Some(work) if work.id == order.id && work.may_come_again() => started = Arc::clone(&work.started),
            Some(work) if work.id == order.id && !work.may_come_again() => return Entry::Known(work.end.clone()),
            Some(work) if work.is_under_way() || work.id > order.id => return Entry::Busy,
            _ => {}
        }
        if table.len() >= REMEMBERED_MAX {
            table.retain(|_, work| work.is_under_way());
        }
        let (sender, end) = watch::channel(None);
        table.insert(order.server, Work { id: order.id, end: end.clone(), started: Arc::clone(&started) });
        Entry::New { sender, end, started }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerId, Work>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers `power`.
pub async fn power(ctx: &Arc<Context>, order: PowerOrder) -> Result<PowerProgress, Fault> {
    let entry = if ctx.actors.is_under_way(order.server) { Entry::Busy } else { ctx.powers.enter(order) };
    let mut end = match entry {
        Entry::New { sender, end, started } => {
            let span = info_span!("power", power.id = %order.id, server.id = %order.server, action = %order.action);
            let ctx_of_work = Arc::clone(ctx);
            let work = async move {
                let end = carry_out(&ctx_of_work, order, &started).await;
                sender.send(Some(end)).ok();
            };
            ctx.life.spawn(work.instrument(span));
            end
        }
        Entry::Known(end) => end,
        Entry::Busy => {
            tokio::time::sleep(LOOK_AGAIN).await; // Who asks does so again at once.
            return Ok(PowerProgress::UnderWay); // Something else is, which is waited for.
        }
    };
    match timeout(HOLD, end.wait_for(Option::is_some)).await {
        Ok(Ok(end)) => match end.clone() {
            Some(End::Is(progress)) => Ok(progress),
            Some(End::Again(fault)) => Err(fault),
            None => Ok(PowerProgress::UnderWay),
        },
        Ok(Err(_)) => Err(Fault::message_delivery_failure("the agent is stopping")),
        Err(_) => Ok(PowerProgress::UnderWay),
    }
}

async fn carry_out(ctx: &Context, order: PowerOrder, started: &AtomicBool) -> End {
    info!("power action taken on");
    let done = Effort::new(ctx, order, started).run().await;
    if let Err(Stop::Again(fault)) = done {
        debug!(error = %fault, "power action not finished");
        return End::Again(fault);
    }
    let no_answer = |_| DriverError::other(deeds::NO_ANSWER);
    let report = timeout(LIBVIRT_ANSWERS, ctx.domains.of(ctx, order.server)).await.map_err(no_answer).and_then(|report| report);
    match (done, report) {
        (Ok(()), Ok(report)) => {
            info!("power action done");
            End::Is(PowerProgress::Done { report })
        }
        // Done, but nobody can say so: the order that comes again looks and finds it done.
        (Ok(()), Err(error)) => End::Again(Fault::hypervisor_unavailable(&ctx.options.host, error)),
        (Err(Stop::Failed(fault) | Stop::Again(fault)), report) => {
            warn!(error = %fault, "power action failed");
            End::Is(PowerProgress::Failed { fault, report: report.ok() })
        }
    }
}

/// Why an order was not carried out.
enum Stop {
    /// It will not be.
    Failed(Fault),
    /// It may come again.
    Again(Fault),
}

/// What is known in the course of one order.
struct Effort<'a> {
    ctx: &'a Context,
    order: PowerOrder,
    events: broadcast::Receiver<DomainEvent>,
    started: &'a AtomicBool,
    shutdown: Option<(Instant, Instant)>,
    refuses_to_shut_down: bool,
    could_not_end_it: bool,
}

impl<'a> Effort<'a> {
    fn new(ctx: &'a Context, order: PowerOrder, started: &'a AtomicBool) -> Self {
        let events = ctx.driver.events();
        Self { ctx, order, events, started, shutdown: None, refuses_to_shut_down: false, could_not_end_it: false }
    }

    async fn run(mut self) -> Result<(), Stop> {
        let mut leave_for = None;
        loop {
            let deed = self.look().await?;
            match deed {
                Deed::Nothing => return Ok(()),
                Deed::Await => self.wait().await?,
                Deed::Refuse(why) => return Err(self.failed(why)),
                Deed::Do(action) if leave_for == Some(action) => {
                    self.act(action).await?;
                    leave_for = None;
                }
                Deed::Do(action) => {
                    self.ask_for_leave().await?;
                    leave_for = Some(action);
                }
            }
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> Stop {
        Stop::Failed(Fault::power_action(self.order.action, why))
    }

    /// Looks at the guest: what is to be done next.
    async fn look(&self) -> Result<Deed, Stop> {
        let host = &self.ctx.options.host;
        let Ok(seen) = timeout(LIBVIRT_ANSWERS, facts::see(self.ctx, self.order.server)).await else {
            return Ok(deeds::without_an_answer(self.order.action, self.has_started()));
        };
        let seen = seen.map_err(|error| self.stop(error))?;
        let Some(seen) = seen else {
            return match self.order.action {
                PowerAction::Delete => Ok(Deed::Nothing),
                _ => Err(Stop::Failed(Fault::instance_not_found(self.order.server))),
            };
        };
        let deed = deeds::next(self.order.action, self.scene(&seen));
        Ok(match deed {
            Deed::Refuse(why) => {
                Deed::Refuse(format!("domain {} on {host} is {}{}: {why}", seen.domain.name, seen.facts.state, seen.job_shown()))
            }
            deed => deed,
        })
    }

    fn scene(&self, seen: &SeenGuest) -> Scene {
        let patience = self.ctx.options.shutdown_timeout;
        let shutdown = match self.shutdown {
            _ if self.refuses_to_shut_down || patience.is_zero() => Shutdown::Over,
            None => Shutdown::NotAsked,
            Some((first, _)) if first.elapsed() >= patience => Shutdown::Over,
            Some((_, last)) if last.elapsed() >= SAY_AGAIN => Shutdown::NotAsked,
            Some(_) => Shutdown::Asked,
        };
        Scene {
            state: seen.facts.state,
            persistent: seen.domain.persistent,
            is_busy: seen.domain.job.is_some() || self.ctx.actors.is_under_way(self.order.server),
            started: self.has_started(),
            shutdown,
        }
    }

    fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    async fn ask_for_leave(&self) -> Result<(), Stop> {
        let request = PowerGrantRequest { id: self.order.id, incarnation: self.ctx.incarnation };
        grants::ask_for::<()>(self.ctx, ToConductor::GrantPower(request)).await.map_err(|refused| match refused {
            NotGranted::Refused(fault) => Stop::Failed(fault),
            NotGranted::NoAnswer { .. } | NotGranted::Stopping => Stop::Again(Fault::message_delivery_failure(refused)),
        })
    }

    async fn act(&mut self, action: Action) -> Result<(), Stop> {
        info!(?action, "changing the guest's state");
        let done = self.ctx.driver.act(self.order.server, action);
        // A start may take as long as its disks take, and an end as long as the kernel takes to end a process.
        let done = if matches!(action, Action::Shutdown | Action::Suspend | Action::Resume) {
            timeout(LIBVIRT_ANSWERS, done).await
        } else {
            Ok(done.await)
        };
        match done {
            Ok(Ok(())) => {}
            Err(_) if action == Action::Shutdown => {
                info!("{}", deeds::NO_ANSWER);
                self.refuses_to_shut_down = true;
            }
            Err(_) => return Err(self.failed(deeds::NO_ANSWER)),
            // A guest that cannot be told to shut down is ended, as one that does not listen. One that was told has its time, whatever
            // becomes of the word that it is told again.
            Ok(Err(error)) if action == Action::Shutdown && error.class == ErrorClass::Other => {
                info!(error = %error, "the guest cannot be told to shut down");
                self.refuses_to_shut_down |= self.shutdown.is_none();
            }
            // libvirt is busy with it: it is told again.
            Ok(Err(error)) if action == Action::Shutdown && error.class == ErrorClass::Busy => {
                info!(error = %error, "not told yet");
            }
            // It may have gone off in the meantime: the next look says so.
            Ok(Err(error)) if action == Action::Destroy && error.class == ErrorClass::Other && !self.could_not_end_it => {
                info!(error = %error, "the guest could not be ended; looked at again");
                self.could_not_end_it = true;
            }
            Ok(Err(error)) if error.class == ErrorClass::NoDomain => {} // Gone by itself: the next look says what that means.
            Ok(Err(error)) => return Err(self.stop(error)),
        }
        match action {
            Action::Start => self.started.store(true, Ordering::Relaxed),
            Action::Shutdown => {
                let now = Instant::now();
                self.shutdown = Some((self.shutdown.map_or(now, |(first, _)| first), now));
            }
            _ => {}
        }
        Ok(())
    }

    /// Until something happens to the guest, or for a moment.
    async fn wait(&mut self) -> Result<(), Stop> {
        let (server, events) = (self.order.server, &mut self.events);
        let happened = async {
            loop {
                match events.recv().await {
                    Ok(DomainEvent::Changed(changed)) if changed == server => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = happened => Ok(()),
            () = tokio::time::sleep(LOOK_AGAIN) => Ok(()),
            () = self.ctx.life.stop.cancelled() => Err(Stop::Again(Fault::message_delivery_failure("the agent is stopping"))),
        }
    }

    fn stop(&self, error: DriverError) -> Stop {
        let fault = |why| Fault::power_action(self.order.action, why);
        match error.class {
            ErrorClass::Unavailable => Stop::Again(Fault::hypervisor_unavailable(&self.ctx.options.host, error)),
            _ => Stop::Failed(error.into_fault(&self.ctx.options.host, self.order.server, fault)),
        }
    }
}
