//! `legwork schemas`: the schemas of all events and reference records.

use std::io::Write;

use anyhow::{Context, Result};
use legwork_operators::records::Reference;
use legwork_types::Kind;

use crate::args::SchemasCommand;
use crate::{config, topics};

pub(crate) async fn run(command: SchemasCommand) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        SchemasCommand::List { avro: Some(kind) } => out.write_all(kind.avro().as_bytes())?,
        SchemasCommand::List { avro: None } => {
            writeln!(out, "{:<20} {:<26} {:<32} record", "kind", "topic", "key")?;
            for kind in Kind::ALL {
                writeln!(
                    out,
                    "{:<20} {:<26} {:<32} legwork.v1.{}",
                    kind.name(),
                    kind.topic(),
                    record_key(kind),
                    kind.record()
                )?;
            }
        }
        SchemasCommand::Register(args) => {
            let config = config::load(&args.overrides())?;
            super::start_logging(&config)?;
            let registry = topics::registry(&config, tokio::runtime::Handle::current())?;
            for kind in Kind::ALL {
                let settings = config.topics.of(kind);
                if !settings.enabled || settings.format != config::Format::Avro {
                    continue;
                }
                for topic in settings.names.unwrap_or_else(|| vec![kind.topic().to_owned()]) {
                    let subject = format!("{topic}-value");
                    let id = registry
                        .register(&subject, kind.avro())
                        .await
                        .with_context(|| format!("registering {subject}"))?;
                    writeln!(out, "{subject}: id {id}")?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

/// Fields of the record key, joined by slashes where they are several.
fn record_key(kind: Kind) -> String {
    if kind.is_reference() { Reference::identity(kind).join("/") } else { kind.key().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_keys_tell_all_records_of_a_history_apart() {
        let keys = [
            (Kind::Gps, "device_id"),
            (Kind::Teams, "team_id"),
            (Kind::Reps, "rep_id/valid_from"),
            (Kind::DeviceAssignments, "device_id/valid_from"),
            (Kind::Stages, "pipeline_id/stage"),
            (Kind::Quotas, "rep_id/metric/period/valid_from"),
            (Kind::FxRates, "currency/as_of"),
        ];
        for (kind, key) in keys {
            assert_eq!(record_key(kind), key);
        }
    }
}
