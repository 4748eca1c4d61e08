//! DataFusion's errors in a client's words.

use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use legwork_types::{Kind, LiveError};

use crate::held::TooLarge;
use crate::{ErrorKind, HistoryError, QueryError};

pub(crate) fn syntax(message: &str) -> QueryError {
    QueryError { kind: ErrorKind::Statement, sqlstate: "42601", message: message.to_owned() }
}

pub(crate) fn too_complex(message: String) -> QueryError {
    QueryError { kind: ErrorKind::Limit, sqlstate: "54001", message }
}

pub(crate) fn limit(sqlstate: &'static str, message: String) -> QueryError {
    QueryError { kind: ErrorKind::Limit, sqlstate, message }
}

pub(crate) fn bug(message: String) -> QueryError {
    QueryError { kind: ErrorKind::Bug, sqlstate: "XX000", message }
}

/// What the parser said.
pub(crate) fn of_parser(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::SQL(parser, _) => match parser.as_ref() {
            ParserError::RecursionLimitExceeded => {
                too_complex(format!("the statement nests deeper than {} levels", crate::check::RECURSION_MAX))
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => syntax(message),
        },
        other => syntax(&other.strip_backtrace()),
    }
}

/// What planning or running said. `tables`: the names that the catalog has. `memory_bytes_max`: the query's limit.
pub(crate) fn of_query(error: &DataFusionError, tables: &[String], memory_bytes_max: usize) -> QueryError {
    let statement = |sqlstate, message| QueryError { kind: ErrorKind::Statement, sqlstate, message };
    match error.find_root() {
        DataFusionError::SQL(..) => of_parser(error),
        DataFusionError::SchemaError(schema, _) => of_schema(schema),
        DataFusionError::Plan(message) => match missing_table(message) {
            Some(table) => {
                // A kind of events is often asked for by its short name.
                let name = unqualified(table);
                let hint = match name.parse::<Kind>() {
                    Ok(kind) => format!(": is it {}?", kind.table()),
                    Err(_) => nearest(name, tables),
                };
                let shown = table.strip_prefix("legwork.public.").unwrap_or(table);
                statement("42P01", format!("relation {shown} does not exist{hint}"))
            }
            None if message.starts_with("Invalid function") => statement("42883", message.clone()),
            None => statement("42000", message.clone()),
        },
        DataFusionError::NotImplemented(message) => statement("0A000", message.clone()),
        DataFusionError::Configuration(message) => statement("22023", message.clone()),
        DataFusionError::ResourcesExhausted(_) => limit(
            "53200",
            format!(
                "the query needs more than {} MiB of memory: read, group or join fewer rows, or raise query.memory_bytes_max",
                memory_bytes_max >> 20
            ),
        ),
        DataFusionError::ArrowError(arrow, _) => of_arrow(arrow),
        DataFusionError::Execution(message) => statement("22000", message.clone()),
        DataFusionError::External(external) => match external.downcast_ref::<LiveError>() {
            Some(LiveError::OnlyLive { .. }) => statement("0A000", external.to_string()),
            Some(live) => QueryError { kind: ErrorKind::Retry, sqlstate: "57P01", message: live.to_string() },
            None => match (external.downcast_ref::<HistoryError>(), external.downcast_ref::<TooLarge>()) {
                (Some(history), _) => of_history(history),
                (None, Some(TooLarge(message))) => limit("53200", message.clone()),
                (None, None) => bug(external.to_string()),
            },
        },
        DataFusionError::Collection(errors) if !errors.is_empty() => of_query(&errors[0], tables, memory_bytes_max),
        other => bug(other.strip_backtrace()),
    }
}

fn of_history(error: &HistoryError) -> QueryError {
    let (kind, sqlstate) = match error {
        HistoryError::Unavailable { .. } => (ErrorKind::Retry, "58030"),
        HistoryError::Refused { .. } => (ErrorKind::Bug, "XX001"),
    };
    QueryError { kind, sqlstate, message: error.to_string() }
}

fn of_arrow(error: &arrow::error::ArrowError) -> QueryError {
    use arrow::error::ArrowError;
    let sqlstate = match error {
        // Said in PostgreSQL's words already.
        ArrowError::ArithmeticOverflow(message) if message.ends_with("out of range") => {
            return QueryError { kind: ErrorKind::Statement, sqlstate: "22003", message: message.clone() };
        }
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
        ArrowError::InvalidArgumentError(_) | ArrowError::ComputeError(_) => "22000",
        _ => return bug(error.to_string()),
    };
    QueryError { kind: ErrorKind::Statement, sqlstate, message: error.to_string() }
}

fn of_schema(error: &SchemaError) -> QueryError {
    let (sqlstate, message) = match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(Column::name).collect();
            ("42703", format!("column {} does not exist{}", field.flat_name(), nearest(field.name(), &names)))
        }
        SchemaError::AmbiguousReference { field } => {
            ("42702", format!("column {} is ambiguous: name its table too", field.flat_name()))
        }
        SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => {
            ("42701", error.to_string())
        }
    };
    QueryError { kind: ErrorKind::Statement, sqlstate, message }
}

fn missing_table(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("table '")?;
    rest.strip_suffix("' not found")
}

fn unqualified(table: &str) -> &str {
    table.rsplit('.').next().unwrap_or(table)
}

/// `: is it NAME?` for the nearest of `names`; empty when none is near.
pub(crate) fn nearest<S: AsRef<str>>(wanted: &str, names: &[S]) -> String {
    let distance = |name: &S| levenshtein(wanted, name.as_ref());
    match names.iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance) {
        Some((distance, name)) if distance <= 1 + wanted.len() / 3 => format!(": is it {}?", name.as_ref()),
        _ => String::new(),
    }
}
