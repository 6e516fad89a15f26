//! The bus within one process, for tests: real queues in order, no broker; loss, duplicates and delays on demand.

use std::collections::{BTreeMap, HashMap, VecDeque};
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
    /// Who reads from each queue; the next message is for the first of them.
    queues: HashMap<Address, VecDeque<Consumer>>,
    delivered: u64,
    fates: Option<Fates>,
}

/// A process that reads from a queue.
struct Consumer {
    own: Address,
    deliveries: mpsc::UnboundedSender<Delivery>,
    unacknowledged: BTreeMap<u64, (Parcel, Sender)>,
}

/// A parcel that was handed to a consumer, and its number.
struct Delivery {
    number: u64,
    parcel: Parcel,
    sender: Sender,
}

impl State {
    /// Hands a parcel to the next consumer of its queue that is still there; false if there is none.
    fn deliver(&mut self, parcel: &Parcel, sender: &Sender) -> bool {
        let Some(queue) = self.queues.get_mut(&parcel.to) else { return false };
        while let Some(mut consumer) = queue.pop_front() {
            self.delivered += 1;
            let number = self.delivered;
            let delivery = Delivery { number, parcel: parcel.clone(), sender: sender.clone() };
            if consumer.deliveries.send(delivery).is_ok() {
                consumer.unacknowledged.insert(number, (parcel.clone(), sender.clone()));
                queue.push_back(consumer);
                return true;
            }
        }
        false
    }

    /// Forgets a delivery, and returns what it was.
    fn settle(&mut self, address: &Address, number: u64) -> Option<(Parcel, Sender)> {
        self.queues.get_mut(address)?.iter_mut().find_map(|consumer| consumer.unacknowledged.remove(&number))
    }
}

impl MemoryBroker {
    /// Joins as `own`; conductors also take from the shared queue, in turn. A process that joins again takes its own place.
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
                self.open_queue(address, own, inbox.clone());
            }
            Arc::new(MemoryTransport { broker: self.clone(), sender })
        })
    }

    /// Removes `address`: from now on nobody is there.
    pub fn close_queue(&self, address: &Address) {
        self.lock().queues.remove(address);
    }

    /// The process `own` is gone, as the broker sees it: what it has not acknowledged of a shared queue goes to the others there.
    pub fn leave(&self, own: &Address) {
        let mut state = self.lock();
        state.queues.remove(own);
        let mut left = Vec::new();
        for queue in state.queues.values_mut() {
            let (gone, stay): (VecDeque<_>, _) = std::mem::take(queue).into_iter().partition(|consumer| consumer.own == *own);
            *queue = stay;
            left.extend(gone.into_iter().flat_map(|consumer| consumer.unacknowledged.into_values()));
        }
        for (parcel, sender) in left {
            state.deliver(&parcel, &sender);
        }
    }

    /// Decides the fate of every parcel from now on.
    pub fn set_fates(&self, fates: impl Fn(&Parcel) -> Fate + Send + Sync + 'static) {
        self.lock().fates = Some(Box::new(fates));
    }

    fn open_queue(&self, address: Address, own: &Address, inbox: Inbox) {
        let (deliveries, mut arriving) = mpsc::unbounded_channel::<Delivery>();
        {
            let mut state = self.lock();
            let queue = state.queues.entry(address.clone()).or_default();
            queue.retain(|consumer| consumer.own != *own);
            queue.push_back(Consumer { own: own.clone(), deliveries, unacknowledged: BTreeMap::new() });
        }
        let broker = self.clone();
        tokio::spawn(async move {
            while let Some(Delivery { number, parcel, sender }) = arriving.recv().await {
                let Parcel { payload, message_id, answers, reply_to, .. } = parcel;
                let acknowledge = Box::new(Delivered { broker: broker.clone(), address: address.clone(), number });
                inbox.put(Arrival { sender, payload, message_id, answers, reply_to, acknowledge }).await;
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
        let mut state = self.broker.lock();
        let times = match state.fates.as_ref().map_or(Fate::Arrives, |fate| fate(&parcel)) {
            Fate::Arrives => 1,
            Fate::Twice => 2,
            Fate::Lost => 0,
        };
        let there = state.queues.get(&parcel.to).is_some_and(|queue| !queue.is_empty());
        let delivered = there && (0..times).all(|_| state.deliver(&parcel, &self.sender));
        let result = if delivered { Ok(()) } else { Err(SendError::Unroutable(parcel.to)) };
        async move { result }.boxed()
    }
}

/// A delivery in its consumer's hands.
struct Delivered {
    broker: MemoryBroker,
    address: Address,
    number: u64,
}

impl Acknowledge for Delivered {
    fn ack(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.broker.lock().settle(&self.address, self.number);
        async {}.boxed()
    }
    fn requeue(self: Box<Self>) -> BoxFuture<'static, ()> {
        let mut state = self.broker.lock();
        if let Some((parcel, sender)) = state.settle(&self.address, self.number) {
            state.deliver(&parcel, &sender);
        }
        drop(state);
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

    #[tokio::test]
    async fn what_a_conductor_left_unacknowledged_goes_to_another() {
        let broker = MemoryBroker::default();
        let (agent, _inbox) = broker.join(&host());
        let [first, second] = [Incarnation::random(), Incarnation::random()].map(Address::ConductorProcess);
        let (_first_bus, mut of_first) = broker.join(&first);
        let (_second_bus, mut of_second) = broker.join(&second);
        for _ in 0..4 {
            agent.cast(&Address::Conductor, &wake()).await.unwrap();
        }
        of_first.recv().await.unwrap().ack().await;
        let held = of_first.recv().await.unwrap();
        for _ in 0..2 {
            of_second.recv().await.unwrap().ack().await;
        }
        broker.leave(&first);
        let again = of_second.recv().await.unwrap();
        assert_eq!(again.decode::<ToConductor>().unwrap().message_id, held.decode::<ToConductor>().unwrap().message_id);
        again.requeue().await;
        of_second.recv().await.unwrap().ack().await;
        assert!(of_second.try_recv().is_err(), "each was acknowledged once");
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
