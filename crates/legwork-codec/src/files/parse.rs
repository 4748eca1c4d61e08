//! Text to values: numbers, times, days and money. Pure functions over one cell; none means that it is no such value.

use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};

/// Money has 18 digits, 4 of them behind the point.
const MONEY_END: i128 = 1_000_000_000_000_000_000;
const MONEY_SCALE: i32 = 4;

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A double, correctly rounded. Up to 15 digits without exponent are mantissa / 10^n, both exact, hence rounded once (Clinger, "How to
/// read floating point numbers accurately", 1990); the rest goes the standard library's way.
pub(crate) fn double(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut mantissa = 0u64;
    let mut point = None;
    if digits.is_empty() || digits.len() > 16 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && digits.len() > 1 => point = Some(at),
            _ => return std::str::from_utf8(text).ok()?.parse().ok(),
        }
    }
    if point.is_none() && digits.len() > 15 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let n_decimals = point.map_or(0, |at| digits.len() - at - 1);
    let value = mantissa as f64 / EXACT_POWERS[n_decimals];
    Some(if negative { -value } else { value })
}

/// A whole number; `3.0` and `1.7e9` are whole too.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    if let Some(value) = digits_only(text) {
        return Some(value);
    }
    let value = double(text)?;
    // Beyond 2^53 a double does not say which integer was meant.
    (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

fn digits_only(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        let value = value.checked_mul(10)?;
        if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
    })
}

/// True and false as spreadsheets, Python and databases write them.
pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    let text = text.trim_ascii();
    let is = |names: &[&str]| names.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes()));
    if is(&["true", "1", "t", "yes", "y", "1.0"]) {
        Some(true)
    } else {
        is(&["false", "0", "f", "no", "n", "0.0"]).then_some(false)
    }
}

/// A time, microseconds since 1970-01-01 UTC: an integer of microseconds; or a date, with `T` or a space the time of day, with an offset
/// or `Z` behind it. Without a zone it is UTC. Digits beyond the microsecond are cut off.
pub(crate) fn time_us(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    if text.len() < 10 || text[4] != b'-' {
        return integer(text);
    }
    let date_us = i64::from(calendar_day(text.first_chunk()?)?) * DAY_US;
    match &text[10..] {
        [] => Some(date_us),
        [b'T' | b't' | b' ', clock @ ..] => date_us.checked_add(clock_us(clock)?),
        _ => None,
    }
}

/// `HH:MM[:SS[.f]][zone]`, the zone's offset taken off.
fn clock_us(text: &[u8]) -> Option<i64> {
    let (hour, minute) = (two(text.get(..2)?)?, two(text.get(3..5)?)?);
    if text[2] != b':' || hour > 24 || minute > 59 {
        return None;
    }
    let mut value_us = hour * HOUR_US + minute * MINUTE_US;
    let mut rest = &text[5..];
    if let [b':', seconds @ ..] = rest {
        let second = two(seconds.get(..2)?)?;
        // A leap second counts as the first of the next minute, as in POSIX time.
        if second > 60 {
            return None;
        }
        value_us += second * SECOND_US;
        rest = &seconds[2..];
        if let [b'.' | b',', fraction @ ..] = rest {
            let n_digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if n_digits == 0 {
                return None;
            }
            let mut unit_us = SECOND_US / 10;
            for digit in &fraction[..n_digits.min(6)] {
                value_us += i64::from(digit - b'0') * unit_us;
                unit_us /= 10;
            }
            rest = &fraction[n_digits..];
        }
    }
    if hour == 24 && value_us != DAY_US {
        return None;
    }
    Some(value_us - offset_us(rest.trim_ascii_start())?)
}

/// `Z`, `UTC`, `+HH`, `+HHMM`, `+HH:MM` or nothing.
fn offset_us(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        [] | b"Z" | b"z" | b"UTC" | b"utc" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (two(digits)?, 0),
        4 => (two(&digits[..2])?, two(&digits[2..])?),
        5 if digits[2] == b':' => (two(&digits[..2])?, two(&digits[3..])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * HOUR_US + minutes * MINUTE_US))
}

/// A day, days since 1970-01-01: `YYYY-MM-DD`, an integer of days, or a time, whose day in UTC counts.
pub(crate) fn day(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii();
    if text.len() < 10 || text[4] != b'-' {
        return i32::try_from(integer(text)?).ok();
    }
    if text.len() == 10 {
        return calendar_day(text.first_chunk()?);
    }
    i32::try_from(time_us(text)?.div_euclid(DAY_US)).ok()
}

fn calendar_day(text: &[u8; 10]) -> Option<i32> {
    let (year, month, day) = (two(&text[..2])? * 100 + two(&text[2..4])?, two(&text[5..7])?, two(&text[8..])?);
    if text[4] != b'-' || text[7] != b'-' || !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    Some(days_since_epoch(year, month, day) as i32)
}

fn two(text: &[u8]) -> Option<i64> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between 1970-01-01 and a day of the Gregorian calendar. *Source:* Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Money in ten-thousandths, exact; digits beyond the fourth decimal are rounded half away from zero. None also when there are more than
/// 14 digits before the point.
pub(crate) fn money(text: &[u8]) -> Option<i128> {
    let text = text.trim_ascii();
    let (number, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], i32::try_from(digits_only(&text[at + 1..])?).ok()?),
        None => (text, 0),
    };
    let (negative, number) = match number {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = number.iter().position(|&byte| byte == b'.').unwrap_or(number.len());
    let digits = || number.iter().enumerate().filter(|(at, _)| *at != point).map(|(_, byte)| *byte);
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits up to here make the whole number of ten-thousandths; the next one decides the rounding.
    let n_kept = i64::try_from(point).ok()? + i64::from(exponent) + i64::from(MONEY_SCALE);
    let mut value = 0i128;
    let mut n_seen = 0i64;
    for byte in digits() {
        let digit = i128::from(byte - b'0');
        if n_seen < n_kept {
            value = value * 10 + digit;
        } else if n_seen == n_kept {
            value += i128::from(digit >= 5);
        } else {
            break;
        }
        if value >= MONEY_END {
            return None;
        }
        n_seen += 1;
    }
    while value != 0 && n_seen < n_kept {
        value *= 10;
        n_seen += 1;
        if value >= MONEY_END {
            return None;
        }
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_in_every_form() {
        let us = 1_224_741_185_000_000;
        for text in [
            "2008-10-23 05:53:05",
            "2008-10-23T05:53:05Z",
            "2008-10-23t05:53:05.000z",
            "2008-10-23 07:53:05+02",
            "2008-10-23 07:53:05 +0200",
            "2008-10-22T20:23:05-09:30",
            "2008-10-23 05:53:05.0000009 UTC",
            " 1224741185000000 ",
            "1.224741185e15",
        ] {
            assert_eq!(time_us(text.as_bytes()), Some(us), "{text}");
        }
        assert_eq!(time_us(b"1969-12-31T23:59:59.5Z"), Some(-500_000));
        assert_eq!(time_us(b"2024-02-29"), Some(1_709_164_800_000_000));
        assert_eq!(time_us(b"2016-12-31T23:59:60Z"), time_us(b"2017-01-01T00:00:00Z"));
        assert_eq!(time_us(b"2024-05-01T24:00:00Z"), time_us(b"2024-05-02T00:00:00Z"));
        for text in [
            "",
            "yesterday",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-01T25:00:00Z",
            "2024-01-01T10",
            "2024-01-01T10:61",
            "2024-01-01T10:00:00.Z",
            "2024-01-01T10:00:00 Mars",
            "2024-01-01T24:00:01Z",
            "2024/01/01",
            "2024-01-01X10:00:00",
            "12.5",
        ] {
            assert_eq!(time_us(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn days_booleans_and_integers() {
        assert_eq!(day(b"1970-01-02"), Some(1));
        assert_eq!(day(b"2024-03-01T23:59:59-02:00"), Some(19_784));
        assert_eq!(day(b"19784"), Some(19_784));
        assert_eq!(day(b"soon"), None);
        assert_eq!(boolean(b" True"), Some(true));
        assert_eq!(boolean(b"no"), Some(false));
        assert_eq!(boolean(b"2"), None);
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), None);
        assert_eq!(integer(b"3.0"), Some(3));
        assert_eq!(integer(b"3.5"), None);
        assert_eq!(integer(b"-"), None);
    }

    #[test]
    fn money_is_exact() {
        for (text, expected) in [
            ("12.34", 123_400),
            ("-0.0001", -1),
            ("99999999999999.9999", 999_999_999_999_999_999),
            ("0.30000000000000004", 3_000),
            ("1.00005", 10_001),
            ("-1.00005", -10_001),
            ("1e3", 10_000_000),
            ("12.5E-1", 12_500),
            ("1e-9", 0),
            (".5", 5_000),
            ("7.", 70_000),
            ("0e400", 0),
        ] {
            assert_eq!(money(text.as_bytes()), Some(expected), "{text}");
        }
        for text in ["", ".", "1,5", "100000000000000", "1e30", "0x1", "1.2.3", "nan", "99999999999999.99995"] {
            assert_eq!(money(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn doubles_agree_with_the_standard_library(value in any::<f64>(), n_decimals in 0usize..9, small in -1000.0f64..1000.0) {
            prop_assert_eq!(double(value.to_string().as_bytes()).map(f64::to_bits), value.to_string().parse::<f64>().ok().map(f64::to_bits));
            let text = format!("{small:.n_decimals$}");
            prop_assert_eq!(double(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn any_text_is_safe(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (double(&text), integer(&text), boolean(&text), time_us(&text), day(&text), money(&text));
        }

        #[test]
        fn near_misses_agree_with_the_standard_library(text in "[-+]?[0-9.]{0,18}(e[-+]?[0-9]{0,3})?") {
            prop_assert_eq!(double(text.as_bytes()).map(f64::to_bits), text.parse::<f64>().ok().map(f64::to_bits));
        }

        #[test]
        fn money_round_trips(units in -999_999_999_999_999_999i128..1_000_000_000_000_000_000) {
            let text = format!("{}{}.{:04}", if units < 0 { "-" } else { "" }, units.abs() / 10_000, units.abs() % 10_000);
            prop_assert_eq!(money(text.as_bytes()), Some(units));
        }
    }
}
