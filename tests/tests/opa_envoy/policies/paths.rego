# Segments of paths and parameters of queries.
package envoy.authz

default allow := false

allow if {
	input.attributes.request.http.method == "GET"
	input.parsed_path == [""]
}

allow if {
	some user
	["users", user, "orders"] = input.parsed_path
	input.parsed_query.user == [user]
}

allow if {
	["public", name] = input.parsed_path
	endswith(name, ".html")
}

allow if {
	input.parsed_path[0] == "search"
	every language in input.parsed_query.lang {
		language in {"de", "en"}
	}
}
