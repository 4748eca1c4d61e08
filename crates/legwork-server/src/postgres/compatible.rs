//! Statements of clients of PostgreSQL in the engine's dialect, with the help of datafusion-pg-catalog.
//!
//! Its parser knows what psql, drivers and other tools ask of `pg_catalog`, and gets an answer out of the engine at any price: columns
//! that the engine cannot compute become null, arrays are split at commas. So it sees such questions only. What else is asked gets those
//! of its rules that change no meaning.

use std::fmt;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, FixVersionColumnName, PrependUnqualifiedPgTableName,
    RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule, StripCallableQualifier, StripCollate,
};
use legwork_query::Postgres;
use pgwire::error::{PgWireError, PgWireResult};

use super::adapt::adapt;
use super::error::error;
use super::print::engine_text;
use super::{arrays, names};

/// How the ADBC driver asks for the constraints of a table ($2) of a schema ($1), by arrays that the catalog's columns are not, and the same
/// without them: there are none.
const CONSTRAINTS: (&str, &str) = (
    "WITH fk_unnest AS (",
    "SELECT conname, contype, CAST(NULL AS TEXT[]) AS colnames, CAST(NULL AS TEXT) AS fschema, CAST(NULL AS TEXT) AS ftable, \
     CAST(NULL AS TEXT[]) AS fcolnames FROM pg_catalog.pg_constraint WHERE conname = $1::text AND conname = $2::text AND false",
);

/// How pgjdbc asks whether a type is an array, and the same where functions are their names.
const ARRAY_IN: (&str, &str) = ("'pg_catalog.array_in'::regproc", "'array_in'");

/// Tokens that the parser of questions may read, again and again: what a call holds it reads twice, what a call in it holds four times,
/// and so on.
const TOKENS_READ_MAX: usize = 200_000;

/// Rewrites statements.
pub(super) struct Compatible {
    questions: PostgresCompatibilityParser,
    rules: Vec<Box<dyn SqlStatementRewriteRule>>,
}

impl fmt::Debug for Compatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compatible").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Compatible {
    pub(super) fn new() -> Compatible {
        Compatible {
            questions: PostgresCompatibilityParser::new(),
            rules: vec![
                Box::new(PrependUnqualifiedPgTableName),
                Box::new(StripCallableQualifier),
                Box::new(CurrentUserVariableToSessionUserFunctionCall),
                Box::new(StripCollate),
                Box::new(RewritePgCatalogOperator),
                Box::new(RewriteRegCastToSubquery::new()),
                Box::new(FixVersionColumnName),
            ],
        }
    }

    /// `text` is what `statement` was parsed from. *Errors:* 22P02 for arrays and bytes that are none, 0A000 for what has no counterpart.
    pub(super) fn rewrite(&self, text: &str, mut statement: Statement) -> PgWireResult<Statement> {
        // Text in quotes may not become anything else.
        let printed = arrays::rewrite(&mut statement)?.then(|| engine_text(&mut statement));
        let mut statement = self.rules.iter().fold(statement, |statement, rule| rule.rewrite(statement));
        if is_of_catalog(&statement) {
            let text = match text.trim_start().starts_with(CONSTRAINTS.0) {
                true => CONSTRAINTS.1.to_owned(),
                false => printed.unwrap_or_else(|| text.replace(ARRAY_IN.0, ARRAY_IN.1)),
            };
            check_nesting(&text)?;
            let answerable = self.questions.parse(&text).map_err(|cause| syntax(&cause))?;
            statement = answerable.into_iter().next().ok_or_else(|| error("42601", "the statement is empty"))?;
        } else {
            names::tell_apart(&mut statement);
        }
        adapt(&mut statement)?;
        Ok(statement)
    }
}

/// *Errors:* 54001.
fn check_nesting(text: &str) -> PgWireResult<()> {
    let tokens = Tokenizer::new(&Postgres, text).tokenize().map_err(|cause| error("42601", cause.to_string()))?;
    let (mut n_read, mut n_times) = (0_usize, 1_usize);
    for token in &tokens {
        match token {
            Token::LParen => n_times = n_times.saturating_mul(2),
            Token::RParen => n_times = (n_times / 2).max(1),
            Token::Whitespace(_) => continue,
            _ => {}
        }
        n_read = n_read.saturating_add(n_times);
    }
    match n_read > TOKENS_READ_MAX {
        true => Err(error("54001", "a question about the catalog nests too deep: use WITH or fewer brackets")),
        false => Ok(()),
    }
}

/// What the parser said.
pub(super) fn syntax(cause: &ParserError) -> PgWireError {
    match cause {
        ParserError::RecursionLimitExceeded => {
            error("54001", "the statement nests too deep: use WITH or fewer brackets")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => error("42601", message.clone()),
    }
}

/// Whether a statement reads `pg_catalog` and nothing that is not about tables and types. Of `information_schema`, the engine answers
/// all but what tables the search path leads to, as Grafana asks.
fn is_of_catalog(statement: &Statement) -> bool {
    let mut reads = Reads::default();
    let _ = statement.visit(&mut reads);
    !reads.others && (reads.pg_catalog || (reads.information_schema && reads.settings))
}

/// What a statement reads.
#[derive(Default)]
struct Reads {
    pg_catalog: bool,
    information_schema: bool,
    settings: bool,
    others: bool,
    /// What it calls its own queries.
    named: Vec<String>,
}

impl Visitor for Reads {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.named.extend(tables.map(|table| table.alias.name.value.clone()));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            match schema_of(name).as_deref() {
                Some("pg_catalog") => self.pg_catalog = true,
                Some("information_schema") => self.information_schema = true,
                None if self.named.contains(&name.to_string()) => {}
                _ => self.others = true,
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.settings |= function.name.to_string().eq_ignore_ascii_case("current_setting");
        }
        ControlFlow::Continue(())
    }
}

fn schema_of(name: &ObjectName) -> Option<String> {
    let schema = name.0.len().checked_sub(2).and_then(|idx| name.0[idx].as_ident())?;
    Some(schema.value.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn rewritten(sql: &str) -> String {
        let statement = Parser::parse_sql(&Postgres, sql).unwrap().remove(0);
        Compatible::new().rewrite(sql, statement).unwrap().to_string()
    }

    #[test]
    fn questions_about_the_catalog_are_told_from_others() {
        let is_of_catalog = |sql: &str| {
            let compatible = Compatible::new();
            let statement = Parser::parse_sql(&Postgres, sql).unwrap().remove(0);
            is_of_catalog(&compatible.rules.iter().fold(statement, |statement, rule| rule.rewrite(statement)))
        };
        for of_catalog in [
            "SELECT 1 FROM pg_class",
            "SELECT 1 FROM legwork.Pg_Catalog.pg_class c, information_schema.tables",
            "SELECT 'reps'::regclass",
            "WITH c AS (SELECT oid FROM pg_catalog.pg_class) SELECT * FROM c, generate_series(1, 2)",
            "EXPLAIN SELECT 1 FROM (SELECT 1 FROM pg_type) t",
            "SELECT 1 FROM information_schema.tables WHERE table_schema = current_setting('search_path')",
        ] {
            assert!(is_of_catalog(of_catalog), "{of_catalog}");
        }
        for other in [
            "SELECT 1",
            "SELECT current_setting('search_path')",
            "SELECT 1 FROM reps",
            "SELECT 1 FROM information_schema.tables",
            "SELECT 1 FROM reps, pg_class",
            "SELECT (SELECT count(*) FROM pg_class) FROM reps",
            "SELECT pg_class FROM public.pg_class",
        ] {
            assert!(!is_of_catalog(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_question_about_the_catalog_keeps_its_meaning() {
        for unchanged in [
            "SELECT (SELECT count(*) FROM rep_calls AS c WHERE c.rep_id = r.rep_id) FROM reps AS r",
            "SELECT (SELECT rep_id FROM reps WHERE n = $1)",
            "SELECT (SELECT max(rep_calls.n_calls) FROM rep_calls) AS most",
            "SELECT c.* FROM rep_calls AS c JOIN reps AS r ON c.rep_id = r.rep_id WHERE team_id = 'x' ORDER BY team_id",
            "SELECT table_name, (SELECT count(*) FROM information_schema.columns AS c WHERE c.table_name = t.table_name) FROM information_schema.tables AS t",
        ] {
            assert_eq!(rewritten(unchanged), unchanged);
        }
    }

    #[test]
    fn clients_words_become_the_engines() {
        for (sql, expected) in [
            ("SELECT current_user, current_catalog", "SELECT session_user, current_database()"),
            ("SELECT version()", "SELECT version() AS version"),
            ("SELECT pg_catalog.version()", "SELECT version() AS version"),
            ("SELECT name COLLATE \"C\" FROM reps", "SELECT name FROM reps"),
            ("SELECT name OPERATOR(pg_catalog.~) 'a' FROM reps", "SELECT name ~ 'a' FROM reps"),
            (
                "SELECT \"offset\", Event_Time, g.lat, 1, * FROM gps_pings AS g",
                "SELECT \"offset\" AS \"__column_0_offset\", Event_Time AS \"__column_1_event_time\", g.lat AS \"__column_2_lat\", 1, * FROM gps_pings AS g",
            ),
            (
                "SELECT id::text, id, sum(id::bigint), sum(id)",
                "SELECT id::TEXT, id AS \"__column_1_id\", sum(id::BIGINT), sum(id) AS \"__column_3_sum\"",
            ),
            (
                "SELECT 1 FROM pg_class WHERE relkind = ANY('{r,\"v\"}')",
                "SELECT 1 FROM pg_catalog.pg_class WHERE (relkind IN ('r', 'v'))",
            ),
            (
                "SELECT typinput = 'pg_catalog.array_in'::regproc FROM pg_type",
                "SELECT typinput = 'array_in' FROM pg_catalog.pg_type",
            ),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }
}
