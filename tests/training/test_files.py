"""What a run writes is whole, or as it was before."""

import contextlib
import sys

import keras
import pytest

from training.drawing.figures import new_figure, save_figure
from training.files import write_json, write_text
from training.loop import state
from training.runs import results

resource = pytest.importorskip("resource")  # not on Windows

LONG = "long " * 1000


def model():
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(100)])
    network.compile("sgd", "mse")
    network.optimizer.build(network.trainable_variables)
    return network


WRITERS = {
    "a.json": lambda path: write_json(path, [LONG]),
    "a.csv": lambda path: write_text(path, LONG),
    "a.png": lambda path: save_figure(new_figure(4, 4), path),
    "a.keras": lambda path: results.save(model(), path),
    "step-0000000003.safetensors": lambda path: state.save(path.parent, model(), state.Progress(3)),
}


@contextlib.contextmanager
def small_disk(monkeypatch):
    """A context in which no file can be longer than 50 bytes: what is longer is cut off there, with an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # of what is imported meanwhile
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_the_old_file_stays_where_the_new_one_cannot_be_written(name, tmp_path, monkeypatch):
    path, write = tmp_path / name, WRITERS[name]
    write(path)
    assert path.stat().st_size > 500
    path.write_bytes(b"old")
    with pytest.raises(Exception, match="(?i)too large|unable to"), small_disk(monkeypatch):
        write(path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
