#!/usr/bin/env python3
"""Sends image files to TensorFlow Serving and prints the names of their classes with probabilities, or their objects.

REST needs only Python; gRPC (--grpc) needs the package tensorflow-serving-api.
"""

import argparse
import base64
import contextlib
import http.client
import json
import math
import os
import queue
import stat
import sys
import threading
import urllib.parse

MODEL = "@NAME@"
# Limits of a request. The server refuses larger batches.
MAX_BATCH_SIZE = int("@MAX_BATCH_SIZE@")
MAX_BATCH_BYTES = 32 * 2**20
# Limits of an answer: bytes, and values in one of its tensors. TensorFlow Serving sends nothing larger for this model.
MAX_ANSWER_BYTES = max(64, 2 * MAX_BATCH_SIZE) * 2**20  # 100 masks of a picture have 1.5 MiB as text
MAX_VALUES = 2**24
LARGEST = 1e300
# Characters of a server's error message to print.
MAX_MESSAGE = 500

PORTS = {"rest": 8501, "grpc": 8500}
# The outputs to read, the last two of detectors only. The request asks for all outputs, because the server batches only
# requests for the same outputs.
OUTPUTS = ("classes", "scores", "decoded")
OF_DETECTORS = ("boxes", "count")


class ServerError(Exception):
    """The server cannot be reached, or answers with an error."""


def main(argv=None):
    args = _parser().parse_args(argv)
    failed = 0
    try:
        send = _grpc_sender(args) if args.protocol == "grpc" else _rest_sender(args)
        for batch in batches(args.images):
            pictures = [(path, contents) for path, contents in batch if isinstance(contents, bytes)]
            answers = iter(rows(send, [contents for _, contents in pictures]) if pictures else [])
            for path, contents in batch:
                answer = next(answers) if isinstance(contents, bytes) else contents
                failed += not report(path, answer, args.top)
    except ServerError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(failed > 0)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        super().error(printable(message))


def _parser():
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="path of a JPEG, PNG or WebP file")
    protocol = parser.add_mutually_exclusive_group()
    protocol.add_argument("--rest", dest="protocol", action="store_const", const="rest", help="the default")
    protocol.add_argument("--grpc", dest="protocol", action="store_const", const="grpc")
    parser.set_defaults(protocol="rest")
    parser.add_argument("--host", type=_text, default="localhost", help="default: %(default)s")
    parser.add_argument("--port", type=_port, help="default: 8501, with --grpc 8500")
    parser.add_argument("--model", type=_text, default=MODEL, help="name on the server (default: %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=_positive, help="version of the model (default: the highest on the server)")
    which.add_argument("--label", type=_text, help="label of a version in the server's models.config")
    top = "number of classes or objects to print, at most as many as the server returns (default: all)"
    parser.add_argument("--top", type=_positive, help=top)
    parser.add_argument("--timeout", type=_seconds, default=30, help="seconds per request (default: %(default)s)")
    return parser


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text}")
    return int(text)


def _text(text):
    try:
        text.encode()
    except UnicodeEncodeError as error:  # lone surrogates stand for bytes that are not UTF-8
        raise argparse.ArgumentTypeError(f"must be text in UTF-8. Received: {text}") from error
    return text


def _seconds(text):
    if not 0 < float(text) <= 86400:
        raise argparse.ArgumentTypeError(f"must be seconds, up to a day. Received: {text}")
    return float(text)


def _port(text):
    if _positive(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be below 65536. Received: {text}")
    return int(text)


def batches(paths):
    """Yields the batch for each request: a list of pairs (path, bytes of the file or the error)."""
    batch, size = [], 0
    for path in paths:
        try:
            contents = _read(path)
        except OSError as error:
            contents = error
        added = len(contents) if isinstance(contents, bytes) else 0
        if batch and (len(batch) == MAX_BATCH_SIZE or size + added > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, contents))
        size += added
    yield batch


def _read(path):
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe may never end
        raise OSError(0, "Not a file")
    with open(path, "rb") as file:
        return file.read()


def rows(send, pictures):
    """Sends encoded images and returns the server's answer, a dict {output name: value} for each image.

    Raises:
        ServerError: If the server cannot be reached, or the answer is not that of a classifier or detector.
    """
    where, outputs = send(pictures)
    try:
        columns = outputs()
        if "decoded" in columns and "classes" not in columns:
            raise ServerError(f"the model at {where} returns no class names: use a program of your own to query it")
        names = OUTPUTS + OF_DETECTORS if OF_DETECTORS[0] in columns else OUTPUTS
        columns = [columns[name] for name in names]
        if {*map(len, columns)} != {len(pictures)}:
            raise ValueError("not as many rows as pictures")
        found = [dict(zip(names, row)) for row in zip(*columns)]
        for row in found:
            _check(**row)
        return found
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ServerError(f"the answer from {where} is not that of TensorFlow Serving") from error


def _check(classes, scores, decoded, boxes=None, count=None):
    if not (isinstance(classes, list) and isinstance(scores, list) and isinstance(decoded, bool)):
        raise TypeError("not lists and a truth value")
    if len(classes) != len(scores) or not all(isinstance(name, str) for name in classes):
        raise TypeError("not a name for each score")
    if not all(map(_is_number, scores)):
        raise TypeError("scores that are no numbers")
    if boxes is not None:
        if type(count) is not int or not 0 <= count <= len(classes) or len(boxes) != len(classes):
            raise ValueError("not a box for each object")
        if not all(isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in boxes):
            raise TypeError("boxes that are not four numbers")


def _is_number(value):
    return type(value) in (int, float) and not abs(value) > LARGEST


def report(path, answer, top):
    """Prints the classes or objects of an image file, or the error. Returns whether there was none."""
    if isinstance(answer, OSError):
        print(f"error: {printable(path)}: {answer.strerror}", file=sys.stderr)
    elif not answer["decoded"]:
        print(
            f"error: {printable(path)}: not a JPEG, PNG or WebP picture, damaged, or too large",
            file=sys.stderr,
        )
    else:
        print(printable(path))
        found = answer.get("count", len(answer["classes"]))
        boxes = answer.get("boxes") or [[]] * found
        for name, score, box in [*zip(answer["classes"], answer["scores"], boxes)][:found][:top]:
            print(f"  {100 * score:5.1f} %  {_box(box)}{printable(name)}")
        if not found:
            print("  nothing found")
        return True
    return False


def _box(box):
    """The sides of an object's box: left, top, right, bottom in pixels; empty for a class."""
    return "".join(f"{side:7.1f} " for side in box) + " " * bool(box)


def printable(text):
    """Replaces the characters of a text that cannot be printed, such as those that control a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _rest_sender(args):
    """Returns a function that sends encoded images over REST.

    That function returns the address of the server, and a function that parses the answer.
    """
    model, port = urllib.parse.quote(args.model, safe=""), args.port or PORTS["rest"]
    chosen = f"/versions/{args.version}" if args.version else ""
    chosen = f"/labels/{urllib.parse.quote(args.label, safe='')}" if args.label else chosen
    path = f"/v1/models/{model}{chosen}:predict"
    where = f"http://{_bracketed(args.host)}:{port}{path}"

    def post(body):
        # `http.client` connects directly to the server: it uses no proxy and follows no redirects.
        connection = http.client.HTTPConnection(args.host.strip("[]"), port, timeout=args.timeout)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise ServerError(f"the answer of {where} is larger than {MAX_ANSWER_BYTES} bytes")
        if response.status != 200:
            raise ServerError(f"the server answers {response.status}: {_message(content, response)}")
        return content

    def send(pictures):
        encoded = [{"b64": base64.b64encode(contents).decode()} for contents in pictures]
        body = json.dumps({"signature_name": "serve_jpeg", "inputs": {"encoded": encoded}}).encode()
        try:
            content = _within(args.timeout, post, body)
        except TimeoutError as error:
            raise ServerError(f"no answer from {where} within {args.timeout:g} seconds") from error
        except (OSError, ValueError) as error:
            raise ServerError(f"cannot reach {where}: {error}") from error
        except http.client.HTTPException as error:
            raise ServerError(f"the answer from {where} is not that of TensorFlow Serving") from error
        return where, lambda: json.loads(content)["outputs"]

    return send


def _within(seconds, call, *args):
    """Returns or raises what `call(*args)` does, or raises a `TimeoutError` after `seconds`.

    The timeout of a connection is not enough: it applies to each socket operation, of which a slow server can cause
    many.
    """
    results = queue.SimpleQueue()

    def run():
        try:
            results.put((call(*args), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return result


def _message(content, response):
    """Returns the text of an error response."""
    if location := response.headers["Location"]:
        return f"it redirects to {location[:MAX_MESSAGE]}"
    text = content.decode(errors="replace")
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = text.strip() or response.reason
    return text[:MAX_MESSAGE]


def _bracketed(host):
    """Returns a host in the form for `host:port`: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _grpc_sender(args):
    """Like `_rest_sender`, but over gRPC."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ServerError("--grpc needs tensorflow-serving-api: pip install tensorflow-serving-api") from error
    target = f"{_bracketed(args.host)}:{args.port or PORTS['grpc']}"
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.enable_http_proxy", 0),  # connect directly to the server
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
            code, details = error.code(), str(error.details())[:MAX_MESSAGE]
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServerError(f"no answer from {target} within {args.timeout:g} seconds") from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise ServerError(f"cannot reach {target}, or it is overloaded: {details}") from error
            raise ServerError(f"the server answers {code.name}: {details}") from error
        return target, lambda: {name: _values(outputs[name]) for name in OUTPUTS + OF_DETECTORS if name in outputs}

    return send


def _values(tensor):
    """Converts a TensorProto to nested lists."""
    from tensorflow import make_ndarray

    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if min(sizes, default=0) < 0 or math.prod(sizes) > MAX_VALUES:  # a tensor of a few bytes can declare any size
        raise ValueError(f"a tensor of shape {sizes}")
    values = make_ndarray(tensor)
    return [[name.decode(errors="replace") for name in row] for row in values] if tensor.dtype == 7 else values.tolist()


if __name__ == "__main__":
    sys.exit(main())
