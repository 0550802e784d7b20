# METADATA
# title: What SPIFFE IDs say
# scope: package
package sidegate.spiffe

# The trust domain of a SPIFFE ID: what is between spiffe:// and the next slash.
trust_domain(id) := domain if {
	startswith(id, "spiffe://")
	domain := split(id, "/")[2]
	domain != ""
}

# Two that have no trust domain do not have the same one.
same_trust_domain(one, other) if trust_domain(one) == trust_domain(other)

# The path of a SPIFFE ID, with its slash: only workloads have one.
path(id) := concat("/", array.concat([""], segments)) if {
	trust_domain(id)
	parts := split(id, "/")
	segments := array.slice(parts, 3, count(parts))
	every segment in segments {
		not segment in {"", ".", ".."}
	}
	count(segments) > 0
}
