//! Avro, JSON and files to columnar batches; schema registry; rejects

mod avro;
mod columns;
mod decimal;
mod decoder;
mod json;
mod registry;
#[cfg(test)]
mod testing;
mod validate;

pub use decoder::{Blocked, Decoded, Decoder, Format};
pub use registry::{
    LatestSchema, Lookup, RegistryClient, RegistryConfig, RegistryError, RegistryErrorKind, WriterSchema,
};
pub use validate::{normalise, validate};
