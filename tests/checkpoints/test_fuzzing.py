"""Keras's files with random damage: each is refused, or it is loaded as a whole; none hangs.

HDF5 looks at them in a process that is started anew when it has been killed: here one for many files.
"""

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints import read_hdf5
from keras_cnv2.checkpoints.lazy_array import damage
from tests.checkpoints.test_corruption import bits, damaged, loads, unset

CASES = 500
# On the clock; the other process ends by itself after a second of computing.
PATIENCE = 60
WEIGHTS = "model.weights.h5"


class Reader:
    """In place of `read_hdf5.answer_in_process`: asks a process that stays."""

    def __init__(self):
        self.process = None
        self.count = Counter()

    def __call__(self, file, start, length):
        if self.process is None:
            command = [sys.executable, Path(__file__).with_name("hdf5_reader.py")]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            answer, after = self._ask(json.dumps([file.name, start, length]))
        finally:
            if self.process.poll() is not None:
                self.close()
        if not answer:
            self.count["killed"] += 1
            raise damage("HDF5 did not finish")
        # What the table lets through is safe for HDF5, and so for Keras's own loader.
        assert after.startswith("read"), "HDF5 hangs or crashes with a file that was looked at before"
        self.count["looked at"] += 1
        return json.loads(answer)

    def _ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        lines = self.process.stdout.readline(), self.process.stdout.readline()
        if not all(lines):
            self.process.wait(PATIENCE)
        return lines

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def reader(monkeypatch):
    reader = Reader()
    monkeypatch.setattr(read_hdf5, "answer_in_process", reader)
    with contextlib.closing(reader):
        yield reader


@pytest.fixture
def model():
    return keras_cnv2.ConvNeXtV2(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), classes=3)


def packed(content, weights):
    """A `.keras` file with other weights, whose checksum is right."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written := io.BytesIO(), "w") as new:
        for entry in old.infolist():
            new.writestr(entry, weights if entry.filename == WEIGHTS else old.read(entry))
    return written.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
def test_all_or_nothing(reader, model, kind, tmp_path, capfd):
    path = tmp_path / f"model{kind}"
    model.compile("sgd", "mse")
    (model.save if kind == ".keras" else model.save_weights)(path)
    content = path.read_bytes()
    keras_cnv2.load_checkpoint(model, path)
    weights = None
    if kind == ".keras":
        with zipfile.ZipFile(path) as archive:
            weights = archive.read(WEIGHTS)
    unset(model)
    before = bits(model)

    for case in range(CASES // 2):
        rng = np.random.default_rng([len(kind), case])
        if weights is not None and case % 2:
            changed, what = damaged(weights, rng)
            changed = packed(content, changed)
        else:
            changed, what = damaged(content, rng)
        path.write_bytes(changed)
        if loads(model, path):
            reader.count["loaded"] += 1
            assert (bits(model) != before).all(), (case, what)
            unset(model)
        else:
            reader.count["refused"] += 1
            assert (bits(model) == before).all(), (case, what)
    assert min(reader.count[what] for what in ("looked at", "loaded", "refused")) > 10, reader.count
    assert capfd.readouterr() == ("", "")
