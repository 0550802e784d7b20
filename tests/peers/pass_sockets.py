"""Becomes a program that is passed listening sockets as sd_listen_fds(3) describes it.

Usage: pass_sockets.py NAME=HOST:PORT… -- PROGRAM ARGUMENT…
"""

import os
import socket
import sys

FIRST = 3

split = sys.argv.index("--")
sockets, program = sys.argv[1:split], sys.argv[split + 1 :]
names, passed = [], []
for argument in sockets:
    name, address = argument.split("=")
    host, port = address.rsplit(":", 1)
    listening = socket.create_server((host, int(port)))
    names.append(name)
    # Out of the way of the places where they must be in the end.
    passed.append(os.dup2(listening.fileno(), 100 + len(passed)))
for index, descriptor in enumerate(passed):
    os.dup2(descriptor, FIRST + index, inheritable=True)
    os.close(descriptor)
os.environ.update(
    LISTEN_PID=str(os.getpid()),
    LISTEN_FDS=str(len(passed)),
    LISTEN_FDNAMES=":".join(names),
)
os.execv(program[0], program)
