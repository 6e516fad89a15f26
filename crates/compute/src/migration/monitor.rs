//! Watches a migration's job from its source: samples, the policy's measures, commands.
//!
//! One loop owns all of it. libvirt's events wake it and a slow poll backs them up; what talks to libvirt or to the conductor runs
//! beside the loop, so nothing delays the news that the call has returned. The end of the process lets go of the job and does not
//! abort it: another life of the agent takes it up again.

pub mod bandwidth;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_common::bus::Address;
use drover_common::ids::ServerId;
use drover_common::migration::{Decision as Told, JobResult, Progress};
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{
    DecisionReport, GrantKind, GuestState, JobKind, MigrateData, OfAttempt, ProgressReport, ToConductor,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{Instrument, debug, info, warn};

use self::bandwidth::{Disks, Limit};
use super::outlook::Forecast;
use super::policy::{Decision, Measure, Policy, Situation};
use crate::actor::{Command, Seat};
use crate::context::Context;
use crate::driver::{Action, DomainEvent, DriverError, ErrorClass, JobSample, PauseReason, RunState};
use crate::metrics::{self, Ended};
use crate::{grants, reports};

/// The net below libvirt's events.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A copy that is over before need not be followed by anybody.
const FIRST_REPORT: Duration = Duration::from_secs(1);
/// libvirt sends its account of a job before the call returns, but on another connection: how long it may be overtaken.
const ACCOUNT_WAIT: Duration = Duration::from_millis(50);

/// How the watch ended.
#[derive(Debug)]
pub enum End {
    /// The call returned.
    Returned(Result<(), DriverError>),
    /// There is no job any more.
    JobGone,
    /// The process is told to stop; the job goes on.
    LetGo,
}

/// What came of something that ran beside the loop.
enum Done {
    /// And whether the guest's post-copy broke: libvirt keeps the job then, and nobody works on it.
    Sampled(Result<JobSample, DriverError>, bool),
    Acted(Doing, Result<(), String>),
    Sent,
}

/// What the loop is in the middle of; each at most once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Sample,
    Abort,
    ForceComplete,
    SetDowntime(u64),
    SetBandwidth(u64),
    SetDiskBandwidth(u64),
}

/// What a job is on its way to. There is no way back from any of the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// The guest runs here and is copied.
    Copying,
    /// libvirt was told to abort.
    TakenBack,
    /// The guest runs on the other side; it cannot be taken back.
    PostCopy,
    /// The guest stands still until it has arrived; it can be taken back.
    StandingStill,
}

/// The watch over one job.
pub struct Monitor {
    ctx: Arc<Context>,
    of: OfAttempt,
    policy: Box<dyn Policy>,
    forecast: Forecast,
    /// Whether libvirt was told that this job may become post-copy.
    may_post_copy: bool,
    events: broadcast::Receiver<DomainEvent>,
    beside: FuturesUnordered<BoxFuture<'static, Done>>,
    doing: Vec<Doing>,
    wanted: Vec<Command>,
    course: Course,
    /// Why the policy has the migration taken back, if it has.
    taken_back: Option<String>,
    downtime_ms: Option<u64>,
    limit: Limit,
    disks: Disks,
    /// What was told of the policy's decisions: each once, although it may be decided again until it works.
    told: Vec<Decision>,
    last: Option<Progress>,
    account: Option<JobResult>,
    next_report: Instant,
    job_gone: bool,
    /// An iteration began while a sample was taken.
    look_again: bool,
    /// Since when the guest stands so that its copy comes to an end.
    stands_since: Option<Instant>,
}

impl Monitor {
    /// Begins to listen to libvirt's events; nothing that happens from now on is missed.
    pub fn new(ctx: &Arc<Context>, of: OfAttempt, policy: Box<dyn Policy>, may_post_copy: bool) -> Self {
        Self {
            ctx: Arc::clone(ctx),
            of,
            policy,
            forecast: Forecast::default(),
            may_post_copy,
            events: ctx.driver.events(),
            beside: FuturesUnordered::new(),
            doing: Vec::new(),
            wanted: Vec::new(),
            course: Course::Copying,
            taken_back: None,
            downtime_ms: None,
            limit: Limit::Unknown,
            disks: Disks::default(),
            told: Vec::new(),
            last: None,
            account: None,
            next_report: Instant::now() + FIRST_REPORT,
            job_gone: false,
            look_again: false,
            stands_since: None,
        }
    }

    /// Watches until the call returns, or, for a job of an earlier life (`call` is none), until it is gone.
    pub async fn watch<F>(&mut self, seat: &mut Seat, call: Option<F>) -> End
    where
        F: Future<Output = Result<(), DriverError>> + Send,
    {
        let attached = call.is_none();
        let call = async {
            match call {
                Some(call) => call.await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(call);
        let stop = self.ctx.life.stop.clone();
        // The first pass over the memory wakes it; before that there is nothing to see, and libvirt is busy.
        let mut poll = tokio::time::interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.job_gone = false;
        loop {
            tokio::select! {
                biased;
                result = &mut call => return End::Returned(result),
                () = stop.cancelled() => return End::LetGo,
                Some(command) = seat.commands.recv() => self.want(command),
                event = self.events.recv() => self.hear(event, attached),
                Some(done) = self.beside.next(), if !self.beside.is_empty() => self.take(done),
                _ = poll.tick() => self.sample(),
            }
            if attached && self.job_gone {
                return End::JobGone;
            }
        }
    }

    /// Whether it was this agent that took the migration back.
    pub fn took_it_back(&self) -> bool {
        self.course == Course::TakenBack
    }

    /// How the call that returned ended, for the count.
    pub fn how_it_ended(&self, succeeded: bool) -> Ended {
        match (succeeded, self.took_it_back()) {
            (true, _) => Ended::Succeeded,
            (false, true) => Ended::TakenBack,
            (false, false) => Ended::Failed,
        }
    }

    /// How long the guest has stood for its copy's sake; none if it was not stopped for that.
    pub fn stood_for(&self) -> Option<Duration> {
        self.stands_since.map(|since| since.elapsed())
    }

    /// Why, if it was the policy that had it taken back and nobody's wish.
    pub fn why_taken_back(&self) -> Option<String> {
        self.taken_back.clone().filter(|_| self.took_it_back())
    }

    /// Tells by which rules the copy is led, how the memory travels, and whether the guest could come back.
    pub fn tell_plan(&self, data: &MigrateData) {
        let mut policy = self.policy.describe();
        if let Some(reason) = &data.no_post_copy {
            policy = format!("{policy}; not by post-copy: {reason}");
        }
        let stream = data.stream.as_ref().map(|stream| at_the_start("stream", stream.why.clone()));
        let no_way_back = data.no_way_back.as_ref().map(|why| at_the_start("no way back", why.clone()));
        self.tell(at_the_start("policy", policy), stream.into_iter().chain(no_way_back).collect());
    }

    /// libvirt's account of the job, as far as it can be had: the numbers of the last sample are real, totals are not invented.
    pub async fn account(&mut self, succeeded: bool, call: Option<Duration>) -> Option<JobResult> {
        if succeeded && self.account.is_none() {
            tokio::time::timeout(ACCOUNT_WAIT, self.wait_for_account()).await.ok();
        }
        let call_ms = call.map(|call| i64::try_from(call.as_millis()).unwrap_or(i64::MAX));
        match (self.account.take(), self.last.clone()) {
            (Some(account), _) => Some(JobResult { call_ms, ..account }),
            (None, Some(progress)) => Some(JobResult { progress, call_ms, ..JobResult::default() }),
            (None, None) => None,
        }
    }

    async fn wait_for_account(&mut self) {
        while self.account.is_none() {
            match self.events.recv().await {
                Err(broadcast::error::RecvError::Closed) => return,
                event => self.hear(event, false),
            }
        }
    }

    fn hear(&mut self, event: Result<DomainEvent, broadcast::error::RecvError>, attached: bool) {
        match event {
            Ok(DomainEvent::JobCompleted(server, account)) if server == self.of.server => {
                self.account = Some(*account);
                if attached {
                    self.sample();
                }
            }
            // One that began during a look is looked at right after it: late, it would seem to have less left than it had.
            Ok(DomainEvent::Iteration(server)) if server == self.of.server && self.doing.contains(&Doing::Sample) => {
                self.look_again = true;
            }
            Ok(DomainEvent::Iteration(server)) if server == self.of.server => self.sample(),
            // In a call of our own the return tells the end; a question now would only be in the way of the switch-over.
            Ok(DomainEvent::Changed(server)) if server == self.of.server && attached => self.sample(),
            Err(broadcast::error::RecvError::Lagged(_)) if attached => self.sample(),
            Ok(_) | Err(_) => {}
        }
    }

    fn sample(&mut self) {
        let driver = Arc::clone(&self.ctx.driver);
        let server = self.of.server;
        let post_copy = self.course == Course::PostCopy;
        self.begin(Doing::Sample, async move {
            let sample = driver.job(server).await;
            let broken = RunState::Paused(PauseReason::PostCopyFailed);
            let broke = post_copy && driver.domain(server).await.is_ok_and(|domain| domain.state == broken);
            Done::Sampled(sample, broke)
        });
    }

    fn begin(&mut self, doing: Doing, work: impl Future<Output = Done> + Send + 'static) {
        if !self.doing.contains(&doing) {
            self.doing.push(doing);
            self.beside.push(Box::pin(work));
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Sampled(sample, broke) => {
                self.doing.retain(|doing| *doing != Doing::Sample);
                self.take_sample(sample);
                self.job_gone |= broke;
                if std::mem::take(&mut self.look_again) {
                    self.sample();
                }
            }
            Done::Acted(doing, result) => {
                self.doing.retain(|done| *done != doing);
                self.take_result(doing, result);
            }
            Done::Sent => {}
        }
    }

    fn take_sample(&mut self, sample: Result<JobSample, DriverError>) {
        match sample {
            Ok(JobSample { kind: Some(JobKind::MigrationOut), progress }) => self.take_progress(progress),
            Ok(_) => self.job_gone = true, // Or it has not begun: only a job of an earlier life is known to have.
            Err(error) if error.class == ErrorClass::NoDomain => self.job_gone = true,
            // "no RAM info was set", a lock that is held: the next sample tells.
            Err(error) => debug!(migration.id = %self.of.migration, error = %error, "no sample"),
        }
    }

    fn take_progress(&mut self, mut progress: Progress) {
        if self.course == Course::Copying {
            let decisions = self.policy.decide(&Situation::of(&progress, self.downtime_ms));
            if self.policy.take_stall() {
                metrics::stalled();
            }
            for decision in decisions {
                self.follow(decision, &progress);
            }
        }
        self.follow_commands(&progress);
        if progress.memory_total == 0 {
            return; // It has not begun, or has just failed.
        }
        let leaves = matches!(self.course, Course::PostCopy | Course::StandingStill);
        progress.bandwidth_mib = self.limit.mib().map(|mib| i64::try_from(mib).unwrap_or(i64::MAX));
        progress.outlook = Some(self.forecast.look(&progress, leaves));
        if Instant::now() >= self.next_report {
            self.next_report = Instant::now() + self.ctx.options.monitor_interval;
            self.send(progress.clone());
        }
        self.last = Some(progress);
    }

    /// Does what the policy decided. It decides it again until it has worked; it is told once.
    fn follow(&mut self, decision: Decision, progress: &Progress) {
        let Decision { measure, why } = &decision;
        match measure {
            Measure::SetDowntime { milliseconds } => self.set_downtime(*milliseconds),
            Measure::Abort => {
                self.taken_back = Some(why.clone());
                self.abort(why);
            }
            Measure::PostCopy | Measure::ForceComplete => self.force_complete(why),
            Measure::Wait => {}
        }
        if !self.told.contains(&decision) {
            metrics::decided(*measure);
            let what = shown(*measure, self.may_post_copy);
            self.tell(Told { elapsed_ms: progress.elapsed_ms, what, why: why.clone() }, Vec::new());
            self.told.push(decision);
        }
    }

    /// Lines in the log, which are also kept on the migration.
    fn tell(&self, decision: Told, more: Vec<Told>) {
        for Told { elapsed_ms, what, why } in [&decision].into_iter().chain(&more) {
            info!(migration.id = %self.of.migration, server.id = %self.of.server, elapsed_ms, what, why, "decided");
        }
        let message = ToConductor::Decided(DecisionReport { of: self.of, decision, more });
        let (ctx, of) = (Arc::clone(&self.ctx), self.of);
        let deliver = async move { reports::deliver(&ctx, of.migration, message, &ctx.life.stop).await };
        tokio::spawn(deliver.in_current_span());
    }

    fn send(&mut self, progress: Progress) {
        let (ctx, of) = (Arc::clone(&self.ctx), self.of);
        self.beside.push(Box::pin(async move {
            let report = Envelope::new(ToConductor::Progress(ProgressReport { of, progress }));
            let expires = ctx.options.monitor_interval * 2;
            if let Err(error) = ctx.bus.cast_transient(&Address::Conductor, &report, expires).await {
                debug!(migration.id = %of.migration, error = %error, "progress not sent");
            }
            Done::Sent
        }));
    }

    /// Commands wait until the job is seen: libvirt cannot abort what has not begun.
    pub fn want(&mut self, command: Command) {
        if matches!(command, Command::Bandwidth(_)) {
            self.wanted.retain(|wanted| !matches!(wanted, Command::Bandwidth(_))); // The last word counts.
        }
        if !self.wanted.contains(&command) {
            self.wanted.push(command);
        }
        self.sample();
    }

    fn follow_commands(&mut self, progress: &Progress) {
        for command in self.wanted.clone() {
            match command {
                Command::Abort => {
                    self.taken_back = None; // By a wish, whatever the policy says.
                    self.abort("an abort was asked for");
                }
                Command::ForceComplete => self.force_complete("force-complete was asked for"),
                Command::Bandwidth(share) => self.set_bandwidth(share, progress),
            }
        }
    }

    fn abort(&mut self, why: &str) {
        if matches!(self.course, Course::TakenBack | Course::PostCopy) || self.doing.contains(&Doing::Abort) {
            return;
        }
        info!(migration.id = %self.of.migration, server.id = %self.of.server, why, "aborting the migration");
        self.act(Doing::Abort, Action::AbortJob);
    }

    fn set_downtime(&mut self, milliseconds: u64) {
        self.act(Doing::SetDowntime(milliseconds), Action::SetMaxDowntime { milliseconds });
    }

    /// Post-copy where the job may become one, after the conductor's leave; else the guest stands still until it has arrived.
    fn force_complete(&mut self, why: &str) {
        if self.course != Course::Copying || self.doing.contains(&Doing::ForceComplete) {
            return;
        }
        info!(migration.id = %self.of.migration, server.id = %self.of.server, why, "bringing the migration to an end");
        let (ctx, of) = (Arc::clone(&self.ctx), self.of);
        if !self.may_post_copy {
            return self.begin(Doing::ForceComplete, async move {
                Done::Acted(Doing::ForceComplete, stop(&ctx, of.server).await.map_err(|error| error.message))
            });
        }
        self.begin(Doing::ForceComplete, async move {
            let result = match grants::ask(&ctx, of, GrantKind::PostCopy).await {
                Ok(_) => ctx.driver.act(of.server, Action::StartPostCopy).await.map_err(|error| error.message),
                Err(error) => Err(error.to_string()),
            };
            Done::Acted(Doing::ForceComplete, result)
        });
    }

    fn act(&mut self, doing: Doing, action: Action) {
        let (driver, server) = (Arc::clone(&self.ctx.driver), self.of.server);
        self.begin(doing, async move {
            let result = driver.act(server, action).await;
            Done::Acted(doing, result.map_err(|error| error.message))
        });
    }

    fn take_result(&mut self, doing: Doing, result: Result<(), String>) {
        let migration = self.of.migration;
        if doing == Doing::ForceComplete {
            self.wanted.retain(|command| *command != Command::ForceComplete); // Refused is refused; an abort is tried again.
        }
        match (doing, result) {
            (Doing::Abort, Ok(())) => self.course = Course::TakenBack,
            (Doing::ForceComplete, Ok(())) if self.may_post_copy => self.course = Course::PostCopy,
            (Doing::ForceComplete, Ok(())) => {
                self.course = Course::StandingStill;
                self.stands_since = Some(Instant::now());
            }
            (Doing::SetDowntime(milliseconds), Ok(())) => {
                debug!(migration.id = %migration, downtime_ms = milliseconds, "downtime set");
                self.downtime_ms = Some(milliseconds);
            }
            (Doing::SetBandwidth(limit), Ok(())) => {
                info!(migration.id = %migration, bandwidth_mib = limit, "bandwidth set");
                self.limit = Limit::Set(limit);
            }
            (Doing::SetDiskBandwidth(each), result) => {
                info!(migration.id = %migration, bandwidth_mib = each, error = result.err(), "bandwidth of each disk set");
                self.disks_run_under(each);
            }
            // It is still wanted when the next sample comes.
            (Doing::SetBandwidth(_), Err(error)) => debug!(migration.id = %migration, error, "bandwidth not set"),
            // The policy asks for it again with the next sample.
            (Doing::SetDowntime(_), Err(error)) => debug!(migration.id = %migration, error, "downtime not set"),
            (doing, Err(error)) => warn!(migration.id = %migration, server.id = %self.of.server, error, "{doing:?} failed"),
            (Doing::Sample, Ok(())) => {}
        }
    }

    /// Waits for a stop of the guest that is on its way: libvirt may carry it out after the job's end, and then the guest would stand
    /// with nobody knowing. libvirt itself gives it up after half a minute.
    pub async fn let_stop_finish(&mut self) {
        while !self.may_post_copy && self.doing.contains(&Doing::ForceComplete) {
            let Some(done) = self.beside.next().await else { return };
            self.take(done);
        }
    }

    /// What an earlier life of the agent left: a guest that runs on the other side already.
    pub fn take_up(&mut self, source: GuestState, progress: Progress) {
        if matches!(source, GuestState::PausedPostCopy | GuestState::PausedPostCopyFailed) {
            self.is_post_copy();
        }
        self.take_progress(progress);
    }

    /// The guest runs on the other side already: it is waited for, and nothing else.
    pub const fn is_post_copy(&mut self) {
        self.course = Course::PostCopy;
    }
}

/// What was decided before the copy began.
fn at_the_start(what: &str, why: String) -> Told {
    Told { elapsed_ms: 0, what: what.to_owned(), why }
}

/// A measure, for people.
fn shown(measure: Measure, may_post_copy: bool) -> String {
    match measure {
        Measure::SetDowntime { milliseconds } => format!("downtime {milliseconds} ms"),
        Measure::Abort => "abort".to_owned(),
        Measure::ForceComplete if !may_post_copy => "pause the guest".to_owned(),
        Measure::PostCopy | Measure::ForceComplete => "post-copy".to_owned(),
        Measure::Wait => "cannot finish".to_owned(),
    }
}

/// Stops a guest so that its copy comes to an end, and remembers it: should the copy fail, the guest is to go on. One that stands
/// already stands by its owner's wish.
async fn stop(ctx: &Context, server: ServerId) -> Result<(), DriverError> {
    if ctx.driver.domain(server).await?.state != RunState::Running {
        return Ok(());
    }
    ctx.ledger.note_stop(server); // Before: libvirt may do it and its answer be lost.
    let stopped = ctx.driver.act(server, Action::Suspend).await;
    if stopped.as_ref().is_err_and(|error| error.class != ErrorClass::Unavailable) {
        ctx.ledger.forget_stop(server);
    }
    stopped
}
