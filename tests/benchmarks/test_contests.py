"""Whole contests on a model of a few thousand parameters: everyone puts out the same."""

import dataclasses
import os

import pytest

from benchmarks import contest, gpu, growth, inference, small_images, training_step, two_stage
from benchmarks.detection_task import DetectionTask
from benchmarks.report import Results
from benchmarks.tasks import Task
from keras_cnv2.sizes import SIZES

SMALL = Task((1, 1, 1, 1), (8, 16, 24, 32), batch=2, image_size=64, classes=10)

pytestmark = pytest.mark.slow


def names(results):
    return {turn.contestant for turns in results.cases.values() for turn in turns}


def without_compile(contestants):
    """Without what takes half a minute to start."""
    return {name: each for name, each in contestants.items() if "torch.compile" not in name}


OURS = (inference.REFERENCE, "keras_cnv2, folded", "matrix products alone")
# Those of other packages; the one of V1 has no small model.
RIVALS = [name for name in inference.CONTESTANTS if name not in (*OURS, "keras.applications, V1")]


@pytest.mark.parametrize("rivals", [[], pytest.param(RIVALS, marks=pytest.mark.release)])
def test_inference(rivals):
    contestants = without_compile({name: inference.CONTESTANTS[name] for name in (*OURS, *rivals)})
    results = Results("Inference", inference.REFERENCE)
    settings = {"exempt": inference.OTHER_OUTPUTS, "tolerance": inference.TOLERANCE}
    contest.run_case(results, "small", contestants, SMALL, 1, **settings)
    assert {*OURS} <= names(results)


def test_training_step():
    results = Results("Training", training_step.REFERENCE)
    settings = {"tolerance": training_step.TOLERANCE, "calls": training_step.STEPS}
    contest.run_case(results, "small", without_compile(training_step.CONTESTANTS), SMALL, 1, **settings)
    assert training_step.REFERENCE in names(results)


@pytest.mark.release
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_small_images(dtype):
    results = Results("Small images", small_images.REFERENCE)
    task = dataclasses.replace(SMALL, image_size=32, stem_stride=1)
    others = (small_images.PRODUCT, small_images.PIPELINE)
    settings = {"exempt": others, "tolerance": small_images.TOLERANCES[dtype], "calls": small_images.STEPS}
    contest.run_case(results, "small", without_compile(small_images.contestants(dtype)), task, 1, **settings)
    assert {*others, small_images.REFERENCE} <= names(results)


@pytest.mark.release
def test_growth(monkeypatch):
    monkeypatch.setattr(growth, "AXES", {"batch": {"1": ("atto", 1, 32), "2": ("atto", 2, 32)}})
    monkeypatch.setattr(growth, "NAMES", growth.NAMES[:1])  # the others are in test_inference
    monkeypatch.setitem(SIZES, "atto", dataclasses.replace(SIZES["atto"], depths=SMALL.depths, dims=SMALL.dims))
    results, work = growth.measure_axis("batch", 1)
    assert work["batch 2"] == 2 * work["batch 1"]
    assert growth.slopes("batch", growth.curves(results, work)).startswith("| against the work, by batch")


@pytest.mark.release
@pytest.mark.parametrize(
    ("case", "contestant"),
    [
        ("inference", "transformers, eager"),
        # The fine-tuning step takes a CPU minutes to compile; this is a step of training, too.
        ("FCMAE step", "keras_cnv2, dense encoder"),
    ],
)
def test_gpu_on_the_cpu(monkeypatch, capsys, case, contestant):
    pytest.importorskip("jax")
    monkeypatch.setattr(os, "environ", os.environ.copy())  # main sets variables for the processes
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # JAX compiles more than it computes here
    monkeypatch.setattr(gpu, "MODES", {"transformers, eager": None})
    cases = {case: gpu.contests("cpu")[case]}
    monkeypatch.setattr(gpu, "contests", lambda device: cases)
    gpu.main(["--check", "--rounds", "1"])
    table = capsys.readouterr().out
    assert f"| {contestant} |" in table


@pytest.mark.release
@pytest.mark.parametrize("kind", ["prediction", "training"])
def test_two_stage_by_parts(kind):
    results = Results("Parts", two_stage.REFERENCE)
    two_stage.by_parts(results, DetectionTask.of("atto", 1, 64), kind, ("encoder", "all"), 1)
    assert names(results) == {"encoder", "all"}


@pytest.mark.release
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("part", two_stage.PARTS)
def test_two_stage_beside_torchvision(part, trained):
    """Raises an error unless outputs, or sums of gradients, are equal."""
    results, task = Results("Parts", two_stage.OURS), DetectionTask.of("atto", 1, 64)
    python = os.environ.get("TORCHVISION_PYTHON")
    two_stage.beside_torchvision(results, part, task, part, trained, 1, python, mode=None)
    assert two_stage.OURS in names(results)
