#!/usr/bin/env python3
"""Sends pictures to TensorFlow Serving and prints the names of their classes with probabilities.

REST needs Python alone, gRPC (--grpc) tensorflow-serving-api.
"""

import argparse
import base64
import http.client
import json
import sys
import urllib.error
import urllib.request

MODEL = "@NAME@"
# Of a request: more pictures the server refuses.
MAX_BATCH_SIZE = int("@MAX_BATCH_SIZE@")
MAX_BATCH_BYTES = 32 * 2**20

PORTS = {"rest": 8501, "grpc": 8500}
# The outputs that are used. All come: a request for these alone would not be batched with others.
OUTPUTS = ("classes", "scores", "decoded")


class ServerError(Exception):
    """The server cannot be reached, or answers with an error."""


def main(argv=None):
    args = _parser().parse_args(argv)
    failed = 0
    try:
        send = _grpc_sender(args) if args.protocol == "grpc" else _rest_sender(args)
        for batch in batches(args.images):
            pictures = [(path, contents) for path, contents in batch if isinstance(contents, bytes)]
            answers = iter(send([contents for _, contents in pictures]) if pictures else [])
            for path, contents in batch:
                answer = next(answers) if isinstance(contents, bytes) else contents
                failed += not report(path, answer, args.top)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(failed > 0)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="path of a JPEG, PNG or WebP file")
    protocol = parser.add_mutually_exclusive_group()
    protocol.add_argument("--rest", dest="protocol", action="store_const", const="rest", help="the default")
    protocol.add_argument("--grpc", dest="protocol", action="store_const", const="grpc")
    parser.set_defaults(protocol="rest")
    parser.add_argument("--host", default="localhost", help="default: %(default)s")
    parser.add_argument("--port", type=_port, help="default: 8501, with --grpc 8500")
    parser.add_argument("--model", default=MODEL, help="its name at the server (default: %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=_positive, help="of the model (default: the highest the server has)")
    which.add_argument("--label", help="of a version, from the server's models.config")
    top = "classes to print, at most those that the server names (default: all)"
    parser.add_argument("--top", type=_positive, help=top)
    parser.add_argument("--timeout", type=float, default=30, help="seconds for a request (default: %(default)s)")
    return parser


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text}")
    return int(text)


def _port(text):
    if _positive(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be below 65536. Received: {text}")
    return int(text)


def batches(paths):
    """Yields lists of pairs of a path and its bytes or the error, each list for one request."""
    batch, size = [], 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                contents = file.read()
        except OSError as error:
            contents = error
        added = len(contents) if isinstance(contents, bytes) else 0
        if batch and (len(batch) == MAX_BATCH_SIZE or size + added > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, contents))
        size += added
    yield batch


def report(path, answer, top):
    """Prints what is known of a picture; returns whether it was classified."""
    if isinstance(answer, OSError):
        print(f"error: {path}: {answer.strerror}", file=sys.stderr)
    elif not answer["decoded"]:
        print(
            f"error: {path}: not a JPEG, PNG or WebP picture, damaged, or too large",
            file=sys.stderr,
        )
    else:
        print(printable(path))
        for name, score in [*zip(answer["classes"], answer["scores"])][:top]:
            print(f"  {100 * score:5.1f} %  {printable(name)}")
        return True
    return False


def printable(text):
    """Text without what would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _rest_sender(args):
    """A function that classifies encoded pictures over REST."""
    chosen = f"/versions/{args.version}" if args.version else f"/labels/{args.label}" if args.label else ""
    url = f"http://{args.host}:{args.port or PORTS['rest']}/v1/models/{args.model}{chosen}:predict"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # straight to the server

    def send(pictures):
        encoded = [{"b64": base64.b64encode(contents).decode()} for contents in pictures]
        body = json.dumps({"signature_name": "serve_jpeg", "inputs": {"encoded": encoded}}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with opener.open(request, timeout=args.timeout) as response:
                outputs = json.load(response)["outputs"]
            return _rows({name: outputs[name] for name in OUTPUTS})
        except urllib.error.HTTPError as error:
            raise ServerError(f"the server answers {error.code}: {_message(error)}") from error
        except TimeoutError as error:
            raise ServerError(f"no answer from {url} within {args.timeout:g} seconds") from error
        except OSError as error:
            raise ServerError(f"cannot reach {url}: {getattr(error, 'reason', error)}") from error
        except (ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            raise ServerError(f"what answers at {url} is no TensorFlow Serving") from error

    return send


def _message(error):
    """What an error of the server's says."""
    text = error.read().decode(errors="replace")
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text.strip() or error.reason


def _grpc_sender(args):
    """A function that classifies encoded pictures over gRPC."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ServerError("--grpc needs tensorflow-serving-api: pip install tensorflow-serving-api") from error
    target = f"{args.host}:{args.port or PORTS['grpc']}"
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),  # straight to the server
    ]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))

    def send(pictures):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = args.model
        request.model_spec.signature_name = "serve_jpeg"
        if args.version:
            request.model_spec.version.value = args.version
        if args.label:
            request.model_spec.version_label = args.label
        encoded = request.inputs["encoded"]
        encoded.dtype = 7  # DT_STRING
        encoded.tensor_shape.dim.add(size=len(pictures))
        encoded.string_val.extend(pictures)
        try:
            outputs = stub.Predict(request, timeout=args.timeout).outputs
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServerError(f"no answer from {target} within {args.timeout:g} seconds") from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise ServerError(f"cannot reach {target}, or it is overloaded: {error.details()}") from error
            raise ServerError(f"the server answers {code.name}: {error.details()}") from error
        return _rows({name: _values(outputs[name]) for name in OUTPUTS})

    return send


def _values(tensor):
    """A tensor of one or two dimensions as nested lists."""
    from tensorflow import make_ndarray

    values = make_ndarray(tensor)
    return [[name.decode(errors="replace") for name in row] for row in values] if tensor.dtype == 7 else values.tolist()


def _rows(outputs):
    """{name: values of all pictures} as a list of {name: values of one}."""
    return [dict(zip(outputs, row)) for row in zip(*outputs.values())]


if __name__ == "__main__":
    sys.exit(main())
