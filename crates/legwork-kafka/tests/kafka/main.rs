//! The source, the producer and the dead letters against brokers: the embedded one always, a real one when `LEGWORK_TEST_KAFKA` holds
//! its address (`scripts/kafka up` prints it).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod cases;
mod claims;
mod embedded;
mod group;
mod real;
mod support;
mod topics;
