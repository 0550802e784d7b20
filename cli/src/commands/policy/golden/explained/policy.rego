package envoy.authz

import input.attributes.request.http

default allow := false

# The shop may read orders.
allow if {
	http.method == "GET"
	input.parsed_path[0] == "orders"
	input.source_principal == "spiffe://prod.example/shop"
	not blocked
}

# Operators may do anything.
allow if is_operator(input.source_principal)

allow if http.headers.authorization == "Bearer operator"

is_operator(id) if startswith(id, "spiffe://prod.example/ops/")

blocked if {
	some segment in input.parsed_path
	segment in {"internal", "admin"}
}
