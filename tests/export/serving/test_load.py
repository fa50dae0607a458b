"""Many clients at once, and some that send nonsense."""

import base64
import json
import queue
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from benchmarks import serving_load
from benchmarks.serving_server import ModelServer
from benchmarks.serving_session import BatchingSession
from tests.export.serving import serving_folder
from tests.export.small import png_that_claims

BATCHING = {
    "without": None,
    "batching": {"max_batch_size": 8},
    "batching, filled up": {"max_batch_size": 8, "allowed": (4, 8)},
}
INVALID, FAILED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module", params=BATCHING)
def server(request):
    arguments, session = BATCHING[request.param], serving_folder.session()
    session = BatchingSession(session, **arguments) if arguments else session
    with ModelServer(session) as server:
        yield server
    if arguments:
        session.close()


def stub_of(server):
    return prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))


def predict(stub, signature, **inputs):
    """Over gRPC. Inputs are arrays, lists of bytes or TensorProtos."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "convnextv2"
    request.model_spec.signature_name = signature
    for alias, values in inputs.items():
        proto = values if isinstance(values, tensor_pb2.TensorProto) else tf.make_tensor_proto(values)
        request.inputs[alias].CopyFrom(proto)
    outputs = stub.Predict(request, timeout=60).outputs
    return {alias: tf.make_ndarray(tensor) for alias, tensor in outputs.items()}


def post(server, body, path="/v1/models/convnextv2:predict"):
    """Over REST: status and content."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.rest_port}{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def b64(contents):
    return {"b64": base64.b64encode(contents).decode()}


def images(count=1, height=64, width=64, channels=3, dtype="float32"):
    return np.full((count, height, width, channels), 100, dtype)


def claim(*shape):
    """A few bytes that claim a large tensor."""
    proto = tf.make_tensor_proto(np.float32(0))
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return proto


def refused(call, *codes):
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() in codes, error.value
    assert error.value.details()


class TestMetadata:
    def test_of_both_protocols(self, server):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "convnextv2"
        packed = stub_of(server).GetModelMetadata(request, timeout=10).metadata["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert packed.Unpack(signatures)
        assert set(signatures.signature_def) == serving_folder.SIGNATURES
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/convnextv2"
        with urllib.request.urlopen(f"{url}/metadata") as response:
            metadata = json.load(response)["metadata"]["signature_def"]["signature_def"]
        assert set(metadata) == serving_folder.SIGNATURES
        assert set(metadata["serve_jpeg"]["inputs"]) == {"encoded"}
        with urllib.request.urlopen(url) as response:
            assert json.load(response)["model_version_status"][0]["state"] == "AVAILABLE"


class TestNumbers:
    def test_rest_and_grpc(self, server):
        expected, pictures = serving_folder.expected(), list(serving_folder.pictures())
        answers = [predict(stub_of(server), "serve_jpeg", encoded=pictures)]
        body = {"signature_name": "serve_jpeg", "inputs": {"encoded": [b64(picture) for picture in pictures]}}
        answers.append(post(server, body)[1]["outputs"])
        rows = {"signature_name": "serve_jpeg", "instances": [b64(picture) for picture in pictures]}
        answers.append({"probabilities": [row["probabilities"] for row in post(server, rows)[1]["predictions"]]})
        for answer in answers:
            np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)

    def test_images(self, server):
        batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype("float32")
        expected = serving_folder.model().predict_on_batch(batch)
        answer = predict(stub_of(server), "serving_default", images=batch)
        np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)
        status, answer = post(server, {"instances": batch.tolist()})
        assert status == 200
        received = [row["probabilities"] for row in answer["predictions"]]
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


class TestNonsense:
    def test_images(self, server):
        stub = stub_of(server)
        for wrong in (
            images(height=32),
            images(channels=1),
            images()[0],
            images(dtype="int32"),
            images(height=300, width=300),
            claim(1, 100_000, 100_000, 3),
            claim(2**40),
            ["text"],
        ):
            refused(lambda wrong=wrong: predict(stub, "serving_default", images=wrong), INVALID)
        refused(lambda: predict(stub, "serving_default", pictures=images()), INVALID)
        refused(lambda: predict(stub, "serving_default"), INVALID)
        refused(lambda: predict(stub, "none", images=images()), FAILED)

    def test_empty_batch(self, server):
        if getattr(server.session, "allowed", ()):
            pytest.skip("TensorFlow Serving would fill it up with nothing")
        refused(lambda: predict(stub_of(server), "serving_default", images=images(0)), INVALID)
        empty = tf.make_tensor_proto(np.array([], object), tf.string)
        refused(lambda: predict(stub_of(server), "serve_jpeg", encoded=empty), INVALID)
        body = {"signature_name": "serve_jpeg", "inputs": {"encoded": []}}
        assert post(server, body)[0] == 400

    def test_pictures(self, server):
        good = serving_folder.pictures()[0]
        bad = [good[:200], b"", b"text", png_that_claims(60_000, 60_000), png_that_claims(2**31 - 1, 2**31 - 1)]
        answer = predict(stub_of(server), "serve_jpeg", encoded=[good, *bad])
        assert answer["decoded"].tolist() == [True] + [False] * len(bad)
        np.testing.assert_allclose(answer["probabilities"][0], serving_folder.expected()[0], rtol=0, atol=1e-5)
        assert not answer["probabilities"][1:].any()
        assert not answer["scores"][1:].any()
        assert (answer["class_ids"][1:] == -1).all()
        assert (answer["classes"][1:] == b"").all()

    def test_json(self, server):
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            {},
            {"instances": 1},
            {"instances": [[1, 2], [3]]},
            {"inputs": {"images": "text"}},
            {"signature_name": "serve_jpeg", "inputs": {"encoded": [{"b64": "?"}]}},
            {"signature_name": "serve_jpeg", "inputs": {"encoded": [{"b65": ""}]}},
            b"[" * 100_000,
        ):
            status, answer = post(server, body)
            assert (status, set(answer)) == (400, {"error"}), body[:50]
        assert post(server, {"instances": [1]}, "/v1/models/another:predict")[0] == 404
        assert post(server, {"instances": [1]}, "/v1/nonsense")[0] == 404

    def test_more_than_a_batch(self, server):
        many = [serving_folder.pictures()[0]] * 9
        if isinstance(server.session, BatchingSession):
            refused(lambda: predict(stub_of(server), "serve_jpeg", encoded=many), INVALID)
        else:
            assert predict(stub_of(server), "serve_jpeg", encoded=many)["decoded"].all()


def nonsense(server, stub, number):
    """Sends something wrong."""
    good = serving_folder.pictures()[0]
    if number % 4 == 0:
        refused(lambda: predict(stub, "serving_default", images=images(height=32)), INVALID, FAILED)
    elif number % 4 == 1:
        refused(lambda: predict(stub, "serve_jpeg", encoded=claim(2**40)), INVALID)
    elif number % 4 == 2:
        bad = [good[:200], png_that_claims(60_000, 60_000)]
        assert not predict(stub, "serve_jpeg", encoded=bad)["decoded"].any()
    else:
        assert post(server, b"{")[0] == 400


def test_good_requests_beside_nonsense(server):
    pictures, expected = serving_folder.pictures(), serving_folder.expected()
    stub, done = stub_of(server), threading.Event()

    def disturb(number):
        count = 0
        while not done.is_set():
            nonsense(server, stub, number + count)
            count += 1
        return count

    def ask(number):
        which = [(number + offset) % len(pictures) for offset in range(1 + number % 3)]
        encoded = [pictures[index] for index in which]
        if number % 5:
            answer = predict(stub, "serve_jpeg", encoded=encoded)["probabilities"]
        else:
            body = {"signature_name": "serve_jpeg", "inputs": {"encoded": [b64(each) for each in encoded]}}
            answer = post(server, body)[1]["outputs"]["probabilities"]
        np.testing.assert_allclose(answer, expected[which], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(12) as pool:
        disturbers = [pool.submit(disturb, number) for number in range(4)]
        try:
            asked = [*pool.map(ask, range(120))]
        finally:
            done.set()
        assert len(asked) == 120
        assert all(disturber.result() > 1 for disturber in disturbers)


class TestBatching:
    def test_gathers(self):
        session = BatchingSession(serving_folder.session(), 8, timeout=0.2, threads=1)
        pictures, expected = serving_folder.pictures(), serving_folder.expected()
        with ThreadPoolExecutor(6) as pool:
            inputs = [{"encoded": np.array([picture], object)} for picture in pictures]
            answers = [*pool.map(lambda each: session.run("serve_jpeg", each), inputs)]
        session.close()
        assert len(session.batches) < len(pictures)
        assert sum(session.batches) == len(pictures)
        received = np.concatenate([answer["probabilities"] for answer in answers])
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)

    def test_full_queue(self):
        # Without threads, nothing leaves the queue.
        session = BatchingSession(serving_folder.session(), 8, waiting=1, threads=0)
        inputs, errors = {"encoded": np.array([b""], object)}, queue.Queue()

        def run():
            try:
                session.run("serve_jpeg", inputs)
            except tf.errors.UnavailableError as error:
                errors.put(error)

        for _ in range(2):  # one of them waits forever
            threading.Thread(target=run, daemon=True).start()
        assert errors.get(timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "requests"),
    [("without batching", 3000), pytest.param("with batching", 10_000, marks=pytest.mark.release)],
)
def test_memory_is_steady(name, requests):
    pictures, expected = serving_folder.pictures(), serving_folder.expected()
    with serving_load.Server(serving_folder.version(), *serving_load.SERVERS[name]) as server:
        memory = [serving_load.load(server, pictures, expected, requests // 5, 16).memory for _ in range(5)]
    assert memory[0] > 0
    assert memory[-1] - memory[0] < 30e6, memory
    assert memory[-1] - memory[2] < 10e6, memory


@pytest.mark.slow
@pytest.mark.release
def test_benchmark(capsys, tmp_path):
    arguments = ["--model", "small", "--clients", "1", "4", "--requests", "20", "--rounds", "1"]
    serving_load.main([*arguments, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert (tmp_path / "serving_load.md").read_text() == printed
    assert len((tmp_path / "serving_load.csv").read_text().splitlines()) == 1 + 4
    assert printed.count("| without batching |") == printed.count("| with batching |") == 2
