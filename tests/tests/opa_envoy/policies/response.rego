# A denial that tells the caller where to go, and an answer that tells the upstream who asked.
package envoy.authz

default allow := {
	"allowed": false,
	"headers": {"x-ext-auth-allow": "no", "location": "/login"},
	"body": "Unauthorized Request",
	"http_status": 301,
}

allow := response if {
	input.attributes.request.http.method == "GET"
	response := {
		"allowed": true,
		"headers": {"x-ext-auth-allow": "yes", "x-caller": input.attributes.source.principal},
	}
}
