//! Avro, JSON and files to columnar batches; schema registry; rejects

pub mod encode;
pub mod files;
pub mod registry_server;
