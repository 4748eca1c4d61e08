//! `km_quantile(duration, observed, q)`.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

/// The Kaplan-Meier estimate of the q-quantile of a duration: the smallest duration at which the share that lasts longer has fallen
/// to 1 - q. `observed`: whether the duration has ended; false or null where it still runs. Null while the curve has not fallen that
/// far. Null durations do not count. *Source:* E. L. Kaplan, P. Meier, "Nonparametric estimation from incomplete observations", 1958.
pub(super) fn km_quantile() -> AggregateUDF {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    create_udaf(
        "km_quantile",
        vec![DataType::Float64, DataType::Boolean, DataType::Float64],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(KaplanMeier::default()))),
        Arc::new(vec![list.clone(), list, DataType::Float64]),
    )
}

#[derive(Debug, Default)]
struct KaplanMeier {
    ended: Vec<f64>,
    running: Vec<f64>,
    q: Option<f64>,
}

impl KaplanMeier {
    fn set_q(&mut self, q: f64) -> Result<()> {
        if !(0.0..=1.0).contains(&q) {
            return exec_err!("km_quantile expects a quantile from 0 to 1, found {q}");
        }
        match self.q {
            Some(known) if known != q => exec_err!("km_quantile expects one quantile a group, found {known} and {q}"),
            _ => {
                self.q = Some(q);
                Ok(())
            }
        }
    }
}

impl Accumulator for KaplanMeier {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (durations, observed) = (values[0].as_primitive::<Float64Type>(), values[1].as_boolean());
        for (duration, observed) in durations.iter().zip(observed) {
            match (duration, observed) {
                (Some(duration), Some(true)) if !duration.is_nan() => self.ended.push(duration),
                (Some(duration), _) if !duration.is_nan() => self.running.push(duration),
                _ => {}
            }
        }
        values[2].as_primitive::<Float64Type>().iter().flatten().try_for_each(|q| self.set_q(q))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let quantile = self.q.and_then(|q| quantile(&mut self.ended, &mut self.running, q));
        Ok(ScalarValue::Float64(quantile))
    }

    fn size(&self) -> usize {
        size_of_val(self) + (self.ended.capacity() + self.running.capacity()) * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |values: &[f64]| {
            let values: Vec<ScalarValue> = values.iter().map(|&value| ScalarValue::Float64(Some(value))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))
        };
        Ok(vec![list(&self.ended), list(&self.running), ScalarValue::Float64(self.q)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (state, values) in states.iter().zip([&mut self.ended, &mut self.running]) {
            for list in state.as_list::<i32>().iter().flatten() {
                values.extend(list.as_primitive::<Float64Type>().iter().flatten());
            }
        }
        states[2].as_primitive::<Float64Type>().iter().flatten().try_for_each(|q| self.set_q(q))
    }
}

/// *Shape:* durations that ended and that still run, in any order; sorted in passing.
fn quantile(ended: &mut [f64], running: &mut [f64], q: f64) -> Option<f64> {
    ended.sort_unstable_by(f64::total_cmp);
    running.sort_unstable_by(f64::total_cmp);
    let (mut survival, mut n_gone, mut n_censored) = (1.0, 0, 0);
    while n_gone < ended.len() {
        let duration = ended[n_gone];
        // Censored at the very duration still counts as at risk there.
        n_censored += running[n_censored..].partition_point(|&other| other < duration);
        let n_at_risk = ended.len() - n_gone + running.len() - n_censored;
        let n_ending = ended[n_gone..].partition_point(|&other| other <= duration);
        survival *= 1.0 - n_ending as f64 / n_at_risk as f64;
        n_gone += n_ending;
        // The product of fractions carries rounding of some 1e-16 a step.
        if survival <= 1.0 - q + 1e-9 {
            return Some(duration);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weeks in remission under 6-mercaptopurine; the published median is 23. *Source:* Freireich et al. 1963, as in Gehan 1965.
    const ENDED: [f64; 9] = [6.0, 6.0, 6.0, 7.0, 10.0, 13.0, 16.0, 22.0, 23.0];
    const RUNNING: [f64; 12] = [6.0, 9.0, 10.0, 11.0, 17.0, 19.0, 20.0, 25.0, 32.0, 32.0, 34.0, 35.0];

    #[test]
    fn the_published_median() {
        let of = |q| quantile(&mut ENDED.to_vec(), &mut RUNNING.to_vec(), q);
        assert_eq!(of(0.5), Some(23.0));
        assert_eq!(of(0.25), Some(13.0));
        assert_eq!(of(0.6), None);
    }

    #[test]
    fn without_censoring_it_is_the_plain_quantile() {
        let mut ended: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut ended, &mut [], 0.5), Some(5.0));
        assert_eq!(quantile(&mut ended, &mut [], 0.8), Some(8.0));
        assert_eq!(quantile(&mut ended, &mut [], 1.0), Some(10.0));
        assert_eq!(quantile(&mut [], &mut [3.0], 0.0), None);
    }
}
