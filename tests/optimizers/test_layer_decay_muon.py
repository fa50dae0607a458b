import contextlib
import functools
import inspect
import json
import math

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2 import LayerDecayAdamW, LayerDecayMuon
from tests.golden import rule
from tests.optimizers.test_layer_decay_adamw import as_in_training

MUON = {"learning_rate": 0.02, "weight_decay": 0.3, "layer_decay": 0.7, "momentum": 0.9}

SHAPES = {
    "stages_2_0/pwconv1/kernel": (4, 16),
    "stages_2_0/pwconv2/kernel": (16, 4),
    "stages_2_0/pwconv2/bias": (4,),
    "stages_3_0/pwconv1/kernel": (4, 16),
    "head/kernel": (4, 5),
}


def weights():
    """Variables with the paths of a model's: two layers' matrices, a bias and a head."""
    made = []
    for path, shape in SHAPES.items():
        *layers, name = path.split("/")
        with contextlib.ExitStack() as scopes:
            for layer in layers:
                scopes.enter_context(keras.name_scope(layer))
            made.append(keras.Variable(rule.tensor(0, path, shape), name=name))
    return made


def gradients(variables, steps):
    return [[rule.tensor(step, v.path, tuple(v.shape)).astype("float32") for v in variables] for step in range(steps)]


def trained(optimizer, grads, variables=None):
    """Variables after these gradients: path -> array."""
    variables = variables or weights()
    apply = as_in_training(optimizer, variables)
    for each in grads:
        apply(each)
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


def is_matrix(path):
    return path.endswith(("pwconv1/kernel", "pwconv2/kernel"))


def reference(w, grads, lr, weight_decay, momentum, rms_rate=0.2, steps=5):
    """A matrix after these gradients by Muon, in NumPy's float64."""
    m = np.zeros_like(w, "float64")
    for g in grads:
        m = momentum * m + g
        x = g + momentum * m
        x = x / np.sqrt((x**2).sum())
        for _ in range(steps):
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        w = w * (1 - lr * weight_decay) - lr * rms_rate * math.sqrt(max(w.shape)) * x
    return w


class TestSteps:
    @pytest.mark.backends
    def test_reference(self):
        """Matrices step as Muon does, all others as LayerDecayAdamW has them."""
        variables = weights()
        before = {v.path: np.float64(keras.ops.convert_to_numpy(v)) for v in variables}
        optimizer = LayerDecayMuon(**MUON, newton_schulz_steps=3, rms_rate=0.3)
        grads = gradients(variables, 3)
        after = trained(optimizer, grads, variables)
        adamw = {name: MUON[name] for name in ("learning_rate", "weight_decay", "layer_decay")}
        others = trained(LayerDecayAdamW(**adamw), grads)
        for index, v in enumerate(variables):
            expected = others[v.path]
            if is_matrix(v.path):
                lr = 0.02 * optimizer.multiplier(v)
                expected = reference(before[v.path], [each[index] for each in grads], lr, 0.3, 0.9, 0.3, 3)
                assert np.abs(expected - before[v.path]).max() > 1e-3
            np.testing.assert_allclose(after[v.path], expected, atol=1e-6, rtol=0, err_msg=v.path)
        multipliers = {v.path: optimizer.multiplier(v) for v in variables}
        assert multipliers == dict(zip(SHAPES, (0.7**2, 0.7**2, 0.7**2, 0.7, 1.0)))

    def test_as_keras_has_it(self):
        if "rms_rate" not in inspect.signature(getattr(keras.optimizers, "Muon", dict)).parameters:
            pytest.skip("this release of Keras has another Muon, without rms_rate")
        grads = gradients(weights(), 3)
        decay = {"weight_decay": 0.3, "adam_weight_decay": 0.3}
        theirs = trained(keras.optimizers.Muon(0.02, **decay, exclude_layers=["head"]), grads)
        ours = trained(LayerDecayMuon(0.02, 0.3), grads)
        for path in filter(is_matrix, ours):  # of AdamW, Keras has another epsilon
            np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6, rtol=0, err_msg=path)

    @pytest.mark.backends
    def test_accumulated_gradients_step_as_their_mean(self):
        parts = gradients(weights(), 4)
        means = [[(a + b) / 2 for a, b in zip(*pair)] for pair in (parts[:2], parts[2:])]
        whole = trained(LayerDecayMuon(**MUON, use_ema=True, ema_momentum=0.5), means)
        accumulated = trained(
            LayerDecayMuon(**MUON, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=2), parts
        )
        for path, expected in whole.items():
            np.testing.assert_allclose(accumulated[path], expected, atol=1e-6, rtol=0, err_msg=path)

    def test_goes_on_from_its_state(self, tmp_path):
        block = functools.partial(keras_cnv2.ConvNeXtV2Block, 4, name="stages_0_0")
        first, second = (keras.Sequential([keras.Input((4, 4, 4)), block()]) for _ in range(2))
        grads = gradients(first.trainable_variables, 4)
        first.compile(LayerDecayMuon(**MUON), "mse")
        second.set_weights(first.get_weights())
        expected = trained(LayerDecayMuon(**MUON), grads, second.trainable_variables)
        trained(first.optimizer, grads[:2], first.trainable_variables)
        first.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        assert again.optimizer.get_config() == first.optimizer.get_config()
        received = trained(again.optimizer, grads[2:], again.trainable_variables)
        for one, two in zip(received.values(), expected.values(), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6, rtol=0)


def test_has_no_velocity_for_matrices():
    optimizer = LayerDecayMuon()
    optimizer.build(weights())
    momentums, velocities = ([v for v in optimizer.variables if kind in v.path] for kind in ("momentum", "velocity"))
    assert (len(momentums), len(velocities)) == (5, 2)


def test_config():
    optimizer = LayerDecayMuon(0.1, 0.2, momentum=0.5, newton_schulz_steps=3, rms_rate=0.4, layer_decay=0.8)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    again = keras.saving.deserialize_keras_object(serialized)
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.newton_schulz_steps, again.rms_rate, again.layer_decay) == (0.5, 3, 0.4, 0.8)


@pytest.mark.parametrize(
    ("argument", "value"), [("momentum", 1.0), ("momentum", -0.1), ("newton_schulz_steps", 0), ("rms_rate", 0.0)]
)
def test_says_what_was_received(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be .*Received: {argument}="):
        LayerDecayMuon(**{argument: value})
