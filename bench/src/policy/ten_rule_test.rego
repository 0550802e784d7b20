package envoy.authz_test

import data.envoy.authz

bindings := {"spiffe://bench.test/reader": ["reader"], "spiffe://bench.test/root": ["administrator"]}

roles := {
	"reader": [{"methods": ["GET"], "path": "/orders/*"}],
	"administrator": [{"methods": ["GET", "DELETE"], "path": "/**"}],
}

request(principal, method, path) := {
	"source_principal": principal,
	"parsed_path": split(trim_left(path, "/"), "/"),
	"attributes": {"request": {"http": {"method": method, "path": path, "headers": {}}}},
}

allowed(principal, method, path) if {
	authz.allow with input as request(principal, method, path)
		with data.bindings as bindings
		with data.roles as roles
		with data.suspended as {"spiffe://bench.test/suspended": true}
		with data.teams as {"spiffe://bench.test/member": "red"}
}

test_anyone_reads_what_is_public if allowed("spiffe://bench.test/nobody", "GET", "/public/a")

test_a_role_grants_its_paths if allowed("spiffe://bench.test/reader", "GET", "/orders/7")

test_a_role_grants_nothing_below_its_paths if not allowed("spiffe://bench.test/reader", "GET", "/orders/7/lines")

test_a_team_has_its_own if allowed("spiffe://bench.test/member", "POST", "/teams/red")

test_a_denial_overrides if not allowed("spiffe://bench.test/suspended", "GET", "/public/a")

test_only_administrators_delete if not allowed("spiffe://bench.test/reader", "DELETE", "/orders/7")

test_administrators_delete if allowed("spiffe://bench.test/root", "DELETE", "/orders/7")
