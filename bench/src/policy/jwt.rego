# Who may do what is in the claims of a signed token.
package envoy.authz

import input.attributes.request.http as http

default allow := false

allow if {
	http.method == "GET"
	"reader" in claims.roles
	claims.iss == data.trusted.issuer
}

claims := payload if {
	token := trim_prefix(http.headers.authorization, "Bearer ")
	io.jwt.verify_es256(token, data.key)
	[_, payload, _] := io.jwt.decode(token)
}
