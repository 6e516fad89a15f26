//! The bus within one process, for tests: real queues in order, no broker; loss, duplicates and delays on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Acknowledge, Address, Arrival, Bus, Inbox, Incoming, Parcel, SendError, Sender, Transport};

/// What happens to a parcel on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It arrives twice.
    Twice,
    /// It is lost after the "broker" took it.
    Lost,
}

type Fates = Box<dyn Fn(&Parcel) -> Fate + Send + Sync>;

/// An in-process broker. Clones are the same broker.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    queues: HashMap<Address, mpsc::UnboundedSender<(Parcel, Sender)>>,
    fates: Option<Fates>,
}

impl MemoryBroker {
    /// Joins as `own`; conductors also take from the shared queue. Leaving is dropping the receiver.
    pub fn join(&self, own: &Address) -> (Bus, mpsc::Receiver<Incoming>) {
        let sender = match own {
            Address::Compute(host) => Sender::Agent(host.clone()),
            _ => Sender::Control,
        };
        Bus::new(own.clone(), |inbox| {
            inbox.set_connected();
            let addresses = match own {
                Address::ConductorProcess(_) => vec![own.clone(), Address::Conductor],
                _ => vec![own.clone()],
            };
            for address in addresses {
                self.open_queue(address, inbox.clone());
            }
            Arc::new(MemoryTransport { broker: self.clone(), sender })
        })
    }

    /// Removes `address`: from now on nobody is there.
    pub fn close_queue(&self, address: &Address) {
        self.lock().queues.remove(address);
    }

    /// Decides the fate of every parcel from now on.
    pub fn set_fates(&self, fates: impl Fn(&Parcel) -> Fate + Send + Sync + 'static) {
        self.lock().fates = Some(Box::new(fates));
    }

    fn open_queue(&self, address: Address, inbox: Inbox) {
        let (queue, mut parcels) = mpsc::unbounded_channel::<(Parcel, Sender)>();
        self.lock().queues.insert(address, queue);
        tokio::spawn(async move {
            while let Some((parcel, sender)) = parcels.recv().await {
                let Parcel { payload, message_id, answers, reply_to, .. } = parcel;
                inbox.put(Arrival { sender, payload, message_id, answers, reply_to, acknowledge: Box::new(Forget) }).await;
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct MemoryTransport {
    broker: MemoryBroker,
    sender: Sender,
}

impl Transport for MemoryTransport {
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), SendError>> {
        let state = self.broker.lock();
        let result = match state.queues.get(&parcel.to) {
            None => Err(SendError::Unroutable(parcel.to)),
            Some(queue) => {
                let times = match state.fates.as_ref().map_or(Fate::Arrives, |fate| fate(&parcel)) {
                    Fate::Arrives => 1,
                    Fate::Twice => 2,
                    Fate::Lost => 0,
                };
                let delivered = (0..times).all(|_| queue.send((parcel.clone(), self.sender.clone())).is_ok());
                if delivered { Ok(()) } else { Err(SendError::Unroutable(parcel.to)) }
            }
        };
        async move { result }.boxed()
    }
}

struct Forget;

impl Acknowledge for Forget {
    fn ack(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
    fn requeue(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::CallError;
    use super::*;
    use crate::fault::Fault;
    use crate::ids::{HostName, Incarnation, MigrationId};
    use crate::rpc::Envelope;
    use crate::rpc::latest::ToConductor;

    fn wake() -> Envelope<ToConductor> {
        Envelope::new(ToConductor::Wake { migration: MigrationId(7) })
    }

    fn host() -> Address {
        Address::Compute(HostName::new("h1").unwrap())
    }

    #[tokio::test]
    async fn a_call_brings_the_answer_or_the_fault_of_the_other_side() {
        let broker = MemoryBroker::default();
        let (agent, _agent_inbox) = broker.join(&host());
        let (conductor, mut inbox) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        tokio::spawn(async move {
            for answer in [Ok(42), Err(Fault::precheck("no"))] {
                let incoming = inbox.recv().await.unwrap();
                assert_eq!(incoming.sender, Sender::Agent(HostName::new("h1").unwrap()));
                conductor.reply(incoming.reply_to().as_ref(), answer).await;
            }
        });
        let within = Duration::from_secs(5);
        assert_eq!(agent.call::<_, i32>(&Address::Conductor, &wake(), within).await, Ok(42));
        let refused = agent.call::<_, i32>(&Address::Conductor, &wake(), within).await;
        assert_eq!(refused, Err(CallError::Fault(Fault::precheck("no"))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_to_nobody_fails_at_once_and_a_lost_question_after_its_time() {
        let broker = MemoryBroker::default();
        let (bus, _inbox) = broker.join(&host());
        let within = Duration::from_secs(5);
        let unroutable = bus.call::<_, i32>(&Address::Conductor, &wake(), within).await;
        assert_eq!(unroutable, Err(CallError::Send(SendError::Unroutable(Address::Conductor))));
        let (_conductor, _conductor_inbox) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        broker.set_fates(|_| Fate::Lost);
        let lost = bus.call::<_, i32>(&Address::Conductor, &wake(), within).await;
        assert_eq!(lost, Err(CallError::Timeout { to: Address::Conductor, within }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_waits_for_any_more_leaves_nothing_behind() {
        let broker = MemoryBroker::default();
        let (bus, _inbox) = broker.join(&host());
        let (_conductor, _questions) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        broker.set_fates(|_| Fate::Lost);
        let (question, within) = (wake(), Duration::from_mins(1));
        let call = bus.call::<_, i32>(&Address::Conductor, &question, within);
        tokio::time::timeout(Duration::from_secs(1), call).await.unwrap_err();
        assert!(bus.inbox.lock().is_empty());
        bus.call::<_, i32>(&Address::Conductor, &wake(), within).await.unwrap_err();
        assert!(bus.inbox.lock().is_empty());
    }

    #[tokio::test]
    async fn an_answer_overtakes_questions_that_nobody_works_on() {
        let broker = MemoryBroker::default();
        let agent = host();
        let (bus, mut untouched) = broker.join(&agent);
        let (conductor, mut questions) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        for _ in 0..super::super::amqp::PREFETCH_OWN {
            conductor.cast(&agent, &wake()).await.unwrap();
        }
        tokio::spawn(async move {
            let incoming = questions.recv().await.unwrap();
            conductor.reply(incoming.reply_to().as_ref(), Ok(42)).await;
        });
        assert_eq!(bus.call::<_, i32>(&Address::Conductor, &wake(), Duration::from_secs(5)).await, Ok(42));
        assert!(untouched.try_recv().is_ok());
    }

    #[test]
    fn an_address_survives_its_text() {
        let life = Incarnation::random();
        for address in [Address::Conductor, Address::ConductorProcess(life), Address::ApiProcess(life), host()] {
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        assert!("conductor.x".parse::<Address>().is_err());
        assert!("amq.default".parse::<Address>().is_err());
    }
}
