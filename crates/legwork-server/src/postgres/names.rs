//! Columns that PostgreSQL calls alike, or lets be alike: the engine refuses two of one name. It gets names of its own for them, the client the
//! names that it expects.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    CopySource, Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, Value, ValueWithSpan,
    Visit, VisitMut, Visitor, VisitorMut,
};

/// The engine's name of a column that was renamed: this, where the column stands, `_`, and its name.
const AT: &str = "__column_";
/// The same for questions about the catalog, which datafusion-pg-catalog rewrites: this, and the name.
const OF_CATALOG: &str = "__alias_";
/// PostgreSQL's name for a column that nothing names.
const NAMELESS: &str = "?column?";

/// Gives columns another name for the engine, where only the client sees it: those that stand beside a wildcard which may give them again, those
/// that are there already, and those whose parameters may make them so.
pub(super) fn tell_apart(statement: &mut Statement) {
    if let Some(query) = outermost(statement) {
        in_branches(&mut query.body);
    }
}

fn outermost(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Query(query) | Statement::Copy { source: CopySource::Query(query), .. } => Some(query),
        Statement::Explain { statement, .. } => outermost(statement),
        _ => None,
    }
}

/// Each branch of a set operation is a projection of its own.
fn in_branches(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => rename(select),
        SetExpr::Query(query) => in_branches(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            in_branches(left);
            in_branches(right);
        }
        _ => {}
    }
}

fn rename(select: &mut Select) {
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let beside_wildcard = select.projection.iter().any(is_wildcard);
    let mut before = Before::default();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let column = column(expr);
                let may_be_again = match column {
                    Some(_) => beside_wildcard,
                    None => at > 0 && has_parameter(expr),
                };
                if !before.has(expr, column.as_deref()) && !may_be_again {
                    continue;
                }
                (&*expr, shown_name(expr))
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = unquoted(alias);
                if !before.has_alias(&name) {
                    continue;
                }
                (&*expr, name)
            }
            _ => continue,
        };
        let alias = Ident::with_quote('"', format!("{AT}{at}_{name}"));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// What stands before a column in its projection.
#[derive(Debug, Default)]
struct Before {
    /// Without regard to case: too many columns get a name rather than too few.
    texts: HashSet<String>,
    columns: HashSet<String>,
    aliases: HashSet<String>,
}

impl Before {
    /// Whether the engine would call a column without alias as one before it. It is before the next ones.
    fn has(&mut self, expr: &Expr, column: Option<&str>) -> bool {
        let is_again = !self.texts.insert(as_named(expr).to_string().to_lowercase())
            || column.is_some_and(|name| self.aliases.contains(name));
        self.columns.extend(column.map(str::to_owned));
        is_again
    }

    /// The same for an alias.
    fn has_alias(&mut self, name: &str) -> bool {
        !self.aliases.insert(name.to_owned()) || self.columns.contains(name)
    }
}

/// Name of the column that an expression is.
fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(unquoted(name)),
        Expr::CompoundIdentifier(path) => path.last().map(unquoted),
        _ => None,
    }
}

fn unquoted(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// What PostgreSQL calls an expression.
fn shown_name(expr: &Expr) -> String {
    match expr {
        Expr::Nested(expr) | Expr::Cast { expr, .. } => shown_name(expr),
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => unquoted(name),
            _ => NAMELESS.to_owned(),
        },
        expr => column(expr).unwrap_or_else(|| NAMELESS.to_owned()),
    }
}

/// An expression with what the engine's names of columns have: they leave casts out, and call all subqueries alike.
fn as_named(expr: &Expr) -> Expr {
    struct Unnamed;
    impl VisitorMut for Unnamed {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { expr: inner, .. } | Expr::AtTimeZone { timestamp: inner, .. } | Expr::Nested(inner) => {
                    *expr = std::mem::replace(inner, Expr::value(Value::Null));
                }
                Expr::Subquery(_) => *expr = Expr::value(Value::Null),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    // It breaks nowhere.
    let _ = VisitMut::visit(&mut expr, &mut Unnamed);
    expr
}

fn has_parameter(expr: &Expr) -> bool {
    struct Parameter;
    impl Visitor for Parameter {
        type Break = ();

        fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
            match value.value {
                Value::Placeholder(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Parameter).is_break()
}

/// The columns with the names that the client knows.
pub(super) fn shown(schema: SchemaRef) -> SchemaRef {
    let renamed = |name: &str| -> Option<String> {
        let at = name.strip_prefix(AT).and_then(|rest| rest.split_once('_')).map(|(_, name)| name);
        name.strip_prefix(OF_CATALOG).or(at).map(str::to_owned)
    };
    if !schema.fields().iter().any(|field| renamed(field.name()).is_some()) {
        return schema;
    }
    let fields = schema.fields().iter().map(|field| match renamed(field.name()) {
        Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
        None => field.clone(),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
