//! Parameters of prepared statements: their types, and their values as literals of the SQL that the engine is asked.
//!
//! The engine takes text, so that each statement passes its allow-list and limits. Values become literals in the syntax tree, never by
//! pasting strings into a text, and every string is written in the one escaping that has a single reading.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, Query,
    Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use legwork_query::{Checked, Postgres, Session, check};
use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::error::PgWireResult;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::error::{error, from_query, unsupported};
use super::names;
use super::rows::wire_schema;
use super::statement::{Prepared, SqlParser, Work};
use super::values::{Scalar, decode_binary, decode_text};

/// As PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;
/// For plans as deep as the statements that are let in.
const PLANNING_STACK_BYTES: usize = 32 << 20;
/// To plan a statement when it is prepared; the engine's own deadline holds when it runs.
const PLANNING_MAX: Duration = Duration::from_secs(10);

/// Type of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// As the client encodes it.
    pub(crate) pg_type: Type,
    /// As the engine gets it.
    pub(crate) data_type: DataType,
}

/// Finds out parameters and columns. `client_types`: what the client said of its parameters.
pub(crate) async fn prepare(
    session: &dyn Session,
    parser: &SqlParser,
    work: Work,
    client_types: &[Option<Type>],
) -> PgWireResult<Prepared> {
    let Work::Query { text, tag } = &work else {
        if let Work::Copy(copy) = &work
            && n_parameters(&copy.text)? > 0
        {
            return Err(unsupported("COPY cannot have parameters"));
        }
        let schema = match &work {
            Work::Local(super::settings::Command::Show(name)) => Some(super::settings::show_schema(name)),
            _ => None,
        };
        return Ok(Prepared { work, parameters: Vec::new(), schema });
    };
    let n_parameters = n_parameters(text)?;
    if n_parameters == 0 {
        let schema = columns(session, text, *tag == "SELECT").await?;
        return Ok(Prepared { work, parameters: Vec::new(), schema: Some(schema) });
    }
    let (by_member, lists) = members(parser, text)?;
    let mut inferred = inferred_types(session, &by_member, n_parameters).await;
    for number in lists {
        let item = inferred[number - 1].take().unwrap_or(DataType::Utf8);
        inferred[number - 1] = Some(list(item));
    }
    for number in limits(parser, text)? {
        inferred[number - 1].get_or_insert(DataType::Int64);
    }
    let parameters = inferred.into_iter().enumerate().map(|(idx, inferred)| {
        let said = client_types.get(idx).cloned().flatten();
        parameter(said, inferred)
    });
    let parameters = parameters.collect::<PgWireResult<Vec<_>>>()?;
    let nulls: Vec<String> = parameters.iter().map(|parameter| sample(&parameter.data_type)).collect();
    let schema = columns(session, &substitute(parser, text, &nulls)?, *tag == "SELECT").await?;
    Ok(Prepared { work, parameters, schema: Some(schema) })
}

/// The text with the portal's values in it. *Errors:* 22P02 and 22P03 for values that are not of their type.
pub(crate) fn bound_text<S: Clone>(
    parser: &SqlParser,
    text: &str,
    parameters: &[Parameter],
    portal: &Portal<S>,
) -> PgWireResult<String> {
    if parameters.is_empty() {
        return Ok(text.to_owned());
    }
    let literals = parameters.iter().enumerate().map(|(idx, parameter)| {
        let bytes = portal.parameters.get(idx).and_then(Option::as_ref);
        let scalar = match bytes {
            None => Scalar::Null,
            Some(bytes) if portal.parameter_format.is_binary(idx) => decode_binary(&parameter.pg_type, bytes)?,
            Some(bytes) => decode_text(bytes, &parameter.data_type)?,
        };
        scalar.to_sql(&parameter.data_type)
    });
    let literals = literals.collect::<PgWireResult<Vec<_>>>()?;
    substitute(parser, text, &literals)
}

/// How many `$n` there are: the greatest n.
fn n_parameters(text: &str) -> PgWireResult<usize> {
    let tokens = Tokenizer::new(&Postgres, text).tokenize().map_err(|cause| error("42601", cause.to_string()))?;
    let mut greatest = 0;
    for token in &tokens {
        if let Token::Placeholder(name) = token {
            greatest = greatest.max(placeholder_number(name)?);
        }
    }
    Ok(greatest)
}

fn placeholder_number(name: &str) -> PgWireResult<usize> {
    let number = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
    match number {
        Some(number) if (1..=PARAMETERS_MAX).contains(&number) => Ok(number),
        _ => Err(error("42P02", format!("there is no parameter {name}: they are $1, $2 and so on"))),
    }
}

/// Parameters that stand in LIMIT and OFFSET.
fn limits(parser: &SqlParser, text: &str) -> PgWireResult<Vec<usize>> {
    struct Limits(Vec<usize>);
    impl VisitorMut for Limits {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let exprs = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.0.extend(exprs.filter_map(placeholder));
            }
            ControlFlow::Continue(())
        }
    }
    let mut limits = Limits(Vec::new());
    parser.rewrite(text, |statement| {
        let _ = statement.visit(&mut limits);
        Ok(())
    })?;
    Ok(limits.0)
}

/// `x = ANY($n)` as `x = $n`: the place of a member tells its type, that of a list does not. *Returns* also the parameters that are
/// lists.
fn members(parser: &SqlParser, text: &str) -> PgWireResult<(String, BTreeSet<usize>)> {
    struct Lists(BTreeSet<usize>);
    impl VisitorMut for Lists {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Some((member, op, list)) = compared(expr)
                && let Some(number) = placeholder(list).or_else(|| placeholder_as_list(list))
            {
                self.0.insert(number);
                let placeholder = Expr::value(Value::Placeholder(format!("${number}")));
                let (left, right) = (Box::new(Expr::Nested(Box::new(member.clone()))), Box::new(placeholder));
                *expr = Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }));
            }
            self.0.extend(placeholder_as_list(expr));
            ControlFlow::Continue(())
        }
    }
    let mut lists = Lists(BTreeSet::new());
    let by_member = parser.rewrite(text, |statement| {
        let _ = statement.visit(&mut lists);
        Ok(())
    })?;
    Ok((by_member, lists.0))
}

fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => placeholder_number(name).ok(),
        _ => None,
    }
}

/// `$n::int[]`
fn placeholder_as_list(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Cast { expr, data_type: SqlType::Array(_), .. } => placeholder(expr),
        _ => None,
    }
}

/// What is compared with the members of a list. Questions about the catalog call a function.
fn compared(expr: &Expr) -> Option<(&Expr, BinaryOperator, &Expr)> {
    match expr {
        Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right } => {
            Some((left, compare_op.clone(), right))
        }
        Expr::Function(function) if function.name.to_string() == "array_contains" => match &function.args {
            FunctionArguments::List(arguments) => match arguments.args.as_slice() {
                [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(list)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(member)),
                ] => Some((member, BinaryOperator::Eq, list)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn substitute(parser: &SqlParser, text: &str, literals: &[String]) -> PgWireResult<String> {
    struct Placeholders(Vec<Expr>);
    impl VisitorMut for Placeholders {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Some(literal) = placeholder(expr).and_then(|number| self.0.get(number - 1)) {
                *expr = literal.clone();
            }
            ControlFlow::Continue(())
        }
    }
    let parsed = literals.iter().map(|literal| {
        let mut parser = Parser::new(&Postgres).try_with_sql(literal)?;
        parser.parse_expr()
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>().map_err(|cause| error("XX000", cause.to_string()))?;
    parser.rewrite(text, |statement| {
        let _ = statement.visit(&mut Placeholders(parsed));
        Ok(())
    })
}

/// Plans without running and tells what `look` sees in the plan; none when it cannot be planned. On a thread of its own, where deep
/// plans have the stack that they need, also to be dropped.
async fn plan<T: Send + 'static>(
    context: &SessionContext,
    text: &str,
    look: impl FnOnce(&LogicalPlan) -> T + Send + 'static,
) -> Option<T> {
    let (state, text, runtime) = (context.state(), text.to_owned(), Handle::current());
    let (send, seen) = oneshot::channel();
    let work = move || {
        let Ok(Checked::Query(statement)) = check(&text) else { return };
        let planned =
            runtime.block_on(async { tokio::time::timeout(PLANNING_MAX, state.statement_to_plan(*statement)).await });
        if let Ok(Ok(plan)) = planned {
            drop(send.send(look(&plan)));
        }
    };
    let thread = std::thread::Builder::new().name("legwork-describe".to_owned()).stack_size(PLANNING_STACK_BYTES);
    thread.spawn(work).ok()?;
    seen.await.ok()
}

/// Columns of a query. What cannot be planned here, the engine is asked: for its own statements, and for its words about what is wrong.
async fn columns(
    session: &dyn Session,
    text: &str,
    is_query: bool,
) -> PgWireResult<datafusion::arrow::datatypes::SchemaRef> {
    if is_query && let Some(schema) = plan(session.context(), text, |plan| wire_schema(plan.schema().inner())).await {
        return Ok(names::shown(schema));
    }
    let result = session.query(text).await.map_err(from_query)?;
    Ok(names::shown(wire_schema(&result.schema)))
}

/// What the places of the parameters ask for, where that is known.
async fn inferred_types(session: &dyn Session, text: &str, n_parameters: usize) -> Vec<Option<DataType>> {
    let types =
        plan(session.context(), text, |plan| plan.get_parameter_types().unwrap_or_default()).await.unwrap_or_default();
    (1..=n_parameters).map(|number| types.get(&format!("${number}")).cloned().flatten()).collect()
}

/// The client's word counts, except that text may stand for anything: the place decides then.
fn parameter(said: Option<Type>, inferred: Option<DataType>) -> PgWireResult<Parameter> {
    let timestamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let said_type = match &said {
        Some(said) => match *said {
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Some(DataType::Int64),
            Type::FLOAT4 | Type::FLOAT8 => Some(DataType::Float64),
            Type::BOOL => Some(DataType::Boolean),
            Type::BYTEA => Some(DataType::Binary),
            Type::DATE => Some(DataType::Date32),
            Type::TIMESTAMPTZ => Some(timestamp(Some("UTC"))),
            Type::TIMESTAMP => Some(timestamp(None)),
            Type::INTERVAL => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
            Type::TIME => Some(DataType::Time64(TimeUnit::Nanosecond)),
            Type::INT2_ARRAY | Type::INT4_ARRAY | Type::INT8_ARRAY => Some(list(DataType::Int64)),
            Type::FLOAT4_ARRAY | Type::FLOAT8_ARRAY => Some(list(DataType::Float64)),
            Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => Some(list(DataType::Utf8)),
            Type::NUMERIC => match &inferred {
                Some(inferred) if inferred.is_decimal() || inferred.is_floating() => None,
                _ => Some(DataType::Decimal128(38, 9)),
            },
            _ => None,
        },
        None => None,
    };
    let data_type = said_type.or(inferred).filter(|data_type| *data_type != DataType::Null).unwrap_or(DataType::Utf8);
    let pg_type = match said {
        Some(said) if said != Type::UNKNOWN => said,
        _ => into_pg_type(&data_type)?,
    };
    Ok(Parameter { pg_type, data_type })
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// Stands for any value of the type when columns are asked for.
fn sample(data_type: &DataType) -> String {
    match data_type {
        // As a bare number, as values are: `LIMIT` takes nothing else.
        DataType::Int64 => "0".to_owned(),
        DataType::Utf8 => "''".to_owned(),
        _ => format!("arrow_cast(NULL, '{data_type}')"),
    }
}
