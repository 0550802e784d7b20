package sidegate.admit_test

import data.sidegate.admit

digest := concat("", ["sha256:", concat("", [hex | some _ in numbers.range(1, 32); hex := "0a"])])

component := {
	"digest": digest,
	"namespace": "default",
	"name": "hello",
	"capabilities": [],
}

with_identity(id) := {"component": object.union(component, {"requested_identity": id})}

test_a_component_that_wants_nothing_may_be_started if {
	admit.allow with input as {"component": component}
}

test_a_component_may_ask_for_the_id_of_a_workload if {
	every id in ["spiffe://sidegate.local/hello", "spiffe://sidegate.local/shop/hello", "spiffe://sidegate.local/spires"] {
		admit.allow with input as with_identity(id)
	}
}

test_a_component_may_not_ask_for_what_no_workload_has if {
	ids := [
		"",
		"hello",
		"spiffe://sidegate.local",
		"spiffe://sidegate.local/",
		"spiffe:///hello",
		"spiffe://sidegate.local/spire",
		"spiffe://sidegate.local/spire/agent",
		"spiffe://sidegate.local//spire/agent",
		"spiffe://sidegate.local/a/../spire",
		null,
		7,
	]
	every id in ids {
		not admit.allow with input as with_identity(id)
	}
}

test_a_component_is_known_by_its_digest if {
	digests := ["", "sha256:", "sha256:0A", upper(digest), concat("", [digest, "0"]), concat("", ["x", digest]), "sha512:00", null]
	every other in digests {
		not admit.allow with input as {"component": object.union(component, {"digest": other})}
	}
	not admit.allow with input as {"component": object.remove(component, {"digest"})}
}

test_no_capability_is_granted_by_a_name if {
	every list in [["egress"], ["egress", "credentials"], {}, "", null, 0] {
		not admit.allow with input as {"component": object.union(component, {"capabilities": list})}
	}
	not admit.allow with input as {"component": object.remove(component, {"capabilities"})}
}

test_nothing_is_denied if {
	not admit.allow with input as {}
	not admit.allow with input as {"component": {}}
}
