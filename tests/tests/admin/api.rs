//! HTTP/1.1 on `admin.sock`, by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sidegate_tests::Sidegate;

/// The socket of a running instance.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    socket: PathBuf,
}

/// A status and a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn of(gate: &Sidegate) -> Self {
        Self {
            socket: gate.ready.state.join("admin.sock"),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &body.to_string())
    }

    /// Makes an entry with an id.
    pub(crate) fn create(&self, id: &str, spiffe_id: &str, selector: &str) -> Answer {
        let entry = json!({"spiffe_id": spiffe_id, "selectors": [selector]});
        self.post("/v1/entries", &json!({"id": id, "entry": entry}))
    }

    /// The status of the same, or `None` where nobody answers.
    pub(crate) fn try_create(&self, id: &str, spiffe_id: &str, selector: &str) -> Option<u16> {
        let entry = json!({"spiffe_id": spiffe_id, "selectors": [selector]});
        let body = json!({"id": id, "entry": entry}).to_string();
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        write!(
            stream,
            "POST /v1/entries HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let text = self.exchange(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let what = format!("{method} {path} {body:.80}: {text}");
        let (head, body) = text.split_once("\r\n\r\n").expect(&what);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json"), "{what}");
        Answer {
            status: status.expect(&what),
            body: serde_json::from_str(body).expect(&what),
        }
    }

    /// All that comes back for bytes that are sent as they are.
    pub(crate) fn exchange(&self, bytes: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket is there");
        // Who is turned away may be so before all is written, or read.
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("it is text")
    }
}

impl Answer {
    /// Panics unless it is an error with this status and code, in the documented form.
    pub(crate) fn is_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.body["code"], code, "{self:?}");
        let message = self.body["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{self:?}");
        let members = self.body.as_object().expect("an object").keys();
        for member in members {
            let is_known = ["code", "message", "hint"].contains(&member.as_str());
            assert!(is_known, "{self:?}");
        }
    }
}
