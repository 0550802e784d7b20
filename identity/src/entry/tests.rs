use super::*;

const DIGEST: &str =
    "component:digest:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn request(id: &str, selectors: &[&str]) -> EntryRequest {
    EntryRequest {
        spiffe_id: id.to_owned(),
        selectors: selectors.iter().map(|&text| text.to_owned()).collect(),
        ..EntryRequest::default()
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("sidegate.local").unwrap()
}

fn entry(id: &str, selectors: &[&str]) -> Result<Entry, EntryError> {
    Entry::new(request(id, selectors), &trust_domain())
}

#[test]
fn each_rule_refuses_an_entry_under_its_own_code() {
    for (code, id, selectors) in [
        ("SG0101", "https://sidegate.local/a", &["unix:uid:1"][..]),
        ("SG0101", "spiffe://sidegate.local/a/../b", &["unix:uid:1"]),
        ("SG0102", "spiffe://other.example/a", &["unix:uid:1"]),
        ("SG0102", "spiffe://sidegate.local.evil/a", &["unix:uid:1"]),
        ("SG0103", "spiffe://sidegate.local", &["unix:uid:1"]),
        ("SG0104", "spiffe://sidegate.local/spire", &["unix:uid:1"]),
        (
            "SG0104",
            "spiffe://sidegate.local/spire/agent/a",
            &["unix:uid:1"],
        ),
        ("SG0105", "spiffe://sidegate.local/a", &[]),
        ("SG0106", "spiffe://sidegate.local/a", &["unix:nothing:1"]),
        (
            "SG0107",
            "spiffe://sidegate.local/a",
            &["unix:uid:1", DIGEST],
        ),
        ("SG0108", "spiffe://sidegate.local/a", &["component:name:a"]),
        (
            "SG0108",
            "spiffe://sidegate.local/a",
            &["component:name:a", "component:namespace:b"],
        ),
        (
            "SG0108",
            "spiffe://sidegate.local/a",
            &["component:signer:a"],
        ),
        (
            "SG0108",
            "spiffe://sidegate.local/a",
            &["component:repository:a/b"],
        ),
    ] {
        assert_eq!(
            entry(id, selectors).unwrap_err().code(),
            code,
            "{id} {selectors:?}"
        );
    }
}

#[test]
fn a_component_is_pinned_by_digest_or_by_signer_with_repository() {
    for selectors in [
        &[DIGEST][..],
        &[DIGEST, "component:name:a"],
        &["component:signer:k", "component:repository:a/b"],
    ] {
        assert!(
            entry("spiffe://sidegate.local/a", selectors).is_ok(),
            "{selectors:?}"
        );
    }
}

#[test]
fn lifetimes_names_and_hints_have_bounds() {
    let base = request("spiffe://sidegate.local/a", &["unix:uid:1"]);
    for (code, request) in [
        (
            "SG0109",
            EntryRequest {
                x509_svid_ttl: Some(Duration::from_secs(9)),
                ..base.clone()
            },
        ),
        (
            "SG0110",
            EntryRequest {
                dns_names: vec!["a b".into()],
                ..base.clone()
            },
        ),
        (
            "SG0110",
            EntryRequest {
                dns_names: vec![String::new()],
                ..base.clone()
            },
        ),
        (
            "SG0111",
            EntryRequest {
                hint: "x".repeat(1025),
                ..base.clone()
            },
        ),
    ] {
        assert_eq!(
            Entry::new(request, &trust_domain()).unwrap_err().code(),
            code
        );
    }
}

#[test]
fn a_workload_must_have_every_selector_of_an_entry() {
    let entry = entry("spiffe://sidegate.local/a", &["unix:uid:1", "unix:gid:2"]).unwrap();
    let attested = |texts: &[&str]| -> Vec<Selector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    assert!(entry.matches(&attested(&["unix:gid:2", "unix:uid:1", "unix:path:/a"])));
    assert!(!entry.matches(&attested(&["unix:uid:1"])));
    assert!(!entry.matches(&[]));
}

#[test]
fn a_list_reports_all_its_errors_and_its_duplicates() {
    let errors = Entry::check_all(
        [
            request("spiffe://sidegate.local/a", &["unix:uid:1", "unix:gid:1"]),
            request("spiffe://sidegate.local/a", &[]),
            request("spiffe://sidegate.local/a", &["unix:gid:1", "unix:uid:1"]),
            request("spiffe://sidegate.local/b", &["unix:uid:1", "unix:gid:1"]),
        ],
        &trust_domain(),
    )
    .unwrap_err();
    let found: Vec<_> = errors
        .iter()
        .map(|(index, error)| (*index, error.code()))
        .collect();
    assert_eq!(found, [(1, "SG0105"), (2, "SG0112")]);
}
