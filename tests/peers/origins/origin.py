"""Applications for gunicorn (`wsgi`) and uvicorn (`asgi`) that tell what they are asked: a line of
JSON for each request that was read to its end."""

import json
import sys


def tell(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    method, target = environ["REQUEST_METHOD"], environ["RAW_URI"]
    tell(
        id=environ.get("HTTP_X_REQUEST_ID"),
        method=method,
        target=target,
        host=environ.get("HTTP_HOST"),
        body=body.decode("latin1"),
    )
    answer = f"{method} {target}".encode("latin1")
    start_response("200 OK", [("content-length", str(len(answer)))])
    return [answer]


async def asgi(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = dict(scope["headers"])
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    method, target = scope["method"], target.decode("latin1")
    tell(
        id=headers.get(b"x-request-id", b"").decode("latin1"),
        method=method,
        target=target,
        host=headers.get(b"host", b"").decode("latin1"),
        body=body.decode("latin1"),
    )
    answer = f"{method} {target}".encode("latin1")
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": answer})
