//! Which column of a file feeds which field.

use legwork_types::Kind;

use super::{FileError, Target};

/// Position of the column for each field of the kind's schema; none where the file has no such column.
///
/// The map wins, then the field's own name, then its name in another case.
pub(crate) fn bind(
    target: &Target,
    map: &[(String, String)],
    columns: &[String],
) -> Result<Vec<Option<usize>>, FileError> {
    let schema = target.kind.schema();
    let mut bound: Vec<Option<usize>> = vec![None; schema.fields().len()];
    for (field, column) in map {
        let field_idx = field_named(target.kind, field, column)?;
        let column_idx = find(columns, column).ok_or_else(|| FileError::UnknownColumn {
            path: target.path.clone(),
            field: field.clone(),
            column: column.clone(),
            nearest: nearest(column, columns.iter().map(String::as_str)),
        })?;
        if bound[field_idx].replace(column_idx).is_some() {
            return Err(FileError::MappedTwice { field: field.clone() });
        }
    }
    for (field, slot) in schema.fields().iter().zip(&mut bound) {
        *slot = slot.or_else(|| find(columns, field.name()));
    }
    let missing: Vec<String> = schema
        .fields()
        .iter()
        .zip(&bound)
        .filter(|(field, column)| column.is_none() && !field.is_nullable() && !may_be_absent(field.name()))
        .map(|(field, _)| field.name().clone())
        .collect();
    if missing.is_empty() {
        return Ok(bound);
    }
    Err(FileError::MissingColumns { path: target.path.clone(), kind: target.kind, missing, columns: columns.to_vec() })
}

/// Whether a field that is not nullable may be missing all the same: the row's number and the file's name stand in.
pub(crate) fn may_be_absent(field: &str) -> bool {
    matches!(field, "event_id" | "source")
}

/// Position of the field that a map names.
pub(crate) fn field_named(kind: Kind, field: &str, column: &str) -> Result<usize, FileError> {
    let schema = kind.schema();
    schema.index_of(field).map_err(|_| FileError::UnknownField {
        kind,
        field: field.to_owned(),
        column: column.to_owned(),
        nearest: nearest(field, schema.fields().iter().map(|f| f.name().as_str())),
    })
}

fn find(columns: &[String], name: &str) -> Option<usize> {
    columns
        .iter()
        .position(|column| column == name)
        .or_else(|| columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
}

/// The most similar of some names, if one is similar at all.
fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<String> {
    among
        .map(|other| (strsim::jaro_winkler(&name.to_ascii_lowercase(), &other.to_ascii_lowercase()), other))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other.to_owned())
}
