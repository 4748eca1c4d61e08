//! How a writer's schema becomes canonical columns.
//!
//! `arrow-avro` is given the writer's own types without their logical types, and only the fields that are needed: it takes a
//! `timestamp-millis` for micros without a word. What each column means is decided here, and converted in [`super::convert`].

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, RecordSchema, UuidSchema};
use arrow::datatypes::{DataType, TimeUnit};
use legwork_types::Kind;
use serde_json::{Value, json};

use super::names::Names;

/// Inlined references deeper than this are refused; only types of needed fields are inlined.
const DEPTH_MAX: usize = 32;
/// Parts of the types of all needed fields, references inlined: any schema in use has fewer.
const PARTS_MAX: usize = 10_000;
/// Branches of a union that Arrow can number.
const BRANCHES_MAX: usize = 127;

/// What a writer's type means for a canonical column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Always null.
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    /// A string; for decimals a number in words of digits.
    Text,
    /// An enum's symbol.
    Symbol,
    /// Bytes that are text.
    TextBytes,
    /// A long that counts this unit since the epoch.
    Time(TimeUnit),
    /// Unscaled two's complement, big endian.
    Decimal {
        scale: u32,
        is_fixed: bool,
    },
    List(Box<Source>),
    /// Null or the other.
    Optional(Box<Source>),
    /// Any other union, in the writer's order.
    Union(Vec<Source>),
    /// A type that cannot become the column's.
    Misfit(&'static str),
}

/// Where a canonical column comes from.
#[derive(Clone, Debug)]
pub(crate) enum ColumnPlan {
    /// The writer has no such field: null, or the empty text where the reader's schema says so.
    Missing,
    /// Column of what `arrow-avro` decodes.
    Read { decoded_idx: usize, source: Source },
}

/// How one writer's schema becomes the canonical columns of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// One for each canonical column.
    pub(crate) columns: Vec<ColumnPlan>,
    /// Whether each field of the writer is needed.
    pub(crate) needed: Vec<bool>,
    /// Names of the writer's fields.
    pub(crate) field_names: Vec<String>,
    /// The needed fields in the writer's order, without logical types: what `arrow-avro` decodes.
    pub(crate) decoded_avro: String,
}

impl Plan {
    /// Resolves a writer's schema with a kind. Names of records and namespaces need not agree. *Errors:* which field cannot be
    /// resolved and why.
    pub(crate) fn resolve(kind: Kind, schema: &Schema, names: &Names<'_>) -> Result<Plan, String> {
        let Schema::Record(record) = schema else {
            return Err(format!("the writer's schema is a {}, not a record", type_name(schema)));
        };
        let reader: Value = serde_json::from_str(kind.avro()).map_err(|e| e.to_string())?;
        let namespace = record.name.namespace();
        let mut sources: Vec<Option<(usize, Source)>> = vec![None; record.fields.len()];
        for (column_idx, field) in kind.schema().fields().iter().enumerate() {
            let reader_field = &reader["fields"][column_idx];
            let Some(writer_idx) = find(record, field.name(), reader_field, &sources) else {
                if reader_field.get("default").is_none() {
                    return Err(format!(
                        "field {} is missing from the writer's schema and has no default",
                        field.name()
                    ));
                }
                continue;
            };
            let source = source(&record.fields[writer_idx].schema, field.data_type(), names, namespace, 0)?;
            match source {
                Source::Misfit(found) => {
                    return Err(format!(
                        "field {}: {found} cannot become {}",
                        field.name(),
                        column_name(field.data_type())
                    ));
                }
                Source::Null if reader_field.get("default").is_none() => {
                    return Err(format!("field {} is always null in the writer's schema", field.name()));
                }
                source => sources[writer_idx] = Some((column_idx, source)),
            }
        }
        build(kind, record, &sources, names)
    }
}

fn build(
    kind: Kind,
    record: &RecordSchema,
    sources: &[Option<(usize, Source)>],
    names: &Names<'_>,
) -> Result<Plan, String> {
    let mut columns = vec![ColumnPlan::Missing; kind.schema().fields().len()];
    let mut fields = Vec::new();
    let mut plain = Plain { names, n_parts: 0 };
    for (field, source) in record.fields.iter().zip(sources) {
        let Some((column_idx, source)) = source else { continue };
        let decoded_idx = fields.len();
        columns[*column_idx] = ColumnPlan::Read { decoded_idx, source: source.clone() };
        let avro_type = plain.of(&field.schema, record.name.namespace(), 0)?;
        fields.push(json!({ "name": format!("f{decoded_idx}"), "type": avro_type }));
    }
    Ok(Plan {
        columns,
        needed: sources.iter().map(Option::is_some).collect(),
        field_names: record.fields.iter().map(|field| field.name.clone()).collect(),
        decoded_avro: json!({ "type": "record", "name": "Row", "fields": fields }).to_string(),
    })
}

/// The writer's field for a column: by name, then by the reader's aliases, then by the writer's own.
fn find(record: &RecordSchema, name: &str, reader_field: &Value, taken: &[Option<(usize, Source)>]) -> Option<usize> {
    let aliases = reader_field["aliases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let by_name = |wanted: &str| record.fields.iter().position(|field| field.name == wanted);
    by_name(name)
        .or_else(|| aliases.iter().filter_map(Value::as_str).find_map(by_name))
        .or_else(|| record.fields.iter().position(|field| field.aliases.iter().any(|alias| alias == name)))
        .filter(|&idx| taken[idx].is_none())
}

fn source(
    schema: &Schema,
    target: &DataType,
    names: &Names<'_>,
    namespace: Option<&str>,
    depth: usize,
) -> Result<Source, String> {
    if depth > DEPTH_MAX {
        return Ok(Source::Misfit("a recursive type"));
    }
    match schema {
        Schema::Ref { name } => {
            let target_schema = names.get(name, namespace).ok_or("the writer's schema refers to an unknown name")?;
            source(target_schema, target, names, name.namespace().or(namespace), depth + 1)
        }
        Schema::Union(union) => {
            let branches = union.variants().iter().map(|branch| source(branch, target, names, namespace, depth + 1));
            Ok(union_source(union.variants(), branches.collect::<Result<Vec<_>, _>>()?))
        }
        Schema::Array(array) => match target {
            DataType::List(item) => match source(&array.items, item.data_type(), names, namespace, depth + 1)? {
                Source::Misfit(_) => Ok(Source::Misfit("an array of another type")),
                items => Ok(Source::List(Box::new(items))),
            },
            _ => Ok(Source::Misfit("array")),
        },
        leaf => Ok(leaf_source(leaf, target).unwrap_or(Source::Misfit(type_name(leaf)))),
    }
}

fn union_source(branches: &[Schema], mut sources: Vec<Source>) -> Source {
    if sources.len() > BRANCHES_MAX {
        return Source::Misfit("a union of too many branches");
    }
    if let Some(misfit) = sources.iter().find(|source| matches!(source, Source::Misfit(_)))
        && sources.iter().all(|source| matches!(source, Source::Misfit(_) | Source::Null))
    {
        return misfit.clone();
    }
    match branches {
        [Schema::Null, _] => Source::Optional(Box::new(sources.swap_remove(1))),
        [_, Schema::Null] => Source::Optional(Box::new(sources.swap_remove(0))),
        _ => Source::Union(sources),
    }
}

fn leaf_source(schema: &Schema, target: &DataType) -> Option<Source> {
    use Schema as S;
    Some(match (schema, target) {
        (S::Null, _) => Source::Null,
        (S::String | S::Uuid(UuidSchema::String), DataType::Utf8 | DataType::Decimal128(..)) => Source::Text,
        (S::Enum(_), DataType::Utf8) => Source::Symbol,
        (S::Bytes, DataType::Utf8) => Source::TextBytes,
        (S::Boolean, DataType::Boolean) => Source::Bool,
        (S::Int, DataType::Int64 | DataType::Int32 | DataType::Float64 | DataType::Float32) => Source::Int,
        (S::Int, DataType::Decimal128(..)) => Source::Int,
        (S::Long, DataType::Int64 | DataType::Int32 | DataType::Float64 | DataType::Float32) => Source::Long,
        (S::Long, DataType::Decimal128(..)) => Source::Long,
        (S::Float, DataType::Float64 | DataType::Float32 | DataType::Decimal128(..)) => Source::Float,
        (S::Double, DataType::Float64 | DataType::Float32 | DataType::Decimal128(..)) => Source::Double,
        (S::Date | S::Int, DataType::Date32) => Source::Int,
        (S::Long | S::TimestampMicros | S::LocalTimestampMicros, DataType::Timestamp(..)) => {
            Source::Time(TimeUnit::Microsecond)
        }
        (S::TimestampMillis | S::LocalTimestampMillis, DataType::Timestamp(..)) => Source::Time(TimeUnit::Millisecond),
        (S::TimestampNanos | S::LocalTimestampNanos, DataType::Timestamp(..)) => Source::Time(TimeUnit::Nanosecond),
        // Bytes without a logical type carry the reader's scale.
        (S::Bytes, DataType::Decimal128(_, scale)) => {
            Source::Decimal { scale: u32::try_from(*scale).ok()?, is_fixed: false }
        }
        (S::Decimal(decimal), DataType::Decimal128(..)) => Source::Decimal {
            scale: u32::try_from(decimal.scale).ok().filter(|&scale| scale <= 38)?,
            is_fixed: matches!(decimal.inner, InnerDecimalSchema::Fixed(_)),
        },
        _ => return None,
    })
}

/// Writes types as JSON without logical types, every name made unique, every reference inlined.
struct Plain<'n, 'a> {
    names: &'n Names<'a>,
    n_parts: usize,
}

impl Plain<'_, '_> {
    /// A name of its own for each part.
    fn name(&self) -> String {
        format!("n{}", self.n_parts)
    }

    fn fixed(&self, size: usize) -> Value {
        json!({ "type": "fixed", "name": self.name(), "size": size })
    }

    fn of(&mut self, schema: &Schema, namespace: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("a needed field has a recursive type".to_owned());
        }
        // Branches that each inline the same types would grow beyond all bounds.
        self.n_parts += 1;
        if self.n_parts > PARTS_MAX {
            return Err(format!("the types of the needed fields have more than {PARTS_MAX} parts"));
        }
        Ok(match schema {
            Schema::Enum(symbols) => json!({ "type": "enum", "name": self.name(), "symbols": symbols.symbols }),
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => json!("bytes"),
                InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed.size),
            },
            Schema::Array(array) => json!({ "type": "array", "items": self.of(&array.items, namespace, depth + 1)? }),
            Schema::Map(map) => json!({ "type": "map", "values": self.of(&map.types, namespace, depth + 1)? }),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.of(branch, namespace, depth + 1));
                Value::Array(branches.collect::<Result<Vec<_>, _>>()?)
            }
            Schema::Record(record) => {
                let name = self.name();
                let inner = record.name.namespace().or(namespace);
                let fields = record.fields.iter().enumerate().map(|(field_idx, field)| {
                    Ok(json!({ "name": format!("f{field_idx}"), "type": self.of(&field.schema, inner, depth + 1)? }))
                });
                json!({ "type": "record", "fields": fields.collect::<Result<Vec<_>, String>>()?, "name": name })
            }
            Schema::Ref { name } => {
                let target = self.names.get(name, namespace).ok_or("the writer's schema refers to an unknown name")?;
                self.of(target, name.namespace().or(namespace), depth + 1)?
            }
            leaf => json!(physical_name(leaf)),
        })
    }
}

/// Name of the Avro type that the bytes of a leaf have.
fn physical_name(schema: &Schema) -> &'static str {
    match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "int",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::String | Schema::Uuid(UuidSchema::String) => "string",
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => "bytes",
        _ => "long",
    }
}

/// Name of a type as a user writes it.
fn type_name(schema: &Schema) -> &'static str {
    match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Union(_) => "union",
        Schema::Record(_) => "record",
        Schema::Enum(_) => "enum",
        Schema::Fixed(_) => "fixed",
        Schema::Decimal(_) | Schema::BigDecimal => "decimal",
        Schema::Uuid(_) => "uuid",
        Schema::Date => "date",
        Schema::TimeMillis | Schema::TimeMicros => "time of day",
        Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos => "timestamp",
        Schema::LocalTimestampMillis | Schema::LocalTimestampMicros | Schema::LocalTimestampNanos => "local timestamp",
        Schema::Duration(_) => "duration",
        Schema::Ref { .. } => "reference",
    }
}

/// Name of a canonical column's type as a user writes it in Avro.
pub(crate) fn column_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 => "string",
        DataType::Int64 => "long",
        DataType::Int32 => "int",
        DataType::Float64 => "double",
        DataType::Float32 => "float",
        DataType::Boolean => "boolean",
        DataType::Timestamp(..) => "timestamp",
        DataType::Date32 => "date",
        DataType::Decimal128(..) => "decimal",
        _ => "array",
    }
}
