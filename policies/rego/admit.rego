# METADATA
# title: Which components may be started
# description: >-
#   A component may be started if it is known by its digest, asks for no
#   capability, and for no identity or one that a workload can have. Which
#   identity it gets is for the registration entries to say. Copy this policy
#   and grant capabilities to those digests or signers that need them: never to
#   names, which whoever may deploy chooses.
# scope: package
package sidegate.admit

import data.sidegate.spiffe

# Whatever is not allowed below is denied.
default allow := false

allow if {
	digest_is_known
	identity_is_of_a_workload
	capabilities_are_granted
}

digest_is_known if regex.match(`^sha256:[0-9a-f]{64}$`, input.component.digest)

identity_is_of_a_workload if not "requested_identity" in object.keys(input.component)

# What is below /spire is for the authority itself.
identity_is_of_a_workload if {
	path := spiffe.path(input.component.requested_identity)
	not path == "/spire"
	not startswith(path, "/spire/")
}

# Said of what is there: if the list were missing, this would be undefined.
capabilities_are_granted if input.component.capabilities == []
