//! One JSON value to one canonical value.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use chrono::{DateTime, NaiveDate};

use crate::decimal;

/// A canonical value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    Texts(Vec<Cow<'a, str>>),
    Days(Vec<i32>),
}

/// Why a value is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellError {
    /// What was expected.
    WrongType(&'static str),
    /// What was found.
    InvalidValue(&'static str),
}

use CellError::{InvalidValue, WrongType};

const TIME: CellError = WrongType("a time in RFC 3339 or microseconds");
const DATE: CellError = WrongType("a date as YYYY-MM-DD or days");
const DECIMAL: CellError = WrongType("a decimal number");
const TEXTS: CellError = WrongType("an array of strings");
const DAYS: CellError = WrongType("an array of dates");

/// Parses the text of one JSON value other than null; the text is known to be JSON.
pub(crate) fn parse<'a>(text: &'a str, data_type: &DataType) -> Result<Cell<'a>, CellError> {
    match data_type {
        DataType::Utf8 => string(text).map(Cell::Text).ok_or(WrongType("a string")),
        DataType::Boolean => match text {
            "true" => Ok(Cell::Bool(true)),
            "false" => Ok(Cell::Bool(false)),
            _ => Err(WrongType("true or false")),
        },
        DataType::Int64 => integer(text).map(Cell::Int).ok_or(WrongType("an integer")),
        DataType::Int32 => {
            let value = integer(text).ok_or(WrongType("an integer"))?;
            i32::try_from(value).map(|v| Cell::Int(v.into())).map_err(|_| InvalidValue("an integer beyond 32 bits"))
        }
        DataType::Float64 | DataType::Float32 => number(text).map(Cell::Float).ok_or(WrongType("a number")),
        DataType::Timestamp(..) => time(text).map(Cell::Int),
        DataType::Date32 => date(text).map(|days| Cell::Int(days.into())),
        DataType::Decimal128(_, scale) => {
            let unquoted = string(text);
            let digits = unquoted.as_deref().or_else(|| is_number(text).then_some(text)).ok_or(DECIMAL)?;
            let scale = u32::try_from(*scale).map_err(|_| DECIMAL)?;
            let is_decimal = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            match decimal::parse(digits, scale) {
                Some(unscaled) => Ok(Cell::Decimal(unscaled)),
                None if is_decimal && !digits.is_empty() => Err(InvalidValue("a decimal that does not fit exactly")),
                None => Err(DECIMAL),
            }
        }
        DataType::List(item) if *item.data_type() == DataType::Utf8 => serde_json::from_str::<Vec<String>>(text)
            .map(|texts| Cell::Texts(texts.into_iter().map(Cow::Owned).collect()))
            .map_err(|_| TEXTS),
        _ => {
            let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).map_err(|_| DAYS)?;
            items.iter().map(|item| date(item.get()).map_err(|_| DAYS)).collect::<Result<_, _>>().map(Cell::Days)
        }
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// The text without quotes; escapes are resolved.
fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn number(text: &str) -> Option<f64> {
    if is_number(text) { text.parse().ok() } else { None }
}

/// An integer, also as JavaScript and Python write one that was computed: `5.0`, `1e3`.
fn integer(text: &str) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if let Ok(value) = text.parse::<i64>() {
        return Some(value);
    }
    let value = number(text).filter(|value| value.fract() == 0.0 && value.abs() <= EXACT_MAX)?;
    Some(value as i64)
}

fn time(text: &str) -> Result<i64, CellError> {
    match string(text) {
        Some(text) => DateTime::parse_from_rfc3339(&text).map(|time| time.timestamp_micros()).map_err(|_| TIME),
        None => integer(text).ok_or(TIME),
    }
}

fn date(text: &str) -> Result<i32, CellError> {
    match string(text) {
        Some(text) => {
            let date = NaiveDate::parse_from_str(&text, "%Y-%m-%d").map_err(|_| DATE)?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            i32::try_from(days).map_err(|_| DATE)
        }
        None => integer(text).and_then(|days| i32::try_from(days).ok()).ok_or(DATE),
    }
}
