//! Bounds how deep the tree of a statement can get, before it is parsed.
//!
//! The parser bounds recursion, but it builds chains such as `a OR b OR c` and `a::int::int` in loops: a tree as deep as the chain
//! is long, whose every later walk, also its destruction, recurses. So the tokens of any one chain are counted first.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Tokens that one expression may have, those of what it nests included. A level of the tree costs at least two.
pub(crate) const EXPRESSION_TOKENS_MAX: usize = 2_000;
/// Brackets and CASEs within each other.
const LEVELS_MAX: usize = 200;
/// Calls with a syntax of their own (`CAST(x AS int)`, `ARRAY[...]`) and brackets after NOT within each other: where there is anything wrong
/// in one, the parser reads what it holds once more as a call like any other, what that holds four times, and so on.
const SPECIAL_CALLS_MAX: usize = 10;
const SPECIAL_CALLS: &[Keyword] = &[
    Keyword::ARRAY,
    Keyword::CASE,
    Keyword::CAST,
    Keyword::CEIL,
    Keyword::CONVERT,
    Keyword::CURRENT_DATE,
    Keyword::CURRENT_TIME,
    Keyword::CURRENT_TIMESTAMP,
    Keyword::EXTRACT,
    Keyword::FLOOR,
    Keyword::LOCALTIME,
    Keyword::LOCALTIMESTAMP,
    Keyword::OVERLAY,
    Keyword::POSITION,
    Keyword::SAFE_CAST,
    Keyword::SUBSTR,
    Keyword::SUBSTRING,
    Keyword::TRIM,
    Keyword::TRY_CAST,
];
/// UNION, INTERSECT and EXCEPT in a statement.
pub(crate) const SET_OPERATIONS_MAX: usize = 200;

/// One bracketed level: tokens of the running expression, and the most that any expression of it had.
#[derive(Default)]
struct Level {
    running: usize,
    most: usize,
    is_special_call: bool,
    /// NOT or INTERVAL stands before what comes.
    is_prefixed: bool,
}

impl Level {
    /// Another expression begins.
    fn begin(&mut self) {
        self.running = 0;
        self.is_prefixed = false;
    }

    fn add(&mut self, n_tokens: usize) {
        self.running += n_tokens;
        self.most = self.most.max(self.running);
    }
}

/// Passes a text whose tree stays within what a stack of 32 MiB holds, also in unoptimised builds. *Errors:* what is too long, and the
/// way out.
pub fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), String> {
    let mut levels = vec![Level::default()];
    let (mut n_set_operations, mut before) = (0, Keyword::NoKeyword);
    for token in tokens {
        let is_nested = levels.len() > 1;
        let level = levels.last_mut().expect("the outermost level is never popped");
        let is_special_call = level.is_prefixed || SPECIAL_CALLS.contains(&before);
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                levels.push(Level { is_special_call, ..Level::default() })
            }
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut levels),
            Token::Comma | Token::SemiColon => level.begin(),
            Token::Whitespace(_) | Token::EOF => {}
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                // WHEN and THEN lie within CASE and END, so that a chain of CASEs is one chain.
                Keyword::CASE => levels.push(Level::default()),
                Keyword::END => close(&mut levels),
                Keyword::SELECT | Keyword::WHERE => level.begin(),
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if is_nested => level.begin(),
                Keyword::NOT | Keyword::INTERVAL => {
                    level.add(1);
                    level.is_prefixed = true;
                }
                Keyword::AND | Keyword::OR => {
                    level.add(1);
                    level.is_prefixed = false;
                }
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS => n_set_operations += 1,
                _ => level.add(1),
            },
            _ => level.add(1),
        }
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Word(word) if word.quote_style.is_none() => before = word.keyword,
            _ => before = Keyword::NoKeyword,
        }
        if is_special_call && levels.iter().filter(|level| level.is_special_call).count() > SPECIAL_CALLS_MAX {
            return Err(format!(
                "a statement may nest {SPECIAL_CALLS_MAX} of CAST, ARRAY, FLOOR, SUBSTRING, NOT (...) and the like: use WITH"
            ));
        }
        if levels.len() > LEVELS_MAX {
            return Err(format!("a statement may nest {LEVELS_MAX} brackets and CASEs"));
        }
        if levels.iter().map(|level| level.running).sum::<usize>() > EXPRESSION_TOKENS_MAX {
            return Err(format!(
                "an expression has more than {EXPRESSION_TOKENS_MAX} tokens: write IN (...) or join a VALUES list instead of \
                 a chain of OR"
            ));
        }
    }
    match n_set_operations > SET_OPERATIONS_MAX {
        true => Err(format!(
            "a statement may have {SET_OPERATIONS_MAX} UNION, INTERSECT and EXCEPT, found {n_set_operations}"
        )),
        false => Ok(()),
    }
}

/// What a bracketed level held counts into the expression that holds it.
fn close(levels: &mut Vec<Level>) {
    if levels.len() > 1
        && let Some(closed) = levels.pop()
        && let Some(outer) = levels.last_mut()
    {
        outer.add(closed.most + 1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::Postgres;

    fn checked(sql: &str) -> Result<(), String> {
        check_depth(&Tokenizer::new(&Postgres, sql).tokenize_with_location().unwrap())
    }

    #[test]
    fn chains_and_nests_have_bounds() {
        let chain = |before: &str, again: &str, n: usize| format!("SELECT {before}{}", again.repeat(n));
        for (before, again) in [
            ("1", " + 1"),
            ("1", "::int"),
            ("1", " XOR 1"),
            ("1", " NOTNULL"),
            ("1", " IN (1)"),
            ("x", "[1]"),
            ("x", " ILIKE 'a'"),
            ("x", " SIMILAR TO 'a'"),
            ("", "CASE WHEN x THEN 1 END + "),
        ] {
            checked(&chain(before, again, 300)).unwrap();
            assert!(checked(&chain(before, again, 2_001)).is_err(), "{again}");
        }
        checked(&format!("SELECT 1 IN (1{})", ", 1".repeat(50_000))).unwrap();
        checked(&format!("SELECT 1{}", " UNION SELECT 1".repeat(200))).unwrap();
        assert!(checked(&format!("SELECT 1{}", " UNION SELECT 1".repeat(201))).is_err());
        checked(&chain("", "(", 199)).unwrap();
        assert!(checked(&chain("", "(", 200)).is_err());
    }

    /// Each of these took twice as long with each level.
    #[test]
    fn what_passes_is_parsed_in_no_time() {
        let again = [
            "NOT (",
            "NOT - (",
            "NOT f(",
            "x NOT IN (",
            "NOT IN (",
            "INTERVAL (",
            "CASE(",
            "CURRENT_DATE(",
            "LOCALTIME(",
            "CAST(",
            "ARRAY[",
            "f(",
            "row(",
            "EXISTS (SELECT ",
            "(SELECT ",
            "(",
            "CASE WHEN ",
            "f(x) FILTER (WHERE ",
        ];
        for again in again {
            for (inner, end) in [("1", ")"), ("1 2", ")"), ("1", ""), ("", ")")] {
                for n in [10, 11, 15, 20, 30, 40, 60] {
                    let sql = format!("SELECT {}{inner}{}", again.repeat(n), end.repeat(n));
                    let tokens = Tokenizer::new(&Postgres, &sql).tokenize_with_location().unwrap();
                    if check_depth(&tokens).is_ok() {
                        let _ = Parser::new(&Postgres).with_tokens_with_locations(tokens).parse_statements();
                    }
                }
            }
        }
    }
}
