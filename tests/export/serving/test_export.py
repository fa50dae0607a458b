import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from benchmarks.serving_server import ModelServer
from benchmarks.serving_session import BatchingSession, SavedModelSession
from keras_cnv2.export.serving.export import export_serving
from tests.export.serving import serving_folder
from tests.export.serving.serving_folder import contents
from tests.export.small import shared_backbone

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder():
    return serving_folder.folder()


@pytest.fixture(scope="module")
def session():
    return serving_folder.session()


def message(name, **fields):
    """A class of messages with the fields {name: type}, in place of the server's own that are in no package."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    added = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), start=1):
        label = 3 if kind.startswith("repeated") else 1
        kind = kind.removeprefix("repeated ")
        types = {"int64": 3, "bool": 8, "string": 9}
        typed = {"type": types[kind]} if kind in types else {"type": 11, "type_name": kind}
        added.field.add(name=field, number=number, label=label, **typed)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))


class TestFolder:
    def test_layout(self, folder):
        assert {
            name for name, data in contents(folder).items() if data is not None and "model/" not in name
        } == serving_folder.FILES
        assert [entry.name for entry in (folder / "model").iterdir()] == ["1"]
        assert [entry.name for entry in folder.parent.iterdir()] == ["serving"]
        found = set(contents(folder / "model" / "1"))
        assert {"saved_model.pb", "variables", "assets/labels.txt"} < found
        assert "assets.extra/tf_serving_warmup_requests" in found

    def test_no_placeholder_is_left(self, folder):
        for name in serving_folder.FILES:
            assert "@" not in re.sub(r"curl -d @-", "", (folder / name).read_text()), name

    def test_others_may_read(self, folder, tmp_path):
        (tmp_path / "usual").mkdir()
        usual = (tmp_path / "usual").stat().st_mode
        assert {path.stat().st_mode for path in [folder, *folder.rglob("*")] if path.is_dir()} == {usual}

    def test_models_config(self, folder):
        from tensorflow_serving.config import model_server_config_pb2

        text = (folder / "config/models.config").read_text()
        (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        assert (model.name, model.base_path, model.model_platform) == ("convnextv2", "/models/convnextv2", "tensorflow")
        assert model.model_version_policy.latest.num_versions == 1

    def test_models_config_proposes_what_is_valid(self, folder):
        from tensorflow_serving.config import model_server_config_pb2

        text = (folder / "config/models.config").read_text()
        text = text.replace("    model_version_policy { latest", "#", 1)
        text = re.sub(r"# (model_version_policy|version_labels)", r"\1", text)
        (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        assert [*model.model_version_policy.specific.versions] == [1, 2]
        assert dict(model.version_labels) == {"stable": 1, "canary": 2}

    def test_batching_config(self, folder):
        # As TensorFlow Serving's session_bundle_config.proto has them.
        int64 = ".google.protobuf.Int64Value"
        parameters = message(
            "BatchingParameters",
            max_batch_size=int64,
            batch_timeout_micros=int64,
            max_enqueued_batches=int64,
            num_batch_threads=int64,
            thread_pool_name=".google.protobuf.StringValue",
            allowed_batch_sizes="repeated int64",
            pad_variable_length_inputs="bool",
        )
        text = (folder / "config/batching.config").read_text()
        parsed = text_format.Parse(text, parameters())
        assert parsed.max_batch_size.value == serving_folder.MAX_BATCH_SIZE
        assert not parsed.pad_variable_length_inputs
        assert min(parsed.max_enqueued_batches.value, parsed.num_batch_threads.value) > 0
        assert parsed.batch_timeout_micros.value >= 0
        assert not parsed.allowed_batch_sizes
        proposed = text_format.Parse(text.replace("# allowed_batch_sizes", "allowed_batch_sizes"), parameters())
        assert proposed.allowed_batch_sizes[-1] == parsed.max_batch_size.value

    def test_monitoring_config(self, folder):
        # As TensorFlow Serving's monitoring_config.proto has them.
        text = (folder / "config/monitoring.config").read_text()
        inner = re.fullmatch(r"(?:#.*\n)*prometheus_config \{(.*)\}\n", text, re.DOTALL)[1]
        parsed = text_format.Parse(inner, message("PrometheusConfig", enable="bool", path="string")())
        assert parsed.enable
        assert parsed.path == "/monitoring/prometheus/metrics"

    def test_compose(self, folder):
        compose = pytest.importorskip("yaml").safe_load((folder / "docker-compose.yml").read_text())
        (service,) = compose["services"].values()
        assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", service["image"])
        mounts = dict(mount.removesuffix(":ro").split(":") for mount in service["volumes"])
        assert mounts == {"./model": "/models/convnextv2", "./config": "/config"}
        assert all(mount.endswith(":ro") for mount in service["volumes"])
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])
        for name in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
            assert (folder / flags[name].removeprefix("/")).is_file()
        assert flags["enable_batching"] == flags["enable_model_warmup"] == "true"
        assert {port.rsplit(":", 1)[1] for port in service["ports"]} == {flags["port"], flags["rest_api_port"]}
        assert all(port.startswith("${LISTEN:-127.0.0.1}:") for port in service["ports"])

    def test_healthcheck(self, folder, session):
        compose = pytest.importorskip("yaml").safe_load((folder / "docker-compose.yml").read_text())
        kind, *command = compose["services"]["serving"]["healthcheck"]["test"]
        assert kind == "CMD"

        def healthy(name, port):
            script = command[-1].replace("8501", str(port)).replace("convnextv2", name)
            return subprocess.run([*command[:-1], script], stderr=subprocess.DEVNULL, timeout=30).returncode == 0

        with ModelServer(session) as server:
            port = server.rest_port
            assert healthy("convnextv2", port)
            assert not healthy("another", port)
        assert not healthy("convnextv2", port)

    def test_readme_is_short_and_right(self, folder):
        text = (folder / "README.md").read_text()
        assert len(text.split()) < 700
        for path in re.findall(r"`((?:config|client|docker)[\w/.-]+\.\w+)`", text):
            assert (folder / path).is_file()

    @pytest.mark.skipif(not (shutil.which("curl") and shutil.which("base64")), reason="no curl")
    def test_curl_of_the_readme(self, folder, session, tmp_path):
        (tmp_path / "photo.jpg").write_bytes(serving_folder.pictures()[0])
        (status, ask) = re.findall(r"```bash\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1].split(
            "\n", 1
        )
        with ModelServer(session) as server:
            for command, key in ((status, "model_version_status"), (ask, "outputs")):
                command = command.replace("8501", str(server.rest_port)).replace("curl ", "curl --noproxy '*' -s ")
                run = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
                answer = json.loads(run.stdout)
                assert set(answer) == {key}
        np.testing.assert_allclose(answer["outputs"]["probabilities"][0], serving_folder.expected()[0], atol=1e-5)


class TestDocs:
    PAGE = (ROOT / "docs" / "serving.md").read_text()

    def test_files(self, folder):
        named = set(re.findall(r"^\| `([\w/.-]+\.\w+)` \|", self.PAGE, re.MULTILINE))
        assert named == serving_folder.FILES

    def test_image(self, folder):
        (image,) = re.findall(r"image: tensorflow/serving:(\S+)", (folder / "docker-compose.yml").read_text())
        assert f"tensorflow/serving {image}" in self.PAGE

    def test_example_is_python(self):
        (example,) = re.findall(r"```python\n(.*?)```", self.PAGE, re.DOTALL)
        compile(example, "serving.md", "exec")


class TestWarmup:
    def test_covers_signatures_and_batch_sizes(self, session):
        found = {}
        for request in serving_folder.warmup_records(serving_folder.version()):
            found.setdefault(request.model_spec.signature_name, []).append(serving_folder.rows(request))
        assert set(found) == serving_folder.SIGNATURES == set(session.signatures)
        assert found["serve_jpeg"] == found["serving_default"] == [1, 2, 4, 8]
        assert found["features"] == [1]

    def test_replays(self, session):
        for request in serving_folder.warmup_records(serving_folder.version()):
            assert_replays(session, request)

    def test_pictures_are_decoded(self, session):
        for request in serving_folder.warmup_records(serving_folder.version()):
            if request.model_spec.signature_name == "serve_jpeg":
                encoded = tf.make_ndarray(request.inputs["encoded"])
                assert session.run("serve_jpeg", {"encoded": encoded})["decoded"].all()

    def test_is_small(self):
        assert (serving_folder.version() / "assets.extra/tf_serving_warmup_requests").stat().st_size < 100_000

    @pytest.mark.parametrize("kind", ["backbone", pytest.param("fcmae", marks=pytest.mark.slow)])
    def test_other_models(self, tmp_path, kind):
        from tests.fcmae.small import small

        model = shared_backbone() if kind == "backbone" else small()
        path = export_serving(model, tmp_path / "serving", max_batch_size=2, max_pixels=100 * 100)
        session = SavedModelSession(path)
        requests = [*serving_folder.warmup_records(path)]
        assert {request.model_spec.signature_name for request in requests} == set(session.signatures)
        for request in requests:
            assert_replays(session, request)
        session.close()


def assert_replays(session, request):
    inputs = {alias: tf.make_ndarray(tensor) for alias, tensor in request.inputs.items()}
    for values in session.run(request.model_spec.signature_name, inputs).values():
        assert len(values) == serving_folder.rows(request)
        assert values.dtype.kind != "f" or np.isfinite(values).all()


class TestNumbers:
    @pytest.mark.parametrize("batching", [None, {"max_batch_size": 8, "allowed": (8,)}])
    def test_served_ones_are_the_models(self, session, batching):
        from keras_cnv2 import load_image

        expected = serving_folder.expected()
        assert len({*expected.argmax(1)}) > 1
        images = np.stack([load_image(picture, serving_folder.SIZE) for picture in serving_folder.pictures()])
        session = BatchingSession(session, **batching) if batching else session
        inputs = {"serve_jpeg": np.array(serving_folder.pictures(), object), "serving_default": images}
        for name, values in inputs.items():
            (alias,) = session.signatures[name].inputs
            answer = session.run(name, {alias: values})
            np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)
            for row, scores, names in zip(expected, answer["scores"], answer["classes"]):
                best = serving_folder.best(row, len(scores))
                assert [name.decode() for name in names] == [name for name, _ in best]
                np.testing.assert_allclose(scores, [score for _, score in best], rtol=0, atol=1e-5)
        if batching:
            session.close()

    def test_nothing_is_left_to_xla(self):
        # Which TensorFlow Serving does not run on CPUs.
        from tensorflow.core.protobuf import saved_model_pb2

        path = serving_folder.version() / "saved_model.pb"
        (graph,) = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
        assert len(graph.graph_def.library.function) > 0
        assert not [each for each in graph.graph_def.library.function if each.attr["_XlaMustCompile"].b]
