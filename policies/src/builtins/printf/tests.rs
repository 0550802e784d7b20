use super::*;

/// The text of a format and its operands, which are JSON.
fn check(format: &str, operands: &str, expected: &str) {
    let operands = Value::from_json_str(operands).unwrap();
    let text = sprintf(&[Value::from(format), operands.clone()]);
    assert_eq!(text, Some(expected.into()), "{format} {operands}");
}

#[test]
fn what_fits_is_formatted_as_by_go() {
    for (format, operands, expected) in [
        ("no directive", "[]", "no directive"),
        (
            "%d|%5d|%-5d|%05d|%+d|% d",
            "[1, 2, 3, -4, 5, 6]",
            "1|    2|3    |-0004|+5| 6",
        ),
        (
            "%x %X %#x %o %#o %O %b %#b",
            "[255, 255, 255, 8, 8, 8, 5, 5]",
            "ff FF 0xff 10 010 0o10 101 0b101",
        ),
        ("%.3d|%6.3d|%.0d|", "[7, 7, 0]", "007|   007||"),
        (
            "%c %q %U %#U",
            "[65, 65, 65, 8364]",
            "A 'A' U+0041 U+20AC '€'",
        ),
        (
            "%e %E %f %F %g %G %v",
            "[1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]",
            "1.500000e+00 1.500000E+00 1.500000 1.500000 1.5 1.5 1.5",
        ),
        (
            "%v %v %v %g",
            "[0.1, 1e-7, 1234567.5, 1e30]",
            "0.1 1e-07 1.2345675e+06 1e+30",
        ),
        (
            "%6.2f|%-8.1f|%08.3f|%+.1e",
            "[2.345, 2.25, -1.5, 0.5]",
            "  2.35|2.2     |-001.500|+5.0e-01",
        ),
        (
            "%.3g %.10g %#g %#.3g",
            "[1234.5, 1234.5, 1.5, 0.5]",
            "1.23e+03 1234.5 1.50000 0.500",
        ),
        (
            "%x %X %.2x %b",
            "[1.5, 0.1, 0.1, 1.5]",
            "0x1.8p+00 0X1.999999999999AP-04 0x1.9ap-04 6755399441055744p-52",
        ),
        (
            "%s|%5s|%-5s|%.2s|%q|%#q|%+q",
            r#"["a", "b", "c", "def", "g\"\n", "h", "ü"]"#,
            "a|    b|c    |de|\"g\\\"\\n\"|`h`|\"\\u00fc\"",
        ),
        (
            "%x|% x|%#x|%X|%.1x",
            r#"["hi", "hi", "hi", "hi", "hi"]"#,
            "6869|68 69|0x6869|6869|68",
        ),
        (
            "%v %v %v %s",
            r#"[null, true, [1, "a"], {"a": [1.5]}]"#,
            r#"null true [1, "a"] {"a": [1.5]}"#,
        ),
        (
            "%T %T %T %T",
            r#"[1, 1.5, "a", []]"#,
            "int64 float64 string string",
        ),
        ("%[2]d %[1]d|%[2]*[1]d", "[4, 3]", "3 4|  4"),
        ("%*d|%-*d|%.*f", "[4, 1, 3, 2, 1, 1.25]", "   1|2  |1.2"),
        (
            "%d %v %x %+v",
            "[18446744073709551615, 18446744073709551615, 18446744073709551615, 18446744073709551615]",
            "18446744073709551615 18446744073709551615 ffffffffffffffff +18446744073709551615",
        ),
        ("100%%", "[]", "100%"),
    ] {
        check(format, operands, expected);
    }
}

#[test]
fn what_does_not_fit_is_told_in_the_text() {
    for (format, operands, expected) in [
        ("%d", "[0.9]", "%!d(float64=0.9)"),
        ("%d", "[\"x\"]", "%!d(string=x)"),
        ("%d", "[null]", "%!d(string=null)"),
        ("%s %s", "[\"a\"]", "a %!s(MISSING)"),
        ("%s", "[5]", "%!s(int64=5)"),
        ("%s", "[1.5]", "%!s(float64=1.5)"),
        ("%t %t", "[true, 1]", "%!t(string=true) %!t(int64=1)"),
        ("%5.2f", "[1]", "%!f(int64=   01)"),
        ("%z", "[1]", "%!z(int64=1)"),
        ("%é", "[1]", "%!é(int64=1)"),
        ("%p %w", "[1, \"a\"]", "%!p(int64=1) %!w(string=a)"),
        (
            "%g",
            "[18446744073709551615]",
            "%!g(big.Int=18446744073709551615)",
        ),
        ("a", "[1, \"b\"]", "a%!(EXTRA int64=1, string=b)"),
        ("%", "[4]", "%!(NOVERB)%!(EXTRA int64=4)"),
        ("%.", "[4]", "%!.(int64=4)"),
        ("%*d", "[4]", "%!d(MISSING)"),
        ("%*d", "[\"a\", 4]", "%!(BADWIDTH)4"),
        ("%.*d", "[-1, 4]", "%!(BADPREC)4"),
        (
            "%[3]d|%[0]d|%[x]d|%[1d",
            "[4, 5]",
            "%!d(BADINDEX)|%!d(BADINDEX)|%!d(BADINDEX)|%!d(BADINDEX)",
        ),
        ("%[1]2d", "[4]", "%!d(BADINDEX)"),
    ] {
        check(format, operands, expected);
    }
}

#[test]
fn a_text_that_would_be_too_long_is_undefined() {
    let operands = Value::from_json_str("[1, 1, 1, 1, 1]").unwrap();
    for format in [
        "%1000001d",
        "%.99999999999999999999f",
        "%1000000d%1000000d%1000000d%1000000d%1000000d",
    ] {
        assert_eq!(
            sprintf(&[Value::from(format), operands.clone()]),
            None,
            "{format}"
        );
    }
}
