//! `legwork tap`: a topic's messages, decoded.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use legwork_codec::Decoder;
use legwork_kafka::{KafkaConfig, KafkaSource, Start};
use legwork_runtime::{BatchLimit, LogSource, PartitionReader, ReadOutcome, SourceEvent, TopicConfig};
use legwork_types::MessageBatch;

use crate::args::TapArgs;
use crate::exit::Failure;
use crate::topics;

const LIMIT: BatchLimit = BatchLimit { n_messages_max: 1_024, n_bytes_max: 4 << 20 };

pub(crate) async fn run(args: TapArgs) -> Result<()> {
    let config = super::quiet(&args.config.overrides())?;
    let registry = topics::registry(&config, tokio::runtime::Handle::current())?;
    let known = topics::topics(&config, &registry);
    let Some(topic) = known.iter().find(|topic| *topic.name == *args.topic).cloned() else {
        let names: Vec<&str> = known.iter().map(|topic| &*topic.name).collect();
        bail!(Failure::Usage(format!(
            "topic {:?} is not configured: expected one of {}",
            args.topic,
            names.join(", ")
        )));
    };
    let source = KafkaConfig {
        // A group of its own that never stores an offset: whoever reads for real is not disturbed.
        group: format!("{}-tap-{}", config.kafka.group, std::process::id()),
        instance_id: None,
        start: if args.from_start { Start::Earliest } else { Start::Latest },
        ..topics::kafka(&config, std::slice::from_ref(&topic))?
    };
    let message_bytes_max = config.kafka.message_bytes_max.bytes();
    let source = KafkaSource::new(source)?;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let tap = Tap {
        source,
        topic,
        message_bytes_max,
        left: args.count.unwrap_or(u64::MAX),
        stop: stop.clone(),
        taps: Vec::new(),
    };
    let tapping = tokio::task::spawn_blocking(move || tap.run());
    let signal = tokio::spawn(async move {
        let done = super::stop_signal().await;
        stop.store(true, std::sync::atomic::Ordering::Release);
        done
    });
    let done = tapping.await?;
    signal.abort();
    done
}

struct Tap {
    source: KafkaSource,
    topic: TopicConfig,
    message_bytes_max: usize,
    left: u64,
    stop: Arc<std::sync::atomic::AtomicBool>,
    taps: Vec<(Box<dyn PartitionReader>, Decoder, MessageBatch, usize)>,
}

impl Tap {
    fn run(mut self) -> Result<()> {
        while self.left > 0 && !self.stop.load(std::sync::atomic::Ordering::Acquire) {
            for event in self.source.poll(Duration::from_millis(20)) {
                match event {
                    SourceEvent::Assigned(readers) => {
                        for reader in readers {
                            let decoder =
                                Decoder::new(self.topic.kind, self.topic.format.clone(), self.message_bytes_max);
                            let batch = MessageBatch::new(reader.topic().clone(), reader.partition());
                            self.taps.push((reader, decoder, batch, 0));
                        }
                    }
                    SourceEvent::Revoked { done, .. } => {
                        self.taps.clear();
                        done();
                    }
                    SourceEvent::Trouble { message, .. } => tracing::warn!("{message}"),
                    SourceEvent::Recovered { .. } => {}
                    SourceEvent::Fatal { message } => bail!(message),
                }
            }
            self.read()?;
        }
        self.taps.clear();
        self.source.close();
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for (reader, decoder, batch, n_done) in &mut self.taps {
            if *n_done == batch.len() {
                batch.clear(1 << 20);
                *n_done = 0;
                if reader.read(batch, LIMIT) == ReadOutcome::Gone {
                    bail!(reader.gone_because().unwrap_or_else(|| "the partition is gone".to_owned()));
                }
            }
            let decoded = decoder.decode(batch, *n_done);
            *n_done += decoded.n_consumed;
            let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
            let n_rows = decoded.events.n_rows().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            writer.write(&decoded.events.columns.slice(0, n_rows))?;
            writer.finish()?;
            out.write_all(&writer.into_inner())?;
            self.left -= n_rows as u64;
            for reject in &decoded.rejects {
                tracing::warn!(partition = batch.partition, offset = reject.offset, reason = %reject.reason, "rejected: {}", reject.detail);
            }
        }
        Ok(out.flush()?)
    }
}
