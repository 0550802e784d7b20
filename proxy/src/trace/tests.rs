use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::*;

const ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The headers that are forwarded for those that came.
fn forwarded(tracer: &Tracer, all: &[(&str, &str)]) -> (Trace, String, Option<String>) {
    let mut headers = headers(all);
    let trace = tracer.begin(&headers, SystemTime::UNIX_EPOCH);
    trace.put(&mut headers);
    let all = |name| -> Vec<_> {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    let (parents, mut states) = (all(TRACEPARENT), all(TRACESTATE));
    assert!(
        parents.len() == 1 && states.len() < 2,
        "{parents:?} {states:?}"
    );
    (trace, parents[0].clone(), states.pop())
}

#[test]
fn only_a_valid_parent_is_continued() {
    for (traceparent, flags) in [
        (format!("00-{ID}-{PARENT}-00"), Some("00")),
        (format!("00-{ID}-{PARENT}-01"), Some("01")),
        (format!("00-{ID}-{PARENT}-03"), Some("03")),
        // Flags without a meaning are not passed on.
        (format!("00-{ID}-{PARENT}-ff"), Some("03")),
        // Later versions begin in the same way.
        (format!("01-{ID}-{PARENT}-01"), Some("01")),
        (format!("cc-{ID}-{PARENT}-01-more-than-that"), Some("01")),
        (format!("01-{ID}-{PARENT}-01."), None),
        (format!("00-{ID}-{PARENT}-01-"), None),
        (format!("00-{ID}-{PARENT}-01-more"), None),
        (format!("ff-{ID}-{PARENT}-01"), None),
        (format!("0-{ID}-{PARENT}-01"), None),
        (format!("00-{ID}-{PARENT}-1"), None),
        (format!("00-{ID}-{PARENT}"), None),
        (format!("00-{}-{PARENT}-01", ID.to_uppercase()), None),
        (format!("00-{ID}-{}-01", PARENT.to_uppercase()), None),
        (format!("00-{}-{PARENT}-01", "0".repeat(32)), None),
        (format!("00-{ID}-{}-01", "0".repeat(16)), None),
        (format!("00-{ID}0-{}-01", &PARENT[1..]), None),
        (format!("00_{ID}_{PARENT}_01"), None),
        (format!("00-{ID}-{PARENT}-0x"), None),
        (String::new(), None),
    ] {
        let (trace, parent, state) = forwarded(
            &Tracer::off(),
            &[("traceparent", &traceparent), ("tracestate", "a=1")],
        );
        assert_eq!(parent.len(), 55);
        assert_eq!(parent[36..52], trace.span_id().to_string());
        assert_ne!(parent[36..52], *PARENT);
        match flags {
            Some(flags) => {
                assert_eq!(parent[..35], format!("00-{ID}"), "{traceparent}");
                assert_eq!(parent[53..], *flags, "{traceparent}");
                assert_eq!(state.as_deref(), Some("a=1"));
            }
            None => {
                assert_ne!(parent[3..35], *ID, "{traceparent}");
                // What is behind records as it would without us; the id is random.
                assert_eq!(parent[53..], *"03", "{traceparent}");
                assert_eq!(state, None, "{traceparent}");
            }
        }
    }
}

#[test]
fn a_parent_that_is_there_twice_is_none() {
    let parent = format!("00-{ID}-{PARENT}-01");
    let twice = [("traceparent", &*parent), ("traceparent", &*parent)];
    let (_, parent, _) = forwarded(&Tracer::off(), &twice);
    assert_ne!(parent[3..35], *ID);
}

#[test]
fn state_is_passed_on_whole_or_not_at_all() {
    let parent = format!("00-{ID}-{PARENT}-01");
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!("k{number}=1")).collect();
        members.join(",")
    };
    let long_key = format!("{}=1", "k".repeat(256));
    let longer_key = format!("{}=1", "k".repeat(257));
    let long_value = format!("k={}", "v".repeat(256));
    let longer_value = format!("k={}", "v".repeat(257));
    for (values, expected) in [
        (&["a=1"][..], Some("a=1")),
        (&["a=1,b=2"], Some("a=1,b=2")),
        (&["a=1", "b=2"], Some("a=1,b=2")),
        (&["a=1 ,\tb=2,"], Some("a=1 ,\tb=2,")),
        (&["a=1,,", "b=2"], Some("a=1,b=2")),
        (&["0t@s_y-s*t/m= v w"], Some("0t@s_y-s*t/m= v w")),
        (&[""], None),
        (&["a"], None),
        (&["=1"], None),
        (&["a="], None),
        (&["a=1=2"], None),
        (&["A=1"], None),
        (&["_a=1"], None),
        (&["a b=1"], None),
        (&["a =1"], None),
        (&["a=1", "b"], None),
        (&[&many(32)], Some(&many(32))),
        (&[&many(33)], None),
        (&[&many(16), &many(17)], None),
        (&[&long_key], Some(&long_key)),
        (&[&longer_key], None),
        (&[&long_value], Some(&long_value)),
        (&[&longer_value], None),
        // Too much in all: long members go first.
        (
            &[&long_value, "a=1", &long_key],
            Some(&format!("{long_value},a=1")),
        ),
    ] {
        let mut all = vec![("traceparent", &*parent)];
        all.extend(values.iter().map(|value| ("tracestate", *value)));
        let (_, _, state) = forwarded(&Tracer::off(), &all);
        assert_eq!(state.as_deref(), expected, "{values:?}");
    }
    let members: Vec<_> = (10..30)
        .map(|number| format!("k{number}={}", "v".repeat(30)))
        .collect();
    let (_, _, state) = forwarded(
        &Tracer::off(),
        &[
            ("traceparent", &*parent),
            ("tracestate", &members.join(",")),
        ],
    );
    assert_eq!(
        state.unwrap(),
        members[..14].join(","),
        "35 bytes each, to 512"
    );
}

fn tracer(sampler: Sampler, max_spans: usize) -> (Tracer, SpanQueue, Registry) {
    let mut registry = Registry::default();
    let metrics = TraceMetrics::register(&mut registry);
    let max_spans = NonZeroUsize::new(max_spans).unwrap();
    let queue = SpanQueue::new(max_spans, max_spans, metrics);
    (Tracer::new(sampler, queue.clone()), queue, registry)
}

#[test]
fn samplers_decide_as_their_names_say() {
    use RootSampler::{AlwaysOff, AlwaysOn, TraceIdRatio};
    // The parts that samplers look at are 0x8448eb211c80319c and almost nothing.
    let low = format!("00-{}{}-{PARENT}", &ID[..16], "0000000000000001");
    let high = format!("00-{ID}-{PARENT}");
    for (sampler, traceparent, expected) in [
        (Sampler::Always(AlwaysOn), format!("{high}-00"), true),
        (Sampler::Always(AlwaysOff), format!("{high}-01"), false),
        (Sampler::ParentBased(AlwaysOff), format!("{high}-01"), true),
        (Sampler::ParentBased(AlwaysOn), format!("{high}-00"), false),
        (Sampler::ParentBased(AlwaysOff), String::new(), false),
        (Sampler::ParentBased(AlwaysOn), String::new(), true),
        (
            Sampler::Always(TraceIdRatio(0.5)),
            format!("{high}-01"),
            false,
        ),
        (
            Sampler::Always(TraceIdRatio(0.52)),
            format!("{high}-00"),
            true,
        ),
        (
            Sampler::Always(TraceIdRatio(0.001)),
            format!("{low}-00"),
            true,
        ),
        (
            Sampler::Always(TraceIdRatio(0.0)),
            format!("{low}-01"),
            false,
        ),
        (
            Sampler::ParentBased(TraceIdRatio(0.0)),
            format!("{high}-01"),
            true,
        ),
        (Sampler::Always(TraceIdRatio(1.0)), String::new(), true),
    ] {
        let (tracer, ..) = tracer(sampler, 1);
        let (trace, parent, _) = forwarded(&tracer, &[("traceparent", &traceparent)]);
        let is_sampled = parent.ends_with('1') || parent.ends_with('3');
        assert_eq!(is_sampled, expected, "{sampler:?} {traceparent}");
        assert_eq!(trace.recorded.is_some(), expected, "{sampler:?}");
    }
}

#[test]
fn the_call_of_the_upstream_is_a_span_of_its_own_unless_the_policy_writes_another() {
    let (tracer, ..) = tracer(Sampler::Always(RootSampler::AlwaysOn), 1);
    let (trace, parent, _) = forwarded(&tracer, &[]);
    let mut head = headers(&[("traceparent", &parent)]);
    trace.call().unwrap().put(&mut head);
    let call = head.get(TRACEPARENT).unwrap().to_str().unwrap().to_owned();
    assert_eq!(call[..36], parent[..36]);
    assert_ne!(call, parent);
    for other in [headers(&[]), headers(&[("traceparent", "mine")])] {
        let mut head = other.clone();
        trace.call().unwrap().put(&mut head);
        assert_eq!(head, other);
    }
    let (unrecorded, ..) = forwarded(&Tracer::off(), &[]);
    assert!(unrecorded.call().is_none());
}

#[tokio::test]
async fn spans_wait_up_to_a_number_and_are_then_dropped_and_counted() {
    let (tracer, queue, registry) = tracer(Sampler::Always(RootSampler::AlwaysOn), 2);
    let (trace, ..) = forwarded(&tracer, &[]);
    let span = trace.span(
        trace.span_id(),
        SystemTime::UNIX_EPOCH,
        Duration::from_secs(1),
        span::Attributes::default(),
    );
    for _ in 0..3 {
        queue.push(span.clone());
    }
    queue.due(Duration::MAX).await;
    assert_eq!(queue.take().len(), 2);
    assert!(queue.take().is_empty());
    queue.exported(2, true);
    queue.exported(1, false);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in ["\"exported\"} 2", "\"dropped\"} 1", "\"failed\"} 1"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_one_valid_context_is_forwarded(
        parent in "[0-9a-f-]{0,60}|[ -~]{0,60}",
        state in "[ -~]{0,600}",
    ) {
        let all = [("traceparent", &*parent), ("tracestate", &*state)];
        let (_, parent, state) = forwarded(&Tracer::off(), &all);
        let again = [("traceparent", parent.clone())];
        let again: Vec<_> = again.iter().map(|(name, value)| (*name, &**value)).collect();
        let (trace, ..) = forwarded(&Tracer::off(), &again);
        prop_assert_eq!(trace.trace_id().to_string(), &parent[3..35]);
        prop_assert!(state.is_none_or(|state| state.len() <= 512));
    }
}
