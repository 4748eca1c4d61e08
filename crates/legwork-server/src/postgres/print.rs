//! Statements as text for the engine, which reads them as the same statements.

use std::fmt::{self, Write as _};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Statement, Value, ValueWithSpan, VisitMut, VisitorMut};

/// What operators are made of: two that touch would be read as one, or as the beginning of a comment.
const OPERATOR_CHARS: &str = "+-*/<>=~!@#%^&|`?";

/// The statement as text for the engine. Strings with quotes are written in the escaping that has one reading: printing a plain string
/// leaves doubled and backslashed quotes as they are, which would let a value end its own literal.
pub(crate) fn engine_text(statement: &mut Statement) -> String {
    let _ = statement.visit(&mut Printable);
    statement.to_string()
}

struct Printable;

impl VisitorMut for Printable {
    type Break = ();

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        match &value.value {
            Value::SingleQuotedString(text) if !text.contains('\'') => {}
            Value::SingleQuotedString(text)
            | Value::NationalStringLiteral(text)
            | Value::UnicodeStringLiteral(text) => value.value = Value::EscapedStringLiteral(text.clone()),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { expr: operand, .. } = expr
            && first_char(operand).is_some_and(|c| OPERATOR_CHARS.contains(c))
        {
            let inner = std::mem::replace(operand.as_mut(), Expr::value(Value::Null));
            **operand = Expr::Nested(Box::new(inner));
        }
        ControlFlow::Continue(())
    }
}

/// The first character of an expression's text, without printing the rest.
fn first_char(expr: &Expr) -> Option<char> {
    struct First(Option<char>);
    impl fmt::Write for First {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = text.chars().next();
            if self.0.is_none() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut first = First(None);
    // It fails as soon as there is something to be seen.
    let _ = write!(first, "{expr}");
    first.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;
    use legwork_query::Postgres;

    use super::*;

    const STATEMENTS: &[&str] = &[
        "SELECT - -n, - - -n, + -n, -(-n), - + n, ~ -n, ~ ~n, @ -5, |/ -4, ||/ -8, !! -3, - @ -n, -n::int, - -n ^ 2, 1 - -1, 1 - - -1",
        "SELECT @ -n * 2, @ - n + 1, NOT -n > - -m, - - 1.5e-3, ARRAY[- -1], f(- -n) FILTER (WHERE - -n > 0)",
        "SELECT a -> 'b', a ->> 'b', a #> '{c}', a #>> '{c}', a @> b, a <@ b, a ? 'k', a && b, a || b, a # b, a << 1, a >> 1",
        r"SELECT 'it''s', E'it\'s', E'a\\b\n', $$it's$$, $t$it's $$ $t$, N'it''s', U&'d\0061t''a', '', '\', '''', 'x''''y'",
        "SELECT X'1F', 0x1F, 1., .5, 1e10, 1.5E-3, 100000000000000000000",
        "SELECT DATE '2026-01-01', TIMESTAMP '2026-01-01 00:00:00', TIMESTAMP WITH TIME ZONE '2026-01-01', TIME '10:00', JSON '{}'",
        "SELECT INTERVAL '1 day', INTERVAL '1' DAY, INTERVAL '1-2' YEAR TO MONTH, INTERVAL '1 hour' * -2, now() - INTERVAL '5 minutes'",
        "SELECT a::int, a::double precision, a::character varying(10), a::timestamp(3) with time zone, a::numeric(10, 2)[], a::int[3]",
        "SELECT CAST(a AS timestamptz), TRY_CAST(a AS date), a::pg_catalog.text, a::regclass::oid, (a || b)::text::varchar",
        "SELECT a AT TIME ZONE 'UTC', a::timestamptz AT TIME ZONE 'it''s', (a AT TIME ZONE b)::date",
        "SELECT EXTRACT(EPOCH FROM a), EXTRACT('year' FROM a), date_part('day', a), POSITION('a' IN b), CEIL(a), FLOOR(a TO DAY)",
        "SELECT SUBSTRING(a FROM 1 FOR 2), SUBSTRING(a, 1, 2), SUBSTRING(a FOR 2), OVERLAY(a PLACING 'x' FROM 1 FOR 2), TRIM(BOTH 'x' FROM a), TRIM(a)",
        r"SELECT a LIKE 'x' ESCAPE '!', a NOT LIKE 'x', a ILIKE 'it''s' ESCAPE '''', a SIMILAR TO 'b' ESCAPE '\', a LIKE ANY(ARRAY['x']), a ILIKE ANY('{x}')",
        "SELECT a ~ 'x', a ~* 'x', a !~ 'x', a !~* 'x', a ~~ 'x', a ~~* 'x', a !~~ 'x', a !~~* 'x', a ^@ 'x'",
        "SELECT a IS NULL, a IS NOT NULL, a NOTNULL, a ISNULL, a IS TRUE, a IS NOT FALSE, a IS UNKNOWN, a IS DISTINCT FROM b, a IS NOT DISTINCT FROM b",
        "SELECT a = b IS NULL, a < b NOTNULL, NOT a IS NULL, (NOT a) IS NULL, NOT (a AND b) OR c AND NOT d, a = (b = c)",
        "SELECT a BETWEEN 1 AND 2, a NOT BETWEEN b - 1 AND b + 1 AND c",
        "SELECT a IN (1, 2), a NOT IN (SELECT 1), (a, b) IN ((1, 2), (3, 4)), a IN (b IN (c))",
        "SELECT a = ANY(b), a <> ALL(ARRAY[1, 2]), a < SOME(SELECT 1), a = ANY(ARRAY(SELECT 1)), a >= ALL((SELECT 1))",
        "SELECT a IS NFC NORMALIZED, a IS NOT NORMALIZED",
        "SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE a WHEN 1 THEN 'x' WHEN 2 THEN 'y' END::text, CASE WHEN a THEN b END = 1",
        "SELECT ARRAY[1, 2][1], (ARRAY[1, 2])[1:2], a[1][2], a[:], (a).b, (f(a)).b[1], ARRAY[[1, 2], [3, 4]], ARRAY[]::int[]",
        "SELECT ROW(1, 2), (1, 2), (1), ((1)), ROW(1), f(), f(DISTINCT a), f(a ORDER BY b DESC NULLS LAST)",
        "SELECT f(a => 1, b := 2), percentile_cont(0.5) WITHIN GROUP (ORDER BY a), count(*) FILTER (WHERE a)",
        "SELECT sum(a) OVER (PARTITION BY b ORDER BY c ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), rank() OVER w FROM t WINDOW w AS (ORDER BY a)",
        "SELECT lag(a) IGNORE NULLS OVER (ORDER BY b RANGE BETWEEN INTERVAL '1 day' PRECEDING AND UNBOUNDED FOLLOWING)",
        "SELECT EXISTS (SELECT 1), NOT EXISTS (SELECT 1 WHERE false), (SELECT 1), ARRAY(SELECT 1)",
        r#"SELECT "a""b", "Select" AS "x y", a "from", 1 AS "it's", t."offset" FROM t"#,
        "SELECT DISTINCT a, b FROM t",
        "SELECT DISTINCT ON (a, b) a, c FROM t ORDER BY a, b, c DESC NULLS FIRST",
        "SELECT *, t.*, s.t.* FROM s.t, u AS v (a, b), (VALUES (1, 'it''s'), (2, NULL)) AS w (c, d)",
        "SELECT a FROM t JOIN u ON t.a = u.a LEFT JOIN v USING (a, b) RIGHT OUTER JOIN w ON true FULL JOIN x ON x.a = - -1 CROSS JOIN y NATURAL JOIN z",
        "SELECT a FROM t LEFT JOIN (u JOIN v ON u.a = v.a) ON t.a = u.a, LATERAL (SELECT t.a) l, LATERAL unnest(t.b) m",
        "SELECT a FROM generate_series(1, 10) AS g (a), unnest(ARRAY[1, 2]) WITH ORDINALITY AS u (b, c), explain_track('x', 'a''b', 'c')",
        "SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 10 OFFSET 5",
        "SELECT a FROM t GROUP BY ROLLUP (a, b), CUBE (c), GROUPING SETS ((a), (b, c), ())",
        "SELECT a FROM t ORDER BY a FETCH FIRST 5 ROWS ONLY",
        "SELECT a FROM t OFFSET 5 ROWS FETCH NEXT 10 ROWS WITH TIES",
        "SELECT a FROM t LIMIT ALL",
        "SELECT a FROM t TABLESAMPLE BERNOULLI (10) REPEATABLE (1)",
        "SELECT 1 UNION SELECT 2 INTERSECT SELECT 3 EXCEPT ALL SELECT 4 ORDER BY 1",
        "(SELECT 1 UNION ALL SELECT 2) UNION (SELECT 3 LIMIT 1) ORDER BY 1",
        "WITH a AS (SELECT 1), b (c, d) AS MATERIALIZED (SELECT 1, 2) SELECT * FROM a, b",
        "WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t",
        "VALUES (1, 'a'), (- -2, NULL)",
        r#"SELECT a COLLATE "C", a OPERATOR(pg_catalog.~) 'x', a OPERATOR(pg_catalog.+) -b"#,
        "SELECT current_date, current_timestamp, localtimestamp(3), session_user, current_user, user, current_schema",
        "SELECT $1, $2::int + $1, f($3) LIMIT $4",
        "SELECT a % 2, a / b * c, a ^ b ^ c, -a ^ 2, (a - (b - c)), a - b - c, 2 * (3 + 4)",
        "SELECT a XOR b, a OR b AND c, (a OR b) AND c",
        "SELECT (a, b) OVERLAPS (c, d)",
        "SELECT a -> 'b' -> 'c' ->> 'd', a.b.c.d",
        "SELECT interval, date FROM t WHERE date > DATE '2026-01-01' AND interval < 5",
        "SELECT /* c */ 1 -- d",
        "SELECT ü, \"日本\", 'é' FROM t",
        "SELECT 1 WHERE true AND (SELECT count(*) FROM t) > - -1",
        "EXPLAIN ANALYZE VERBOSE SELECT - -1",
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT 'it''s'",
        "SHOW TABLES LIKE 'it''s'",
        "SHOW COLUMNS FROM t",
        "SHOW legwork.as_of",
        "DESCRIBE t",
        "SET legwork.as_of = 'it''s'",
        "SET legwork.as_of TO DEFAULT",
        "SET statement_timeout = -1",
        "SET TIME ZONE 'UTC'",
        "SET search_path = a, \"B\"",
        "RESET legwork.as_of",
        "COPY (SELECT - -a, 'it''s' FROM t) TO STDOUT WITH (FORMAT csv, HEADER true, DELIMITER ';')",
        "SELECT a FROM ONLY (t)",
        "SELECT int[] '{1,2}'",
    ];

    #[test]
    fn what_is_printed_is_read_as_it_was_meant() {
        let parse = |sql: &str| Parser::parse_sql(&Postgres, sql);
        let mut wrong = Vec::new();
        for sql in STATEMENTS {
            let mut statement = match parse(sql) {
                Ok(mut statements) => statements.remove(0),
                Err(cause) => {
                    wrong.push(format!("{sql}\n    {cause}"));
                    continue;
                }
            };
            let text = engine_text(&mut statement);
            match parse(&text) {
                Ok(again) if again == [statement] => {}
                other => wrong.push(format!("{sql}\n    {text}\n    {:?}", other.map(|again| again[0].to_string()))),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
