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
/// Calls with a syntax of their own (`CAST(x AS int)`, `ARRAY[...]`) within each other: where there is anything wrong in one, the parser reads
/// what it holds once more as a call like any other, what that holds four times, and so on.
const SPECIAL_CALLS_MAX: usize = 10;
const SPECIAL_CALLS: &[Keyword] = &[
    Keyword::ARRAY,
    Keyword::CAST,
    Keyword::CEIL,
    Keyword::CONVERT,
    Keyword::EXTRACT,
    Keyword::FLOOR,
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
}

impl Level {
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
        let is_special_call = SPECIAL_CALLS.contains(&before);
        let is_nested = levels.len() > 1;
        let level = levels.last_mut().expect("the outermost level is never popped");
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                levels.push(Level { is_special_call, ..Level::default() })
            }
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut levels),
            Token::Comma | Token::SemiColon => level.running = 0,
            Token::Whitespace(_) | Token::EOF => {}
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                // WHEN and THEN lie within CASE and END, so that a chain of CASEs is one chain.
                Keyword::CASE => levels.push(Level::default()),
                Keyword::END => close(&mut levels),
                Keyword::SELECT | Keyword::WHERE => level.running = 0,
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if is_nested => level.running = 0,
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
                "a statement may nest {SPECIAL_CALLS_MAX} of CAST, ARRAY, FLOOR, SUBSTRING and the like: use WITH"
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
