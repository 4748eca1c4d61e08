//! Avro, JSON and files to columnar batches; schema registry; rejects.
//!
//! A bad record is data, not an error: decoders and readers return the good rows and the bad ones side by side. What does not live
//! here: threads, brokers, and what events mean.

mod avro;
mod columns;
mod decimal;
mod decoder;
pub mod encode;
pub mod files;
mod json;
mod registry;
pub mod registry_server;
#[cfg(test)]
mod testing;
mod validate;

pub use decoder::{Blocked, Decoded, Decoder, Format};
pub use registry::{
    LatestSchema, Lookup, RegistryClient, RegistryConfig, RegistryError, RegistryErrorKind, WriterSchema,
};
pub use validate::{normalise, validate};
