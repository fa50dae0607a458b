import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras_cv")


@pytest.mark.slow
def test_two_replicas_step_as_one():
    command = [sys.executable, "-m", "tests.detection.replicas_step"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("equal after a step") == 2
