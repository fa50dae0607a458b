import re

import numpy as np
import pytest

from training.commands import served


def test_failure_of_the_process_is_told(tmp_path, monkeypatch):
    """Of one that is no Python, which would take seconds to import TensorFlow."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@ does not exist" >&2\nexit 1\n')
    program.chmod(0o700)
    monkeypatch.setattr(served.sys, "executable", str(program))
    message = r"(?s)does not predict. Received:\n-m training.commands.served .*none .*images.npy .* does not exist"
    with pytest.raises(RuntimeError, match=message):
        served.predict_in_new_process(tmp_path / "none", np.zeros((1, 2)))


def test_path_is_that_of_this_process(tmp_path, monkeypatch):
    """Which works in a folder of the user's, where the other one works beside the package."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$3" >&2\nexit 1\n')
    program.chmod(0o700)
    monkeypatch.setattr(served.sys, "executable", str(program))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=re.escape(f"Received:\n{tmp_path / 'runs' / 'saved_model'}\n")):
        served.predict_in_new_process("runs/saved_model", np.zeros((1, 2)))


def test_no_model(tmp_path):
    with pytest.raises(OSError, match="does not exist"):
        served.main(str(tmp_path / "none"), "images.npy", "predictions.npy")
