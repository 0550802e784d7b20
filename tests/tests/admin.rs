//! The admin API on `admin.sock`: who may ask, and what is answered.

mod api;
mod clients;
mod gated;
mod users;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sidegate_tests::{Sidegate, until};

pub(crate) use api::Api;

use crate::support::{
    self, Operator, folder, identity_only, own_entry, own_uid, phases, spiffe_id,
};

#[test]
fn the_routes_answer_as_they_are_documented() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    let made = api.create("one", &spiffe_id("/one"), "unix:uid:1");
    assert_eq!(made.status, 201, "{made:?}");
    let shown = api.get("/v1/entries/one");
    assert_eq!((shown.status, &shown.body), (200, &made.body));
    let list = api.get("/v1/entries");
    assert_eq!(list.status, 200);
    assert_eq!(list.body["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(list.body["entries"][1], made.body);
    let removed = api.delete("/v1/entries/one");
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(removed.body["removed"], made.body);

    for kind in ["x509", "jwt"] {
        let path = |action: &str| format!("/v1/authorities/{kind}/{action}");
        let first = api.get("/v1/authorities");
        assert_eq!(first.status, 200);
        let first = phases(&first.body, kind).remove(0).1;
        let prepared = api.post(&path("rotate"), &json!({"prepare_only": true}));
        assert_eq!(prepared.status, 200, "{prepared:?}");
        let prepared = phases(&prepared.body, kind);
        assert_eq!(prepared[0], ("active".to_owned(), first.clone()));
        assert_eq!(prepared[1].0, "prepared");
        let rotated = api.post(&path("rotate"), &json!({"prepare_only": false}));
        assert_eq!(rotated.status, 200, "{rotated:?}");
        let rotated = phases(&rotated.body, kind);
        assert_eq!(rotated[0], ("old".to_owned(), first.clone()));
        assert_eq!(rotated[1], ("active".to_owned(), prepared[1].1.clone()));
        for action in ["taint", "revoke"] {
            let done = api.post(&path(action), &json!({ "id": first }));
            assert_eq!(done.status, 200, "{done:?}");
            assert_eq!(done.body, json!({ "id": first }));
        }
    }
}

#[test]
fn what_is_refused_says_why_with_a_status_and_a_code() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    api.create("one", &spiffe_id("/one"), "unix:uid:1");
    let before = everything(&api);

    for method in ["GET", "DELETE"] {
        api.ask(method, "/v1/entries/none", "")
            .is_error(404, "SG0115");
    }
    api.delete("/v1/entries/configuration-1")
        .is_error(409, "SG0116");
    api.create("one", &spiffe_id("/two"), "unix:uid:1")
        .is_error(409, "SG0117");
    api.create("two", &spiffe_id("/one"), "unix:uid:1")
        .is_error(409, "SG0112");
    api.create("two", "spiffe://elsewhere/two", "unix:uid:1")
        .is_error(400, "SG0102");
    for action in ["taint", "revoke"] {
        for kind in ["x509", "jwt"] {
            let path = format!("/v1/authorities/{kind}/{action}");
            api.post(&path, &json!({})).is_error(409, "SG0142");
            api.post(&path, &json!({"id": "none"}))
                .is_error(404, "SG0142");
        }
    }
    let nowhere = [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/entries"),
        ("GET", "/livez"),
        ("GET", "/metrics"),
        ("PUT", "/v1/entries"),
        ("DELETE", "/v1/entries"),
        ("POST", "/v1/entries/one"),
        ("GET", "/v1/entries/one/more"),
        ("POST", "/v1/authorities"),
        ("GET", "/v1/authorities/x509/rotate"),
        ("POST", "/v1/authorities/other/rotate"),
        ("POST", "/v1/authorities/x509/other"),
    ];
    for (method, path) in nowhere {
        api.ask(method, path, "{}").is_error(404, "SG0047");
    }
    assert_eq!(everything(&api), before, "nothing has changed");
}

#[test]
fn a_body_that_is_not_wholly_understood_changes_nothing() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    let before = everything(&api);
    let entry = json!({"spiffe_id": spiffe_id("/new"), "selectors": ["unix:uid:1"]});
    let with = |key: &str, value: Value| {
        let mut entry = entry.clone();
        entry[key] = value;
        json!({ "entry": entry }).to_string()
    };
    let whole = json!({ "entry": entry }).to_string();
    let entries = [
        String::new(),
        "{}".to_owned(),
        "null".to_owned(),
        "words".to_owned(),
        whole[..whole.len() - 1].to_owned(),
        format!("{whole}{whole}"),
        format!("{whole} words"),
        whole.replacen('{', "{\"entry\":null,", 1),
        json!({"entry": entry, "unknown": 1}).to_string(),
        json!({"entry": entry, "id": 1}).to_string(),
        json!({"entry": "one"}).to_string(),
        with("unknown", json!(1)),
        with("spiffe_id", json!(1)),
        with("selectors", json!("unix:uid:1")),
        with("selectors", json!([1])),
        with("x509_svid_ttl", json!("10s")),
        with("x509_svid_ttl", json!(10.5)),
        with("jwt_svid_ttl", json!(-10)),
        with("dns_names", json!("one")),
        with("hint", json!(["one"])),
        // Far beyond any entry.
        with("hint", json!("x".repeat(10_000_000))),
    ];
    for body in entries {
        api.ask("POST", "/v1/entries", &body)
            .is_error(400, "SG0047");
    }
    let others = [
        ("rotate", "{\"unknown\":true}"),
        ("rotate", "{\"prepare_only\":\"yes\"}"),
        ("rotate", "{\"prepare_only\":true"),
        ("rotate", "{\"id\":\"one\"}"),
        ("taint", "{\"unknown\":\"one\"}"),
        ("taint", "{\"id\":1}"),
        ("revoke", "{\"prepare_only\":true}"),
    ];
    for (action, body) in others {
        for kind in ["x509", "jwt"] {
            let path = format!("/v1/authorities/{kind}/{action}");
            api.ask("POST", &path, body).is_error(400, "SG0047");
        }
    }
    assert_eq!(everything(&api), before, "nothing has changed");
}

#[test]
fn a_list_in_the_place_of_an_object_is_refused() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    let before = everything(&api);
    let entry = json!({"spiffe_id": spiffe_id("/new"), "selectors": ["unix:uid:1"]});
    let listed = json!([spiffe_id("/new"), ["unix:uid:1"]]);
    for body in [json!(["new", entry]), json!({ "entry": listed })] {
        api.post("/v1/entries", &body).is_error(400, "SG0047");
    }
    api.post("/v1/authorities/x509/rotate", &json!([true]))
        .is_error(400, "SG0047");
    assert_eq!(everything(&api), before, "nothing has changed");
}

#[test]
fn a_query_that_is_not_known_is_refused() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    for query in ["?unknown=1", "?spiffe_id=spiffe://sidegate.local/none"] {
        let answer = api.get(&format!("/v1/entries{query}"));
        let is_filtered = answer.body["entries"] == json!([]);
        assert!(answer.status == 400 || is_filtered, "{query}: {answer:?}");
    }
}

#[test]
fn a_rotation_is_finished_though_its_client_has_left_and_the_log_says_who_it_was() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    let phases = || -> Vec<String> {
        let all = phases(&api.get("/v1/authorities").body, "x509");
        all.into_iter().map(|(phase, _)| phase).collect()
    };
    let mut stream = UnixStream::connect(api.socket()).expect("it is there");
    let rotate = b"POST /v1/authorities/x509/rotate HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(rotate).expect("it is sent");
    until("the successor is published", || {
        (phases() == ["active", "prepared"]).then_some(())
    });
    drop(stream);
    until("the successor signs", || {
        (phases() == ["old", "active"]).then_some(())
    });
    let caller = format!("pid={}", std::process::id());
    support::logged(&gate, &["an authority is rotated", "uid=", &caller]);
}

#[test]
fn who_says_nothing_or_leaves_in_between_keeps_nobody_waiting() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    let silent: Vec<_> = [
        "",
        "POST /v1/entries HTTP/1.1\r\ncontent-length: 100\r\n\r\n{",
    ]
    .into_iter()
    .cycle()
    .take(64)
    .map(|beginning| {
        let mut stream = UnixStream::connect(api.socket()).expect("it is there");
        stream.write_all(beginning.as_bytes()).expect("it is sent");
        stream
    })
    .collect();
    assert_eq!(api.get("/v1/entries").status, 200);
    let made = api.create("one", &spiffe_id("/one"), &own_uid());
    assert_eq!(made.status, 201);
    drop(silent);
    for nonsense in [
        "words\r\n\r\n",
        "\0\0\0\0",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = api.exchange(nonsense);
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        assert!(is_refused, "{nonsense:?}: {answer}");
    }
    assert_eq!(api.get("/v1/entries/one").status, 200);
}

#[test]
fn over_tcp_there_is_nothing_below_v1() {
    let folder = folder();
    let gate = start(folder.path());
    let api = Api::of(&gate);
    api.create("one", &spiffe_id("/one"), "unix:uid:1");
    let before = everything(&api);
    let paths = [
        "/v1",
        "/v1/",
        "/v1/entries",
        "/v1/entries/one",
        "/v1/authorities",
        "/v1/authorities/x509/rotate",
        "//v1/entries",
        "/%761/entries",
    ];
    let entry = json!({"entry": {
        "spiffe_id": spiffe_id("/new"),
        "selectors": ["unix:uid:1"],
    }});
    for path in paths {
        for method in ["GET", "POST", "DELETE", "PUT", "HEAD"] {
            let (status, body) = users::tcp(&gate, method, path, &entry.to_string());
            let is_nothing = [404, 405].contains(&status);
            assert!(is_nothing, "{method} {path}: {status} {body}");
            assert!(!body.contains("spiffe://"), "{method} {path}: {body}");
            assert!(!body.contains("active"), "{method} {path}: {body}");
        }
    }
    assert_eq!(everything(&api), before, "nothing has changed");
    let (status, _) = support::admin(&gate, "/livez").expect("it answers");
    assert_eq!(status, 200);
}

#[test]
fn the_socket_and_its_directory_are_for_the_owner_and_the_socket_goes_with_the_process() {
    let folder = folder();
    let gate = start(folder.path());
    let socket = gate.ready.state.join("admin.sock");
    let mode = |path: &std::path::Path| {
        let metadata = fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&gate.ready.state), 0o700);
    assert_eq!(mode(&socket), 0o600);
    let operator = Operator::of(&gate);
    gate.stop();
    assert!(!socket.exists());
    for arguments in [
        &["entry", "list"][..],
        &["entry", "delete", "one"],
        &["authorities"],
        &["rotate", "x509"],
        &["taint", "jwt"],
    ] {
        operator.is_refused(arguments, "SG0054");
    }

    // A socket that a killed process has left is no obstacle.
    let gate = start(folder.path());
    gate.process.signal(nix::sys::signal::Signal::SIGKILL);
    gate.process.wait();
    assert!(socket.exists());
    operator.is_refused(&["entry", "list"], "SG0054");
    let gate = start(folder.path());
    assert_eq!(mode(&socket), 0o600);
    until("it answers", || {
        (Api::of(&gate).get("/v1/entries").status == 200).then_some(())
    });
}

fn start(folder: &std::path::Path) -> Sidegate {
    Sidegate::run(&identity_only(folder, &own_entry("/base")))
}

/// All that the API shows.
fn everything(api: &Api) -> [Value; 2] {
    ["/v1/entries", "/v1/authorities"].map(|path| api.get(path).body)
}
