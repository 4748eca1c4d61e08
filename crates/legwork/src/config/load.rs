//! Reading the configuration: flags over environment over file over defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use legwork_types::Kind;
use toml::{Table, Value};

use super::{Config, Options, UNSERVED};

/// Prefix of environment variables, as in `LEGWORK__KAFKA__BOOTSTRAP`.
const ENV_PREFIX: &str = "LEGWORK__";
/// Names that are free below these tables.
const FREE_TABLES: [&str; 3] = ["kafka.options", "store.options", "lake.retention"];
/// The one key of ours that is a secret.
const SECRET_KEY: &str = "registry.password";
/// What stands in place of a secret.
const MASK: &str = "***";

/// What the command line says over everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// `--set KEY=VALUE`, and flags that stand for keys.
    pub(crate) set: Vec<(String, String)>,
}

/// A configuration that cannot be used; always the user's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// Reads all layers.
pub(crate) fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    layered(Table::new(), overrides)
}

/// As [`load`], with another default of `log.level`.
pub(crate) fn load_quiet(overrides: &Overrides, log_level: &str) -> Result<Config, ConfigError> {
    let log = Table::from_iter([("level".to_owned(), Value::from(log_level))]);
    layered(Table::from_iter([("log".to_owned(), Value::Table(log))]), overrides)
}

fn layered(mut merged: Table, overrides: &Overrides) -> Result<Config, ConfigError> {
    if let Some(path) = file(overrides)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        let table: Table =
            text.parse().map_err(|error| ConfigError(format!("{} is no TOML: {error}", path.display())))?;
        check_names(&table, &path.display().to_string())?;
        merge(&mut merged, table);
    }
    let from_env = environment(std::env::vars_os())?;
    check_names(&from_env, "the environment")?;
    merge(&mut merged, from_env);
    let mut flags = Table::new();
    for (key, text) in &overrides.set {
        let parts: Vec<&str> = match key.strip_prefix("kafka.options.") {
            Some(option) => vec!["kafka", "options", option],
            None => key.split('.').collect(),
        };
        put_text(&mut flags, &parts, text)?;
    }
    check_names(&flags, "the command line")?;
    merge(&mut merged, flags);
    let unserved =
        UNSERVED.iter().map(|(section, _)| *section).filter(|section| merged.contains_key(*section)).collect();
    let mut config: Config = serde_path_to_error::deserialize(Value::Table(merged)).map_err(wrong_type)?;
    config.unserved = unserved;
    keep_default_retention(&mut config);
    super::values::check(&config)?;
    Ok(config)
}

/// A value that its key cannot have. What serde says shows the value, which a secret's must not be.
fn wrong_type(error: serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
    match error.path().to_string() {
        key if key == SECRET_KEY => ConfigError(format!("{key} is wrong: expected text in quotes")),
        key => ConfigError(format!("{key} is wrong: {}", error.inner().message())),
    }
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
fn environment(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    for (name, text) in vars {
        // What others call theirs is no matter of ours, whatever it is made of.
        let name = name.to_string_lossy();
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        let text = text.into_string().map_err(|_| ConfigError(format!("{name}: its value is not UTF-8")))?;
        let lower = path.to_lowercase();
        let option = lower.strip_prefix("kafka__options__").map(|option| match option.strip_suffix("_file") {
            Some(option) => format!("{}_file", option.replace('_', ".")),
            None => option.replace('_', "."),
        });
        let parts: Vec<&str> = match &option {
            Some(option) => vec!["kafka", "options", option],
            None => lower.split("__").collect(),
        };
        put_text(&mut table, &parts, &text).map_err(|error| ConfigError(format!("{name}: {error}")))?;
    }
    Ok(table)
}

/// Puts a value that was given as text: as its key has it.
fn put_text(table: &mut Table, path: &[&str], text: &str) -> Result<(), ConfigError> {
    let path: Vec<String> = match path {
        ["topics", kind, rest @ ..] => ["topics".to_owned(), known_kind(kind)]
            .into_iter()
            .chain(rest.iter().map(|&name| name.to_owned()))
            .collect(),
        path => path.iter().map(|&name| name.to_owned()).collect(),
    };
    let root = schema()?;
    put(table, &path, typed(text, leaf(&path, &root))).map_err(ConfigError)
}

/// Kinds may be written with underscores where a dash cannot stand.
fn known_kind(name: &str) -> String {
    let dashed = name.replace('_', "-");
    if Kind::ALL.iter().any(|kind| kind.name() == dashed) { dashed } else { name.to_owned() }
}

/// The types that a key's value may have; none where any text will do.
fn leaf<'a>(path: &[String], root: &'a serde_json::Value) -> &'a serde_json::Value {
    let below = |schema: &'a serde_json::Value, name: &String| resolve(&schema["properties"][name], root);
    match path {
        [topics, _kind, rest @ ..] if topics == "topics" => rest.iter().fold(&root["$defs"]["Topic"], below),
        path => path.iter().fold(root, below),
    }
}

/// Text as a value of this type. A password of digits stays what it is, and so does a name; numbers, switches and lists are read as TOML.
fn typed(text: &str, schema: &serde_json::Value) -> Value {
    let is = |name: &str| match &schema["type"] {
        serde_json::Value::String(only) => only == name,
        serde_json::Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    match scalar(text) {
        Value::String(names) if is("array") => {
            Value::Array(names.split(',').map(|name| Value::from(name.trim())).collect())
        }
        value if ["array", "integer", "number", "boolean", "object"].into_iter().any(is) => value,
        Value::String(text) => Value::String(text),
        _ => Value::String(text.to_owned()),
    }
}

/// A value as TOML would read it, else the text itself.
fn scalar(text: &str) -> Value {
    match format!("value = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(|| Value::String(text.to_owned())),
        _ => Value::String(text.to_owned()),
    }
}

fn put(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let [first, rest @ ..] = path else { return Err("expected a key such as kafka.bootstrap".to_owned()) };
    if rest.is_empty() {
        table.insert(first.clone(), value);
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
    let schema = schema()?;
    check_table(table, &schema, &schema, "", origin)
}

fn schema() -> Result<serde_json::Value, ConfigError> {
    serde_json::to_value(super::schema()).map_err(|error| ConfigError(error.to_string()))
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

/// Reads a secret from a file, without the line's end.
pub(crate) fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("cannot read the secret in {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The configuration as TOML with every secret masked.
pub(crate) fn masked(config: &Config) -> Result<String, ConfigError> {
    let mut config = config.clone();
    if let Some(password) = &mut config.registry.password {
        MASK.clone_into(password);
    }
    for url in
        [Some(&mut config.registry.url), Some(&mut config.store.url), config.lake.url.as_mut()].into_iter().flatten()
    {
        *url = without_password(url);
    }
    mask(&mut config.kafka.options, legwork_kafka::is_secret);
    mask(&mut config.store.options, is_store_secret);
    for kind in Kind::ALL {
        let topic = config.topics.of(kind);
        config.topics.0.insert(kind.name().to_owned(), topic);
    }
    toml::to_string_pretty(&config).map_err(|error| ConfigError(error.to_string()))
}

fn mask(options: &mut Options, is_secret: fn(&str) -> bool) {
    for (name, value) in &mut options.0 {
        if is_secret(name) && !name.ends_with("_file") {
            *value = Value::String(MASK.to_owned());
        }
    }
}

/// Whether an option of object_store is a secret. Rather one too many.
fn is_store_secret(option: &str) -> bool {
    let name = option.to_ascii_lowercase();
    ["key", "secret", "token", "password", "credential", "sas"].iter().any(|part| name.contains(part))
}

/// An address without the password that may be in it, as in `https://user:password@host`: whatever is printed of an address is this.
pub(crate) fn without_password(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, _) = authority.rsplit_once('@')?.0.split_once(':')?;
        let host = &rest[authority.rfind('@')?..];
        Some(format!("{scheme}://{user}:{MASK}{host}"))
    });
    parts.unwrap_or_else(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Result<Table, ConfigError> {
        environment(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
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
    fn only_our_own_variables_must_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let garbled = || OsString::from_vec(vec![0xff]);
        assert!(environment([(OsString::from("OTHER"), garbled()), (garbled(), garbled())].into_iter()).is_ok());
        let ours = environment([(OsString::from("LEGWORK__LOG__LEVEL"), garbled())].into_iter());
        assert!(ours.is_err_and(|error| error.0 == "LEGWORK__LOG__LEVEL: its value is not UTF-8"));
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
        let with = |key: &str| Overrides { file: None, set: vec![(format!("lake.retention.{key}"), "90d".to_owned())] };
        let config = load(&with("calls"))?;
        let kept: Vec<_> = config.lake.retention.iter().map(|(table, span)| format!("{table}={span}")).collect();
        assert_eq!(kept, ["calls=90d", "gps_pings=60d", "rejected_events=14d"]);
        let config = load(&with("check_ins"))?;
        assert!(config.lake.retention.contains_key("check_ins"));
        let table = env(&[("LEGWORK__LAKE__RETENTION__DEAL_EVENTS", "30d")])?;
        assert_eq!(table["lake"]["retention"]["deal_events"].as_str(), Some("30d"));
        let wrong = load(&with("gps_ping")).err().map(|error| error.to_string());
        assert!(wrong.is_some_and(|error| error.contains("did you mean lake.retention.gps_pings?")));
        Ok(())
    }

    #[test]
    fn secrets_are_masked() -> Result<(), ConfigError> {
        let mut config = Config::default();
        config.kafka.options.0.insert("sasl.password".to_owned(), Value::String("hush".to_owned()));
        config.registry.password = Some("hush".to_owned());
        config.registry.url = "https://legwork:hush@registry/path@2".to_owned();
        for secret in ["aws_secret_access_key", "azure_storage_sas_token", "google_service_account_key"] {
            config.store.options.0.insert(secret.to_owned(), Value::String("hush".to_owned()));
        }
        config.store.options.0.insert("aws_region".to_owned(), Value::String("eu-central-1".to_owned()));
        let shown = masked(&config)?;
        assert!(!shown.contains("hush") && shown.contains("https://legwork:***@registry/path@2"), "{shown}");
        assert!(shown.contains("eu-central-1"), "{shown}");
        Ok(())
    }

    #[test]
    fn what_has_no_effect_is_told_and_not_printed() -> Result<(), ConfigError> {
        let silent = load(&Overrides::default())?;
        assert!(silent.without_effect().is_empty());
        let set = vec![("flight.listen".to_owned(), "127.0.0.1:0".to_owned())];
        let config = load(&Overrides { file: None, set })?;
        assert_eq!(config.without_effect(), ["[flight] has no effect: Flight SQL is not served by this version yet"]);
        let shown = masked(&config)?;
        assert!(
            !shown.contains("[flight]") && !shown.contains("[internal]") && shown.contains("[postgres]"),
            "{shown}"
        );
        Ok(())
    }

    #[test]
    fn whoever_asks_for_a_log_level_gets_it() -> Result<(), ConfigError> {
        let level = |set: &[(&str, &str)]| {
            let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            load_quiet(&Overrides { file: None, set }, "warn").map(|config| config.log.level)
        };
        assert_eq!(level(&[])?, "warn");
        assert_eq!(level(&[("log.format", "json")])?, "warn");
        assert_eq!(level(&[("log.level", "info")])?, "info");
        Ok(())
    }

    #[test]
    fn text_is_what_its_key_has() -> Result<(), ConfigError> {
        let table = env(&[
            ("LEGWORK__INSTANCE__ID", "0"),
            ("LEGWORK__REGISTRY__PASSWORD", "1_000"),
            ("LEGWORK__KAFKA__START", "2026-01-31T09:00:00Z"),
            ("LEGWORK__KAFKA__GROUP", "\"quoted\""),
            ("LEGWORK__KAFKA__OPTIONS__SASL_PASSWORD", "0x10"),
            ("LEGWORK__STORE__OPTIONS__AWS_SECRET_ACCESS_KEY", "1e5"),
            ("LEGWORK__METRICS__BY_REP", "true"),
            ("LEGWORK__TRACK__STAY_RADIUS_M", "50"),
            ("LEGWORK__TOPICS__CALLS__NAMES", "a, b"),
            ("LEGWORK__TOPICS__GPS__PAST_MAX", "3d"),
        ])?;
        let config: Config = Value::Table(table).try_into().map_err(|e: toml::de::Error| ConfigError(e.to_string()))?;
        assert_eq!(config.instance.id, "0");
        assert_eq!(config.registry.password.as_deref(), Some("1_000"));
        assert_eq!(config.kafka.start, "2026-01-31T09:00:00Z");
        assert_eq!(config.kafka.group, "quoted");
        assert_eq!(config.kafka.options.0["sasl.password"].as_str(), Some("0x10"));
        assert_eq!(config.store.options.0["aws_secret_access_key"].as_str(), Some("1e5"));
        assert!(config.metrics.by_rep);
        assert_eq!(config.track.stay_radius_m, 50.0);
        assert_eq!(config.topics.of(Kind::Calls).names.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(config.topics.of(Kind::Gps).past_max.map(|span| span.0), Some(3 * 86_400_000_000));
        Ok(())
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_key_and_never_a_secret() {
        let wrong = |text: &str| {
            let table: Table = text.parse().expect("TOML");
            serde_path_to_error::deserialize::<_, Config>(Value::Table(table)).map_err(wrong_type).expect_err(text).0
        };
        assert!(wrong("[time]\nwindow = 5").starts_with("time.window is wrong: invalid type"));
        assert!(wrong("[time]\nwindow = \"-5m\"").starts_with("time.window is wrong: \"-5m\" is no duration"));
        assert!(wrong("kafka = 1").starts_with("kafka is wrong"));
        assert_eq!(wrong("[registry]\npassword = 12345678"), "registry.password is wrong: expected text in quotes");
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
