"""HDF5 files are looked at in another process, which may be killed."""

import multiprocessing.spawn
import struct
import time
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints import hdf5_table, read_hdf5
from keras_cnv2.checkpoints.read import open_checkpoint
from tests.checkpoints.reading import DAMAGED, VARS, assert_refused, load, write_h5
from tests.checkpoints.test_read_keras import write_keras

ARRAYS = {
    "head/0": np.arange(6, dtype="float32").reshape(2, 3),
    "head/1": np.ones((), "float16"),
    "head/2": np.zeros((0, 3), "float64"),
    "head/3": np.arange(4, dtype=">f4"),
    "head/4": np.arange(4).astype(ml_dtypes.bfloat16),
}


@pytest.fixture
def h5(tmp_path):
    """Path of a good `.weights.h5` file."""
    path = tmp_path / "model.weights.h5"
    write_h5(path, ARRAYS)
    with h5py.File(path, "a") as file:
        file[f"{VARS}/4"].attrs["dtype"] = "bfloat16"
        file["optimizer/vars/0"] = np.ones(3)
    return path


def make_endless(path):
    """Damages the length of a text, which has libhdf5 look for the next one for ever."""
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    assert content[heap + 32 : heap + 36] == b"head"
    content[heap + 24 : heap + 32] = struct.pack("<q", -1)
    path.write_bytes(content)


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_good(h5, tmp_path, kind):
    config = '{"registered_name": "other>Model", "config": {}}'
    path = h5 if kind == ".weights.h5" else write_keras(tmp_path / "model.keras", h5, config)
    loaded = load(path)
    assert loaded.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_endless(h5, tmp_path, monkeypatch, kind):
    make_endless(h5)
    path = h5 if kind == ".weights.h5" else write_keras(tmp_path / "model.keras", h5)
    monkeypatch.setattr(read_hdf5, "SECONDS", 1)
    start = time.monotonic()
    assert_refused(path, DAMAGED)  # whether a release of HDF5 hangs or sees it
    assert time.monotonic() - start < 30


COMPUTES = f"""
import sys
sys.path.append({str(Path(hdf5_table.__file__).parent)!r})
import hdf5_table
hdf5_table.limit(1)
while True: pass
"""
PROGRAMS = {
    COMPUTES: "HDF5 did not finish within 1 seconds",
    "import time; time.sleep(60)": "HDF5 did not finish within 2 seconds",
    "import os; os.abort()": "HDF5 crashed",
    "import no_such_package": "could not be started.*no_such_package",
}


@pytest.mark.parametrize("program", PROGRAMS, ids=["computes", "sleeps", "crashes", "does not start"])
def test_process_that_does_not_answer(h5, tmp_path, monkeypatch, program):
    other = tmp_path / "program.py"
    other.write_text(program)
    monkeypatch.setattr(hdf5_table, "__file__", str(other))
    monkeypatch.setattr(read_hdf5, "SECONDS", 1)
    if "sleep" in program:
        monkeypatch.setattr(read_hdf5, "PATIENCE", 2)
    assert_refused(h5, PROGRAMS[program])


@pytest.mark.parametrize("python", ["", "/no/python", None])
def test_no_python(h5, monkeypatch, python):
    """As where Python is part of another program."""
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: python and python.encode())
    assert_refused(h5, "could not be started.*multiprocessing.set_executable")


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(read_hdf5, "answer_in_process", hdf5_table.answer)


@pytest.mark.usefixtures("here")
class TestTable:
    """What the program refuses beside what test_read_keras.py shows."""

    def test_data_before_the_file(self, h5):
        with h5py.File(h5, "w", userblock_size=512) as file:
            file[f"{VARS}/0"] = np.ones(3)
        assert_refused(h5, "begins with other data")

    def test_too_many_members(self, h5, monkeypatch):
        monkeypatch.setattr(hdf5_table, "MAX_MEMBERS", 5)
        assert_refused(h5, "more groups or deeper ones")

    def test_too_much_text(self, h5, monkeypatch):
        monkeypatch.setattr(hdf5_table, "MAX_CHARACTERS", 100)
        assert_refused(h5, "more groups or deeper ones")

    def test_optimizer_is_looked_at(self, h5):
        """Keras's own loader reads it."""
        with h5py.File(h5, "a") as file:
            file.create_dataset("optimizer/vars/1", data=np.zeros(1000), compression="gzip")
        assert_refused(h5, "compressed or cut")

    @pytest.mark.parametrize("place", [[[3], "<f4", -1], [[3], "<f4", 10**9], [[10**6] * 3, "<f4", 0], [[1], "|O", 0]])
    def test_arrays_that_are_not_there(self, h5, monkeypatch, place):
        """Nor is the other process believed."""
        table = {"/layers": None, "/layers/dense": None, f"/{VARS}": "head", f"/{VARS}/0": place}
        monkeypatch.setattr(read_hdf5, "answer_in_process", lambda *args: table)
        assert_refused(h5, "no array of numbers")


def test_file_that_is_cut_while_it_is_read(h5):
    with open_checkpoint(h5) as contents:
        h5.write_bytes(b"")
        with pytest.raises(keras_cnv2.CheckpointError, match="ends within an array"):
            np.asarray(contents.tensors["head/0"])
