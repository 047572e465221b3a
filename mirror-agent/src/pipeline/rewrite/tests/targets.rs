//! Enters: request lines of all forms. Leaves: the bytes of the copy for every edit of path and query.

use super::assert_copies;

/// Rules and request targets, and the targets of the copies.
fn assert_targets(rows: &[(&str, &[u8], &[u8])]) {
    for (rules, target, expected) in rows {
        let head = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n"].concat();
        assert_copies(&[(rules, &head(target), &head(expected))]);
    }
}

#[test]
fn prefix_is_replaced_by_whole_elements() {
    assert_targets(&[
        // The rows of Gateway API's documentation of ReplacePrefixMatch.
        ("prefix /foo /xyz", b"/foo/bar", b"/xyz/bar"),
        ("prefix /foo /xyz/", b"/foo/bar", b"/xyz/bar"),
        ("prefix /foo/ /xyz", b"/foo/bar", b"/xyz/bar"),
        ("prefix /foo/ /xyz/", b"/foo/bar", b"/xyz/bar"),
        ("prefix /foo /xyz", b"/foo", b"/xyz"),
        ("prefix /foo /xyz", b"/foo/", b"/xyz/"),
        ("prefix /foo", b"/foo/bar", b"/bar"),
        ("prefix /foo", b"/foo/", b"/"),
        ("prefix /foo", b"/foo", b"/"),
        ("prefix /foo /", b"/foo/", b"/"),
        ("prefix /foo /", b"/foo", b"/"),
        ("prefix /foo/ /xyz", b"/foo", b"/xyz"),
        // Whole elements, byte for byte, from the front.
        ("prefix /foo /xyz", b"/food", b"/food"),
        ("prefix /foo /xyz", b"/foo;v=1/x", b"/foo;v=1/x"),
        ("prefix /foo /xyz", b"/Foo/x", b"/Foo/x"),
        ("prefix /foo /xyz", b"/f%6fo/x", b"/f%6fo/x"),
        ("prefix /foo /xyz", b"/a/foo/x", b"/a/foo/x"),
        ("prefix /foo /xyz", b"//foo/x", b"//foo/x"),
        ("prefix /foo /xyz", b"/fo", b"/fo"),
        ("prefix /foo /xyz", b"/", b"/"),
        ("prefix /foo /xyz", b"/foo//x/../y", b"/xyz//x/../y"),
        ("prefix /f%6Fo /x%20y", b"/f%6Fo/%ff+\xff", b"/x%20y/%ff+\xff"),
        ("prefix /caf\u{e9} /cafe", b"/caf\xc3\xa9/x", b"/cafe/x"),
        ("prefix /a/b /c", b"/a/b/c", b"/c/c"),
        // Once, and the longest that fits.
        ("prefix /a /b; prefix /b /c", b"/a/x", b"/b/x"),
        ("prefix /a /b; prefix /a/b /c; prefix / /z", b"/a/b/x", b"/c/x"),
        ("prefix /a /b; prefix /a/b /c; prefix / /z", b"/a/bx", b"/b/bx"),
        ("prefix /a /b; prefix /a/b /c; prefix / /z", b"/ab", b"/z/ab"),
        // The root is a prefix of all.
        ("prefix / /v2", b"/", b"/v2/"),
        ("prefix / /v2", b"/x?y", b"/v2/x?y"),
        ("prefix / /", b"/x", b"/x"),
        // Query and fragment stay; nothing in them is a path.
        ("prefix /foo /xyz", b"/foo?/foo/x", b"/xyz?/foo/x"),
        ("prefix /foo /xyz", b"/foo?", b"/xyz?"),
        ("prefix /foo", b"/foo?a", b"/?a"),
        ("prefix /foo /xyz", b"/foo#x?y", b"/xyz#x?y"),
        ("prefix /foo /xyz", b"/x?/foo/x", b"/x?/foo/x"),
        // Absolute form; an empty path is the root.
        ("prefix /foo /xyz", b"http://h:1/foo/x?y", b"http://h:1/xyz/x?y"),
        ("prefix /foo /xyz", b"http://foo/foo", b"http://foo/xyz"),
        ("prefix / /v2", b"http://h", b"http://h/v2"),
        ("prefix / /v2", b"http://h?x=/", b"http://h/v2?x=/"),
        ("prefix / /", b"http://h?x", b"http://h/?x"),
        ("prefix /foo /xyz", b"a+b-c.1://h/foo", b"a+b-c.1://h/xyz"),
        // Targets without a path.
        ("prefix / /v2", b"*", b"*"),
        ("prefix / /v2", b"h:1", b"h:1"),
        ("prefix / /v2", b"foo/bar", b"foo/bar"),
        ("prefix / /v2", b"1a://h/x", b"1a://h/x"),
        ("prefix / /v2", b"://h/x", b"://h/x"),
    ]);
}

#[test]
fn parameters_are_removed_and_set_and_others_kept_as_they_are() {
    assert_targets(&[
        // Removed.
        ("-query debug", b"/x?debug=1", b"/x"),
        ("-query debug", b"/x?debug", b"/x"),
        ("-query debug", b"/x?debug=", b"/x"),
        ("-query debug", b"/x?a=1&debug=1&b=2", b"/x?a=1&b=2"),
        ("-query debug", b"/x?debug=1&a=1", b"/x?a=1"),
        ("-query debug", b"/x?a=1&debug=1", b"/x?a=1"),
        ("-query debug", b"/x?debug&debug=2&debug=3", b"/x"),
        ("-query a; -query b", b"/x?a&c&b", b"/x?c"),
        // A name is the whole name, as a server reads it.
        ("-query debug", b"/x?debugs=1&xdebug=2&a=debug&Debug", b"/x?debugs=1&xdebug=2&a=debug&Debug"),
        ("-query debug", b"/x?%64e%62ug=1&a", b"/x?a"),
        ("-query a+b", b"/x?a%2Bb=1&a+b=2", b"/x?a+b=2"),
        ("-query a%20b", b"/x?a%20b=1&a%2520b=2", b"/x?a%20b=1"),
        ("-query %zz", b"/x?%zz=1&%z=2&%=3", b"/x?%z=2&%=3"),
        ("-query \u{e9}", b"/x?%C3%A9=1&\xc3\xa9=2&\xe9=3", b"/x?\xe9=3"),
        ("-query a", b"/x?=a&==&=", b"/x?=a&==&="),
        // Nothing to remove: to the byte, also what is empty.
        ("-query debug", b"/x?", b"/x?"),
        ("-query debug", b"/x?&&", b"/x?&&"),
        (
            "-query debug",
            b"/x?a=%zz&b=%2f+%2F&&c==&\xff;d#f?debug",
            b"/x?a=%zz&b=%2f+%2F&&c==&\xff;d#f?debug",
        ),
        ("-query debug", b"/debug", b"/debug"),
        ("-query debug", b"/x?&debug&", b"/x?&"),
        ("-query debug", b"/x?debug&", b"/x"),
        ("-query debug", b"/x?debug#f", b"/x#f"),
        ("-query debug", b"/x?a?debug=1&debug", b"/x?a?debug=1"),
        // Set: the first in its place, the others gone, or at the end.
        ("+query v 2", b"/x", b"/x?v=2"),
        ("+query v 2", b"/x?", b"/x?v=2"),
        ("+query v 2", b"/x?a", b"/x?a&v=2"),
        ("+query v 2", b"/x?v=1", b"/x?v=2"),
        ("+query v 2", b"/x?v", b"/x?v=2"),
        ("+query v 2", b"/x?a&v=1&b&v=3&c", b"/x?a&v=2&b&c"),
        ("+query v 2", b"/x?%76=1", b"/x?v=2"),
        ("+query v 2", b"/x#f", b"/x?v=2#f"),
        ("+query v", b"/x?v=1", b"/x?v="),
        ("+query b 1; +query a 2", b"/x?a&c", b"/x?a=2&c&b=1"),
        ("-query a; +query b 1", b"/x?a", b"/x?b=1"),
        ("-query a; +query a 1", b"/x?a=0&c", b"/x?c&a=1"),
        // What could be read otherwise is percent-encoded.
        ("+query a&b c=d&e+f;g#h i%20", b"/x", b"/x?a%26b=c%3Dd%26e%2Bf%3Bg%23h%20i%2520"),
        ("+query v \r\nx: y\0", b"/x", b"/x?v=%0D%0Ax:%20y%00"),
        ("+query \u{e9} \u{20ac}", b"/x", b"/x?%C3%A9=%E2%82%AC"),
        ("+query v -._~!$'()*,:@/?", b"/x", b"/x?v=-._~!$'()*,:@/?"),
        ("+query v \"<>\\^`{|}\u{7f}", b"/x", b"/x?v=%22%3C%3E%5C%5E%60%7B%7C%7D%7F"),
        // Absolute form, and targets without a query.
        ("+query v 2", b"http://h", b"http://h?v=2"),
        ("-query v", b"http://h/x?v&w", b"http://h/x?w"),
        ("+query v 2", b"*", b"*"),
        ("+query v 2", b"h:1", b"h:1"),
        // Path, query and host at once.
        ("prefix /a /b; -query d; +query v 2", b"/a/x?d=1&e", b"/b/x?e&v=2"),
    ]);
    assert_copies(&[(
        "host h; prefix /a /b; +query v 2",
        b"GET http://a/a?x HTTP/1.1\r\nHost: a\r\n",
        b"GET http://h/b?x&v=2 HTTP/1.1\r\nHost: h\r\n",
    )]);
}

#[test]
fn odd_request_lines_are_read_as_well_as_they_can_be() {
    let rules = "prefix /a /b; +query v 2";
    for (line, expected) in [
        (&b"GET /a HTTP/1.1\n"[..], &b"GET /b?v=2 HTTP/1.1\n"[..]),
        (b"GET  /a  HTTP/1.1\r\n", b"GET  /b?v=2  HTTP/1.1\r\n"),
        (b" GET\t/a\tHTTP/1.1 \r\n", b" GET\t/b?v=2\tHTTP/1.1 \r\n"),
        (b"GET /a b HTTP/1.1\r\n", b"GET /a b?v=2 HTTP/1.1\r\n"),
        (b"GET /a/\xff HTTP/1.0\r\n", b"GET /b/\xff?v=2 HTTP/1.0\r\n"),
        // No request line.
        (b"GET /a\r\n", b"GET /a\r\n"),
        (b"GET\r\n", b"GET\r\n"),
        (b"\r\n", b"\r\n"),
        (b"  \r\n", b"  \r\n"),
    ] {
        assert_copies(&[(rules, line, expected)]);
    }
}
