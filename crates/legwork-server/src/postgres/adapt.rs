//! What clients of PostgreSQL write, in the terms of the engine: literals of bytes, arrays of subqueries, and questions to `pg_catalog`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, SelectItem,
    SetExpr, Statement, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;
use legwork_query::Postgres;
use pgwire::error::{PgWireError, PgWireResult};

use super::error::error;
use super::values::bytes_literal;

/// How clients leave out the types of tables' rows. There are no others made of columns.
const IS_COMPOSITE: &str = "(SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)";
/// Functions by their names, in `pg_type`.
const FUNCTION_COLUMNS: [&str; 7] =
    ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];

/// Rewrites a statement. *Errors:* 22P02 for a literal of bytes that is none.
pub(super) fn adapt(statement: &mut Statement) -> PgWireResult<()> {
    match statement.visit(&mut Adapting) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Adapting;

impl VisitorMut for Adapting {
    type Break = PgWireError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PgWireError> {
        compare_functions_by_name(expr);
        let adapted = match expr {
            Expr::Cast { expr: inner, data_type, .. } if data_type.to_string().eq_ignore_ascii_case("bytea") => {
                bytes(inner)
            }
            Expr::Function(function) => Ok(answered(function)),
            Expr::Subquery(_) => Ok((expr.to_string().replace(" AS c ", " c ") == IS_COMPOSITE).then(no)),
            _ => Ok(None),
        };
        match adapted {
            Ok(Some(adapted)) => *expr = adapted,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

fn parsed(sql: &str) -> Option<Expr> {
    Parser::new(&Postgres).try_with_sql(sql).and_then(|mut parser| parser.parse_expr()).ok()
}

fn no() -> Expr {
    Expr::value(Value::Boolean(false))
}

/// `'\xff'::bytea`: the engine would take the characters for the bytes.
fn bytes(literal: &Expr) -> PgWireResult<Option<Expr>> {
    let Expr::Value(value) = literal else { return Ok(None) };
    let (Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text)) = &value.value else { return Ok(None) };
    let sql = bytes_literal(text)?;
    parsed(&sql).map(Some).ok_or_else(|| error("XX000", "a literal of bytes cannot be written"))
}

/// Functions in `pg_type` are their names here, as PostgreSQL shows them, and none is a dash, where drivers compare with 0.
fn compare_functions_by_name(expr: &mut Expr) {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } = expr else { return };
    let name = match left.as_ref() {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(path) => path.last(),
        _ => None,
    };
    let is_function =
        name.is_some_and(|name| FUNCTION_COLUMNS.iter().any(|column| name.value.eq_ignore_ascii_case(column)));
    if is_function
        && let Expr::Value(value) = right.as_mut()
        && matches!(&value.value, Value::Number(number, _) if number == "0")
    {
        value.value = Value::SingleQuotedString("-".to_owned());
    }
}

/// Calls that the engine cannot answer as they stand.
fn answered(function: &mut Function) -> Option<Expr> {
    let name = function.name.to_string().to_ascii_lowercase();
    match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "pg_table_is_visible" => visible(function),
        "array" => aggregated(function),
        "array_to_string" if is_about_nothing(&function.args) => parsed("CAST(NULL AS TEXT)"),
        _ => None,
    }
}

/// Visible are the tables of `public`: the function that tells it sees a number only.
fn visible(function: &Function) -> Option<Expr> {
    let text = function.args.to_string();
    let alias = text.strip_prefix('(')?.strip_suffix(".oid)")?;
    parsed(&format!(
        "{alias}.relnamespace IN (SELECT n_.oid FROM pg_catalog.pg_namespace n_ WHERE n_.nspname IN ('public', 'pg_catalog'))"
    ))
}

/// Rights, storage options and policies: there are none, and the catalog's columns for them are no arrays.
fn is_about_nothing(arguments: &FunctionArguments) -> bool {
    let FunctionArguments::List(list) = arguments else { return false };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first() else { return false };
    let column = |name: &str| name.ends_with("acl") || name == "reloptions";
    match first {
        Expr::Identifier(name) => column(&name.value),
        Expr::CompoundIdentifier(path) => path.last().is_some_and(|name| column(&name.value)),
        Expr::BinaryOp { left, .. } => {
            matches!(left.as_ref(), Expr::CompoundIdentifier(path) if path.last().is_some_and(|name| column(&name.value)))
        }
        other => {
            let text = other.to_string();
            text.contains("attacl") || text.contains("pg_catalog.pg_policy")
        }
    }
}

/// `ARRAY(SELECT x ...)` is `(SELECT array_agg(x) ...)`, but for no rows, of which this makes a null.
fn aggregated(function: &mut Function) -> Option<Expr> {
    let FunctionArguments::Subquery(query) = &mut function.args else { return None };
    let mut query: Query = query.as_ref().clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let is_plain = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty())
        && select.distinct.is_none()
        && query.limit_clause.is_none();
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return None;
    };
    if !is_plain {
        return None;
    }
    let order = query.order_by.take().map_or_else(String::new, |order| {
        // An ordinal means the one column.
        let order = order.to_string();
        if order == "ORDER BY 1" { format!(" ORDER BY {item}") } else { format!(" {order}") }
    });
    *item = parsed(&format!("array_agg({item}{order})"))?;
    Some(Expr::Subquery(Box::new(query)))
}
