//! Columns that stand in a projection beside a wildcard that gives them again: PostgreSQL calls both alike, the engine refuses that.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{CopySource, Expr, Ident, Query, Select, SelectItem, SetExpr, Statement};

/// What the engine calls such a column: this and its name. It is datafusion-pg-catalog's as well.
const PREFIX: &str = "__alias_";

/// Gives the columns another name for the engine, where only the client sees it.
pub(super) fn tell_apart(statement: &mut Statement) {
    if let Some(query) = outermost(statement)
        && let SetExpr::Select(select) = query.body.as_mut()
        && select.projection.iter().any(is_wildcard)
    {
        rename(select);
    }
}

fn outermost(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Query(query) | Statement::Copy { source: CopySource::Query(query), .. } => Some(query),
        Statement::Explain { statement, .. } => outermost(statement),
        _ => None,
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

fn rename(select: &mut Select) {
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(path) if !path.is_empty() => &path[path.len() - 1],
            _ => continue,
        };
        let name = match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_lowercase(),
        };
        let alias = Ident::with_quote('"', format!("{PREFIX}{name}"));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// The columns with the names that the client knows.
pub(super) fn shown(schema: SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| field.name().starts_with(PREFIX)) {
        return schema;
    }
    let fields = schema.fields().iter().map(|field| match field.name().strip_prefix(PREFIX) {
        Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
        None => field.clone(),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
