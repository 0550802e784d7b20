package envoy.authz_test

import data.envoy.authz

test_eve_may if {
	print("asking for", "eve")
	authz.allow with input as {"user": "eve"}
}

test_eve_may if not authz.allow with input as {"user": "eve"}

test_levels if authz.level == 1 with input as {"one": true, "two": true}

test_users[user] if {
	some user in ["root", "eve"]
	authz.allow with input as {"user": user}
}

test_number := 1
