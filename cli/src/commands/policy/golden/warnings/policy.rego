package envoy.authz

import data.roles
import data.users as people

allow if {
	some name
	count := roles[input.user]
	is_admin(input.user, "x")
}

is_admin(user, reason) if user == "root"

forgotten contains name if some name in input.names

# METADATA
# entrypoint: true
audit if input.audit
