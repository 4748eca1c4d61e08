//! Kafka: source, producer, dead letters, embedded broker
