#!/bin/sh
# Copies svid.pem, key.pem and bundle.pem of folder $1 to a folder of their own below $1/kept, which
# appears there when it is complete.
set -eu
cd "$1"
copy="$$"
mkdir -p kept "part.$copy"
cp svid.pem key.pem bundle.pem "part.$copy"
mv "part.$copy" "kept/$copy"
