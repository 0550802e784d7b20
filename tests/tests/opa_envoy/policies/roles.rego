# Users by basic authentication, their roles, and what each role may do: the shape of OPA's example
# for Istio.
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	some role in user_roles[user_name]
	some permission in role_permissions[role]
	permission.method == http_request.method
	startswith(http_request.path, permission.prefix)
}

user_name := name if {
	[_, encoded] := split(http_request.headers.authorization, " ")
	[name, _] := split(base64url.decode(encoded), ":")
}

user_roles := {
	"alice": ["guest"],
	"bob": ["guest", "admin"],
}

role_permissions := {
	"guest": [{"method": "GET", "prefix": "/productpage"}],
	"admin": [
		{"method": "GET", "prefix": "/api/v1/products"},
		{"method": "POST", "prefix": "/api/v1/products"},
	],
}
