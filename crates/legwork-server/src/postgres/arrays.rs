//! Arrays as clients of PostgreSQL write them: as text in quotes, and after ANY and ALL.
//!
//! The engine takes a text for one value and knows no members of it. So arrays in quotes become `ARRAY[...]`, whose items are literals
//! that cannot be read as anything else, and comparisons with the members of a written list become `IN`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, FunctionArguments, Statement, TypedString,
    Value, VisitMut, VisitorMut,
};
use pgwire::error::{PgWireError, PgWireResult};

use super::error::{error, unsupported};

/// Rewrites a statement. *Returns* whether it had arrays in quotes. *Errors:* 22P02 for such that are none, 0A000 for what has no
/// counterpart.
pub(super) fn rewrite(statement: &mut Statement) -> PgWireResult<bool> {
    let mut arrays = Arrays { has_quoted: false };
    match statement.visit(&mut arrays) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(arrays.has_quoted),
    }
}

struct Arrays {
    has_quoted: bool,
}

impl VisitorMut for Arrays {
    type Break = PgWireError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PgWireError> {
        let rewritten = match expr {
            Expr::AnyOp { left, compare_op, right, .. } => {
                self.compared(left, (compare_op, BinaryOperator::Eq, "ANY"), right)
            }
            Expr::AllOp { left, compare_op, right } => {
                self.compared(left, (compare_op, BinaryOperator::NotEq, "ALL"), right)
            }
            Expr::Cast { expr: text, data_type: DataType::Array(of), .. } => match text_of(text) {
                Some(_) => self.array(text, of).map(|array| {
                    **text = array;
                    None
                }),
                None => Ok(None),
            },
            Expr::TypedString(TypedString { data_type: DataType::Array(of), value, .. }) => {
                let (of, text) = (of.clone(), Expr::Value(value.clone()));
                self.array(&text, &of).map(|array| Some(cast(array, DataType::Array(of))))
            }
            _ => Ok(None),
        };
        match rewritten {
            Ok(Some(rewritten)) => *expr = rewritten,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

impl Arrays {
    /// `member = ANY(list)` and `member <> ALL(list)`, which are `IN` and `NOT IN`. What else compares with the members of an array, and
    /// an array that is no written list, is the engine's.
    fn compared(
        &mut self,
        member: &mut Expr,
        (operator, membership, quantifier): (&BinaryOperator, BinaryOperator, &str),
        list: &mut Expr,
    ) -> PgWireResult<Option<Expr>> {
        // Of a subquery the members are its rows.
        if let Expr::Function(function) = list
            && let FunctionArguments::Subquery(query) = &function.args
            && function.name.to_string().eq_ignore_ascii_case("array")
        {
            *list = Expr::Subquery(query.clone());
        }
        let negated = membership == BinaryOperator::NotEq;
        if *operator != membership {
            return match text_of(list) {
                Some(_) => Err(unsupported(format!(
                    "{operator} {quantifier} takes an array whose type is told: '{{...}}'::int[], or ARRAY[...]"
                ))),
                None => Ok(None),
            };
        }
        if let Expr::Subquery(query) = list {
            let (expr, subquery) = (Box::new(operand(take(member))), query.clone());
            return Ok(Some(nested(Expr::InSubquery { expr, subquery, negated })));
        }
        let Some(list) = self.written(list)? else { return Ok(None) };
        let expr = Box::new(operand(take(member)));
        if !list.is_empty() {
            return Ok(Some(nested(Expr::InList { expr, list, negated })));
        }
        // Nothing is compared, so that the answer is the same for a null.
        let (op, right) = match negated {
            true => (BinaryOperator::Or, Box::new(Expr::value(Value::Boolean(true)))),
            false => (BinaryOperator::And, Box::new(Expr::value(Value::Boolean(false)))),
        };
        Ok(Some(nested(Expr::BinaryOp { left: Box::new(Expr::IsNull(expr)), op, right })))
    }

    /// The items of a list that the statement spells out.
    fn written(&mut self, list: &Expr) -> PgWireResult<Option<Vec<Expr>>> {
        Ok(match list {
            Expr::Nested(inner) => self.written(inner)?,
            Expr::Array(array) if !array.elem.iter().any(|item| matches!(item, Expr::Array(_))) => {
                Some(array.elem.clone())
            }
            Expr::Cast { expr, data_type: DataType::Array(of), .. } => match (self.written(expr)?, item_type(of)) {
                (Some(items), Ok(item_type)) => {
                    Some(items.into_iter().map(|item| cast(item, item_type.clone())).collect())
                }
                (Some(_), Err(error)) => return Err(error),
                (None, _) => None,
            },
            other => match text_of(other) {
                Some(text) => {
                    self.has_quoted = true;
                    Some(array_items(text)?.into_iter().map(literal).collect())
                }
                None => None,
            },
        })
    }

    /// An array of that type in quotes, as `ARRAY[...]`.
    fn array(&mut self, text: &Expr, of: &ArrayElemTypeDef) -> PgWireResult<Expr> {
        let item_type = item_type(of)?;
        let items = self.written(text)?.unwrap_or_default();
        let elem = items.into_iter().map(|item| cast(item, item_type.clone())).collect();
        Ok(Expr::Array(Array { elem, named: true }))
    }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

/// In parentheses where operators beside it could take a part of it.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Value(_)
        | Expr::Nested(_)
        | Expr::Function(_)
        | Expr::Subquery(_) => expr,
        other => nested(other),
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    let expr = match expr {
        Expr::Array(_) => Box::new(expr),
        other => Box::new(operand(other)),
    };
    Expr::Cast { kind: CastKind::DoubleColon, expr, data_type, array: false, format: None }
}

fn literal(item: Option<String>) -> Expr {
    Expr::value(item.map_or(Value::Null, Value::SingleQuotedString))
}

fn item_type(of: &ArrayElemTypeDef) -> PgWireResult<&DataType> {
    match of {
        ArrayElemTypeDef::AngleBracket(item)
        | ArrayElemTypeDef::SquareBracket(item, _)
        | ArrayElemTypeDef::Parenthesis(item)
            if !matches!(item.as_ref(), DataType::Array(_)) =>
        {
            Ok(item)
        }
        _ => Err(unsupported("arrays in quotes have one dimension and a type of items here: use ARRAY[...]")),
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text)
        | Value::NationalStringLiteral(text) => Some(text),
        Value::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// The items of `{a,"b c",NULL}`, one dimension; null is none. *Errors:* 22P02. *Source:* PostgreSQL's documentation of arrays, "Array
/// Input and Output Syntax".
pub(super) fn array_items(text: &str) -> PgWireResult<Vec<Option<String>>> {
    let malformed = || error("22P02", format!("malformed array literal: {text:?} is not {{a,b,...}} of one dimension"));
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Ok(items);
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut item = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            items.push(Some(item));
        } else {
            // Blanks at its end are no part of it, unless they are escaped.
            let (mut length, mut is_escaped) = (0, false);
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' | '"' => return Err(malformed()),
                    '\\' => {
                        item.push(chars.next().ok_or_else(malformed)?);
                        (length, is_escaped) = (item.len(), true);
                    }
                    c => {
                        item.push(c);
                        length = if c.is_whitespace() { length } else { item.len() };
                    }
                }
            }
            item.truncate(length);
            match item.as_str() {
                "" => return Err(malformed()),
                null if !is_escaped && null.eq_ignore_ascii_case("null") => items.push(None),
                _ => items.push(Some(item)),
            }
        }
        match chars.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;
    use legwork_query::Postgres;

    use super::*;

    fn rewritten(sql: &str) -> PgWireResult<String> {
        let mut statement = Parser::parse_sql(&Postgres, sql).unwrap().remove(0);
        rewrite(&mut statement)?;
        Ok(statement.to_string())
    }

    #[test]
    fn items_of_arrays_in_text() {
        let items = |text: &str| {
            let items = array_items(text).unwrap();
            items.into_iter().map(|item| item.unwrap_or_else(|| "<null>".to_owned())).collect::<Vec<_>>()
        };
        assert!(items("{}").is_empty() && items(" { } ").is_empty());
        assert_eq!(items("{a, b c ,NULL,\"NULL\"}"), ["a", "b c", "<null>", "NULL"]);
        assert_eq!(items(r#"{"a,b", "" ,"say \"x\"",\ e\ ,n\ull}"#), ["a,b", "", "say \"x\"", " e ", "null"]);
        for malformed in
            ["", "a", "{a", "a}", "{a,}", "{,}", "{{a},{b}}", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{a\\}", "[1:1]={1}"]
        {
            assert!(array_items(malformed).unwrap_err().to_string().contains("22P02"), "{malformed}");
        }
    }

    #[test]
    fn arrays_in_quotes_hold_literals_only() {
        for (sql, expected) in [
            ("SELECT '{2026-01-01, NULL}'::date[]", "SELECT ARRAY['2026-01-01'::DATE, NULL::DATE]::DATE[]"),
            ("SELECT CAST('{}' AS int[])", "SELECT CAST(ARRAY[] AS INT[])"),
            (
                "SELECT '{(SELECT count(*) FROM deals)}'::int[]",
                "SELECT ARRAY['(SELECT count(*) FROM deals)'::INT]::INT[]",
            ),
            ("SELECT ($${\"a,b\"}$$::text[])[1]", "SELECT (ARRAY['a,b'::TEXT]::TEXT[])[1]"),
            ("SELECT x = ANY('{\"ann\",\"bob\"}')", "SELECT (x IN ('ann', 'bob'))"),
            ("SELECT a + b = SOME('{1,2}'::int[])", "SELECT ((a + b) IN ('1'::INT, '2'::INT))"),
            ("SELECT NOT x <> ALL(ARRAY[1, y])", "SELECT NOT (x NOT IN (1, y))"),
            ("SELECT a AND x = ANY('{}')", "SELECT a AND (x IS NULL AND false)"),
            ("SELECT x <> ALL('{}')", "SELECT (x IS NULL OR true)"),
            ("SELECT x = ANY(ARRAY(SELECT y FROM t))", "SELECT (x IN (SELECT y FROM t))"),
            ("SELECT x <> ALL(SELECT '{1}'::int[] FROM t)", "SELECT (x NOT IN (SELECT ARRAY['1'::INT]::INT[] FROM t))"),
            ("SELECT x < ANY('{1,2}'::int[])", "SELECT x < ANY(ARRAY['1'::INT, '2'::INT]::INT[])"),
            ("SELECT x = ANY(tags), 1 = ALL(ARRAY[1])", "SELECT x = ANY(tags), 1 = ALL(ARRAY[1])"),
        ] {
            assert_eq!(rewritten(sql).unwrap(), expected, "{sql}");
        }
        for (sql, sqlstate) in [
            ("SELECT x = ANY('ann')", "22P02"),
            ("SELECT '{{1,2},{3,4}}'::int[]", "22P02"),
            ("SELECT '{1,2}'::int[][]", "0A000"),
            ("SELECT x < ANY('{1,2}')", "0A000"),
        ] {
            assert!(rewritten(sql).unwrap_err().to_string().contains(sqlstate), "{sql}");
        }
    }
}
