//! Transactions and settings that clients of PostgreSQL send as a habit, answered without the engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Reset, Set, Value};
use pgwire::error::PgWireResult;
use pgwire::messages::response::TransactionStatus;

use super::error::{error, unsupported};

/// What clients are told: the PostgreSQL whose catalog this server answers like.
pub(crate) const SERVER_VERSION: &str = concat!("16.6 (Legwork ", env!("CARGO_PKG_VERSION"), ")");
/// What `version()` answers. Drivers look for the first word.
pub(crate) const VERSION: &str = concat!("PostgreSQL 16.6 (Legwork ", env!("CARGO_PKG_VERSION"), ", read-only)");

/// A statement about the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `ROLLBACK TO SAVEPOINT`.
    RollbackToSavepoint,
    /// Accepted; nothing is to do. With its tag.
    Nothing(&'static str),
    /// `DISCARD ALL` and its kin.
    Discard,
    /// `DEALLOCATE`; all when there is no name.
    Deallocate(Option<String>),
    /// `SET name = value`.
    Set(&'static str, String),
    /// `RESET name`.
    Reset(&'static str),
    /// `RESET ALL`: the engine's settings too.
    ResetAll,
    /// `SHOW name`, or [`ALL`].
    Show(&'static str),
}

/// Settings that clients may change: name, how it is reported when it changes, default. They change nothing here, except the timeout;
/// times are always written in UTC and as ISO 8601.
const CHANGEABLE: &[(&str, Option<&str>, &str)] = &[
    ("application_name", Some("application_name"), ""),
    ("bytea_output", None, "hex"),
    ("client_encoding", Some("client_encoding"), "UTF8"),
    ("client_min_messages", None, "notice"),
    ("datestyle", Some("DateStyle"), "ISO, MDY"),
    ("default_transaction_isolation", None, "read committed"),
    ("default_transaction_read_only", Some("default_transaction_read_only"), "on"),
    ("enable_seqscan", None, "on"),
    ("extra_float_digits", None, "1"),
    ("geqo", None, "on"),
    ("idle_in_transaction_session_timeout", None, "0"),
    ("intervalstyle", Some("IntervalStyle"), "postgres"),
    ("jit", None, "off"),
    ("lock_timeout", None, "0"),
    ("search_path", None, "public"),
    ("standard_conforming_strings", Some("standard_conforming_strings"), "on"),
    ("statement_timeout", None, "0"),
    ("timezone", Some("TimeZone"), "UTC"),
];

/// Settings that never change.
const FIXED: &[(&str, &str)] = &[
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("is_superuser", "off"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// What `SHOW ALL` shows.
pub(crate) const ALL: &str = "all";

/// The columns of what is shown: the setting's own, or all that is told of every one.
pub(crate) fn show_schema(name: &str) -> SchemaRef {
    let names = if name == ALL { vec!["name", "setting", "description"] } else { vec![name] };
    Arc::new(Schema::new(names.into_iter().map(|name| Field::new(name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

/// The value of a setting that never changes, or the default of one that may.
pub(crate) fn fixed(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let of_fixed = FIXED.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    of_fixed.or_else(|| changeable(&name).map(|(_, _, default)| *default))
}

fn changeable(name: &str) -> Option<&'static (&'static str, Option<&'static str>, &'static str)> {
    CHANGEABLE.iter().find(|(known, _, _)| *known == name)
}

/// What a client of this connection has set.
#[derive(Debug, Default)]
pub(crate) struct Settings(HashMap<&'static str, String>);

impl Settings {
    /// As `SHOW` writes it.
    pub(crate) fn show(&self, name: &'static str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| fixed(name).unwrap_or_default().to_owned())
    }

    /// What `SHOW name` shows. *Shape:* one row, or one a setting, as [`show_schema`].
    pub(crate) fn shown(&self, name: &'static str) -> Vec<ArrayRef> {
        if name != ALL {
            return vec![Arc::new(StringArray::from(vec![self.show(name)]))];
        }
        let mut names: Vec<&str> =
            FIXED.iter().map(|(name, _)| *name).chain(CHANGEABLE.iter().map(|(name, _, _)| *name)).collect();
        names.sort_unstable();
        let values = StringArray::from_iter_values(names.iter().map(|name| self.show(name)));
        let descriptions = StringArray::from(vec![""; names.len()]);
        vec![Arc::new(StringArray::from(names)), Arc::new(values), Arc::new(descriptions)]
    }

    /// Changes it. *Returns* what the client is told about it, when it is told. *Errors:* 22023 for values that would lie.
    pub(crate) fn set(&mut self, name: &'static str, value: String) -> PgWireResult<Option<(String, String)>> {
        match name {
            "statement_timeout" => drop(parse_timeout(&value)?),
            "client_encoding" if !["utf8", "utf-8", "unicode"].contains(&value.to_ascii_lowercase().as_str()) => {
                return Err(error("22023", format!("client_encoding {value} is not supported, only UTF8")));
            }
            "standard_conforming_strings" if value != "on" => {
                return Err(error("22023", "standard_conforming_strings is always on"));
            }
            "datestyle" => {
                let shown = date_style(&value)?;
                self.0.insert(name, shown.clone());
                return Ok(Some(("DateStyle".to_owned(), shown)));
            }
            "intervalstyle" if !value.eq_ignore_ascii_case("postgres") => {
                return Err(error("22023", format!("intervalstyle {value} is not supported, only postgres")));
            }
            // Times leave in UTC with their offset: instants are right in any zone, and the client is told which one.
            "timezone" => return Ok(Some(("TimeZone".to_owned(), "UTC".to_owned()))),
            _ => {}
        }
        self.0.insert(name, value.clone());
        let reported = changeable(name).and_then(|(_, reported, _)| *reported);
        Ok(reported.map(|reported| (reported.to_owned(), value)))
    }

    /// Back to the default.
    pub(crate) fn reset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// All back to their defaults.
    pub(crate) fn reset_all(&mut self) {
        self.0.clear();
    }

    /// Set by the client; none means the engine's own.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let value = self.0.get("statement_timeout")?;
        parse_timeout(value).ok().flatten()
    }
}

/// What a date style says of the order, which matters to no answer: dates are always written year, month, day. *Errors:* 22023 for a style
/// other than ISO.
fn date_style(value: &str) -> PgWireResult<String> {
    let mut order = "MDY";
    for word in value.split(',').map(str::trim) {
        match word.to_ascii_uppercase().as_str() {
            "ISO" | "DEFAULT" => {}
            "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => order = "MDY",
            "DMY" | "EURO" | "EUROPEAN" => order = "DMY",
            "YMD" => order = "YMD",
            _ => return Err(error("22023", format!("datestyle {value} is not supported, only ISO"))),
        }
    }
    Ok(format!("ISO, {order}"))
}

/// `1500`, `1500ms`, `2s`, `1min`, `1h`; zero means none.
fn parse_timeout(value: &str) -> PgWireResult<Option<Duration>> {
    let value = value.trim();
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let ms_per_unit = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(0) => Ok(None),
        Ok(number) if ms_per_unit > 0 => Ok(Some(Duration::from_millis(number.saturating_mul(ms_per_unit)))),
        _ => Err(error("22023", format!("statement_timeout {value:?} is not a time such as 1500ms, 30s or 1min"))),
    }
}

/// The setting that `SHOW` asks for, when it is one of ours.
pub(crate) fn show(variable: &[Ident]) -> Option<&'static str> {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_ascii_lowercase()).collect();
    let name = match words.join(" ").as_str() {
        ALL => return Some(ALL),
        "time zone" => "timezone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        other => other.to_owned(),
    };
    let of_fixed = FIXED.iter().map(|(known, _)| *known).find(|known| *known == name);
    of_fixed.or_else(|| changeable(&name).map(|(known, _, _)| *known))
}

/// What a `SET` does; none when it is the engine's.
pub(crate) fn set(set: &Set) -> PgWireResult<Option<Command>> {
    match set {
        Set::SingleAssignment { variable, values, .. } => {
            let name = variable.to_string().replace('"', "").to_ascii_lowercase();
            if name == "transaction_isolation" || name == "transaction_read_only" {
                return Ok(Some(Command::Nothing("SET")));
            }
            let Some((name, _, _)) = changeable(&name) else { return Ok(None) };
            let values: Vec<String> = values.iter().map(value_text).collect();
            let value = values.join(", ");
            Ok(Some(if value.eq_ignore_ascii_case("default") {
                Command::Reset(name)
            } else {
                Command::Set(name, value)
            }))
        }
        Set::SetTimeZone { value, .. } => Ok(Some(Command::Set("timezone", value_text(value)))),
        Set::SetNames { charset_name, .. } => Ok(Some(Command::Set("client_encoding", charset_name.value.clone()))),
        Set::SetNamesDefault {} => Ok(Some(Command::Reset("client_encoding"))),
        Set::SetTransaction { .. } => Ok(Some(Command::Nothing("SET"))),
        Set::SetRole { role_name: None, .. } => Ok(Some(Command::Nothing("SET"))),
        Set::SetRole { .. } | Set::SetSessionAuthorization(_) => Err(unsupported("there are no roles")),
        _ => Ok(None),
    }
}

/// What a `RESET` does; none when it is the engine's.
pub(crate) fn reset(reset: &Reset) -> Option<Command> {
    match reset {
        Reset::ALL => Some(Command::ResetAll),
        Reset::ConfigurationParameter(name) => {
            changeable(&name.to_string().to_ascii_lowercase()).map(|(name, _, _)| Command::Reset(name))
        }
    }
}

fn value_text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) | Value::DoubleQuotedString(text) => {
                text.clone()
            }
            other => other.to_string(),
        },
        Expr::Identifier(name) => name.value.clone(),
        other => other.to_string(),
    }
}

/// What becomes of the transaction: tag and new status. Transactions hold no snapshot here, so this is a courtesy to clients.
pub(crate) fn transaction(command: &Command, status: TransactionStatus) -> Option<(&'static str, TransactionStatus)> {
    match (command, status) {
        (Command::Begin, _) => Some(("BEGIN", status.to_in_transaction_state())),
        (Command::Commit, TransactionStatus::Error) | (Command::Rollback, _) => {
            Some(("ROLLBACK", TransactionStatus::Idle))
        }
        (Command::Commit, _) => Some(("COMMIT", TransactionStatus::Idle)),
        (Command::RollbackToSavepoint, TransactionStatus::Error) => Some(("ROLLBACK", TransactionStatus::Transaction)),
        (Command::RollbackToSavepoint, _) => Some(("ROLLBACK", status)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        assert_eq!(parse_timeout("0").unwrap(), None);
        assert_eq!(parse_timeout("1500").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout("2s").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("1 min").unwrap(), Some(Duration::from_secs(60)));
        assert!(parse_timeout("soon").is_err() && parse_timeout("-1").is_err() && parse_timeout("5d").is_err());
    }

    #[test]
    fn values_that_would_lie_are_refused() {
        let mut settings = Settings::default();
        assert!(settings.set("client_encoding", "LATIN1".to_owned()).is_err());
        assert!(settings.set("datestyle", "German".to_owned()).is_err());
        assert!(settings.set("datestyle", "SQL, DMY".to_owned()).is_err());
        let told = settings.set("datestyle", "iso, dmy".to_owned()).unwrap();
        assert_eq!(told, Some(("DateStyle".to_owned(), "ISO, DMY".to_owned())));
        assert!(settings.set("intervalstyle", "iso_8601".to_owned()).is_err());
        assert!(settings.set("intervalstyle", "postgres".to_owned()).is_ok());
        let told = settings.set("timezone", "Europe/Berlin".to_owned()).unwrap();
        assert_eq!(told, Some(("TimeZone".to_owned(), "UTC".to_owned())));
        assert_eq!(settings.show("timezone"), "UTC");
        settings.set("application_name", "x".to_owned()).unwrap();
        assert_eq!(settings.show("application_name"), "x");
        settings.reset_all();
        assert_eq!(settings.show("application_name"), "");
    }
}
