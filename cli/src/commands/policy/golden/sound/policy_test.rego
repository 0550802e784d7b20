package envoy.authz_test

import data.envoy.authz

test_root_may_do_anything if {
	print("asking for root")
	authz.allow with input as {"user": "root"}
}

test_who_may[case.note] if {
	some case in [
		{"note": "an admin", "user": "root", "allowed": true},
		{"note": "somebody else", "user": "eve", "allowed": false},
	]
	authz.allow == case.allowed with input as {"user": case.user}
}

todo_test_private_pages if authz.allow with input as {"method": "GET", "private": true}
