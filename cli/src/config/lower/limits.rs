//! `[listener.limits]` and `[listener.http2]`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::super::codes;
use super::super::diagnostic::Diagnostic;
use super::super::key::Key;
use super::super::model::{Http2Limits, Limits, RequestRate};
use super::super::raw::{RawHttp2, RawLimits};
use super::super::values;
use super::Lowering;
use crate::table::Table;

const CONNECTIONS: RangeInclusive<i64> = 1..=1_000_000;
const REQUESTS: RangeInclusive<i64> = 1..=1_000_000;
const HEADERS: RangeInclusive<i64> = 1..=10_000;
/// What hyper can hold of an HTTP/1.1 head, with room for the target.
const HEADER_BYTES: RangeInclusive<u64> = 1 << 10..=256 << 10;
/// hyper takes targets up to 65,534 bytes.
const URI_BYTES: RangeInclusive<u64> = 1..=32 << 10;
const STREAMS: RangeInclusive<i64> = 1..=100_000;
const FRAMES: RangeInclusive<i64> = 1..=100_000;
const CONTINUATIONS: RangeInclusive<i64> = 0..=1000;

impl Lowering<'_> {
    pub(super) fn limits(
        &mut self,
        listener: &Key,
        raw: Option<Table<RawLimits>>,
        http2: Option<Table<RawHttp2>>,
    ) -> Limits {
        let at = listener.child("limits");
        let Table(raw) = raw.unwrap_or_default();
        let Table(http2) = http2.unwrap_or_default();
        let http2 = self.http2_limits(&listener.child("http2"), http2);
        let rate = self.request_rate(&at, raw.requests_per_second, raw.request_burst);
        let default = Limits::default();
        let mut count = |value, name, range, default| {
            self.optional(value, at.child(name), values::integer(range))
                .unwrap_or(default)
        };
        let max_connections = count(
            raw.max_connections,
            "max_connections",
            CONNECTIONS,
            default.max_connections,
        );
        let max_connections_per_identity = count(
            raw.max_connections_per_identity,
            "max_connections_per_identity",
            CONNECTIONS,
            default.max_connections_per_identity,
        );
        let max_handshakes = count(
            raw.max_handshakes,
            "max_handshakes",
            CONNECTIONS,
            default.max_handshakes,
        );
        let max_headers = count(raw.max_headers, "max_headers", HEADERS, default.max_headers);
        let max_header_bytes = self.optional(
            raw.max_header_bytes,
            at.child("max_header_bytes"),
            values::size(HEADER_BYTES),
        );
        let max_uri_bytes = self.optional(
            raw.max_uri_bytes,
            at.child("max_uri_bytes"),
            values::size(URI_BYTES),
        );
        Limits {
            max_connections,
            max_connections_per_identity,
            max_handshakes,
            rate,
            max_headers,
            max_header_bytes: max_header_bytes.map_or(default.max_header_bytes, |bytes| {
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
            max_uri_bytes: max_uri_bytes.map_or(default.max_uri_bytes, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
            http2,
        }
    }

    /// A burst is what comes in a second, unless it is said otherwise.
    fn request_rate(
        &mut self,
        at: &Key,
        per_second: Option<i64>,
        burst: Option<i64>,
    ) -> Option<RequestRate> {
        let rate_key = at.child("requests_per_second");
        let burst_key = at.child("request_burst");
        if burst.is_some() && per_second.is_none() && !self.is_faulty(&rate_key) {
            let problem = Diagnostic::new(
                codes::NO_EFFECT,
                "a burst without a rate",
                self.keys().value(&burst_key),
            )
            .label("has no effect without `requests_per_second`")
            .help("add `requests_per_second`, or remove this");
            self.report(problem);
        }
        let range = || values::non_zero(REQUESTS);
        let per_second = self.optional(per_second, rate_key, range());
        let burst = self.optional(burst, burst_key, range());
        per_second.map(|per_second| RequestRate {
            per_second,
            burst: burst.unwrap_or(per_second),
        })
    }

    fn http2_limits(&mut self, at: &Key, raw: RawHttp2) -> Http2Limits {
        let default = Http2Limits::default();
        let streams = self.optional(
            raw.max_concurrent_streams,
            at.child("max_concurrent_streams"),
            values::integer(STREAMS),
        );
        let continuations = self.optional(
            raw.max_continuations,
            at.child("max_continuations"),
            values::integer(CONTINUATIONS),
        );
        let narrow = |value: Option<usize>| value.and_then(|value| u32::try_from(value).ok());
        let mut frames = |value, name, default: NonZeroU32| {
            self.optional(value, at.child(name), values::non_zero(FRAMES))
                .unwrap_or(default)
        };
        Http2Limits {
            max_concurrent_streams: narrow(streams).unwrap_or(default.max_concurrent_streams),
            max_resets: frames(raw.max_resets, "max_resets", default.max_resets),
            max_local_resets: frames(
                raw.max_local_resets,
                "max_local_resets",
                default.max_local_resets,
            ),
            max_pings: frames(raw.max_pings, "max_pings", default.max_pings),
            max_settings: frames(raw.max_settings, "max_settings", default.max_settings),
            max_empty_data: frames(raw.max_empty_data, "max_empty_data", default.max_empty_data),
            max_window_updates: frames(
                raw.max_window_updates,
                "max_window_updates",
                default.max_window_updates,
            ),
            max_ignored: frames(raw.max_ignored, "max_ignored", default.max_ignored),
            max_continuations: narrow(continuations).unwrap_or(default.max_continuations),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, parse};

    fn limits(sections: &str) -> Limits {
        let text = format!(
            r#"
[identity]
trust_domain = "sidegate.local"
state = "state"
[workload_api]
socket = "/run/sidegate/workload.sock"
[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9000"
{sections}
"#
        );
        let (Config { listeners, .. }, _) = parse(Path::new("sidegate.toml"), &text).unwrap();
        listeners.first().unwrap().limits
    }

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let default = limits("");
        assert_eq!(default, Limits::default());
        let documentation = include_str!("../../../../docs/configuration.md");
        for (key, value) in [
            ("max_connections", default.max_connections.to_string()),
            (
                "max_connections_per_identity",
                default.max_connections_per_identity.to_string(),
            ),
            ("max_handshakes", default.max_handshakes.to_string()),
            ("max_headers", default.max_headers.to_string()),
            (
                "max_concurrent_streams",
                default.http2.max_concurrent_streams.to_string(),
            ),
            ("max_resets", default.http2.max_resets.to_string()),
            (
                "max_local_resets",
                default.http2.max_local_resets.to_string(),
            ),
            ("max_pings", default.http2.max_pings.to_string()),
            ("max_settings", default.http2.max_settings.to_string()),
            ("max_empty_data", default.http2.max_empty_data.to_string()),
            (
                "max_window_updates",
                default.http2.max_window_updates.to_string(),
            ),
            ("max_ignored", default.http2.max_ignored.to_string()),
            (
                "max_continuations",
                default.http2.max_continuations.to_string(),
            ),
        ] {
            let row = format!("| `{key}` | integer | `{value}` |");
            assert!(documentation.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_used() {
        let expected = Limits {
            max_connections: 1,
            max_connections_per_identity: 2,
            max_handshakes: 3,
            rate: Some(RequestRate {
                per_second: number(4),
                burst: number(5),
            }),
            max_headers: 6,
            max_header_bytes: 7 << 10,
            max_uri_bytes: 8,
            http2: Http2Limits {
                max_concurrent_streams: 9,
                max_resets: number(10),
                max_local_resets: number(11),
                max_pings: number(12),
                max_settings: number(13),
                max_empty_data: number(14),
                max_window_updates: number(15),
                max_ignored: number(16),
                max_continuations: 0,
            },
        };
        let found = limits(
            r#"
[listener.limits]
max_connections = 1
max_connections_per_identity = 2
max_handshakes = 3
requests_per_second = 4
request_burst = 5
max_headers = 6
max_header_bytes = "7KiB"
max_uri_bytes = "8B"
[listener.http2]
max_concurrent_streams = 9
max_resets = 10
max_local_resets = 11
max_pings = 12
max_settings = 13
max_empty_data = 14
max_window_updates = 15
max_ignored = 16
max_continuations = 0
"#,
        );
        assert_eq!(found, expected);
        let found = limits("[listener.limits]\nrequests_per_second = 9\n");
        let burst = found.rate.map(|rate| rate.burst);
        assert_eq!(burst, Some(number(9)), "a second's worth");
    }
}
