# Role-based access by SPIFFE ID: who may call which method.
package envoy.authz

default allow := false

allow if input.attributes.request.http.method in data.callers[input.source_principal]
