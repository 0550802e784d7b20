//! Floating-point numbers in the forms of Go's `strconv.FormatFloat`.

/// More digits than this after the point are zeros.
const FRACTION: usize = 1100;

/// The bits of a number after its point, all of them.
const BITS: u32 = 52;

/// A finite number by verb. Without a precision, as few digits as tell it from
/// all others.
pub(super) fn digits(number: f64, verb: char, precision: Option<usize>) -> String {
    match verb {
        'b' => with_binary_exponent(number),
        'x' | 'X' => hexadecimal(number, verb, precision),
        'e' | 'E' => exponential(number, verb, precision),
        'f' => match precision {
            None => number.to_string(),
            Some(precision) => {
                let digits = precision.min(FRACTION);
                let zeros = "0".repeat(precision.saturating_sub(digits));
                format!("{number:.digits$}{zeros}")
            }
        },
        _ => general(number, verb, precision),
    }
}

/// `%#g` and its like: always with a point and, in `g`, with all digits that
/// the precision asks for.
pub(super) fn with_point(digits: &str, form: char, precision: Option<usize>) -> String {
    let hexadecimal = matches!(form, 'x' | 'X');
    let exponent: &[char] = if hexadecimal {
        &['p', 'P']
    } else {
        &['e', 'E']
    };
    let place = digits.find(exponent).unwrap_or(digits.len());
    let (mantissa, exponent) = digits.split_at(place);
    let wanted = match form {
        'g' | 'G' | 'x' => precision.unwrap_or(6),
        _ => 0,
    };
    let zero_alone = usize::from(mantissa == "0");
    let significant = mantissa
        .chars()
        .filter(|next| *next != '.')
        .skip_while(|next| *next == '0')
        .count()
        .saturating_add(zero_alone);
    let point = if mantissa.contains('.') { "" } else { "." };
    let zeros = "0".repeat(wanted.saturating_sub(significant));
    format!("{mantissa}{point}{zeros}{exponent}")
}

/// `1.5e+00`.
fn exponential(number: f64, verb: char, precision: Option<usize>) -> String {
    let (mut mantissa, exponent) = scientific(number, precision);
    let missing = precision.unwrap_or(0).saturating_sub(FRACTION);
    mantissa.push_str(&"0".repeat(missing));
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{verb}{sign}{:02}", exponent.unsigned_abs())
}

/// With an exponent where it is small or large.
fn general(number: f64, verb: char, precision: Option<usize>) -> String {
    let wanted = precision.map(|precision| precision.max(1));
    let (mantissa, exponent) = scientific(number, wanted.map(|wanted| wanted.saturating_sub(1)));
    let most = i64::try_from(wanted.unwrap_or(6)).unwrap_or(i64::MAX);
    let exponent = i64::from(exponent);
    let significant = mantissa.chars().filter(char::is_ascii_digit).count();
    let trailing = mantissa
        .chars()
        .rev()
        .take_while(|next| matches!(next, '0' | '.'))
        .filter(char::is_ascii_digit)
        .count();
    let significant = significant.saturating_sub(trailing).max(1);
    if exponent < -4 || exponent >= most {
        let verb = if verb == 'G' { 'E' } else { 'e' };
        return exponential(number, verb, Some(significant.saturating_sub(1)));
    }
    let significant = i64::try_from(significant).unwrap_or(i64::MAX);
    let fraction = significant.saturating_sub(exponent).saturating_sub(1);
    if wanted.is_none() {
        return number.to_string();
    }
    digits(number, 'f', Some(usize::try_from(fraction).unwrap_or(0)))
}

/// Mantissa with one digit before the point, and exponent.
fn scientific(number: f64, precision: Option<usize>) -> (String, i32) {
    let text = match precision {
        None => format!("{number:e}"),
        Some(precision) => {
            let precision = precision.min(FRACTION);
            format!("{number:.precision$e}")
        }
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.to_owned(), exponent.parse().unwrap_or(0))
}

/// `4503599627370496p-52`.
fn with_binary_exponent(number: f64) -> String {
    let (significand, exponent) = parts(number);
    let exponent = exponent.saturating_sub(52);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{significand}p{sign}{}", exponent.unsigned_abs())
}

/// `0x1.8p+00`.
fn hexadecimal(number: f64, verb: char, precision: Option<usize>) -> String {
    let (mut significand, mut exponent) = parts(number);
    if significand == 0 {
        exponent = 0;
    } else {
        let shift = BITS.saturating_sub(significand.ilog2());
        significand = significand.checked_shl(shift).unwrap_or(0);
        exponent = exponent.saturating_sub(shift.cast_signed());
    }
    // Thirteen digits are all there are.
    let all = 13;
    let wanted = precision.unwrap_or(all).min(all);
    let bits = BITS.saturating_sub(u32::try_from(wanted).unwrap_or(0).saturating_mul(4));
    let unit = 1_u64.checked_shl(bits).unwrap_or(1);
    let (mut kept, rest) = (significand / unit, significand % unit);
    // To the nearest, of two to the even one.
    let half = unit / 2;
    if bits > 0 && (rest > half || (rest == half && kept % 2 == 1)) {
        kept = kept.saturating_add(1);
    }
    let one = 1_u64.checked_shl(BITS.saturating_sub(bits)).unwrap_or(1);
    if kept >= one.saturating_mul(2) {
        kept /= 2;
        exponent = exponent.saturating_add(1);
    }
    let mut fraction = format!("{:0wanted$x}", kept % one);
    if wanted == 0 {
        fraction.clear();
    }
    match precision {
        None => fraction.truncate(fraction.trim_end_matches('0').len()),
        Some(precision) => fraction.push_str(&"0".repeat(precision.saturating_sub(all))),
    }
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    let exponent = exponent.unsigned_abs();
    let text = format!("0x{}{point}{fraction}p{sign}{exponent:02}", kept / one);
    if verb == 'X' {
        text.to_ascii_uppercase()
    } else {
        text
    }
}

/// Significand and exponent: the number is the first times two to the power of
/// the second less the bits after the point.
fn parts(number: f64) -> (u64, i32) {
    let bits = number.to_bits();
    let hidden = 1_u64 << BITS;
    let fraction = bits % hidden;
    let biased = i32::try_from((bits >> BITS) % 2048).unwrap_or(0);
    match biased {
        0 => (fraction, -1022),
        biased => (fraction.saturating_add(hidden), biased.saturating_sub(1023)),
    }
}
