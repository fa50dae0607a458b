import contextlib
import http.server
import importlib.util
import re
import socket
import subprocess
import sys
import threading

import pytest

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
def web_server(status, body, asked=None):
    """Port of a web server that is no TensorFlow Serving, and appends what it is asked for to a list."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if asked is not None:
                asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": {"classes": []}}'])
def test_another_server(run, paths, body):
    with web_server(200, body) as port:
        code, out, err = run("rest", *paths, port=port)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: what answers at .*:{port}/.* is no TensorFlow Serving\n", err)


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
    assert re.fullmatch(r"error: (what answers|cannot reach) .*\n", err)
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
]


@pytest.mark.parametrize("arguments", USAGE)
def test_usage(client, arguments):
    with pytest.raises(SystemExit) as exit:
        client.main(arguments)
    assert exit.value.code == 2
