# METADATA
# title: Who may send requests to this service
# description: >-
#   A caller may send requests if its verified SPIFFE ID is in the same trust
#   domain as ours. Nobody may reach /admin: copy this policy and grant it to
#   those who should.
# scope: package
package envoy.authz

# Whatever is not allowed below is denied.
default allow := false

allow if {
	caller_is_of_our_trust_domain
	path_is_open
}

# source_principal is there only if the caller's certificate was verified, so a
# caller without one has no trust domain, and this is not true of it.
caller_is_of_our_trust_domain if {
	trust_domain(input.source_principal) == trust_domain(input.attributes.destination.principal)
}

# Said as what is open, not as what is closed: if the path were missing, this
# would be undefined and the request denied.
path_is_open if {
	segment_name(input.parsed_path[0]) != "admin"

	# A service might resolve these and arrive at /admin.
	every segment in input.parsed_path {
		not segment in {".", ".."}
	}
}

# The trust domain of a SPIFFE ID: what is between spiffe:// and the next slash.
trust_domain(id) := domain if {
	startswith(id, "spiffe://")
	domain := split(id, "/")[2]
	domain != ""
}

# Some services take /ADMIN or /admin;v=1 for /admin.
segment_name(segment) := lower(split(segment, ";")[0])
