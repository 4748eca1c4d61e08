//! `business_seconds` and `local_date`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, Float64Array};
use arrow::datatypes::{DataType, Date32Type, Field, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility, create_udf,
};

use super::as_answer;
use super::time::time_type;
use crate::calendar::Calendar;
use crate::calendars::{date_of_days, days_of_date};
use crate::settings::LegworkSettings;

/// Longest span whose days are counted, microseconds: 200 years.
const SPAN_US_MAX: i64 = 200 * 366 * 86_400 * 1_000_000;

/// `local_date(time, zone)`: the day that a calendar on the wall in that zone shows. UTC for a null or unknown zone, so that a wrong
/// zone in reference data loses no row.
pub(super) fn local_date() -> ScalarUDF {
    let f = |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (times, zones) = (arrays[0].as_primitive::<TimestampMicrosecondType>(), arrays[1].as_string::<i32>());
        let mut last: (Option<&str>, Tz) = (None, Tz::UTC);
        let mut dates = Vec::with_capacity(times.len());
        for (time, zone) in times.iter().zip(zones) {
            if zone != last.0 {
                last = (zone, zone.map_or(Tz::UTC, zone_or_utc));
            }
            let local = time.and_then(DateTime::from_timestamp_micros).map(|time| time.with_timezone(&last.1));
            dates.push(local.map(|local| days_of_date(local.date_naive())));
        }
        as_answer(args, Arc::new(Date32Array::from(dates)))
    };
    create_udf("local_date", vec![time_type(), DataType::Utf8], DataType::Date32, Volatility::Immutable, Arc::new(f))
}

fn zone_or_utc(zone: &str) -> Tz {
    zone.parse().unwrap_or(Tz::UTC)
}

/// `business_seconds(from, to [, calendar or zone])` and `business_seconds(from, to, zone, working_hours, holidays)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct BusinessSeconds {
    default_calendar: String,
    signature: Signature,
}

impl BusinessSeconds {
    /// With the name of the calendar that holds where none is given.
    pub(super) fn new(default_calendar: &str) -> BusinessSeconds {
        let hours = DataType::List(Arc::new(Field::new("item", DataType::Utf8, false)));
        let holidays = DataType::List(Arc::new(Field::new("item", DataType::Date32, false)));
        let forms = vec![
            TypeSignature::Exact(vec![time_type(), time_type()]),
            TypeSignature::Exact(vec![time_type(), time_type(), DataType::Utf8]),
            TypeSignature::Exact(vec![time_type(), time_type(), DataType::Utf8, hours, holidays]),
        ];
        let signature = Signature::one_of(forms, Volatility::Stable);
        BusinessSeconds { default_calendar: default_calendar.to_owned(), signature }
    }

    /// The calendar of a row. Without working hours: the calendar of that name, else working days in the zone of that name.
    fn calendar(&self, arrays: &[Arc<dyn Array>], row: usize, settings: Option<&LegworkSettings>) -> Result<Calendar> {
        let name = arrays.get(2).filter(|names| names.is_valid(row)).map(|names| names.as_string::<i32>().value(row));
        if let (Some(hours), Some(holidays)) = (arrays.get(3), arrays.get(4))
            && hours.is_valid(row)
        {
            let hours = hours.as_list::<i32>().value(row);
            let holidays = holidays.is_valid(row).then(|| holidays.as_list::<i32>().value(row));
            let holidays: HashSet<NaiveDate> = match &holidays {
                Some(days) => days.as_primitive::<Date32Type>().iter().flatten().filter_map(date_of_days).collect(),
                None => HashSet::new(),
            };
            let zone = name.map_or(Tz::UTC, zone_or_utc);
            let calendar = Calendar::parse(zone, hours.as_string::<i32>().iter().flatten(), holidays);
            return calendar.or_else(|wrong| exec_err!("{wrong}"));
        }
        let named = |name: &str| settings.and_then(|s| s.calendars.get(name)).cloned();
        match name {
            None => Ok(named(&self.default_calendar).unwrap_or_else(|| Calendar::weekdays(Tz::UTC))),
            Some(name) => match (named(name), name.parse()) {
                (Some(calendar), _) => Ok(calendar),
                (None, Ok(zone)) => Ok(Calendar::weekdays(zone)),
                // In views the name is that of a rep's zone or a team's calendar: one that is unknown loses no row.
                (None, Err(_)) if arrays.len() > 3 => Ok(Calendar::weekdays(Tz::UTC)),
                (None, Err(_)) => exec_err!("there is no calendar or time zone {name:?}"),
            },
        }
    }
}

impl ScalarUDFImpl for BusinessSeconds {
    fn name(&self) -> &str {
        "business_seconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (from, to) = (
            arrays[0].as_primitive::<TimestampMicrosecondType>(),
            arrays[1].as_primitive::<TimestampMicrosecondType>(),
        );
        let settings = LegworkSettings::of(&args.config_options);
        // A scalar calendar is read once.
        let is_constant = args.args[2..].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let mut last: Option<Calendar> = None;
        let mut seconds = Vec::with_capacity(from.len());
        for row in 0..from.len() {
            if from.is_null(row) || to.is_null(row) {
                seconds.push(None);
                continue;
            }
            let (from_us, to_us) = (from.value(row), to.value(row));
            if from_us.abs_diff(to_us) > SPAN_US_MAX as u64 {
                return exec_err!("business_seconds counts spans of at most 200 years");
            }
            let calendar = match last.take().filter(|_| is_constant) {
                Some(calendar) => calendar,
                None => self.calendar(&arrays, row, settings)?,
            };
            seconds.push(Some(calendar.working_us(from_us, to_us) as f64 / 1e6));
            last = Some(calendar);
        }
        as_answer(&args.args, Arc::new(Float64Array::from(seconds)))
    }
}
