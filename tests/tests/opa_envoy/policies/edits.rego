# Every key of an answer by a rule of its own: the shape of the documentation of OPA's plugin.
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	http_request.method == "GET"
	glob.match("/people*", [], http_request.path)
}

headers["x-ext-auth-allow"] := "yes"

headers["x-validated-by"] := "security-checkpoint"

request_headers_to_remove := ["one-auth-header", "another-auth-header"]

response_headers_to_add["x-foo"] := "bar"

status_code := 200 if {
	allow
} else := 401

body := "Unauthorized Request" if not allow

result["allowed"] := allow

result["headers"] := headers

result["request_headers_to_remove"] := request_headers_to_remove

result["response_headers_to_add"] := response_headers_to_add

result["http_status"] := status_code

result["body"] := body
