import concurrent.futures
import contextlib
import http.server
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.serving_server import ModelServer
from tests.export.serving import serving_folder

PROTOCOLS = ("rest", "grpc")


@pytest.fixture(scope="module")
def server():
    with ModelServer(serving_folder.session(), version=3) as server:
        yield server


@pytest.fixture(scope="module")
def client():
    """The client as a module."""
    spec = importlib.util.spec_from_file_location("client", serving_folder.folder() / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def paths(tmp_path):
    """The pictures as files."""
    paths = [tmp_path / f"{number}.picture" for number in range(len(serving_folder.pictures()))]
    for path, picture in zip(paths, serving_folder.pictures()):
        path.write_bytes(picture)
    return [str(path) for path in paths]


def port_of(server, protocol):
    return str(getattr(server, f"{protocol}_port"))


def lines_of(paths, top=5):
    """What the client prints of the pictures, by the Keras model."""
    for path, row in zip(paths, serving_folder.expected()):
        yield path
        yield from (f"  {100 * score:5.1f} %  {name}" for name, score in serving_folder.best(row, top))


def assert_prints(out, paths, top=5):
    received, expected = out.splitlines(), [*lines_of(paths, top)]
    assert len(received) == len(expected)
    for line, other in zip(received, expected):
        if line != other:  # the last digit may be rounded otherwise
            figure, _, name = line.partition(" %  ")
            assert name == other.partition(" %  ")[2]
            assert abs(float(figure) - float(other.partition(" %  ")[0])) < 0.11


@pytest.mark.parametrize("protocol", ["rest", pytest.param("grpc", marks=pytest.mark.slow)])  # imports TensorFlow
def test_as_a_program(server, paths, protocol):
    # REST without any installed package: -S leaves them out.
    options = ["-S"] if protocol == "rest" else []
    command = [sys.executable, "-I", *options, serving_folder.folder() / "client.py", f"--{protocol}"]
    run = subprocess.run([*command, "--port", port_of(server, protocol), *paths], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert_prints(run.stdout, paths)
    if protocol == "rest":
        assert run.stderr == ""


@pytest.fixture
def run(client, server, capsys):
    """Runs the client in this process: exit code, what it prints and its errors."""

    def run(protocol, *arguments, port=None):
        code = client.main([f"--{protocol}", "--port", str(port or port_of(server, protocol)), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestAnswers:
    def test_top(self, run, paths, protocol):
        code, out, err = run(protocol, "--top", "2", *paths)
        assert (code, err) == (0, "")
        assert_prints(out, paths, top=2)

    def test_several_requests(self, run, client, monkeypatch, paths, protocol):
        sizes = []
        batches = client.batches
        monkeypatch.setattr(client, "batches", lambda paths: [sizes.append(len(b)) or b for b in batches(paths)])
        many = paths * 3
        code, out, _ = run(protocol, *many)
        assert code == 0
        assert out.splitlines()[::6] == many
        assert sizes == [8, 8, 2]
        sizes.clear()
        monkeypatch.setattr(client, "MAX_BATCH_BYTES", 1)
        assert run(protocol, *paths)[0] == 0
        assert sizes == [1] * len(paths)

    def test_version(self, run, paths, protocol):
        assert run(protocol, "--version", "3", *paths)[0] == 0
        code, out, err = run(protocol, "--version", "4", *paths)
        assert (code, out) == (1, "")
        assert re.fullmatch("error: the server answers (404|NOT_FOUND): Servable not found.*version 4\n", err)

    def test_bad_pictures(self, run, paths, tmp_path, protocol):
        truncated = tmp_path / "truncated.jpg"
        truncated.write_bytes(serving_folder.pictures()[0][:300])
        text = tmp_path / "text.jpg"
        text.write_text("no picture")
        missing = tmp_path / "missing.jpg"
        code, out, err = run(protocol, paths[0], str(truncated), str(missing), str(text), str(tmp_path), paths[1])
        assert code == 1
        assert_prints(out, paths[:2])
        no_picture = "not a JPEG, PNG or WebP picture, damaged, or too large"
        assert err.splitlines() == [
            f"error: {truncated}: {no_picture}",
            f"error: {missing}: No such file or directory",
            f"error: {text}: {no_picture}",
            f"error: {tmp_path}: Is a directory",
        ]

    def test_no_picture_that_can_be_read(self, run, tmp_path, protocol):
        code, out, err = run(protocol, str(tmp_path / "missing.jpg"), port=1)  # nobody is asked
        assert (code, out) == (1, "")
        assert err == f"error: {tmp_path / 'missing.jpg'}: No such file or directory\n"

    def test_unknown_model(self, run, paths, protocol):
        code, out, err = run(protocol, "--model", "another", *paths)
        assert (code, out) == (1, "")
        assert re.fullmatch("error: the server answers (404|NOT_FOUND): Servable not found.*another.*\n", err)

    def test_unreachable(self, run, paths, protocol):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            code, out, err = run(protocol, "--timeout", "5", *paths, port=port)
        assert (code, out) == (1, "")
        assert re.match(rf"error: cannot reach .*localhost:{port}", err)
        assert len(err.splitlines()) == 1

    def test_no_answer(self, run, paths, protocol):
        with socket.create_server(("localhost", 0)) as silent:
            port = silent.getsockname()[1]
            code, out, err = run(protocol, "--timeout", "0.5", *paths, port=port)
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"error: no answer from .*localhost:{port}.* within 0.5 seconds\n", err)


@contextlib.contextmanager
def web_server(status, body, asked=None, headers=None):
    """Port of a web server that is no TensorFlow Serving, and appends what it is asked for to a list."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if asked is not None:
                asked.append(self.path)
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have read enough
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


BOXES = [[1, 2, 3.5, 4], [5, 6, 7, 8]]


def answer(classes=None, scores=None, decoded=None, count=6, boxes=None, objects=None):
    """The body of an answer for the pictures; one output may be given in place of a good one."""
    good = {"classes": [["a", "b"]] * count, "scores": [[0.75, 0.25]] * count, "decoded": [True] * count}
    given = {"classes": classes, "scores": scores, "decoded": decoded, "boxes": boxes, "count": objects}
    return json.dumps({"outputs": {**good, **{k: v for k, v in given.items() if v is not None}}}).encode()


def test_answer_of_right_shape(run, paths):
    with web_server(200, answer()) as port:
        code, out, err = run("rest", *paths, port=port)
    assert (code, err) == (0, "")
    assert out.splitlines() == [line for path in paths for line in (path, "   75.0 %  a", "   25.0 %  b")]


def test_answer_of_a_detector(run, paths):
    """It has a box for each object, and padding from the number of objects on."""
    with web_server(200, answer(boxes=[BOXES] * 6, objects=[0, 1, 2, 2, 2, 2])) as port:
        code, out, err = run("rest", *paths, port=port)
        _, top, _ = run("rest", "--top", "1", paths[2], *paths[:5], port=port)
    assert (code, err) == (0, "")
    first, second = "   75.0 %      1.0     2.0     3.5     4.0  a", "   25.0 %      5.0     6.0     7.0     8.0  b"
    assert out.splitlines()[:7] == [paths[0], "  nothing found", paths[1], first, paths[2], first, second]
    assert second not in top


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"outputs": 1}',
        b'{"outputs": {"classes": []}}',
        b"[" * 100_000,
        b"1" * 10_000,
        b"\xff\xfe",
        answer(count=5),
        answer(count=7),
        answer(classes=1),
        answer(classes="abcdef"),
        answer(classes=["a"] * 6),
        answer(classes=[["a", 1]] * 6),
        answer(classes=[["a"]] * 6),
        answer(scores=[["1", "2"]] * 6),
        answer(scores=[[1, None]] * 6),
        answer(scores=[[1, 10**400]] * 6),
        answer(scores=[{"a": 1}] * 6),
        answer(decoded=["yes"] * 6),
        answer(decoded=[[True]] * 6),
        answer(decoded={str(n): True for n in range(6)}),
        answer(boxes=[BOXES[:1]] * 6, objects=[2] * 6),
        answer(boxes=[BOXES] * 6, objects=[3] * 6),
        answer(boxes=[BOXES] * 6, objects=[True] * 6),
        answer(boxes=[[[1, 2, 3], [1, 2, 3, 4]]] * 6, objects=[2] * 6),
        answer(boxes=[[["1", 2, 3, 4], [1, 2, 3, 4]]] * 6, objects=[2] * 6),
        answer(boxes=[BOXES] * 6),
    ],
)
def test_another_server(run, paths, body):
    with web_server(200, body) as port:
        code, out, err = run("rest", *paths, port=port)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: the answer from .*:{port}/.* is not that of TensorFlow Serving\n", err)


def test_model_of_numbers(run, paths):
    """One without softmax or sigmoid: the client has no names to print."""
    body = json.dumps({"outputs": {"logits": [[1.5]] * 6, "decoded": [True] * 6}}).encode()
    with web_server(200, body) as port:
        code, out, err = run("rest", *paths, port=port)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: the model at .*:{port}/.* returns no class names.*\n", err)


def test_answer_without_an_end(run, client, paths, monkeypatch):
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1000)
    with web_server(200, b" " * 1_000_000) as port:
        code, out, err = run("rest", *paths, port=port)
    assert (code, out) == (1, "")
    assert re.fullmatch("error: the answer of .* is larger than 1000 bytes\n", err)


def test_answer_that_comes_drop_by_drop(run, paths):
    """Each step of the connection is quick enough."""

    def drip(server):
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    with socket.create_server(("localhost", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        start = time.monotonic()
        code, out, err = run("rest", "--timeout", "0.5", *paths, port=server.getsockname()[1])
    assert time.monotonic() - start < 5
    assert (code, out) == (1, "")
    assert re.fullmatch("error: no answer from .* within 0.5 seconds\n", err)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(run, paths, status):
    asked = []
    with web_server(200, answer(), asked) as other:
        place = f"http://127.0.0.1:{other}/v1/models/x"
        with web_server(status, b"", headers={"Location": place}) as port:
            code, out, err = run("rest", *paths, port=port)
    assert (code, out, asked) == (1, "", [])
    assert err == f"error: the server answers {status}: it redirects to {place}\n"


def test_answer_cannot_steer_the_terminal(run, paths, tmp_path):
    with web_server(500, b'{"error": "\x1b[2J\\u001b]0;x\\u0007\\n\\r' + b"y" * 10_000 + b'"}') as port:
        code, _, err = run("rest", *paths, port=port)
    assert code == 1
    assert len(err) < 600
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    with web_server(200, answer(classes=[["\x1b[2J", "\udc80"]] * 6)) as port:
        _, out, _ = run("rest", *paths, port=port)
    assert out.splitlines()[1:3] == ["   75.0 %  ?[2J", "   25.0 %  ?"]
    (tmp_path / "a\x1b[2J.jpg").mkdir()
    _, _, err = run("rest", str(tmp_path / "a\x1b[2J.jpg"))
    assert err == f"error: {tmp_path}/a?[2J.jpg: Is a directory\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipe_without_an_end(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert run("rest", str(tmp_path / "pipe.jpg"), port=1) == (1, "", f"error: {tmp_path / 'pipe.jpg'}: Not a file\n")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_server_at_ipv6(run, paths, host):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:

        def say():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")

        threading.Thread(target=say, daemon=True).start()
        code, _, err = run("rest", "--host", host, *paths, port=server.getsockname()[1])
    assert (code, err) == (1, "error: the server answers 404: none\n")


@pytest.mark.parametrize("sizes", [[6, 2**40], [-1], [2**62, 2**62], [6]])
def test_grpc_answer_of_wrong_shape(run, paths, sizes):
    """A few bytes of TensorFlow's message claim tensors of any size."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            response = predict_pb2.PredictResponse()
            for name in ("classes", "scores", "decoded"):
                tensor = response.outputs[name]
                tensor.dtype = 1
                tensor.float_val.append(1.0)
                for size in sizes:
                    tensor.tensor_shape.dim.add(size=size)
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        code, out, err = run("grpc", *paths, port=port)
    finally:
        server.stop(None)
    assert (code, out) == (1, "")
    assert err == f"error: the answer from localhost:{port} is not that of TensorFlow Serving\n"


@pytest.mark.parametrize(("body", "message"), [(b'{"error": "busy"}', "busy"), (b"oops", "oops"), (b"", "Service")])
def test_error_of_the_server(run, paths, body, message):
    with web_server(503, body) as port:
        code, _, err = run("rest", *paths, port=port)
    assert code == 1
    assert err.startswith(f"error: the server answers 503: {message}")


def test_grpc_without_its_package(run, paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    code, _, err = run("grpc", *paths)
    assert (code, err) == (1, "error: --grpc needs tensorflow-serving-api: pip install tensorflow-serving-api\n")


def test_label_is_sent(run, paths):
    # The stand-in has no labels.
    asked = []
    with web_server(404, b"", asked) as port:
        run("rest", "--label", "stable", *paths, port=port)
    assert asked == ["/v1/models/convnextv2/labels/stable:predict"]


def test_names_cannot_steer_the_terminal(client):
    assert client.printable("a\x1b[31m\nb ü") == "a?[31m?b ü"


def test_ports_mixed_up(run, server, paths):
    code, out, err = run("rest", *paths, port=server.grpc_port)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: (the answer from|cannot reach) .*\n", err)
    code, out, err = run("grpc", *paths, port=server.rest_port)
    assert (code, out) == (1, "")
    assert re.match("error: cannot reach ", err)


USAGE = [
    [],
    ["--rest", "--grpc", "a"],
    ["--version", "1", "--label", "x", "a"],
    ["--port", "65536", "a"],
    ["--port", "0", "a"],
    ["--top", "-1", "a"],
    ["--timeout", "0", "a"],
    ["--timeout", "nan", "a"],
    ["--timeout", "inf", "a"],
    ["--model", "\udcff", "a"],
    ["--label", "\udcff", "a"],
    ["--grpc", "--host", "\udcff", "a"],
]


@pytest.mark.parametrize("arguments", USAGE)
def test_usage(client, arguments):
    with pytest.raises(SystemExit) as exit:
        client.main(arguments)
    assert exit.value.code == 2
