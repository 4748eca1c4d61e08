//! Which column a name means, where DataFusion takes another one than PostgreSQL does: in the syntax tree, before it plans.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SetExpr, Statement, TableAlias,
    TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::dialect::Postgres;
use crate::error;
use crate::{ErrorKind, QueryError};

/// Says which table columns are of where the planner would guess wrong:
///
/// - a column of `USING` in WHERE, which it calls ambiguous, is the left table's;
/// - what a subquery of `op ANY` and `op ALL` gives is the subquery's also where both read the same table.
///
/// *Errors:* RIGHT and FULL JOIN with USING or NATURAL, of whose columns it shows the left table's alone.
pub(crate) fn resolve(statement: &mut Statement) -> Result<(), QueryError> {
    match VisitMut::visit(statement, &mut Resolve) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Resolve;

impl VisitorMut for Resolve {
    type Break = QueryError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        for from in &select.from {
            if let Some(join) = from.joins.iter().find(|join| is_merged_wrongly(&join.join_operator)) {
                return ControlFlow::Break(QueryError {
                    kind: ErrorKind::Statement,
                    sqlstate: "0A000",
                    message: format!(
                        "{} is not supported: write ON left.key = right.key, and coalesce(left.key, right.key) for the key",
                        join.to_string().trim()
                    ),
                });
            }
        }
        let owners: Vec<(Ident, Ident)> = select.from.iter().flat_map(owners).collect();
        match &mut select.selection {
            Some(selection) if !owners.is_empty() => VisitMut::visit(selection, &mut Qualify { owners, n_queries: 0 }),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        let (Expr::AnyOp { right, .. } | Expr::AllOp { right, .. }) = expr else { return ControlFlow::Continue(()) };
        if let Expr::Subquery(query) = right.as_mut()
            && is_alone(query)
            && let Err(error) = name_anew(query)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}

fn is_merged_wrongly(operator: &JoinOperator) -> bool {
    use JoinOperator::{FullOuter, Right, RightOuter};
    let (Right(constraint) | RightOuter(constraint) | FullOuter(constraint)) = operator else { return false };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

/// Columns of USING with the table on their left, where it is the first one.
fn owners(from: &TableWithJoins) -> Vec<(Ident, Ident)> {
    let Some(first) = name_of(&from.relation) else { return Vec::new() };
    let mut owners: Vec<(Ident, Ident)> = Vec::new();
    for (position, Join { join_operator, .. }) in from.joins.iter().enumerate() {
        use JoinOperator::{Inner, Join, Left, LeftOuter};
        let (Join(constraint) | Inner(constraint) | Left(constraint) | LeftOuter(constraint)) = join_operator else {
            continue;
        };
        let JoinConstraint::Using(names) = constraint else { continue };
        let columns = names.iter().filter_map(last_name);
        owners.extend(columns.filter(|_| position == 0).map(|column| (column.clone(), first.clone())));
    }
    owners
}

fn name_of(relation: &TableFactor) -> Option<&Ident> {
    match relation {
        TableFactor::Table { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::Derived { alias: Some(TableAlias { name, .. }), .. } => Some(name),
        TableFactor::Table { name, .. } => last_name(name),
        _ => None,
    }
}

fn last_name(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(|part| part.as_ident())
}

/// As PostgreSQL compares names: those without quotes in lower case.
fn is_same(a: &Ident, b: &Ident) -> bool {
    let folded = |name: &Ident| match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    };
    folded(a) == folded(b)
}

/// Gives columns their tables' names, but for those within subqueries, which have tables of their own.
struct Qualify {
    owners: Vec<(Ident, Ident)>,
    n_queries: usize,
}

impl VisitorMut for Qualify {
    type Break = QueryError;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<QueryError> {
        self.n_queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<QueryError> {
        self.n_queries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        if let Expr::Identifier(column) = expr
            && self.n_queries == 0
            && let Some((column, table)) = self.owners.iter().find(|(name, _)| is_same(name, column))
        {
            *expr = Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
        }
        ControlFlow::Continue(())
    }
}

/// Whether all columns that a query names with their tables are of its own: one that names outer ones could not be put into another.
fn is_alone(query: &Query) -> bool {
    let mut names = Names::default();
    let _ = query.visit(&mut names);
    names.of_columns.iter().all(|column| names.of_tables.iter().any(|table| is_same(table, column)))
}

#[derive(Default)]
struct Names {
    of_tables: Vec<Ident>,
    of_columns: Vec<Ident>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.of_tables.extend(name_of(factor).cloned());
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr {
            self.of_columns.extend(parts.iter().rev().nth(1).cloned());
        }
        ControlFlow::Continue(())
    }
}

/// Puts a subquery into one that has a name: `SELECT * FROM (query) AS name`.
fn name_anew(query: &mut Query) -> Result<(), QueryError> {
    const NAMED: &str = "SELECT * FROM (SELECT 1) AS legwork_subquery";
    let parsed = Parser::new(&Postgres).try_with_sql(NAMED).and_then(|mut parser| parser.parse_query());
    let mut named = *parsed.map_err(|error| error::bug(error.to_string()))?;
    if let SetExpr::Select(select) = named.body.as_mut()
        && let Some(TableWithJoins { relation: TableFactor::Derived { subquery, .. }, .. }) = select.from.first_mut()
    {
        std::mem::swap(subquery.as_mut(), query);
        *query = named;
    }
    Ok(())
}
