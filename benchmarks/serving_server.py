"""A substitute for TensorFlow Serving, for tests and benchmarks on machines without it: Predict, metadata and status.

    python -m benchmarks.serving_server FOLDER [--batching] [--max-batch-size 32]

serves the SavedModel in FOLDER over gRPC and REST at free ports of the loopback interface, prints the ports, and ends
when its standard input ends. The model runs in TensorFlow's C++ runtime. The protocols are implemented in Python and
slower than the original ones.
"""

import argparse
import base64
import binascii
import contextlib
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from benchmarks.serving_session import BatchingSession, SavedModelSession

THREADS = 32
# Maximum size of a message in bytes. TensorFlow Serving has the same limit for gRPC and none for REST.
MAX_BYTES = 2**31 - 1
# Maximum size in bytes of a tensor that a request declares. TensorFlow Serving has no such limit.
MAX_TENSOR = 2**28
HTTP_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.FAILED_PRECONDITION: 412,
    tf.errors.NOT_FOUND: 404,
    tf.errors.UNAVAILABLE: 503,
}
CODES = {code.value[0]: code for code in grpc.StatusCode}


class ModelServer:
    """Serves a SavedModel at free ports of the loopback interface until the end of this context.

    Args:
        session: `SavedModelSession` or `BatchingSession`.
        name: Name of the model.
        version: Int, version of the model.
    """

    def __init__(self, session, name="convnextv2", version=1):
        self.session, self.name, self.version = session, name, version
        options = [("grpc.max_receive_message_length", MAX_BYTES), ("grpc.max_send_message_length", MAX_BYTES)]
        self._grpc = grpc.server(ThreadPoolExecutor(THREADS), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(self), self._grpc)
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": self}))
        self.rest_port = self._http.server_port

    def __enter__(self):
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(5).wait()

    def check_model(self, name, version):
        """Raises `NotFoundError` for a model that is not served; versions are ints or `None`."""
        if name != self.name or version not in (None, self.version):
            raise tf.errors.NotFoundError(None, None, f"Servable not found for request: {name}, version {version}")

    def metadata(self):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.session.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        return signatures


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            self._server.check_model(spec.name, spec.version.value if spec.HasField("version") else None)
            inputs = {alias: _array(alias, tensor) for alias, tensor in request.inputs.items()}
            outputs = self._server.session.run(spec.signature_name or "serving_default", inputs)
        except tf.errors.OpError as error:
            context.abort(CODES[error.error_code], error.message)
        response = predict_pb2.PredictResponse(model_spec=spec)
        response.model_spec.version.value = self._server.version
        for alias, values in outputs.items():
            response.outputs[alias].CopyFrom(tf.make_tensor_proto(values))
        return response

    def GetModelMetadata(self, request, context):
        try:
            self._server.check_model(request.model_spec.name, None)
        except tf.errors.OpError as error:
            context.abort(CODES[error.error_code], error.message)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        response.metadata["signature_def"].Pack(self._server.metadata())
        return response


def _array(alias, tensor):
    """Converts a tensor of a request to an array."""
    claimed = np.prod([float(dim.size) for dim in tensor.tensor_shape.dim])
    if claimed * tf.dtypes.as_dtype(tensor.dtype or 1).size > MAX_TENSOR:
        raise tf.errors.InvalidArgumentError(None, None, f"tensor parsing error: {alias}")
    try:
        return tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        raise tf.errors.InvalidArgumentError(None, None, f"tensor parsing error: {alias}") from error


class _Handler(BaseHTTPRequestHandler):
    PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata|:predict)?")
    protocol_version = "HTTP/1.1"
    server_ = None

    def do_GET(self):
        self._answer({None: self._status, "/metadata": self._metadata})

    def do_POST(self):
        self._answer({":predict": self._predict})

    def _answer(self, methods):
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BYTES))
        match = self.PATH.fullmatch(self.path)
        if not match or match[3] not in methods:
            return self._send(404, {"error": f"Malformed request: {self.command} {self.path}"})
        try:
            self.server_.check_model(match[1], match[2] and int(match[2]))
            self._send(200, methods[match[3]](body))
        except tf.errors.OpError as error:
            self._send(HTTP_STATUS.get(error.error_code, 500), {"error": error.message})

    def _send(self, status, content):
        encoded = json.dumps(content, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass

    def _status(self, _):
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.server_.version), "state": "AVAILABLE", "status": status}
        return {"model_version_status": [version]}

    def _metadata(self, _):
        signatures = json_format.MessageToDict(self.server_.metadata(), preserving_proto_field_name=True)
        spec = {"name": self.server_.name, "version": str(self.server_.version)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    def _predict(self, body):
        session = self.server_.session
        try:
            request = json.loads(body)
            name = request.get("signature_name", "serving_default")
            rows = "instances" in request
            given = request["instances"] if rows else request["inputs"]
            signature = session.signatures.get(name)
            inputs = _tensors(given, rows, signature.inputs) if signature else {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise tf.errors.InvalidArgumentError(None, None, f"JSON Parse error: {error}") from error
        outputs = {alias: _json(values) for alias, values in session.run(name, inputs).items()}
        return (
            {"predictions": [dict(zip(outputs, row)) for row in zip(*outputs.values())]}
            if rows
            else {"outputs": outputs}
        )


def _tensors(given, rows, infos):
    """Converts the inputs of a JSON request to arrays: "instances" if `rows`, else "inputs"."""
    if rows and given and isinstance(given[0], dict) and "b64" not in given[0]:
        given = {alias: [row[alias] for row in given] for alias in infos}
    if not isinstance(given, dict):
        (alias,) = infos
        given = {alias: given}
    dtypes = {alias: tf.dtypes.as_dtype(info.dtype).as_numpy_dtype for alias, info in infos.items()}
    return {alias: np.array(_decoded(values), dtypes.get(alias)) for alias, values in given.items()}


def _decoded(values):
    """Decodes each {"b64": ...} in nested lists to bytes."""
    if isinstance(values, list):
        return [_decoded(value) for value in values]
    if isinstance(values, dict):
        try:
            return base64.b64decode(values["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from error
    return values.encode() if isinstance(values, str) else values


def _json(values):
    if values.dtype == object:
        return np.vectorize(lambda text: text.decode(errors="replace"), otypes=[object])(values).tolist()
    return values.tolist()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--batching", action="store_true")
    parser.add_argument("--max-batch-size", type=int, default=32)
    args = parser.parse_args(argv)
    tf.get_logger().setLevel("ERROR")  # hides the warning that sessions are deprecated
    session = SavedModelSession(args.folder)
    if args.batching:
        session = BatchingSession(session, args.max_batch_size)
    with ModelServer(session) as server, contextlib.suppress(KeyboardInterrupt):
        print(server.grpc_port, server.rest_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
