//! Values of parameters: from the wire's text and binary formats into SQL literals.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use pgwire::api::Type;
use pgwire::error::PgWireResult;

use super::arrays::array_items;
use super::error::{error, unsupported};

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const EPOCH_US: i64 = 946_684_800_000_000;
/// Days from 1970 to 2000.
const EPOCH_DAYS: i32 = 10_957;

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    /// Null.
    Null,
    /// An integer of any width.
    Int(i64),
    /// A float of any width.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text, which may stand for any type.
    Text(String),
    /// Microseconds since 1970.
    Time(i64),
    /// Days since 1970.
    Date(i32),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<Scalar>),
}

impl Scalar {
    /// As an expression of SQL, of that type. *Errors:* 22P02 for a text that is not of the type.
    pub(crate) fn to_sql(&self, data_type: &DataType) -> PgWireResult<String> {
        let invalid =
            |text: &str| error("22P02", format!("invalid input for a parameter of type {data_type}: {text:?}"));
        Ok(match (self, data_type) {
            (Scalar::Null, _) => cast("NULL", data_type),
            (Scalar::Int(value), DataType::Int64) => number(*value),
            (Scalar::Text(text), DataType::Int64) => number(text.trim().parse().map_err(|_| invalid(text))?),
            (Scalar::Text(text), DataType::Float64) => {
                let value: f64 = text.trim().parse().map_err(|_| invalid(text))?;
                Scalar::Float(value).literal()?
            }
            (Scalar::Text(text), DataType::Boolean) => match text.trim().to_ascii_lowercase().as_str() {
                "t" | "true" | "y" | "yes" | "on" | "1" => "TRUE".to_owned(),
                "f" | "false" | "n" | "no" | "off" | "0" => "FALSE".to_owned(),
                _ => return Err(invalid(text)),
            },
            (Scalar::Text(text), DataType::Utf8) => quoted(text)?,
            (Scalar::Bool(_), DataType::Boolean) | (Scalar::Float(_), DataType::Float64) => self.literal()?,
            (Scalar::List(items), DataType::List(item)) => {
                let items =
                    items.iter().map(|value| value.to_sql(item.data_type())).collect::<PgWireResult<Vec<_>>>()?;
                cast(&format!("make_array({})", items.join(", ")), data_type)
            }
            (Scalar::Time(us), DataType::Timestamp(TimeUnit::Microsecond, _)) => cast(&number(*us), data_type),
            (value, _) => cast(&value.literal()?, data_type),
        })
    }

    /// In the type that it has by itself.
    fn literal(&self) -> PgWireResult<String> {
        Ok(match self {
            Scalar::Null => "NULL".to_owned(),
            Scalar::Int(value) => number(*value),
            Scalar::Float(value) => cast(&format!("'{value:?}'"), &DataType::Float64),
            Scalar::Bool(value) => if *value { "TRUE" } else { "FALSE" }.to_owned(),
            Scalar::Text(text) => quoted(text)?,
            Scalar::Time(us) => cast(&number(*us), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            Scalar::Date(days) => cast(&cast(&number((*days).into()), &DataType::Int32), &DataType::Date32),
            Scalar::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("decode('{hex}', 'hex')")
            }
            Scalar::List(items) => {
                let items = items.iter().map(Scalar::literal).collect::<PgWireResult<Vec<_>>>()?;
                format!("make_array({})", items.join(", "))
            }
        })
    }
}

fn cast(literal: &str, data_type: &DataType) -> String {
    format!("arrow_cast({literal}, '{data_type}')")
}

/// Negative ones in parentheses: two minus signs in a row begin a comment.
fn number(value: i64) -> String {
    match value {
        // Its digits alone do not fit.
        i64::MIN => format!("arrow_cast('{value}', 'Int64')"),
        _ if value < 0 => format!("({value})"),
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> PgWireResult<String> {
    if text.contains('\0') {
        return Err(error("22021", "a text cannot contain the character zero"));
    }
    let mut literal = String::with_capacity(text.len() + 3);
    literal.push_str("E'");
    for c in text.chars() {
        match c {
            '\'' => literal.push_str("\\'"),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            _ => literal.push(c),
        }
    }
    literal.push('\'');
    Ok(literal)
}

/// Text format: only bytes and arrays are not what they look like.
pub(crate) fn decode_text(bytes: &[u8], data_type: &DataType) -> PgWireResult<Scalar> {
    let text = std::str::from_utf8(bytes).map_err(|_| error("22021", "a parameter is not UTF-8"))?;
    match data_type {
        DataType::Binary => decode_bytes(text).map(Scalar::Bytes),
        DataType::List(_) => {
            let item = |item: Option<String>| item.map_or(Scalar::Null, Scalar::Text);
            Ok(Scalar::List(array_items(text)?.into_iter().map(item).collect()))
        }
        _ => Ok(Scalar::Text(text.to_owned())),
    }
}

/// An expression for bytes in text format.
pub(super) fn bytes_literal(text: &str) -> PgWireResult<String> {
    Scalar::Bytes(decode_bytes(text)?).literal()
}

/// Bytes as hexadecimal digits behind `\x`, or as characters, with a backslash and three octal digits, or another backslash, for those
/// that are none.
fn decode_bytes(text: &str) -> PgWireResult<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return decode_hex(hex);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, more) = match (first, after) {
            (b'\\', [b'\\', more @ ..]) => (b'\\', more),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), more)
            }
            (b'\\', _) => {
                return Err(error("22P02", "a backslash in bytes needs x, three octal digits or another one"));
            }
            (byte, more) => (*byte, more),
        };
        decoded.push(byte);
        rest = more;
    }
    Ok(decoded)
}

fn decode_hex(hex: &str) -> PgWireResult<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
        _ => Err(error("22P02", "bytes in text format are \\x and pairs of hexadecimal digits")),
    }
}

/// *Shape:* microseconds (8 bytes), days (4), months (4).
fn decode_interval(bytes: &[u8]) -> Option<String> {
    let (us, rest) = bytes.split_first_chunk()?;
    let (days, rest) = rest.split_first_chunk()?;
    let months = i32::from_be_bytes(rest.try_into().ok()?);
    let (us, days) = (i64::from_be_bytes(*us), i32::from_be_bytes(*days));
    Some(format!("{months} months {days} days {us} microseconds"))
}

/// *Shape:* microseconds since midnight.
fn decode_time(bytes: &[u8]) -> Option<String> {
    let us = u64::from_be_bytes(bytes.try_into().ok()?);
    let seconds = us / 1_000_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    (hour < 24).then(|| format!("{hour:02}:{minute:02}:{second:02}.{:06}", us % 1_000_000))
}

/// Binary format. *Errors:* 22P03 for a wrong length, 0A000 for a type that is not supported.
pub(crate) fn decode_binary(pg_type: &Type, bytes: &[u8]) -> PgWireResult<Scalar> {
    let invalid = || error("22P03", format!("incorrect binary data in a parameter of type {pg_type}"));
    let wide = || bytes.try_into().map(i64::from_be_bytes).map_err(|_| invalid());
    let narrow = || bytes.try_into().map(i32::from_be_bytes).map_err(|_| invalid());
    Ok(match *pg_type {
        Type::BOOL => match bytes {
            [value] => Scalar::Bool(*value != 0),
            _ => return Err(invalid()),
        },
        Type::INT2 => Scalar::Int(bytes.try_into().map(i16::from_be_bytes).map_err(|_| invalid())?.into()),
        Type::INT4 => Scalar::Int(narrow()?.into()),
        Type::OID => Scalar::Int(bytes.try_into().map(u32::from_be_bytes).map_err(|_| invalid())?.into()),
        Type::INT8 => Scalar::Int(wide()?),
        Type::FLOAT4 => Scalar::Float(bytes.try_into().map(f32::from_be_bytes).map_err(|_| invalid())?.into()),
        Type::FLOAT8 => Scalar::Float(bytes.try_into().map(f64::from_be_bytes).map_err(|_| invalid())?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            Scalar::Text(String::from_utf8(bytes.to_vec()).map_err(|_| error("22021", "a parameter is not UTF-8"))?)
        }
        Type::BYTEA => Scalar::Bytes(bytes.to_vec()),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => Scalar::Time(wide()?.checked_add(EPOCH_US).ok_or_else(invalid)?),
        Type::DATE => Scalar::Date(narrow()?.checked_add(EPOCH_DAYS).ok_or_else(invalid)?),
        Type::NUMERIC => Scalar::Text(decode_numeric(bytes).ok_or_else(invalid)?),
        Type::INTERVAL => Scalar::Text(decode_interval(bytes).ok_or_else(invalid)?),
        Type::TIME => Scalar::Text(decode_time(bytes).ok_or_else(invalid)?),
        Type::UUID => Scalar::Text(decode_uuid(bytes).ok_or_else(invalid)?),
        Type::BOOL_ARRAY
        | Type::INT2_ARRAY
        | Type::INT4_ARRAY
        | Type::INT8_ARRAY
        | Type::FLOAT4_ARRAY
        | Type::FLOAT8_ARRAY
        | Type::TEXT_ARRAY
        | Type::VARCHAR_ARRAY
        | Type::NUMERIC_ARRAY
        | Type::DATE_ARRAY
        | Type::TIMESTAMP_ARRAY
        | Type::TIMESTAMPTZ_ARRAY
        | Type::UUID_ARRAY => Scalar::List(decode_array(bytes, &invalid)?),
        _ => {
            return Err(unsupported(format!(
                "parameters of type {pg_type} are not supported in binary format: send them as text"
            )));
        }
    })
}

/// Digits to the base 10,000 with weight, sign and scale.
fn decode_numeric(bytes: &[u8]) -> Option<String> {
    let word = |idx: usize| bytes.get(idx * 2..idx * 2 + 2).map(|pair| i16::from_be_bytes([pair[0], pair[1]]));
    let (n_digits, weight, sign, scale) =
        (usize::try_from(word(0)?).ok()?, word(1)?, word(2)?, usize::try_from(word(3)?).ok()?);
    if bytes.len() != 8 + 2 * n_digits {
        return None;
    }
    let digit = |place: i16| match usize::try_from(i32::from(weight) - i32::from(place)) {
        Ok(idx) if idx < n_digits => word(4 + idx).filter(|digit| (0..10_000).contains(digit)),
        _ => Some(0),
    };
    let mut text = match sign {
        0 => String::new(),
        0x4000 => "-".to_owned(),
        // Not a number, infinities: no decimal can hold them.
        _ => return None,
    };
    if weight < 0 {
        text.push('0');
    }
    for place in (0..=weight).rev() {
        let digit = digit(place)?;
        text.push_str(&if place == weight { digit.to_string() } else { format!("{digit:04}") });
    }
    if scale > 0 {
        let mut fraction = String::new();
        let mut place = -1;
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", digit(place)?));
            place -= 1;
        }
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Some(text)
}

fn decode_uuid(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// One dimension: dimensions, whether there are nulls, type, length, lower bound; then each value with its length.
fn decode_array(bytes: &[u8], invalid: &dyn Fn() -> pgwire::error::PgWireError) -> PgWireResult<Vec<Scalar>> {
    fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(taken)
    }
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| take(rest, 4).map(|word| i32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let (Some(n_dimensions), Some(_), Some(oid)) = (word(&mut rest), word(&mut rest), word(&mut rest)) else {
        return Err(invalid());
    };
    if n_dimensions == 0 {
        return Ok(Vec::new());
    }
    let (Some(n_items), Some(_)) = (word(&mut rest), word(&mut rest)) else { return Err(invalid()) };
    let item_type = u32::try_from(oid).ok().and_then(Type::from_oid).ok_or_else(invalid)?;
    if n_dimensions != 1 {
        return Err(unsupported("arrays of more than one dimension are not supported"));
    }
    let mut items = Vec::new();
    for _ in 0..n_items {
        let length = word(&mut rest).ok_or_else(invalid)?;
        items.push(match usize::try_from(length) {
            Err(_) => Scalar::Null,
            Ok(length) => decode_binary(&item_type, take(&mut rest, length).ok_or_else(invalid)?)?,
        });
    }
    Ok(items)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn numeric(weight: i16, sign: i16, scale: i16, digits: &[i16]) -> Option<String> {
        let head = [i16::try_from(digits.len()).unwrap(), weight, sign, scale];
        let bytes: Vec<u8> = head.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect();
        decode_numeric(&bytes)
    }

    #[test]
    fn numerics() {
        assert_eq!(numeric(0, 0, 2, &[12, 3400]).unwrap(), "12.34");
        assert_eq!(numeric(1, 0x4000, 0, &[1, 2]).unwrap(), "-10002");
        assert_eq!(numeric(-1, 0, 4, &[7]).unwrap(), "0.0007");
        assert_eq!(numeric(-2, 0, 8, &[7]).unwrap(), "0.00000007");
        assert_eq!(numeric(1, 0, 0, &[5]).unwrap(), "50000");
        assert_eq!(numeric(0, 0, 0, &[]).unwrap(), "0");
        assert!(numeric(0, -16384, 0, &[]).is_none());
        assert!(decode_numeric(&[0, 9]).is_none());
    }

    #[test]
    fn arrays_in_text() {
        let list = |bytes: &[u8]| decode_text(bytes, &DataType::new_list(DataType::Utf8, true));
        let text = |value: &str| Scalar::Text(value.to_owned());
        assert_eq!(list(b"{}").unwrap(), Scalar::List(Vec::new()));
        assert_eq!(
            list(b"{1,NULL,\"NULL\",\"a,\\\"b\"}").unwrap(),
            Scalar::List(vec![text("1"), Scalar::Null, text("NULL"), text("a,\"b")])
        );
        assert!(list(b"{{1},{2}}").is_err() && list(b"1,2").is_err());
    }

    #[test]
    fn literals_have_one_reading() {
        let sql = |scalar: Scalar, data_type| scalar.to_sql(&data_type).unwrap();
        assert_eq!(sql(Scalar::Int(-5), DataType::Int64), "(-5)");
        assert_eq!(sql(Scalar::Text("\\' OR 1=1 --".to_owned()), DataType::Utf8), "E'\\\\\\' OR 1=1 --'");
        assert!(Scalar::Text("1 OR 1=1".to_owned()).to_sql(&DataType::Int64).is_err());
        assert!(Scalar::Text("x\0".to_owned()).to_sql(&DataType::Utf8).is_err());
    }
}
