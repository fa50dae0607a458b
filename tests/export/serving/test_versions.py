"""Versions in a serving folder: their numbers, and that they appear whole or not at all."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keras_cnv2.errors import ExportError
from keras_cnv2.export.saved_model import export as saved_model
from keras_cnv2.export.serving import export as serving
from keras_cnv2.export.serving.export import export_serving
from keras_cnv2.segmentation import UPerNet
from tests.export.serving import serving_folder
from tests.export.serving.serving_folder import contents
from tests.export.small import shared_backbone

ROOT = Path(__file__).parents[3]


@pytest.fixture
def quick(monkeypatch):
    """Exporting takes no time."""
    serving_folder.folder()  # which is exported in earnest
    monkeypatch.setattr(saved_model, "export_saved_model", serving_folder.copy_export)


@pytest.fixture
def mine(tmp_path):
    """A copy of the serving folder, to write to."""
    return Path(shutil.copytree(serving_folder.folder(), tmp_path / "serving"))


def publish(path, **arguments):
    return export_serving(serving_folder.model(), path, **arguments)


class TestVersions:
    def test_other_name_and_batch_size(self, quick, tmp_path):
        published = publish(tmp_path / "birds", name="birds-1.0", version=20260101, max_batch_size=12)
        assert published == tmp_path / "birds/model/20260101"
        texts = {name: (tmp_path / "birds" / name).read_text() for name in serving_folder.FILES}
        assert "/models/birds-1.0" in texts["docker-compose.yml"]
        assert 'name: "birds-1.0"' in texts["config/models.config"]
        assert "max_batch_size { value: 12 }" in texts["config/batching.config"]
        assert not any("convnextv2" in text for text in texts.values())
        requests = [*serving_folder.warmup_records(published)]
        assert {request.model_spec.name for request in requests} == {"birds-1.0"}
        sizes = {
            dim.size for each in requests for tensor in each.inputs.values() for dim in tensor.tensor_shape.dim[:1]
        }
        assert sizes == {1, 2, 4, 8, 12}

    def test_next_ones(self, quick, mine):
        assert publish(mine) == mine / "model/2"
        assert publish(mine, version=7) == mine / "model/7"
        assert publish(mine, version=5) == mine / "model/5"
        (mine / "model/9.old").mkdir()
        assert publish(str(mine)) == mine / "model/8"
        assert contents(mine / "model/8") == contents(mine / "model/2")

    def test_existing_one(self, quick, mine):
        before = contents(mine)
        with pytest.raises(FileExistsError, match="never replaced. Received: version=1"):
            publish(mine, version=1)
        assert contents(mine) == before

    def test_files_of_the_user_stay(self, quick, mine):
        edited = {name: f"{(mine / name).read_text()}\n# mine\n" for name in serving_folder.FILES - {"client.py"}}
        for name, text in edited.items():
            (mine / name).write_text(text)
        (mine / "client.py").unlink()
        publish(mine)
        assert {name: (mine / name).read_text() for name in edited} == edited
        assert (mine / "client.py").read_bytes() == (serving_folder.folder() / "client.py").read_bytes()

    def test_edited_batch_size_counts(self, quick, mine):
        (mine / "config/batching.config").write_text("# max_batch_size { value: 64 }\nmax_batch_size { value : 3 }")
        (mine / "client.py").unlink()
        published = publish(mine, max_batch_size=16)
        assert max(serving_folder.rows(request) for request in serving_folder.warmup_records(published)) == 3
        assert 'MAX_BATCH_SIZE = int("3")' in (mine / "client.py").read_text()

    def test_empty_folder(self, quick, tmp_path):
        assert publish(tmp_path) == tmp_path / "model/1"
        assert {entry.name for entry in tmp_path.iterdir()} == {"model"} | {
            name.partition("/")[0] for name in serving_folder.FILES
        }

    @pytest.mark.parametrize("version", [0, -1, True, "2", 1.0, 2**63])
    def test_what_is_no_version(self, mine, version):
        with pytest.raises(ValueError, match="Received: version="):
            publish(mine, version=version)

    @pytest.mark.parametrize("arguments", [{"name": "a/b"}, {"name": ""}, {"name": 'a"b'}, {"max_batch_size": 0}])
    def test_other_arguments(self, tmp_path, arguments):
        (name,) = arguments
        with pytest.raises(ValueError, match=f"Received: {name}="):
            publish(tmp_path / "serving", **arguments)
        assert [*tmp_path.iterdir()] == []

    def test_segmentation_model(self, tmp_path):
        model = UPerNet(shared_backbone(), 3, 8)
        with pytest.raises(ValueError, match=r"can only be exported as SavedModels.*Received: model=<UPerNet"):
            export_serving(model, tmp_path / "serving")
        assert [*tmp_path.iterdir()] == []

    def test_overwrite(self, mine):
        with pytest.raises(ValueError, match="never replaced"):
            publish(mine, overwrite=True)

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "photo.jpg").touch()
        with pytest.raises(FileExistsError, match="not a serving folder"):
            publish(tmp_path)
        with pytest.raises(FileExistsError, match="not a serving folder"):
            publish(tmp_path / "photo.jpg")
        assert os.listdir(tmp_path) == ["photo.jpg"]

    def test_no_parent(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            publish(tmp_path / "a" / "b")

    def test_folder_of_another_model(self, mine):
        with pytest.raises(ValueError, match="serves convnextv2. Received: name='birds'"):
            publish(mine, name="birds")

    def test_broken_models_config(self, mine):
        (mine / "config/models.config").write_text("model_config_list {")
        with pytest.raises(ValueError, match="not a ModelServerConfig"):
            publish(mine)

    def test_without_serving_api(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
        monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
        with pytest.raises(ExportError, match=re.escape('pip install "keras_cnv2[serving]"')):
            publish(tmp_path / "serving")


class TestAllOrNothing:
    @pytest.mark.parametrize("step", ["export", "warmup", "file", "rename"])
    @pytest.mark.parametrize("extends", [False, True])
    def test_failure(self, quick, monkeypatch, mine, tmp_path, step, extends):
        def half(model, path, **options):
            path.mkdir()
            (path / "saved_model.pb").write_bytes(b"half")
            raise KeyboardInterrupt

        def fail(*_, **__):
            raise OSError("No space left on device")

        target = {
            "export": (saved_model, "export_saved_model", half),
            "warmup": (serving, "write_warmup", fail),
            "file": (serving, "replacing", fail),
            "rename": (serving.os, "rename", fail),
        }
        monkeypatch.setattr(*target[step])
        (mine / "README.md").unlink()
        path = mine if extends else tmp_path / "new"
        before = contents(tmp_path)
        with pytest.raises(KeyboardInterrupt if step == "export" else OSError):
            publish(path)
        after = contents(tmp_path)
        if extends and step == "rename":  # files that were missing are whole
            after.pop("serving/README.md")
        assert after == before

    @pytest.mark.parametrize("fresh", [True, False])
    @pytest.mark.parametrize("version", [None, 5])
    def test_two_at_once(self, monkeypatch, mine, tmp_path, fresh, version):
        path = tmp_path / "new" if fresh else mine
        together, results = threading.Barrier(2), []

        def export(model, path, **options):
            serving_folder.copy_export(model, path)
            together.wait(30)

        def one():
            try:
                results.append(publish(path, version=version, max_batch_size=serving_folder.MAX_BATCH_SIZE).name)
            except FileExistsError as error:
                results.append(str(error))

        monkeypatch.setattr(saved_model, "export_saved_model", export)
        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if version:
            assert sorted(results) == ["5", "This version exists: versions are never replaced. Received: version=5"]
        else:
            assert sorted(results) == (["1", "2"] if fresh else ["2", "3"])
        names = {result for result in results if result.isdecimal()} | (set() if fresh else {"1"})
        assert {entry.name for entry in (path / "model").iterdir()} == names
        for name in names:
            assert contents(path / "model" / name) == contents(serving_folder.version())
        assert {
            name for name, data in contents(path).items() if data is not None and "model/" not in name
        } == serving_folder.FILES
        assert {entry.name for entry in tmp_path.iterdir()} == {"serving", *({"new"} if fresh else ())}

    @pytest.mark.slow
    def test_killed(self, mine):
        script = """
import os, signal, sys
from keras_cnv2.export.saved_model import export as saved_model
from keras_cnv2.export.serving.export import export_serving
from tests.export.small import backbone
def half(model, path, **options):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
saved_model.export_saved_model = half
export_serving(backbone(), sys.argv[1])
"""
        run = subprocess.run([sys.executable, "-c", script, mine], cwd=ROOT, capture_output=True)
        assert run.returncode == -signal.SIGKILL
        left = {entry.name for entry in (mine / "model").iterdir()} - {"1"}
        assert len(left) == 1
        assert left.pop().startswith(serving.STAGING)  # no number: the server ignores it
