# Ten rules over a table of a thousand role bindings: keyed lookup, path globs, negation, and
# denials that override what is allowed.
package envoy.authz

import input.attributes.request.http as http

default allow := false

allow if {
	http.method == "GET"
	input.parsed_path[0] == "public"
	not denied
}

allow if {
	http.method == "GET"
	http.path == "/healthz"
}

allow if {
	some role in data.bindings[input.source_principal]
	some grant in data.roles[role]
	http.method in grant.methods
	glob.match(grant.path, ["/"], http.path)
	not denied
}

allow if {
	input.parsed_path[0] == "teams"
	input.parsed_path[1] == data.teams[input.source_principal]
	not denied
}

allow if {
	http.method == "OPTIONS"
	http.headers["access-control-request-method"] != ""
	not denied
}

denied if data.suspended[input.source_principal]

denied if {
	input.parsed_path[0] == "admin"
	not is_administrator
}

denied if glob.match("/internal/**", ["/"], http.path)

denied if {
	http.method == "DELETE"
	not is_administrator
}

is_administrator if "administrator" in data.bindings[input.source_principal]
