//! SQL text into statements: what clients of PostgreSQL write, rewritten to what the engine knows, and who answers it.

use std::fmt;
use std::ops::ControlFlow;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{CloseCursor, Statement, Value, ValueWithSpan, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::error::PgWireResult;

use super::adapt::adapt;
use super::copy::CopyOut;
use super::error::{error, unsupported};
use super::parameters::Parameter;
use super::settings::{self, Command};

/// Operators in one text. Chains of them become trees as deep as they are long, which recursion must survive.
const OPERATORS_MAX: usize = 2_000;
/// For parsing, rewriting and printing trees of that depth: some 10 KiB a level in unoptimised builds.
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// How pgjdbc asks whether a type is an array, and the same where functions are their names.
const ARRAY_IN: (&str, &str) = ("'pg_catalog.array_in'::regproc", "'array_in'");
/// Texts with fewer operators do without a stack of their own.
const OPERATORS_SHALLOW: usize = 50;

/// Who answers a statement.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// This server: transactions and settings of clients.
    Local(Command),
    /// The engine, with rows. The text may have parameters.
    Query {
        /// SQL for the engine.
        text: String,
        /// What `CommandComplete` says.
        tag: &'static str,
    },
    /// The engine, without rows: its settings. Also all that it refuses.
    EngineCommand {
        /// SQL for the engine.
        text: String,
        /// What `CommandComplete` says.
        tag: &'static str,
    },
    /// The engine, its rows as copy data.
    Copy(CopyOut),
}

/// A statement that was parsed, with what `Describe` says of it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// What to do.
    pub(crate) work: Work,
    /// Its parameters in order.
    pub(crate) parameters: Vec<Parameter>,
    /// Its columns; none when it gives no rows.
    pub(crate) schema: Option<SchemaRef>,
}

/// Parses within bounds.
pub(crate) struct SqlParser {
    compatible: PostgresCompatibilityParser,
    sql_bytes_max: usize,
}

impl fmt::Debug for SqlParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlParser").field("sql_bytes_max", &self.sql_bytes_max).finish_non_exhaustive()
    }
}

impl SqlParser {
    pub(crate) fn new(sql_bytes_max: usize) -> SqlParser {
        SqlParser { compatible: PostgresCompatibilityParser::new(), sql_bytes_max }
    }

    /// The statements of a text, in order. *Errors:* 42601 for syntax, 54000 and 54001 beyond the bounds.
    pub(crate) fn parse(&self, sql: &str) -> PgWireResult<Vec<Work>> {
        let parse = |sql: &str| self.compatible.parse(&sql.replace(ARRAY_IN.0, ARRAY_IN.1));
        self.with_statements(sql, parse, |statements| statements.into_iter().map(classify).collect())
    }

    /// Parses `sql`, one statement that [`Self::parse`] gave, changes it and prints it again.
    pub(crate) fn rewrite(
        &self,
        sql: &str,
        change: impl FnOnce(&mut Statement) -> PgWireResult<()>,
    ) -> PgWireResult<String> {
        let parse = |sql: &str| Parser::parse_sql(&PostgreSqlDialect {}, sql);
        self.with_statements(sql, parse, |mut statements| {
            let statement = statements.first_mut().ok_or_else(|| error("42601", "the statement is empty"))?;
            change(statement)?;
            Ok(engine_text(statement))
        })
    }

    /// Trees live and die within `use_statements`, on a stack that is large enough for them.
    fn with_statements<T>(
        &self,
        sql: &str,
        parse: impl FnOnce(&str) -> Result<Vec<Statement>, ParserError>,
        use_statements: impl FnOnce(Vec<Statement>) -> PgWireResult<T>,
    ) -> PgWireResult<T> {
        if sql.len() > self.sql_bytes_max {
            return Err(error(
                "54000",
                format!("the statement has {} bytes, the limit is {}", sql.len(), self.sql_bytes_max),
            ));
        }
        let n_operators = count_operators(sql)?;
        if n_operators > OPERATORS_MAX {
            let message =
                format!("the statement has {n_operators} operators, the limit is {OPERATORS_MAX}: use lists or joins");
            return Err(error("54001", message));
        }
        let work = || {
            let statements = parse(sql).map_err(|cause| error("42601", cause.to_string()))?;
            use_statements(statements)
        };
        if n_operators <= OPERATORS_SHALLOW { work() } else { stacker::grow(STACK_BYTES, work) }
    }
}

fn count_operators(sql: &str) -> PgWireResult<usize> {
    let tokens =
        Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().map_err(|cause| error("42601", cause.to_string()))?;
    let chains = |token: &&Token| match token {
        Token::Word(word) => {
            word.quote_style.is_none()
                && ["AND", "OR", "NOT", "UNION", "EXCEPT", "INTERSECT", "JOIN", "LIKE", "IS", "COLLATE", "AT"]
                    .iter()
                    .any(|keyword| word.value.eq_ignore_ascii_case(keyword))
        }
        Token::Whitespace(_)
        | Token::Comma
        | Token::SemiColon
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::RBracket
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Placeholder(_)
        | Token::EOF => false,
        _ => true,
    };
    Ok(tokens.iter().filter(chains).count())
}

/// The statement as text for the engine. Strings with quotes are written in the escaping that has one reading: printing a plain string
/// leaves doubled and backslashed quotes as they are, which would let a value end its own literal.
pub(crate) fn engine_text(statement: &mut Statement) -> String {
    struct Strings;
    impl VisitorMut for Strings {
        type Break = ();
        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
            if let Value::SingleQuotedString(text) = &value.value
                && text.contains('\'')
            {
                value.value = Value::EscapedStringLiteral(text.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Strings);
    statement.to_string()
}

fn classify(mut statement: Statement) -> PgWireResult<Work> {
    adapt(&mut statement)?;
    let query = |statement: &mut Statement, tag| Ok(Work::Query { text: engine_text(statement), tag });
    match &mut statement {
        Statement::Query(_) => query(&mut statement, "SELECT"),
        Statement::Explain { .. } | Statement::ExplainTable { .. } => query(&mut statement, "EXPLAIN"),
        Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowSchemas { .. } => query(&mut statement, "SHOW"),
        Statement::ShowVariable { variable } => match settings::show(variable) {
            Some(name) => Ok(Work::Local(Command::Show(name))),
            None => query(&mut statement, "SHOW"),
        },
        Statement::Set(set) => match settings::set(set)? {
            Some(command) => Ok(Work::Local(command)),
            None => Ok(Work::EngineCommand { text: engine_text(&mut statement), tag: "SET" }),
        },
        Statement::Reset(reset) => match settings::reset(&reset.reset) {
            Some(command) => Ok(Work::Local(command)),
            None => Ok(Work::EngineCommand { text: engine_text(&mut statement), tag: "RESET" }),
        },
        Statement::Copy { source, to, target, options, legacy_options, .. } => {
            if !*to {
                return Err(error(
                    "25006",
                    "this server is read-only: COPY ... TO STDOUT works, COPY ... FROM does not",
                ));
            }
            CopyOut::new(source, target, options, legacy_options).map(Work::Copy)
        }
        _ => transaction(&statement)
            .unwrap_or_else(|| Ok(Work::EngineCommand { text: engine_text(&mut statement), tag: "OK" })),
    }
}

/// Statements about the connection itself.
fn transaction(statement: &Statement) -> Option<PgWireResult<Work>> {
    let command = match statement {
        Statement::StartTransaction { .. } => Command::Begin,
        Statement::Commit { .. } => Command::Commit,
        Statement::Rollback { savepoint: None, .. } => Command::Rollback,
        Statement::Rollback { savepoint: Some(_), .. } => Command::RollbackToSavepoint,
        Statement::Savepoint { .. } => Command::Nothing("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Command::Nothing("RELEASE"),
        Statement::UNLISTEN { .. } => Command::Nothing("UNLISTEN"),
        Statement::Close { cursor: CloseCursor::All } => Command::Nothing("CLOSE CURSOR ALL"),
        Statement::Discard { .. } => Command::Discard,
        Statement::Deallocate { name, .. } if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") => {
            Command::Deallocate(None)
        }
        Statement::Deallocate { name, .. } => Command::Deallocate(Some(name.value.clone())),
        Statement::Prepare { .. } | Statement::Execute { .. } => {
            return Some(Err(unsupported(
                "PREPARE and EXECUTE as SQL are not supported: use the protocol's own, as drivers do",
            )));
        }
        Statement::Declare { .. } | Statement::Fetch { .. } | Statement::Close { .. } => {
            return Some(Err(unsupported(
                "cursors in SQL are not supported: rows are streamed, or set the driver's fetch size",
            )));
        }
        Statement::LISTEN { .. } | Statement::NOTIFY { .. } => {
            return Some(Err(unsupported("there are no notifications")));
        }
        _ => return None,
    };
    Some(Ok(Work::Local(command)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn text(sql: &str) -> String {
        match SqlParser::new(1_000_000).parse(sql).unwrap().remove(0) {
            Work::Query { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strings_keep_their_value() {
        for value in ["it's", "''", "\\'", "\\' OR 1=1 --", "a\\", "'", "x''y", "\n'"] {
            let literal = value.replace('\'', "''");
            let printed = text(&format!("SELECT '{literal}'"));
            let again = text(&printed);
            assert_eq!(printed, again, "{value}");
            let tokens = Tokenizer::new(&PostgreSqlDialect {}, &printed).tokenize().unwrap();
            let strings: Vec<_> = tokens
                .iter()
                .filter_map(|token| match token {
                    Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(strings, [value]);
        }
    }

    #[test]
    fn long_chains_parse_or_are_refused() {
        let parser = SqlParser::new(1_000_000);
        let chain = |n: usize| format!("SELECT 1{}", " + 1".repeat(n));
        assert_eq!(parser.parse(&chain(1_900)).unwrap().len(), 1);
        assert!(parser.parse(&chain(100_000)).unwrap_err().to_string().contains("54001"));
        let nested = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(parser.parse(&nested).unwrap_err().to_string().contains("42601"));
        assert!(parser.parse(&" ".repeat(1_000_001)).unwrap_err().to_string().contains("54000"));
    }

    #[test]
    fn statements_go_to_who_answers_them() {
        let parser = SqlParser::new(10_000);
        let kinds: Vec<_> = parser
            .parse("BEGIN; SELECT 1; SET legwork.as_of = '2026-01-01'; SET application_name = 'x'; COPY (SELECT 1) TO STDOUT; DROP TABLE x")
            .unwrap()
            .iter()
            .map(|work| match work {
                Work::Local(_) => 'l',
                Work::Query { .. } => 'q',
                Work::EngineCommand { .. } => 'e',
                Work::Copy(_) => 'c',
            })
            .collect();
        assert_eq!(kinds, ['l', 'q', 'e', 'l', 'c', 'e']);
        assert!(parser.parse("COPY x FROM STDIN").unwrap_err().to_string().contains("25006"));
        assert!(parser.parse("COPY (SELECT 1) TO '/tmp/x'").is_err());
        assert!(parser.parse(";;").unwrap().is_empty());
    }
}
