//! Golden documents: what a policy sees of a connection and a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Version};
use regorus::Value;
use serde_json::json;

use super::{
    ConnectionFacts, ConnectionParameters, InputError, InputKeys, ReadSet, RequestBody,
    RequestFacts,
};
use crate::test_schemas::schema;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn mutual_connection() -> ConnectionParameters {
    ConnectionParameters {
        downstream_address: address("192.0.2.7:40001"),
        local_address: address("[2001:db8::1]:8443"),
        source_principal: Some("spiffe://sidegate.local/frontend".into()),
        source_certificate: Some("-----BEGIN%20CERTIFICATE-----%0A".into()),
        destination_principal: Some("spiffe://sidegate.local/orders".into()),
        server_name: Some("orders.example".into()),
        listener: "public".into(),
        context_extensions: BTreeMap::new(),
    }
}

fn plain_connection() -> ConnectionParameters {
    ConnectionParameters {
        downstream_address: address("[::ffff:192.0.2.7]:40001"),
        local_address: address("127.0.0.1:80"),
        source_principal: None,
        source_certificate: None,
        destination_principal: None,
        server_name: None,
        listener: String::new(),
        context_extensions: BTreeMap::new(),
    }
}

fn request(builder: http::request::Builder) -> RequestFacts {
    let (head, ()) = builder.body(()).unwrap().into_parts();
    RequestFacts {
        head,
        scheme: "https".into(),
        host: "orders.example".into(),
        request_id: "4b3a".into(),
        time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        declared_body_bytes: None,
        body: RequestBody::default(),
    }
}

fn document(
    connection: &ConnectionParameters,
    request: &RequestFacts,
) -> Result<Value, InputError> {
    super::check(request)?;
    let (keys, connection) = (InputKeys::new(), ConnectionFacts::new(connection.clone()));
    Ok(keys.document(&ReadSet::everything(), &connection, request))
}

#[track_caller]
fn check(connection: &ConnectionParameters, request: &RequestFacts, expected: &str) {
    let document = document(connection, request)
        .unwrap()
        .to_json_str()
        .unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    assert_eq!(document, expected, "{document:#}");
    check_schemas(document);
}

/// The document is the one of the schema of `ingress`; and without what belongs
/// to a request, that of `connect`.
#[track_caller]
fn check_schemas(mut document: serde_json::Value) {
    schema("ingress.input").check(&document);
    let attributes = document["attributes"].as_object_mut().unwrap();
    attributes.remove("request").unwrap();
    let members = document.as_object_mut().unwrap();
    for name in [
        "parsed_path",
        "parsed_query",
        "parsed_body",
        "truncated_body",
    ] {
        members.remove(name).unwrap();
    }
    schema("connect.input").check(&document);
}

#[test]
fn a_request_over_mutual_tls_has_the_whole_document() {
    let builder = Request::post("/orders/7?item=a&item=b+c&empty")
        .version(Version::HTTP_2)
        .header("Host", "ignored.example")
        .header("Accept", "text/plain")
        .header("X-Multi", "one")
        .header("X-Multi", "two, three")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header(
            "X-Name",
            HeaderValue::from_bytes("Jürgen".as_bytes()).unwrap(),
        );
    let facts = RequestFacts {
        declared_body_bytes: Some(12),
        ..request(builder)
    };
    check(
        &mutual_connection(),
        &facts,
        r#"{
          "attributes": {
            "contextExtensions": {"listener": "public"},
            "destination": {
              "address": {"socketAddress": {"address": "2001:db8::1", "portValue": 8443}},
              "principal": "spiffe://sidegate.local/orders"
            },
            "metadataContext": {},
            "request": {
              "http": {
                "headers": {
                  ":authority": "orders.example",
                  ":method": "POST",
                  ":path": "/orders/7?item=a&item=b+c&empty",
                  ":scheme": "https",
                  "accept": "text/plain",
                  "cookie": "a=1; b=2",
                  "x-multi": "one,two, three",
                  "x-name": "Jürgen"
                },
                "host": "orders.example",
                "id": "4b3a",
                "method": "POST",
                "path": "/orders/7?item=a&item=b+c&empty",
                "protocol": "HTTP/2",
                "scheme": "https",
                "size": 12
              },
              "time": {"nanos": 5, "seconds": 1700000000}
            },
            "routeMetadataContext": {},
            "source": {
              "address": {"socketAddress": {"address": "192.0.2.7", "portValue": 40001}},
              "certificate": "-----BEGIN%20CERTIFICATE-----%0A",
              "principal": "spiffe://sidegate.local/frontend"
            },
            "tlsSession": {"sni": "orders.example"}
          },
          "parsed_body": null,
          "parsed_path": ["orders", "7"],
          "parsed_query": {"empty": [""], "item": ["a", "b c"]},
          "source_principal": "spiffe://sidegate.local/frontend",
          "truncated_body": false,
          "version": {"encoding": "protojson", "ext_authz": "v3"}
        }"#,
    );
}

#[test]
fn what_is_not_set_is_not_in_the_document() {
    let facts = RequestFacts {
        scheme: "".into(),
        host: String::new(),
        request_id: String::new(),
        time: SystemTime::UNIX_EPOCH,
        declared_body_bytes: Some(0),
        ..request(Request::connect("orders.example:443"))
    };
    check(
        &plain_connection(),
        &facts,
        r#"{
          "attributes": {
            "destination": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 80}}},
            "metadataContext": {},
            "request": {
              "http": {
                "headers": {":method": "CONNECT"},
                "method": "CONNECT",
                "protocol": "HTTP/1.1"
              },
              "time": {}
            },
            "routeMetadataContext": {},
            "source": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 40001}}}
          },
          "parsed_body": null,
          "parsed_path": [""],
          "parsed_query": {},
          "truncated_body": false,
          "version": {"encoding": "protojson", "ext_authz": "v3"}
        }"#,
    );
}

#[test]
fn single_fields_are_as_opa_envoy_has_them() {
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_millis(1_500);
    let get = |path: &str| request(Request::get(path));
    let cases: &[(&str, RequestFacts, &str, &str)] = &[
        (
            "an unknown size is -1",
            get("/"),
            "/attributes/request/http/size",
            "-1",
        ),
        (
            "a size that no int64 holds is unknown",
            RequestFacts {
                declared_body_bytes: Some(u64::MAX),
                ..get("/")
            },
            "/attributes/request/http/size",
            "-1",
        ),
        (
            "the root has one empty segment",
            get("/"),
            "/parsed_path",
            r#"[""]"#,
        ),
        (
            "leading slashes are one",
            get("//a"),
            "/parsed_path",
            r#"["a"]"#,
        ),
        (
            "an escaped slash separates",
            get("/a%2Fb"),
            "/parsed_path",
            r#"["a","b"]"#,
        ),
        (
            "the path itself stays escaped",
            get("/a%2Fb"),
            "/attributes/request/http/path",
            r#""/a%2Fb""#,
        ),
        (
            "plus is a space in queries only",
            get("/a+b?c+d=e+f"),
            "/parsed_query",
            r#"{"c d":["e f"]}"#,
        ),
        (
            "plus is itself in paths",
            get("/a+b?c+d=e+f"),
            "/parsed_path",
            r#"["a+b"]"#,
        ),
        ("a query may be empty", get("/?"), "/parsed_query", "{}"),
        (
            "an asterisk is a path",
            request(Request::options("*")),
            "/parsed_path",
            r#"["*"]"#,
        ),
        (
            "HTTP/1.0 has its name",
            request(Request::get("/").version(Version::HTTP_10)),
            "/attributes/request/http/protocol",
            r#""HTTP/1.0""#,
        ),
        (
            "time before 1970 counts nanoseconds up",
            RequestFacts {
                time: before_1970,
                ..get("/")
            },
            "/attributes/request/time",
            r#"{"nanos":500000000,"seconds":-2}"#,
        ),
        (
            "an absolute target shows its path",
            get("http://other.example/a?b=c"),
            "/attributes/request/http/path",
            r#""/a?b=c""#,
        ),
    ];
    for (name, facts, pointer, expected) in cases {
        let document = document(&mutual_connection(), facts)
            .unwrap()
            .to_json_str()
            .unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(
            document
                .pointer(pointer)
                .map(ToString::to_string)
                .as_deref(),
            Some(*expected),
            "{name}"
        );
    }
}

#[test]
fn what_a_policy_could_not_see_as_it_is_forwarded_is_refused() {
    let latin_1 = HeaderValue::from_bytes(b"J\xfcrgen").unwrap();
    let cases: Vec<(&str, http::request::Builder, InputError)> = vec![
        (
            "an escape that is none in the path",
            Request::get("/a%2"),
            InputError::Path,
        ),
        (
            "a path that is not UTF-8",
            Request::get("/%ff"),
            InputError::Path,
        ),
        (
            "a semicolon in the query",
            Request::get("/?a=1;b=2"),
            InputError::Query,
        ),
        (
            "an escape that is none in the query",
            Request::get("/?a=%zz"),
            InputError::Query,
        ),
        (
            "a header that is not UTF-8",
            Request::get("/").header("x-name", latin_1),
            InputError::HeaderValue {
                name: "x-name".parse().unwrap(),
            },
        ),
    ];
    for (name, builder, expected) in cases {
        assert_eq!(
            document(&mutual_connection(), &request(builder)),
            Err(expected),
            "{name}"
        );
    }
}

#[test]
fn a_body_that_was_read_is_in_the_document_as_envoy_sends_it() {
    let read = |bytes: &'static [u8], is_partial, pack_as_bytes| RequestFacts {
        declared_body_bytes: Some(9),
        body: RequestBody {
            bytes: Bytes::from_static(bytes),
            is_partial,
            pack_as_bytes,
        },
        ..request(Request::post("/"))
    };
    let cases = [
        (read(b"", false, false), json!([null, null, null, 9])),
        (
            read(b"a\xffb", false, false),
            json!(["a!b", null, "false", 3]),
        ),
        (read(b"abc", true, false), json!(["abc", null, "true", 9])),
        (
            read(b"a\xffb", true, true),
            json!([null, "Yf9i", "true", 9]),
        ),
    ];
    for (facts, expected) in cases {
        let document = document(&plain_connection(), &facts).unwrap();
        let document = serde_json::to_value(document).unwrap();
        check_schemas(document.clone());
        let http = &document["attributes"]["request"]["http"];
        let partial = &http["headers"]["x-envoy-auth-partial-body"];
        let found = json!([http["body"], http["rawBody"], partial, http["size"]]);
        assert_eq!(found, expected);
        let truncated = facts.body.is_partial;
        assert_eq!(document["truncated_body"], json!(truncated));
    }
}

#[test]
fn context_extensions_are_beside_the_listeners_name() {
    let extensions = [("tier", "gold"), ("zone", "")];
    let connection = ConnectionParameters {
        context_extensions: extensions
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..mutual_connection()
    };
    let document = document(&connection, &request(Request::get("/"))).unwrap();
    let document = serde_json::to_value(document).unwrap();
    assert_eq!(
        document["attributes"]["contextExtensions"],
        json!({"listener": "public", "tier": "gold", "zone": ""})
    );
}
