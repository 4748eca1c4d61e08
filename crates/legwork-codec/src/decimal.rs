//! Money from whatever a writer has: exactly, or not at all.

/// Largest unscaled value of a precision of 18 digits.
const UNSCALED_MAX: i128 = 999_999_999_999_999_999;

/// Rescales `unscaled / 10^from_scale` to `to_scale` digits. None when it would lose digits or exceed 18 of them.
pub(crate) fn rescale(unscaled: i128, from_scale: u32, to_scale: u32) -> Option<i128> {
    let rescaled = if from_scale <= to_scale {
        unscaled.checked_mul(10i128.checked_pow(to_scale - from_scale)?)?
    } else {
        let divisor = 10i128.checked_pow(from_scale - to_scale)?;
        if unscaled % divisor != 0 {
            return None;
        }
        unscaled / divisor
    };
    (-UNSCALED_MAX..=UNSCALED_MAX).contains(&rescaled).then_some(rescaled)
}

/// Reads two's complement, big endian, of any length whose value fits 128 bits. None for no bytes at all.
pub(crate) fn from_be_bytes(bytes: &[u8]) -> Option<i128> {
    let &first = bytes.first()?;
    let sign = if first & 0x80 == 0 { 0u8 } else { 0xff };
    let (excess, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let kept_sign_differs = (kept[0] & 0x80 == 0) != (sign == 0);
    if excess.iter().any(|&byte| byte != sign) || (!excess.is_empty() && kept_sign_differs) {
        return None;
    }
    let mut wide = [sign; 16];
    wide[16 - kept.len()..].copy_from_slice(kept);
    Some(i128::from_be_bytes(wide))
}

/// Nearest decimal of a double with `scale` digits. None for what is not finite or too large.
pub(crate) fn from_f64(value: f64, scale: u32) -> Option<i128> {
    // Formatting rounds the double itself, once; multiplying it by a power of ten would round twice.
    let text = format!("{value:.*}", scale as usize);
    value.is_finite().then(|| parse(&text, scale)).flatten()
}

/// Parses `-12.50` or `1.25e3` exactly. None when it is no number, loses digits at `scale`, or exceeds 18 digits.
pub(crate) fn parse(text: &str, scale: u32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 64)?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.as_bytes().first()? {
        b'-' => (-1, &mantissa[1..]),
        b'+' => (1, &mantissa[1..]),
        _ => (1, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut unscaled = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let from_scale = i32::try_from(fraction.len()).ok()? - exponent;
    let shifted =
        if from_scale < 0 { unscaled.checked_mul(10i128.checked_pow(from_scale.unsigned_abs())?)? } else { unscaled };
    rescale(sign * shifted, u32::try_from(from_scale.max(0)).ok()?, scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(parse("12.50", 4), Some(125_000));
        assert_eq!(parse("-0.0001", 4), Some(-1));
        assert_eq!(parse("1.25e3", 4), Some(12_500_000));
        assert_eq!(parse("125e-2", 4), Some(12_500));
        assert_eq!(parse("12345678901234.5678", 4), Some(123_456_789_012_345_678));
        assert_eq!(parse("0.00001", 4), None);
        assert_eq!(parse("100000000000000", 4), None);
        assert_eq!(parse("1.000000", 4), Some(10_000));
        for text in ["", "-", ".", "1.2.3", "abc", "1e99", "0x10", "--1"] {
            assert_eq!(parse(text, 4), None, "{text}");
        }
        assert_eq!(rescale(1_250, 2, 4), Some(125_000));
        assert_eq!(rescale(1_250_000, 5, 4), Some(125_000));
        assert_eq!(rescale(1, 5, 4), None);
        assert_eq!(from_f64(0.1 + 0.2, 4), Some(3_000));
        assert_eq!(from_f64(f64::NAN, 4), None);
        assert_eq!(from_f64(1e15, 4), None);
        assert_eq!(from_be_bytes(&[]), None);
        assert_eq!(from_be_bytes(&[0xff]), Some(-1));
        assert_eq!(from_be_bytes(&[0; 20]), Some(0));
        assert_eq!(from_be_bytes(&[1; 17]), None);
    }

    proptest! {
        #[test]
        fn bytes_round_trip(value in any::<i128>(), n_extra in 0usize..4) {
            let mut bytes = vec![if value < 0 { 0xff } else { 0 }; n_extra];
            bytes.extend(value.to_be_bytes());
            prop_assert_eq!(from_be_bytes(&bytes), Some(value));
        }
    }
}
