package envoy.authz

import data.roles
import input.roles

default allow := input.default

allow if {
	input.user == "root"
	http.send({"method": "get", "url": "http://127.0.0.1"})
}

allow if {
	some role in roles
	startwith(role, "admin")
}

reaches(from, to) if reaches(to, from)
