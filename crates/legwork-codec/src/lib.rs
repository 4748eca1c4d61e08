//! Avro, JSON and files to columnar batches; schema registry; rejects
