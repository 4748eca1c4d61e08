//! A simulated field organisation, the reference workload, and garbage: all of it reproducible from a seed.
//!
//! What lives here: [`Organisation`], which moves through simulated time and hands out what was sent meanwhile as canonical batches;
//! [`w1`], the workload that throughput is measured on; [`garbage`], messages that must cost only themselves; [`deliver`], the
//! arithmetic of time lapse. What does not: clocks, threads, brokers, encoders. Whoever produces to Kafka passes the moments in.

mod comms;
mod crm;
mod deals;
pub mod deliver;
mod dice;
mod field;
pub mod garbage;
mod motion;
mod organisation;
mod outbox;
mod phone;
mod reference;
mod rows;
mod tasks;
pub mod w1;
mod world;

#[cfg(test)]
mod tests;

pub use organisation::{Organisation, SimBatch, SimConfig};
pub use reference::reference_keys;
