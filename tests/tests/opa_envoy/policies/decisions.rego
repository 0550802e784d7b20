# Every kind of answer, each for one first segment of the path. Those that would break the client or
# the framing of a message are not here: Envoy carries them out, Sidegate denies.
package envoy.authz

case := input.parsed_path[0]

allow if case == "true"
allow := false if case == "false"
allow := {"allowed": true} if case == "object"
allow := {"allowed": false} if case == "plain-denial"

# Denials
allow := {
	"allowed": false,
	"http_status": 401,
	"headers": {"www-authenticate": "Bearer"},
	"body": "go away",
} if case == "denial"
allow := {
	"allowed": false,
	"headers": {"content-type": "application/json"},
	"body": "{}",
} if case == "denial-json"
allow := {
	"allowed": false,
	"http_status": 302,
	"headers": {"location": "/login"},
} if case == "redirect"
allow := {"allowed": false, "http_status": 200, "body": "fine"} if case == "denial-200"
allow := {"allowed": false, "http_status": 418} if case == "status-of-no-envoy"
allow := {"allowed": false, "http_status": 299} if case == "status-of-nobody"
allow := {"allowed": false, "http_status": 404.0} if case == "status-point-zero"
allow := {"allowed": false, "http_status": 404.5} if case == "status-fraction"
allow := {"allowed": false, "http_status": "404"} if case == "status-text"
allow := {"allowed": false, "http_status": 99} if case == "status-99"
allow := {"allowed": false, "http_status": 600} if case == "status-600"
allow := {"allowed": false, "headers": {"x-list": ["one", "two"]}} if case == "denial-list"
allow := {
	"allowed": false,
	"headers": [{"x-a": "one"}, {"x-b": "two"}, {"x-a": "three"}],
} if case == "denial-maps"
allow := {"allowed": false, "headers": {{"x-a": "one"}, {"x-b": "two"}}} if case == "denial-set"
allow := {"allowed": false, "headers": {"x-set": {"one", "two"}}} if case == "denial-values-set"
allow := {"allowed": false, "headers": {"X-Upper": "a"}} if case == "header-upper"
allow := {"allowed": false, "headers": {"x-name": "Zoë"}} if case == "header-utf8"
allow := {"allowed": false, "headers": {"x-empty": ""}} if case == "denial-empty-header"
allow := {"allowed": false, "headers": {"x-n": 1}} if case == "header-number"
allow := {"allowed": false, "headers": null} if case == "headers-null"
allow := {"allowed": false, "headers": "x-a: one"} if case == "headers-text"
allow := {"allowed": false, "body": ""} if case == "empty-body"
allow := {"allowed": false, "body": 1} if case == "body-number"
allow := {"allowed": false, "reason": "because"} if case == "denial-other-keys"
allow := {
	"allowed": false,
	"response_headers_to_add": {"x-decided": "yes"},
} if case == "denial-response-headers"
allow := {"allowed": false, "request_headers_to_remove": 1} if case == "denial-remove-number"

# Edits
allow := {
	"allowed": true,
	"headers": {"x-tenant": "blue", "x-roles": "reader"},
} if case == "headers"
allow := {"allowed": true, "headers": {"x-tenant": ["blue", "green"]}} if case == "header-list"
allow := {"allowed": true, "headers": {"x-empty": ""}} if case == "empty-header"
allow := {"allowed": true, "headers": {"x-forwarded-for": "10.0.0.1"}} if case == "header-xff"
allow := {"allowed": true, "headers": {"x-request-id": "mine"}} if case == "header-request-id"
allow := {"allowed": true, "headers": {"host": "elsewhere"}} if case == "header-host"
allow := {"allowed": true, "headers": {":path": "/elsewhere"}} if case == "header-path"
allow := {"allowed": true, "headers": {":authority": "elsewhere"}} if case == "header-authority"
allow := {"allowed": true, "headers": {"te": "gzip"}} if case == "header-te"
allow := {
	"allowed": true,
	"headers": {"x-forwarded-client-cert": "URI=spiffe://king"},
} if case == "header-certificate"
allow := {
	"allowed": true,
	"request_headers_to_remove": ["x-secret", "x-absent"],
} if case == "remove"
allow := {
	"allowed": true,
	"request_headers_to_remove": {"x-secret", "X-Tenant"},
} if case == "remove-set"
allow := {"allowed": true, "request_headers_to_remove": "x-secret"} if case == "remove-text"
allow := {"allowed": true, "request_headers_to_remove": ["host"]} if case == "remove-host"
allow := {"allowed": true, "request_headers_to_remove": [":path"]} if case == "remove-path"
allow := {
	"allowed": true,
	"request_headers_to_remove": ["x-forwarded-client-cert"],
} if case == "remove-certificate"
allow := {
	"allowed": true,
	"request_headers_to_remove": ["x-tenant"],
	"headers": {"x-tenant": "blue"},
} if case == "remove-and-set"
allow := {"allowed": true, "response_headers_to_add": {"x-decided": "yes"}} if case == "response"
allow := {
	"allowed": true,
	"response_headers_to_add": {"x-decided": ["one", "two"]},
} if case == "response-list"
allow := {
	"allowed": true,
	"response_headers_to_add": {"x-upstream": "no"},
} if case == "response-existing"
allow := {"allowed": true, "http_status": 500, "body": "unused"} if case == "allowed-status"
allow := {"allowed": true, "http_status": "text"} if case == "allowed-status-text"
allow := {"allowed": true, "body": 1} if case == "allowed-body-number"
allow := {"allowed": true, "reason": "because", "id": 7} if case == "other-keys"
allow := {1: 2, "allowed": true} if case == "number-key"
allow := {"allowed": true, "query_parameters_to_set": {"q": "new", "t": "1"}} if case == "query-set"
allow := {"allowed": true, "query_parameters_to_set": {"q": ["1", "2"]}} if case == "query-set-list"
allow := {"allowed": true, "query_parameters_to_set": {"t": "a b"}} if case == "query-set-space"
allow := {"allowed": true, "query_parameters_to_set": {"q": 1}} if case == "query-set-number"
allow := {"allowed": true, "query_parameters_to_remove": ["q", "absent"]} if case == "query-remove"
allow := {"allowed": true, "dynamic_metadata": {"user": {"name": "zoe"}}} if case == "metadata"
allow := {"allowed": true, "dynamic_metadata": "text"} if case == "metadata-text"

# No decisions
allow := "true" if case == "string"
allow := 1 if case == "number"
allow := null if case == "null"
allow := [true] if case == "array"
allow := {true} if case == "set"
allow := {} if case == "empty-object"
allow := {"allowed": "true"} if case == "string-inside"
allow := {"allowed": null} if case == "null-inside"
allow := {"http_status": 200} if case == "status-only"
allow if { case == "conflict" }
allow := false if { case == "conflict" }
allow if { case == "division"; 1 / to_number(input.parsed_path[1]) > 0 }
