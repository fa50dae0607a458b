from functools import partial

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.training.recipes.test_dense import FIELDS
from tests.training.small import finetuning, pretraining, source
from training.models.build import (
    blocks_of,
    freeze_encoder,
    new_backbone,
    new_classifier,
    new_fcmae,
    rematerialize,
    with_softmax,
    without_grn,
)
from training.recipes.dense import Dense

ENCODERS = ("visible", "dense")
# Eager steps save the time to trace them; test_killed_run has graphs.
EAGER = {"run_eagerly": keras.backend.backend() == "tensorflow"}


def weights(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.backends
def test_classifier_starts_from_the_encoder(tmp_path):
    fcmae = new_fcmae(pretraining(), 3)
    fcmae.save(tmp_path / "fcmae.keras")
    classifier = new_classifier(finetuning(head_init=1e-9), 3, ["a", "b", "c"], weights=str(tmp_path / "fcmae.keras"))
    assert (classifier.class_names, classifier.image_size, classifier.resize) == (("a", "b", "c"), 16, "squash")
    ours, theirs = keras_cnv2.state_dict(classifier), keras_cnv2.state_dict(fcmae)
    shared = [name for name in ours if f"encoder.{name}" in theirs]
    assert len(shared) == len(ours) - 4
    for name in shared:
        np.testing.assert_array_equal(ours[name], theirs[f"encoder.{name}"])
    assert np.abs(ours["head.weight"]).max() < 1e-9


def test_statistics_of_the_weights_stay(tmp_path):
    """From an encoder that saw images with another mean, to its FCMAE, to a classifier, to the copy that is served."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **pretraining().architecture, stem_stride=1, mean=(0.5,) * 3, std=(0.4,) * 3
    )
    path = str(tmp_path / "model.keras")
    backbone.save(path)
    fcmae = new_fcmae(pretraining(), 3, path)
    fcmae.save(path)
    classifier = new_classifier(finetuning(), 3, ["a", "b", "c"], path)
    for model in (
        fcmae.backbone,
        classifier,
        with_softmax(classifier, finetuning()),
        new_backbone(Dense(**FIELDS), path),
    ):
        assert (model.mean, model.std) == ((0.5,) * 3, (0.4,) * 3)


def test_head_is_not_made_small_from_scratch():
    kernel = new_classifier(finetuning(head_init=1e-9), 3, ["a", "b", "c"]).get_layer("head").kernel
    assert np.abs(keras.ops.convert_to_numpy(kernel)).max() > 1e-3


@pytest.mark.backends
def test_frozen_encoder():
    classifier = new_classifier(finetuning(), 3, ["a", "b", "c"])
    freeze_encoder(classifier)
    assert [v.path for v in classifier.trainable_variables] == ["norm/gamma", "norm/beta", "head/kernel", "head/bias"]


@pytest.mark.backends
@pytest.mark.parametrize("kind", ["classifier", "fcmae"])
def test_without_grn(kind):
    """The identity, before and after a step, whatever the weights were."""
    if kind == "classifier":
        model = new_classifier(finetuning(), 3, ["a", "b", "c"])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), **EAGER)
        batch = source().train.images[:4].astype("float32"), np.eye(3)[[0, 1, 2, 0]]
    else:
        model = new_fcmae(pretraining(), 3)
        model.compile("sgd", **EAGER)
        batch = (source().train.images[:4].astype("float32"),)
    grns = [block.grn for block in blocks_of(model)]
    assert len(grns) == 4 + (kind == "fcmae")
    for grn in grns:
        grn.gamma.assign(np.ones(grn.gamma.shape))
    without_grn(model)
    before = [np.array(keras.ops.convert_to_numpy(block.pwconv2.kernel)) for block in blocks_of(model)]
    model.train_on_batch(*batch)
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 3, grns[0].gamma.shape[0])).astype("float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(grns[0](x)), x, rtol=1e-6)
    for block, kernel in zip(blocks_of(model), before):
        assert not block.grn.trainable_variables
        assert keras.ops.convert_to_numpy(block.grn.gamma).max() == 0
        assert np.abs(keras.ops.convert_to_numpy(block.pwconv2.kernel) - kernel).max() > 0


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ENCODERS), "classifier"])
def test_rematerialization_changes_no_gradient(kind):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    images = source().train.images[:4].astype("float32")
    if kind == "classifier":
        model = new_classifier(finetuning(drop_path=0.5), 3, ["a", "b", "c"])
        loss = partial(model, images, training=True)
    else:
        backbone = new_fcmae(pretraining(drop_path=0.5), 3).backbone
        model = keras_cnv2.FCMAE(backbone, 16, decoder_dim=8, mask_ratio=0.5, encoder=kind)
        hidden = np.tile([[[0, 1], [1, 0]]], (4, 1, 1))
        loss = lambda: model.reconstruction_loss(images, model(images, hidden=hidden, training=True))  # noqa: E731
    seeds = [variable for variable in model.variables if "seed" in variable.path]
    states = [variable.numpy() for variable in seeds]

    def gradients():
        for variable, before in zip(seeds, states):
            variable.assign(before)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(loss() ** 2)
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    plain = gradients()
    rematerialize(model)
    for one, two in zip(plain, gradients()):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.backends
def test_rematerialized_model_trains_alike():
    images = source().train.images[:4].astype("float32")

    def trained(remat):
        keras.utils.set_random_seed(0)
        model = new_fcmae(pretraining(), 3)
        if remat:
            rematerialize(model)
        model.compile("sgd", **EAGER)
        model.train_on_batch(images)
        return weights(model)

    for one, two in zip(trained(False), trained(True)):
        np.testing.assert_allclose(one, two, atol=1e-6)
