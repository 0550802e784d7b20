# What is in bodies; one that is not all there is refused.
package envoy.authz

default allow := false

allow if {
	not input.truncated_body
	input.attributes.request.http.method == "POST"
	input.parsed_body.firstname != "Charlie"
	input.parsed_body.roles[_] == "clerk"
}
