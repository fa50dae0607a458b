"""The benchmarks run and compare what computes the same; their figures are nobody's test."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
@pytest.mark.release
def test_fcmae_encoders():
    assert "| **atto, batch 2** |" in run("fcmae_encoders", "--batch", 2, "--image-size", 64, "--rounds", 1)


@pytest.mark.slow
def test_input_pipeline(tmp_path):
    waves = np.sin(np.mgrid[:240, :320] / 30).sum(0)[..., None] * [30, 40, 50] + 128
    for number in range(8):
        Image.fromarray((waves + number).astype("uint8")).save(tmp_path / f"{number}.jpg", quality=90)
    assert "| **batch 2, PIL in 1 processes** |" in run(
        "input_pipeline", tmp_path, "--batch", 2, "--batches", 1, "--rounds", 1, "--processes", 1
    )
