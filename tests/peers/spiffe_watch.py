"""py-spiffe as a watcher of X.509 contexts: prints each one, and each error, as a line of JSON.

Usage: spiffe_watch.py SOCKET

SOCKET is unix:///path. It goes on until it is stopped: after an error it asks again, as an
application would. Private keys are not printed.
"""

import json
import sys
import threading
import time

from spiffe import WorkloadApiClient


def show(document):
    """A line, at once."""
    print(json.dumps(document), flush=True)


def show_context(context):
    """An update."""
    show(
        {
            "svids": [
                {
                    "spiffe_id": str(svid.spiffe_id),
                    "serial": f"{svid.leaf.serial_number:x}",
                }
                for svid in context.x509_svids
            ],
            "bundles": {
                str(bundle.trust_domain): len(bundle.x509_authorities)
                for bundle in context.x509_bundle_set.bundles
            },
        }
    )


def main():
    (socket,) = sys.argv[1:]
    client = WorkloadApiClient(socket)
    while True:
        ended = threading.Event()

        def show_error(error, ended=ended):
            show({"error": str(error)})
            ended.set()

        # By itself it would try again in silence.
        client.stream_x509_contexts(show_context, show_error, retry_connect=False)
        ended.wait()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
