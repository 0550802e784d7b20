//! What a running `sidegate` tells: its logs, its metrics.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use sidegate_tests::{Sidegate, until};

/// Waits for a line of standard error that holds every one of these texts.
pub(crate) fn logged(sidegate: &Sidegate, texts: &[&str]) -> String {
    until(&format!("a log line with {texts:?}"), || {
        let stderr = sidegate.process.stderr();
        stderr
            .lines()
            .find(|line| texts.iter().all(|text| line.contains(text)))
            .map(ToOwned::to_owned)
    })
}

/// Waits for the access log's line of a request.
pub(crate) fn access_line(sidegate: &Sidegate, request_id: &str) -> Value {
    until(&format!("the access line of {request_id}"), || {
        let written = sidegate.process.stderr() + &sidegate.process.stdout();
        written
            .lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["request_id"] == request_id)
    })
}

/// The status and body of an admin page; `None` where nobody listens any more.
pub(crate) fn admin(sidegate: &Sidegate, path: &str) -> Option<(u16, String)> {
    let address = sidegate.ready.admin.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The value of a metric with exactly this name and these labels; 0 where it is not there yet.
pub(crate) fn counter(sidegate: &Sidegate, name: &str, labels: &[&str]) -> f64 {
    let (status, text) = admin(sidegate, "/metrics").expect("metrics are served");
    assert_eq!(status, 200);
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            series.split('{').next() == Some(name)
                && labels.iter().all(|label| series.contains(label))
        })
        .map(|(_, value)| value.parse::<f64>().expect("a number"))
        .sum()
}
