# Roles in a token that somebody else has verified: its payload alone is read.
package envoy.authz

default allow := false

allow if {
	input.attributes.request.http.method == "GET"
	payload.role == "guest"
	input.parsed_path[0] == "people"
}

allow if payload.role == "admin"

payload := claims if {
	value := input.attributes.request.http.headers.authorization
	startswith(value, "Bearer ")
	[_, claims, _] := io.jwt.decode(substring(value, count("Bearer "), -1))
}
