import json
import os
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_cnv2.checkpoints.described import CHECKSUMS, DESCRIPTION
from keras_cnv2.checkpoints.metadata import KEY
from keras_cnv2.checkpoints.model_folder import FILE, is_model_folder, models_in
from keras_cnv2.checkpoints.read import file_at, is_path, open_checkpoint
from keras_cnv2.errors import CheckpointError


def write(folder, content):
    (folder / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_first_pattern_and_last_file_count(tmp_path):
    folder = write(tmp_path, {"weights": ["done.keras", "checkpoints/step-*.safetensors"]})
    assert is_path(folder)
    assert is_path(str(folder))
    with pytest.raises(CheckpointError, match=r"no weights in this folder yet.*without done.keras, checkpoints/step"):
        models_in(folder)
    (folder / "checkpoints").mkdir()
    for name in ("step-01.safetensors", "step-03.safetensors", "step-02.safetensors", "other"):
        (folder / "checkpoints" / name).touch()
    assert [path.name[:7] for path in models_in(str(folder))] == ["step-03", "step-02", "step-01"]
    (folder / "done.keras").mkdir()  # is no file
    assert models_in(folder)[0] == folder / "checkpoints" / "step-03.safetensors"
    (folder / "done.keras").rmdir()
    (folder / "done.keras").touch()
    assert models_in(folder) == [folder / "done.keras"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[" * 100_000,
        "[]",
        "null",
        {},
        {"weights": 3},
        {"weights": {"a.keras": 1}},
        {"weights": [3]},
        *(
            {"weights": [name]}
            for name in ("../a.keras", "/etc/passwd", "a/../b", "**/a/b", "a/b/c", "", "a/", ".keras")
        ),
    ],
)
def test_what_is_no_such_file(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"must name the weights of its folder, as .*Received: .*model\.json"):
        models_in(write(tmp_path, content))


def test_other_folders_are_none(tmp_path):
    assert not is_model_folder(tmp_path)
    assert not is_model_folder(3)
    assert not is_path(str(tmp_path))
    os.mkdir(tmp_path / FILE)
    assert not is_model_folder(tmp_path)


def test_errors_name_the_file(tmp_path):
    (write(tmp_path, {"weights": ["*.keras"]}) / "a.keras").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"a\.keras: "), open_checkpoint(tmp_path):
        pass


def test_newest_that_is_whole(tmp_path, caplog):
    folder = write(tmp_path, {"weights": ["step-*.safetensors"]})
    for number in (1, 2, 3):
        save_file({"a": np.full(3, number, "float32")}, folder / f"step-{number}.safetensors")
    assert file_at(folder).name == "step-3.safetensors"
    for number, taken in ((3, 2), (2, 1)):
        path = folder / f"step-{number}.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        assert file_at(folder).name == f"step-{taken}.safetensors"
        assert f"step-3.safetensors is damaged: an older file is used, step-{taken}.safetensors" in caplog.text
    path = folder / "step-1.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-3\.safetensors: "), open_checkpoint(folder):
        pass


def test_newest_whose_numbers_are_whole(tmp_path, caplog):
    """One changed bit in an array, which opening the file does not show."""
    folder = write(tmp_path, {"weights": ["step-*.safetensors"]})
    model = {"config": {"config": {}}, "weights": {"a": "a"}}
    for number in (1, 2):
        array = np.full(3, number, "float32")
        content = {DESCRIPTION: model, CHECKSUMS: {"a": zlib.crc32(array.tobytes())}}
        save_file({"a": array}, folder / f"step-{number}.safetensors", {KEY: json.dumps(content)})
    assert file_at(folder).name == "step-2.safetensors"
    path = folder / "step-2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert file_at(folder).name == "step-1.safetensors"
    assert "step-2.safetensors is damaged: an older file is used, step-1.safetensors" in caplog.text
