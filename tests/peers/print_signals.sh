#!/bin/sh
# Prints "started", then "renewed" for each signal $SIGNAL, or SIGUSR1, until whoever started it is
# gone.
trap 'echo renewed' "${SIGNAL:-USR1}"
echo started
tail --pid="$PPID" -f /dev/null &
while kill -0 "$PPID" 2>/dev/null; do
    wait "$!"
done
