import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cnv2.kernels import fused
from tests.training.runs_in_parts import StopAt
from tests.training.small import finetuning, pretraining, source
from training.commands.finetune import classifier_metrics
from training.data.images.arrays import Arrays
from training.data.images.augment import Augmentation
from training.errors import TrainingError
from training.loop import state
from training.loop.train import train
from training.models.build import (
    new_classifier,
    new_fcmae,
    with_softmax,
)

# Six steps of four images in an epoch of three batches: every boundary is crossed.
FIELDS = {"accumulation": 2, "drop_path": 0.2, "checkpoint_steps": 4, "deterministic": False}
# Eager steps save the time to trace them; test_killed_run has graphs.
EAGER = {"run_eagerly": keras.backend.backend() == "tensorflow"}
LOSS = {"loss": keras.losses.CategoricalCrossentropy(from_logits=True), "metrics": classifier_metrics, **EAGER}


def pretrain(folder, callbacks=(), images=26, **fields):
    recipe = pretraining(**FIELDS | fields)
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    model = new_fcmae(recipe, 3)
    return model, train(model, recipe, source(images), folder, callbacks=callbacks, **EAGER)


def finetune(folder, callbacks=(), images=26, **fields):
    recipe = finetuning(**FIELDS | {"ema": 0.5} | fields)
    # Without RandAugment, which takes long to trace: test_killed_run and test_recipes_run_without_tensorflow have it.
    augmentation = Augmentation(3, erasing=0.25, label_smoothing=0.1, mixup=0.8, cutmix=1.0)
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    model = new_classifier(recipe, 3, source().class_names)
    data = source(images)
    return model, train(model, recipe, data, folder, augmentation, callbacks, monitor="val_accuracy", **LOSS)


def weights(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "stop", "saved"), [(pretrain, 11, 8), (finetune, 11, 8), (finetune, 5, 4)])
def test_interrupted_run_ends_as_if_it_had_not_been(tmp_path, phase, stop, saved):
    whole, progress = phase(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        phase(tmp_path / "parts", [StopAt(stop)])
    # The checkpoint lies between two steps of the optimizer, in the last epoch or in one before.
    assert max(state.checkpoints(tmp_path / "parts" / "checkpoints")) == saved
    parts, again = phase(tmp_path / "parts")
    assert progress.step == again.step == 12
    assert int(parts.optimizer.iterations) == 6
    for one, two in zip(weights(whole), weights(parts)):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert [row["step"] for row in again.history] == [6, 12]
    shown = "val_loss" if phase is finetune else "loss"
    assert again.history[0] == json.loads((tmp_path / "parts" / "log.json").read_text())[0]
    if phase is finetune:
        np.testing.assert_allclose(again.history[1][shown], progress.history[1][shown], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [4, 16])
def test_goes_on_with_another_batch_size(tmp_path, batch_size):
    """From the same place in the data and in the schedule, whether steps have higher numbers then or lower ones."""
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "run", [StopAt(7)], images=32, epochs=3, warmup_epochs=1, clip_norm=1.0)  # 8 an epoch
    steps = 8 * 8 // batch_size
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append((int(self.model.optimizer.iterations), float(self.model.optimizer.learning_rate)))

    model, progress = pretrain(
        tmp_path / "run",
        [See(), StopAt(10**6)],
        images=32,
        epochs=3,
        warmup_epochs=1,
        clip_norm=1.0,
        batch_size=batch_size,
    )
    assert progress.step == 3 * steps
    assert [row["step"] for row in progress.history] == [steps, 2 * steps, 3 * steps]
    first = steps // 2
    assert len(seen) == 3 * steps - first
    assert seen[0] == (first // 2, pytest.approx(0.5 * 0.03 * batch_size / 256))
    assert int(model.optimizer.iterations) == 3 * steps // 2
    assert max(state.checkpoints(tmp_path / "run" / "checkpoints")) == 3 * steps


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 7])
def test_images_that_grow(tmp_path, stop, monkeypatch):
    """The first epoch's are smaller. A run that goes on after it has the weights, and not their averages."""
    sizes = []
    batches = Arrays.training

    def training(self, recipe, first_batch, *others):
        sizes.append((recipe.image_size, first_batch, batches(self, recipe, first_batch, *others)[0][0].shape))
        return batches(self, recipe, first_batch, *others)

    monkeypatch.setattr(Arrays, "training", training)
    fields = {"first_size": 8, "first_epochs": 1}
    whole, progress = finetune(tmp_path / "whole", **fields)
    assert sizes == [(8, 0, (4, 8, 8, 3)), (16, 6, (4, 16, 16, 3))]
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "parts", [StopAt(stop)], **fields)
    parts, again = finetune(tmp_path / "parts", **fields)
    assert progress.step == again.step == 12
    assert int(whole.optimizer.iterations) == int(parts.optimizer.iterations) == 6
    for one, two in zip(weights(whole), weights(parts)):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert with_softmax(parts, finetuning(**fields)).image_size == 16


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")
def test_compiled_for_images_of_either_size(tmp_path, monkeypatch):
    """The fast kernels need to know sizes: of the batch, and of its images."""
    shapes = set()
    monkeypatch.setattr(fused, "applies", lambda shape, dtype: bool(shapes.add(tuple(shape))))
    monkeypatch.setitem(LOSS, "run_eagerly", False)
    finetune(tmp_path, first_size=8, first_epochs=1)
    assert {shape[:3] for shape in shapes} >= {(4, 4, 4), (4, 8, 8)}
    assert all(isinstance(size, int) for shape in shapes for size in shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of two steps. After each step there would be a checkpoint, were it not for the accumulation."""
    folder = tmp_path_factory.mktemp("run")
    return (*finetune(folder, images=8, checkpoint_steps=1), folder)


@pytest.mark.backends
class TestOneRun:
    def test_logs(self, run):
        _, progress, folder = run
        rows = json.loads((folder / "log.json").read_text())
        assert rows == list(progress.history)
        assert [row["epoch"] for row in rows] == [1, 2]
        assert rows[0].keys() >= {"step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"}
        assert all(row["images_per_second"] > 0 for row in rows)
        with open(folder / "log.csv") as file:
            table = [*csv.DictReader(file)]
        assert [{name: float(value) for name, value in row.items()} for row in table] == rows
        assert [*(folder / "tensorboard").glob("train/events*")]

    def test_checkpoints_lie_between_two_steps_of_the_optimizer(self, run):
        *_, folder = run
        assert sorted(state.checkpoints(folder / "checkpoints")) == [2, 4]

    def test_ends_with_the_averaged_weights(self, run):
        model, _, folder = run
        arrays, _ = state.read(folder / "checkpoints" / "step-0000000004.safetensors")
        named = {v.path: arrays[name] for name, v in state.variables(model).items()}
        differences = []
        for variable in model.trainable_variables:
            average = named[f"layer_decay_adamw/{variable.path.replace('/', '_')}_average"]
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), average)
            differences.append(np.abs(named[variable.path] - average).max())
        assert max(differences) > 1e-4, "the weights that train on are others"

    def test_validates_with_the_averaged_weights(self, run):
        model, progress, _ = run
        batches = source(8).validation(None, 4)
        images, labels, weights = (np.concatenate(column) for column in zip(*(batches[i] for i in range(3))))
        right = model.predict(images, verbose=0).argmax(-1) == labels.argmax(-1)
        accuracy = np.average(right, weights=weights)
        assert progress.history[-1]["val_accuracy"] == pytest.approx(accuracy)

    def test_finished_run_trains_no_further(self, run):
        model, progress, folder = run
        again, there = finetune(folder, images=8)
        assert there == progress
        for one, two in zip(weights(model), weights(again)):
            np.testing.assert_array_equal(one, two)

    def test_softmax_copy(self, run):
        model, _, _ = run
        copy = with_softmax(model, finetuning())
        logits = model.predict(source().test.images, verbose=0)
        expected = np.exp(logits - logits.max(-1, keepdims=True))
        expected /= expected.sum(-1, keepdims=True)
        np.testing.assert_allclose(copy.predict(source().test.images, verbose=0), expected, atol=1e-6)
        assert (copy.class_names, copy.image_size, copy.resize) == (source().class_names, 16, "squash")


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.stop_training = False
                self.model.trainable_variables[0].assign(self.model.trainable_variables[0] * np.nan)

    with pytest.raises(TrainingError, match=r"loss was nan at step 3\b.*step-0000000002\.safetensors"):
        pretrain(tmp_path / "run", [Spoil()], images=8)
    # What the bad step made was never saved.
    assert sorted(state.checkpoints(tmp_path / "run" / "checkpoints")) == [2]


# test_killed_run trains in bfloat16, too.
@pytest.mark.parametrize("dtype", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_mixed_precision(tmp_path, dtype):
    model, progress = finetune(tmp_path / "run", images=8, dtype=dtype, epochs=1, warmup_epochs=0)
    assert np.isfinite(progress.history[0]["loss"])
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (dtype == "mixed_float16")


WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path

for name in ("tensorflow", "tensorboard", "tensorflow_datasets"):
    sys.modules[name] = None  # as if it were not installed
from tests.training.small import finetuning, pretraining, source
from training.commands import finetune, pretrain, training_run

folder = Path(sys.argv[1])
training_run.open_source = lambda *args, **kwargs: source(train=8, test=5)
fields = {"epochs": 1, "warmup_epochs": 0}
pretrain.run(pretraining(**fields), folder / "fcmae")
fields |= {"ema": 0.9, "rand_augment": 9.0, "mixup": 0.8, "cutmix": 1.0, "erasing": 0.25}
assert finetune.run(finetuning(weights=str(folder / "fcmae"), **fields), folder / "classifier")["images"] == 5
assert not any(name.startswith("tensorflow.") for name in sys.modules)
"""


@pytest.mark.backends
def test_recipes_run_without_tensorflow(tmp_path):
    if keras.backend.backend() != "jax":
        pytest.skip("JAX only")
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "classifier" / "classifier.keras").exists()
