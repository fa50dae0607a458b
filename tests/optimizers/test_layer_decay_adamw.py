import functools
import inspect
import json
import math
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2 import LayerDecayAdamW, WarmupCosine
from keras_cnv2.checkpoints.names import OFFICIAL
from keras_cnv2.keras_internals import averages_of
from keras_cnv2.optimizers.layer_decay import GROUP_DEPTHS, layers_above
from tests import golden
from tests.golden import rule

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
DEPTHS = {"atto": (2, 2, 6, 2), "tiny": (3, 3, 9, 3), "base": (3, 3, 27, 3)}


@functools.cache
def classifier(depths=SMALL["depths"]):
    """A model whose weights no test changes; learning-rate multipliers go by depths alone."""
    return keras_cnv2.ConvNeXtV2(depths, (4, 4, 4, 4), classes=3)


def built(variables, **arguments):
    optimizer = LayerDecayAdamW(**arguments)
    optimizer.build(variables)
    return optimizer


def multipliers(variables, **arguments):
    """The multiplier of each variable that an optimizer is built on, by path."""
    optimizer = built(variables, **arguments)
    return {v.path: optimizer.multiplier(v) for v in variables}


def kernel_and_bias():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.standard_normal((3, 4)).astype("float32"), name="kernel"),
        keras.Variable(rng.standard_normal(4).astype("float32"), name="bias"),
    ]


def gradients(count, seed=1):
    rng = np.random.default_rng(seed)
    return [[rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (4,))] for _ in range(count)]


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def moving_averages(optimizer):
    return [average for _, average in averages_of(optimizer)]


def averages_and_momenta(optimizer):
    momenta = [variable for variable in optimizer.variables if variable.path.endswith("_momentum")]
    assert len(momenta) == 2
    return [*moving_averages(optimizer), *momenta]


def as_in_training(optimizer, variables):
    """A function that applies gradients the way the backend's `fit` does: compiled, stateless on JAX."""
    optimizer.build(variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda grads: optimizer.apply(grads, variables))
    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(optimizer.stateless_apply)

        def apply(grads):
            state = [v.value for v in optimizer.variables]
            for targets, news in zip(
                (variables, optimizer.variables), compiled(state, grads, [v.value for v in variables])
            ):
                for target, new in zip(targets, news):
                    target.assign(new)

        return apply
    return lambda grads: optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)


def reference(start, updates, lr, weight_decay=0.05, betas=(0.9, 0.999), epsilon=1e-8):
    """The weights after each update by AdamW in NumPy, with a learning rate for each; rank 1 is not decayed."""
    weights = [np.float64(w) for w in start]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for t, grads in enumerate(updates, start=1):
        for i, g in enumerate(map(np.float64, grads)):
            if g.ndim > 1:
                weights[i] = weights[i] * (1 - lr[t - 1] * weight_decay)
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g**2
            m_hat, v_hat = m[i] / (1 - betas[0] ** t), v[i] / (1 - betas[1] ** t)
            weights[i] = weights[i] - lr[t - 1] * m_hat / (np.sqrt(v_hat) + epsilon)
        yield [w.copy() for w in weights]


def assert_close(received, expected, tolerance=1e-6):
    for r, e in zip(received, expected):
        np.testing.assert_allclose(r, e, atol=tolerance, rtol=0)


class TestSchedule:
    @pytest.mark.backends
    @pytest.mark.parametrize("name", ["pretrain", "finetune_base", "finetune_atto"])
    def test_reference(self, name):
        reference = golden.load("schedules")
        lr, min_lr, warmup_epochs, epochs, steps_per_epoch = reference[f"{name}/config"]
        schedule = WarmupCosine(lr, int(epochs * steps_per_epoch), int(warmup_epochs * steps_per_epoch), min_lr)
        received = keras.ops.convert_to_numpy(schedule(reference[f"{name}/steps"].astype("int32")))
        np.testing.assert_allclose(received, reference[f"{name}/lr"], rtol=1e-6, atol=1e-13)

    def test_corners(self):
        schedule = WarmupCosine(0.8, steps=10, warmup_steps=4, min_learning_rate=0.2)
        expected = {0: 0.0, 1: 0.2, 4: 0.8, 7: 0.5, 10: 0.2, 1000: 0.2}
        assert {step: pytest.approx(float(schedule(step)), abs=1e-6) for step in expected} == expected
        assert float(WarmupCosine(0.8, steps=10)(0)) == pytest.approx(0.8)
        assert float(WarmupCosine(0.8, steps=10, warmup_steps=10)(9)) == pytest.approx(0.72)

    def test_config(self):
        schedule = WarmupCosine(0.5, steps=np.int64(7), warmup_steps=2, min_learning_rate=np.float32(0.25))
        config = schedule.get_config()
        assert config == {"learning_rate": 0.5, "steps": 7, "warmup_steps": 2, "min_learning_rate": 0.25}
        assert config.keys() == inspect.signature(WarmupCosine).parameters.keys()
        serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
        assert keras.saving.deserialize_keras_object(serialized).get_config() == config

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("learning_rate", 0),
            ("learning_rate", "1e-3"),
            ("learning_rate", math.nan),
            ("steps", 0),
            ("steps", 10.0),
            ("warmup_steps", -1),
            ("warmup_steps", 11),
            ("warmup_steps", True),
            ("min_learning_rate", -0.1),
            ("min_learning_rate", 0.6),
        ],
    )
    def test_says_what_was_received(self, argument, value):
        with pytest.raises(ValueError, match=f"^{argument} must be .*Received: {argument}="):
            WarmupCosine(**{"learning_rate": 0.5, "steps": 10, argument: value})


class TestLayers:
    @pytest.mark.parametrize(
        ("size", "layer_decay", "kind"), [("atto", 0.9, "single"), ("tiny", 0.9, "single"), ("base", 0.6, "group")]
    )
    def test_reference(self, size, layer_decay, kind):
        variables = classifier(DEPTHS[size]).trainable_variables
        optimizer = built(variables, layer_decay=layer_decay, layer_decay_type=kind)
        received = {
            OFFICIAL.name_of(v.path)[0]: f"{optimizer.multiplier(v):.10f} {int(optimizer.decays(v))}" for v in variables
        }
        table = Path(golden.__file__).with_name(f"layer_decay_{size}.txt").read_text().splitlines()
        assert received == dict(line.split(" ", 1) for line in table if not line.startswith("#"))

    def test_frozen_stages_at_the_bottom_change_nothing(self):
        variables = classifier().trainable_variables
        everything = multipliers(variables, layer_decay=0.7)
        for lowest in ("stages_1", "downsample_2_conv", "stages_2_1", "norm"):
            first = next(i for i, v in enumerate(variables) if v.path.startswith(lowest))
            upper = variables[first:]
            assert multipliers(upper, layer_decay=0.7) == {v.path: everything[v.path] for v in upper}

    def test_groups_with_frozen_stages(self):
        variables = classifier(DEPTHS["base"]).trainable_variables
        group = {"layer_decay": 0.6, "layer_decay_type": "group"}
        everything = multipliers(variables, **group)
        upper = variables[next(i for i, v in enumerate(variables) if v.path.startswith("downsample_2_conv")) :]
        assert multipliers(upper, **group) == {v.path: everything[v.path] for v in upper}
        above = [v for v in upper if not v.path.startswith("stages_2")]
        assert multipliers(above, **group) == {v.path: everything[v.path] for v in above}

    def test_groups_of_other_depths(self):
        variables = classifier().trainable_variables
        optimizer = LayerDecayAdamW(layer_decay_type="group")
        with pytest.raises(ValueError, match=r"\(3, 3, 27, 3\).*Received: .*stage 0: 1, stage 1: 1, stage 2: 2"):
            optimizer.build(variables)
        assert not optimizer.built
        assert all(multiplier == 1 for multiplier in multipliers(variables[-4:], layer_decay_type="group").values())

    def test_backbone_with_a_head(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        model = keras.Sequential([backbone, *head])
        received = multipliers(model.trainable_variables, layer_decay=0.5)
        of_the_head = {path: multiplier for path, multiplier in received.items() if "/dense" in path}
        assert [*of_the_head.values()] == [1, 1]
        expected = multipliers(classifier().trainable_variables, layer_decay=0.5)
        rest = received.keys() - of_the_head.keys()
        assert {path: received[path] for path in rest} == {
            path: multiplier for path, multiplier in expected.items() if not path.startswith(("norm", "head"))
        }

    def test_prefixes(self):
        class Wrapped(keras.Model):
            def __init__(self):
                super().__init__(name="wrapped")
                self.block = keras_cnv2.ConvNeXtV2Block(4, name="stages_3_0")
                self.top = keras_cnv2.ConvNeXtV2Block(4, name="mine")

            def call(self, x):
                return self.top(self.block(x))

        model = Wrapped()
        model(np.zeros((1, 8, 8, 4), "float32"))
        received = multipliers(model.trainable_variables, layer_decay=0.5)
        assert received["wrapped/stages_3_0/dwconv/kernel"] == 0.5
        assert received["wrapped/mine/dwconv/kernel"] == 1

    def test_fcmae(self):
        fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL), image_size=64, decoder_dim=8, decoder_depth=2)
        optimizer = built(fcmae.trainable_variables, layer_decay=0.5)
        decoder = ("proj/", "mask_token/", "decoder_0/", "decoder_1/", "pred/")
        of_decoder = [v for v in fcmae.trainable_variables if v.path.startswith(decoder)]
        assert len(of_decoder) == 2 + 1 + 2 * 10 + 2
        assert {optimizer.multiplier(v) for v in of_decoder} == {1}
        assert {v.path: optimizer.multiplier(v) for v in fcmae.backbone.trainable_variables}["stem_norm/beta"] == 0.5**5
        decayed = {v.path for v in of_decoder if optimizer.decays(v)}
        in_block = ("dwconv", "pwconv1", "pwconv2")
        assert decayed == {
            "proj/kernel",
            "pred/kernel",
            *(f"decoder_{i}/{layer}/kernel" for i in (0, 1) for layer in in_block),
        }

    def test_no_decay_on_biases_grn_and_mask_token_of_any_rank(self):
        def variable(*path):
            with keras.name_scope(path[0]):
                return keras.Variable(np.zeros((1, 1, 1, 4), "float32"), name=path[1])

        exempt = [variable("dense", "bias"), variable("grn", "gamma"), variable("mask_token", "token")]
        kernel = variable("dense", "kernel")
        optimizer = built([*exempt, kernel])
        assert [optimizer.decays(v) for v in (*exempt, kernel)] == [False, False, False, True]

    @pytest.mark.parametrize("chosen", ["list", "name"])
    def test_exclude_from_weight_decay(self, chosen):
        variables = classifier().trainable_variables
        kernels = [v for v in variables if len(v.shape) > 1]
        optimizer = LayerDecayAdamW()
        head = next(v for v in kernels if v.path == "head/kernel")
        optimizer.exclude_from_weight_decay(**({"var_list": [head]} if chosen == "list" else {"var_names": ["kernel"]}))
        optimizer.build(variables)
        expected = {*(v.path for v in kernels)} - {head.path} if chosen == "list" else set()
        assert {v.path for v in variables if optimizer.decays(v)} == expected


class TestSeveralEncoders:
    """Encoders in one model whose weights have the same paths: each has the multipliers it has alone."""

    def streams(self):
        encoders = [classifier(), classifier((2, 1, 3, 2)), classifier((1, 2, 1, 2))]
        return [[v for v in encoder.trainable_variables if v.path.startswith(("st", "do"))] for encoder in encoders]

    def test_whole(self):
        streams = self.streams()
        together = built([*chain(*streams)], layer_decay=0.5)
        for stream in streams:
            alone = multipliers(stream, layer_decay=0.5)
            assert {v.path: together.multiplier(v) for v in stream} == alone

    def test_frozen_at_the_bottom(self):
        whole, other, third = self.streams()
        streams = [whole[-10:], other, third[20:], whole[:0]]
        together = built([*chain(*streams)], layer_decay=0.5)
        for stream in streams:
            alone = multipliers(stream, layer_decay=0.5)
            assert {v.path: together.multiplier(v) for v in stream} == alone

    def test_groups(self):
        paths = [
            f"stages_{stage}_{block}/norm/gamma" for stage, depth in GROUP_DEPTHS.items() for block in range(depth)
        ]
        assert layers_above(3 * paths, "group") == 3 * layers_above(paths, "group")

    @pytest.mark.parametrize("mixed", ["weights", "paths", "halves", "parts"])
    def test_mixed(self, mixed):
        first, second, _ = self.streams()
        if mixed == "weights":
            variables = [v for pair in zip(first, second) for v in pair]
        elif mixed == "paths":
            variables = sorted(first + second, key=lambda v: v.path)
        elif mixed == "halves":
            variables = first[:20] + second[:20] + first[20:] + second[20:]
        else:
            variables = first[20:] + second + first[:20]
        with pytest.raises(
            ValueError, match=r"one encoder after the other.*trainable_variables.*Received: encoders that"
        ):
            built(variables, layer_decay=0.5)

    def test_order_of_one_alone_is_free(self):
        (variables, *_) = self.streams()
        assert multipliers(variables[::-1], layer_decay=0.5) == multipliers(variables, layer_decay=0.5)


class TestSteps:
    @pytest.mark.backends
    def test_reference(self):
        reference = golden.load("adamw_five_steps")
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=10)
        golden.set_weights(model, reference["weights_seed"])
        beta_1, beta_2 = map(float, reference["betas"])
        optimizer = LayerDecayAdamW(
            float(reference["lr"]),
            weight_decay=float(reference["weight_decay"]),
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=float(reference["epsilon"]),
            layer_decay=float(reference["layer_decay"]),
        )
        apply = as_in_training(optimizer, model.trainable_variables)
        for seed in reference["grad_seeds"]:
            grads = []
            for v in model.trainable_variables:
                name, layout = OFFICIAL.name_of(v.path)
                there = rule.tensor(int(seed), f"grad/{name}", layout.shape_there(tuple(v.shape)))
                grads.append(layout.to_here(there, tuple(v.shape)))
            apply(grads)
        received = keras_cnv2.state_dict(model)
        assert {f"weight/{name}" for name in received} == {name for name in reference if name.startswith("weight/")}
        for name, weight in received.items():
            np.testing.assert_allclose(weight, reference[f"weight/{name}"], atol=1e-6, rtol=0, err_msg=name)

    @pytest.mark.backends
    @pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)])
    def test_many_steps(self, betas):
        variables = kernel_and_bias()
        schedule = WarmupCosine(0.02, steps=40, warmup_steps=10)
        updates = gradients(40)
        *_, expected = reference(values(variables), updates, [float(schedule(t)) for t in range(40)], 0.3, betas)
        optimizer = LayerDecayAdamW(schedule, weight_decay=0.3, beta_1=betas[0], beta_2=betas[1])
        apply = as_in_training(optimizer, variables)
        for grads in updates:
            apply(grads)
        assert_close(values(variables), expected)

    @pytest.mark.backends
    def test_first_step_is_exact(self):
        """It is the learning rate times g / (|g| + epsilon): the corrections take out what the betas put in."""
        g = np.float32([1e-8, 3e-8, 1e-3, -1.0, 40.0])
        variable = keras.Variable(np.zeros(5, "float32"), name="bias")
        as_in_training(LayerDecayAdamW(1.0), [variable])([g])
        np.testing.assert_allclose(values([variable])[0], -g / (abs(g) + 1e-8), rtol=1e-6)

    @pytest.mark.parametrize("weight_decay", [None, 0, 0.0])
    def test_no_weight_decay(self, weight_decay):
        variables = kernel_and_bias()
        before = values(variables)
        LayerDecayAdamW(weight_decay=weight_decay).apply(
            [np.zeros((3, 4), "float32"), np.zeros(4, "float32")], variables
        )
        for value, start in zip(values(variables), before):
            np.testing.assert_array_equal(value, start)

    @pytest.mark.backends
    @pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
    def test_clipping(self, clip):
        def clipped(grads):
            if clip == "clipvalue":
                return [np.clip(g, -0.7, 0.7) for g in grads]
            norms = [np.sqrt((g**2).sum()) for g in grads]
            if clip == "global_clipnorm":
                norms = [np.sqrt(sum(norm**2 for norm in norms))] * 2
            return [g * min(1, 0.7 / norm) for g, norm in zip(grads, norms)]

        variables = kernel_and_bias()
        # Small ones, which nothing clips, then large ones: AdamW alone would not notice a factor on all gradients.
        small, large = gradients(2)
        updates = [[g * 0.1 for g in small], large]
        assert all((a == b).all() for a, b in zip(clipped(updates[0]), updates[0]))
        *_, expected = reference(values(variables), map(clipped, updates), [0.01] * 2)
        apply = as_in_training(LayerDecayAdamW(0.01, **{clip: 0.7}), variables)
        for grads in updates:
            apply(grads)
        assert_close(values(variables), expected)

    @pytest.mark.backends
    def test_half_precision_weights(self):
        variables = [keras.Variable(v.value, dtype="bfloat16", name=v.name) for v in kernel_and_bias()]
        start = [np.float32(v) for v in values(variables)]
        (expected,) = reference(start, gradients(1), [0.01])
        as_in_training(LayerDecayAdamW(0.01), variables)(gradients(1)[0])
        for value, e in zip(values(variables), expected):
            np.testing.assert_allclose(np.float32(value), e, rtol=2**-8)

    @pytest.mark.backends
    def test_loss_scaling(self):
        variables, updates = kernel_and_bias(), gradients(3)
        *_, expected = reference(values(variables), updates, [0.01] * 3)
        optimizer = keras.optimizers.LossScaleOptimizer(LayerDecayAdamW(0.01), initial_scale=8.0)
        apply = as_in_training(optimizer, variables)
        apply([g * 8 for g in updates[0]])
        apply([np.full_like(g, np.inf) for g in updates[0]])
        for grads in updates[1:]:
            apply([g * 4 for g in grads])
        assert_close(values(variables), expected)
        assert float(optimizer.dynamic_scale) == 4


class TestAccumulation:
    STEPS = 3

    @pytest.mark.backends
    @pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 1.0}])
    def test_equals_steps_with_the_mean_gradient(self, clip):
        """With a schedule, and a moving average that becomes the weights every second time."""
        schedule = WarmupCosine(0.05, steps=5, warmup_steps=2)
        arguments = {"weight_decay": 0.3, "use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 2, **clip}
        once, accumulated = kernel_and_bias(), kernel_and_bias()
        one = LayerDecayAdamW(schedule, **arguments)
        many = LayerDecayAdamW(schedule, gradient_accumulation_steps=self.STEPS, **arguments)
        apply_one, apply_many = as_in_training(one, once), as_in_training(many, accumulated)
        for update in range(5):
            batches = gradients(self.STEPS, seed=update)
            for batch in batches[:-1]:
                before = values([*accumulated, *averages_and_momenta(many)])
                apply_many(batch)
                after = values([*accumulated, *averages_and_momenta(many)])
                assert all((a == b).all() for a, b in zip(after, before))
                assert float(many.learning_rate) == float(one.learning_rate)
            apply_many(batches[-1])
            apply_one([np.mean(grads, axis=0) for grads in zip(*batches)])
            assert int(many.iterations) == int(one.iterations) == update + 1
            assert_close(values(accumulated), values(once))
            assert_close(values(moving_averages(many)), values(moving_averages(one)))

    @pytest.mark.backends
    def test_moving_average_and_schedule(self):
        """The same against NumPy."""
        variables, batches = kernel_and_bias(), gradients(12)
        start = values(variables)
        updates = [[np.mean(grads, axis=0) for grads in zip(*batches[i : i + 3])] for i in range(0, 12, 3)]
        schedule = WarmupCosine(0.05, steps=4, warmup_steps=1)
        steps = [*reference(start, updates, [float(schedule(t)) for t in range(4)])]
        optimizer = LayerDecayAdamW(schedule, use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=3)
        apply = as_in_training(optimizer, variables)
        for batch in batches:
            apply(batch)
        average = steps[0]
        for weights in steps[1:]:
            average = [0.9 * a + 0.1 * w for a, w in zip(average, weights)]
        assert_close(values(variables), steps[-1])
        assert_close(values(moving_averages(optimizer)), average)
        optimizer.finalize_variable_values(variables)
        assert_close(values(variables), average)

    @pytest.mark.backends
    def test_loss_scaling(self):
        variables, batches = kernel_and_bias(), gradients(2)
        (expected,) = reference(values(variables), [[np.mean(grads, axis=0) for grads in zip(*batches)]], [0.01])
        inner = LayerDecayAdamW(0.01, gradient_accumulation_steps=2)
        apply = as_in_training(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0), variables)
        for grads in batches:
            apply([g * 2 for g in grads])
        assert_close(values(variables), expected)


class TestMovingAverage:
    @pytest.mark.backends
    @pytest.mark.parametrize("overwrite", [None, 3])
    def test_every_step(self, overwrite):
        variables = kernel_and_bias()
        optimizer = LayerDecayAdamW(0.1, use_ema=True, ema_momentum=0.999, ema_overwrite_frequency=overwrite)
        apply = as_in_training(optimizer, variables)
        averages = None
        for step, grads in enumerate(gradients(7), start=1):
            apply(grads)
            now = values(variables)
            if overwrite and step % overwrite == 0:
                assert_close(now, values(moving_averages(optimizer)), tolerance=0)
                averages = now  # what the weights were before is gone
                continue
            averages = now if averages is None else [0.999 * a + 0.001 * np.float64(w) for a, w in zip(averages, now)]
            assert_close(values(moving_averages(optimizer)), averages)


class TestSaving:
    ARGUMENTS = {
        "learning_rate": 0.25,
        "weight_decay": 0.3,
        "beta_1": 0.8,
        "beta_2": 0.95,
        "epsilon": 1e-6,
        "layer_decay": 0.75,
        "layer_decay_type": "group",
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": 3.0,
        "use_ema": True,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": 7,
        "loss_scale_factor": 4.0,
        "gradient_accumulation_steps": 2,
        "name": "mine",
    }

    def test_holds_every_argument(self):
        parameters = inspect.signature(LayerDecayAdamW).parameters
        assert self.ARGUMENTS.keys() == parameters.keys(), "a new argument belongs into this test and into get_config"
        same = {name for name, parameter in parameters.items() if parameter.default == self.ARGUMENTS[name]}
        assert same == {"clipnorm", "clipvalue"}  # only one way of clipping at a time
        config = LayerDecayAdamW(**self.ARGUMENTS).get_config()
        assert config == self.ARGUMENTS
        assert LayerDecayAdamW.from_config(config).get_config() == self.ARGUMENTS
        for clip in same:
            assert LayerDecayAdamW(**{clip: 0.5}).get_config()[clip] == 0.5

    def test_schedule_in_the_config(self):
        optimizer = LayerDecayAdamW(WarmupCosine(0.5, steps=10, warmup_steps=5), layer_decay=0.9)
        serialized = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
        again = keras.optimizers.deserialize(serialized)
        assert type(again) is LayerDecayAdamW
        assert float(again.learning_rate) == 0
        assert again.get_config() == optimizer.get_config()

    @pytest.mark.backends
    def test_keras_file_goes_on_where_it_was(self, tmp_path):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
        schedule = WarmupCosine(0.5, steps=10, warmup_steps=5)
        model.compile(LayerDecayAdamW(schedule, layer_decay=0.9, use_ema=True, gradient_accumulation_steps=2), "mse")
        first, second = gradients(3), gradients(3, seed=2)
        apply = as_in_training(model.optimizer, model.trainable_variables)
        for grads in first:
            apply(grads)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert type(again.optimizer) is LayerDecayAdamW
        for received, expected in zip(again.optimizer.variables, model.optimizer.variables):
            np.testing.assert_array_equal(*values([received, expected]))
        apply_again = as_in_training(again.optimizer, again.trainable_variables)
        for grads in second:
            apply(grads)
            apply_again(grads)
        for received, expected in zip(again.get_weights(), model.get_weights()):
            np.testing.assert_array_equal(received, expected)


class TestBadInput:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("layer_decay", 0),
            ("layer_decay", 1.1),
            ("layer_decay", "0.9"),
            ("layer_decay", True),
            ("layer_decay", None),
            ("layer_decay_type", "double"),
            ("weight_decay", -0.1),
            ("weight_decay", "0.05"),
            ("beta_1", 1.0),
            ("beta_2", -0.1),
            ("epsilon", 0.0),
            ("epsilon", math.nan),
        ],
    )
    def test_says_what_was_received(self, argument, value):
        with pytest.raises(ValueError, match=f"^{argument} must be .*Received: {argument}="):
            LayerDecayAdamW(**{argument: value})
