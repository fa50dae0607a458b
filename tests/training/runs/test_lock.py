import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import training
from tests.training.small import pretraining
from training.commands.pretrain import Pretrain
from training.errors import RunError
from training.runs.folder import open_run
from training.runs.lock import release

# Locks a folder as a run does, without what a run imports.
LOCK = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
print("there", flush=True)
input()
"""


def test_run_of_another_process_is_refused(tmp_path):
    """And another process is refused a run of this one."""
    (tmp_path / "a").mkdir()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", LOCK, tmp_path / "a"]
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"there\n"
        with pytest.raises(RunError, match="Another process or thread is training the run of this name"):
            open_run(tmp_path / "a", pretraining())
        other.communicate(b"\n")
    open_run(tmp_path / "a", pretraining())
    with subprocess.Popen(command, **pipes) as other:
        assert b"BlockingIOError" in other.communicate(b"\n")[1]


def test_run_of_another_thread_is_refused_until_it_ends(tmp_path):
    with ThreadPoolExecutor(1) as other:
        other.submit(open_run, tmp_path / "a", pretraining()).result()
        with pytest.raises(RunError, match="Another process or thread is training the run of this name"):
            open_run(tmp_path / "a", pretraining())
        release(tmp_path / "a")  # not this thread's to release
        assert locked(tmp_path / "a")
    open_run(tmp_path / "a", pretraining())
    assert locked(tmp_path / "a")


def test_run_is_released_at_its_end(tmp_path, monkeypatch):
    """Another process may go on with it then: this one may be a notebook."""

    def train(run, *_):
        open_run(run.folder, run.recipe)
        assert locked(run.folder)
        (run.folder / "tensorboard").mkdir(exist_ok=True)  # it has begun
        raise RunError("It ends.")

    monkeypatch.setattr(Pretrain, "train", train)
    for _ in range(2):
        with pytest.raises(RunError, match="It ends"):
            training.pretrain(data="digits", runs=tmp_path, name="a")
        assert not locked(tmp_path / "a")


def test_of_a_run_that_never_began_nothing_stays(tmp_path):
    given = {"data": "digits", "depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "runs": tmp_path, "name": "a"}
    with pytest.raises(ValueError, match="Published weights are for the sizes"):
        training.finetune(weights="nowhere", image_size=32, resize="squash", **given)
    assert not (tmp_path / "a").exists()


def test_what_others_began_stays(tmp_path, monkeypatch):
    """A run that was killed before its first checkpoint has a configuration to take up again."""
    open_run(tmp_path / "a", pretraining())
    release(tmp_path / "a")

    def train(run, *_):
        open_run(run.folder, run.recipe)
        raise RunError("It ends.")

    monkeypatch.setattr(Pretrain, "train", train)
    with pytest.raises(RunError, match="It ends"):
        training.pretrain(data="digits", runs=tmp_path, name="a")
    assert (tmp_path / "a" / "config.json").exists()


def locked(folder):
    """Whether nobody else may have a run's folder; such a lock is of an open file, not of a process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
