//! `legwork_now()`.

use std::hash::{Hash, Hasher};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::clock::Clock;

/// The views' clock: one value a query. Becomes a literal when a query is planned.
#[derive(Debug)]
pub(super) struct LegworkNow {
    clock: Clock,
    signature: Signature,
}

impl LegworkNow {
    pub(super) fn new(clock: Clock) -> LegworkNow {
        LegworkNow { clock, signature: Signature::nullary(Volatility::Stable) }
    }

    fn value(&self, options: &ConfigOptions) -> ScalarValue {
        ScalarValue::TimestampMicrosecond(Some(self.clock.now_us(options)), Some("UTC".into()))
    }
}

// There is one such function in an engine.
impl PartialEq for LegworkNow {
    fn eq(&self, other: &LegworkNow) -> bool {
        self.signature == other.signature
    }
}

impl Eq for LegworkNow {}

impl Hash for LegworkNow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for LegworkNow {
    fn name(&self) -> &str {
        "legwork_now"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value(&args.config_options)))
    }

    fn simplify(&self, _args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(self.value(info.config_options()), None)))
    }
}
