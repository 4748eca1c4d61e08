//! What is known of the hops to Kafka: which have trouble, since when, and when they are well again. Knows no clock and no client.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use legwork_runtime::SourceEvent;
use rdkafka::error::RDKafkaErrorCode;

/// A connection that is lost and back within this time is not worth a message: brokers close idle ones.
const GRACE: Duration = Duration::from_millis(1_500);

/// Which of our clients saw something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The consumer.
    Consumer = 0,
    /// The client that only asks.
    Probe = 1,
}

/// State of a broker as a client's statistics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokerState {
    Up,
    /// Not connected and not trying, since nobody needs it.
    Idle,
    Down,
}

/// A broker in a client's statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerSeen {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) state: BrokerState,
    /// Known from the bootstrap list only; once a broker has told its name, the connection under this one may be given up.
    pub(crate) is_bootstrap: bool,
}

#[derive(Debug)]
struct Hop {
    message: String,
    since: Instant,
    is_reported: bool,
    /// Per client: whether it is the one that has the trouble. Both false: a trouble that only [`Health::well`] ends.
    clients: [bool; 2],
}

/// Troubles of all hops, and the events that tell of them.
#[derive(Debug, Default)]
pub(crate) struct Health {
    hops: BTreeMap<String, Hop>,
    events: VecDeque<SourceEvent>,
}

impl Health {
    /// A client's error callback. Errors of single connections count only if they last.
    pub(crate) fn client_error(&mut self, seen: Seen, code: RDKafkaErrorCode, reason: &str, now: Instant) {
        if code == RDKafkaErrorCode::AllBrokersDown {
            for (hop, state) in &mut self.hops {
                if state.clients[seen as usize] {
                    report(hop, state, &mut self.events);
                }
            }
            return;
        }
        let (address, cause) = split_reason(reason);
        let (message, is_final) = match code {
            RDKafkaErrorCode::Authentication => {
                (format!("broker {address} refuses the login: {cause}: check sasl.* in [kafka.options]"), true)
            }
            RDKafkaErrorCode::SSL => {
                let options = "security.protocol and ssl.* in [kafka.options]";
                (format!("broker {address}: the TLS handshake failed: {cause}: check {options}"), true)
            }
            RDKafkaErrorCode::Resolve => {
                (format!("broker {address}: its name cannot be resolved: {cause}: check kafka.bootstrap"), true)
            }
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut => {
                let advice = "check that it runs, kafka.bootstrap and security.protocol";
                (format!("broker {address} does not answer: {cause}: {advice}"), false)
            }
            _ => return,
        };
        let hop = format!("broker {address}");
        let fresh = || Hop { message: message.clone(), since: now, is_reported: false, clients: [false; 2] };
        let state = self.hops.entry(hop.clone()).or_insert_with(fresh);
        state.clients[seen as usize] = true;
        if is_final && state.message != message {
            // Another cause than the one that was told: worth telling.
            state.is_reported = false;
            state.message = message;
        }
        if is_final {
            report(&hop, state, &mut self.events);
        }
    }

    /// A client's statistics: ends troubles with brokers that are well, tells of those that last.
    pub(crate) fn brokers(&mut self, seen: Seen, brokers: &[BrokerSeen], now: Instant) {
        let any_up = brokers.iter().any(|broker| broker.state == BrokerState::Up);
        let mut well = Vec::new();
        for (hop, state) in self.hops.iter_mut().filter(|(_, state)| state.clients[seen as usize]) {
            let address = hop.trim_start_matches("broker ");
            let mut same = brokers.iter().filter(|broker| broker.address == address).peekable();
            let is_well = same.peek().is_none()
                || same.all(|broker| match broker.state {
                    BrokerState::Up => true,
                    BrokerState::Idle => any_up,
                    BrokerState::Down => broker.is_bootstrap && any_up,
                });
            if is_well {
                state.clients[seen as usize] = false;
                if state.clients == [false; 2] {
                    well.push(hop.clone());
                }
            } else if now.duration_since(state.since) >= GRACE {
                report(hop, state, &mut self.events);
            }
        }
        for hop in well {
            self.well(&hop);
        }
    }

    /// A trouble that is known for certain.
    pub(crate) fn trouble(&mut self, hop: &str, message: &str, now: Instant) {
        let fresh = || Hop { message: message.to_owned(), since: now, is_reported: false, clients: [false; 2] };
        let state = self.hops.entry(hop.to_owned()).or_insert_with(fresh);
        if state.message != message {
            state.message = message.to_owned();
            state.is_reported = false;
        }
        report(hop, state, &mut self.events);
    }

    /// A hop is well, whatever was the matter.
    pub(crate) fn well(&mut self, hop: &str) {
        if self.hops.remove(hop).is_some_and(|state| state.is_reported) {
            self.events.push_back(SourceEvent::Recovered { hop: hop.to_owned() });
        }
    }

    /// Nothing can go on.
    pub(crate) fn fatal(&mut self, message: String) {
        self.events.push_back(SourceEvent::Fatal { message });
    }

    /// Whether some hop has trouble.
    pub(crate) fn has_trouble(&self) -> bool {
        !self.hops.is_empty()
    }

    /// Hands out what happened.
    pub(crate) fn drain(&mut self, into: &mut Vec<SourceEvent>) {
        into.extend(self.events.drain(..));
    }
}

fn report(hop: &str, state: &mut Hop, events: &mut VecDeque<SourceEvent>) {
    if !state.is_reported {
        state.is_reported = true;
        events.push_back(SourceEvent::Trouble { hop: hop.to_owned(), message: state.message.clone() });
    }
}

/// Splits librdkafka's reason, such as `sasl_ssl://host:9093/bootstrap: Connect to ipv4#10.0.0.1:9093 failed: Connection refused (after
/// 2ms in state CONNECT, 1 identical error(s) suppressed)`, into `host:port` and the cause without figures that change.
fn split_reason(reason: &str) -> (&str, &str) {
    let reason = reason.strip_prefix("GroupCoordinator: ").unwrap_or(reason);
    let (name, cause) = reason.split_once(": ").unwrap_or(("", reason));
    let name = name.rsplit_once("://").map_or(name, |(_, address)| address);
    let address = name.split_once('/').map_or(name, |(address, _)| address);
    let cause = cause.split_once(" (after ").map_or(cause, |(cause, _)| cause);
    (address, cause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const REFUSED: &str =
        "127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)";

    fn broker(address: &str, state: BrokerState, is_bootstrap: bool) -> BrokerSeen {
        BrokerSeen { address: address.to_owned(), state, is_bootstrap }
    }

    fn told(health: &mut Health) -> Vec<String> {
        let mut events = Vec::new();
        health.drain(&mut events);
        events.iter().map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn a_blip_is_not_told_and_a_lasting_loss_is_told_once() {
        let (mut health, start) = (Health::default(), Instant::now());
        let down = [broker("127.0.0.1:9", BrokerState::Down, false)];
        health.client_error(Seen::Consumer, RDKafkaErrorCode::BrokerTransportFailure, REFUSED, start);
        health.brokers(Seen::Consumer, &down, start + Duration::from_millis(300));
        health.brokers(Seen::Consumer, &[broker("127.0.0.1:9", BrokerState::Up, false)], start + GRACE);
        assert!(told(&mut health).is_empty());

        health.client_error(Seen::Consumer, RDKafkaErrorCode::BrokerTransportFailure, REFUSED, start);
        health.brokers(Seen::Consumer, &down, start + GRACE);
        health.brokers(Seen::Consumer, &down, start + GRACE * 2);
        let events = told(&mut health);
        assert_eq!(events.len(), 1);
        assert!(
            events[0].contains("broker 127.0.0.1:9 does not answer: Connect to ipv4#127.0.0.1:9 failed"),
            "{events:?}"
        );
        assert!(!events[0].contains("after"), "{events:?}");
        health.brokers(Seen::Consumer, &[broker("127.0.0.1:9", BrokerState::Up, false)], start + GRACE * 3);
        assert_eq!(told(&mut health), ["Recovered(broker 127.0.0.1:9)"]);
        assert!(!health.has_trouble());
    }

    #[test]
    fn all_brokers_down_is_told_at_once_and_ends_when_both_clients_are_well() {
        let (mut health, now) = (Health::default(), Instant::now());
        for seen in [Seen::Probe, Seen::Consumer] {
            health.client_error(seen, RDKafkaErrorCode::BrokerTransportFailure, REFUSED, now);
            health.client_error(seen, RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down", now);
        }
        assert_eq!(told(&mut health).len(), 1);
        let up = [broker("127.0.0.1:9", BrokerState::Up, false)];
        health.brokers(Seen::Probe, &up, now);
        assert!(told(&mut health).is_empty());
        health.brokers(Seen::Consumer, &up, now);
        assert_eq!(told(&mut health).len(), 1);
    }

    #[test]
    fn a_bootstrap_name_is_well_once_any_broker_is_up() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.client_error(
            Seen::Probe,
            RDKafkaErrorCode::BrokerTransportFailure,
            "localhost:9/bootstrap: refused",
            now,
        );
        health.client_error(Seen::Probe, RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down", now);
        let brokers = [broker("localhost:9", BrokerState::Down, true), broker("127.0.0.1:9", BrokerState::Up, false)];
        health.brokers(Seen::Probe, &brokers, now);
        assert_eq!(told(&mut health).last().unwrap(), "Recovered(broker localhost:9)");
    }

    #[test]
    fn another_cause_is_told_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.trouble("topic a", "topic a does not exist", now);
        health.trouble("topic a", "topic a does not exist", now);
        health.trouble("topic a", "no right to read topic a", now);
        health.well("topic a");
        assert_eq!(told(&mut health).len(), 3);
    }

    #[test]
    fn reasons_are_taken_apart() {
        let cause = "SASL authentication error: Authentication failed (after 5ms in state AUTH_REQ)";
        assert_eq!(
            split_reason(&format!("sasl_ssl://b1.example:9093/3: {cause}")),
            ("b1.example:9093", "SASL authentication error: Authentication failed")
        );
        assert_eq!(
            split_reason("GroupCoordinator: 127.0.0.1:9092: Disconnected (after 4ms in state UP)"),
            ("127.0.0.1:9092", "Disconnected")
        );
    }
}
