module sidegate/tests/peers/go/origin

go 1.26.0
