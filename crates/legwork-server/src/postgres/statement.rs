//! SQL text into statements: what clients of PostgreSQL write, rewritten to what the engine knows, and who answers it.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{CloseCursor, Statement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use legwork_query::{Postgres, check_depth};
use pgwire::error::PgWireResult;

use super::compatible::{Compatible, syntax};
use super::copy::CopyOut;
use super::error::{error, unsupported};
use super::parameters::Parameter;
pub(crate) use super::print::engine_text;
use super::settings::{self, Command};

/// For cloning, rewriting and dropping trees as deep as [`check_depth`] lets in.
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// Of the stack, for each token of a text, each of which may be a level of the tree: in unoptimised builds.
const TOKEN_STACK_BYTES: usize = 10 * 1024;

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
#[derive(Debug)]
pub(crate) struct SqlParser {
    compatible: Compatible,
    sql_bytes_max: usize,
}

/// One statement of a text, and its own part of the text.
struct Piece<'a> {
    text: &'a str,
    statement: Statement,
}

impl SqlParser {
    pub(crate) fn new(sql_bytes_max: usize) -> SqlParser {
        SqlParser { compatible: Compatible::new(), sql_bytes_max }
    }

    /// The statements of a text, in order. *Errors:* 42601 for syntax, 54000 and 54001 beyond the bounds, 22P02 and 0A000 for literals.
    pub(crate) fn parse(&self, sql: &str) -> PgWireResult<Vec<Work>> {
        self.with_pieces(sql, |pieces| {
            let rewritten = pieces.into_iter().map(|piece| self.compatible.rewrite(piece.text, piece.statement));
            rewritten.map(|statement| classify(statement?)).collect()
        })
    }

    /// Parses `sql`, one statement that [`Self::parse`] gave, changes it and prints it again.
    pub(crate) fn rewrite(
        &self,
        sql: &str,
        change: impl FnOnce(&mut Statement) -> PgWireResult<()>,
    ) -> PgWireResult<String> {
        self.with_pieces(sql, |mut pieces| {
            let piece = pieces.first_mut().ok_or_else(|| error("42601", "the statement is empty"))?;
            change(&mut piece.statement)?;
            Ok(engine_text(&mut piece.statement))
        })
    }

    /// Trees live and die within `use_pieces`, on a stack that is large enough for them.
    fn with_pieces<T>(&self, sql: &str, use_pieces: impl FnOnce(Vec<Piece<'_>>) -> PgWireResult<T>) -> PgWireResult<T> {
        if sql.len() > self.sql_bytes_max {
            return Err(error(
                "54000",
                format!("the statement has {} bytes, the limit is {}", sql.len(), self.sql_bytes_max),
            ));
        }
        let tokens = Tokenizer::new(&Postgres, sql)
            .tokenize_with_location()
            .map_err(|cause| error("42601", cause.to_string()))?;
        check_depth(&tokens).map_err(|message| error("54001", message))?;
        let stack_bytes = STACK_BYTES.min(tokens.len() * TOKEN_STACK_BYTES);
        stacker::maybe_grow(stack_bytes, STACK_BYTES, || use_pieces(pieces(sql, tokens)?))
    }
}

/// What stands between semicolons. *Errors:* 42601, 54001.
fn pieces(sql: &str, tokens: Vec<TokenWithSpan>) -> PgWireResult<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut chars = sql.char_indices();
    let mut at = Location { line: 1, column: 1 };
    let mut start = 0;
    for tokens in tokens.split_inclusive(|token| token.token == Token::SemiColon) {
        let (tokens, end) = match tokens {
            [tokens @ .., last] if last.token == Token::SemiColon => {
                while at < last.span.start
                    && let Some((_, c)) = chars.next()
                {
                    at = match c {
                        '\n' => Location { line: at.line + 1, column: 1 },
                        _ => Location { line: at.line, column: at.column + 1 },
                    };
                }
                (tokens, chars.offset())
            }
            tokens => (tokens, sql.len()),
        };
        let statement = parsed(tokens.to_vec())?;
        pieces.extend(statement.map(|statement| Piece { text: &sql[start..end], statement }));
        start = (end + 1).min(sql.len());
    }
    Ok(pieces)
}

/// The statement that these tokens make; none when there is nothing but blanks and comments.
fn parsed(mut tokens: Vec<TokenWithSpan>) -> PgWireResult<Option<Statement>> {
    let first = tokens.iter_mut().find(|token| !matches!(token.token, Token::Whitespace(_)));
    if let Some(first) = first
        && matches!(&first.token, Token::Word(word) if word.keyword == Keyword::ABORT)
    {
        // The parser does not know its other name.
        first.token = Token::make_keyword("ROLLBACK");
    }
    let parser = Parser::new(&Postgres).with_tokens_with_locations(tokens);
    let statements = { parser }.parse_statements().map_err(|cause| syntax(&cause))?;
    Ok(statements.into_iter().next())
}

fn classify(mut statement: Statement) -> PgWireResult<Work> {
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
            let tokens = Tokenizer::new(&Postgres, &printed).tokenize().unwrap();
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
    fn statements_are_parsed_one_by_one() {
        let texts = |sql| -> PgWireResult<Vec<(String, String)>> {
            let tokens = Tokenizer::new(&Postgres, sql).tokenize_with_location().unwrap();
            let pieces = pieces(sql, tokens)?;
            Ok(pieces.iter().map(|piece| (piece.text.to_owned(), piece.statement.to_string())).collect())
        };
        let expected = [
            ("SELECT 'é;'", "SELECT 'é;'"),
            (" -- a; b\r\nABORT ", "ROLLBACK"),
            ("/*;*/SELECT $$;$$ ", "SELECT $$;$$"),
            ("\n\tVALUES (\"ü;\")", "VALUES (\"ü;\")"),
        ];
        assert_eq!(
            texts("SELECT 'é;'; -- a; b\r\nABORT ;;/*;*/SELECT $$;$$ ;\n\tVALUES (\"ü;\")").unwrap(),
            expected.map(|(text, statement)| (text.to_owned(), statement.to_owned()))
        );
        assert!(texts("SELECT 1;\nSELECT 1 2").unwrap_err().to_string().contains("Line: 2, Column: 10"));
    }

    /// What costs levels of the tree: before, again and again, after.
    const CHAINS: &[(&str, &str, &str)] = &[
        ("SELECT 1", " + 1", ""),
        ("SELECT 1", "::int", ""),
        ("SELECT (1", " XOR 1", ") = ANY(ARRAY[1])"),
        ("SELECT 1", " = ANY('{1}')", ""),
        ("SELECT 1", " IN (1)", ""),
        ("SELECT 1", " NOTNULL", ""),
        ("SELECT 1", " IS NULL", ""),
        ("SELECT 1", " BETWEEN 1 AND 1", ""),
        ("SELECT x", "[1]", ""),
        ("SELECT x", ".x", ""),
        ("SELECT x", " ILIKE 'a'", ""),
        ("SELECT x", " SIMILAR TO 'a'", ""),
        ("SELECT x", " OVERLAPS x", ""),
        ("SELECT x", " || x COLLATE \"C\"", ""),
        ("SELECT x", " AT TIME ZONE 'UTC'", ""),
        ("SELECT x", " OPERATOR(pg_catalog.~) 'a'", ""),
        ("SELECT ", "NOT ", "true"),
        ("SELECT ", "- ", "1"),
        ("SELECT ", "(", "1"),
        ("SELECT ", "abs(", "1"),
        ("SELECT ", "ARRAY[", "1"),
        ("SELECT ", "(SELECT ", "1"),
        ("SELECT 1", " UNION SELECT 1", ""),
        ("SELECT 1", " EXCEPT ALL (SELECT 1)", ""),
        ("SELECT 1 FROM a", " JOIN a ON true", ""),
        ("SELECT 1 FROM ", "(a JOIN ", "a"),
        ("SELECT relname FROM pg_class WHERE true", " OR relkind = 'r'", ""),
        ("SELECT 'reps'::regclass = 1", " OR 'reps'::regclass = 1", ""),
        ("SELECT relname FROM pg_class WHERE ", "abs(", "1"),
        ("SELECT relname FROM pg_class WHERE ", "EXISTS (SELECT ", "1"),
    ];

    #[test]
    fn long_chains_parse_or_are_refused() {
        let parser = SqlParser::new(10_000_000);
        for (before, again, after) in CHAINS {
            let closing: String = again
                .chars()
                .rev()
                .filter_map(|c| match c {
                    '(' if !again.contains(')') => Some(')'),
                    '[' if !again.contains(']') => Some(']'),
                    _ => None,
                })
                .collect();
            let chain = |n: usize| {
                let parsed = parser.parse(&format!("{before}{}{after}{}", again.repeat(n), closing.repeat(n)));
                parsed.map(|statements| assert_eq!(statements.len(), 1)).map_err(|refused| refused.to_string())
            };
            chain(5).unwrap();
            // From what a thread's own stack bears to the most that is let in, and then beyond.
            for n in (1..100).step_by(3).chain((100..2_000).step_by(190)).chain([40_000]) {
                match chain(n) {
                    // The parser may try something else where it nests too deep, and tell what is wrong with that.
                    Err(refused) => {
                        assert!(refused.contains("54001") || (n > 40 && refused.contains("42601")), "{again} {refused}")
                    }
                    Ok(()) => assert!(n < 40_000, "{again}"),
                }
            }
        }
        let chain = |n: usize| format!("SELECT 1{}", " + 1".repeat(n));
        assert_eq!(parser.parse(&chain(990)).unwrap().len(), 1);
        let long = parser.parse(&" ".repeat(10_000_001));
        assert!(long.unwrap_err().to_string().contains("54000"));
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
