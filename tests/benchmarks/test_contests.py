"""Whole contests on a model of a few thousand parameters: everyone puts out the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import contest, growth, inference, training_step
from benchmarks.report import Results
from benchmarks.tasks import Task

ROOT = Path(__file__).parent.parent.parent
SMALL = Task((1, 1, 2, 1), (8, 16, 24, 32), batch=2, image_size=64, classes=10)

pytestmark = pytest.mark.slow


def names(results):
    return {turn.contestant for turns in results.cases.values() for turn in turns}


def test_inference():
    contestants = {name: each for name, each in inference.CONTESTANTS.items() if name != "keras.applications, V1"}
    results = Results("Inference", inference.REFERENCE)
    settings = {"exempt": inference.OTHER_OUTPUTS, "tolerance": inference.TOLERANCE}
    contest.run_case(results, "small", contestants, SMALL, 1, **settings)
    assert {inference.REFERENCE, "matrix products alone"} <= names(results)


def test_training_step():
    results = Results("Training", training_step.REFERENCE)
    settings = {"tolerance": training_step.TOLERANCE, "calls": training_step.STEPS}
    contest.run_case(results, "small", training_step.CONTESTANTS, SMALL, 1, **settings)
    assert training_step.REFERENCE in names(results)


def test_growth(monkeypatch):
    monkeypatch.setattr(growth, "AXES", {"batch": {"1": ("atto", 1, 32), "2": ("atto", 2, 32)}})
    results, work = growth.measure_axis("batch", 1)
    assert work["batch 2"] == 2 * work["batch 1"]
    assert growth.slopes("batch", growth.curves(results, work)).startswith("| against the work, by batch")


def test_gpu_on_the_cpu():
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "benchmarks", "gpu", "--check", "--rounds", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "| keras_cnv2, dense encoder |" in run.stdout
