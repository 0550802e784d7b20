package envoy.authz_test

import data.envoy.authz

asked(principal, method) := {
	"source_principal": principal,
	"attributes": {"request": {"http": {"method": method}}},
}

test_a_caller_has_its_methods if {
	authz.allow with input as asked("spiffe://bench.test/a", "GET")
		with data.callers as {"spiffe://bench.test/a": ["GET"]}
}

test_a_caller_has_no_others if {
	not authz.allow with input as asked("spiffe://bench.test/a", "PUT")
		with data.callers as {"spiffe://bench.test/a": ["GET"]}
}
