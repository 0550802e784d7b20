package broken

allow {
	input.x
}
