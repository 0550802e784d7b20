# METADATA
# title: Who may connect to a listener
# description: >-
#   A peer may connect if its SPIFFE ID was verified. What it may ask for is
#   decided for each request.
# scope: package
package sidegate.connect

import data.sidegate.spiffe

# Whatever is not allowed below is denied.
default allow := false

# source_principal is there only if the peer's certificate was verified.
allow if spiffe.trust_domain(input.source_principal)
