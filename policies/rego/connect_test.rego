package sidegate.connect_test

import data.sidegate.connect

our_id := "spiffe://sidegate.local/orders"

connection(id) := {
	"source_principal": id,
	"attributes": {
		"source": {"principal": id},
		"destination": {"principal": our_id},
		"contextExtensions": {"listener": "main"},
	},
}

test_a_peer_with_an_id_may_connect if {
	ids := ["spiffe://sidegate.local/frontend", "spiffe://example.org/frontend", our_id]
	every id in ids {
		connect.allow with input as connection(id)
	}
}

test_what_is_no_spiffe_id_may_not_connect if {
	every id in ["spiffe:///frontend", "spiffe://", "https://sidegate.local/frontend", "", null] {
		not connect.allow with input as connection(id)
	}
}

test_a_peer_without_an_id_may_not_connect if {
	not connect.allow with input as object.remove(connection(our_id), {"source_principal"})
	not connect.allow with input as {}
}
