"""Latency, throughput and memory of a served model under concurrent clients, with and without batching.

    python -m benchmarks.serving_load [--model atto] [--clients 1 8 32] [--requests 400] [--rounds 3]

The server is benchmarks.serving_server, a substitute for TensorFlow Serving with protocols in Python, in a separate
process. Clients are threads of this process, on the same cores. Only the ratios between rows are meaningful; TensorFlow
Serving itself is faster. Every request is one JPEG over gRPC, and every answer is compared with the model's.
"""

import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import contest
from benchmarks.measure import Spread, rotated
from benchmarks.report import ROOT, conditions

SERVERS = {"without batching": [], "with batching": ["--batching"]}
SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "classes": 5, "input_shape": (64, 64, 3)}
PICTURE = (360, 480)
PICTURES = 8
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Load:
    """The measurement of a load: seconds of each request, total seconds, the server's memory at the end in bytes."""

    latencies: list
    seconds: float
    memory: int

    @property
    def rate(self):
        return len(self.latencies) / self.seconds

    def percentile(self, percent):
        return float(np.percentile(self.latencies, percent))


class Server:
    """The substitute server in a separate process, which ends with this context."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "benchmarks.serving_server", str(folder), *options]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The server did not start; what it said is above")
        self.grpc_port, self.rest_port = map(int, line.split())
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def memory(self):
        """Returns the server's current memory in bytes; 0 if it cannot be measured."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


def jpeg_sender(port, timeout=60):
    """Returns a function that sends encoded pictures over gRPC and returns probabilities `(N, classes)`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))

    def send(pictures):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "convnextv2"
        request.model_spec.signature_name = "serve_jpeg"
        request.inputs["encoded"].CopyFrom(tf.make_tensor_proto(pictures))
        return tf.make_ndarray(stub.Predict(request, timeout=timeout).outputs["probabilities"])

    return send


def load(server, pictures, expected, requests, clients):
    """Lets concurrent clients send single pictures, one after the other, and checks all answers.

    Args:
        server: `Server`.
        pictures: Encoded pictures.
        expected: Array of their probabilities.
        requests: Int, the number of requests of all clients together.
        clients: Int, the number of clients.

    Returns:
        A `Load`.
    """
    numbers, latencies, errors = iter(range(requests)), [], []
    lock = threading.Lock()

    def client():
        send = jpeg_sender(server.grpc_port)
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                start = time.perf_counter()
                answer = send([pictures[number % len(pictures)]])
                latencies.append(time.perf_counter() - start)
                np.testing.assert_allclose(answer[0], expected[number % len(pictures)], rtol=0, atol=TOLERANCE)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Load(latencies, time.perf_counter() - start, server.memory())


def made_up_pictures():
    """Returns JPEGs of smooth colour noise."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (PICTURES, 12, 16, 3)).astype("float32")
    pixels = tf.cast(tf.clip_by_value(tf.image.resize(small, PICTURE, "bicubic"), 0, 255), tf.uint8)
    return [tf.io.encode_jpeg(image).numpy() for image in pixels]


def build(name):
    """Builds a model of a published size with initial weights; "small" is a model with a few thousand weights."""
    import keras

    import keras_cnv2

    keras.utils.set_random_seed(0)
    if name == "small":
        return keras_cnv2.ConvNeXtV2(**SMALL)
    size = keras_cnv2.sizes.get_size(name)
    return keras_cnv2.ConvNeXtV2(size.depths, size.dims, input_shape=(224, 224, 3))


def table(rows, rounds):
    """Returns a Markdown table of {(server, clients): list of `Load`}, with the medians of the rounds."""
    lines = ["| | clients | p50, ms | p99, ms | requests/s (spread) | memory, MB |", "|---|---|---|---|---|---|"]
    for (name, clients), loads in rows.items():
        p50, p99 = (statistics.median(each.percentile(percent) for each in loads) * 1e3 for percent in (50, 99))
        rate = Spread.of(each.rate for each in loads)
        spread = f"{rate.median:.0f} ({rate.low:.0f} to {rate.high:.0f})"
        memory = max(each.memory for each in loads) / 1e6
        lines.append(f"| {name} | {clients} | {p50:.1f} | {p99:.1f} | {spread} | {memory:.0f} |")
    return "\n".join([*lines, "", f"Medians of {rounds} rounds."])


def write_csv(path, rows):
    """Writes one row for each round, from which the table's medians are computed."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("server", "clients", "round", "p50_seconds", "p99_seconds", "requests_per_second", "memory"))
        for (name, clients), loads in rows.items():
            for number, each in enumerate(loads):
                figures = each.percentile(50), each.percentile(99), each.rate
                writer.writerow((name, clients, number, *(f"{figure:.6f}" for figure in figures), each.memory))


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--model", default="atto", help='a size, or "small" (default: %(default)s)')
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=400, help="a round (default: %(default)s)")
    args = parser.parse_args(argv)

    from keras_cnv2 import load_image
    from keras_cnv2.export.serving.export import export_serving

    model, pictures = build(args.model), made_up_pictures()
    expected = model.predict_on_batch(np.stack([load_image(each, model.image_size) for each in pictures]))
    rows = {(name, clients): [] for clients in args.clients for name in SERVERS}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        version = export_serving(model, Path(folder) / "serving")
        servers = {name: Server(version, *options) for name, options in SERVERS.items()}  # start in parallel
        for server in servers.values():
            stack.enter_context(server)
        for server in servers.values():
            load(server, pictures, expected, 4 * max(args.clients), max(args.clients))  # warm-up
        for number in range(args.rounds):
            for clients in args.clients:
                for name, server in rotated(servers, number).items():
                    rows[name, clients].append(load(server, pictures, expected, args.requests, clients))
    title = f"Serving {args.model}, one {PICTURE[1]} x {PICTURE[0]} JPEG a request over gRPC, stand-in server"
    head = f"{title}. " + ", ".join(f"{name} {value}" for name, value in conditions().items())
    text = f"{head}\n\n{table(rows, args.rounds)}"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "serving_load.md").write_text(f"{text}\n")
        write_csv(args.out / "serving_load.csv", rows)


if __name__ == "__main__":
    main()
