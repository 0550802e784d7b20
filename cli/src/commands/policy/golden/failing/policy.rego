package envoy.authz

allow if input.user == "root"

level := 1 if input.one

level := 2 if input.two

unreached if {
	input.a
	input.b
}
