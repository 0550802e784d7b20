# METADATA
# title: Where workloads may send requests
# description: >-
#   A workload may send requests to peers in the mesh that are of its own trust
#   domain. Nothing else may be reached: copy this policy and grant, workload by
#   workload, what else it needs.
# scope: package
package sidegate.egress

import data.sidegate.spiffe

# Whatever is not allowed below is denied.
default allow := false

# destination.principal is there only for a peer in the mesh; the connection is
# made only if the peer then shows this ID.
allow if spiffe.same_trust_domain(input.source_principal, input.attributes.destination.principal)
