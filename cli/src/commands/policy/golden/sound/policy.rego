package envoy.authz

import data.roles

default allow := false

allow if input.user in roles.admins

allow if {
	input.method == "GET"
	not input.private
}
