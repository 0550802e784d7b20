# The certificate itself: the path is that of its SPIFFE ID.
package envoy.authz

default allow := false

allow if {
	pem := urlquery.decode(input.attributes.source.certificate)
	certificates := crypto.x509.parse_certificates(pem)
	certificates[0].URIStrings == [sprintf("spiffe://sidegate.local/%s", [input.parsed_path[0]])]
}
