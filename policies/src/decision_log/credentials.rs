//! Headers whose values are credentials: erased before anything else sees an
//! event, mask rules included, so that no rule can put them back.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use serde_json::Value as Json;

use super::event::Event;

/// The headers that are always credentials.
pub const CREDENTIAL_HEADERS: [HeaderName; 4] =
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE];

/// Where headers are in an event: in the input those of the request, in the
/// result those that the policy sets.
const PLACES: [&str; 3] = [
    "/input/attributes/request/http/headers",
    "/result/headers",
    "/result/response_headers_to_add",
];

/// Erases the values of these headers, as if a mask rule had said so.
pub(super) fn erase(event: &mut Event<'_>, names: &[HeaderName]) {
    for place in PLACES {
        let (document, below) = match place.strip_prefix("/input") {
            Some(below) => (&mut event.input, below),
            None => (&mut event.result, place.trim_start_matches("/result")),
        };
        let headers = document.as_mut().and_then(|it| it.pointer_mut(below));
        if let Some(headers) = headers {
            erase_from(headers, place, names, &mut event.erased);
        }
    }
}

/// A policy may give a list of such objects.
fn erase_from(headers: &mut Json, place: &str, names: &[HeaderName], erased: &mut Vec<String>) {
    match headers {
        Json::Object(headers) => headers.retain(|name, _| {
            let is_secret = names
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret.as_str()));
            if is_secret {
                erased.push(format!("{place}/{name}"));
            }
            !is_secret
        }),
        Json::Array(list) => {
            for (index, headers) in list.iter_mut().enumerate() {
                erase_from(headers, &format!("{place}/{index}"), names, erased);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_erased_wherever_headers_are() {
        let mut event = Event::for_test(
            Some(json!({"attributes": {"request": {"http": {"headers": {
                "authorization": "Bearer s1", "cookie": "s2", "accept": "*/*",
                "proxy-authorization": "s3", "x-api-key": "s4",
            }}}}})),
            Some(json!({
                "allowed": true,
                "headers": [{"Authorization": "s5", "x-kept": "1"}, {"X-Api-Key": "s6"}],
                "response_headers_to_add": {"Set-Cookie": ["s7", "s8"], "x-kept": "2"},
            })),
        );
        let mut names = CREDENTIAL_HEADERS.to_vec();
        names.push(HeaderName::from_static("x-api-key"));
        erase(&mut event, &names);

        assert_eq!(
            event.input.unwrap()["attributes"]["request"]["http"]["headers"],
            json!({"accept": "*/*"})
        );
        assert_eq!(
            event.result.unwrap(),
            json!({
                "allowed": true,
                "headers": [{"x-kept": "1"}, {}],
                "response_headers_to_add": {"x-kept": "2"},
            })
        );
        assert_eq!(
            event.erased,
            [
                "/input/attributes/request/http/headers/authorization",
                "/input/attributes/request/http/headers/cookie",
                "/input/attributes/request/http/headers/proxy-authorization",
                "/input/attributes/request/http/headers/x-api-key",
                "/result/headers/0/Authorization",
                "/result/headers/1/X-Api-Key",
                "/result/response_headers_to_add/Set-Cookie",
            ]
        );
    }

    #[test]
    fn what_has_no_headers_is_left_as_it_is() {
        for (input, result) in [
            (None, None),
            (Some(json!([1])), Some(json!(true))),
            (
                Some(json!({"attributes": 1})),
                Some(json!({"headers": "authorization"})),
            ),
        ] {
            let mut event = Event::for_test(input.clone(), result.clone());
            erase(&mut event, &CREDENTIAL_HEADERS);
            assert_eq!((event.input, event.result), (input, result));
            assert!(event.erased.is_empty());
        }
    }
}
