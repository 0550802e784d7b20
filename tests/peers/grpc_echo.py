"""A gRPC server and a client of it, without generated code: messages are bytes.

Usage: grpc_echo.py serve
       grpc_echo.py call ADDRESS FOLDER CALLS
       grpc_echo.py plain ADDRESS CALLS

`serve` listens on a free port of the loopback interface without TLS, prints {"port": …} and serves
until it is stopped. `call` shows the identity in FOLDER (svid.pem, key.pem) to ADDRESS, whose
certificate is for `localhost` and signed by bundle.pem, and makes the CALLS: a JSON list of
[method, messages, timeout in seconds], and where there is any, metadata as pairs. It prints a list
with what became of each. `plain` does the same without TLS.
"""

import json
import sys
from concurrent import futures
from pathlib import Path

import grpc


def unary(message, context):
    """Sends a message back, with trailers."""
    context.set_trailing_metadata((("x-trailer", "sent"),))
    return message


def stream(messages, context):
    """Sends each message back as it comes."""
    for message in messages:
        yield message
    context.set_trailing_metadata((("x-trailer", "sent"),))


def fail(message, context):
    """Ends with the status code that the message names."""
    code = next(code for code in grpc.StatusCode if code.value[0] == int(message))
    context.set_trailing_metadata((("x-trailer", "sent"),))
    context.abort(code, "as asked")


def wait(message, context):
    """Answers only once the caller is gone."""
    gone = futures.Future()
    context.add_callback(lambda: gone.set_result(None))
    gone.result(60)
    return message


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


def one(channel, method, messages, timeout, metadata=()):
    """Makes one call, and tells what became of it."""
    messages = [message.encode() for message in messages]
    options = {"timeout": timeout, "metadata": [tuple(pair) for pair in metadata]}
    try:
        if method.endswith("/Stream"):
            call = channel.stream_stream(method)(iter(messages), **options)
            answers = list(call)
        else:
            answer, call = channel.unary_unary(method).with_call(messages[0], **options)
            answers = [answer]
    except grpc.RpcError as error:
        call, answers = error, []
    return {
        "code": call.code().value[0],
        "details": call.details(),
        "answers": [answer.decode() for answer in answers],
        "trailers": [pair[1] for pair in call.trailing_metadata() or () if pair[0] == "x-trailer"],
    }


def call(address, folder, calls):
    folder = Path(folder)
    identity = grpc.ssl_channel_credentials(
        (folder / "bundle.pem").read_bytes(),
        (folder / "key.pem").read_bytes(),
        (folder / "svid.pem").read_bytes(),
    )
    options = (("grpc.ssl_target_name_override", "localhost"),)
    with grpc.secure_channel(address, identity, options) as channel:
        print(json.dumps([one(channel, *each) for each in json.loads(calls)]))


def plain(address, calls):
    with grpc.insecure_channel(address) as channel:
        print(json.dumps([one(channel, *each) for each in json.loads(calls)]))


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    {"serve": serve, "call": call, "plain": plain}[mode](*arguments)
