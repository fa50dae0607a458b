"""The whole command; of the README's, `.ci/run` runs the line itself as well."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.image import imread

import training.__main__
from keras_cnv2.commands.main import main
from training.data.images import arrays

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def command(*arguments):
    """Runs `python -m training` as a user does."""
    line = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)


def run_small(runs):
    """Runs the quickstart with a small budget. Returns its folder and its process."""
    process = command("quickstart", "--runs", runs, "--name", "small", "--pretrain-epochs", 1, "--finetune-epochs", 2)
    assert process.returncode == 0, process.stderr
    return runs / "small", process


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """One small run: its folder and its process."""
    return run_small(tmp_path_factory.mktemp("runs"))


def digits():
    return arrays.digits(32).test


def test_writes_everything(quickstart):
    folder, _ = quickstart
    assert {path.name for path in folder.iterdir()} == {"pretraining", "finetuning", "saved_model", "metrics.json"}
    both = {
        "config.json",
        "model.json",
        "metrics.json",
        "log.csv",
        "log.json",
        "tensorboard",
        "checkpoints",
        "learning_curves.png",
    }
    found = {phase: {path.name for path in (folder / phase).iterdir()} for phase in ("pretraining", "finetuning")}
    assert found["pretraining"] == both | {"fcmae.keras", "reconstructions", "reconstructions.png"}
    assert found["finetuning"] - {"best.keras"} == both | {
        "classifier.keras",
        "confusion_matrix.png",
        "predictions.png",
    }
    pictures = [*folder.rglob("*.png")]
    assert len(pictures) == 6
    for picture in pictures:
        pixels = imread(picture)
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.05, f"{picture} is empty"


def test_metrics_are_those_of_the_saved_classifier(quickstart):
    folder, process = quickstart
    metrics = json.loads((folder / "metrics.json").read_text())
    classifier = keras.saving.load_model(folder / "finetuning" / "classifier.keras")
    probabilities = classifier.predict(digits().images, verbose=0)
    assert metrics["test_accuracy"] == np.mean(probabilities.argmax(-1) == digits().labels)
    assert f"{metrics['test_accuracy']:.2%}" in process.stdout
    assert metrics["exported_max_difference"] <= 1e-5
    log = json.loads((folder / "pretraining" / "log.json").read_text())
    assert [row["loss"] for row in log] == [metrics["pretraining_loss_first_epoch"]]


def test_exported_model_is_the_classifier(quickstart):
    import tensorflow as tf

    folder, _ = quickstart
    served = tf.saved_model.load(folder / "saved_model").signatures["serving_default"]
    served = served(images=tf.constant(digits().images[:8], "float32"))["probabilities"]
    classifier = keras.saving.load_model(folder / "finetuning" / "classifier.keras")
    np.testing.assert_allclose(served, classifier.predict(digits().images[:8], verbose=0), atol=1e-5)
    metadata = json.loads((folder / "saved_model" / "assets.extra" / "keras_cnv2.json").read_text())
    assert metadata.pop("class_names") == [*map(str, range(10))]
    assert metadata == {"image_size": 32, "resize": "squash", "channels": 1, "mean": [0], "std": [1]}


def test_command_predicts_what_the_classifier_does(quickstart, tmp_path, capsys):
    """The classifier's file alone knows names, size and resizing."""
    import tensorflow as tf

    weights = quickstart[0] / "finetuning" / "classifier.keras"
    for index, image in enumerate(digits().images[:8]):
        (tmp_path / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    assert main(["predict", str(tmp_path), "--weights", str(weights), "--top", "10", "--json"]) == 0
    results = [result["predictions"] for result in json.loads(capsys.readouterr().out)]
    predicted = [{row["name"]: row["probability"] for row in result} for result in results]
    expected = keras.saving.load_model(weights).predict(digits().images[:8], verbose=0)
    received = [[named[name] for name in map(str, range(10))] for named in predicted]
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_config_and_progress(quickstart):
    folder, process = quickstart
    for phase, kind, epochs in (("pretraining", "Pretraining", 1), ("finetuning", "Finetuning", 2)):
        config = json.loads((folder / phase / "config.json").read_text())
        assert (config["kind"], config["epochs"], config["seed"]) == (kind, epochs, 0)
        assert config["versions"]["keras"] == keras.__version__
    assert "[3/3]" in process.stdout
    assert "epoch 2/2" in process.stderr
    assert "img/s" in process.stderr


def test_second_run_of_the_name_is_refused(quickstart):
    folder, _ = quickstart
    before = (folder / "metrics.json").read_text()
    process = command("quickstart", "--runs", folder.parent, "--name", folder.name)
    assert process.returncode == 1
    assert "give another --name" in process.stderr
    assert "Traceback" not in process.stderr
    assert (folder / "metrics.json").read_text() == before


@pytest.mark.release
def test_full_run_reaches_its_accuracy(tmp_path):
    process = command("quickstart", "--runs", tmp_path, "--name", "full")
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "full" / "metrics.json").read_text())["test_accuracy"] >= 0.97


@pytest.mark.release  # `.ci/run` compares the runs of two installations
def test_runs_are_alike(quickstart, tmp_path):
    again = run_small(tmp_path)
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (quickstart[0], again[0]))
    del one["seconds"], two["seconds"]
    assert one == two


class TestEvaluation:
    """`python -m training evaluate` of its runs, here as no other file has them."""

    def test_run_of_ours(self, quickstart, capsys, tmp_path):
        folder, _ = quickstart
        training.__main__.main(
            [
                "evaluate",
                "--weights",
                str(folder / "finetuning"),
                "--data",
                "digits",
                "--json",
                str(tmp_path / "a.json"),
            ]
        )
        figures = json.loads((tmp_path / "a.json").read_text())
        expected = json.loads((folder / "finetuning" / "metrics.json").read_text())
        assert (figures["top1"], figures["top5"]) == (expected["top1"], expected["top5"])
        assert figures["classes"] == expected["classes"]
        text = capsys.readouterr().out
        assert f"top-1 {figures['top1']:.2%}" in text
        assert f"{figures['images_per_second']:.1f} images/s" in text
        assert len(text.splitlines()) == 11

    @pytest.mark.parametrize(
        ("weights", "data", "message"),
        [
            (
                "pretraining",
                "digits",
                "a finished run that has classifier.keras.*pretraining, a run of Pretraining that is finished",
            ),
            ("finetuning", "nowhere", "nowhere"),
        ],
    )
    def test_clear_errors(self, quickstart, weights, data, message):
        with pytest.raises(SystemExit, match=f"(?s)^error: .*{message}"):
            training.__main__.main(["evaluate", "--weights", str(quickstart[0] / weights), "--data", data])

    def test_encoder_is_refused(self, quickstart):
        with pytest.raises(SystemExit, match="weights must be of a classifier"):
            training.__main__.main(
                ["evaluate", "--weights", str(quickstart[0] / "pretraining" / "fcmae.keras"), "--data", "digits"]
            )
