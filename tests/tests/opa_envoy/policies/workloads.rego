# SPIFFE IDs: of the peer by its certificate, and of the one before it by Envoy's header.
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	input.parsed_path == ["principal"]
	input.attributes.source.principal == "spiffe://sidegate.local/demo"
	input.source_principal == input.attributes.source.principal
	input.attributes.destination.principal == "spiffe://sidegate.local/server"
}

allow if {
	input.parsed_path == ["trust-domain"]
	[_, _, domain, path] := split(input.attributes.source.principal, "/")
	domain == "sidegate.local"
	path in {"demo", "other"}
}

allow if {
	input.parsed_path == ["header"]
	client_id == "spiffe://sidegate.local/demo"
}

allow if {
	input.parsed_path == ["other"]
	input.attributes.source.principal == "spiffe://sidegate.local/other"
}

allow if {
	input.parsed_path == ["connection"]
	input.attributes.tlsSession.sni == "localhost"
	input.attributes.contextExtensions.listener == "main"
	input.attributes.source.address.socketAddress.address == "127.0.0.1"
	startswith(urlquery.decode(input.attributes.source.certificate), "-----BEGIN CERTIFICATE-----\n")
}

client_id := id if {
	some part in split(http_request.headers["x-forwarded-client-cert"], ";")
	["URI", id] = split(part, "=")
}
