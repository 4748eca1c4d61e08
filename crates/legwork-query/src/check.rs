//! Which statements may run: an allow-list over the syntax tree. What is not named here is refused.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, ExplainStatement, ResetStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    DiscardObject, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, Set, Statement, TableFactor, Value, Visit,
    Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use crate::columns;
use crate::depth::check_depth;
use crate::dialect::Postgres;
use crate::error;
use crate::{ErrorKind, QueryError};

/// Nesting that the parser follows.
pub(crate) const RECURSION_MAX: usize = 50;
/// Tables, subqueries and functions in the FROM clauses of a statement.
const RELATIONS_MAX: usize = 200;
/// Functions that may stand in FROM.
const TABLE_FUNCTIONS: &[&str] =
    &["explain_track", "track_at", "lake_versions", "generate_series", "range", "unnest", "pg_get_keywords"];

/// Settings that clients send. Those under `legwork` change answers, `statement_timeout` shortens the deadline, the others are kept
/// and shown and change nothing.
const SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "legwork.as_of",
    "lock_timeout",
    "search_path",
    "session characteristics",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_isolation",
    "transaction_read_only",
];

/// A statement that passed the allow-list.
#[derive(Clone, Debug)]
pub enum Checked {
    /// Rows: SELECT, WITH, VALUES, SHOW of what the catalog holds, EXPLAIN, DESCRIBE.
    Query(Box<DfStatement>),
    /// `SET name = value`; without a value, back to the default (also RESET).
    Set {
        /// Name, lower case.
        name: String,
        /// Value as text.
        value: Option<String>,
    },
    /// `SHOW name` of a session setting, lower case.
    Show {
        /// Name, lower case.
        name: String,
    },
    /// Accepted without effect: BEGIN, COMMIT, ROLLBACK, DEALLOCATE, DISCARD, CLOSE and alike. `tag` is PostgreSQL's command tag.
    NoOp {
        /// Command tag.
        tag: &'static str,
    },
    /// Nothing but blanks, comments and semicolons.
    Empty,
}

impl Checked {
    /// PostgreSQL's command tag, without a row count.
    pub fn tag(&self) -> &'static str {
        match self {
            Checked::Query(_) => "SELECT",
            Checked::Set { value: Some(_), .. } => "SET",
            Checked::Set { value: None, .. } => "RESET",
            Checked::Show { .. } => "SHOW",
            Checked::NoOp { tag } => tag,
            Checked::Empty => "",
        }
    }
}

/// Parses one statement and passes it if it only reads. *Errors:* `Statement` with 42601 for syntax and for more than one statement,
/// `Forbidden` with 42501 for what is not on the list, `Limit` with 54000 or 54001 for what is too long or too deep.
pub fn check(sql: &str) -> Result<Checked, QueryError> {
    let tokens = Tokenizer::new(&Postgres, sql).tokenize_with_location().map_err(|e| error::syntax(&e.to_string()))?;
    check_depth(&tokens).map_err(error::too_complex)?;
    let parser = DFParserBuilder::new(tokens).with_dialect(&Postgres).with_recursion_limit(RECURSION_MAX).build();
    let statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(|e| error::of_parser(&e))?;
    let n_statements = statements.len();
    match statements.into_iter().next() {
        None => Ok(Checked::Empty),
        Some(_) if n_statements > 1 => {
            Err(error::syntax(&format!("expected one statement, found {n_statements}: send them one by one")))
        }
        Some(statement) => check_statement(statement),
    }
}

fn check_statement(statement: DfStatement) -> Result<Checked, QueryError> {
    match statement {
        DfStatement::Statement(inner) => check_sql(*inner),
        DfStatement::Explain(explain) => check_explain(explain),
        DfStatement::Reset(ResetStatement::Variable(name)) => setting(&name_of(&name), None),
        DfStatement::CreateExternalTable(_) => Err(forbidden("CREATE EXTERNAL TABLE")),
        DfStatement::CopyTo(_) => Err(forbidden("COPY")),
    }
}

fn check_explain(mut explain: ExplainStatement) -> Result<Checked, QueryError> {
    match explain.statement.as_mut() {
        DfStatement::Statement(inner) if matches!(inner.as_ref(), Statement::Query(_)) => {
            check_tree(inner)?;
            columns::resolve(inner)?;
        }
        _ => return Err(forbidden("EXPLAIN of anything but a query")),
    }
    Ok(Checked::Query(Box::new(DfStatement::Explain(explain))))
}

fn check_sql(mut statement: Statement) -> Result<Checked, QueryError> {
    let no_op = |tag| Ok(Checked::NoOp { tag });
    match statement {
        Statement::Query(_)
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. } => {
            check_tree(&statement)?;
            columns::resolve(&mut statement)?;
            Ok(Checked::Query(Box::new(DfStatement::Statement(Box::new(statement)))))
        }
        Statement::ExplainTable { .. } => {
            check_tree(&statement)?;
            Ok(Checked::Query(Box::new(DfStatement::Statement(Box::new(statement)))))
        }
        Statement::ShowVariable { variable } => Ok(show(&variable)),
        Statement::Set(set) => check_set(set),
        Statement::StartTransaction { statements, .. } if statements.is_empty() => no_op("BEGIN"),
        Statement::Commit { .. } => no_op("COMMIT"),
        Statement::Rollback { .. } => no_op("ROLLBACK"),
        Statement::Savepoint { .. } => no_op("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => no_op("RELEASE"),
        Statement::Deallocate { .. } => no_op("DEALLOCATE"),
        Statement::Discard { object_type: DiscardObject::ALL } => no_op("DISCARD ALL"),
        Statement::Discard { .. } => no_op("DISCARD"),
        Statement::Close { .. } => no_op("CLOSE CURSOR"),
        other => Err(forbidden(&first_words(&other.to_string()))),
    }
}

fn check_set(set: Set) -> Result<Checked, QueryError> {
    match set {
        Set::SingleAssignment { hivevar: false, variable, values, .. } => {
            let values: Vec<String> = values.iter().map(text_of).collect::<Result<_, _>>()?;
            let is_default = values.len() == 1 && values[0].eq_ignore_ascii_case("default");
            setting(&name_of(&variable), (!is_default).then(|| values.join(", ")))
        }
        Set::SetTimeZone { value, .. } => setting("timezone", Some(text_of(&value)?)),
        Set::SetNames { charset_name, .. } => setting("client_encoding", Some(charset_name.value)),
        Set::SetNamesDefault {} => setting("client_encoding", None),
        Set::SetTransaction { .. } => Ok(Checked::NoOp { tag: "SET" }),
        _ => Err(forbidden("this SET")),
    }
}

fn setting(name: &str, value: Option<String>) -> Result<Checked, QueryError> {
    if name == "all" && value.is_none() {
        return Ok(Checked::Set { name: name.to_owned(), value });
    }
    match SETTINGS.binary_search(&name).is_ok() {
        true => Ok(Checked::Set { name: name.to_owned(), value }),
        false => Err(QueryError {
            kind: ErrorKind::Forbidden,
            sqlstate: "42501",
            message: format!("setting {name} cannot be changed here{}", error::nearest(name, SETTINGS)),
        }),
    }
}

fn show(variable: &[Ident]) -> Checked {
    let words: Vec<String> = variable.iter().map(|ident| ident.value.to_ascii_lowercase()).collect();
    let name = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        _ => words.join("."),
    };
    Checked::Show { name }
}

/// A value in SET: a literal or bare words. Anything to evaluate is refused.
fn text_of(value: &Expr) -> Result<String, QueryError> {
    match value {
        Expr::Value(value) => Ok(match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                text.clone()
            }
            other => other.to_string(),
        }),
        Expr::Identifier(ident) => Ok(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => {
            Ok(parts.iter().map(|part| part.value.clone()).collect::<Vec<_>>().join("."))
        }
        Expr::UnaryOp { .. } | Expr::Interval(_) => Ok(value.to_string()),
        _ => Err(error::syntax("expected a literal in SET")),
    }
}

fn name_of(name: &ObjectName) -> String {
    name.to_string().replace('"', "").to_ascii_lowercase()
}

fn first_words(statement: &str) -> String {
    statement
        .split_whitespace()
        .take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

fn forbidden(what: &str) -> QueryError {
    QueryError {
        kind: ErrorKind::Forbidden,
        sqlstate: "42501",
        message: format!(
            "{} is not allowed: tables here are read-only; use SELECT, WITH, VALUES, SHOW, EXPLAIN or DESCRIBE",
            if what.is_empty() { "this statement" } else { what }
        ),
    }
}

fn check_tree(statement: &Statement) -> Result<(), QueryError> {
    match statement.visit(&mut ReadOnly::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Walks a query for what only looks like reading.
#[derive(Default)]
struct ReadOnly {
    n_statements: usize,
    n_relations: usize,
}

impl Visitor for ReadOnly {
    type Break = QueryError;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<QueryError> {
        self.n_statements += 1;
        match self.n_statements > 1 {
            true => ControlFlow::Break(forbidden(&first_words(&statement.to_string()))),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        match query.locks.is_empty()
            && query.settings.is_none()
            && query.format_clause.is_none()
            && query.for_clause.is_none()
        {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(forbidden("FOR UPDATE, SETTINGS or FORMAT")),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        match select.into {
            Some(_) => ControlFlow::Break(forbidden("SELECT INTO")),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<QueryError> {
        let is_plain = |part: &ObjectNamePart| match part {
            ObjectNamePart::Identifier(ident) => ident.quote_style != Some('\''),
            ObjectNamePart::Function(_) => false,
        };
        match relation.0.iter().all(is_plain) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(forbidden("reading a file or an address as a table")),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<QueryError> {
        self.n_relations += 1;
        if self.n_relations > RELATIONS_MAX {
            let message = format!("a statement may name {RELATIONS_MAX} tables and subqueries in FROM");
            return ControlFlow::Break(error::too_complex(message));
        }
        let function = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name_of(name),
            TableFactor::Table { .. }
            | TableFactor::Derived { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::NestedJoin { .. } => {
                return ControlFlow::Continue(());
            }
            TableFactor::TableFunction { expr: Expr::Function(function), .. } => name_of(&function.name),
            _ => return ControlFlow::Break(forbidden("this kind of table")),
        };
        match TABLE_FUNCTIONS.contains(&function.as_str()) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(QueryError {
                kind: ErrorKind::Forbidden,
                sqlstate: "42501",
                message: format!(
                    "there is no table function {function}: expected one of {}",
                    TABLE_FUNCTIONS.join(", ")
                ),
            }),
        }
    }
}
