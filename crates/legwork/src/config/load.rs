//! Reading the configuration: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use legwork_types::Kind;
use toml::{Table, Value};

use super::Config;

/// Prefix of environment variables, as in `LEGWORK__KAFKA__BOOTSTRAP`.
const ENV_PREFIX: &str = "LEGWORK__";
/// Names that are free below these tables.
const FREE_TABLES: [&str; 3] = ["kafka.options", "store.options", "lake.retention"];

/// What the command line says over everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// `--set KEY=VALUE`, and flags that stand for keys.
    pub(crate) set: Vec<(String, Value)>,
}

/// A configuration that cannot be used; always the user's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// Reads all layers.
pub(crate) fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut merged = Table::new();
    if let Some(path) = file(overrides)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        let table: Table =
            text.parse().map_err(|error| ConfigError(format!("{} is no TOML: {error}", path.display())))?;
        check_names(&table, &path.display().to_string())?;
        merge(&mut merged, table);
    }
    let from_env = environment(std::env::vars())?;
    check_names(&from_env, "the environment")?;
    merge(&mut merged, from_env);
    let mut flags = Table::new();
    for (key, value) in &overrides.set {
        let parts: Vec<&str> = match key.strip_prefix("kafka.options.") {
            Some(option) => vec!["kafka", "options", option],
            None => key.split('.').collect(),
        };
        put(&mut flags, &parts, value.clone()).map_err(ConfigError)?;
    }
    check_names(&flags, "the command line")?;
    merge(&mut merged, flags);
    let mut config: Config = Value::Table(merged)
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError(format!("the configuration is wrong: {}", error.message())))?;
    keep_default_retention(&mut config);
    check_values(&config)?;
    Ok(config)
}

/// Naming one table must not lift the limits that the others have by default.
fn keep_default_retention(config: &mut Config) {
    for (table, span) in Config::default().lake.retention {
        config.lake.retention.entry(table).or_insert(span);
    }
}

fn file(overrides: &Overrides) -> Result<Option<PathBuf>, ConfigError> {
    match &overrides.file {
        Some(path) if path.exists() => Ok(Some(path.clone())),
        Some(path) => {
            Err(ConfigError(format!("{} does not exist: leave --config out to use the defaults", path.display())))
        }
        None => Ok(Some(PathBuf::from("legwork.toml")).filter(|path| path.exists())),
    }
}

/// Keys of the environment: two underscores go one table down; single ones in librdkafka's options are dots.
fn environment(vars: impl Iterator<Item = (String, String)>) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    for (name, text) in vars {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        let lower = path.to_lowercase();
        let option = lower.strip_prefix("kafka__options__").map(|option| match option.strip_suffix("_file") {
            Some(option) => format!("{}_file", option.replace('_', ".")),
            None => option.replace('_', "."),
        });
        let parts: Vec<&str> = match &option {
            Some(option) => vec!["kafka", "options", option],
            None => lower.split("__").collect(),
        };
        put(&mut table, &parts, scalar(&text)).map_err(|error| ConfigError(format!("{name}: {error}")))?;
    }
    Ok(table)
}

/// A value as TOML would read it, else the text itself.
pub(crate) fn scalar(text: &str) -> Value {
    match format!("value = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(|| Value::String(text.to_owned())),
        _ => Value::String(text.to_owned()),
    }
}

fn put(table: &mut Table, path: &[&str], value: Value) -> Result<(), String> {
    let [first, rest @ ..] = path else { return Err("expected a key such as kafka.bootstrap".to_owned()) };
    // Kinds may be written with underscores where a dash cannot stand.
    let first = if Kind::ALL.iter().any(|kind| kind.name() == first.replace('_', "-")) {
        first.replace('_', "-")
    } else {
        (*first).to_owned()
    };
    if rest.is_empty() {
        table.insert(first, value);
        return Ok(());
    }
    match table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => put(inner, rest, value),
        _ => Err(format!("{first} is a value, not a table")),
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Fails on a name that does not exist, with the nearest one that does.
fn check_names(table: &Table, origin: &str) -> Result<(), ConfigError> {
    let schema = serde_json::to_value(super::schema()).map_err(|error| ConfigError(error.to_string()))?;
    check_table(table, &schema, &schema, "", origin)
}

fn check_table(
    table: &Table,
    schema: &serde_json::Value,
    root: &serde_json::Value,
    path: &str,
    origin: &str,
) -> Result<(), ConfigError> {
    let known: Vec<String> = if path == "topics." {
        Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect()
    } else {
        schema["properties"].as_object().map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    };
    for (key, value) in table {
        let full = format!("{path}{key}");
        if !known.contains(key) {
            let hint = match nearest(key, &known) {
                Some(nearest) => format!(": did you mean {path}{nearest}?"),
                None => format!(": expected one of {}", known.join(", ")),
            };
            return Err(ConfigError(format!("unknown key {full} in {origin}{hint}")));
        }
        if let Value::Table(inner) = value
            && !FREE_TABLES.contains(&full.as_str())
        {
            let next = if path == "topics." {
                &root["$defs"]["Topic"]
            } else {
                resolve(&schema["properties"][key.as_str()], root)
            };
            check_table(inner, next, root, &format!("{full}."), origin)?;
        }
    }
    Ok(())
}

fn resolve<'a>(schema: &'a serde_json::Value, root: &'a serde_json::Value) -> &'a serde_json::Value {
    match schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        Some(name) => &root["$defs"][name],
        None => schema,
    }
}

/// The known name that was probably meant.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate.as_str()))
        .filter(|(similarity, _)| *similarity > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn check_values(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, expected: &str| Err(ConfigError(format!("{key} is wrong: expected {expected}")));
    if config.time.window.0 < 1_000_000 || 86_400_000_000 % config.time.window.0 != 0 {
        return wrong("time.window", "at least 1s and a divisor of a day, such as 1m, 5m, 15m or 1h");
    }
    if config.query.concurrency == 0 {
        return wrong("query.concurrency", "at least 1");
    }
    if config.kafka.message_bytes_max.0 == 0 || config.kafka.message_bytes_max.0 > 1 << 30 {
        return wrong("kafka.message_bytes_max", "between 1B and 1GiB");
    }
    if config.track.speed_mps_max <= 0.0 || config.track.accuracy_m_max <= 0.0 || config.track.stay_radius_m <= 0.0 {
        return wrong("track", "positive limits");
    }
    let tables = super::lake_tables();
    if let Some(table) = config.lake.retention.keys().find(|table| !tables.contains(table)) {
        let hint = match nearest(table, &tables) {
            Some(nearest) => format!("did you mean lake.retention.{nearest}?"),
            None => format!("expected one of {}", tables.join(", ")),
        };
        return Err(ConfigError(format!("lake.retention.{table}: the lake has no table called {table}: {hint}")));
    }
    if config.kafka.bootstrap.trim().is_empty() {
        return wrong("kafka.bootstrap", "host:port, comma-separated");
    }
    Ok(())
}

/// Reads a secret from a file, without the line's end.
pub(crate) fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("cannot read the secret in {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The configuration as TOML with every secret masked.
pub(crate) fn masked(config: &Config) -> Result<String, ConfigError> {
    let mut config = config.clone();
    if config.registry.password.is_some() {
        config.registry.password = Some("***".to_owned());
    }
    for (name, value) in &mut config.kafka.options.0 {
        if legwork_kafka::is_secret(name) && !name.ends_with("_file") {
            *value = Value::String("***".to_owned());
        }
    }
    for kind in Kind::ALL {
        let topic = config.topics.of(kind);
        config.topics.0.insert(kind.name().to_owned(), topic);
    }
    toml::to_string_pretty(&config).map_err(|error| ConfigError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Result<Table, ConfigError> {
        environment(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn environment_reaches_tables_options_and_kinds() -> Result<(), ConfigError> {
        let table = env(&[
            ("LEGWORK__KAFKA__BOOTSTRAP", "b:9092"),
            ("LEGWORK__KAFKA__OPTIONS__SASL_PASSWORD", "s3"),
            ("LEGWORK__QUERY__CONCURRENCY", "3"),
            ("LEGWORK__TOPICS__CHECK_INS__NAMES", "[\"a\", \"b\"]"),
            ("OTHER", "x"),
        ])?;
        check_names(&table, "test")?;
        let config: Config = Value::Table(table).try_into().map_err(|e: toml::de::Error| ConfigError(e.to_string()))?;
        assert_eq!(config.kafka.bootstrap, "b:9092");
        assert_eq!(config.kafka.options.0["sasl.password"].as_str(), Some("s3"));
        assert_eq!(config.query.concurrency, 3);
        assert_eq!(config.topics.of(Kind::CheckIns).names.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        Ok(())
    }

    #[test]
    fn unknown_names_are_errors_with_the_nearest_name() {
        let check = |text: &str| check_names(&text.parse().expect("TOML"), "test").map_err(|error| error.to_string());
        assert_eq!(
            check("[kafka]\nbootstap = 1"),
            Err("unknown key kafka.bootstap in test: did you mean kafka.bootstrap?".to_owned())
        );
        assert!(check("[topics.gsp]\nenabled = true").is_err_and(|error| error.contains("topics.gps")));
        assert!(check("[topics.gps]\nenable = true").is_err_and(|error| error.contains("topics.gps.enabled")));
        assert_eq!(check("[kafka.options]\n\"any.thing\" = 1"), Ok(()));
    }

    #[test]
    fn retention_knows_its_tables_and_keeps_its_defaults() -> Result<(), ConfigError> {
        let with =
            |key: &str| Overrides { file: None, set: vec![(format!("lake.retention.{key}"), scalar("\"90d\""))] };
        let config = load(&with("calls"))?;
        let kept: Vec<_> = config.lake.retention.iter().map(|(table, span)| format!("{table}={span}")).collect();
        assert_eq!(kept, ["calls=90d", "gps_pings=60d", "rejected_events=14d"]);
        let wrong = load(&with("gps_ping")).err().map(|error| error.to_string());
        assert!(wrong.is_some_and(|error| error.contains("did you mean lake.retention.gps_pings?")));
        Ok(())
    }

    #[test]
    fn secrets_are_masked() -> Result<(), ConfigError> {
        let mut config = Config::default();
        config.kafka.options.0.insert("sasl.password".to_owned(), Value::String("hush".to_owned()));
        config.registry.password = Some("hush".to_owned());
        assert!(!masked(&config)?.contains("hush"));
        Ok(())
    }

    #[test]
    fn defaults_survive_printing_and_reading() -> Result<(), ConfigError> {
        let text = masked(&Config::default())?;
        let table: Table = text.parse().map_err(|error| ConfigError(format!("{error}")))?;
        check_names(&table, "test")?;
        let again: Config = Value::Table(table).try_into().map_err(|e: toml::de::Error| ConfigError(e.to_string()))?;
        assert_eq!(masked(&again)?, text);
        Ok(())
    }
}
