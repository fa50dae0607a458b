import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from keras_cnv2.cli import main
from training import data

ROOT = Path(__file__).parent.parent.parent


def quickstart(*arguments):
    command = [sys.executable, "-m", "training", "quickstart", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run with a small budget, as a user starts it."""
    runs = tmp_path_factory.mktemp("runs")
    process = quickstart("--runs", runs, "--name", "small", "--pretrain-epochs", 1, "--finetune-epochs", 2)
    assert process.returncode == 0, process.stderr
    return runs / "small", process


def test_writes_everything(run):
    folder, _ = run
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.json",
        "pretraining.csv",
        "finetuning.csv",
        "learning_curves.png",
        "reconstructions.png",
        "confusion_matrix.png",
        "fcmae.keras",
        "classifier.keras",
        "saved_model",
    }
    for picture in folder.glob("*.png"):
        pixels = imread(picture)
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.05, f"{picture} is empty"


def test_metrics_are_those_of_the_saved_classifier(run):
    folder, process = run
    metrics = json.loads((folder / "metrics.json").read_text())
    _, test = data.digits(32)
    probabilities = keras.saving.load_model(folder / "classifier.keras").predict(test.images, verbose=0)
    assert metrics["test_accuracy"] == np.mean(probabilities.argmax(-1) == test.labels)
    assert f"{metrics['test_accuracy']:.2%}" in process.stdout
    assert metrics["exported_max_difference"] <= 1e-5
    losses = [float(row.split(",")[1]) for row in (folder / "pretraining.csv").read_text().splitlines()[1:]]
    assert losses == [metrics["pretraining_loss_first_epoch"]]


def test_exported_model_is_the_classifier(run):
    import tensorflow as tf

    folder, _ = run
    _, test = data.digits(32)
    saved_model = tf.saved_model.load(folder / "saved_model")
    served = saved_model.serve(test.images[:8].astype("float32"))
    probabilities = keras.saving.load_model(folder / "classifier.keras").predict(test.images[:8], verbose=0)
    np.testing.assert_allclose(served, probabilities, atol=1e-5)
    metadata = json.loads((folder / "saved_model" / "assets.extra" / "keras_cnv2.json").read_text())
    assert metadata == {"class_names": [*map(str, range(10))], "image_size": 32, "resize": "squash"}


def test_command_predicts_what_the_classifier_does(run, tmp_path, capsys):
    """The classifier's file alone knows names, size and resizing."""
    import tensorflow as tf

    folder, _ = run
    _, test = data.digits(32)
    for index, image in enumerate(test.images[:8]):
        (tmp_path / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    assert main(["predict", str(tmp_path), "--weights", str(folder / "classifier.keras"), "--top", "10", "--json"]) == 0
    results = [result["predictions"] for result in json.loads(capsys.readouterr().out)]
    predicted = [{row["name"]: row["probability"] for row in result} for result in results]
    expected = keras.saving.load_model(folder / "classifier.keras").predict(test.images[:8], verbose=0)
    received = [[named[name] for name in map(str, range(10))] for named in predicted]
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_config_and_progress(run):
    folder, process = run
    config = json.loads((folder / "config.json").read_text())
    assert (config["pretraining"]["epochs"], config["finetuning"]["epochs"], config["seed"]) == (1, 2, 0)
    assert config["versions"]["keras"] == keras.__version__
    assert "[4/4]" in process.stdout
    assert "1/1" in process.stderr


def test_second_run_of_the_name_is_refused(run):
    folder, _ = run
    before = (folder / "metrics.json").read_text()
    process = quickstart("--runs", folder.parent, "--name", folder.name)
    assert process.returncode == 1
    assert "give another --name" in process.stderr
    assert "Traceback" not in process.stderr
    assert (folder / "metrics.json").read_text() == before


@pytest.mark.parametrize("arguments", [("--pretrain-epochs", "0"), ("--name", "a/b"), ("--seeds", "3")])
def test_bad_arguments(arguments):
    process = quickstart(*arguments)
    assert process.returncode == 2
    assert arguments[1] in process.stderr


@pytest.mark.slow
def test_full_run_reaches_its_accuracy_twice_alike(tmp_path):
    for name in ("one", "two"):
        process = quickstart("--runs", tmp_path, "--name", name)
        assert process.returncode == 0, process.stderr
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["test_accuracy"] >= 0.97
    del one["seconds"], two["seconds"]
    assert one == two
