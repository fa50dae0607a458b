"""The benchmarks run and compare what computes the same; their figures are nobody's test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_fcmae_encoders():
    command = [sys.executable, "-m", "benchmarks.fcmae_encoders", "--batch", "2", "--image-size", "64", "--rounds", "1"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    assert "| atto | 2 |" in process.stdout
