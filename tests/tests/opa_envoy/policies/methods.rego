# gRPC methods.
package envoy.authz

default allow := false

allow if input.parsed_path == ["shop.Orders", "List"]

allow if {
	input.parsed_path == ["shop.Orders", "Create"]
	input.attributes.request.http.headers["x-tenant"] == "blue"
}
