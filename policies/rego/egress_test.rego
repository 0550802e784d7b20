package sidegate.egress_test

import data.sidegate.egress

workload_id := "spiffe://sidegate.local/frontend"

# A request that the workload `source` sends to the peer `destination`.
request(source, destination) := {
	"source_principal": source,
	"attributes": {
		"source": {"principal": source},
		"destination": {"principal": destination},
		"request": {"http": {"method": "GET", "headers": {}}},
	},
	"parsed_path": [""],
	"parsed_query": {},
	"workload": {"selectors": []},
}

test_a_peer_of_the_own_trust_domain_may_be_reached if {
	egress.allow with input as request(workload_id, "spiffe://sidegate.local/orders")
}

test_a_peer_of_another_trust_domain_may_not_be_reached if {
	ids := ["spiffe://example.org/orders", "spiffe://sidegate.local.evil/orders", "spiffe:///orders", "", null]
	every id in ids {
		not egress.allow with input as request(workload_id, id)
	}
}

test_what_is_not_in_the_mesh_may_not_be_reached if {
	outside := object.remove(request(workload_id, null), {"attributes"})
	not egress.allow with input as outside
	not egress.allow with input as object.union(outside, {"attributes": {"destination": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 443}}}}})
}

test_a_workload_without_an_id_may_reach_nothing if {
	full := request(workload_id, "spiffe://sidegate.local/orders")
	not egress.allow with input as object.remove(full, {"source_principal"})
	not egress.allow with input as request("", "")
	not egress.allow with input as {}
}
