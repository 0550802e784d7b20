package envoy.authz_test

import data.envoy.authz

our_id := "spiffe://sidegate.local/orders"

neighbour_id := "spiffe://sidegate.local/frontend"

# What the proxy asks about a request from `id` for the path of `segments`.
request(id, segments) := {
	"source_principal": id,
	"attributes": {
		"source": {"principal": id},
		"destination": {"principal": our_id},
	},
	"parsed_path": segments,
}

test_a_caller_of_our_trust_domain_is_allowed if {
	paths := [[""], ["orders"], ["orders", "7"], ["orders", ""], ["v1", "admin"], ["administrators"], ["admin-guide"]]
	every path in paths {
		authz.allow with input as request(neighbour_id, path)
	}
}

test_an_id_without_a_path_is_allowed_by_its_trust_domain if {
	authz.allow with input as request("spiffe://sidegate.local", ["orders"])
}

test_a_caller_of_another_trust_domain_is_denied if {
	ids := [
		"spiffe://example.org/frontend",
		"spiffe://sidegate.local.evil/frontend",
		"spiffe://sidegate.loca/frontend",
		"spiffe://evil.sidegate.local/frontend",
		"spiffe://evil/sidegate.local/frontend",
		"spiffe://sidegate.local@evil/frontend",
		"spiffe://sidegate.local:443/frontend",
		"spiffe://SIDEGATE.LOCAL/frontend",
	]
	every id in ids {
		not authz.allow with input as request(id, ["orders"])
	}
}

test_a_caller_whose_id_is_no_spiffe_id_is_denied if {
	ids := [
		"",
		"spiffe://",
		"spiffe:///frontend",
		"sidegate.local",
		"https://sidegate.local/frontend",
		"SPIFFE://sidegate.local/frontend",
		" spiffe://sidegate.local/frontend",
		"x-spiffe://sidegate.local/frontend",
		"CN=frontend",
		null,
		7,
	]
	every id in ids {
		not authz.allow with input as request(id, ["orders"])
	}
}

test_a_caller_without_an_id_is_denied if {
	anonymous := object.remove(request(neighbour_id, ["orders"]), {"source_principal"})
	not authz.allow with input as anonymous
}

test_an_id_that_was_only_claimed_is_not_enough if {
	claimed := {
		"attributes": {
			"destination": {"principal": our_id},
			"request": {"http": {"headers": {
				"x-forwarded-client-cert": sprintf("URI=%s", [neighbour_id]),
				"source_principal": neighbour_id,
			}}},
		},
		"parsed_path": ["orders"],
	}
	not authz.allow with input as claimed
}

test_without_an_id_of_our_own_everybody_is_denied if {
	every ours in ["", "spiffe://", "CN=orders"] {
		not authz.allow with input as request(neighbour_id, ["orders"]) with input.attributes.destination.principal as ours
	}
	not authz.allow with input as object.remove(request(neighbour_id, ["orders"]), {"attributes"})

	# Two that have no trust domain do not have the same one.
	not authz.allow with input as {"source_principal": "", "parsed_path": ["orders"]}
}

# The proxy gives `//admin` and `/%61dmin` as ["admin"], and `/admin%2Fusers`
# as ["admin", "users"].
test_nobody_reaches_admin if {
	paths := [
		["admin"],
		["admin", ""],
		["admin", "users"],
		["ADMIN"],
		["Admin", "users"],
		["admin;v=1"],
		["admin;", "users"],
	]
	every path in paths {
		every id in [our_id, neighbour_id, "spiffe://sidegate.local/admin"] {
			not authz.allow with input as request(id, path)
		}
	}
}

test_nobody_reaches_admin_by_a_detour if {
	paths := [["..", "admin"], [".", "admin"], ["orders", "..", "admin"], ["orders", ".."]]
	every path in paths {
		not authz.allow with input as request(neighbour_id, path)
	}
}

test_a_request_without_a_path_is_denied if {
	not authz.allow with input as object.remove(request(neighbour_id, []), {"parsed_path"})
	not authz.allow with input as request(neighbour_id, [])
}

test_nothing_is_denied if {
	not authz.allow with input as {}
}
