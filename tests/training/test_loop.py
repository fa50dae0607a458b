import dataclasses

import keras
import numpy as np
import pytest

import keras_cnv2
from training import loop, recipes

RECIPE = dataclasses.replace(recipes.QUICKSTART, dims=(4, 8, 12, 16), decoder_dim=8, image_size=16, mask_ratio=0.5)


@pytest.mark.backends
def test_schedule_warms_up_and_falls_to_zero():
    schedule = recipes.Schedule(
        epochs=10, warmup_epochs=2, batch_size=128, base_lr=1.0, weight_decay=0.1, betas=(0.9, 0.95)
    )
    rates = loop.adamw(schedule, keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), 5)._learning_rate
    values = [float(rates(step)) for step in range(51)]
    np.testing.assert_allclose(values[:11], np.linspace(0, 0.5, 11), atol=1e-6)
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(41) / 40))
    np.testing.assert_allclose(values[10:], cosine, atol=1e-6)


@pytest.mark.backends
def test_weight_decay_leaves_rank_one_alone():
    model = loop.new_fcmae(RECIPE, 1, seed=0)
    optimizer = loop.adamw(RECIPE.pretraining, model, 5)
    optimizer.build(model.trainable_variables)
    decayed = {v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in model.trainable_variables if v.path.endswith("kernel")}


@pytest.mark.backends
def test_classifier_starts_from_the_encoder():
    fcmae = loop.new_fcmae(RECIPE, 1, seed=0)
    classifier = loop.new_classifier(RECIPE, fcmae, ["a", "b", "c"])
    assert classifier.class_names == ("a", "b", "c")
    assert (classifier.image_size, classifier.resize) == (16, "squash")
    ours, theirs = keras_cnv2.state_dict(classifier), keras_cnv2.state_dict(fcmae)
    shared = [name for name in ours if f"encoder.{name}" in theirs]
    assert len(shared) == len(ours) - 4
    for name in shared:
        np.testing.assert_array_equal(ours[name], theirs[f"encoder.{name}"])


@pytest.mark.backends
def test_fit():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.random.default_rng(index).uniform(0, 255, (4, 16, 16, 1)).astype("float32")

    fcmae = loop.new_fcmae(RECIPE, 1, seed=0)
    history = loop.fit(fcmae, Batches(), RECIPE.pretraining.with_epochs(2))
    assert np.shape(history["loss"]) == (2,)
    assert np.isfinite(history["loss"]).all()
    assert int(fcmae.optimizer.iterations) == 4
